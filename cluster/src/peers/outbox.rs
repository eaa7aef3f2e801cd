//! What waits to be written on a connection: Raft's messages first, the cluster's own next, channels' calls last.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Class;
use super::framing::Ended;
use super::load::Slot;
use super::wire::{Failure, Frame, Message, pack};
use crate::limits::{PEER_FRAME_OVERHEAD_BYTES, PEER_REFUSALS_WAITING_MAX};

/// One message on its way out.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// Ours to the other side; of no use after `deadline`.
    Request { class: Class, deadline: Instant, body: Vec<u8> },
    /// Nobody here waits any more.
    Cancel,
    /// Our answer. The room it takes is free once it is being written.
    Answer { body: Vec<u8>, slot: Slot },
    /// There is no answer.
    Failed { why: Failure, slot: Option<Slot> },
}

#[derive(Default)]
pub(super) struct Outbox {
    queues: Mutex<Queues>,
    filled: Notify,
}

#[derive(Default)]
struct Queues {
    by_class: [VecDeque<(u64, Outgoing)>; Class::COUNT],
    // Answers to requests that took no room: bounded here, since nothing else bounds them.
    refusals: usize,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("no holder panics")
    }

    /// Puts a message behind those of its class.
    pub(super) fn push(&self, id: u64, class: Class, message: Outgoing) {
        self.lock().by_class[class.rank()].push_back((id, message));
        self.filled.notify_one();
    }

    /// Refuses a request.
    ///
    /// # Errors
    /// The other side asks on and on without reading the answers.
    pub(super) fn refuse(&self, id: u64, class: Class, why: Failure) -> Result<(), Ended> {
        let mut queues = self.lock();
        if queues.refusals >= PEER_REFUSALS_WAITING_MAX {
            return Err(Ended::Breach(format!("{} refusals are not read", queues.refusals)));
        }
        queues.refusals += 1;
        queues.by_class[class.rank()].push_back((id, Outgoing::Failed { why, slot: None }));
        drop(queues);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes back what of request `id` is not written yet. Whether there was something.
    pub(super) fn withdraw(&self, id: u64) -> bool {
        let mut queues = self.lock();
        for queue in &mut queues.by_class {
            let is_it = |(other, message): &(u64, Outgoing)| {
                *other == id
                    && match message {
                        Outgoing::Request { .. } | Outgoing::Answer { .. } => true,
                        Outgoing::Failed { slot, .. } => slot.is_some(),
                        Outgoing::Cancel => false,
                    }
            };
            if let Some(at) = queue.iter().position(is_it) {
                queue.remove(at);
                return true;
            }
        }
        false
    }

    /// The frame to write next, if there is one of at most `room` bytes.
    pub(super) fn next_within(&self, room: usize) -> Option<Vec<u8>> {
        let now = Instant::now();
        let mut queues = self.lock();
        loop {
            let queue = queues.by_class.iter_mut().find(|queue| !queue.is_empty())?;
            if queue.front().is_some_and(|(_, message)| message.bytes() > room) {
                return None;
            }
            let (id, message) = queue.pop_front()?;
            return Some(match message {
                Outgoing::Request { deadline, .. } if deadline <= now => continue,
                Outgoing::Request { class, deadline, body } => {
                    let within_ms = u32::try_from((deadline - now).as_millis()).unwrap_or(u32::MAX);
                    pack(&Frame::V1(Message::Request { id, class, within_ms }), &body)
                }
                Outgoing::Cancel => pack(&Frame::V1(Message::Cancel { id }), &[]),
                Outgoing::Answer { body, slot } => {
                    drop(slot);
                    pack(&Frame::V1(Message::Answer { id }), &body)
                }
                Outgoing::Failed { why, slot } => {
                    if slot.is_none() {
                        queues.refusals -= 1;
                    }
                    pack(&Frame::V1(Message::Failed { id, why }), &[])
                }
            });
        }
    }

    /// The frame to write next. May be dropped before it is done.
    pub(super) async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.next_within(usize::MAX) {
                return frame;
            }
            self.filled.notified().await;
        }
    }
}

impl Outgoing {
    fn bytes(&self) -> usize {
        PEER_FRAME_OVERHEAD_BYTES
            + match self {
                Outgoing::Request { body, .. } | Outgoing::Answer { body, .. } => body.len(),
                Outgoing::Cancel | Outgoing::Failed { .. } => 0,
            }
    }
}
