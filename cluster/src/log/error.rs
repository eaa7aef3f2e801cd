//! What can go wrong, told apart by what the caller must do.

use std::fmt;

use super::{GroupId, recover};
use crate::ports::disk::DiskError;
use crate::ports::offload::Lost;

/// Bytes that were synced once and are not what was written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The segment `wal-N.log`.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// Whose entries are concerned; `None` if it cannot be told: all groups of the node.
    pub group: Option<GroupId>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at offset {}: {} (", recover::segment_name(self.segment), self.offset, self.what)?;
        match self.group {
            Some(group) => write!(formatter, "group {group})"),
            None => formatter.write_str("of which group cannot be told: all are concerned)"),
        }
    }
}

/// Why a log does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot open the write-ahead log: {0}")]
    Disk(#[from] DiskError),
    /// Synced bytes are not what was written. Nothing was changed on the disk.
    #[error("the write-ahead log is corrupt; acknowledged entries are lost, so it is not opened: {}", list(.0))]
    Corrupt(Vec<Corruption>),
    /// A later release wrote this.
    #[error("segment {segment} of the write-ahead log has format version {version}, which this release does not know")]
    Version {
        /// The segment.
        segment: u64,
        /// Its version.
        version: u32,
    },
    /// A later release wrote this.
    #[error("segment {segment} of the write-ahead log has a record of kind {kind}, which this release does not know")]
    Kind {
        /// The segment.
        segment: u64,
        /// The record's kind.
        kind: u8,
    },
    /// There was a log here, and it is gone. Nothing was changed on the disk.
    #[error(
        "the write-ahead log is missing: the files of log {expected:016x} were here, {}; acknowledged entries would be lost",
        .found.map_or("and none are now".to_owned(), |found| format!("and those of log {found:016x} are now"))
    )]
    Missing {
        /// The log that was here.
        expected: u64,
        /// The one that is here now.
        found: Option<u64>,
    },
    /// The thread that should have read it is gone.
    #[error("cannot open the write-ahead log: {0}")]
    Lost(#[from] Lost),
}

fn list(corruptions: &[Corruption]) -> String {
    corruptions.iter().map(Corruption::to_string).collect::<Vec<_>>().join("; ")
}

/// Why the log did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no space. Reads go on; writes do when there is space again.
    #[error("the disk is full: the log takes no writes")]
    Full,
    /// A group's entries follow each other.
    #[error("the log of group {group} cannot go on at index {got}, it stands at {expected}")]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The index that would have been right (for a truncation: the lowest).
        expected: u64,
        /// The index given.
        got: u64,
    },
    /// More than one record or batch may hold.
    #[error("{bytes} bytes are too many for the log, at most {bytes_max} are allowed")]
    TooLarge {
        /// The size given.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There are as many groups as there may be.
    #[error("the log has {0} groups already")]
    TooManyGroups(usize),
    /// The group's entries are corrupt: it takes nothing until it is destroyed.
    #[error("the log of group {0} is corrupt")]
    Locked(GroupId),
    /// The log was closed before the request.
    #[error("the log is closed")]
    Closed,
    /// The log failed and ends the node. Whether the entry is durable is unknown.
    #[error("the log has failed: {0}")]
    Failed(String),
    /// An entry asked for is not there: purged, truncated, or never written.
    #[error("group {group} has no entry {index}")]
    NoEntry {
        /// The group.
        group: GroupId,
        /// The index.
        index: u64,
    },
    /// An entry is not what was written.
    #[error("the write-ahead log is corrupt: {0}")]
    Corrupt(Corruption),
    /// A read failed.
    #[error("cannot read the log: {0}")]
    Read(DiskError),
    /// The thread that should have read is gone.
    #[error("cannot read the log: {0}")]
    Lost(#[from] Lost),
}

impl LogError {
    /// Whether a write that got this error certainly left nothing in the log. Otherwise its outcome is unknown.
    pub fn nothing_written(&self) -> bool {
        match self {
            LogError::Full
            | LogError::OutOfOrder { .. }
            | LogError::TooLarge { .. }
            | LogError::TooManyGroups(_)
            | LogError::Locked(_)
            | LogError::Closed
            | LogError::NoEntry { .. }
            | LogError::Corrupt(_)
            | LogError::Read(_)
            | LogError::Lost(_) => true,
            LogError::Failed(_) => false,
        }
    }
}
