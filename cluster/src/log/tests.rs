//! The log as its callers see it, on a disk whose power can be cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

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
}

/// One thing that a caller does.
#[derive(Clone, Debug)]
enum Act {
    Append { group: u64, bytes: usize, count: usize },
    State { group: u64 },
    Truncate { group: u64, back: u64 },
    Purge { group: u64, keep: u64 },
    Destroy { group: u64 },
    Idle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let group = 0..3_u64;
    let act = prop_oneof![
        8 => (group.clone(), 0..120_usize, 1..4_usize)
            .prop_map(|(group, bytes, count)| Act::Append { group, bytes, count }),
        1 => group.clone().prop_map(|group| Act::State { group }),
        1 => (group.clone(), 0..4_u64).prop_map(|(group, back)| Act::Truncate { group, back }),
        1 => (group.clone(), 0..4_u64).prop_map(|(group, keep)| Act::Purge { group, keep }),
        1 => group.prop_map(|group| Act::Destroy { group }),
        2 => Just(Act::Idle),
    ];
    prop::collection::vec(act, 1..40)
}

/// What the log should hold: the naive version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    groups: BTreeMap<u64, ModelGroup>,
    written: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelGroup {
    first: u64,
    entries: Vec<Vec<u8>>,
    state: Option<Vec<u8>>,
}

impl Model {
    /// Does what the act says, here and in the log; the log's answer.
    async fn act(&mut self, log: &Log, act: &Act) -> Result<(), LogError> {
        self.written += 1;
        let stamp = self.written;
        let next = |group: u64, model: &Model| model.groups.get(&group).map_or(1, |g| g.first + g.entries.len() as u64);
        match *act {
            Act::Append { group, bytes, count } => {
                let first = next(group, self);
                let payload = |n: usize| [&stamp.to_le_bytes()[..], &n.to_le_bytes()[..], &vec![9; bytes]].concat();
                let payloads: Vec<_> = (0..count).map(payload).collect();
                let known = self.groups.entry(group).or_insert(ModelGroup { first, ..ModelGroup::default() });
                known.entries.extend(payloads.clone());
                log.append_all(GroupId(group), first, payloads).await
            }
            Act::State { group } => {
                let known = self.groups.entry(group).or_insert(ModelGroup { first: 1, ..ModelGroup::default() });
                known.state = Some(stamp.to_le_bytes().to_vec());
                log.save_state(GroupId(group), stamp.to_le_bytes().to_vec()).await
            }
            Act::Truncate { group, back } => {
                let Some(known) = self.groups.get_mut(&group).filter(|known| !known.entries.is_empty()) else {
                    return Ok(());
                };
                let keep = known.entries.len().saturating_sub(back as usize);
                known.entries.truncate(keep);
                log.truncate(GroupId(group), known.first + keep as u64).await
            }
            Act::Purge { group, keep } => {
                let Some(known) = self.groups.get_mut(&group).filter(|known| !known.entries.is_empty()) else {
                    return Ok(());
                };
                let drop = known.entries.len().saturating_sub(keep as usize);
                known.entries.drain(..drop);
                known.first += drop as u64;
                log.purge(GroupId(group), known.first - 1).await
            }
            Act::Destroy { group } => {
                self.groups.remove(&group);
                log.destroy(GroupId(group)).await
            }
            Act::Idle => {
                idle().await;
                Ok(())
            }
        }
    }
}

/// What the log holds. An entry that cannot be read is an error.
async fn contents(log: &Log, recovery: &Recovery) -> Result<BTreeMap<u64, ModelGroup>, LogError> {
    let mut groups = BTreeMap::new();
    for (&id, bounds) in &recovery.groups {
        let next = bounds.next.unwrap_or(bounds.first);
        let mut found = ModelGroup { first: bounds.next.map_or(1, |_| bounds.first), ..ModelGroup::default() };
        found.state = log.state(id);
        while found.first + (found.entries.len() as u64) < next {
            let from = found.first + found.entries.len() as u64;
            found.entries.extend(log.read(id, from, next).await?.into_iter().map(|entry| entry.payload));
        }
        groups.insert(id.0, found);
    }
    Ok(groups)
}

/// Whether `found` is `before` with a part of one more act: some of its entries, or all that it changes.
fn lies_between(before: &Model, found: &BTreeMap<u64, ModelGroup>, after: &Model) -> bool {
    let names = before.groups.keys().chain(after.groups.keys()).chain(found.keys());
    names.into_iter().all(|name| {
        let (old, new, now) = (before.groups.get(name), after.groups.get(name), found.get(name));
        let part = |now: &ModelGroup, new: &ModelGroup| {
            let enough = now.entries.len() >= old.map_or(0, |old| old.entries.len());
            enough && now.first == new.first && now.state == new.state && new.entries.starts_with(&now.entries)
        };
        now == old || now == new || now.zip(new).is_some_and(|(now, new)| part(now, new))
    })
}

fn on_paused_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// Does the acts until one fails; what was acknowledged, and that with the act that was not.
async fn run(log: &Log, acts: &[Act]) -> (Model, Model) {
    let mut acknowledged = Model::default();
    for act in acts {
        let mut attempted = acknowledged.clone();
        if attempted.act(log, act).await.is_err() {
            return (acknowledged, attempted);
        }
        acknowledged = attempted;
    }
    (acknowledged.clone(), acknowledged)
}

