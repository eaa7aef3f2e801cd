//! The write-ahead log: one per node, shared by all its groups, whose appends share their syncs.
//!
//! Segments `wal-N.log` hold the records of all groups in the order in which they were written (bytes: `format`). One task
//! writes (`writer`): what arrives while a batch is being written and synced forms the next one. A start reads all segments
//! (`scan`, `recover`) and rebuilds where each group stands (`index`); entries stay on the disk until they are asked for.
//!
//! * **Torn or rotten.** Every batch begins with a mark: how many bytes of its segment were synced when it was written; an idle
//!   writer appends one within 10 ms of a sync. Bad bytes below the highest mark are corruption, and the log does not open
//!   ([`OpenError::Corrupt`]). From there on, everything after the first bad frame is dropped, even if good ones follow: it was
//!   never acknowledged, or its rot cannot be told from a write that was cut short.
//! * **A failed write or sync** ends the node through [`Fatal`]; nothing is ever synced again, since a second sync may claim
//!   success for bytes that were lost. Waiting callers get [`LogError::Failed`]: the outcome is unknown.
//! * **A full disk** refuses writes with [`LogError::Full`] and serves reads; writing goes on when there is space again.
//! * **Segments go** oldest first, when no group needs an entry in them. Each begins with a checkpoint of every group, so that
//!   the ones before are not needed to know where a group stands.
//!
//! Invariant: the log knows nothing of what entries mean. Callers version their payloads.

mod error;
mod format;
mod index;
mod plan;
mod recover;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Semaphore, mpsc, oneshot};

pub use error::{Corruption, LogError, OpenError};
pub use index::Bounds;
use index::Index;
use writer::{Op, Request, Writer};

use crate::limits::{
    LOG_BATCH_BYTES_MAX, LOG_BYTES_BEFORE_SNAPSHOT, LOG_BYTES_BEFORE_UNPINNING, LOG_QUEUE_BYTES_MAX,
    LOG_QUEUE_REQUESTS_MAX, LOG_READ_BYTES_MAX, LOG_RECORD_BYTES_MAX, LOG_SEGMENT_BYTES, LOG_STATE_BYTES_MAX,
};
use crate::ports::disk::{Disk, DiskError};
use crate::ports::entropy::Entropy;
use crate::ports::fatal::Fatal;
use crate::ports::offload::{self, Lane, Offload};

/// One replicated state machine's log within the node's log. Never used again once destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The entry is synced: it outlives a power cut.
    Fsync,
    /// The entry is written: it outlives the process, and not a power cut. States ([`Log::save_state`]) are synced all the same.
    Memory,
}

/// What to do about corruption found at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCorruption {
    /// Do not open. What a node without other replicas must do.
    Refuse,
    /// Open if it can be told whose entries are corrupt, and lock those groups until they are destroyed: their replicas are
    /// rebuilt from others. If it cannot be told, do not open.
    Isolate,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What to do about corruption.
    pub on_corruption: OnCorruption,
    /// A segment is closed before a batch would take it past this many bytes.
    pub segment_bytes: u64,
    /// Groups that pin the oldest segment are due for a snapshot above so many bytes of the whole log.
    pub unpinning_bytes: u64,
    /// The log that must be there, if one is known to have been; `None` takes whatever there is.
    pub expected: Option<u64>,
}

impl Default for LogOptions {
    fn default() -> Self {
        let durability = Durability::Fsync;
        LogOptions {
            durability,
            on_corruption: OnCorruption::Refuse,
            segment_bytes: LOG_SEGMENT_BYTES,
            unpinning_bytes: LOG_BYTES_BEFORE_UNPINNING,
            expected: None,
        }
    }
}

/// What a log needs of the world.
#[derive(Clone)]
pub struct LogPorts {
    /// Where the segments lie. Other files may lie there too, if their names do not begin with `wal-`.
    pub disk: Arc<dyn Disk>,
    /// Where disk calls run.
    pub offload: Arc<dyn Offload>,
    /// How the node ends when the disk fails.
    pub fatal: Arc<dyn Fatal>,
    /// Gives a new log its id.
    pub entropy: Arc<dyn Entropy>,
}

