//! Disks that are full, rotten or not whole, and groups that nobody writes to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::command::{Leader, Position, PutProfile, ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;

use super::world::*;
use crate::config::Config;
use crate::error::{Error, StartError};
use crate::groups::{Group, Groups, ProposeShard, RaftGroups};
use crate::handle::Handle;
use crate::identity::{Belonging, FOUNDER};
use crate::limits::LOG_FULL_PROBE_MS;
use crate::log::{Durability, GroupId, Log, LogOptions, LogPorts};
use crate::meta::command::Founding;
use crate::ports::disk::Disk;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::offload::{InlineOffload, Lane, Offload, Running, Step};
use crate::ports::propose::{Gone, InstallError, Machine, Pending, Pieces, Proposed, Replicated};
use crate::post::{PeerCarrier, Ways};
use crate::raft::ReplicaPorts;
use crate::shard::leader::Command as ShardEntry;
use crate::snapshots::Snapshots;
use crate::start::start;
use crate::timing::Timing;

async fn try_node(disk: &Arc<MemoryDisk>, name: &str) -> Result<Handle, StartError> {
    let (ports, _) = ports(Arc::clone(disk) as _, 7);
    start(Config::founding(name, 2), ports).await
}

/// A disk that a node was shut down on in order, after each of twenty customers got an offer that is given once.
async fn used(name: &str) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::new());
    let handle = try_node(&disk, name).await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    take(&handle, 0..20).await;
    handle.shutdown().await;
    disk
}

async fn take(handle: &Handle, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(decide(handle, number).await.unwrap().decision.propositions.len(), 1);
    }
}

async fn all_is_there(handle: &Handle, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert!(decide(handle, number).await.unwrap().decision.propositions.is_empty(), "the unit is still held");
    }
}

