//! The groups of a node: where their state is recovered from, and what they propose through. One implementation runs a replica of
//! each; tests bring others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use proffer_engine::keys::ShardId;
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::command::Position;
use proffer_engine::profile::shard::ShardState;

use crate::calls::Examined;
use crate::error::StartError;
pub(crate) use crate::group::Group;
use crate::home::Home;
use crate::identity::{FIRST_REPLICAS, Reach};
use crate::log::{Durability, GroupId};
use crate::meta::command::MetaOutcome;
use crate::meta::leader::Command as MetaEntry;
use crate::meta::state::MetaState;
use crate::ports::offload::{self, Lane};
use crate::ports::propose::{Pending, Propose, Replicated};
use crate::raft::{
    Commands, Erased, Found, Kind, Legacy, Port, RaftAnswer, RaftMessage, Remains, Replica, ReplicaPorts, Results, Seat,
};
use crate::salvage::GivenUp;
use crate::shard::leader::Command as ShardEntry;

/// A shard's propose port.
pub(crate) type ProposeShard = Arc<dyn Propose<ShardEntry, Outcome>>;
/// The meta group's propose port.
pub(crate) type ProposeMeta = Arc<dyn Propose<MetaEntry, MetaOutcome>>;

/// Contract: `recover_…` first takes the group out of the hands of a port made before; the state it gives is one that the group was
/// in, and the port made after it feeds the machine everything that followed, before it leads.
pub(crate) trait Groups: Send + Sync + 'static {
    /// The meta group's state.
    fn recover_meta(&self) -> Pending<'_, Result<(MetaState, Position), StartError>>;
    /// A shard's state.
    fn recover_shard(&self, shard: ShardId) -> Pending<'_, Result<(ShardState, Position), StartError>>;
    /// The port of the meta group over a machine with the state that was recovered.
    fn meta(&self, machine: Arc<dyn Replicated<MetaEntry, MetaOutcome>>) -> ProposeMeta;
    /// The port of a shard over a machine with the state that was recovered.
    fn shard(&self, shard: ShardId, machine: Arc<dyn Replicated<ShardEntry, Outcome>>) -> ProposeShard;
    /// Whether a snapshot of the group is due.
    fn is_snapshot_due(&self, group: Group) -> bool;
    /// Keeps a snapshot of the group, unless a start would have next to nothing to do after the one there is; what nobody needs any
    /// more goes.
    fn keep(&self, group: Group) -> Pending<'_, Result<(), String>>;
    /// A replica that cannot be recovered is given up, if others have what lies here: a new one takes its place. `false`: nobody else
    /// has it.
    fn give_up(&self, group: Group, reason: String) -> Pending<'_, bool>;
    /// Whether a replica of the group belongs here.
    fn holds(&self, group: Group) -> bool;
    /// What there is of the group here; `None` if its replica does not run here, or not yet.
    fn remains(&self, group: Group) -> Option<Remains>;
    /// The state of the replica that is here; `None` if none runs.
    fn examine(&self, _group: Group) -> Pending<'_, Option<Examined>> {
        Box::pin(async { None })
    }
    /// The groups that are led here, in which term, by a leader that needs nobody's word to answer a read now.
    fn answers_reads(&self) -> Vec<(Group, u64)> {
        Vec::new()
    }
    /// What stands in the way of writing, if something does.
    fn trouble(&self) -> Option<String>;
    /// What stands in nobody's way, and an operator should know.
    fn remarks(&self) -> Vec<String>;
    /// Ends all groups and closes the log.
    fn close(&self) -> Pending<'_, ()>;
}

/// This node's replicas of groups.
pub(crate) struct RaftGroups {
    node: u64,
    ports: ReplicaPorts,
    /// Which replica of a group belongs here.
    seats: Mutex<BTreeMap<Group, u64>>,
    hosted: Mutex<BTreeMap<Group, Hosted>>,
    /// Where it is written down that a replica was given up.
    home: Option<Arc<Home>>,
    given_up: Mutex<GivenUp>,
    /// How far each replica had come at this start.
    begun_at: BTreeMap<u64, Reach>,
}

/// One group here.
enum Hosted {
    /// Read from the disk; the machine over it is being made.
    Found(Found),
    Running(Arc<Replica>),
}

impl RaftGroups {
    /// Of a node that holds these replicas.
    pub(crate) fn new(node: u64, seats: BTreeMap<Group, u64>, ports: ReplicaPorts) -> Self {
        let (seats, hosted, given_up) = (Mutex::new(seats), Mutex::default(), Mutex::default());
        RaftGroups { node, ports, seats, hosted, home: None, given_up, begun_at: BTreeMap::new() }
    }

