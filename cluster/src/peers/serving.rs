//! The answering side of a connection: what is being worked on for a peer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::framing::Ended;
use super::load::{Load, Slot};
use super::outbox::{Outbox, Outgoing};
use super::wire::{Failure, Message};
use super::{Class, Hello, Request, Service};

/// Work for one connection.
pub(super) struct Serving {
    from: Arc<Hello>,
    service: Arc<dyn Service>,
    outbox: Outbox,
    load: Arc<Load>,
    working: Mutex<BTreeMap<u64, Work>>,
}

struct Work {
    class: Class,
    slot: Slot,
    task: AbortHandle,
}

impl Serving {
    pub(super) fn new(from: Hello, service: Arc<dyn Service>) -> Arc<Self> {
        Arc::new(Serving {
            from: Arc::new(from),
            service,
            outbox: Outbox::default(),
            load: Arc::default(),
            working: Mutex::default(),
        })
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn working(&self) -> MutexGuard<'_, BTreeMap<u64, Work>> {
        self.working.lock().expect("no holder panics")
    }

    /// Takes a message from the other side.
    pub(super) fn hear(self: &Arc<Self>, message: Message, body: Vec<u8>) -> Result<(), Ended> {
        match message {
            Message::Request { id, class, within_ms } => {
                self.begin(id, class, Duration::from_millis(within_ms.into()), body)
            }
            Message::Cancel { id } => {
                let cancelled = self.working().remove(&id);
                if let Some(work) = cancelled {
                    work.task.abort();
                } else {
                    self.outbox.withdraw(id);
                }
                Ok(())
            }
            Message::Alive => Ok(()),
            Message::Answer { .. } | Message::Failed { .. } => {
                Err(Ended::Breach("an answer from the side that asks".to_owned()))
            }
        }
    }

    fn begin(self: &Arc<Self>, id: u64, class: Class, within: Duration, body: Vec<u8>) -> Result<(), Ended> {
        let Some(slot) = self.load.take(class, body.len()) else {
            return match class {
                // No node of ours has so many open: it is lost, as any message may be.
                Class::Raft => Ok(()),
                Class::Own | Class::Call => self.outbox.refuse(id, class, Failure::Busy),
            };
        };
        let mut working = self.working();
        if working.contains_key(&id) {
            return Err(Ended::Breach(format!("request {id} is under way already")));
        }
        let unfinished = Unfinished { serving: Arc::clone(self), id };
        // Holding the lock: the task finds itself noted whenever it ends.
        let task = tokio::spawn(async move {
            let Unfinished { serving, id } = &unfinished;
            let request = Request { class, lane: serving.from.lane, within, body };
            let answer = timeout(within, serving.service.serve(&serving.from, request)).await;
            serving.finish(*id, answer.map_err(|_| Failure::Late));
        });
        working.insert(id, Work { class, slot, task: task.abort_handle() });
        Ok(())
    }

    fn finish(&self, id: u64, answer: Result<Vec<u8>, Failure>) {
        // Removed already: cancelled.
        let Some(Work { class, slot, .. }) = self.working().remove(&id) else { return };
        let message = match answer {
            Ok(body) if body.len() > self.from.lane.body_bytes_max() => {
                Outgoing::Failed { why: Failure::TooLarge, slot: Some(slot) }
            }
            Ok(body) => Outgoing::Answer { body, slot },
            Err(why) => Outgoing::Failed { why, slot: Some(slot) },
        };
        self.outbox.push(id, class, message);
    }

    /// The connection is over: nobody waits for anything any more.
    pub(super) fn end(&self) {
        let working = std::mem::take(&mut *self.working());
        for work in working.into_values() {
            work.task.abort();
        }
    }
}

/// Says that there is no answer if the work ends without one: a panic of the service.
struct Unfinished {
    serving: Arc<Serving>,
    id: u64,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.serving.finish(self.id, Err(Failure::Lost));
    }
}
