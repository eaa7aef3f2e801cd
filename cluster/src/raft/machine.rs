//! Between openraft and the actor that is a group's state machine: entries and snapshots go in as one message each and are
//! awaited; the actor awaits nothing of openraft.

use std::io;
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::Position;

use super::store::Applied;
use super::stored::{decode_meta, encode_meta};
use super::types::{Commands, Kind, LogId, Payload, Results, SnapshotMeta, StoredMembership, Types, position_of};
use crate::log::GroupId;
use crate::meta::command::MetaOutcome;
use crate::meta::leader::Command as MetaEntry;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::{Gone, InstallError, Pieces, Replicated};
use crate::shard::leader::Command as ShardEntry;
use crate::snapshots::Snapshots;

/// A state machine whichever kind it is.
#[derive(Clone)]
pub(crate) enum Erased {
    Meta(Arc<dyn Replicated<MetaEntry, MetaOutcome>>),
    Shard(Arc<dyn Replicated<ShardEntry, Outcome>>),
}

impl Erased {
    fn kind(&self) -> Kind {
        match self {
            Erased::Meta(_) => Kind::Meta,
            Erased::Shard(_) => Kind::Shard,
        }
    }

    /// Whether it is the meta group's: what that has given ids to is never forgotten, in whichever mode.
    pub(super) fn is_meta(&self) -> bool {
        self.kind() == Kind::Meta
    }

    async fn apply(&self, position: Position, commands: Commands) -> io::Result<Results> {
        match (self, commands) {
            (Erased::Meta(machine), Commands::Meta(commands)) => {
                machine.apply(position, commands).await.map(Results::Meta).map_err(io::Error::other)
            }
            (Erased::Shard(machine), Commands::Shard(commands)) => {
                machine.apply(position, commands).await.map(Results::Shard).map_err(io::Error::other)
            }
            (Erased::Meta(_), Commands::Shard(_)) | (Erased::Shard(_), Commands::Meta(_)) => {
                Err(io::Error::other("an entry of another kind of group"))
            }
        }
    }

    async fn share(&self) -> Result<Pieces, Gone> {
        match self {
            Erased::Meta(machine) => machine.share().await,
            Erased::Shard(machine) => machine.share().await,
        }
    }

    pub(super) fn abandon(&self, reason: &str) {
        match self {
            Erased::Meta(machine) => machine.abandon(reason),
            Erased::Shard(machine) => machine.abandon(reason),
        }
    }

    async fn install(&self, position: Position, pieces: Vec<Vec<u8>>) -> Result<(), InstallError> {
        match self {
            Erased::Meta(machine) => machine.install(position, pieces).await,
            Erased::Shard(machine) => machine.install(position, pieces).await,
        }
    }
}

/// A snapshot file of this node.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) group: GroupId,
    pub(super) index: u64,
    pub(super) snapshots: Snapshots,
}

/// Where a replica's snapshots lie.
#[derive(Clone)]
pub(super) struct Shelf {
    pub(super) group: GroupId,
    pub(super) snapshots: Snapshots,
    pub(super) offload: Arc<dyn Offload>,
    /// One build at a time on a node.
    pub(super) building: Arc<tokio::sync::Mutex<()>>,
    /// Why the last one was not written, if it was not.
    pub(super) failed: Arc<Mutex<Option<String>>>,
}

impl Shelf {
    fn kept(&self, meta: &SnapshotMeta) -> openraft::type_config::alias::SnapshotOf<Types, Kept> {
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let kept = Kept { group: self.group, index, snapshots: self.snapshots.clone() };
        openraft::Snapshot { meta: meta.clone(), snapshot: kept }
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().expect("no holder panics").clone()
    }

    pub(super) fn forget_failure(&self) {
        *self.failed.lock().expect("no holder panics") = None;
    }

