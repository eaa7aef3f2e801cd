//! The groups of a node: where their state is recovered from, and what they propose through. One implementation runs a replica of
//! each; tests bring others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proffer_engine::keys::ShardId;
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::Position;
use proffer_engine::profile::shard::ShardState;

use crate::error::StartError;
pub(crate) use crate::group::Group;
use crate::log::GroupId;
use crate::meta::command::MetaOutcome;
use crate::meta::leader::Command as MetaEntry;
use crate::meta::state::MetaState;
use crate::ports::propose::{Pending, Propose, Replicated};
use crate::raft::{
    Carrier, Commands, Erased, Found, Port, RaftAnswer, RaftMessage, Replica, ReplicaPorts, Results, Seat, Unreached,
};
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
    /// What stands in the way of writing, if something does.
    fn trouble(&self) -> Option<String>;
    /// Ends all groups and closes the log.
    fn close(&self) -> Pending<'_, ()>;
}

/// A replica of each group on this node.
pub(crate) struct RaftGroups {
    ports: ReplicaPorts,
    hosted: Mutex<BTreeMap<Group, Hosted>>,
}

/// One group here.
enum Hosted {
    /// Read from the disk; the machine over it is being made.
    Found(Found),
    Running(Arc<Replica>),
}

/// The way to other nodes of a cluster that has none.
#[derive(Debug)]
pub(crate) struct NoPeers;

impl Carrier for NoPeers {
    fn ask(&self, to: u64, _: Seat, _: RaftMessage, _: Duration) -> Pending<'_, Result<RaftAnswer, Unreached>> {
        Box::pin(async move { Err(Unreached::Unreachable(format!("this node has no way to replica {to}"))) })
    }
}

/// The node that founds a cluster, and the replicas it founds it with. Later ones have the ids of the entries that place them, which
/// are larger.
const FOUNDER: Seat = Seat { node: 1 };

fn replica_id(group: Group) -> u64 {
    match group {
        Group::Meta => 1,
        Group::Shard(shard) => 2 + u64::from(shard.0),
    }
}

impl RaftGroups {
    pub(crate) fn new(ports: ReplicaPorts) -> Self {
        RaftGroups { ports, hosted: Mutex::default() }
    }

    fn hosted(&self) -> MutexGuard<'_, BTreeMap<Group, Hosted>> {
        self.hosted.lock().expect("no holder panics")
    }

    fn replica(&self, group: Group) -> Option<Arc<Replica>> {
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
        }
        let mut found = Replica::find(replica_id(group), &self.ports).await.map_err(|error| error.to_string())?;
        let (pieces, position) = (found.pieces.take(), found.position);
        self.hosted().insert(group, Hosted::Found(found));
        Ok((pieces, position))
    }

    fn start(&self, group: Group, machine: Erased) -> Arc<Replica> {
        let found = match self.hosted().remove(&group) {
            Some(Hosted::Found(found)) => found,
            Some(Hosted::Running(_)) | None => unreachable!("a group is recovered before its port is made"),
        };
        let id = replica_id(group);
        let replica = Replica::start(id, machine, found, Some([(id, FOUNDER)].into()), self.ports.clone());
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
        self.ports.log.snapshot_due(GroupId(replica_id(group)), replica.snapshot_index())
    }

    fn keep(&self, group: Group) -> Pending<'_, Result<(), String>> {
        Box::pin(async move {
            match self.replica(group) {
                Some(replica) => replica.keep_snapshot().await,
                None => Ok(()),
            }
        })
    }

    fn trouble(&self) -> Option<String> {
        let status = self.ports.log.status();
        let full = status.disk_full.then(|| "the disk is full: nothing can be written".to_owned());
        status.failed.map(|reason| format!("the log has failed: {reason}")).or(full)
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
