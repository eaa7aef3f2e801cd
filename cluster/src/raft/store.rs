//! A replica's log and vote, in the node's write-ahead log.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Stream, stream};
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use proffer_engine::profile::command::Position;

use tokio::task::JoinHandle;

use super::appender::{Appender, Op};
use super::recent::Recent;
use super::stored::{Head, decode_entry, encode_entry};
use super::types::{Entry, LogId, Payload, Types, Vote, position_of};
use crate::identity::Reach;
use crate::limits::{APPEND_BYTES_MAX, RECENT_BYTES_MAX};
use crate::log::{GroupId, Log};
use crate::planted::{Bug, is};

/// What was applied is never taken back: a leader that wants that has forgotten what it committed, and this replica is not of its
/// history any more.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The entry after the last one applied.
    next: AtomicU64,
    /// A leader wanted some of it taken back.
    broken: AtomicBool,
}

impl Applied {
    pub(super) fn note(&self, last: Option<LogId>) {
        self.next.store(last.map_or(0, |last| last.index + 1), Ordering::SeqCst);
    }

    /// Why this replica must not go on.
    pub(super) fn breach(&self) -> Option<String> {
        let next = self.next.load(Ordering::SeqCst);
        let is_broken = self.broken.load(Ordering::SeqCst);
        is_broken.then(|| format!("its leader has forgotten what this replica had applied, before entry {next}"))
    }
}

/// One replica's store. Clones are the same store.
#[derive(Clone)]
pub(super) struct Store {
    log: Log,
    group: GroupId,
    appender: Appender,
    recent: Arc<Mutex<Recent>>,
    applied: Arc<Applied>,
    /// Whether all of it is synced, whatever the log's durability.
    is_synced: bool,
    /// What is read of vote and ends, without asking the disk.
    known: Arc<Mutex<Known>>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    head: Head,
    /// Index of the first entry; where the log begins if it holds none.
    first: u64,
    last: Option<LogId>,
}

impl Store {
    /// Opens a replica's part of the log and starts its writer, a task. Reads at most one entry.
    ///
    /// # Errors
    /// If what is there is not what a replica leaves.
    pub(super) async fn open(
        log: Log,
        group: GroupId,
        applied: Arc<Applied>,
        is_synced: bool,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let head =
            log.state(group).map_or(Ok(Head::default()), |bytes| Head::decode(&bytes)).map_err(io::Error::other)?;
        let bounds = log.bounds(group);
        let first = bounds.map_or(0, |bounds| bounds.first);
        let after_purged = head.purged.map_or(0, |purged| purged.index + 1);
        if first > after_purged && bounds.is_some_and(|bounds| bounds.next.is_some()) && after_purged > 0 {
            return Err(io::Error::other(format!("entries {after_purged} to {} are missing", first - 1)));
        }
        let next = bounds.and_then(|bounds| bounds.next).unwrap_or(0);
        let last = if next > first.max(after_purged) {
            let read = log.read(group, next - 1, next).await.map_err(io::Error::other)?;
            let entry = read.first().ok_or_else(|| io::Error::other("the last entry is not there"))?;
            Some(decode_entry(entry.index, &entry.payload).map_err(io::Error::other)?.log_id())
        } else {
            head.purged
        };
        let recent = Arc::new(Mutex::new(Recent::new(RECENT_BYTES_MAX)));
        let (appender, writer) = Appender::start(log.clone(), group, Arc::clone(&recent));
        if let Some(purged) = head.purged.filter(|purged| first <= purged.index) {
            // The head was kept, and the power went before the entries did.
            let bytes = head.encode();
            appender.finish(|done| Op::Purge { head: bytes, through: purged.index, done }).await?;
        }
        let known = Known { head, first: first.max(after_purged), last };
        Ok((Store { log, group, appender, recent, applied, is_synced, known: Arc::new(Mutex::new(known)) }, writer))
    }

    /// Makes the log agree with the snapshot it goes on from. One that was sent here is in place before the log is purged through it: if the
    /// power went between, entries may be left that were overruled elsewhere. And with a log kept in memory the vote may be lost that
    /// the snapshot was made under.
    ///
    /// # Errors
    /// What the log says.
    pub(super) async fn agree_with(&mut self, snapshot: Option<LogId>) -> io::Result<()> {
        let Some(snapshot) = snapshot else { return Ok(()) };
        let (first, next) = self.held(&(..));
        if (first..next).contains(&snapshot.index) {
            let own = self.read(snapshot.index, snapshot.index + 1, usize::MAX).await?;
            if own.first().is_some_and(|own| own.log_id() != snapshot) {
                self.appender.finish(|done| Op::Truncate { from: first, done }).await?;
                let purged = self.purged();
                self.known().last = purged;
                self.purge(snapshot).await?;
            }
        }
        let newest = self.known().last.max(Some(snapshot)).map(|last| last.leader_id);
        let voted = self.known().head.vote.map(|vote| vote.leader_id);
        if let Some(leader_id) = newest.filter(|_| voted < newest) {
            self.save_vote(&Vote { leader_id, committed: false }).await?;
        }
        Ok(())
    }

    /// The last entry that is not here any more.
    pub(super) fn purged(&self) -> Option<LogId> {
        self.known().head.purged
    }

    /// Where the log ends; `None` while there never was anything.
    pub(super) fn last(&self) -> Option<Position> {
        self.known().last.as_ref().map(position_of)
    }

