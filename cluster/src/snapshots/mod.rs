//! Snapshot files: the state of a group up to an index, in chunks, so that no second copy of it is ever in memory.
//!
//! ```text
//! file   = magic "PROFSNAP", length u32, crc u32, header (bincode), chunk*, footer
//! chunk  = length u32 (never 0), crc u32, bytes
//! footer = 0 u32, number of chunks u64, xxh3-128 of everything before it
//! ```
//!
//! A file is written under a temporary name, synced, renamed, and the directory synced; only then do older ones go. Two are
//! kept for each group. The whole-file hash is checked before a byte of it is used; a newest file that fails it is set aside
//! under a name ending in `.bad`, the older one is used, and the caller is told.
//!
//! All calls block: make them on [`Lane::Bulk`](crate::ports::offload::Lane::Bulk).

mod format;
#[cfg(test)]
mod fuzz;

use std::fmt;
use std::sync::Arc;

pub use format::Chunks;
use format::{Hashing, Header};

use crate::limits::{SNAPSHOT_META_BYTES_MAX, SNAPSHOTS_KEPT};
use crate::log::GroupId;
use crate::ports::disk::{Disk, DiskError};
use crate::ports::fatal::Fatal;

/// What a snapshot file is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Whose state.
    pub group: GroupId,
    /// The last entry that is in it.
    pub last_index: u64,
    /// What the writer wanted to be kept beside the state.
    pub meta: Vec<u8>,
    /// The file's length.
    pub bytes: u64,
}

/// A snapshot whose file is what was written.
#[derive(Debug)]
pub struct Snapshot {
    /// What it is of.
    pub info: SnapshotInfo,
    /// Its chunks, read one at a time.
    pub chunks: Chunks,
}

/// A file that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its name; it is called that with `.bad` at the end now.
    pub name: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.what)
    }
}

/// What was found for a group.
#[derive(Debug)]
pub struct Loaded {
    /// The newest sound snapshot; `None` if there is none.
    pub snapshot: Option<Snapshot>,
    /// Newer files that were passed over. Not empty: say so loudly; the log must reach back to the snapshot that was loaded,
    /// or to its beginning.
    pub rejected: Vec<Rejected>,
}

/// Why a snapshot was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed or is full. The snapshots there were are still there.
    #[error("snapshot: {0}")]
    Disk(#[from] DiskError),
    /// More than may be kept.
    #[error("snapshot: {bytes} bytes of {what} are too many, at most {bytes_max} are allowed")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A file is not what was written.
    #[error("snapshot {name} is corrupt: {what}")]
    Corrupt {
        /// The file.
        name: String,
        /// What is wrong.
        what: String,
    },
}

