//! How much of each class is under way on a connection.

use std::sync::{Arc, Mutex};

use super::Class;
use crate::limits::{
    PEER_CALLS_OPEN_BYTES_MAX, PEER_CALLS_OPEN_MAX, PEER_OWN_OPEN_BYTES_MAX, PEER_OWN_OPEN_MAX,
    PEER_RAFT_OPEN_BYTES_MAX, PEER_RAFT_OPEN_MAX,
};

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    requests: usize,
    bytes: usize,
}

/// Room for requests, class by class. Both sides of a connection keep one, with the same limits.
#[derive(Debug, Default)]
pub(super) struct Load {
    used: Mutex<[Used; Class::COUNT]>,
}

/// Room that one request takes, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    load: Arc<Load>,
    class: Class,
    bytes: usize,
}

impl Load {
    /// Room for a request of `bytes`, if there is any. One alone always fits.
    pub(super) fn take(self: &Arc<Self>, class: Class, bytes: usize) -> Option<Slot> {
        let (requests_max, bytes_max) = match class {
            Class::Raft => (PEER_RAFT_OPEN_MAX, PEER_RAFT_OPEN_BYTES_MAX),
            Class::Own => (PEER_OWN_OPEN_MAX, PEER_OWN_OPEN_BYTES_MAX),
            Class::Call => (PEER_CALLS_OPEN_MAX, PEER_CALLS_OPEN_BYTES_MAX),
        };
        let mut used = self.used.lock().expect("no holder panics");
        let used = &mut used[class.rank()];
        if used.requests >= requests_max || (used.requests > 0 && used.bytes + bytes > bytes_max) {
            return None;
        }
        used.requests += 1;
        used.bytes += bytes;
        Some(Slot { load: Arc::clone(self), class, bytes })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut used = self.load.used.lock().expect("no holder panics");
        let used = &mut used[self.class.rank()];
        used.requests -= 1;
        used.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_own_room_and_gets_it_back() {
        let load = Arc::new(Load::default());
        let taken: Vec<Slot> = (0..PEER_CALLS_OPEN_MAX).map(|_| load.take(Class::Call, 10).unwrap()).collect();
        assert!(load.take(Class::Call, 0).is_none());
        assert!(load.take(Class::Raft, 10).is_some() && load.take(Class::Own, 10).is_some());
        drop(taken);
        let large = load.take(Class::Call, PEER_CALLS_OPEN_BYTES_MAX).expect("nothing is under way any more");
        assert!(load.take(Class::Call, 1).is_none());
        drop(large);
        assert!(load.take(Class::Call, 1).is_some());
    }
}
