//! How a node ends itself when going on could lose what it acknowledged.

use std::sync::Mutex;

/// Ends the node.
///
/// Contract: the real adapter logs the reason and aborts the process: it does not return. A simulated one marks the host as
/// crashed and returns; callers must therefore stay safe afterwards (the log refuses everything from then on).
pub trait Fatal: Send + Sync + 'static {
    /// A fault was met that must not be survived, an fsync error for example.
    fn stop(&self, reason: &str);
}

/// Remembers the reasons instead of ending anything: for tests.
#[derive(Debug, Default)]
pub struct RecordedFatal {
    reasons: Mutex<Vec<String>>,
}

impl RecordedFatal {
    /// What was reported, in order.
    pub fn reasons(&self) -> Vec<String> {
        self.reasons.lock().expect("no holder panics").clone()
    }
}

impl Fatal for RecordedFatal {
    fn stop(&self, reason: &str) {
        self.reasons.lock().expect("no holder panics").push(reason.to_owned());
    }
}