/// The snapshot files of a disk, which may hold other files too.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    fatal: Arc<dyn Fatal>,
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Takes over a disk: what a crash left half written is removed.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(disk: Arc<dyn Disk>, fatal: Arc<dyn Fatal>) -> Result<Snapshots, SnapshotError> {
        for name in disk.list()?.iter().filter(|name| name.starts_with("snap-") && name.ends_with(".tmp")) {
            disk.remove(name)?;
        }
        Ok(Snapshots { disk, fatal })
    }

    /// Writes a snapshot and returns once it is durable; of the older ones, the newest stays. Memory: one chunk.
    ///
    /// # Errors
    /// See [`SnapshotError`]; nothing of the attempt is left then. A sync that fails also ends the node.
    pub fn write(
        &self,
        group: GroupId,
        last_index: u64,
        meta: &[u8],
        chunks: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<SnapshotInfo, SnapshotError> {
        let mut draft = self.begin(group, last_index, meta)?;
        for chunk in chunks {
            draft.push(&chunk)?;
        }
        draft.keep()
    }

    /// Begins a snapshot whose chunks come one by one. Another draft of the same snapshot is overwritten.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn begin(&self, group: GroupId, last_index: u64, meta: &[u8]) -> Result<Draft, SnapshotError> {
        check_size("description", meta.len(), SNAPSHOT_META_BYTES_MAX)?;
        let name = name(group, last_index);
        let temporary = format!("{name}.tmp");
        if self.disk.list()?.contains(&temporary) {
            self.disk.remove(&temporary)?;
        }
        self.disk.create(&temporary)?;
        let header = Header { group: group.0, last_index, meta: meta.to_vec() };
        let mut draft = Draft { snapshots: self.clone(), temporary: temporary.clone(), name, header, file: None };
        draft.file = Some(Hashing::begin(Arc::clone(&self.disk), temporary, &draft.header)?);
        Ok(draft)
    }

    /// The chunks of the snapshot that ends at an index, once its file is known to be sound.
    ///
    /// # Errors
    /// [`SnapshotError::Corrupt`] if it is not; what the disk says.
    pub fn chunks(&self, group: GroupId, last_index: u64) -> Result<Chunks, SnapshotError> {
        let name = name(group, last_index);
        let (header, chunks, _) = format::open(&self.disk, &name)?;
        if (header.group, header.last_index) == (group.0, last_index) {
            return Ok(chunks);
        }
        let what = format!("it is of group {} up to entry {}", header.group, header.last_index);
        Err(SnapshotError::Corrupt { name, what })
    }

    /// Loads the newest sound snapshot of a group. Each file is read once to check it, and its chunks again as they are asked
    /// for. Memory: one chunk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn load(&self, group: GroupId) -> Result<Loaded, SnapshotError> {
        let mut rejected = Vec::new();
        for last_index in self.kept(group)? {
            let name = name(group, last_index);
            match format::open(&self.disk, &name) {
                Ok((header, chunks, bytes)) if (header.group, header.last_index) == (group.0, last_index) => {
                    let info = SnapshotInfo { group, last_index, meta: header.meta, bytes };
                    return Ok(Loaded { snapshot: Some(Snapshot { info, chunks }), rejected });
                }
                Ok((header, ..)) => {
                    let what = format!("it is of group {} up to entry {}", header.group, header.last_index);
                    rejected.push(self.set_aside(name, what)?);
                }
                Err(SnapshotError::Corrupt { name, what }) => rejected.push(self.set_aside(name, what)?),
                Err(error) => return Err(error),
            }
        }
        Ok(Loaded { snapshot: None, rejected })
    }

    /// Reads a snapshot file once and checks that it is what was written.
    ///
    /// # Errors
    /// [`SnapshotError::Corrupt`] if it is not; what the disk says.
    pub fn verify(&self, group: GroupId, last_index: u64) -> Result<(), SnapshotError> {
        self.chunks(group, last_index).map(|_| ())
    }

    /// Keeps a corrupt file as evidence, out of the way of those that count as kept.
    fn set_aside(&self, name: String, what: String) -> Result<Rejected, SnapshotError> {
        self.disk.rename(&name, &format!("{name}.bad"))?;
        self.synced(self.disk.sync_dir())?;
        Ok(Rejected { name, what })
    }

    /// The last indices of a group's snapshots, newest first. With two of them, the log may be purged through the second.
    ///
    /// # Errors
    /// What the disk says.
    pub fn kept(&self, group: GroupId) -> Result<Vec<u64>, SnapshotError> {
        let mut kept: Vec<u64> = self.disk.list()?.iter().filter_map(|name| last_index(name, group)).collect();
        kept.sort_unstable_by(|one, other| other.cmp(one));
        Ok(kept)
    }

    /// Removes the snapshots of a group that end before an index.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_before(&self, group: GroupId, index: u64) -> Result<(), SnapshotError> {
        for older in self.kept(group)?.into_iter().filter(|last| *last < index) {
            self.disk.remove(&name(group, older))?;
        }
        self.synced(self.disk.sync_dir())
    }

    /// Removes all snapshots of a group that is gone, corrupt ones too.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_all(&self, group: GroupId) -> Result<(), SnapshotError> {
        let of_group =
            |name: &&String| last_index(name.trim_end_matches(".bad").trim_end_matches(".tmp"), group).is_some();
        for name in self.disk.list()?.iter().filter(of_group) {
            self.disk.remove(name)?;
        }
        self.synced(self.disk.sync_dir())
    }

    fn synced(&self, sync: Result<(), DiskError>) -> Result<(), SnapshotError> {
        sync.map_err(|error| {
            self.fatal.stop(&format!("cannot sync a snapshot: {error}"));
            SnapshotError::Disk(error)
        })
    }
}

