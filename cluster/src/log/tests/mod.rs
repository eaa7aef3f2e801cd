//! The log as its callers see it, on a disk whose power can be cut.

mod crashes;
mod fuzz;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::ports::entropy::SeededEntropy;
use crate::ports::fatal::RecordedFatal;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::offload::InlineOffload;

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);

/// A disk, and the process that uses it now: a new start kills the one before.
struct Host {
    disk: Arc<MemoryDisk>,
    process: Mutex<Process>,
    options: LogOptions,
}

#[derive(Clone, Default)]
struct Process {
    dead: Arc<AtomicBool>,
    fatal: Arc<RecordedFatal>,
}

/// The disk as a process sees it: not at all once it is dead.
struct Mount {
    disk: Arc<MemoryDisk>,
    dead: Arc<AtomicBool>,
}

impl Mount {
    fn alive(&self) -> Result<&MemoryDisk, DiskError> {
        let gone =
            || DiskError::Io { operation: "reach", name: String::new(), reason: "the process is dead".to_owned() };
        if self.dead.load(Ordering::SeqCst) { Err(gone()) } else { Ok(&self.disk) }
    }
}

impl Disk for Mount {
    fn create(&self, name: &str) -> Result<(), DiskError> {
        self.alive()?.create(name)
    }
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.alive()?.append(name, bytes)
    }
    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.alive()?.len(name)
    }
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.alive()?.read_at(name, offset, buffer)
    }
    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        self.alive()?.truncate(name, len)
    }
    fn sync_data(&self, name: &str) -> Result<(), DiskError> {
        self.alive()?.sync_data(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.alive()?.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.alive()?.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.alive()?.sync_dir()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.alive()?.list()
    }
}

impl Host {
    fn new() -> Host {
        Host::on(Arc::new(MemoryDisk::new()), LogOptions::default())
    }

    fn small_segments() -> Host {
        Host::on(Arc::new(MemoryDisk::new()), LogOptions { segment_bytes: 600, ..LogOptions::default() })
    }

    fn on(disk: Arc<MemoryDisk>, options: LogOptions) -> Host {
        Host { disk, process: Mutex::default(), options }
    }

    async fn try_open(&self) -> Result<(Log, Recovery), OpenError> {
        let process = Process::default();
        std::mem::replace(&mut *self.process.lock().unwrap(), process.clone()).dead.store(true, Ordering::SeqCst);
        let ports = LogPorts {
            disk: Arc::new(Mount { disk: Arc::clone(&self.disk), dead: process.dead }),
            offload: Arc::new(InlineOffload),
            fatal: process.fatal,
            entropy: Arc::new(SeededEntropy::new(5)),
        };
        Log::open(self.options, ports).await
    }

    /// Why the running process ended itself.
    fn fatal(&self) -> Vec<String> {
        self.process.lock().unwrap().fatal.reasons()
    }

    fn cut_power(&self, torn: usize) {
        self.process.lock().unwrap().dead.store(true, Ordering::SeqCst);
        self.disk.cut_power(|_, unsynced| unsynced.min(torn));
    }

    async fn open(&self) -> Log {
        self.try_open().await.unwrap().0
    }

    fn files(&self) -> Vec<String> {
        self.disk.list().unwrap()
    }

    fn last(&self) -> String {
        self.files().pop().unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        crate::ports::disk::read_all(&*self.disk, name, 1 << 30).unwrap()
    }

    /// Where a payload lies in a file.
    fn find(&self, name: &str, payload: &[u8]) -> usize {
        self.bytes(name).windows(payload.len()).position(|window| window == payload).unwrap()
    }
}

async fn entries(log: &Log, group: GroupId) -> Vec<(u64, Vec<u8>)> {
    let Some(Bounds { first, next: Some(next) }) = log.bounds(group) else { return Vec::new() };
    let mut all = Vec::new();
    while first + (all.len() as u64) < next {
        let more = log.read(group, first + all.len() as u64, next).await.unwrap();
        all.extend(more.into_iter().map(|entry| (entry.index, entry.payload)));
    }
    all
}

