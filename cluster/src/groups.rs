//! The groups of a node: where their state is recovered from, and what they propose through. One implementation keeps them on
//! the node's disk; tests bring others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bincode::Decode;
use proffer_engine::codec;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::command::{Leader, Position};
use proffer_engine::profile::shard::ShardState;
use tokio::sync::Mutex as AsyncMutex;

use crate::error::StartError;
use crate::log::{GroupId, Log};
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::leader::Command as MetaEntry;
use crate::meta::state::MetaState;
use crate::ports::clock::Clock;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::{Machine, Pending, Propose};
use crate::propose::local::{Closer, LocalPropose, decode_entry, encode_entry};
use crate::shard::leader::Command as ShardEntry;
use crate::snapshots::Snapshots;

/// A shard's propose port.
pub(crate) type ProposeShard = Arc<dyn Propose<ShardEntry, Outcome>>;
/// The meta group's propose port.
pub(crate) type ProposeMeta = Arc<dyn Propose<MetaEntry, MetaOutcome>>;
/// A state encoded piece by piece, off the deciding threads.
pub(crate) type Pieces = Box<dyn FnOnce() -> Vec<Vec<u8>> + Send>;

/// Which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Catalogue and ledger.
    Meta,
    /// A shard.
    Shard(ShardId),
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Group::Meta => f.write_str("meta"),
            Group::Shard(shard) => write!(f, "shard-{:02}", shard.0),
        }
    }
}

/// Contract: `recover_…` first takes the group out of the hands of an adapter made before; the state it gives has applied
/// everything that was ever acknowledged, and the adapter made after it goes on there.
pub(crate) trait Groups: Send + Sync + 'static {
    /// The meta group's state; founds the cluster if there is none.
    fn recover_meta(&self, founding: Founding) -> Pending<'_, Result<(MetaState, Position), StartError>>;
    /// A shard's state.
    fn recover_shard(&self, shard: ShardId) -> Pending<'_, Result<(ShardState, Position), StartError>>;
    /// The port of the meta group over a machine that stands at `applied`.
    fn meta(&self, machine: Arc<dyn Machine<MetaEntry, MetaOutcome>>, applied: Position) -> ProposeMeta;
    /// The port of a shard over a machine that stands at `applied`.
    fn shard(&self, shard: ShardId, machine: Arc<dyn Machine<ShardEntry, Outcome>>, applied: Position) -> ProposeShard;
    /// Whether a snapshot of the group is due.
    fn is_snapshot_due(&self, group: Group) -> bool;
    /// Keeps the state that `pieces` encodes, which has applied everything up to `applied`; what nobody needs any more goes.
    fn keep(&self, group: Group, applied: Position, pieces: Pieces) -> Pending<'_, Result<(), String>>;
    /// Closes the log.
    fn close(&self) -> Pending<'_, ()>;
}

/// Groups on this node's disk, one replica each.
pub(crate) struct LocalGroups {
    log: Log,
    snapshots: Snapshots,
    offload: Arc<dyn Offload>,
    clock: Arc<dyn Clock>,
    /// Of this start: no two starts of a disk lead under the same.
    leader: Leader,
    // Adapters under which an actor may still be dying.
    closers: Mutex<BTreeMap<Group, Closer>>,
    newest: Mutex<BTreeMap<Group, u64>>,
    /// One snapshot at a time on a node.
    building: AsyncMutex<()>,
}

fn group_id(group: Group) -> GroupId {
    match group {
        Group::Meta => GroupId(1),
        Group::Shard(shard) => GroupId(2 + u64::from(shard.0)),
    }
}

impl LocalGroups {
    pub(crate) fn new(
        log: Log,
        snapshots: Snapshots,
        offload: Arc<dyn Offload>,
        clock: Arc<dyn Clock>,
        leader: Leader,
    ) -> Self {
        LocalGroups {
            log,
            snapshots,
            offload,
            clock,
            leader,
            closers: Mutex::default(),
            newest: Mutex::default(),
            building: AsyncMutex::default(),
        }
    }

    /// The newest sound snapshot's pieces with the entry it stands at.
    async fn load(&self, group: Group) -> Result<Option<(Position, Vec<Vec<u8>>)>, String> {
        let closer = self.closers.lock().expect("no holder panics").remove(&group);
        if let Some(closer) = closer {
            closer.close().await;
        }
        let snapshots = self.snapshots.clone();
        let load = move || -> Result<Option<(Position, Vec<Vec<u8>>)>, String> {
            let loaded = snapshots.load(group_id(group)).map_err(|error| error.to_string())?;
            for rejected in &loaded.rejected {
                tracing::error!(%group, %rejected, "a snapshot is corrupt and was set aside");
            }
            let Some(snapshot) = loaded.snapshot else { return Ok(None) };
            let position: Position =
                codec::decode("snapshot position", &snapshot.info.meta).map_err(|error| error.to_string())?;
            let pieces: Result<Vec<_>, _> = snapshot.chunks.collect();
            Ok(Some((position, pieces.map_err(|error| error.to_string())?)))
        };
        let loaded = offload::call(&*self.offload, Lane::Bulk, load).await.map_err(|lost| lost.to_string())??;
        if let Some((position, _)) = &loaded {
            self.newest.lock().expect("no holder panics").insert(group, position.index);
        }
        Ok(loaded)
    }

