//! Every maximum of this crate, in one place. Bytes and counts unless the name says otherwise.

/// Largest payload of one log record. Entries are at most 256 KiB (architecture.md §2); the rest is headroom.
pub const LOG_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes written and synced together.
pub const LOG_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most requests written and synced together.
pub const LOG_BATCH_REQUESTS_MAX: usize = 4_096;
/// Requests that may wait for the log's writer; further callers wait for room.
pub const LOG_QUEUE_REQUESTS_MAX: usize = 4_096;
/// Payload bytes that may wait for the log's writer; further callers wait for room.
pub const LOG_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A segment is closed before a batch would take it past this.
pub const LOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// No segment of ours is longer: a file that is, is not read.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 2 * LOG_SEGMENT_BYTES;
/// Most bytes that one read of the log returns (one entry is returned whatever its size).
pub const LOG_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An idle writer marks what it synced after this long: half of the 10 ms promised, so that the promise holds.
pub const LOG_IDLE_MARK_MS: u64 = 5;
/// Groups of one node's log: the shards (≤ 256), the meta group, and as many again that are being destroyed.
pub const LOG_GROUPS_MAX: usize = 1_024;
/// A group's log bytes since its last snapshot that make the next snapshot due.
pub const LOG_BYTES_BEFORE_SNAPSHOT: u64 = 64 * 1024 * 1024;
/// Log bytes of the whole node above which the group that holds the oldest segment is due for a snapshot too.
pub const LOG_BYTES_BEFORE_UNPINNING: u64 = 2 * 1024 * 1024 * 1024;

/// Largest chunk of a snapshot file.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest description that a caller may keep in a snapshot's header.
pub const SNAPSHOT_META_BYTES_MAX: usize = 64 * 1024;
/// Snapshots kept for each group: the newest and the one to fall back to.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Longest name of a file on a [`Disk`](crate::ports::disk::Disk).
pub const FILE_NAME_BYTES_MAX: usize = 100;
