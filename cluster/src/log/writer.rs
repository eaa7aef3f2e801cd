//! The one task that writes: it forms batches, has them written and synced off-thread, and answers.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::format::{self, HEADER_BYTES, Header, Home, Kind, MARK_BYTES, RECORD_HEADER_BYTES, VERSION};
use super::index::{Checkpoint, Place};
use super::plan::Plan;
use super::recover::segment_name;
use super::{Durability, GroupId, LogError, LogOptions, LogPorts, OpenError, Shared, lock};
use crate::limits::{
    LOG_BATCH_BYTES_MAX, LOG_BATCH_REQUESTS_MAX, LOG_FULL_PROBE_MS, LOG_IDLE_MARK_MS, LOG_PROBE_BYTES,
};
use crate::planted::{Bug, is};
use crate::ports::disk::{Disk, DiskError};
use crate::ports::offload::{Lane, Step};

/// What a caller wants written.
pub(super) enum Op {
    Append {
        group: GroupId,
        first: u64,
        payloads: Vec<Vec<u8>>,
        /// Whatever the durability.
        is_synced: bool,
    },
    State {
        group: GroupId,
        state: Vec<u8>,
    },
    Truncate {
        group: GroupId,
        from: u64,
    },
    Purge {
        group: GroupId,
        first: u64,
    },
    Destroy {
        group: GroupId,
    },
    /// Nothing: answered when everything before it is.
    Barrier,
    Close,
}

impl Op {
    /// Bytes of its records.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Op::Append { payloads, .. } => payloads.iter().map(|payload| RECORD_HEADER_BYTES + payload.len()).sum(),
            Op::State { state, .. } => RECORD_HEADER_BYTES + state.len(),
            Op::Truncate { .. } | Op::Purge { .. } | Op::Destroy { .. } => RECORD_HEADER_BYTES,
            Op::Barrier | Op::Close => 0,
        }
    }

    /// Whether it is synced also where nothing else is: who voted for whom and who the members are is never forgotten.
    fn is_synced(&self) -> bool {
        match self {
            Op::Append { is_synced, .. } => *is_synced,
            Op::State { .. } => true,
            Op::Truncate { .. } | Op::Purge { .. } | Op::Destroy { .. } | Op::Barrier | Op::Close => false,
        }
    }
}

pub(super) struct Request {
    pub(super) op: Op,
    pub(super) done: oneshot::Sender<Result<(), LogError>>,
    // Held until the request is answered: queued and batched bytes both count.
    pub(super) room: OwnedSemaphorePermit,
}

/// The segment that is being written.
#[derive(Clone, Copy, Debug)]
struct Active {
    segment: u64,
    /// Its header and checkpoints.
    head: u64,
    len: u64,
    /// How much of it is synced.
    synced: u64,
    /// Whether a mark says so already.
    marked: bool,
}

pub(super) struct Writer {
    options: LogOptions,
    ports: LogPorts,
    shared: Arc<Mutex<Shared>>,
    requests: mpsc::Receiver<Request>,
    log_id: u64,
    active: Active,
}

/// The log has failed and everyone has been told; nothing more may be written.
struct Stopped;

/// A disk call of a job failed; the ones after it were not made.
struct Failure {
    step: usize,
    error: DiskError,
}

type DiskCall = Box<dyn FnOnce(&dyn Disk) -> Result<(), DiskError> + Send>;

/// What a record changes once it is durable.
struct Change {
    group: GroupId,
    index: u64,
    kind: Kind,
    place: Place,
    /// Only of a state record: what is kept in memory.
    state: Vec<u8>,
}

/// A batch under construction: its bytes, and what becomes true when they are durable.
struct Batch {
    bytes: Vec<u8>,
    changes: Vec<Change>,
    done: Vec<(oneshot::Sender<Result<(), LogError>>, OwnedSemaphorePermit)>,
}