    /// Feeds the log's entries after `applied` to `apply`; says where that ends.
    async fn replay<C: Decode<()> + 'static>(
        &self,
        group: Group,
        mut applied: Position,
        mut apply: impl FnMut(Position, Vec<C>),
    ) -> Result<Position, String> {
        let id = group_id(group);
        let Some(bounds) = self.log.bounds(id) else { return Ok(applied) };
        let end = bounds.next.unwrap_or(bounds.first);
        if bounds.first > applied.index + 1 {
            return Err(format!("the log begins at entry {}, the snapshot ends at {}", bounds.first, applied.index));
        }
        while applied.index + 1 < end {
            let entries = self.log.read(id, applied.index + 1, end).await.map_err(|error| error.to_string())?;
            for entry in entries {
                let (leader, commands) = decode_entry(&entry.payload).map_err(|error| error.to_string())?;
                applied = Position { leader, index: entry.index };
                apply(applied, commands);
            }
        }
        Ok(applied)
    }

    fn remember(&self, group: Group, closer: Closer) {
        self.closers.lock().expect("no holder panics").insert(group, closer);
    }
}

fn unrecovered(group: Group) -> impl Fn(String) -> StartError {
    move |reason| StartError::Recovery { what: group.to_string(), reason }
}

impl Groups for LocalGroups {
    fn recover_meta(&self, founding: Founding) -> Pending<'_, Result<(MetaState, Position), StartError>> {
        Box::pin(async move {
            let failed = unrecovered(Group::Meta);
            let (mut state, applied) = match self.load(Group::Meta).await.map_err(&failed)? {
                Some((position, pieces)) => {
                    let state = MetaState::decode_chunks(pieces.into_iter());
                    (state.map_err(|error| failed(error.to_string()))?, position)
                }
                None => (MetaState::new(), Position::default()),
            };
            let replayed = self.replay(Group::Meta, applied, |position, commands: Vec<MetaCommand>| {
                for command in &commands {
                    state.apply(position, command);
                }
            });
            let mut applied = replayed.await.map_err(&failed)?;
            if state.founding().is_none() {
                let (now, leader) = (self.clock.wall(), self.leader);
                let commands = vec![MetaCommand::V1(MetaCommandV1 { now, leader, op: MetaOp::Found(founding) })];
                applied = Position { leader, index: applied.index + 1 };
                let appended = self.log.append(group_id(Group::Meta), applied.index, encode_entry(leader, &commands));
                appended.await.map_err(|error| failed(error.to_string()))?;
                state.apply(applied, &commands[0]);
            }
            Ok((state, applied))
        })
    }

    fn recover_shard(&self, shard: ShardId) -> Pending<'_, Result<(ShardState, Position), StartError>> {
        Box::pin(async move {
            let group = Group::Shard(shard);
            let failed = unrecovered(group);
            let (mut state, applied) = match self.load(group).await.map_err(&failed)? {
                Some((position, pieces)) => {
                    let state = ShardState::decode_chunks(pieces);
                    (state.map_err(|error| failed(error.to_string()))?, position)
                }
                None => (ShardState::new(), Position::default()),
            };
            let replayed = self.replay(group, applied, |position, commands: Vec<_>| {
                for command in &commands {
                    apply(&mut state, position, command);
                }
            });
            let applied = replayed.await.map_err(&failed)?;
            Ok((state, applied))
        })
    }

    fn meta(&self, machine: Arc<dyn Machine<MetaEntry, MetaOutcome>>, applied: Position) -> ProposeMeta {
        let group = group_id(Group::Meta);
        let adapter = LocalPropose::new(self.log.clone(), group, self.leader, machine, applied.index + 1);
        self.remember(Group::Meta, adapter.closer());
        Arc::new(adapter)
    }

    fn shard(&self, shard: ShardId, machine: Arc<dyn Machine<ShardEntry, Outcome>>, applied: Position) -> ProposeShard {
        let group = group_id(Group::Shard(shard));
        let adapter = LocalPropose::new(self.log.clone(), group, self.leader, machine, applied.index + 1);
        self.remember(Group::Shard(shard), adapter.closer());
        Arc::new(adapter)
    }

    fn is_snapshot_due(&self, group: Group) -> bool {
        let newest = self.newest.lock().expect("no holder panics").get(&group).copied();
        self.log.snapshot_due(group_id(group), newest)
    }

    fn keep(&self, group: Group, applied: Position, pieces: Pieces) -> Pending<'_, Result<(), String>> {
        Box::pin(async move {
            let _one = self.building.lock().await;
            let newest = self.newest.lock().expect("no holder panics").get(&group).copied();
            if newest >= Some(applied.index) || applied.index == 0 {
                return Ok(());
            }
            let snapshots = self.snapshots.clone();
            let write = move || -> Result<Vec<u64>, String> {
                let id = group_id(group);
                let meta = codec::encode(&applied);
                snapshots.write(id, applied.index, &meta, pieces()).map_err(|error| error.to_string())?;
                snapshots.kept(id).map_err(|error| error.to_string())
            };
            let kept = offload::call(&*self.offload, Lane::Bulk, write).await.map_err(|lost| lost.to_string())??;
            self.newest.lock().expect("no holder panics").insert(group, applied.index);
            // The older of the two is what a corrupt newer one falls back to: the log must reach it.
            if let [_, older, ..] = kept[..] {
                self.log.purge(group_id(group), older).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.log.close().await {
                tracing::error!(%error, "the log was not closed in order");
            }
        })
    }
}