    /// Replicas that cannot be recovered are given up from now on. These were already.
    pub(crate) fn renewed_by(self, home: Arc<Home>, given_up: GivenUp) -> Self {
        RaftGroups { home: Some(home), given_up: Mutex::new(given_up), ..self }
    }

    /// As far had the replicas come at this start.
    pub(crate) fn begun_at(self, begun_at: BTreeMap<u64, Reach>) -> Self {
        RaftGroups { begun_at, ..self }
    }

    /// How far the replicas here have come for good, those that are synced. What is not known of one is left out.
    pub(crate) fn reaches(&self) -> Vec<(u64, Reach)> {
        let is_synced = |group: Group| group == Group::Meta || self.ports.log.durability() == Durability::Fsync;
        let begun_at = |replica: u64| self.begun_at.get(&replica).copied();
        let seats = self.seats();
        let hosted = self.hosted();
        let reach = |(group, replica): (Group, u64)| match hosted.get(&group) {
            Some(Hosted::Running(running)) => running.reach(begun_at(replica)),
            Some(Hosted::Found(_)) | None => None,
        };
        let synced = seats.into_iter().filter(|(group, _)| is_synced(*group));
        synced.filter_map(|(group, replica)| Some((replica, reach((group, replica))?))).collect()
    }

    /// Which replicas belong here.
    pub(crate) fn seats(&self) -> BTreeMap<Group, u64> {
        self.lock_seats().clone()
    }

    /// From now on a replica of the group belongs here, in place of none.
    pub(crate) fn seat(&self, group: Group, replica: u64) {
        self.lock_seats().insert(group, replica);
        self.given_up.lock().expect("no holder panics").remove(&group);
    }

    /// The group's replica does not belong here any more. It is ended, and nothing starts it again.
    pub(crate) async fn unseat(&self, group: Group) {
        self.lock_seats().remove(&group);
        let running = self.hosted().remove(&group);
        if let Some(Hosted::Running(replica)) = running {
            replica.end().await;
        }
    }

