//! The end of the process.

use proffer_cluster::ports::fatal::Fatal;

/// Logs the reason and aborts: no destructor runs, nothing is flushed that should not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct AbortProcess;

impl Fatal for AbortProcess {
    fn stop(&self, reason: &str) {
        tracing::error!(reason, "this node cannot go on without risking acknowledged data, and ends");
        std::process::abort();
    }
}