    /// The newest sound snapshot with its pieces.
    pub(super) async fn load(&self) -> io::Result<Option<(SnapshotMeta, Vec<Vec<u8>>)>> {
        let (snapshots, group) = (self.snapshots.clone(), self.group);
        let load = move || -> io::Result<Option<(SnapshotMeta, Vec<Vec<u8>>)>> {
            let loaded = snapshots.load(group).map_err(io::Error::other)?;
            for rejected in &loaded.rejected {
                tracing::error!(%group, %rejected, "a snapshot is corrupt and was set aside");
            }
            let Some(snapshot) = loaded.snapshot else { return Ok(None) };
            let meta = decode_meta(&snapshot.info.meta).map_err(io::Error::other)?;
            let pieces: Result<Vec<_>, _> = snapshot.chunks.collect();
            Ok(Some((meta, pieces.map_err(io::Error::other)?)))
        };
        offload::call(&*self.offload, Lane::Bulk, load).await.map_err(io::Error::other)?
    }

    /// The pieces of a snapshot, which lies on this shelf afterwards.
    async fn take_in(&self, meta: &SnapshotMeta, Kept { group, index, snapshots }: Kept) -> io::Result<Vec<Vec<u8>>> {
        let (own, own_group, bytes) = (self.snapshots.clone(), self.group, encode_meta(meta));
        let read = move || -> io::Result<Vec<Vec<u8>>> {
            let chunks = snapshots.chunks(group, index).map_err(io::Error::other)?;
            let pieces = chunks.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
            if !own.kept(own_group).map_err(io::Error::other)?.contains(&index) {
                own.write(own_group, index, &bytes, pieces.clone()).map_err(io::Error::other)?;
            }
            Ok(pieces)
        };
        offload::call(&*self.offload, Lane::Bulk, read).await.map_err(io::Error::other)?
    }

    async fn keep_only(&self, meta: &SnapshotMeta) -> io::Result<()> {
        let (snapshots, group) = (self.snapshots.clone(), self.group);
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let remove = move || snapshots.remove_before(group, index).map_err(io::Error::other);
        offload::call(&*self.offload, Lane::Bulk, remove).await.map_err(io::Error::other)?
    }

    pub(super) async fn write(&self, meta: &SnapshotMeta, pieces: Pieces) -> io::Result<()> {
        let _one = self.building.lock().await;
        let (snapshots, group, bytes) = (self.snapshots.clone(), self.group, encode_meta(meta));
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let write = move || snapshots.write(group, index, &bytes, pieces()).map_err(io::Error::other);
        offload::call(&*self.offload, Lane::Bulk, write).await.map_err(io::Error::other)??;
        Ok(())
    }
}

