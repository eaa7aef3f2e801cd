//! The way into the meta group: what waits is counted, and the cluster's own goes first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::error::Error;
use crate::limits::{META_WAITING_MAX, RETRY_AFTER_BUSY_MS, RETRY_AFTER_START_MS};
use crate::meta::ask::MetaAsk;
use crate::shard::door::Waker;

/// The meta group's gate and queue. It outlives the actor behind it.
#[derive(Default)]
pub(crate) struct MetaDoor {
    waiting: Mutex<Waiting>,
    up: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    own: VecDeque<MetaAsk>,
    calls: VecDeque<MetaAsk>,
    waker: Option<Waker>,
    woken: bool,
}

impl MetaDoor {
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// A recovered actor stands behind the door from now on.
    pub(crate) fn open(&self, waker: Waker) {
        let mut waiting = self.lock();
        waiting.waker = Some(Arc::clone(&waker));
        waiting.woken = true;
        drop(waiting);
        self.up.store(true, Ordering::Release);
        waker();
    }

    /// The actor is gone.
    pub(crate) fn close(&self) {
        self.up.store(false, Ordering::Release);
        self.lock().waker = None;
    }

    /// Admits a call.
    pub(crate) fn send(&self, ask: MetaAsk) -> Result<(), Error> {
        if !self.is_up() {
            let reason = "the catalogue is recovering".to_owned();
            return Err(Error::Unavailable { reason, retry_after_ms: RETRY_AFTER_START_MS });
        }
        let mut waiting = self.lock();
        if waiting.calls.len() >= META_WAITING_MAX {
            return Err(Error::Overloaded { retry_after_ms: RETRY_AFTER_BUSY_MS });
        }
        waiting.calls.push_back(ask);
        Self::wake(waiting);
        Ok(())
    }

    /// The cluster's own: never refused. Shards send at most one report of an account a round, and one question.
    pub(crate) fn send_own(&self, ask: MetaAsk) {
        let mut waiting = self.lock();
        waiting.own.push_back(ask);
        Self::wake(waiting);
    }

    pub(crate) fn next_own(&self) -> Option<MetaAsk> {
        self.lock().own.pop_front()
    }

    pub(crate) fn next_call(&self) -> Option<MetaAsk> {
        self.lock().calls.pop_front()
    }

    /// The actor has looked: says whether it has to look again.
    pub(crate) fn rest(&self) -> bool {
        let mut waiting = self.lock();
        waiting.woken = !waiting.own.is_empty() || !waiting.calls.is_empty();
        waiting.woken
    }

    pub(crate) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.own.is_empty() && waiting.calls.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("no holder panics")
    }

    fn wake(mut waiting: MutexGuard<'_, Waiting>) {
        if waiting.woken {
            return;
        }
        let Some(waker) = waiting.waker.clone() else { return };
        waiting.woken = true;
        drop(waiting);
        waker();
    }
}