    /// How far this replica has come for good: its last entry is one that is in memory, the last one purged, or the last there was
    /// `before`. `None` if it is none of these.
    pub(super) fn reach(&self, before: Option<Reach>) -> Option<Reach> {
        let head = self.known().head.clone();
        let purged = head.purged.as_ref().map(position_of);
        let durable = || self.log.bounds(self.group).and_then(|bounds| bounds.next?.checked_sub(1));
        let until = durable();
        let last = match until {
            None => purged,
            Some(index) => {
                let recent =
                    self.recent().range(index, index + 1).next().map(|(entry, _)| position_of(&entry.log_id()));
                let known = [recent, purged, before.and_then(|before| before.last)];
                Some(known.into_iter().flatten().find(|position| position.index == index)?)
            }
        };
        let term = head.vote.map_or(0, |vote| vote.leader_id.term).max(last.map_or(0, |last| last.leader.term));
        // Nothing was taken back meanwhile and written anew.
        (durable() == until).then_some(Reach { term, last })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().expect("no holder panics")
    }

    /// The indices that the log holds, as far as they are in the range.
    fn held(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let known = self.known();
        let next = known.last.map_or(0, |last| last.index + 1);
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let until = match range.end_bound() {
            Bound::Included(until) => until.saturating_add(1),
            Bound::Excluded(until) => *until,
            Bound::Unbounded => u64::MAX,
        };
        (from.max(known.first), until.min(next))
    }

    /// Entries from `from` on, as many from the front as have so many bytes, at least one if there is one.
    async fn read(&self, mut from: u64, until: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while from < until {
            let here = {
                let recent = self.recent();
                // What lies before the first entry here is durable, and was never anything but what is on the disk.
                let here = recent.first().unwrap_or(until);
                if from >= here {
                    for (entry, size) in recent.range(from, until) {
                        bytes += size;
                        if bytes > bytes_max && !entries.is_empty() {
                            break;
                        }
                        entries.push(entry.clone());
                    }
                    return Ok(entries);
                }
                here
            };
            for read in self.log.read(self.group, from, until.min(here)).await.map_err(io::Error::other)? {
                bytes += read.payload.len();
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(decode_entry(read.index, &read.payload).map_err(io::Error::other)?);
                from = read.index + 1;
            }
        }
        Ok(entries)
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (from, until) = self.held(&range);
        self.read(from, until, usize::MAX).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Part by part: after a start everything since the snapshot is asked for at once.
        let (from, until) = self.held(&range);
        let begun = (self.clone(), from, until, VecDeque::new());
        Box::pin(stream::unfold(
            begun,
            |(store, mut from, until, mut ready): (Store, u64, u64, VecDeque<Entry>)| async move {
                if ready.is_empty() && from < until {
                    match store.read(from, until, APPEND_BYTES_MAX).await {
                        Ok(entries) => ready = entries.into(),
                        Err(error) => return Some((Err(error), (store, until, until, ready))),
                    }
                    from = ready.back().map_or(until, |last| last.index() + 1);
                }
                let entry = ready.pop_front()?;
                Some((Ok(entry), (store, from, until, ready)))
            },
        ))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (from, until) = self.held(&(start..end));
        self.read(from, until, APPEND_BYTES_MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.known().head.vote)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let known = self.known();
        Ok(LogState { last_purged_log_id: known.head.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let head = Head { vote: Some(*vote), ..self.known().head.clone() };
        let bytes = head.encode();
        let kept = self.appender.finish(|done| Op::Head { head: bytes, done });
        if !is(Bug::VoteNotKept) {
            kept.await?
        } else {
            drop(kept)
        }
        self.known().head = head;
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first) = entries.first().map(RaftEntry::index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let payloads: Vec<Vec<u8>> = entries.iter().map(encode_entry).collect();
        // Who the members are is not forgotten with the power: whoever has forgotten it could take itself for the only one.
        let is_synced = self.is_synced || entries.iter().any(|entry| matches!(entry.payload, Payload::Membership(_)));
        {
            // They can be read from here on: openraft does so before they are durable.
            let mut recent = self.recent();
            for (entry, payload) in entries.into_iter().zip(&payloads) {
                recent.push(entry, payload.len());
            }
            let mut known = self.known();
            if known.last.is_none() {
                known.first = first;
            }
            known.last = recent.last();
        }
        self.appender.hand_over(Op::Append { first, payloads, is_synced, flushed: callback }).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let (first, _) = self.held(&(..));
        let from = last_log_id.map_or(first, |last| last.index + 1);
        if from < self.applied.next.load(Ordering::SeqCst) {
            self.applied.broken.store(true, Ordering::SeqCst);
            return Err(io::Error::other(self.applied.breach().unwrap_or_default()));
        }
        self.appender.finish(|done| Op::Truncate { from, done }).await?;
        self.recent().truncate(from);
        let mut known = self.known();
        known.last = known.last.min(last_log_id).or(known.head.purged);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let head = Head { purged: Some(log_id), ..self.known().head.clone() };
        let bytes = head.encode();
        self.appender.finish(|done| Op::Purge { head: bytes, through: log_id.index, done }).await?;
        self.recent().purge(log_id.index + 1);
        let mut known = self.known();
        known.head = head;
        known.first = log_id.index + 1;
        known.last = known.last.max(Some(log_id));
        Ok(())
    }
}
