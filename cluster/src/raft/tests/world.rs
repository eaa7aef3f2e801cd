//! Replicas of one group with what they stand on: disks that outlive them, and a carrier that can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::keys::Revision;
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::{Leader, Position, ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::time::Timestamp;

use super::super::members::StepError;
use super::super::{Carrier, Commands, Erased, RaftAnswer, RaftMessage, Replica, ReplicaPorts, Seat, Step, Unreached};
use crate::log::{Log, LogOptions, LogPorts};
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::fatal::RecordedFatal;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::offload::InlineOffload;
use crate::ports::propose::{Gone, InstallError, Machine, Pending, Pieces, Proposed, Replicated};
use crate::raft::Results;
use crate::shard::leader::Command;
use crate::snapshots::Snapshots;
use crate::timing::Timing;

/// A state machine that keeps the marks of the commands it was given.
#[derive(Clone, Default)]
pub(super) struct Marks {
    pub(super) applied: Arc<Mutex<Vec<(u64, i64)>>>,
    /// Why it was given up, each time.
    pub(super) abandoned: Arc<Mutex<Vec<String>>>,
}

impl Marks {
    pub(super) fn list(&self) -> Vec<i64> {
        self.applied.lock().unwrap().iter().map(|(_, mark)| *mark).collect()
    }
}

impl Machine<Command, Outcome> for Marks {
    fn apply(&self, position: Position, commands: Vec<Command>) -> Pending<'_, Result<Vec<Outcome>, Gone>> {
        Box::pin(async move {
            let mut applied = self.applied.lock().unwrap();
            for command in &commands {
                let ShardCommand::V1(ShardCommandV1 { now, .. }) = &**command;
                applied.push((position.index, now.0));
            }
            Ok(vec![Outcome::Done; commands.len()])
        })
    }
}

impl Replicated<Command, Outcome> for Marks {
    fn share(&self) -> Pending<'_, Result<Pieces, Gone>> {
        let applied = self.applied.lock().unwrap().clone();
        let pieces: Pieces = Box::new(move || {
            let piece = |(index, mark): &(u64, i64)| [index.to_le_bytes(), mark.to_le_bytes()].concat();
            std::iter::once(b"marks".to_vec()).chain(applied.iter().map(piece)).collect()
        });
        Box::pin(async move { Ok(pieces) })
    }

    fn install(&self, _: Position, pieces: Vec<Vec<u8>>) -> Pending<'_, Result<(), InstallError>> {
        *self.applied.lock().unwrap() = decode(&pieces);
        Box::pin(async { Ok(()) })
    }

    fn abandon(&self, reason: &str) {
        self.abandoned.lock().unwrap().push(reason.to_owned());
    }
}

pub(super) fn decode(pieces: &[Vec<u8>]) -> Vec<(u64, i64)> {
    let word = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).unwrap();
    let one = |piece: &Vec<u8>| (u64::from_le_bytes(word(&piece[..8])), i64::from_le_bytes(word(&piece[8..])));
    pieces[1..].iter().map(one).collect()
}

/// A command that says which it is.
pub(super) fn marked(mark: i64, leader: Leader) -> Command {
    let (now, revision) = (Timestamp(mark), Revision(0));
    Arc::new(ShardCommand::V1(ShardCommandV1 { now, leader, revision, op: ShardOp::Tick }))
}

/// Carries messages to the replicas of this process, unless the way is cut.
#[derive(Default)]
pub(super) struct Wires {
    replicas: Mutex<BTreeMap<u64, Arc<Replica>>>,
    /// From, to.
    cut: Mutex<BTreeSet<(u64, u64)>>,
    draws: Mutex<Option<Arc<SeededEntropy>>>,
    pub(super) snapshot_parts: Mutex<u64>,
}

impl Wires {
    pub(super) fn cut(&self, one: u64, other: u64) {
        self.cut.lock().unwrap().extend([(one, other), (other, one)]);
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
        *self.draws.lock().unwrap() = None;
    }

    /// From now on one message in eight is lost, or its answer is.
    pub(super) fn shake(&self, seed: u64) {
        *self.draws.lock().unwrap() = Some(Arc::new(SeededEntropy::new(seed)));
    }
}

/// The end of the wires at one replica.
struct Plug {
    own: u64,
    wires: Arc<Wires>,
}

impl Carrier for Plug {
    fn ask(&self, to: u64, _: Seat, message: RaftMessage, _: Duration) -> Pending<'_, Result<RaftAnswer, Unreached>> {
        Box::pin(async move {
            let wires = &self.wires;
            if matches!(message, RaftMessage::Snapshot(_)) {
                *wires.snapshot_parts.lock().unwrap() += 1;
            }
            let draws = wires.draws.lock().unwrap().clone();
            let draw = draws.map_or(u64::MAX, |draws| draws.u64());
            tokio::time::sleep(Duration::from_micros(if draw == u64::MAX { 100 } else { 100 + draw % 20_000 })).await;
            let is_cut = |from, to| wires.cut.lock().unwrap().contains(&(from, to));
            if is_cut(self.own, to) || draw.is_multiple_of(8) {
                return Err(Unreached::Unreachable("the way is cut".to_owned()));
            }
            let replica = wires.replicas.lock().unwrap().get(&to).cloned();
            let Some(replica) = replica else { return Err(Unreached::Unreachable("no such replica".to_owned())) };
            let answer = replica.answer(message).await;
            if is_cut(to, self.own) || draw % 8 == 1 {
                return Err(Unreached::Broken("the answer was lost".to_owned()));
            }
            Ok(answer)
        })
    }
}