    /// Destroys what a replica that belongs nowhere left on the disk.
    ///
    /// # Errors
    /// If the disk failed: what is left is destroyed another time.
    pub(crate) async fn destroy(&self, replica: u64) -> Result<(), String> {
        let group = GroupId(replica);
        self.ports.log.destroy(group).await.map_err(|error| error.to_string())?;
        let snapshots = self.ports.snapshots.clone();
        let removed = offload::call(&*self.ports.offload, Lane::Bulk, move || snapshots.remove_all(group)).await;
        removed.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())
    }

    /// Makes what the replica `heir` of a shard begins with, of all that `survivor` left, which runs no more: its state with its whole log
    /// applied, as `settle` then changes it. What a try before left of the heir is done over, unless it was all.
    ///
    /// # Errors
    /// If what there is cannot be read, or the disk failed: the survivor's part is as it was.
    pub(crate) async fn bequeath(
        &self,
        (survivor, heir): (u64, u64),
        term_floor: u64,
        settle: impl FnOnce(&mut ShardState),
    ) -> Result<(), String> {
        if Legacy::is_handed_on(heir, &self.ports).await? {
            return Ok(());
        }
        let (legacy, mut state) = self.shard_of(survivor).await?;
        settle(&mut state);
        let pieces = Box::new(move || state.encode_chunks().collect());
        legacy.hand_on(heir, Seat { node: self.node }, term_floor, pieces, &self.ports).await
    }

    /// A shard's state as a replica left it, with all of its log applied.
    async fn shard_of(&self, survivor: u64) -> Result<(Legacy, ShardState), String> {
        let mut legacy = Legacy::of(survivor, Kind::Shard, &self.ports).await?;
        let mut state = match legacy.pieces() {
            Some(pieces) => ShardState::decode_chunks(pieces).map_err(|error| error.to_string())?,
            None => ShardState::new(),
        };
        while let Some((position, commands)) = legacy.next_commands().await? {
            let Commands::Shard(commands) = commands else {
                return Err("an entry of another kind of group".to_owned());
            };
            for command in &commands {
                apply(&mut state, position, command);
            }
        }
        Ok((legacy, state))
    }

    /// The catalogue's state as a replica left it, with all of its log applied.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn catalogue_of(&self, survivor: u64) -> Result<(Legacy, MetaState), String> {
        let mut legacy = Legacy::of(survivor, Kind::Meta, &self.ports).await?;
        let mut state = match legacy.pieces() {
            Some(pieces) => MetaState::decode_chunks(pieces.into_iter()).map_err(|error| error.to_string())?,
            None => MetaState::new(),
        };
        while let Some((position, commands)) = legacy.next_commands().await? {
            let Commands::Meta(commands) = commands else { return Err("an entry of another kind of group".to_owned()) };
            for command in &commands {
                state.apply(position, command);
            }
        }
        Ok((legacy, state))
    }

    /// Where the log of a replica ends that does not run.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn last_of(&self, replica: u64, group: Group) -> Result<Option<Position>, String> {
        match group {
            Group::Meta => self.catalogue_of(replica).await.map(|(legacy, _)| legacy.last()),
            Group::Shard(_) => self.shard_of(replica).await.map(|(legacy, _)| legacy.last()),
        }
    }

    /// Makes what the replica `heir` of the catalogue begins with, as [`RaftGroups::bequeath`] does of a shard.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn bequeath_catalogue(
        &self,
        legacy: Legacy,
        heir: u64,
        term_floor: u64,
        state: MetaState,
    ) -> Result<(), String> {
        let pieces = Box::new(move || state.encode_chunks().collect());
        legacy.hand_on(heir, Seat { node: self.node }, term_floor, pieces, &self.ports).await
    }

    /// Answers a message to one of the replicas here.
    pub(crate) async fn answer(&self, to: u64, message: RaftMessage) -> RaftAnswer {
        let running = |hosted: &Hosted| match hosted {
            Hosted::Running(replica) if replica.id() == to => Some(Arc::clone(replica)),
            Hosted::Running(_) | Hosted::Found(_) => None,
        };
        let replica = self.hosted().values().find_map(running);
        match replica {
            Some(replica) => replica.answer(message).await,
            None => RaftAnswer::Failed(format!("replica {to} does not run here")),
        }
    }

    /// The groups that replicas here lead, each with the term.
    pub(crate) fn led(&self) -> BTreeMap<Group, u64> {
        let term = |hosted: &Hosted| match hosted {
            Hosted::Running(replica) => replica.leads().borrow().map(|leader| leader.term),
            Hosted::Found(_) => None,
        };
        self.hosted().iter().filter_map(|(group, hosted)| Some((*group, term(hosted)?))).collect()
    }

    fn lock_seats(&self) -> MutexGuard<'_, BTreeMap<Group, u64>> {
        self.seats.lock().expect("no holder panics")
    }

    fn replica_id(&self, group: Group) -> Result<u64, String> {
        self.lock_seats().get(&group).copied().ok_or_else(|| format!("no replica of {group} belongs here"))
    }

    fn hosted(&self) -> MutexGuard<'_, BTreeMap<Group, Hosted>> {
        self.hosted.lock().expect("no holder panics")
    }

    /// The replica of a group that runs here.
    pub(crate) fn replica(&self, group: Group) -> Option<Arc<Replica>> {
        match self.hosted().get(&group) {
            Some(Hosted::Running(replica)) => Some(Arc::clone(replica)),
            Some(Hosted::Found(_)) | None => None,
        }
    }

    /// Ends the replica that runs, and reads what there is on the disk.
    async fn find(&self, group: Group) -> Result<(Option<Vec<Vec<u8>>>, Position), String> {
        let running = self.hosted().remove(&group);
        if let Some(Hosted::Running(replica)) = running {
            replica.end().await;
            if let Some(reason) = replica.breach() {
                return Err(reason);
            }
        }
        let mut found = Replica::find(self.replica_id(group)?, &self.ports).await.map_err(|error| error.to_string())?;
        let (pieces, position) = (found.pieces.take(), found.position);
        self.hosted().insert(group, Hosted::Found(found));
        Ok((pieces, position))
    }

    fn start(&self, group: Group, machine: Erased) -> Arc<Replica> {
        let found = match self.hosted().remove(&group) {
            Some(Hosted::Found(found)) => found,
            Some(Hosted::Running(_)) | None => unreachable!("a group is recovered before its port is made"),
        };
        let id = found.replica;
        let first = (id <= FIRST_REPLICAS).then(|| [(id, Seat { node: self.node })].into());
        let replica = Replica::start(id, machine, found, first, self.ports.clone());
        self.hosted().insert(group, Hosted::Running(Arc::clone(&replica)));
        replica
    }
}

fn unrecovered(group: Group) -> impl Fn(String) -> StartError {
    move |reason| StartError::Recovery { what: group.to_string(), reason }
}

