//! One alarm per actor: the earliest instant asked for.

use tokio::task::JoinHandle;
use tokio::time::Instant;

/// An alarm that sends a message.
#[derive(Default)]
pub(super) struct Alarm {
    armed: Option<(Instant, JoinHandle<()>)>,
}

impl Alarm {
    /// Rings at `at` unless it rings earlier already.
    pub(super) fn set(&mut self, at: Option<Instant>, ring: impl FnOnce() + Send + 'static) {
        let Some(at) = at else { return };
        if let Some((armed, task)) = &self.armed {
            if *armed <= at && !task.is_finished() {
                return;
            }
            task.abort();
        }
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            ring();
        });
        self.armed = Some((at, task));
    }

    /// It rang.
    pub(super) fn rang(&mut self) {
        self.armed = None;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.armed {
            task.abort();
        }
    }
}