/// A replica's node: the disk stays when the replica goes.
pub(super) struct Host {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) marks: Marks,
    log: Option<Log>,
    pub(super) replica: Option<Arc<Replica>>,
}

impl Host {
    /// An empty disk, and nothing that runs.
    pub(super) fn new() -> Self {
        Host { disk: Arc::new(MemoryDisk::new()), marks: Marks::default(), log: None, replica: None }
    }
}

/// One group.
pub(super) struct Group {
    pub(super) hosts: BTreeMap<u64, Host>,
    pub(super) wires: Arc<Wires>,
    seed: u64,
}

impl Group {
    /// Replicas 1 to `count`, all voters, started.
    pub(super) async fn of(count: u64, seed: u64) -> Self {
        let hosts = (1..=count).map(|id| (id, Host::new()));
        let mut group = Group { hosts: hosts.collect(), wires: Arc::default(), seed };
        for id in 1..=count {
            group.start(id).await;
        }
        group
    }

    pub(super) async fn ports(&mut self, id: u64) -> ReplicaPorts {
        let host = self.hosts.get_mut(&id).unwrap();
        let (offload, entropy) =
            (Arc::new(InlineOffload), Arc::new(SeededEntropy::new(self.seed.wrapping_mul(31) + id)));
        let fatal = Arc::new(RecordedFatal::default());
        let ports = LogPorts {
            disk: Arc::<MemoryDisk>::clone(&host.disk),
            offload: Arc::<InlineOffload>::clone(&offload),
            fatal: Arc::<RecordedFatal>::clone(&fatal),
            entropy: Arc::<SeededEntropy>::clone(&entropy),
        };
        let (log, _) = Log::open(LogOptions::default(), ports).await.unwrap();
        host.log = Some(log.clone());
        let snapshots = Snapshots::open(Arc::<MemoryDisk>::clone(&host.disk), fatal).unwrap();
        let carrier = Arc::new(Plug { own: id, wires: Arc::clone(&self.wires) });
        ReplicaPorts {
            log,
            snapshots,
            offload,
            entropy,
            carrier,
            timing: Timing::Fast,
            was_unsynced: false,
            building: Arc::default(),
            pace: Arc::default(),
        }
    }

    /// Starts a replica from its disk; on an empty one, it begins the group with all there are.
    pub(super) async fn start(&mut self, id: u64) {
        let members = self.hosts.keys().map(|id| (*id, Seat { node: *id })).collect();
        self.start_with(id, Some(members)).await;
    }

    /// Starts a replica from its disk; on an empty one, it waits to be made a member.
    pub(super) async fn join(&mut self, id: u64) {
        self.start_with(id, None).await;
    }

    /// One step of the membership, decided on what is in force now.
    pub(super) async fn change(&self, leader: Leader, step: Step) -> Result<(), StepError> {
        let replica = self.replica(leader.replica);
        let members = replica.members().expect("it leads");
        replica.change_members(step, leader, members.at).await
    }

    async fn start_with(&mut self, id: u64, members: Option<BTreeMap<u64, Seat>>) {
        let ports = self.ports(id).await;
        let found = Replica::find(id, &ports).await.unwrap();
        let marks = Marks::default();
        *marks.applied.lock().unwrap() = found.pieces.as_deref().map(decode).unwrap_or_default();
        let machine = Erased::Shard(Arc::new(marks.clone()));
        let replica = Replica::start(id, machine, found, members, ports);
        self.wires.replicas.lock().unwrap().insert(id, Arc::clone(&replica));
        let host = self.hosts.get_mut(&id).unwrap();
        host.marks = marks;
        host.replica = Some(replica);
    }

    /// Ends a replica; with its power gone, what was not synced is lost.
    pub(super) async fn stop(&mut self, id: u64, is_power_cut: bool) {
        self.wires.replicas.lock().unwrap().remove(&id);
        let host = self.hosts.get_mut(&id).unwrap();
        if let Some(replica) = host.replica.take() {
            replica.end().await;
        }
        if let Some(log) = host.log.take() {
            let _ = log.close().await;
        }
        if is_power_cut {
            host.disk.cut_power(|_, unsynced| unsynced / 2);
        }
    }

    pub(super) fn replica(&self, id: u64) -> &Arc<Replica> {
        self.hosts[&id].replica.as_ref().unwrap()
    }

    /// Who leads now.
    pub(super) fn leader(&self) -> Option<Leader> {
        let running = self.hosts.values().filter_map(|host| host.replica.as_ref());
        running.filter_map(|replica| *replica.leads().borrow()).max()
    }

    /// Waits until one of these leads.
    pub(super) async fn led_by(&self, which: impl Fn(Leader) -> bool) -> Leader {
        for _ in 0..1_000 {
            if let Some(leader) = self.leader().filter(|leader| which(*leader)) {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads within ten seconds");
    }

    /// Proposes a mark at a leader.
    pub(super) async fn propose(&self, mark: i64, leader: Leader) -> Proposed<Results> {
        let commands = Commands::Shard(vec![marked(mark, leader)]);
        self.replica(leader.replica).propose(commands, leader).await
    }

    /// Waits until all that run have applied the same marks, and gives them.
    pub(super) async fn agreed(&self, at_least: usize) -> Vec<i64> {
        for _ in 0..1_000 {
            let running = self.hosts.values().filter(|host| host.replica.is_some());
            let lists: BTreeSet<Vec<i64>> = running.map(|host| host.marks.list()).collect();
            if lists.len() == 1
                && let Some(list) = lists.first().filter(|list| list.len() >= at_least)
            {
                return list.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("they do not agree within ten seconds");
    }
}