/// A torn end that was cut off: bytes that were not known to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedEnd {
    /// The segment.
    pub segment: u64,
    /// Where it was cut.
    pub offset: u64,
    /// How much was cut.
    pub bytes: u64,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Where each group stands.
    pub groups: BTreeMap<GroupId, Bounds>,
    /// The end that was cut off, if one was.
    pub dropped: Option<DroppedEnd>,
    /// Corruption of groups that are locked now; always empty with [`OnCorruption::Refuse`].
    pub corruptions: Vec<Corruption>,
}

/// How the log is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Segments on the disk.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the last write found the disk full.
    pub disk_full: bool,
    /// Why the log failed, if it did.
    pub failed: Option<String>,
}

/// One entry as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// What the handles and the writer share.
struct Shared {
    index: Index,
    segments: BTreeMap<u64, u64>,
    /// Also looked at without the lock, in every turn of every shard.
    disk_full: Arc<AtomicBool>,
    failed: Option<String>,
}

/// The log's handle. Clones are the same log; when the last one goes, the writer finishes what is queued, syncs and ends.
///
/// Entries are seen by [`Log::read`] and [`Log::bounds`] once acknowledged.
#[derive(Clone)]
pub struct Log {
    queue: mpsc::Sender<Request>,
    // Bytes that may still wait in the queue: what keeps a burst of large entries from filling the memory.
    room: Arc<Semaphore>,
    // Written by the writer after each batch, read by everyone: locked for lookups only, never across a disk call.
    shared: Arc<Mutex<Shared>>,
    disk_full: Arc<AtomicBool>,
    ports: LogPorts,
    options: LogOptions,
    log_id: u64,
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Log").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log on a disk, an empty one too, and starts its writer as a task of the current tokio runtime. All segments
    /// are read once: O(bytes on the disk) of time, one segment at a time of memory.
    ///
    /// # Errors
    /// See [`OpenError`]. After [`OpenError::Corrupt`] nothing has been changed.
    pub async fn open(options: LogOptions, ports: LogPorts) -> Result<(Log, Recovery), OpenError> {
        let disk = Arc::clone(&ports.disk);
        let recovered =
            offload::call(&*ports.offload, Lane::Log, move || recover::recover(&*disk, options.on_corruption))
                .await??;
        if let Some(expected) = options.expected
            && recovered.log_id != Some(expected)
        {
            return Err(OpenError::Missing { expected, found: recovered.log_id });
        }
        let recovery = Recovery {
            groups: recovered.index.groups.iter().map(|(id, group)| (*id, group.bounds)).collect(),
            dropped: recovered.dropped,
            corruptions: recovered.corruptions,
        };
        let log_id = recovered.log_id.unwrap_or_else(|| ports.entropy.u64());
        let active = recovered.segments.last_key_value().map(|(&segment, &len)| (segment, recovered.head_bytes, len));
        let disk_full = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Mutex::new(Shared {
            index: recovered.index,
            segments: recovered.segments,
            disk_full: Arc::clone(&disk_full),
            failed: None,
        }));
        let (queue, requests) = mpsc::channel(LOG_QUEUE_REQUESTS_MAX);
        let writer = Writer::start(options, ports.clone(), Arc::clone(&shared), requests, log_id, active).await?;
        tokio::spawn(writer.run());
        let room = Arc::new(Semaphore::new(LOG_QUEUE_BYTES_MAX));
        Ok((Log { queue, room, shared, disk_full, ports, options, log_id }, recovery))
    }

    /// Appends one entry and waits until it is durable. A group's first entry may have any index; every other one follows
    /// the one before it.
    ///
    /// # Errors
    /// See [`LogError`]; [`LogError::nothing_written`] tells a refusal from an unknown outcome. Dropping the future leaves the
    /// outcome unknown too.
    pub async fn append(&self, group: GroupId, index: u64, payload: Vec<u8>) -> Result<(), LogError> {
        self.append_all(group, index, vec![payload]).await
    }

    /// Appends entries with ascending indices from `first` on, in one batch, and waits until they are durable.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn append_all(&self, group: GroupId, first: u64, payloads: Vec<Vec<u8>>) -> Result<(), LogError> {
        self.submit(group, first, payloads).await?.await
    }

    /// As [`Log::append_all`], and durable also where entries are not synced as a rule.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn append_synced(&self, group: GroupId, first: u64, payloads: Vec<Vec<u8>>) -> Result<(), LogError> {
        self.hand_over(group, first, payloads, true).await?.await
    }

    /// Hands entries to the writer; the future given back resolves when they are durable. Entries submitted one after the
    /// other are written in that order, so a caller can submit the next ones without waiting.
    ///
    /// # Errors
    /// As [`Log::append`], those that the queue already knows.
    pub async fn submit(
        &self,
        group: GroupId,
        first: u64,
        payloads: Vec<Vec<u8>>,
    ) -> Result<impl Future<Output = Result<(), LogError>> + Send + use<>, LogError> {
        self.hand_over(group, first, payloads, false).await
    }

    async fn hand_over(
        &self,
        group: GroupId,
        first: u64,
        payloads: Vec<Vec<u8>>,
        is_synced: bool,
    ) -> Result<impl Future<Output = Result<(), LogError>> + Send + use<>, LogError> {
        let largest = payloads.iter().map(Vec::len).max().unwrap_or(0);
        check_size(largest, LOG_RECORD_BYTES_MAX)?;
        self.enqueue(Op::Append { group, first, payloads, is_synced }).await
    }

    /// Keeps a small state for the group (a vote, for example) in place of the one before, and waits until it is durable.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn save_state(&self, group: GroupId, state: Vec<u8>) -> Result<(), LogError> {
        check_size(state.len(), LOG_STATE_BYTES_MAX)?;
        self.enqueue(Op::State { group, state }).await?.await
    }

    /// Removes the group's entries from `from` on.
    ///
    /// # Errors
    /// As [`Log::append`]; [`LogError::OutOfOrder`] if `from` is purged already.
    pub async fn truncate(&self, group: GroupId, from: u64) -> Result<(), LogError> {
        self.enqueue(Op::Truncate { group, from }).await?.await
    }

    /// Declares that the group's entries up to and including `through` are not needed any more; segments that nobody needs
    /// are removed. Beyond the last entry, the group goes on at `through + 1` (after a snapshot came from elsewhere). Purge
    /// through the **older** of the two kept snapshots, so that it can be fallen back to.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn purge(&self, group: GroupId, through: u64) -> Result<(), LogError> {
        self.enqueue(Op::Purge { group, first: through.saturating_add(1) }).await?.await
    }

    /// Removes the group with all it has. A locked group is unlocked by this: it is gone.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub async fn destroy(&self, group: GroupId) -> Result<(), LogError> {
        self.enqueue(Op::Destroy { group }).await?.await
    }

    /// Returns once everything that was submitted before is answered, also what nobody waits for any more.
    ///
    /// # Errors
    /// [`LogError::Closed`] or [`LogError::Failed`].
    pub async fn settle(&self) -> Result<(), LogError> {
        self.enqueue(Op::Barrier).await?.await
    }

    /// Which log this is: drawn when it was begun.
    pub fn id(&self) -> u64 {
        self.log_id
    }

    /// What an acknowledgement promises.
    pub fn durability(&self) -> Durability {
        self.options.durability
    }

    /// Finishes what is queued, leaves a synced mark and ends the writer. Later writes are [`LogError::Closed`].
    ///
    /// # Errors
    /// [`LogError::Failed`] if the last sync does.
    pub async fn close(&self) -> Result<(), LogError> {
        match self.enqueue(Op::Close).await {
            Ok(done) => done.await,
            Err(LogError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads entries `from..until` back, as many from the front as fit into [`LOG_READ_BYTES_MAX`], at least one.
    ///
    /// # Errors
    /// [`LogError::NoEntry`], [`LogError::Corrupt`], or what the disk says.
    pub async fn read(&self, group: GroupId, from: u64, until: u64) -> Result<Vec<Entry>, LogError> {
        let mut places = Vec::new();
        {
            let shared = self.lock();
            let mut bytes = 0;
            for index in from..until {
                let place = shared.index.groups.get(&group).and_then(|known| known.place(index));
                let place = place.ok_or(LogError::NoEntry { group, index })?;
                bytes += place.frame_bytes as usize;
                if bytes > LOG_READ_BYTES_MAX && !places.is_empty() {
                    break;
                }
                places.push((index, place));
            }
        }
        let (disk, log_id) = (Arc::clone(&self.ports.disk), self.log_id);
        let read = move || {
            places
                .into_iter()
                .map(|(index, place)| {
                    match recover::read_entry(&*disk, log_id, place, (group, index)) {
                        Ok(payload) => Ok(Entry { index, payload }),
                        // Purged, and its segment removed, since it was looked up.
                        Err(LogError::Read(DiskError::NotFound { .. })) => Err(LogError::NoEntry { group, index }),
                        Err(error) => Err(error),
                    }
                })
                .collect()
        };
        offload::call(&*self.ports.offload, Lane::Bulk, read).await?
    }

    /// Where a group stands; `None` if the log does not know it.
    pub fn bounds(&self, group: GroupId) -> Option<Bounds> {
        self.lock().index.groups.get(&group).map(|known| known.bounds)
    }

    /// The state last saved for a group.
    pub fn state(&self, group: GroupId) -> Option<Vec<u8>> {
        self.lock().index.groups.get(&group).and_then(|known| known.state.clone())
    }

    /// Log bytes of the group's entries after `index` (all for `None`): what a start would replay on that snapshot. O(1).
    pub fn bytes_after(&self, group: GroupId, index: Option<u64>) -> u64 {
        self.lock().index.groups.get(&group).map_or(0, |known| known.bytes_after(index))
    }

    /// Whether the group should be snapshotted: [`LOG_BYTES_BEFORE_SNAPSHOT`] were appended after its newest snapshot (at
    /// index `newest`), or it [pins](Log::pins) a log that has grown too long. O(groups).
    pub fn snapshot_due(&self, group: GroupId, newest: Option<u64>) -> bool {
        self.bytes_after(group, newest) >= LOG_BYTES_BEFORE_SNAPSHOT || self.pins(group)
    }

    /// Whether the group's old entries keep the oldest segment of a log that has grown past
    /// [`LogOptions::unpinning_bytes`]. O(groups).
    pub fn pins(&self, group: GroupId) -> bool {
        let shared = self.lock();
        let oldest = shared.index.groups.get(&group).and_then(|known| known.oldest_segment());
        shared.segments.values().sum::<u64>() > self.options.unpinning_bytes
            && oldest.is_some()
            && oldest == shared.index.oldest_segment()
    }

    /// Whether the last write found the disk full. One atomic load.
    pub fn is_full(&self) -> bool {
        self.disk_full.load(Ordering::Acquire)
    }

    /// How the log is doing.
    pub fn status(&self) -> LogStatus {
        let shared = self.lock();
        LogStatus {
            segments: shared.segments.len(),
            bytes: shared.segments.values().sum(),
            disk_full: self.is_full(),
            failed: shared.failed.clone(),
        }
    }

    async fn enqueue(&self, op: Op) -> Result<impl Future<Output = Result<(), LogError>> + Send + use<>, LogError> {
        let bytes = op.bytes();
        check_size(bytes, LOG_BATCH_BYTES_MAX)?;
        let permits = u32::try_from(bytes).expect("checked against LOG_BATCH_BYTES_MAX");
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_closed| LogError::Closed)?;
        let (done, outcome) = oneshot::channel();
        let sent = self.queue.send(Request { op, done, room }).await;
        if sent.is_err() {
            return Err(self.ended());
        }
        let shared = Arc::clone(&self.shared);
        Ok(async move {
            let lost = |_| {
                let failed = lock(&shared).failed.clone();
                Err(LogError::Failed(failed.unwrap_or_else(|| "the writer ended".to_owned())))
            };
            outcome.await.unwrap_or_else(lost)
        })
    }

    fn ended(&self) -> LogError {
        self.lock().failed.clone().map_or(LogError::Closed, LogError::Failed)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no holder panics")
}

fn check_size(bytes: usize, bytes_max: usize) -> Result<(), LogError> {
    if bytes <= bytes_max { Ok(()) } else { Err(LogError::TooLarge { bytes, bytes_max }) }
}