/// The state machine as openraft sees it.
pub(super) struct RaftMachine {
    machine: Erased,
    shelf: Shelf,
    applied: Option<LogId>,
    /// The same, for the store.
    told: Arc<Applied>,
    members: StoredMembership,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl RaftMachine {
    /// Over a machine that stands where `snapshot` (the newest on the shelf) says.
    pub(super) fn new(machine: Erased, shelf: Shelf, snapshot: Option<SnapshotMeta>, told: Arc<Applied>) -> Self {
        let (applied, members) =
            snapshot.as_ref().map_or_else(Default::default, |meta| (meta.last_log_id, meta.last_membership.clone()));
        told.note(applied);
        RaftMachine { machine, shelf, applied, told, members, current: Arc::new(Mutex::new(snapshot)) }
    }
}

/// A snapshot to be written.
pub(super) struct Build {
    shelf: Shelf,
    meta: SnapshotMeta,
    /// In a lock because openraft shares builders between threads, and a state being encoded is nobody's but its encoder's.
    pieces: Mutex<Option<Result<Pieces, Gone>>>,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl RaftSnapshotBuilder<Types> for Build {
    type SnapshotData = Kept;

    async fn build_snapshot(&mut self) -> io::Result<openraft::type_config::alias::SnapshotOf<Types, Kept>> {
        let current = self.current.lock().expect("no holder panics").clone();
        if let Some(current) = current.filter(|current| current.last_log_id == self.meta.last_log_id) {
            return Ok(self.shelf.kept(&current));
        }
        let pieces = self.pieces.lock().expect("no holder panics").take();
        let pieces = pieces.ok_or_else(|| io::Error::other("a snapshot is built once"))?;
        if let Err(error) = self.shelf.write(&self.meta, pieces.map_err(io::Error::other)?).await {
            // An error would end the replica, and all that is wrong is that the log keeps growing: the one there was stays the newest.
            *self.shelf.failed.lock().expect("no holder panics") = Some(error.to_string());
            let current = self.current.lock().expect("no holder panics").clone();
            return Ok(self.shelf.kept(&current.unwrap_or_default()));
        }
        *self.current.lock().expect("no holder panics") = Some(self.meta.clone());
        Ok(self.shelf.kept(&self.meta))
    }
}

impl RaftMachine {
    /// The state as it stands between two entries, and after which one.
    pub(super) async fn examine(&mut self) -> Result<(Position, Pieces), Gone> {
        let position = self.applied.as_ref().map(position_of).unwrap_or_default();
        Ok((position, self.machine.share().await?))
    }
}

impl RaftStateMachine<Types> for RaftMachine {
    type SnapshotData = Kept;
    type SnapshotBuilder = Build;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let log_id = entry.log_id;
            let results = match entry.payload {
                Payload::Blank => Results::None,
                Payload::Normal(proposal) => {
                    // What cannot be read was written by a later release: this replica must not go on.
                    let commands = match proposal.commands(self.machine.kind()) {
                        Ok(commands) => commands,
                        Err(error) => {
                            let reason = format!("entry {} is of another release, or rotten: {error}", log_id.index);
                            self.machine.abandon(&reason);
                            return Err(io::Error::other(reason));
                        }
                    };
                    self.machine.apply(position_of(&log_id), commands).await?
                }
                Payload::Membership(membership) => {
                    self.members = StoredMembership::new(Some(log_id), membership);
                    Results::None
                }
            };
            self.applied = Some(log_id);
            self.told.note(self.applied);
            if let Some(responder) = responder {
                responder.send(results);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Build {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.members.clone() };
        // No entry is applied before this returns, so state and description belong together.
        let pieces = Mutex::new(Some(self.machine.share().await));
        Build { shelf: self.shelf.clone(), meta, pieces, current: Arc::clone(&self.current) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Kept) -> io::Result<()> {
        let pieces = self.shelf.take_in(meta, snapshot).await?;
        if let Some(last) = &meta.last_log_id {
            self.machine.install(position_of(last), pieces).await.map_err(io::Error::other)?;
        }
        self.applied = meta.last_log_id;
        self.told.note(self.applied);
        self.members = meta.last_membership.clone();
        // The log ends here and goes on from here: an older snapshot could not be fallen back to.
        self.shelf.keep_only(meta).await?;
        *self.current.lock().expect("no holder panics") = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::type_config::alias::SnapshotOf<Types, Kept>>> {
        Ok(self.current.lock().expect("no holder panics").as_ref().map(|meta| self.shelf.kept(meta)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::ports::fatal::RecordedFatal;
    use crate::ports::memory_disk::MemoryDisk;
    use crate::ports::offload::{InlineOffload, Running, Step};

    /// Takes a while, and counts how many jobs do at the same time.
    #[derive(Default)]
    struct Counted {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Offload for Counted {
        fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
            let (now, most) = (Arc::clone(&self.now), Arc::clone(&self.most));
            Box::pin(async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                InlineOffload.run(lane, steps).await;
                now.fetch_sub(1, Ordering::Relaxed);
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_snapshot_is_built_at_a_time() {
        let (disk, fatal) = (Arc::new(MemoryDisk::new()), Arc::new(RecordedFatal::default()));
        let (snapshots, counted) = (Snapshots::open(disk, fatal).unwrap(), Arc::new(Counted::default()));
        let building = Arc::default();
        let shelf = |id| Shelf {
            group: GroupId(id),
            snapshots: snapshots.clone(),
            offload: Arc::<Counted>::clone(&counted),
            building: Arc::clone(&building),
            failed: Arc::default(),
        };
        let shelves: Vec<Shelf> = (1..=3).map(shelf).collect();
        let meta = SnapshotMeta::default();
        let writes = shelves.iter().map(|shelf| shelf.write(&meta, Box::new(|| vec![b"piece".to_vec()])));
        for written in futures_util::future::join_all(writes).await {
            written.unwrap();
        }
        assert_eq!(counted.most.load(Ordering::Relaxed), 1);
        for shelf in &shelves {
            assert_eq!(shelf.load().await.unwrap().unwrap().1, [b"piece".to_vec()], "each is whole");
        }
    }
}