fn files(disk: &MemoryDisk, prefix: &str) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with(prefix) && !name.ends_with(".bad")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_without_its_log_does_not_start() {
    let disk = used("whole").await;
    for name in files(&disk, "wal-") {
        disk.remove(&name).unwrap();
    }
    let before = disk.list().unwrap();
    for name in ["first", "second"] {
        let error = try_node(&disk, name).await.unwrap_err().to_string();
        assert!(error.contains("write-ahead log is missing"), "{error}");
        assert_eq!(disk.list().unwrap(), before, "nothing is founded, nothing is changed");
    }
    // Nor one without its snapshots besides: it would found another cluster.
    for name in files(&disk, "snap-") {
        disk.remove(&name).unwrap();
    }
    assert!(try_node(&disk, "third").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_snapshot_costs_nothing_while_the_log_is_whole() {
    let disk = used("rotting").await;
    for name in files(&disk, "snap-") {
        disk.flip(&name, 30, 1);
    }
    // The second start finds them set aside.
    for name in ["first", "second"] {
        let handle = try_node(&Arc::new(disk.copy()), name).await.unwrap();
        all_is_there(&handle, 0..20).await;
        let handle = try_node(&disk, &format!("{name} again")).await.unwrap();
        all_is_there(&handle, 0..20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_sound_snapshot_and_no_log_holds_is_missed_at_every_start() {
    let disk = used("purged").await;
    for round in 1..3 {
        let handle = try_node(&disk, &format!("purged-{round}")).await.unwrap();
        take(&handle, round * 20..round * 20 + 20).await;
        handle.shutdown().await;
    }
    for name in files(&disk, "snap-") {
        disk.flip(&name, 30, 1);
    }
    for name in ["first", "second"] {
        let error = try_node(&disk, name).await.unwrap_err().to_string();
        assert!(error.contains("there is no sound snapshot"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_makes_the_node_unready_until_there_is_room() {
    let disk = Arc::new(MemoryDisk::new());
    let handle = try_node(&disk, "full").await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    assert!(handle.status().ready);
    disk.set_capacity(Some(0));
    // The one that finds it out has written half of something: it cannot be said that nothing will come of it.
    assert_eq!(decide(&handle, 1).await.unwrap_err(), Error::Unknown);
    for number in 2..6 {
        let begun = tokio::time::Instant::now();
        assert!(matches!(decide(&handle, number).await, Err(Error::Unavailable { .. })));
        assert!(begun.elapsed() < Duration::from_millis(100), "nobody is kept waiting");
    }
    let status = handle.status();
    assert!(!status.ready && status.reasons[0].contains("disk is full"), "{status:?}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!handle.status().ready);
    disk.set_capacity(None);
    tokio::time::sleep(Duration::from_millis(LOG_FULL_PROBE_MS + 10)).await;
    assert!(handle.status().ready, "{:?}", handle.status());
    take(&handle, 2..6).await;
    all_is_there(&handle, 1..2).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_disk_is_full_still_shuts_down() {
    let disk = Arc::new(MemoryDisk::new());
    let handle = try_node(&disk, "stuffed").await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    take(&handle, 0..20).await;
    disk.set_capacity(Some(0));
    assert_eq!(decide(&handle, 21).await.unwrap_err(), Error::Unknown);
    tokio::time::timeout(Duration::from_secs(60), handle.shutdown()).await.expect("it does not wait for room");
    disk.set_capacity(None);
    let handle = try_node(&disk, "roomy").await.unwrap();
    all_is_there(&handle, 0..20).await;
}

/// Long work takes its time.
struct SlowBulk;

impl Offload for SlowBulk {
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
        let job = InlineOffload.run(lane, steps);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(if lane == Lane::Bulk { 400 } else { 0 })).await;
            job.await;
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_ends_when_everything_acknowledged_decides() {
    let disk = Arc::new(MemoryDisk::new());
    let handle = try_node(&disk, "abrupt").await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    change(&handle, offer("one", 50, vec![profile_cap(1)])).await;
    // No snapshot was made: the catalogue is in the log alone.
    disk.cut_power(|_, _| 0);
    let (mut ports, _) = ports(Arc::clone(&disk) as _, 8);
    ports.offload = Arc::new(SlowBulk);
    let handle = start(Config::founding("slow", 2), ports).await.unwrap();
    assert!(handle.tenant(&tenant()).is_some_and(|view| view.catalog.offers().key_of("one").is_some()));
    assert!(handle.status().ready, "{:?}", handle.status());
}

/// A shard without an actor.
#[derive(Default)]
pub(super) struct Bare(Mutex<(ShardState, Position)>);

impl Machine<ShardEntry, Outcome> for Bare {
    fn apply(&self, position: Position, commands: Vec<ShardEntry>) -> Pending<'_, Result<Vec<Outcome>, Gone>> {
        Box::pin(async move {
            let mut held = self.0.lock().unwrap();
            held.1 = position;
            Ok(commands.iter().map(|command| apply(&mut held.0, position, command)).collect())
        })
    }
}

impl Replicated<ShardEntry, Outcome> for Bare {
    fn share(&self) -> Pending<'_, Result<Pieces, Gone>> {
        let state = self.0.lock().unwrap().0.clone();
        let pieces: Pieces = Box::new(move || state.encode_chunks().collect());
        Box::pin(async move { Ok(pieces) })
    }

    fn install(&self, _: Position, _: Vec<Vec<u8>>) -> Pending<'_, Result<(), InstallError>> {
        unreachable!("there is nobody to send a state")
    }

    fn abandon(&self, reason: &str) {
        panic!("{reason}");
    }
}

pub(super) struct Kept {
    pub(super) groups: RaftGroups,
    pub(super) log: Log,
}

impl Kept {
    pub(super) async fn on(disk: &Arc<MemoryDisk>, options: LogOptions) -> Self {
        let (ports, fatal) = ports(Arc::clone(disk) as _, 7);
        let log_ports = LogPorts {
            disk: Arc::clone(&ports.disk),
            offload: Arc::clone(&ports.offload),
            fatal: Arc::clone(&fatal) as _,
            entropy: Arc::clone(&ports.entropy),
        };
        let (log, _) = Log::open(options, log_ports).await.unwrap();
        let snapshots = Snapshots::open(ports.disk, fatal).unwrap();
        let seats = Belonging::founder(Founding { secret: [7; 16], shards: 2 }).seats;
        let groups = RaftGroups::new(
            FOUNDER,
            seats,
            ReplicaPorts {
                log: log.clone(),
                snapshots,
                offload: ports.offload,
                entropy: ports.entropy,
                carrier: Arc::new(PeerCarrier(Ways::default())),
                timing: Timing::Fast,
                was_unsynced: false,
                building: Arc::default(),
                pace: Arc::default(),
            },
        );
        Kept { groups, log }
    }

    pub(super) async fn shard(&self, shard: u16) -> Result<(Arc<Bare>, ProposeShard), StartError> {
        let (state, applied) = self.groups.recover_shard(ShardId(shard)).await?;
        let bare = Arc::new(Bare(Mutex::new((state, applied))));
        let propose = self.groups.shard(ShardId(shard), Arc::clone(&bare) as _);
        propose.leader().wait_for(Option::is_some).await.unwrap();
        Ok((bare, propose))
    }

    pub(super) async fn keep(&self, shard: u16) -> Result<(), String> {
        self.groups.keep(Group::Shard(ShardId(shard))).await
    }
}

pub(super) async fn put(propose: &ProposeShard, number: usize) {
    let attributes = Some(vec![("text".to_owned(), Value::text("x".repeat(100)))]);
    let op =
        ShardOp::PutProfile(PutProfile { tenant: tenant(), customer: customer(number), attributes, segments: None });
    let leader: Leader = propose.leader().borrow().expect("it leads");
    let command = ShardCommandV1 { now: Timestamp(NOON), leader, revision: Revision(0), op };
    let proposed = propose.propose(vec![Arc::new(ShardCommand::V1(command))], leader).await;
    assert!(matches!(proposed, Proposed::Applied(_)), "{proposed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_finds_no_room_costs_nothing() {
    let disk = Arc::new(MemoryDisk::new());
    let node = Kept::on(&disk, LogOptions::default()).await;
    let (bare, propose) = node.shard(0).await.unwrap();
    for round in 0..3 {
        for number in 0..10 {
            put(&propose, round * 10 + number).await;
        }
        disk.set_capacity(Some(0));
        let error = node.keep(0).await.unwrap_err();
        assert!(error.contains("full"), "{error}");
        disk.set_capacity(None);
        if round > 0 {
            node.keep(0).await.unwrap();
        }
    }
    assert_eq!(profiles(&bare), 30);
    node.log.close().await.unwrap();
    assert_eq!(profiles(&Kept::on(&disk, LogOptions::default()).await.shard(0).await.unwrap().0), 30);
}

pub(super) fn profiles(bare: &Bare) -> usize {
    bare.0.lock().unwrap().0.profiles_of(&tenant()).count()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_ahead_of_its_log_is_gone_on_from_in_memory_only() {
    let disk = Arc::new(MemoryDisk::new());
    let memory = LogOptions { durability: Durability::Memory, ..LogOptions::default() };
    let node = Kept::on(&disk, memory).await;
    let (_, propose) = node.shard(0).await.unwrap();
    for number in 0..10 {
        put(&propose, number).await;
    }
    node.keep(0).await.unwrap();
    disk.cut_power(|_, _| 0);
    let strict = Kept::on(&Arc::new(disk.copy()), LogOptions::default()).await;
    let error = strict.shard(0).await.err().unwrap().to_string();
    assert!(error.contains("a part of it is missing"), "{error}");
    for lives in 0..3 {
        let node = Kept::on(&disk, memory).await;
        let (bare, propose) = node.shard(0).await.unwrap();
        assert_eq!(profiles(&bare), 10 + lives);
        put(&propose, 100 + lives).await;
        // The process ends, the power stays.
        node.log.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_nobody_writes_to_does_not_keep_the_log_for_ever() {
    let disk = Arc::new(MemoryDisk::new());
    let small = LogOptions { segment_bytes: 2_000, unpinning_bytes: 20_000, ..LogOptions::default() };
    let node = Kept::on(&disk, small).await;
    let (_, propose) = node.shard(0).await.unwrap();
    for number in 0..10 {
        put(&propose, number).await;
        if number % 5 == 4 {
            node.keep(0).await.unwrap();
        }
    }
    let (_, propose) = node.shard(1).await.unwrap();
    for number in 0..300 {
        put(&propose, number).await;
        if number % 100 == 99 {
            node.keep(1).await.unwrap();
        }
    }
    let quiet = Group::Shard(ShardId(0));
    assert!(node.groups.is_snapshot_due(quiet), "{:?}", node.log.status());
    // A newest snapshot that is rotten is not relied upon.
    let newest = files(&disk, "snap-00000000000000000002-").pop().unwrap();
    disk.flip(&newest, 40, 1);
    let before = node.log.bounds(GroupId(2));
    assert!(node.keep(0).await.is_err());
    assert_eq!(node.log.bounds(GroupId(2)), before);
    disk.flip(&newest, 40, 1);
    let segments = node.log.status().segments;
    node.keep(0).await.unwrap();
    assert!(!node.groups.is_snapshot_due(quiet));
    assert!(node.log.status().segments < segments / 2, "{:?}", node.log.status());
    node.log.close().await.unwrap();
    let node = Kept::on(&disk, small).await;
    assert_eq!(profiles(&node.shard(0).await.unwrap().0), 10);
    let (busy, propose) = node.shard(1).await.unwrap();
    assert_eq!(profiles(&busy), 300);
    put(&propose, 300).await;
}
