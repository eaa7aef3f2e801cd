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
use crate::log::{Durability, GroupId, Log};
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::leader::Command as MetaEntry;
use crate::meta::state::MetaState;
use crate::ports::clock::Clock;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::{Machine, Pending, Propose};
use crate::propose::handover::Closer;
use crate::propose::local::{LocalPropose, decode_entry, encode_entry};
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
    /// What stands in the way of writing, if something does.
    fn trouble(&self) -> Option<String>;
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
            // An entry of an actor that died may still be on its way to the disk: the log tells of it only afterwards.
            self.log.settle().await.map_err(|error| error.to_string())?;
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
        let bounds = self.log.bounds(id);
        let next = bounds.and_then(|bounds| bounds.next).unwrap_or(1);
        if next <= applied.index {
            // The snapshot was synced after all that is in it was written: the log has lost what followed as well.
            match self.log.durability() {
                Durability::Fsync => {
                    let applied = applied.index;
                    return Err(format!(
                        "the snapshot ends at entry {applied}, and the log before entry {next}: a part of it is missing"
                    ));
                }
                Durability::Memory => {
                    tracing::warn!(%group, snapshot = applied.index, next, "the log lost its end with the power; the snapshot is newer");
                    self.log.purge(id, applied.index).await.map_err(|error| error.to_string())?;
                    return Ok(applied);
                }
            }
        }
        let Some(bounds) = bounds else { return Ok(applied) };
        let end = bounds.next.unwrap_or(bounds.first);
        if bounds.first > applied.index + 1 {
            let (first, applied) = (bounds.first, applied.index);
            return Err(match applied {
                0 => format!("the log begins at entry {first}, and there is no sound snapshot of what was before"),
                _ => format!("the log begins at entry {first}, the newest sound snapshot ends at {applied}"),
            });
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
            if applied.index == 0 {
                return Ok(());
            }
            let snapshots = self.snapshots.clone();
            if let Some(newest) = newest.filter(|newest| *newest >= applied.index) {
                let id = group_id(group);
                if self.log.pins(id) {
                    // Nothing happens in this group, and yet it keeps the log's oldest segment. Its newest snapshot holds
                    // all there is: once that is known to be sound, the older one need not be reached any more.
                    let verify = move || snapshots.verify(id, newest).map_err(|error| error.to_string());
                    offload::call(&*self.offload, Lane::Bulk, verify).await.map_err(|lost| lost.to_string())??;
                    self.log.purge(id, newest).await.map_err(|error| error.to_string())?;
                }
                return Ok(());
            }
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

    fn trouble(&self) -> Option<String> {
        let status = self.log.status();
        let full = status.disk_full.then(|| "the disk is full: nothing can be written".to_owned());
        status.failed.map(|reason| format!("the log has failed: {reason}")).or(full)
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.log.close().await {
                tracing::error!(%error, "the log was not closed in order");
            }
        })
    }
}
