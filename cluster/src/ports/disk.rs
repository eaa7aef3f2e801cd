//! A disk: one flat directory of named files.

use crate::limits::FILE_NAME_BYTES_MAX;

/// Files in one flat directory that is used by this process alone.
///
/// The interface is synchronous and may block: code that runs on async threads calls it through
/// [`Offload`](super::offload::Offload), in steps whose borders are the moments at which a crash makes a difference.
///
/// Contract:
/// * What a call wrote is seen by every later call at once (the page cache). It outlives the *process*.
/// * It outlives a *power cut* only once synced: a file's bytes and length by [`Disk::sync_data`] on that file, its name (a
///   creation, a rename, a removal) by [`Disk::sync_dir`]. What is not synced may be kept, lost or kept in part, and a part
///   need not be a prefix: bytes in the middle may be missing while later ones are there.
/// * A power cut or a failed call never harms bytes that were synced before and not rewritten since; a disk that rots does, and
///   readers tell by checksums.
/// * A failed [`Disk::append`] may leave any prefix of its bytes at the end of the file; the caller truncates.
/// * A failed sync says nothing about what reached the disk, and the next sync may claim success for bytes that were lost: the
///   caller ends the node ([`Fatal`](super::fatal::Fatal)) and never tries again.
/// * Calls on different files may run at the same time, and so may reads of one file's older bytes and appends to it; other
///   calls on one file are ordered by the caller.
///
/// A simulated disk lives outside its host and keeps two versions of everything, written and synced, as
/// [`MemoryDisk`](super::memory_disk::MemoryDisk) does. All its calls return at once; the time that a sync takes is the
/// delay that the simulated `Offload` draws before the step that syncs, so `pending` bytes become `synced` after a drawn delay
/// without the port being asynchronous. A process crash drops the host's runtime and keeps the written version; a power cut
/// goes back to the synced one, with a drawn part of the rest.
pub trait Disk: Send + Sync + 'static {
    /// Makes an empty file. [`DiskError::Exists`] if there is one of that name.
    fn create(&self, name: &str) -> Result<(), DiskError>;

    /// Writes at the end of a file.
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError>;

    /// A file's length in bytes.
    fn len(&self, name: &str) -> Result<u64, DiskError>;

    /// Reads from `offset` on into `buffer` and says how many bytes that were: fewer than asked for only at the file's end.
    fn read_at(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;

    /// Cuts a file to `len`, which is at most its length.
    fn truncate(&self, name: &str, len: u64) -> Result<(), DiskError>;

    /// Makes a file's bytes and length durable. Returns after they are.
    fn sync_data(&self, name: &str) -> Result<(), DiskError>;

    /// Renames a file atomically, replacing one that has the name already.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes creations, renames and removals durable. Returns after they are.
    fn sync_dir(&self) -> Result<(), DiskError>;

    /// The names of all files, in ascending order.
    fn list(&self) -> Result<Vec<String>, DiskError>;
}

/// Why a disk call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("there is no file {name}")]
    NotFound {
        /// The name asked for.
        name: String,
    },
    /// There is one already.
    #[error("file {name} exists already")]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// The disk (or a quota) is full.
    #[error("the disk is full: no space to write {name}")]
    Full {
        /// The file that was written.
        name: String,
    },
    /// No file may be called that (see [`check_name`]).
    #[error("{name:?} cannot be a file's name")]
    Name {
        /// The name given.
        name: String,
    },
    /// Anything else.
    #[error("cannot {operation} {name}: {reason}")]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        name: String,
        /// What the system said.
        reason: String,
    },
}

/// Accepts names of 1 to 100 characters out of `a-z 0-9 . -` that do not begin with a dot: legal on every file system, and
/// never a path.
///
/// # Errors
/// [`DiskError::Name`].
pub fn check_name(name: &str) -> Result<(), DiskError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
    if (1..=FILE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(DiskError::Name { name: name.to_owned() })
    }
}

/// Reads a whole file of at most `bytes_max`.
///
/// # Errors
/// Those of the disk; [`DiskError::Io`] if the file is longer, before anything is allocated for it.
pub fn read_all(disk: &dyn Disk, name: &str, bytes_max: u64) -> Result<Vec<u8>, DiskError> {
    let failed = |reason: String| DiskError::Io { operation: "read", name: name.to_owned(), reason };
    let len = disk.len(name)?;
    if len > bytes_max {
        return Err(failed(format!("it is {len} bytes long, at most {bytes_max} are expected")));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|error| failed(error.to_string()))?];
    let read = disk.read_at(name, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_hidden_are_refused() {
        for name in ["", ".", "..", ".lock", "a/b", "a\\b", "A", "ä", "a b", &"x".repeat(101)] {
            assert_eq!(check_name(name), Err(DiskError::Name { name: name.to_owned() }), "{name:?}");
        }
        for name in ["a", "wal-00000000000000000001.log", &"x".repeat(100)] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }
}
