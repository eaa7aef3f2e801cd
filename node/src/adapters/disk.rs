//! A directory of the file system as a disk.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use proffer_cluster::ports::disk::{Disk, DiskError, check_name};

/// Held locked while a process uses the directory. Its name is no legal file name of a [`Disk`], so it is never listed.
const LOCK_NAME: &str = ".lock";

/// A directory that this process has for itself.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    directory: File,
    // Files once used stay open: the log appends to one thousands of times a second. A name's entry goes with the name.
    open: Mutex<BTreeMap<String, Arc<File>>>,
    // The kernel releases it with the process, however that ends.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The file system said no.
    #[error("cannot use {} as a data directory: {error}", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl FileDisk {
    /// Opens a directory, making it if there is none, and locks it.
    ///
    /// # Errors
    /// [`OpenDiskError::InUse`] while another process (or another `FileDisk`) has it.
    pub fn open(path: impl Into<PathBuf>) -> Result<FileDisk, OpenDiskError> {
        let path = path.into();
        let failed = |error| OpenDiskError::Io { path: path.clone(), error };
        make_durably(&path).map_err(failed)?;
        let directory = File::open(&path).map_err(failed)?;
        let lock_file = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_NAME));
        let lock = lock_file.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenDiskError::InUse(path)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(FileDisk { path, directory, open: Mutex::default(), _lock: lock })
    }

    fn file(&self, operation: &'static str, name: &str) -> Result<Arc<File>, DiskError> {
        check_name(name)?;
        let mut open = self.open.lock().expect("no holder panics");
        if let Some(file) = open.get(name) {
            return Ok(Arc::clone(file));
        }
        let opened = OpenOptions::new().read(true).append(true).open(self.path.join(name));
        let file = Arc::new(opened.map_err(|error| said(operation, name, &error))?);
        open.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn forget(&self, name: &str) {
        self.open.lock().expect("no holder panics").remove(name);
    }
}

/// Creates a directory and the ones above it, each synced into its parent: a log in a directory that is lost is lost.
fn make_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_durably(parent)?;
    match fs::create_dir(path) {
        Ok(()) => File::open(parent)?.sync_all(),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn said(operation: &'static str, name: &str, error: &io::Error) -> DiskError {
    let name = name.to_owned();
    let kind = error.kind();
    if kind == ErrorKind::NotFound {
        DiskError::NotFound { name }
    } else if kind == ErrorKind::AlreadyExists {
        DiskError::Exists { name }
    } else if kind == ErrorKind::StorageFull || kind == ErrorKind::QuotaExceeded {
        DiskError::Full { name }
    } else {
        DiskError::Io { operation, name, reason: error.to_string() }
    }
}

impl Disk for FileDisk {
    fn create(&self, name: &str) -> Result<(), DiskError> {
        check_name(name)?;
        let mut open = self.open.lock().expect("no holder panics");
        let created = OpenOptions::new().read(true).append(true).create_new(true).open(self.path.join(name));
        open.insert(name.to_owned(), Arc::new(created.map_err(|error| said("create", name, &error))?));
        Ok(())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let file = self.file("append to", name)?;
        (&*file).write_all(bytes).map_err(|error| said("append to", name, &error))
    }

    fn len(&self, name: &str) -> Result<u64, DiskError> {
        let file = self.file("measure", name)?;
        Ok(file.metadata().map_err(|error| said("measure", name, &error))?.len())
    }

    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let file = self.file("read", name)?;
        let mut read = 0;
        while read < buffer.len() {
            match file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(said("read", name, &error)),
            }
        }
        Ok(read)
    }

    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError> {
        let file = self.file("truncate", name)?;
        let now = file.metadata().map_err(|error| said("truncate", name, &error))?.len();
        if len > now {
            let reason = format!("it is only {now} bytes long");
            return Err(DiskError::Io { operation: "truncate", name: name.to_owned(), reason });
        }
        file.set_len(len).map_err(|error| said("truncate", name, &error))
    }

    fn sync_data(&self, name: &str) -> Result<(), DiskError> {
        self.file("sync", name)?.sync_data().map_err(|error| said("sync", name, &error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_name(from)?;
        check_name(to)?;
        let mut open = self.open.lock().expect("no holder panics");
        fs::rename(self.path.join(from), self.path.join(to)).map_err(|error| said("rename", from, &error))?;
        open.remove(to);
        if let Some(file) = open.remove(from) {
            open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        check_name(name)?;
        self.forget(name);
        fs::remove_file(self.path.join(name)).map_err(|error| said("remove", name, &error))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.directory.sync_all().map_err(|error| said("sync", "the directory", &error))
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let failed = |error: io::Error| said("list", "the directory", &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().into_string()
                && check_name(&name).is_ok()
                && entry.file_type().map_err(failed)?.is_file()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use proffer_cluster::ports::disk_conformance::disk_conformance;
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn it_keeps_the_contract() {
        let directories = TempDir::new().unwrap();
        let count = std::cell::Cell::new(0);
        disk_conformance(|| {
            count.set(count.get() + 1);
            FileDisk::open(directories.path().join(count.get().to_string())).unwrap()
        });
        assert!(count.get() > 5);
    }

    #[test]
    fn a_directory_is_opened_once_at_a_time_and_made_if_missing() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("deep/er");
        let first = FileDisk::open(&path).unwrap();
        let error = FileDisk::open(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is in use by another process", path.display()));
        first.create("a").unwrap();
        drop(first);
        let again = FileDisk::open(&path).unwrap();
        assert_eq!(again.list().unwrap(), ["a"], "the lock is not listed");
    }

    #[test]
    fn what_is_not_ours_is_not_listed() {
        let directory = TempDir::new().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        fs::create_dir(directory.path().join("folder")).unwrap();
        fs::write(directory.path().join("Upper Case"), b"").unwrap();
        disk.create("ours").unwrap();
        assert_eq!(disk.list().unwrap(), ["ours"]);
    }
}
