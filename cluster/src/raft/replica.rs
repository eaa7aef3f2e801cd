//! One replica of a group: runs its openraft, is its propose port, and answers the other replicas.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::impls::ProgressResponder;
use openraft::{Config, Raft, ReadPolicy, ServerState, SnapshotPolicy, StepDownPolicy};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::{Mutex as AsyncMutex, OnceCell, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::legacy::Remains;
use super::machine::{Erased, RaftMachine, Shelf};
use super::network::{Carrier, Network};
use super::pace::Pace;
use super::receiving::Receiving;
use super::store::{Applied, Store};
use super::types::{
    Commands, LogId, Proposal, Results, Seat, SnapshotMeta, StoredMembership, Types, leader_id, leader_of, position_of,
};
use crate::identity::Reach;
use crate::limits::{COMMIT_NEWS_MS, SNAPSHOT_INSTALL_MS, SNAPSHOT_WORTH_BYTES};
use crate::log::{Durability, GroupId, Log};
use crate::planted::{Bug, is};
use crate::ports::entropy::Entropy;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::{Committed, Pieces, Proposed, Reason};
use crate::snapshots::Snapshots;
use crate::timing::Timing;

pub(super) type Running = Raft<Types, RaftMachine>;

/// What a replica needs of its node.
#[derive(Clone)]
pub(crate) struct ReplicaPorts {
    pub(crate) log: Log,
    pub(crate) snapshots: Snapshots,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) timing: Timing,
    /// What a run before this one wrote last may have gone with the power.
    pub(crate) was_unsynced: bool,
    /// One snapshot at a time is written on a node.
    pub(crate) building: Arc<AsyncMutex<()>>,
    /// How fast they leave it.
    pub(crate) pace: Arc<Pace>,
}

/// What a replica finds of its own on the disk.
pub(crate) struct Found {
    /// Whose.
    pub(crate) replica: u64,
    /// What the newest sound snapshot is of.
    pub(super) snapshot: Option<SnapshotMeta>,
    /// Where the state stands that the snapshot's pieces decode to.
    pub(crate) position: Position,
    /// The snapshot's pieces.
    pub(crate) pieces: Option<Vec<Vec<u8>>>,
}

