//! A disk in memory, for `--ephemeral` and for tests, with the faults that a real one can show.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use super::disk::{Disk, DiskError, check_name};

/// A file's bytes as written, and what a power cut would leave of them.
#[derive(Clone, Debug, Default)]
struct File {
    written: Vec<u8>,
    // The first so many of `written` are synced …
    synced: usize,
    // … and these followed them at the last sync, but were cut off since …
    cut: Vec<u8>,
    // … and after all that, these were written, never synced, and cut off.
    cut_unsynced: Vec<u8>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<u64, File>,
    next_file: u64,
    // Names as every call sees them, and as a power cut would leave them.
    names: BTreeMap<String, u64>,
    names_synced: BTreeMap<String, u64>,
    faults: Faults,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Faults {
    capacity: Option<u64>,
    changes_left: Option<u64>,
    syncs_left: Option<u64>,
}

/// A disk in memory. It keeps what was written apart from what was synced, so that [`MemoryDisk::cut_power`] loses what a
/// real disk could lose. Share it as an `Arc`: it outlives the log that uses it, as a disk outlives a process.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    inner: Mutex<Inner>,
}

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what was not synced. Of each file's unsynced end, `kept` says how many bytes (given the file's name and how
    /// many there are) had reached the disk all the same: a torn write. Unsynced names go back to the synced ones. Faults
    /// are lifted, as by new hardware.
    pub fn cut_power(&self, mut kept: impl FnMut(&str, usize) -> usize) {
        let mut inner = self.lock();
        inner.names = inner.names_synced.clone();
        let names = inner.names.clone();
        inner.files.retain(|id, _| names.values().any(|used| used == id));
        for (name, id) in &names {
            let file = inner.files.get_mut(id).expect("every name has its file");
            if file.cut.is_empty() && file.cut_unsynced.is_empty() {
                let unsynced = file.written.len() - file.synced;
                let torn = kept(name, unsynced).min(unsynced);
                file.written.truncate(file.synced + torn);
            } else {
                // The truncation never reached the disk, nor what was written after it.
                let torn = kept(name, file.cut_unsynced.len()).min(file.cut_unsynced.len());
                file.cut_unsynced.truncate(torn);
                file.written.truncate(file.synced);
                file.written.append(&mut file.cut);
                file.written.append(&mut file.cut_unsynced);
            }
            file.synced = file.written.len();
        }
        inner.faults = Faults::default();
    }

    /// Inverts bits of one byte: rot. Nothing happens beyond the file's end.
    pub fn flip(&self, name: &str, offset: usize, bits: u8) {
        let mut inner = self.lock();
        if let Some(byte) = inner.file(name).ok().and_then(|file| file.written.get_mut(offset)) {
            *byte ^= bits;
        }
    }

    /// From now on the disk holds at most so many bytes; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().faults.capacity = bytes;
    }

    /// After `calls` more successful calls that change or sync something, every such call fails.
    pub fn fail_after(&self, calls: u64) {
        self.lock().faults.changes_left = Some(calls);
    }

    /// After `syncs` more successful syncs (of files or of the directory), every sync fails.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().faults.syncs_left = Some(syncs);
    }

    /// How many file syncs succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many bytes of a file are synced; 0 if there is none.
    pub fn synced_len(&self, name: &str) -> usize {
        self.lock().file(name).map_or(0, |file| file.synced)
    }

    /// A copy of all that is written, without its faults: an older copy of a disk is made so.
    pub fn copy(&self) -> MemoryDisk {
        let inner = self.lock();
        let copied = Inner {
            files: inner.files.clone(),
            next_file: inner.next_file,
            names: inner.names.clone(),
            names_synced: inner.names_synced.clone(),
            faults: Faults::default(),
            syncs: 0,
        };
        MemoryDisk { inner: Mutex::new(copied) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

impl Inner {
    fn file(&mut self, name: &str) -> Result<&mut File, DiskError> {
        check_name(name)?;
        let missing = || DiskError::NotFound { name: name.to_owned() };
        let id = self.names.get(name).ok_or_else(missing)?;
        Ok(self.files.get_mut(id).expect("every name has its file"))
    }

    /// Counts a call that changes or syncs something against the fault that was set.
    fn change(&mut self, operation: &'static str, name: &str) -> Result<(), DiskError> {
        spend(&mut self.faults.changes_left, operation, name)
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        self.change("sync", name)?;
        spend(&mut self.faults.syncs_left, "sync", name)
    }

    /// Forgets a file that no name leads to, neither now nor after a power cut.
    fn release(&mut self) {
        let (now, synced) = (&self.names, &self.names_synced);
        self.files.retain(|id, _| now.values().chain(synced.values()).any(|used| used == id));
    }
}

fn spend(left: &mut Option<u64>, operation: &'static str, name: &str) -> Result<(), DiskError> {
    match left {
        Some(0) => Err(DiskError::Io { operation, name: name.to_owned(), reason: "injected fault".to_owned() }),
        Some(more) => {
            *more -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl Disk for MemoryDisk {
    fn create(&self, name: &str) -> Result<(), DiskError> {
        check_name(name)?;
        let mut inner = self.lock();
        if inner.names.contains_key(name) {
            return Err(DiskError::Exists { name: name.to_owned() });
        }
        inner.change("create", name)?;
        let id = inner.next_file;
        inner.next_file += 1;
        inner.files.insert(id, File::default());
        inner.names.insert(name.to_owned(), id);
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.file(name)?;
        inner.change("append to", name)?;
        let used: u64 = inner.files.values().map(|file| file.written.len() as u64).sum();
        let room = inner.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let fitting = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let file = inner.file(name)?;
        // A full disk takes what fits and then refuses: the torn end is the caller's to cut.
        file.written.extend_from_slice(&bytes[..fitting]);
        if fitting == bytes.len() { Ok(()) } else { Err(DiskError::Full { name: name.to_owned() }) }
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        Ok(self.lock().file(name)?.written.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let mut inner = self.lock();
        let written = &inner.file(name)?.written;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(written.len());
        let count = buffer.len().min(written.len() - start);
        buffer[..count].copy_from_slice(&written[start..start + count]);
        Ok(count)
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.file(name)?;
        inner.change("truncate", name)?;
        let file = inner.file(name)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > file.written.len() {
            let reason = format!("it is only {} bytes long", file.written.len());
            return Err(DiskError::Io { operation: "truncate", name: name.to_owned(), reason });
        }
        if len < file.written.len() && file.cut.is_empty() && file.cut_unsynced.is_empty() {
            file.cut_unsynced = file.written[len.max(file.synced)..].to_vec();
        }
        if len < file.synced {
            file.cut.splice(0..0, file.written[len..file.synced].iter().copied());
            file.synced = len;
        }
        file.written.truncate(len);
        Ok(())
    }

    fn sync_data(&self, name: &str) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.file(name)?;
        inner.sync(name)?;
        inner.syncs += 1;
        let file = inner.file(name)?;
        file.synced = file.written.len();
        file.cut.clear();
        file.cut_unsynced.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_name(to)?;
        let mut inner = self.lock();
        inner.file(from)?;
        inner.change("rename", from)?;
        let id = inner.names.remove(from).expect("looked up above");
        inner.names.insert(to.to_owned(), id);
        inner.release();
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.file(name)?;
        inner.change("remove", name)?;
        inner.names.remove(name);
        inner.release();
        Ok(())
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let mut inner = self.lock();
        inner.sync("the directory")?;
        inner.names_synced = inner.names.clone();
        inner.release();
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.lock().names.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::disk::read_all;
    use crate::ports::disk_conformance::disk_conformance;

    fn contents(disk: &MemoryDisk, name: &str) -> Vec<u8> {
        read_all(disk, name, 1 << 20).unwrap()
    }

    #[test]
    fn it_keeps_the_contract() {
        disk_conformance(MemoryDisk::new);
    }

    #[test]
    fn a_power_cut_keeps_the_synced_bytes_and_the_torn_part_asked_for() {
        let disk = MemoryDisk::new();
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.append("a", b"synced").unwrap();
        disk.sync_data("a").unwrap();
        disk.append("a", b"pending").unwrap();
        disk.cut_power(|name, unsynced| {
            assert_eq!((name, unsynced), ("a", 7));
            3
        });
        assert_eq!(contents(&disk, "a"), b"syncedpen");
        disk.append("a", b"lost").unwrap();
        disk.cut_power(|_, _| 0);
        assert_eq!(contents(&disk, "a"), b"syncedpen");
    }

    #[test]
    fn a_power_cut_undoes_an_unsynced_truncation() {
        let disk = MemoryDisk::new();
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.append("a", b"0123456789").unwrap();
        disk.sync_data("a").unwrap();
        disk.truncate("a", 7).unwrap();
        disk.truncate("a", 4).unwrap();
        disk.append("a", b"xy").unwrap();
        disk.cut_power(|_, _| 0);
        assert_eq!(contents(&disk, "a"), b"0123456789");
    }

    #[test]
    fn a_power_cut_may_bring_back_what_was_cut_and_not_synced() {
        let disk = MemoryDisk::new();
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.append("a", b"0123").unwrap();
        disk.sync_data("a").unwrap();
        disk.append("a", b"456789").unwrap();
        disk.truncate("a", 4).unwrap();
        let synced = disk.copy();
        disk.cut_power(|_, cut| cut - 2);
        assert_eq!(contents(&disk, "a"), b"01234567");
        synced.sync_data("a").unwrap();
        synced.cut_power(|_, cut| cut);
        assert_eq!(contents(&synced, "a"), b"0123", "a synced truncation is final");
    }

    #[test]
    fn a_power_cut_undoes_unsynced_names() {
        let disk = MemoryDisk::new();
        for name in ["kept", "removed", "old"] {
            disk.create(name).unwrap();
            disk.append(name, name.as_bytes()).unwrap();
            disk.sync_data(name).unwrap();
        }
        disk.sync_dir().unwrap();
        disk.create("created").unwrap();
        disk.remove("removed").unwrap();
        disk.rename("old", "new").unwrap();
        assert_eq!(disk.list().unwrap(), ["created", "kept", "new"]);
        disk.cut_power(|_, _| 0);
        assert_eq!(disk.list().unwrap(), ["kept", "old", "removed"]);
        assert_eq!(contents(&disk, "removed"), b"removed");
    }

    #[test]
    fn faults_come_when_told_and_leave_with_the_power() {
        let disk = MemoryDisk::new();
        disk.create("a").unwrap();
        disk.sync_dir().unwrap();
        disk.fail_sync_after(1);
        disk.sync_data("a").unwrap();
        disk.sync_data("a").unwrap_err();
        disk.append("a", b"still writes").unwrap();
        disk.fail_after(1);
        disk.append("a", b"!").unwrap();
        disk.append("a", b"?").unwrap_err();
        assert_eq!(contents(&disk, "a"), b"still writes!", "reads go on");
        disk.cut_power(|_, unsynced| unsynced);
        disk.sync_data("a").unwrap();
        disk.set_capacity(Some(16));
        assert_eq!(disk.append("a", b"12345"), Err(DiskError::Full { name: "a".to_owned() }));
        assert_eq!(contents(&disk, "a"), b"still writes!123", "a full disk leaves a torn end");
    }
}