/// Every disk call of a run that begins, fills, purges and removes segments is the last one before the power goes, and the
/// unsynced end is torn in several ways: what was acknowledged is there, nothing is called corrupt, and the log goes on.
#[test]
fn power_cut_at_every_disk_call_loses_nothing_acknowledged() {
    let append = |group, bytes| Act::Append { group, bytes, count: 2 };
    let mut acts = vec![Act::State { group: 0 }, append(2, 10), Act::State { group: 2 }];
    for round in 0..12 {
        acts.extend([append(0, 60), append(1, 30)]);
        if round % 3 == 1 {
            acts.extend([Act::Idle, Act::Truncate { group: 0, back: 1 }, Act::Purge { group: 1, keep: 1 }]);
        }
        if round % 4 == 3 {
            acts.extend([Act::Purge { group: 0, keep: 0 }, Act::Purge { group: 2, keep: 0 }, Act::Idle]);
        }
    }
    on_paused_runtime(async {
        let mut cuts = 0;
        for calls in 0.. {
            let mut finished = false;
            for torn in [0, 1, 30, 41, 75, 150, usize::MAX] {
                let host = Host::small_segments();
                host.disk.fail_after(calls);
                let (acknowledged, attempted) = match host.try_open().await {
                    Ok((log, _)) => run(&log, &acts).await,
                    Err(_) => (Model::default(), Model::default()),
                };
                finished = host.fatal().is_empty() && !acknowledged.groups.is_empty();
                host.cut_power(torn);
                let (log, recovery) = host.try_open().await.unwrap();
                let found = contents(&log, &recovery).await.unwrap();
                assert!(
                    lies_between(&acknowledged, &found, &attempted),
                    "after {calls} calls, {torn} torn bytes:\n{acknowledged:?}\n{found:?}\n{attempted:?}"
                );
                log.append(GroupId(9), 1, b"goes on".to_vec()).await.unwrap();
                cuts += 1;
            }
            if finished {
                break;
            }
        }
        assert!(cuts > 500, "only {cuts} cuts");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Several lives, each ended by a power cut at some disk call with a torn end of some length.
    #[test]
    fn any_run_of_power_cuts_loses_nothing_acknowledged(
        lives in prop::collection::vec((acts(), 0..80_u64, 0..300_usize), 1..4),
    ) {
        on_paused_runtime(async {
            let host = Host::small_segments();
            let mut known = Model::default();
            for (acts, calls, torn) in lives {
                host.disk.fail_after(calls);
                let mut attempted = known.clone();
                if let Ok((log, _)) = host.try_open().await {
                    for act in &acts {
                        attempted = known.clone();
                        if attempted.act(&log, act).await.is_err() {
                            break;
                        }
                        known = attempted.clone();
                    }
                }
                host.cut_power(torn);
                let (log, recovery) = host.try_open().await.unwrap();
                let found = contents(&log, &recovery).await.unwrap();
                assert!(lies_between(&known, &found, &attempted), "{known:?}\n{found:?}\n{attempted:?}");
                known.groups = found;
                known.written += 1;
            }
        });
    }

    /// One flipped bit anywhere in the files of a closed log: all of it is synced and marked but the last mark itself, so
    /// nothing is ever lost in silence.
    #[test]
    fn a_flipped_bit_is_reported_or_harmless(acts in acts(), file: prop::sample::Index, bit: prop::sample::Index) {
        on_paused_runtime(async {
            let host = Host::small_segments();
            let log = host.open().await;
            let (model, _) = run(&log, &acts).await;
            log.close().await.unwrap();
            let name = file.get(&host.files()).clone();
            let bit = bit.index(host.bytes(&name).len() * 8);
            host.disk.flip(&name, bit / 8, 1 << (bit % 8));
            match host.try_open().await {
                Ok((log, recovery)) => {
                    let found = contents(&log, &recovery).await.unwrap();
                    assert!(lies_between(&model, &found, &model), "{model:?}\n{found:?}");
                }
                Err(OpenError::Corrupt(found)) => assert!(!found.is_empty()),
                Err(other) => panic!("{other}"),
            }
        });
    }

    /// A power cut, and rot above the highest mark: a prefix is left that holds what was marked.
    #[test]
    fn rot_above_the_mark_leaves_a_prefix(acts in acts(), bit: prop::sample::Index) {
        on_paused_runtime(async {
            let host = Host::on(Arc::new(MemoryDisk::new()), LogOptions::default());
            let log = host.open().await;
            let appends = |act: &Act| matches!(act, Act::Append { .. });
            let (model, _) = run(&log, &acts.into_iter().filter(appends).collect::<Vec<_>>()).await;
            host.cut_power(0);
            let bytes = host.bytes(&host.last());
            let marked = format::highest_mark(&bytes, 1, None) as usize;
            let at = marked * 8 + bit.index((bytes.len() - marked) * 8);
            host.disk.flip(&host.last(), at / 8, 1 << (at % 8));
            let (log, recovery) = host.try_open().await.unwrap();
            let found = contents(&log, &recovery).await.unwrap();
            for (name, group) in &found {
                assert!(model.groups[name].entries.starts_with(&group.entries));
            }
            let dropped = recovery.dropped.map_or(bytes.len() as u64, |dropped| dropped.offset);
            assert!(dropped >= marked as u64);
        });
    }

    /// Files full of anything: an error or an empty log, never a panic.
    #[test]
    fn arbitrary_files_never_panic(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4)) {
        on_paused_runtime(async {
            let host = Host::new();
            for (number, bytes) in files.iter().enumerate() {
                let name = recover::segment_name(number as u64 + 1);
                host.disk.create(&name).unwrap();
                host.disk.append(&name, bytes).unwrap();
            }
            if let Ok((_, recovery)) = host.try_open().await {
                assert_eq!((files.len(), recovery.groups.len()), (1, 0));
            }
        });
    }
}