/// A running replica. Dropped, it goes on until it is [ended](Replica::end).
pub(crate) struct Replica {
    pub(super) id: u64,
    pub(super) ports: ReplicaPorts,
    pub(super) shelf: Shelf,
    raft: OnceCell<Running>,
    store: OnceCell<Store>,
    applied: Arc<Applied>,
    pub(super) leader: watch::Sender<Option<Leader>>,
    /// When it was started on what the disk held.
    pub(super) began: Instant,
    /// Before this it neither votes nor campaigns, unless it is alone: openraft forgets at a restart to whom it promised.
    pub(super) silent_until: Instant,
    pub(super) receiving: AsyncMutex<Option<Receiving>>,
    /// It hands its leadership over: from here on others may lead although the lease has not run out.
    pub(super) is_leaving: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Replica {
    /// Reads what a replica left on the disk.
    ///
    /// # Errors
    /// If it cannot be read, or snapshot and log do not meet: then the replica lacks what it acknowledged.
    pub(crate) async fn find(id: u64, ports: &ReplicaPorts) -> io::Result<Found> {
        let (log, group) = (&ports.log, GroupId(id));
        let loaded = shelf(id, ports).load().await?;
        let (snapshot, pieces) = loaded.map_or((None, None), |(meta, pieces)| (Some(meta), Some(pieces)));
        let last = snapshot.as_ref().and_then(|meta| meta.last_log_id);
        let bounds = log.bounds(group).filter(|bounds| bounds.next.is_some());
        let (first, next) = bounds.map_or((0, 0), |bounds| (bounds.first, bounds.next.unwrap_or(0)));
        if last.map_or(0, |last| last.index + 1) < first {
            return Err(io::Error::other(match last {
                None => format!("the log begins at entry {first}, and there is no sound snapshot of what was before"),
                Some(last) => {
                    format!("the log begins at entry {first}, the newest sound snapshot ends at {}", last.index)
                }
            }));
        }
        if let (Some(last), Some(snapshot)) = (last, &snapshot)
            && next <= last.index
        {
            // Nobody else can have sent it: it was made here, after all that is in it was written here.
            let is_own = snapshot.last_membership.nodes().count() <= 1;
            match (log.durability(), ports.was_unsynced) {
                (Durability::Fsync, false) if is_own => {
                    return Err(io::Error::other(format!(
                        "the snapshot ends at entry {}, and the log before entry {next}: a part of it is missing",
                        last.index
                    )));
                }
                (Durability::Fsync, false) => {}
                (Durability::Memory, _) | (_, true) => tracing::warn!(
                    replica = id,
                    snapshot = last.index,
                    next,
                    "the log lost its end with the power; the snapshot is newer"
                ),
            }
        }
        let position = last.as_ref().map(position_of).unwrap_or_default();
        Ok(Found { replica: id, snapshot, position, pieces })
    }

    /// Starts a replica over a machine that stands where `found` says. `first_members`: the group is new, and begins with these.
    pub(crate) fn start(
        id: u64,
        machine: Erased,
        found: Found,
        first_members: Option<BTreeMap<u64, Seat>>,
        ports: ReplicaPorts,
    ) -> Arc<Replica> {
        let shelf = shelf(id, &ports);
        let replica = Arc::new(Replica {
            id,
            began: Instant::now(),
            silent_until: Instant::now() + silence(ports.timing),
            ports,
            shelf,
            raft: OnceCell::new(),
            store: OnceCell::new(),
            applied: Arc::default(),
            leader: watch::Sender::new(None),
            receiving: AsyncMutex::default(),
            is_leaving: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        let task = tokio::spawn(Arc::clone(&replica).run(machine, found.snapshot, first_members));
        replica.tasks.lock().expect("no holder panics").push(task);
        replica
    }

    async fn run(self: Arc<Self>, machine: Erased, snapshot: Option<SnapshotMeta>, first: Option<BTreeMap<u64, Seat>>) {
        let raft = match self.build(machine.clone(), snapshot).await {
            Ok(raft) => raft,
            Err(error) => {
                machine.abandon(&format!("its replica cannot be started: {error}"));
                return;
            }
        };
        if let Some(first) = first
            && let Err(error) = raft.initialize(first).await
        {
            // It has begun before: what it is a member of stands in its log.
            tracing::debug!(replica = self.id, %error, "the group has begun already");
        }
        let _ = self.raft.set(raft.clone());
        if self.is_alone(&raft) {
            // Nobody was promised anything.
            if raft.trigger().elect(false).await.is_err() {
                tracing::debug!(replica = self.id, "it has ended already");
            }
        } else {
            tokio::time::sleep_until(self.silent_until).await;
        }
        raft.runtime_config().elect(true);
        self.follow(&raft).await;
        machine.abandon("its log has ended");
    }

    fn is_alone(&self, raft: &Running) -> bool {
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let configurations = [&metrics.membership_config, &metrics.committed_membership_config];
        configurations.into_iter().flat_map(|stored| stored.nodes()).all(|(member, _)| *member == self.id)
            && metrics.membership_config.voter_ids().next().is_some()
    }

    async fn build(&self, machine: Erased, snapshot: Option<SnapshotMeta>) -> Result<Running, String> {
        let (mut store, writer) =
            Store::open(self.ports.log.clone(), GroupId(self.id), Arc::clone(&self.applied), machine.is_meta())
                .await
                .map_err(|error| error.to_string())?;
        self.tasks.lock().expect("no holder panics").push(writer);
        let (purged, found) = (store.purged(), snapshot.as_ref().and_then(|snapshot| snapshot.last_log_id));
        if purged > found {
            return Err("its newest sound snapshot ends before its log begins".to_owned());
        }
        store.agree_with(found).await.map_err(|error| error.to_string())?;
        let news_within = match machine {
            // Writers wait until every node decides by what they wrote.
            Erased::Meta(_) => Duration::ZERO,
            Erased::Shard(_) => Duration::from_millis(COMMIT_NEWS_MS),
        };
        // It is built once.
        let _ = self.store.set(store.clone());
        let machine = RaftMachine::new(machine, self.shelf.clone(), snapshot, Arc::clone(&self.applied));
        let ReplicaPorts { carrier, offload, pace, .. } = self.ports.clone();
        let append_within = self.ports.timing.longest_election();
        let network = Network { own: self.id, carrier, offload, pace, append_within, news_within };
        let config = config(self.ports.timing).map_err(|error| error.to_string())?;
        // Everything that openraft draws, in this task and those it spawns, comes from this seed.
        let seed = self.ports.entropy.u64();
        let built = Raft::new(self.id, Arc::new(config), network, store, machine);
        DeterministicRng::<TokioRuntime>::scope(seed, built).await.map_err(|error| error.to_string())
    }

    /// Tells whether this replica leads: it is the leader, an entry of its own term is applied, and a quorum has answered it so
    /// lately that no other was elected. Openraft goes on calling itself leader without that.
    async fn follow(&self, raft: &Running) {
        // Openraft tells of each entry and each answer; of these two, the second changes only when somebody else leads or belongs.
        let (mut data, mut server) = (raft.data_metrics(), raft.server_metrics());
        let mut ticks = true;
        loop {
            let (is_leader, leads, lapses) = {
                // Marked as seen before the data is read, which is renewed first.
                let server = server.borrow_and_update();
                let data = data.borrow_and_update();
                let own = server.vote.leader_id;
                let is_leader = server.state == ServerState::Leader && server.vote.committed && own.node_id == self.id;
                let leads = is_leader
                    && data.last_applied.is_some_and(|last| last.leader_id == own)
                    && !self.is_leaving.load(Ordering::SeqCst);
                let acknowledged = data.last_quorum_acked.as_ref().map(|at| at.elapsed());
                let lease =
                    self.lease_left(&server.membership_config, acknowledged, self.ports.timing.longest_election());
                (is_leader, (leads && lease.is_some()).then(|| leader_of(own)), lease.flatten())
            };
            self.leader.send_if_modified(|now| {
                let leads = leads.filter(|_| !self.is_leaving.load(Ordering::SeqCst));
                std::mem::replace(now, leads) != leads
            });
            // One that leads itself has nobody to keep waiting, and nobody to wait for.
            let needs_ticks = !(self.is_alone(raft) && leads.is_some());
            if std::mem::replace(&mut ticks, needs_ticks) != needs_ticks {
                raft.runtime_config().tick(needs_ticks);
            }
            let changed = match (is_leader, leads, lapses) {
                (_, Some(_), Some(lapses)) => {
                    tokio::time::timeout(lapses, server.changed()).await.map_or(Ok(()), |changed| changed.map(drop))
                }
                (false, ..) | (_, Some(_), None) => server.changed().await.map(drop),
                // It waits for its first entry, for answers, or for a handing over to end.
                (true, None, _) => tokio::select! {
                    changed = server.changed() => changed.map(drop),
                    changed = data.changed() => changed.map(drop),
                },
            };
            if changed.is_err() {
                // The core is gone, or has panicked: what it said last does not hold any more.
                self.leader.send_replace(None);
                return;
            }
        }
    }

    /// How long ago a quorum must have answered at most, and how much of that is left: `None` if it was longer ago, `Some(None)`
    /// if no other's answer is needed.
    fn lease_left(
        &self,
        members: &StoredMembership,
        acknowledged: Option<Duration>,
        lease: Duration,
    ) -> Option<Option<Duration>> {
        if is(Bug::ReadsWithoutLease) || members.voter_ids().all(|voter| voter == self.id) {
            return Some(None);
        }
        lease.checked_sub(acknowledged?).filter(|left| !left.is_zero()).map(Some)
    }

    /// Whether a read at this replica, which leads, needs nobody's word: a quorum has acknowledged it so lately that no other
    /// leads yet.
    pub(crate) fn holds_lease(&self) -> bool {
        let Some(raft) = self.raft.get() else { return false };
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let acknowledged = metrics.last_quorum_acked.as_ref().map(|at| at.elapsed());
        self.lease_left(&metrics.membership_config, acknowledged, self.ports.timing.read_lease()).is_some()
            && !self.is_leaving.load(Ordering::SeqCst)
    }

    /// Whether this replica leads, and a quorum said so after this was called.
    pub(crate) async fn confirm(&self) -> bool {
        let Some(raft) = self.raft.get() else { return false };
        let is_confirmed = raft.get_read_linearizer(ReadPolicy::ReadIndex).await.is_ok();
        is_confirmed && self.leader.borrow().is_some()
    }

    /// Ends it. Returns once it writes nothing any more.
    pub(crate) async fn end(&self) {
        self.leader.send_replace(None);
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder panics"));
        // First of all the writer: the core may be waiting for it, and it for room on the disk.
        tasks.iter().for_each(JoinHandle::abort);
        if let Some(raft) = self.raft.get()
            && let Err(error) = raft.shutdown().await
        {
            tracing::error!(replica = self.id, %error, "a replica did not end in order");
        }
        for task in tasks {
            // It is over, whichever way.
            let _ = task.await;
        }
        // What its writer had handed over may still be on its way to the disk: whoever reads there next must find it.
        if let Err(error) = self.ports.log.settle().await {
            tracing::debug!(replica = self.id, %error, "the log is closed already");
        }
    }

    /// Why it must not be started again, if it must not.
    pub(crate) fn breach(&self) -> Option<String> {
        self.applied.breach()
    }

    /// How far it has come for good, if that can be told without reading; `before`: where it was when its node started.
    pub(crate) fn reach(&self, before: Option<Reach>) -> Option<Reach> {
        match self.store.get() {
            Some(store) => store.reach(before),
            None => before,
        }
    }

    /// The state of this replica between two entries, and after which one.
    pub(crate) async fn examine(&self) -> Option<(Position, Pieces)> {
        let examined = self.raft.get()?.with_state_machine(|machine| Box::pin(machine.examine())).await;
        examined.ok()?.ok()
    }

    /// When it was started on what the disk held.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Index of the last entry that its log holds, or held before a snapshot took its place; `None` before it was opened.
    pub(crate) fn log_end(&self) -> Option<u64> {
        Some(self.store.get()?.last().map_or(0, |last| last.index))
    }

    /// Which replica it is.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it has ended, or its core has.
    pub(crate) fn is_over(&self) -> bool {
        self.raft.get().is_some_and(|raft| raft.metrics().borrow_watched().running_state.is_err())
    }

    /// How far its log goes, what it has voted and whom it knows: what is left of the group here, if it is lost elsewhere.
    pub(crate) fn remains(&self) -> Option<Remains> {
        let (raft, store) = (self.raft.get()?, self.store.get()?);
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Some(Remains {
            replica: self.id,
            last: store.last(),
            term: metrics.vote.leader_id.term,
            voters: metrics.membership_config.get_joint_config().clone(),
            leads: self.leader.borrow().is_some(),
        })
    }

    pub(super) fn raft(&self) -> Option<&Running> {
        self.raft.get()
    }

    /// Who leads, if it is this replica.
    pub(crate) fn leads(&self) -> watch::Receiver<Option<Leader>> {
        self.leader.subscribe()
    }

    /// Why nothing can be written for the moment.
    pub(crate) fn stuck(&self) -> Option<String> {
        self.ports.log.is_full().then(|| "the disk is full: nothing can be written".to_owned())
    }

    /// Proposes commands as one entry under an expected leader; see the port's contract.
    pub(crate) async fn propose(&self, commands: Commands, expected: Leader) -> Proposed<Results> {
        let Some(raft) = self.raft.get() else { return Proposed::Refused(Reason::NotLeader(None)) };
        if let Some(reason) = self.stuck() {
            return Proposed::NotApplied(reason);
        }
        let (responder, answer) = ProgressResponder::complete_only();
        let proposal = Proposal::new(commands);
        match raft.write(proposal).with_leader(leader_id(expected)).responder(responder).await {
            Ok(()) => {}
            // The core is gone, with or without the message.
            Err(Fatal::Stopped | Fatal::Panicked | Fatal::StorageError(_)) => return Proposed::Unknown,
        }
        match answer.await {
            Ok(Ok(written)) => {
                let position = position_of(&written.log_id);
                Proposed::Applied(Committed { position, results: vec![written.data] })
            }
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => {
                // Given only before anything is appended. The core may know before the watch does that this replica does not lead, or
                // not for the moment: the proposer is told when there is something new to tell.
                let mut leader = self.leader.subscribe();
                let news = leader.wait_for(|leader| *leader != Some(expected));
                let _ = tokio::time::timeout(Duration::from_millis(self.ports.timing.heartbeat_ms()), news).await;
                Proposed::Refused(Reason::NotLeader(*self.leader.borrow()))
            }
            Ok(Err(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ))
            | Err(_) => Proposed::Unknown,
        }
    }

    /// Index of the last entry in the newest snapshot.
    pub(crate) fn snapshot_index(&self) -> Option<u64> {
        let metrics = self.raft.get()?.metrics();
        let snapshot = metrics.borrow_watched().snapshot;
        snapshot.map(|snapshot| snapshot.index)
    }

    /// Writes a snapshot, unless nearly everything is in the newest one, and purges the log through the older of the two kept.
    ///
    /// # Errors
    /// If it could not be written.
    pub(crate) async fn keep_snapshot(&self) -> Result<(), String> {
        let Some(raft) = self.raft.get() else { return Ok(()) };
        let (log, group) = (&self.ports.log, self.shelf.group);
        let snapshots = self.shelf.snapshots.clone();
        let mut metrics = raft.metrics();
        let (applied, newest) = {
            let metrics = metrics.borrow_watched();
            (metrics.last_applied, metrics.snapshot)
        };
        let Some(applied) = applied else { return Ok(()) };
        if let Some(newest) = newest.filter(|newest| log.bytes_after(group, Some(newest.index)) < SNAPSHOT_WORTH_BYTES)
        {
            if log.pins(group) {
                // Nothing happens in this group, and yet it keeps the log's oldest segment. Its newest snapshot holds all there
                // is: once that is known to be sound, the older one need not be reached any more.
                let verify = move || snapshots.verify(group, newest.index).map_err(|error| error.to_string());
                offload::call(&*self.ports.offload, Lane::Bulk, verify).await.map_err(|lost| lost.to_string())??;
                return self.purge(raft, newest.index).await;
            }
            return Ok(());
        }
        if let Some(reason) = self.stuck() {
            return Err(reason);
        }
        self.shelf.forget_failure();
        let reached = |snapshot: &Option<LogId>| snapshot.is_some_and(|snapshot| snapshot.index >= applied.index);
        while !reached(&metrics.borrow_watched().snapshot) {
            if let Some(failure) = self.shelf.failure() {
                return Err(failure);
            }
            // Asked for again and again: openraft ignores who asks while another is being built.
            raft.trigger().snapshot().await.map_err(|error| error.to_string())?;
            let patience = Duration::from_millis(self.ports.timing.heartbeat_ms());
            if let Ok(Err(_)) = tokio::time::timeout(patience, metrics.changed()).await {
                return Err("the replica has ended".to_owned());
            }
        }
        let kept = offload::call(&*self.ports.offload, Lane::Bulk, move || snapshots.kept(group)).await;
        let kept = kept.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())?;
        match kept[..] {
            [_, older, ..] => self.purge(raft, older).await,
            [] | [_] => Ok(()),
        }
    }

    /// Purges through an entry. Openraft puts that off while a member is being sent entries before it.
    async fn purge(&self, raft: &Running, through: u64) -> Result<(), String> {
        raft.trigger().purge_log(through).await.map_err(|error| error.to_string())?;
        let mut metrics = raft.metrics();
        let patience = Duration::from_millis(self.ports.timing.heartbeat_ms());
        let purged = async {
            while metrics.borrow_watched().purged.is_none_or(|purged| purged.index < through) {
                if metrics.changed().await.is_err() {
                    break;
                }
            }
        };
        let _later = tokio::time::timeout(patience, purged).await;
        Ok(())
    }
}

/// For how long a replica neither votes nor campaigns after its start.
fn silence(timing: Timing) -> Duration {
    if is(Bug::VotesAfterRestart) { Duration::ZERO } else { timing.silence() }
}

pub(super) fn shelf(id: u64, ports: &ReplicaPorts) -> Shelf {
    Shelf {
        group: GroupId(id),
        snapshots: ports.snapshots.clone(),
        offload: Arc::clone(&ports.offload),
        building: Arc::clone(&ports.building),
        failed: Arc::default(),
    }
}

fn config(timing: Timing) -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: "proffer".to_owned(),
        heartbeat_interval: timing.heartbeat_ms(),
        election_timeout_min: timing.election_min_ms(),
        election_timeout_max: timing.election_max_ms(),
        install_snapshot_timeout: SNAPSHOT_INSTALL_MS,
        // Snapshots are made and logs purged when we say so.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Until the silence after a start is over.
        enable_elect: false,
        // Leadership is handed over by `hand_over` alone, which withdraws the lease first.
        removed_leader_step_down: StepDownPolicy::Never,
        backoff: "10ms ..100ms".to_owned(),
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    }
    .validate()
}