impl Writer {
    /// Takes up the last segment, or begins the first.
    pub(super) async fn start(
        options: LogOptions,
        ports: LogPorts,
        shared: Arc<Mutex<Shared>>,
        requests: mpsc::Receiver<Request>,
        log_id: u64,
        active: Option<(u64, u64, u64)>,
    ) -> Result<Writer, OpenError> {
        let (segment, head, len) = active.unwrap_or((0, 0, 0));
        // Recovery has synced what it found, so all of it may be marked.
        let active = Active { segment, head, len, synced: len, marked: false };
        let mut writer = Writer { options, ports, shared, requests, log_id, active };
        if segment == 0 {
            writer.begin_segment().await.map_err(|failure| OpenError::Disk(failure.error))?;
        }
        Ok(writer)
    }

    pub(super) async fn run(mut self) {
        if let Err(Stopped) = self.serve().await {
            self.requests.close();
            while let Some(request) = self.requests.recv().await {
                let reason = lock(&self.shared).failed.clone().unwrap_or_default();
                answer(request.done, Err(LogError::Failed(reason)));
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Stopped> {
        loop {
            let is_full = lock(&self.shared).disk_full.load(Ordering::Acquire);
            let request = if self.active.marked && !is_full {
                self.requests.recv().await
            } else {
                let idle = Duration::from_millis(if self.active.marked { LOG_FULL_PROBE_MS } else { LOG_IDLE_MARK_MS });
                tokio::select! {
                    biased;
                    request = self.requests.recv() => request,
                    () = tokio::time::sleep(idle) => {
                        if self.active.marked { self.probe().await? } else { self.mark().await? }
                        continue;
                    }
                }
            };
            let Some(request) = request else { return self.finish().await };
            // Whoever else is ready to write gets to: their entries share this sync.
            tokio::task::yield_now().await;
            let mut bytes = request.op.bytes();
            let mut requests = vec![request];
            while requests.len() < LOG_BATCH_REQUESTS_MAX && bytes < LOG_BATCH_BYTES_MAX {
                let Ok(request) = self.requests.try_recv() else { break };
                bytes += request.op.bytes();
                requests.push(request);
            }
            let closing = requests.iter().position(|request| matches!(request.op, Op::Close));
            let late = closing.map_or_else(Vec::new, |at| requests.split_off(at));
            self.commit(requests, bytes).await?;
            let mut late = late.into_iter();
            if let Some(close) = late.next() {
                self.requests.close();
                let finished = self.finish().await;
                let failed = lock(&self.shared).failed.clone();
                answer(close.done, failed.map_or(Ok(()), |reason| Err(LogError::Failed(reason))));
                for request in late {
                    answer(request.done, Err(LogError::Closed));
                }
                while let Some(request) = self.requests.recv().await {
                    answer(request.done, Err(LogError::Closed));
                }
                return finished;
            }
        }
    }

    /// Writes one batch, syncs it, and answers.
    async fn commit(&mut self, requests: Vec<Request>, bytes: usize) -> Result<(), Stopped> {
        // A segment with nothing but its head is used whatever its size, or an oversized head would roll for ever.
        let grown = self.active.len + (MARK_BYTES + bytes) as u64;
        if grown > self.options.segment_bytes && self.active.len > self.active.head {
            match self.roll().await {
                Ok(()) => {}
                Err(failure) if is_full(&failure.error) => {
                    self.refuse_full(requests);
                    return Ok(());
                }
                Err(failure) => {
                    let waiting = requests.into_iter().map(|request| request.done).collect();
                    return Err(self.fail("cannot begin a log segment", &failure.error, waiting));
                }
            }
        }
        let is_synced = match self.options.durability {
            Durability::Fsync => true,
            Durability::Memory => requests.iter().any(|request| request.op.is_synced()),
        };
        let mut batch = self.encode(requests);
        if batch.changes.is_empty() {
            for (done, _room) in batch.done {
                answer(done, Ok(()));
            }
            return Ok(());
        }
        let written = batch.bytes.len() as u64;
        let name = segment_name(self.active.segment);
        let bytes = std::mem::take(&mut batch.bytes);
        let mut calls: Vec<DiskCall> = vec![append(&name, bytes)];
        if is_synced {
            calls.push(sync(&name));
        }
        if let Err(Failure { step, error }) = self.attempt(calls).await {
            let waiting: Vec<_> = batch.done.into_iter().map(|(done, _room)| done).collect();
            if step > 0 || !is_full(&error) {
                return Err(self.fail("cannot write the log", &error, waiting));
            }
            if let Err(Failure { error, .. }) = self.cut_back().await {
                return Err(self.fail("cannot take back what a full disk cut short", &error, waiting));
            }
            lock(&self.shared).disk_full.store(true, Ordering::Release);
            waiting.into_iter().for_each(|done| answer(done, Err(LogError::Full)));
            return Ok(());
        }
        self.active.len += written;
        if is_synced {
            self.active.synced = self.active.len;
            self.active.marked = false;
        }
        self.publish(batch.changes);
        for (done, _room) in batch.done {
            answer(done, Ok(()));
        }
        self.remove_unneeded().await
    }

    /// Lays out the batch; requests that cannot be carried out are answered here.
    fn encode(&self, requests: Vec<Request>) -> Batch {
        let shared = lock(&self.shared);
        let mut plan = Plan::new(&shared.index);
        let home = Home { log_id: self.log_id, segment: self.active.segment };
        let mut batch = Batch { bytes: Vec::new(), changes: Vec::new(), done: Vec::new() };
        format::write_mark(&mut batch.bytes, home, self.active.len, self.active.synced);
        let mut write = |group, index, kind, payload: &[u8], state| {
            let offset = self.active.len + batch.bytes.len() as u64;
            let start = batch.bytes.len();
            format::write_record(&mut batch.bytes, home, offset, (group, index, kind), payload);
            let frame_bytes = u32::try_from(batch.bytes.len() - start).expect("records are limited");
            let place = Place { segment: home.segment, offset, frame_bytes };
            batch.changes.push(Change { group, index, kind, place, state });
        };
        for Request { op, done, room } in requests {
            match plan.admit(&op) {
                Ok(()) => {}
                Err(error) => {
                    answer(done, Err(error));
                    continue;
                }
            }
            match op {
                Op::Append { group, first, payloads, .. } => {
                    for (index, payload) in (first..).zip(&payloads) {
                        write(group, index, Kind::Entry, payload, Vec::new());
                    }
                }
                Op::State { group, state } => {
                    let kept = state.clone();
                    write(group, 0, Kind::State, &state, kept);
                }
                Op::Truncate { group, from } => write(group, from, Kind::Truncate, &[], Vec::new()),
                Op::Purge { group, first } => write(group, first, Kind::Purge, &[], Vec::new()),
                Op::Destroy { group } => write(group, 0, Kind::Destroy, &[], Vec::new()),
                Op::Barrier | Op::Close => {}
            }
            batch.done.push((done, room));
        }
        batch
    }

    /// Makes a durable batch visible.
    fn publish(&self, changes: Vec<Change>) {
        let mut shared = lock(&self.shared);
        shared.disk_full.store(false, Ordering::Release);
        shared.segments.insert(self.active.segment, self.active.len);
        for Change { group, index, kind, place, state } in changes {
            let checked = "admitted by the plan";
            match kind {
                Kind::Entry => shared.index.append(group, index, place).expect(checked),
                Kind::State => shared.index.set_state(group, state),
                Kind::Truncate => shared.index.truncate(group, index).expect(checked),
                Kind::Purge => shared.index.purge(group, index),
                Kind::Destroy => shared.index.destroy(group),
                Kind::Checkpoint => {}
            }
        }
    }

    /// Says on the disk what is synced, without syncing that.
    async fn mark(&mut self) -> Result<(), Stopped> {
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        let home = Home { log_id: self.log_id, segment: self.active.segment };
        format::write_mark(&mut bytes, home, self.active.len, self.active.synced);
        match self.attempt(vec![append(&segment_name(self.active.segment), bytes)]).await {
            Ok(()) => {
                self.active.len += MARK_BYTES as u64;
                self.active.marked = true;
                lock(&self.shared).segments.insert(self.active.segment, self.active.len);
                Ok(())
            }
            Err(Failure { error, .. }) if is_full(&error) && self.cut_back().await.is_ok() => {
                self.active.marked = true;
                Ok(())
            }
            Err(Failure { error, .. }) => Err(self.fail("cannot mark the log", &error, Vec::new())),
        }
    }

    /// Looks whether a full disk has room again, by writing and taking back what is not a frame: nobody else may want to
    /// write, as long as the node says that it cannot.
    async fn probe(&mut self) -> Result<(), Stopped> {
        let tried = self.attempt(vec![append(&segment_name(self.active.segment), vec![0; LOG_PROBE_BYTES])]).await;
        let is_full = match &tried {
            Ok(()) => false,
            Err(Failure { error, .. }) if is_full(error) => true,
            Err(Failure { error, .. }) => return Err(self.fail("cannot write the log", error, Vec::new())),
        };
        if let Err(Failure { error, .. }) = self.cut_back().await {
            return Err(self.fail("cannot take back what a full disk cut short", &error, Vec::new()));
        }
        lock(&self.shared).disk_full.store(is_full, Ordering::Release);
        Ok(())
    }

    /// The end of a clean run: a mark, and a sync that covers it.
    async fn finish(&mut self) -> Result<(), Stopped> {
        let name = segment_name(self.active.segment);
        if self.active.synced < self.active.len {
            self.sync_all(&name).await?;
        }
        self.mark().await?;
        self.sync_all(&name).await
    }

    async fn sync_all(&mut self, name: &str) -> Result<(), Stopped> {
        match self.attempt(vec![sync(name)]).await {
            Ok(()) => {
                self.active.synced = self.active.len;
                Ok(())
            }
            Err(Failure { error, .. }) => Err(self.fail("cannot sync the log", &error, Vec::new())),
        }
    }

    /// Syncs the active segment for the last time and begins the next.
    async fn roll(&mut self) -> Result<(), Failure> {
        self.attempt(vec![sync(&segment_name(self.active.segment))]).await.map_err(|mut failure| {
            // Whatever its kind, a failed sync is not a refusal.
            failure.error = unsyncable(failure.error);
            failure
        })?;
        self.active.synced = self.active.len;
        self.begin_segment().await
    }

    /// Creates the segment after the active one, with a checkpoint of every group, and makes it the active one. An error of
    /// the kind "full" means that all is as it was.
    async fn begin_segment(&mut self) -> Result<(), Failure> {
        let home = Home { log_id: self.log_id, segment: self.active.segment + 1 };
        let checkpoints: Vec<_> = lock(&self.shared)
            .index
            .groups
            .iter()
            .map(|(id, group)| ((*id, group.bounds.first, Kind::Checkpoint), Checkpoint::of(group)))
            .collect();
        let records: usize = checkpoints.iter().map(|(_, payload)| RECORD_HEADER_BYTES + payload.len()).sum();
        let len = (HEADER_BYTES + records) as u64;
        let mut head = Vec::new();
        Header { version: VERSION, home, previous_len: self.active.len, head_bytes: len }.write(&mut head);
        for (record, payload) in checkpoints {
            let offset = head.len() as u64;
            format::write_record(&mut head, home, offset, record, &payload);
        }
        let name = segment_name(home.segment);
        let created = name.clone();
        let calls: Vec<DiskCall> = vec![
            Box::new(move |disk| disk.create(&created)),
            append(&name, head),
            sync(&name),
            Box::new(|disk| disk.sync_dir().map_err(unsyncable)),
        ];
        if let Err(mut failure) = self.attempt(calls).await {
            if failure.step == 1 && is_full(&failure.error) {
                // While the file is there, a restart takes the segment before it for finished.
                let undo: Vec<DiskCall> =
                    vec![Box::new(move |disk| disk.remove(&name)), Box::new(|disk| disk.sync_dir())];
                if let Err(undone) = self.attempt(undo).await {
                    failure.error = unsyncable(undone.error);
                }
            }
            return Err(failure);
        }
        self.active = Active { segment: home.segment, head: len, len, synced: len, marked: false };
        lock(&self.shared).segments.insert(home.segment, len);
        Ok(())
    }

    /// Removes the oldest segments that hold nothing anybody needs. Called after a synced batch: its mark says that the
    /// checkpoints, on which a start without those segments relies, are synced.
    async fn remove_unneeded(&mut self) -> Result<(), Stopped> {
        let unneeded: Vec<u64> = {
            let shared = lock(&self.shared);
            let needed = shared.index.oldest_segment().unwrap_or(self.active.segment).min(self.active.segment);
            shared.segments.range(..needed).map(|(&segment, _)| segment).collect()
        };
        if unneeded.is_empty() {
            return Ok(());
        }
        if self.active.synced < self.active.len {
            self.sync_all(&segment_name(self.active.segment)).await?;
        }
        for segment in unneeded {
            let name = segment_name(segment);
            // One at a time, or a power cut could leave a gap.
            let calls: Vec<DiskCall> =
                vec![Box::new(move |disk| disk.remove(&name)), Box::new(|disk| disk.sync_dir().map_err(unsyncable))];
            if let Err(Failure { error, .. }) = self.attempt(calls).await {
                return Err(self.fail("cannot remove a log segment", &error, Vec::new()));
            }
            lock(&self.shared).segments.remove(&segment);
        }
        Ok(())
    }

    /// Cuts what a failed append may have left, and syncs: whole frames may be among it, and a power cut must not bring back
    /// what callers were told is not there.
    async fn cut_back(&mut self) -> Result<(), Failure> {
        let (name, len) = (segment_name(self.active.segment), self.active.len);
        let synced = sync(&name);
        self.attempt(vec![Box::new(move |disk| disk.truncate(&name, len)), synced]).await?;
        self.active.synced = len;
        Ok(())
    }

    fn refuse_full(&self, requests: Vec<Request>) {
        lock(&self.shared).disk_full.store(true, Ordering::Release);
        for request in requests {
            answer(request.done, Err(LogError::Full));
        }
    }

    /// Ends the node, after everyone who waits has been told.
    fn fail(&self, what: &str, error: &DiskError, waiting: Vec<oneshot::Sender<Result<(), LogError>>>) -> Stopped {
        let reason = format!("{what}: {error}");
        lock(&self.shared).failed = Some(reason.clone());
        for done in waiting {
            answer(done, Err(LogError::Failed(reason.clone())));
        }
        self.ports.fatal.stop(&reason);
        Stopped
    }

    /// Makes disk calls one after the other on the log's thread, each a step of its own.
    async fn attempt(&self, calls: Vec<DiskCall>) -> Result<(), Failure> {
        let lost =
            DiskError::Io { operation: "reach", name: "the disk".to_owned(), reason: "its thread is gone".to_owned() };
        let (count, outcome) = (calls.len(), Arc::new(Mutex::new((0, None))));
        let step = |(number, call): (usize, DiskCall)| -> Step {
            let (disk, outcome) = (Arc::clone(&self.ports.disk), Arc::clone(&outcome));
            Box::new(move || {
                let result = call(&*disk);
                let mut outcome = outcome.lock().expect("no holder panics");
                match result {
                    Ok(()) => {
                        outcome.0 = number + 1;
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        outcome.1 = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })
        };
        let steps = calls.into_iter().enumerate().map(step).collect();
        self.ports.offload.run(Lane::Log, steps).await;
        let (done, error) = outcome.lock().expect("no holder panics").clone();
        if done == count { Ok(()) } else { Err(Failure { step: done, error: error.unwrap_or(lost) }) }
    }
}

fn append(name: &str, bytes: Vec<u8>) -> DiskCall {
    let name = name.to_owned();
    Box::new(move |disk| disk.append(&name, &bytes))
}

fn sync(name: &str) -> DiskCall {
    let name = name.to_owned();
    Box::new(move |disk| {
        let retry = |error| if is(Bug::SyncRetried) { disk.sync_data(&name) } else { Err(error) };
        if is(Bug::SyncSkipped) { Ok(()) } else { disk.sync_data(&name).or_else(retry).map_err(unsyncable) }
    })
}

/// A sync that fails for want of space has failed like any other: what it should have saved may be lost.
fn unsyncable(error: DiskError) -> DiskError {
    match error {
        DiskError::Full { name } => DiskError::Io { operation: "sync", name, reason: "the disk is full".to_owned() },
        DiskError::NotFound { .. } | DiskError::Exists { .. } | DiskError::Name { .. } | DiskError::Io { .. } => error,
    }
}

fn is_full(error: &DiskError) -> bool {
    matches!(error, DiskError::Full { .. })
}

fn answer(done: oneshot::Sender<Result<(), LogError>>, outcome: Result<(), LogError>) {
    // A caller that has gone away needs no answer.
    let _gone = done.send(outcome);
}
