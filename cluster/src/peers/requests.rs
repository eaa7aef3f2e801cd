//! The asking side of a connection: what was asked and is not answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::framing::Ended;
use super::load::{Load, Slot};
use super::outbox::{Outbox, Outgoing};
use super::wire::{Failure, Message};
use super::{Class, Unreached};

/// Requests on one connection.
#[derive(Default)]
pub(super) struct Requests {
    outbox: Arc<Outbox>,
    load: Arc<Load>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Vec<u8>, Failure>>>,
    ended: Option<String>,
}

impl Requests {
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().expect("no holder panics")
    }

    /// Asks and waits for the answer. Dropping the future cancels the request, on the other side too.
    pub(super) async fn ask(&self, class: Class, body: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Unreached> {
        let slot = self.load.take(class, body.len()).ok_or_else(|| match class {
            Class::Raft => Unreached::Broken("too much is under way already".to_owned()),
            Class::Own | Class::Call => Unreached::Busy,
        })?;
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut open = self.open();
            if let Some(reason) = &open.ended {
                return Err(Unreached::Unreachable(reason.clone()));
            }
            open.last += 1;
            let id = open.last;
            open.waiting.insert(id, sender);
            id
        };
        let _asked = Asked { requests: self, id, class, _slot: slot };
        self.outbox.push(id, class, Outgoing::Request { class, deadline, body });
        match timeout_at(deadline, answer).await {
            Err(_) => Err(Unreached::TimedOut),
            Ok(Ok(Ok(body))) => Ok(body),
            Ok(Ok(Err(Failure::Busy))) => Err(Unreached::Busy),
            Ok(Ok(Err(Failure::Late))) => Err(Unreached::TimedOut),
            Ok(Ok(Err(Failure::TooLarge))) => Err(Unreached::AnswerTooLarge),
            Ok(Ok(Err(Failure::Lost))) => Err(Unreached::Broken("the other side lost the request".to_owned())),
            Ok(Err(_)) => {
                let reason = self.open().ended.clone();
                Err(Unreached::Broken(reason.unwrap_or_else(|| "the connection ended".to_owned())))
            }
        }
    }

    /// Takes a message from the other side. Answers to what nobody waits for are dropped.
    pub(super) fn hear(&self, message: Message, body: Vec<u8>) -> Result<(), Ended> {
        let (id, answer) = match message {
            Message::Answer { id } => (id, Ok(body)),
            Message::Failed { id, why } => (id, Err(why)),
            Message::Alive => return Ok(()),
            Message::Request { .. } | Message::Cancel { .. } => {
                return Err(Ended::Breach("a request from the side that answers".to_owned()));
            }
        };
        if let Some(waiting) = self.open().waiting.remove(&id) {
            // Who asked may have gone just now.
            let _ = waiting.send(answer);
        }
        Ok(())
    }

    /// The connection is over: nothing is answered any more.
    pub(super) fn end(&self, reason: &str) {
        let mut open = self.open();
        open.ended.get_or_insert_with(|| reason.to_owned());
        open.waiting.clear();
    }
}

/// A request that somebody waits for.
struct Asked<'a> {
    requests: &'a Requests,
    id: u64,
    class: Class,
    _slot: Slot,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let is_unanswered = self.requests.open().waiting.remove(&self.id).is_some();
        if is_unanswered && !self.requests.outbox.withdraw(self.id) {
            // In the queue of its class, so that the other side has room again before it reads the next request.
            self.requests.outbox.push(self.id, self.class, Outgoing::Cancel);
        }
    }
}

/// How long from now on.
pub(super) fn deadline(within: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(within).unwrap_or(now + Duration::from_secs(86_400))
}