/// A snapshot being written. Dropped before it is [kept](Draft::keep), it leaves nothing.
pub struct Draft {
    snapshots: Snapshots,
    temporary: String,
    name: String,
    header: Header,
    /// `None` once it is kept.
    file: Option<Hashing>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Draft").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Draft {
    /// Appends a chunk; empty ones are left out.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.file.as_mut().expect("it is not kept yet").push(chunk)
    }

    /// Puts it in its place, durably; of the older ones, the newest stays.
    ///
    /// # Errors
    /// See [`SnapshotError`]. A sync that fails also ends the node.
    pub fn keep(mut self) -> Result<SnapshotInfo, SnapshotError> {
        let Snapshots { disk, .. } = &self.snapshots;
        let group = GroupId(self.header.group);
        let written = self.file.take().expect("it is kept once").finish();
        let synced = written.and_then(|bytes| self.snapshots.synced(disk.sync_data(&self.temporary)).map(|()| bytes));
        let bytes = synced.inspect_err(|_| self.discard())?;
        disk.rename(&self.temporary, &self.name)?;
        self.snapshots.synced(disk.sync_dir())?;
        for old in self.snapshots.kept(group)?.into_iter().skip(SNAPSHOTS_KEPT) {
            disk.remove(&name(group, old))?;
        }
        let Header { last_index, meta, .. } = self.header.clone();
        Ok(SnapshotInfo { group, last_index, meta, bytes })
    }

    fn discard(&self) {
        // What cannot be removed now is removed at the next start.
        let _left = self.snapshots.disk.remove(&self.temporary);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.file.is_some() {
            self.discard();
        }
    }
}

fn name(group: GroupId, last_index: u64) -> String {
    format!("snap-{:020}-{last_index:020}.snap", group.0)
}

fn last_index(file: &str, group: GroupId) -> Option<u64> {
    let index = file.strip_prefix(&format!("snap-{:020}-", group.0))?.strip_suffix(".snap")?.parse().ok()?;
    (name(group, index) == file).then_some(index)
}

fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), SnapshotError> {
    if bytes <= bytes_max { Ok(()) } else { Err(SnapshotError::TooLarge { what, bytes, bytes_max }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::SNAPSHOT_CHUNK_BYTES_MAX;
    use crate::ports::fatal::RecordedFatal;
    use crate::ports::memory_disk::MemoryDisk;

    const G: GroupId = GroupId(3);

    fn snapshots() -> (Arc<MemoryDisk>, Arc<RecordedFatal>, Snapshots) {
        let (disk, fatal) = (Arc::new(MemoryDisk::new()), Arc::new(RecordedFatal::default()));
        let snapshots = Snapshots::open(Arc::clone(&disk) as Arc<dyn Disk>, Arc::clone(&fatal) as Arc<dyn Fatal>);
        (disk, fatal, snapshots.unwrap())
    }

    fn state(of: u8) -> Vec<Vec<u8>> {
        (1..5).map(|length| vec![of; length * 10]).collect()
    }

    /// Index and chunks of what is loaded.
    fn loaded(snapshots: &Snapshots) -> Option<(u64, Vec<Vec<u8>>)> {
        let snapshot = snapshots.load(G).unwrap().snapshot?;
        Some((snapshot.info.last_index, snapshot.chunks.collect::<Result<_, _>>().unwrap()))
    }

    #[test]
    fn the_newest_is_loaded_and_two_are_kept() {
        let (disk, fatal, snapshots) = snapshots();
        assert_eq!(loaded(&snapshots), None);
        for index in [10, 20, 30] {
            let info = snapshots.write(G, index, b"meta", state(index as u8)).unwrap();
            assert_eq!(info.meta, b"meta");
            assert_eq!(loaded(&snapshots), Some((index, state(index as u8))));
        }
        snapshots.write(GroupId(33), 5, b"", state(1)).unwrap();
        assert_eq!(snapshots.kept(G).unwrap(), [30, 20]);
        disk.cut_power(|_, _| 0);
        assert_eq!(loaded(&snapshots), Some((30, state(30))));
        snapshots.remove_all(G).unwrap();
        assert_eq!(loaded(&snapshots), None);
        assert_eq!(disk.list().unwrap().len(), 1, "the other group's stays");
        assert_eq!(fatal.reasons(), [""; 0]);
    }

    #[test]
    fn every_flipped_bit_of_the_newest_leads_to_the_older_one_and_is_reported() {
        let (disk, _, snapshots) = snapshots();
        snapshots.write(G, 10, b"old", state(1)).unwrap();
        let bytes = snapshots.write(G, 20, b"new", state(2)).unwrap().bytes;
        for bit in 0..bytes as usize * 8 {
            let copy = Arc::new(disk.copy());
            copy.flip(&name(G, 20), bit / 8, 1 << (bit % 8));
            let rotten = Snapshots { disk: Arc::clone(&copy) as Arc<dyn Disk>, ..snapshots.clone() };
            let loaded = rotten.load(G).unwrap();
            assert_eq!(loaded.snapshot.unwrap().info.last_index, 10, "bit {bit}");
            assert_eq!(loaded.rejected.len(), 1);
            assert_eq!(rotten.kept(G).unwrap(), [10], "the corrupt one counts no more");
        }
    }

    #[test]
    fn nothing_sound_is_said_to_be_so() {
        let (disk, _, snapshots) = snapshots();
        snapshots.write(G, 10, b"", state(1)).unwrap();
        snapshots.verify(G, 10).unwrap();
        disk.truncate(&name(G, 10), 50).unwrap();
        assert!(matches!(snapshots.verify(G, 10), Err(SnapshotError::Corrupt { .. })));
        let loaded = snapshots.load(G).unwrap();
        assert!(loaded.snapshot.is_none());
        assert_eq!(loaded.rejected.len(), 1);
    }

    #[test]
    fn a_power_cut_at_every_disk_call_leaves_the_old_or_the_new() {
        let mut finished = false;
        for calls in 0..40 {
            for torn in [0, 7, usize::MAX] {
                let (disk, _, snapshots) = snapshots();
                snapshots.write(G, 10, b"", state(1)).unwrap();
                snapshots.write(G, 20, b"", state(2)).unwrap();
                disk.fail_after(calls);
                let written = snapshots.write(G, 30, b"", state(3)).is_ok();
                finished |= written;
                disk.cut_power(|_, unsynced| unsynced.min(torn));
                let snapshots = Snapshots::open(disk, Arc::new(RecordedFatal::default())).unwrap();
                let found = loaded(&snapshots).unwrap();
                assert!(found == (30, state(3)) || (!written && found == (20, state(2))), "after {calls} calls");
            }
        }
        assert!(finished, "the last cuts came after the end");
    }

    #[test]
    fn a_full_disk_costs_nothing_and_a_failed_sync_the_node() {
        let (disk, fatal, snapshots) = snapshots();
        snapshots.write(G, 10, b"", state(1)).unwrap();
        disk.set_capacity(Some(300));
        let error = snapshots.write(G, 20, b"", state(2)).unwrap_err();
        assert!(matches!(error, SnapshotError::Disk(DiskError::Full { .. })), "{error}");
        assert_eq!((disk.list().unwrap(), fatal.reasons().len()), (vec![name(G, 10)], 0));
        disk.set_capacity(None);
        disk.fail_sync_after(0);
        snapshots.write(G, 20, b"", state(2)).unwrap_err();
        assert_eq!(fatal.reasons().len(), 1);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let (disk, _, snapshots) = snapshots();
        let meta = vec![0; SNAPSHOT_META_BYTES_MAX + 1];
        assert!(matches!(snapshots.write(G, 1, &meta, []), Err(SnapshotError::TooLarge { .. })));
        let chunk = vec![0; SNAPSHOT_CHUNK_BYTES_MAX + 1];
        assert!(matches!(snapshots.write(G, 1, &[], [chunk]), Err(SnapshotError::TooLarge { .. })));
        assert_eq!(disk.list().unwrap(), [""; 0]);
    }

    proptest! {
        #[test]
        fn arbitrary_files_are_rejected_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
            let (disk, _, snapshots) = snapshots();
            disk.create(&name(G, 1)).unwrap();
            let magic: &[u8] = if magic { b"PROFSNAP" } else { b"" };
            disk.append(&name(G, 1), &[magic, &bytes].concat()).unwrap();
            let loaded = snapshots.load(G).unwrap();
            prop_assert!(loaded.snapshot.is_none() && loaded.rejected.len() == 1);
        }

        #[test]
        fn any_chunks_come_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2_000), 0..20)) {
            let (_, _, snapshots) = snapshots();
            snapshots.write(G, 4, b"", chunks.clone()).unwrap();
            prop_assert_eq!(loaded(&snapshots), Some((4, chunks)));
        }
    }
}