impl Groups for RaftGroups {
    fn recover_meta(&self) -> Pending<'_, Result<(MetaState, Position), StartError>> {
        Box::pin(async move {
            let failed = unrecovered(Group::Meta);
            let (pieces, position) = self.find(Group::Meta).await.map_err(&failed)?;
            let state = match pieces {
                Some(pieces) => {
                    MetaState::decode_chunks(pieces.into_iter()).map_err(|error| failed(error.to_string()))?
                }
                None => MetaState::new(),
            };
            Ok((state, position))
        })
    }

    fn recover_shard(&self, shard: ShardId) -> Pending<'_, Result<(ShardState, Position), StartError>> {
        Box::pin(async move {
            let group = Group::Shard(shard);
            let failed = unrecovered(group);
            let (pieces, position) = self.find(group).await.map_err(&failed)?;
            let state = match pieces {
                Some(pieces) => ShardState::decode_chunks(pieces).map_err(|error| failed(error.to_string()))?,
                None => ShardState::new(),
            };
            Ok((state, position))
        })
    }

    fn meta(&self, machine: Arc<dyn Replicated<MetaEntry, MetaOutcome>>) -> ProposeMeta {
        let replica = self.start(Group::Meta, Erased::Meta(machine));
        Arc::new(Port::new(replica, Commands::Meta, |results| match results {
            Results::Meta(results) => results,
            Results::None | Results::Shard(_) => Vec::new(),
        }))
    }

    fn shard(&self, shard: ShardId, machine: Arc<dyn Replicated<ShardEntry, Outcome>>) -> ProposeShard {
        let replica = self.start(Group::Shard(shard), Erased::Shard(machine));
        Arc::new(Port::new(replica, Commands::Shard, |results| match results {
            Results::Shard(results) => results,
            Results::None | Results::Meta(_) => Vec::new(),
        }))
    }

    fn is_snapshot_due(&self, group: Group) -> bool {
        let Some(replica) = self.replica(group) else { return false };
        self.ports.log.snapshot_due(GroupId(replica.id()), replica.snapshot_index())
    }

    fn keep(&self, group: Group) -> Pending<'_, Result<(), String>> {
        Box::pin(async move {
            match self.replica(group) {
                Some(replica) => replica.keep_snapshot().await,
                None => Ok(()),
            }
        })
    }

    fn give_up(&self, group: Group, reason: String) -> Pending<'_, bool> {
        Box::pin(async move {
            let Some(home) = &self.home else { return false };
            if home.identity().await.notes.alone.contains(&group) {
                return false;
            }
            if let Err(error) = home.settle(|cluster| cluster.give_up(group)).await {
                tracing::error!(%group, %error, "a replica that cannot be recovered could not be given up");
                return false;
            }
            tracing::error!(%group, %reason, "a replica cannot be recovered: it is given up, and renewed from others");
            self.given_up.lock().expect("no holder panics").insert(group, reason);
            self.unseat(group).await;
            true
        })
    }

    fn examine(&self, group: Group) -> Pending<'_, Option<Examined>> {
        Box::pin(async move {
            let replica = self.replica(group)?;
            let (position, pieces) = replica.examine().await?;
            let term = replica.leads().borrow().map(|leader| leader.term);
            let (id, began, log_end) = (replica.id(), replica.began(), replica.log_end()?);
            let pieces = offload::call(&*self.ports.offload, Lane::Bulk, pieces).await.ok()?;
            Some(Examined { replica: id, began, position, log_end, leads_in_term: term, pieces })
        })
    }

    fn answers_reads(&self) -> Vec<(Group, u64)> {
        let hosted = self.hosted();
        let reads = |(group, hosted): (&Group, &Hosted)| match hosted {
            Hosted::Running(replica) => {
                let leader = (*replica.leads().borrow()).filter(|_| replica.holds_lease());
                leader.map(|leader| (*group, leader.term))
            }
            Hosted::Found(_) => None,
        };
        hosted.iter().filter_map(reads).collect()
    }

    fn holds(&self, group: Group) -> bool {
        self.lock_seats().contains_key(&group)
    }

    fn remains(&self, group: Group) -> Option<Remains> {
        self.replica(group)?.remains()
    }

    fn trouble(&self) -> Option<String> {
        let status = self.ports.log.status();
        let full = status.disk_full.then(|| "the disk is full: nothing can be written".to_owned());
        status.failed.map(|reason| format!("the log has failed: {reason}")).or(full)
    }

    fn remarks(&self) -> Vec<String> {
        let promise = match self.ports.log.durability() {
            Durability::Fsync => "durability fsync: what was acknowledged outlives a power cut of all nodes",
            Durability::Memory => {
                "durability memory: what was acknowledged is lost if most of a shard's nodes stop at the same time"
            }
        };
        let given_up = self.given_up.lock().expect("no holder panics");
        let renewed =
            given_up.iter().map(|(group, why)| format!("the replica of {group} here is being renewed: {why}"));
        std::iter::once(promise.to_owned()).chain(renewed).collect()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let hosted = std::mem::take(&mut *self.hosted());
            for hosted in hosted.into_values() {
                if let Hosted::Running(replica) = hosted {
                    replica.end().await;
                }
            }
            if let Err(error) = self.ports.log.close().await {
                tracing::error!(%error, "the log was not closed in order");
            }
        })
    }
}