async fn idle() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledged_entries_and_states_survive_a_power_cut() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    log.append_all(B, 100, vec![b"hundred".to_vec(), Vec::new()]).await.unwrap();
    log.save_state(A, b"vote".to_vec()).await.unwrap();
    log.append(A, 2, b"two".to_vec()).await.unwrap();
    host.cut_power(0);
    let (log, recovery) = host.try_open().await.unwrap();
    assert_eq!(entries(&log, A).await, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    assert_eq!(entries(&log, B).await, [(100, b"hundred".to_vec()), (101, Vec::new())]);
    assert_eq!(log.state(A), Some(b"vote".to_vec()));
    assert_eq!(recovery.groups[&B], Bounds { first: 100, next: Some(102) });
    assert_eq!((recovery.dropped, recovery.corruptions), (None, Vec::new()));
    log.append(A, 3, b"three".to_vec()).await.unwrap();
    assert_eq!(host.fatal(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_appends_at_once_share_two_syncs() {
    let host = Host::new();
    let log = host.open().await;
    let before = host.disk.syncs();
    let appends: Vec<_> = (0..100)
        .map(|group| {
            let log = log.clone();
            tokio::spawn(async move { log.append(GroupId(group), 1, vec![7; 100]).await })
        })
        .collect();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    let syncs = host.disk.syncs() - before;
    assert!((1..=2).contains(&syncs), "{syncs} syncs");
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_marks_within_10_ms_of_a_sync_and_once() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let len = host.bytes(&host.last()).len();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let marked = host.bytes(&host.last());
    assert_eq!(marked.len(), len + format::MARK_BYTES);
    assert_eq!(format::highest_mark(&marked, 1, None), len as u64);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(host.bytes(&host.last()).len(), marked.len());
    assert_eq!(log.status().bytes, marked.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn rot_below_the_mark_names_segment_offset_and_group_and_refuses_to_open() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"first of A".to_vec()).await.unwrap();
    log.append(B, 1, b"first of B".to_vec()).await.unwrap();
    idle().await;
    drop(log);
    idle().await;
    let at = host.find(&host.last(), b"first of B");
    host.disk.flip(&host.last(), at, 4);
    let before = host.bytes(&host.last());
    let error = host.try_open().await.unwrap_err();
    let offset = (at - format::RECORD_HEADER_BYTES) as u64;
    let what = "entry 1 is not what was written".to_owned();
    assert_eq!(error, OpenError::Corrupt(vec![Corruption { segment: 1, offset, group: Some(B), what }]));
    let message = error.to_string();
    assert!(message.contains(&format!("wal-00000000000000000001.log at offset {offset}")), "{message}");
    assert!(message.ends_with("(group 2)"), "{message}");
    assert_eq!(host.bytes(&host.last()), before, "the evidence is left alone");
}

#[tokio::test(start_paused = true)]
async fn an_isolated_group_is_locked_until_destroyed_and_the_others_go_on() {
    let mut host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"first of A".to_vec()).await.unwrap();
    log.append(B, 1, b"first of B".to_vec()).await.unwrap();
    log.append(A, 2, b"second of A".to_vec()).await.unwrap();
    log.close().await.unwrap();
    host.disk.flip(&host.last(), host.find(&host.last(), b"first of B"), 4);
    host.options.on_corruption = OnCorruption::Isolate;
    let (log, recovery) = host.try_open().await.unwrap();
    assert_eq!(recovery.corruptions.iter().map(|corruption| corruption.group).collect::<Vec<_>>(), [Some(B)]);
    assert_eq!(entries(&log, A).await.len(), 2);
    assert!(matches!(log.read(B, 1, 2).await, Err(LogError::Corrupt(_))));
    assert_eq!(log.append(B, 2, b"more".to_vec()).await, Err(LogError::Locked(B)));
    log.append(A, 3, b"third of A".to_vec()).await.unwrap();
    log.destroy(B).await.unwrap();
    log.append(B, 7, b"new life".to_vec()).await.unwrap();
    log.close().await.unwrap();
    host.options.on_corruption = OnCorruption::Refuse;
    let log = host.open().await;
    assert_eq!(entries(&log, B).await, [(7, b"new life".to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_segment_is_corruption() {
    for lost in 0..2 {
        let host = Host::small_segments();
        let log = host.open().await;
        for index in 1..30 {
            log.append(A, index, vec![1; 100]).await.unwrap();
        }
        log.close().await.unwrap();
        assert!(host.files().len() > 4);
        host.disk.remove(&host.files()[lost]).unwrap();
        let error = host.try_open().await.unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_the_node_and_is_never_tried_again() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let before = host.disk.syncs();
    host.disk.fail_sync_after(0);
    let error = log.append(A, 2, b"two".to_vec()).await.unwrap_err();
    assert!(matches!(&error, LogError::Failed(reason) if reason.contains("injected fault")), "{error}");
    assert!(!error.nothing_written());
    assert_eq!(host.fatal().len(), 1);
    host.disk.fail_sync_after(100);
    assert!(matches!(log.append(A, 2, b"two".to_vec()).await, Err(LogError::Failed(_))));
    idle().await;
    drop(log);
    idle().await;
    assert_eq!(host.disk.syncs(), before, "nothing was synced after the failure");
    assert_eq!(host.fatal().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    idle().await;
    let used = host.bytes(&host.last()).len() as u64;
    host.disk.set_capacity(Some(used + 60));
    let error = log.append(A, 2, vec![2; 100]).await.unwrap_err();
    assert_eq!(error, LogError::Full);
    assert!(error.nothing_written() && log.status().disk_full);
    assert_eq!(host.bytes(&host.last()).len() as u64, used, "the torn end is cut");
    assert_eq!(entries(&log, A).await, [(1, b"one".to_vec())]);
    host.disk.set_capacity(None);
    log.append(A, 2, b"two".to_vec()).await.unwrap();
    assert!(!log.status().disk_full);
    assert_eq!(host.fatal(), [""; 0]);
    host.cut_power(0);
    assert_eq!(entries(&host.open().await, A).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_disk_full_at_the_border_of_a_segment_leaves_no_half_begun_one() {
    let host = Host::small_segments();
    let log = host.open().await;
    for index in 1..4 {
        log.append(A, index, vec![1; 80]).await.unwrap();
    }
    assert_eq!(host.files().len(), 1);
    idle().await;
    host.disk.set_capacity(Some(host.bytes(&host.last()).len() as u64 + 10));
    assert_eq!(log.append(A, 4, vec![1; 80]).await, Err(LogError::Full));
    assert_eq!(host.files().len(), 1);
    host.disk.set_capacity(None);
    log.append(A, 4, vec![1; 80]).await.unwrap();
    assert_eq!(host.files().len(), 2);
    host.cut_power(0);
    assert_eq!(entries(&host.open().await, A).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn segments_go_when_every_group_is_purged_past_them() {
    let host = Host::small_segments();
    let log = host.open().await;
    log.save_state(B, b"vote of B".to_vec()).await.unwrap();
    log.append(B, 1, b"pins".to_vec()).await.unwrap();
    for index in 1..40 {
        log.append(A, index, vec![1; 100]).await.unwrap();
    }
    let before = host.files().len();
    log.purge(A, 38).await.unwrap();
    log.append(A, 40, vec![1; 10]).await.unwrap();
    assert_eq!(host.files().first().unwrap(), "wal-00000000000000000001.log", "B still needs it");
    log.purge(B, 1).await.unwrap();
    log.append(A, 41, vec![1; 10]).await.unwrap();
    assert!(before > 8 && host.files().len() <= 3, "{} of {before} left", host.files().len());
    host.cut_power(0);
    let log = host.open().await;
    assert_eq!(log.state(B), Some(b"vote of B".to_vec()), "carried over by the checkpoints");
    assert_eq!(log.bounds(B), Some(Bounds { first: 2, next: Some(2) }));
    assert_eq!(entries(&log, A).await.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [39, 40, 41]);
}

#[tokio::test(start_paused = true)]
async fn truncated_entries_stay_gone_and_are_written_anew() {
    let host = Host::small_segments();
    let log = host.open().await;
    for index in 1..10 {
        log.append(A, index, format!("old {index}").into_bytes()).await.unwrap();
    }
    log.truncate(A, 4).await.unwrap();
    log.append(A, 4, b"new 4".to_vec()).await.unwrap();
    host.cut_power(0);
    let log = host.open().await;
    assert_eq!(entries(&log, A).await.last(), Some(&(4, b"new 4".to_vec())));
    log.purge(A, 2).await.unwrap();
    assert!(matches!(log.truncate(A, 2).await, Err(LogError::OutOfOrder { expected: 3, got: 2, .. })));
}

#[tokio::test(start_paused = true)]
async fn refusals_write_nothing() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    idle().await;
    let before = host.bytes(&host.last());
    assert_eq!(log.append(A, 1, b"again".to_vec()).await, Err(LogError::OutOfOrder { group: A, expected: 2, got: 1 }));
    let bytes_max = LOG_RECORD_BYTES_MAX;
    let too_large = log.append(A, 2, vec![0; bytes_max + 1]).await;
    assert_eq!(too_large, Err(LogError::TooLarge { bytes: bytes_max + 1, bytes_max }));
    assert!(matches!(log.save_state(A, vec![0; LOG_STATE_BYTES_MAX + 1]).await, Err(LogError::TooLarge { .. })));
    assert!(matches!(log.append_all(A, 2, vec![vec![0; bytes_max]; 5]).await, Err(LogError::TooLarge { .. })));
    assert_eq!(log.read(A, 1, 3).await, Err(LogError::NoEntry { group: A, index: 2 }));
    assert_eq!(host.bytes(&host.last()), before);
    log.close().await.unwrap();
    assert_eq!(log.append(A, 2, b"two".to_vec()).await, Err(LogError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_group_is_due_for_a_snapshot_after_so_many_bytes() {
    let host = Host::new();
    let log = host.open().await;
    let megabyte = vec![3; LOG_RECORD_BYTES_MAX];
    for index in 1..=63 {
        log.append(A, index, megabyte.clone()).await.unwrap();
    }
    assert!(!log.snapshot_due(A, None));
    log.append(A, 64, megabyte).await.unwrap();
    assert!(log.snapshot_due(A, None));
    assert!(!log.snapshot_due(A, Some(1)) && !log.snapshot_due(B, None));
    let largest_read = log.read(A, 1, 65).await.unwrap().len();
    assert!(largest_read < 5, "{largest_read} entries read at once");
}

#[tokio::test(start_paused = true)]
async fn memory_durability_outlives_the_process_and_not_the_power() {
    let mut host = Host::new();
    host.options.durability = Durability::Memory;
    let log = host.open().await;
    let before = host.disk.syncs();
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    assert_eq!(host.disk.syncs(), before);
    let killed = Host::on(Arc::new(host.disk.copy()), host.options);
    assert_eq!(entries(&killed.open().await, A).await.len(), 1);
    host.cut_power(0);
    let log = host.open().await;
    assert_eq!(entries(&log, A).await.len(), 0);
    // But for what is never to be forgotten, and what was written before it.
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    log.append_synced(A, 2, vec![b"two".to_vec()]).await.unwrap();
    log.append(A, 3, b"three".to_vec()).await.unwrap();
    host.cut_power(0);
    let log = host.open().await;
    assert_eq!(entries(&log, A).await.len(), 2);
    log.save_state(A, b"voted".to_vec()).await.unwrap();
    host.cut_power(0);
    assert_eq!(host.open().await.state(A), Some(b"voted".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn what_a_full_disk_refused_does_not_come_back_with_the_power() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let used: u64 = host.files().iter().map(|name| host.disk.len(name).unwrap()).sum();
    // The first of two entries fits, and so lies on the disk as a whole frame.
    host.disk.set_capacity(Some(used + 200));
    let refused = log.append_all(A, 2, vec![b"two".to_vec(), vec![7; 1_000]]).await;
    assert_eq!(refused, Err(LogError::Full));
    host.cut_power(usize::MAX);
    let log = host.open().await;
    assert_eq!(entries(&log, A).await, [(1, b"one".to_vec())]);
    log.append(A, 2, b"other".to_vec()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_truncation_that_cannot_be_synced_ends_the_node() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let used: u64 = host.files().iter().map(|name| host.disk.len(name).unwrap()).sum();
    host.disk.set_capacity(Some(used + 50));
    host.disk.fail_sync_after(0);
    let refused = log.append(A, 2, vec![7; 1_000]).await;
    assert!(matches!(refused, Err(LogError::Failed(_))), "{refused:?}");
    assert_eq!(host.fatal().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_found_to_have_room_again_without_anybody_writing() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let used: u64 = host.files().iter().map(|name| host.disk.len(name).unwrap()).sum();
    host.disk.set_capacity(Some(used + 50));
    assert_eq!(log.append(A, 2, vec![7; 1_000]).await, Err(LogError::Full));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(log.status().disk_full, "a mark would fit, an entry would not");
    let len = host.bytes(&host.last()).len();
    host.disk.set_capacity(None);
    tokio::time::sleep(Duration::from_millis(crate::limits::LOG_FULL_PROBE_MS + 10)).await;
    assert!(!log.status().disk_full);
    assert_eq!(host.bytes(&host.last()).len(), len, "the probe leaves nothing");
    log.append(A, 2, b"two".to_vec()).await.unwrap();
    host.cut_power(0);
    let log = host.open().await;
    assert_eq!(entries(&log, A).await, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    assert_eq!(host.fatal(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_a_power_cut_left_there_is_no_entry() {
    let host = Host::new();
    let log = host.open().await;
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    idle().await;
    host.disk.append(&host.last(), &vec![0; crate::limits::LOG_PROBE_BYTES]).unwrap();
    host.cut_power(usize::MAX);
    let (log, recovery) = host.try_open().await.unwrap();
    assert_eq!(recovery.dropped.map(|dropped| dropped.bytes), Some(crate::limits::LOG_PROBE_BYTES as u64));
    assert_eq!(entries(&log, A).await, [(1, b"one".to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_gone_is_missed_and_nothing_is_written() {
    let host = Host::new();
    let log = host.open().await;
    let id = log.id();
    log.append(A, 1, b"one".to_vec()).await.unwrap();
    let known = Host::on(Arc::clone(&host.disk), LogOptions { expected: Some(id), ..LogOptions::default() });
    assert_eq!(known.open().await.id(), id);
    for name in host.files() {
        host.disk.remove(&name).unwrap();
    }
    for _ in 0..2 {
        let error = known.try_open().await.unwrap_err();
        assert_eq!(error, OpenError::Missing { expected: id, found: None });
        assert_eq!(host.files(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_waits_for_what_nobody_waits_for_any_more() {
    let host = Host::new();
    let log = host.open().await;
    drop(log.submit(A, 1, vec![b"one".to_vec()]).await.unwrap());
    assert_eq!(log.bounds(A), None);
    log.settle().await.unwrap();
    assert_eq!(log.bounds(A), Some(Bounds { first: 1, next: Some(2) }));
    log.close().await.unwrap();
    assert_eq!(log.settle().await, Err(LogError::Closed));
}
