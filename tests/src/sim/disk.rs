//! A host's disk: it outlives processes, loses with the power what was not synced, and can do worse.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use proffer_cluster::ports::disk::{Disk, DiskError};
use proffer_cluster::ports::memory_disk::MemoryDisk;

use super::seed::Draws;

/// How much of a file was synced before the last sync, and by it.
#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    before: usize,
    last: usize,
}

#[derive(Debug, Default)]
struct Lies {
    /// It has no more room than so much.
    is_filled: bool,
    /// After so many more syncs one fails …
    fails_in: Option<u64>,
    /// … and what it should have kept is gone with the power, whatever later syncs say: from, to.
    lost: BTreeMap<String, (usize, usize)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct SimDisk {
    inner: MemoryDisk,
    lies: Mutex<Lies>,
    synced: Mutex<BTreeMap<String, Synced>>,
}

impl SimDisk {
    /// As an older copy of it: what is on it now.
    pub fn copy(&self) -> SimDisk {
        SimDisk { inner: self.inner.copy(), ..SimDisk::default() }
    }

    /// What was not synced is lost, or a drawn part of it.
    pub fn cut_power(&self, draws: &Draws) {
        self.inner.cut_power(|_, unsynced| match draws.below(3) {
            0 => 0,
            1 => unsynced,
            _ => usize::try_from(draws.below(unsynced as u64 + 1)).unwrap_or(0),
        });
        let lost = {
            let mut lies = self.lies();
            lies.fails_in = None;
            std::mem::take(&mut lies.lost)
        };
        for (name, (from, to)) in lost {
            for offset in from..to {
                self.inner.flip(&name, offset, 0xA5);
            }
        }
    }

    /// One sync, after so many more, fails; the ones after it succeed, and lie.
    pub fn fail_one_sync(&self, after: u64) {
        self.lies().fails_in = Some(after);
    }

    /// Whether something would be lost with the power.
    pub fn has_unsynced(&self) -> bool {
        self.files().iter().any(|(name, len)| (self.inner.synced_len(name) as u64) < *len)
    }

    /// Whether a sync has failed since the power was last cut.
    pub fn has_lied(&self) -> bool {
        !self.lies().lost.is_empty()
    }

    /// Holds at most so many bytes more than now; `None`: without limit.
    pub fn fill(&self, room: Option<u64>) {
        let used: u64 = self.files().iter().map(|(_, len)| *len).sum();
        self.inner.set_capacity(room.map(|room| used + room));
        self.lies().is_filled = room.is_some();
    }

    /// Whether it has little room, or none.
    pub fn is_filled(&self) -> bool {
        self.lies().is_filled
    }

    /// Inverts a bit of a file whose name begins so; which file and where, if there is one. Not in what the last sync has added: in a log, nobody
    /// can tell that from what was being written when the power went (architecture.md §6: there is no mark above it yet).
    pub fn rot(&self, prefix: &str, draws: &Draws) -> Option<(String, u64)> {
        let files: Vec<(String, Synced)> = {
            let synced = self.synced.lock().expect("no holder panics");
            let rots = synced.iter().filter(|(name, synced)| name.starts_with(prefix) && synced.before > 0);
            rots.map(|(name, synced)| (name.clone(), *synced)).collect()
        };
        let (name, Synced { before, .. }) = draws.pick(&files)?.clone();
        let offset = draws.below(before as u64);
        self.inner.flip(&name, usize::try_from(offset).unwrap_or(0), 1 << draws.below(8));
        Some((name, offset))
    }

    fn synced(&self, name: &str) -> Result<(), DiskError> {
        self.inner.sync_data(name)?;
        let mut synced = self.synced.lock().expect("no holder panics");
        let synced = synced.entry(name.to_owned()).or_default();
        let now = self.inner.synced_len(name);
        if now > synced.last {
            *synced = Synced { before: synced.last, last: now };
        }
        Ok(())
    }

    /// Names and lengths of all files.
    pub fn files(&self) -> Vec<(String, u64)> {
        let names = self.inner.list().unwrap_or_default();
        names
            .into_iter()
            .map(|name| (self.inner.len(&name).unwrap_or(0), name))
            .map(|(len, name)| (name, len))
            .collect()
    }

    fn lies(&self) -> MutexGuard<'_, Lies> {
        self.lies.lock().expect("no holder panics")
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> Result<(), DiskError> {
        self.inner.create(name)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.inner.append(name, bytes)
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        self.inner.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.inner.read_at(name, offset, buffer)
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        let most = usize::try_from(len).unwrap_or(usize::MAX);
        if let Some(synced) = self.synced.lock().expect("no holder panics").get_mut(name) {
            *synced = Synced { before: synced.before.min(most), last: synced.last.min(most) };
        }
        self.inner.truncate(name, len)
    }

    fn sync_data(&self, name: &str) -> Result<(), DiskError> {
        let mut lies = self.lies();
        match &mut lies.fails_in {
            Some(0) => {
                lies.fails_in = None;
                let (synced, written) = (self.inner.synced_len(name), self.inner.len(name)?);
                lies.lost.insert(name.to_owned(), (synced, usize::try_from(written).unwrap_or(synced)));
                Err(DiskError::Io { operation: "sync", name: name.to_owned(), reason: "input/output error".to_owned() })
            }
            Some(more) => {
                *more -= 1;
                drop(lies);
                self.synced(name)
            }
            None => {
                drop(lies);
                self.synced(name)
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)?;
        // What is named anew is complete.
        let mut synced = self.synced.lock().expect("no holder panics");
        if let Some(Synced { last, .. }) = synced.remove(from) {
            synced.insert(to.to_owned(), Synced { before: last, last });
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.lies().lost.remove(name);
        self.synced.lock().expect("no holder panics").remove(name);
        self.inner.remove(name)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.inner.sync_dir()
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.inner.list()
    }
}

#[cfg(test)]
mod tests {
    use proffer_cluster::ports::disk_conformance::disk_conformance;

    use super::*;

    #[test]
    fn it_keeps_the_contract_of_disks() {
        disk_conformance(SimDisk::default);
    }

    #[test]
    fn what_only_the_last_sync_covers_does_not_rot() {
        let (disk, draws) = (SimDisk::default(), Draws::new(1, "disk", 0));
        disk.create("wal-1").unwrap();
        disk.append("wal-1", b"marked").unwrap();
        disk.sync_data("wal-1").unwrap();
        assert_eq!(disk.rot("wal", &draws), None);
        disk.append("wal-1", b"last").unwrap();
        disk.sync_data("wal-1").unwrap();
        for _ in 0..100 {
            assert!(disk.rot("wal", &draws).is_some_and(|(_, offset)| offset < 6));
        }
        assert_eq!(disk.rot("snap", &draws), None);
    }

    #[test]
    fn what_a_failed_sync_lost_is_gone_with_the_power_whatever_later_syncs_say() {
        let (disk, draws) = (SimDisk::default(), Draws::new(1, "disk", 0));
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.append("a", b"kept").unwrap();
        disk.sync_data("a").unwrap();
        disk.append("a", b"lost").unwrap();
        disk.fail_one_sync(0);
        disk.sync_data("a").unwrap_err();
        disk.append("a", b"kept").unwrap();
        disk.sync_data("a").unwrap();
        disk.cut_power(&draws);
        let mut read = [0; 12];
        disk.read_at("a", 0, &mut read).unwrap();
        assert_eq!((&read[..4], &read[8..]), (&b"kept"[..], &b"kept"[..]));
        assert_ne!(&read[4..8], b"lost");
    }
}
