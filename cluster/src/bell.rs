//! Wakes an actor once for all that waits at its door. It outlives the actor: what waits is not lost when that is restarted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Wakes the actor.
pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

/// One door's bell.
#[derive(Default)]
pub(crate) struct Bell {
    // Locked to look at it only, never while it is called.
    waker: Mutex<Option<Waker>>,
    /// Whom to wake while there is no actor.
    courier: OnceLock<Waker>,
    up: AtomicBool,
    /// The actor has been woken and has not come to rest yet.
    woken: AtomicBool,
}

impl Bell {
    /// Whether a recovered actor stands behind the door.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// A recovered actor stands behind the door from now on; it is woken.
    pub(crate) fn open(&self, waker: Waker) {
        *self.lock() = Some(Arc::clone(&waker));
        self.woken.store(true, Ordering::SeqCst);
        self.up.store(true, Ordering::SeqCst);
        waker();
    }

    /// The actor is gone.
    pub(crate) fn close(&self) {
        self.up.store(false, Ordering::SeqCst);
        *self.lock() = None;
        self.send_courier();
    }

    /// Who is woken from now on while no actor stands behind the door. Only the first is taken.
    pub(crate) fn when_closed(&self, courier: Waker) {
        // One courier serves a node for as long as it runs.
        let _ = self.courier.set(courier);
    }

    fn send_courier(&self) {
        if let Some(courier) = self.courier.get() {
            courier();
        }
    }

    /// Something waits now: call it after that can be seen.
    pub(crate) fn ring(&self) {
        let waker = self.lock().clone();
        match waker {
            Some(waker) if !self.woken.swap(true, Ordering::SeqCst) => waker(),
            Some(_) => {}
            None => self.send_courier(),
        }
    }

    /// The actor has looked: says whether it has to come again, because `waits` finds something.
    pub(crate) fn rest(&self, waits: impl FnOnce() -> bool) -> bool {
        // In this order: what comes after the look rings.
        self.woken.store(false, Ordering::SeqCst);
        let waits = waits();
        if waits {
            self.woken.store(true, Ordering::SeqCst);
        }
        waits
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn it_rings_once_until_the_actor_rests_and_for_an_actor_only() {
        let (bell, rung) = (Bell::default(), Arc::new(AtomicUsize::new(0)));
        bell.ring();
        assert!(!bell.is_up());
        let counted = Arc::clone(&rung);
        bell.open(Arc::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        }));
        assert!(bell.is_up());
        bell.ring();
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 1, "it was woken when it came");
        assert!(bell.rest(|| true), "it has to come again");
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 1, "and knows");
        assert!(!bell.rest(|| false));
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 2);
        bell.close();
        bell.rest(|| false);
        bell.ring();
        assert_eq!(rung.load(Ordering::SeqCst), 2);
    }
}
