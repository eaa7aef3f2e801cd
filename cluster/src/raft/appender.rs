//! What a replica writes, in order: one operation at a time goes to the node's log, and what is appended meanwhile goes together.
//!
//! A full disk is waited for: openraft takes any error for the end of the replica, and nothing is wrong with this one. Nobody is
//! told that anything was written until it was.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::recent::Recent;
use super::types::Types;
use crate::limits::{APPENDS_WAITING_MAX, LOG_BATCH_BYTES_MAX, LOG_FULL_PROBE_MS};
use crate::log::{GroupId, Log, LogError};

/// One operation.
pub(super) enum Op {
    /// Append entries with ascending indices; whoever waits is told when they are durable. `is_synced`: whatever the log's durability.
    Append { first: u64, payloads: Vec<Vec<u8>>, is_synced: bool, flushed: IOFlushed<Types> },
    /// Drop the entries from an index on.
    Truncate { from: u64, done: oneshot::Sender<io::Result<()>> },
    /// Keep the head.
    Head { head: Vec<u8>, done: oneshot::Sender<io::Result<()>> },
    /// Keep the head, then drop the entries up to and including an index.
    Purge { head: Vec<u8>, through: u64, done: oneshot::Sender<io::Result<()>> },
}

/// The way to a replica's writer. The writer ends when the last of these is gone and everything is written.
#[derive(Clone)]
pub(super) struct Appender {
    queue: mpsc::Sender<Op>,
}

/// One write to the log.
enum Write {
    Append(u64, Vec<Vec<u8>>, bool),
    Truncate(u64),
    Head(Vec<u8>),
    Purge(u64),
}

struct Task {
    log: Log,
    group: GroupId,
    recent: Arc<Mutex<Recent>>,
    queue: mpsc::Receiver<Op>,
    /// Taken from the queue already.
    next: Option<Op>,
}

impl Appender {
    /// Starts the writer as a task of the current runtime. `recent` is told what is durable. Whoever ends the task before its time
    /// lets the log [settle](Log::settle) afterwards.
    pub(super) fn start(log: Log, group: GroupId, recent: Arc<Mutex<Recent>>) -> (Self, JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(APPENDS_WAITING_MAX);
        let task = tokio::spawn(Task { log, group, recent, queue, next: None }.run());
        (Appender { queue: sender }, task)
    }

    /// Hands an operation over; waits while too many do.
    pub(super) async fn hand_over(&self, op: Op) -> io::Result<()> {
        self.queue.send(op).await.map_err(|_| io::Error::other("the replica's writer has ended"))
    }

    /// Hands an operation over and waits until it is done.
    pub(super) async fn finish(&self, op: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Op) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.hand_over(op(done)).await?;
        answer.await.map_err(|_| io::Error::other("the replica's writer has ended"))?
    }
}

impl Task {
    async fn run(mut self) {
        loop {
            let op = match self.next.take() {
                Some(op) => op,
                None => match self.queue.recv().await {
                    Some(op) => op,
                    None => return,
                },
            };
            match op {
                Op::Append { first, payloads, is_synced, flushed } => {
                    self.append(first, payloads, is_synced, flushed).await;
                }
                Op::Truncate { from, done } => {
                    let _ = done.send(self.patiently(Write::Truncate(from)).await);
                }
                Op::Head { head, done } => {
                    let _ = done.send(self.patiently(Write::Head(head)).await);
                }
                Op::Purge { head, through, done } => {
                    // In this order: a head that says too much is made true at the next start.
                    let mut result = self.patiently(Write::Head(head)).await;
                    if result.is_ok() {
                        result = self.patiently(Write::Purge(through)).await;
                    }
                    let _ = done.send(result);
                }
            }
        }
    }

    async fn append(&mut self, first: u64, mut payloads: Vec<Vec<u8>>, mut is_synced: bool, flushed: IOFlushed<Types>) {
        let mut waiting = vec![flushed];
        let mut bytes: usize = payloads.iter().map(Vec::len).sum();
        while let Ok(op) = self.queue.try_recv() {
            let Op::Append { first: at, payloads: more, is_synced: also, flushed } = op else {
                self.next = Some(op);
                break;
            };
            let more_bytes: usize = more.iter().map(Vec::len).sum();
            if at != first + payloads.len() as u64 || bytes + more_bytes > LOG_BATCH_BYTES_MAX / 2 {
                self.next = Some(Op::Append { first: at, payloads: more, is_synced: also, flushed });
                break;
            }
            bytes += more_bytes;
            is_synced |= also;
            payloads.extend(more);
            waiting.push(flushed);
        }
        let next = first + payloads.len() as u64;
        let result = self.patiently(Write::Append(first, payloads, is_synced)).await;
        if result.is_ok() {
            self.recent.lock().expect("no holder panics").durable(next);
        }
        for flushed in waiting {
            // An error ends the replica; its words are the same for all who wait.
            flushed.io_completed(result.as_ref().copied().map_err(|error| io::Error::other(error.to_string())));
        }
    }

    /// Does it as soon as there is room on the disk.
    async fn patiently(&self, write: Write) -> io::Result<()> {
        loop {
            let (log, group) = (&self.log, self.group);
            let result = match &write {
                Write::Append(first, payloads, false) => log.append_all(group, *first, payloads.clone()).await,
                Write::Append(first, payloads, true) => log.append_synced(group, *first, payloads.clone()).await,
                Write::Truncate(from) => log.truncate(group, *from).await,
                Write::Head(head) => log.save_state(group, head.clone()).await,
                Write::Purge(through) => log.purge(group, *through).await,
            };
            match result {
                Ok(()) => return Ok(()),
                Err(LogError::Full) => tokio::time::sleep(Duration::from_millis(LOG_FULL_PROBE_MS)).await,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
