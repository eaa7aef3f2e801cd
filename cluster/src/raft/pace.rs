//! How fast snapshots leave a node.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::limits::SNAPSHOT_SEND_BYTES_PER_S;

/// Lets parts of snapshots go one after the other, all groups' together no faster than [`SNAPSHOT_SEND_BYTES_PER_S`]: shards that move leave
/// the network and the other node's disk to those who decide. Time in which nothing was sent is not made up for.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the next may go.
    next: Mutex<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { next: Mutex::new(Instant::now()) }
    }
}

impl Pace {
    /// Waits until so many bytes may go.
    pub(super) async fn take(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / SNAPSHOT_SEND_BYTES_PER_S as f64);
        let turn = {
            let mut next = self.next.lock().expect("no holder panics");
            let turn = (*next).max(Instant::now());
            *next = turn + takes;
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::limits::SNAPSHOT_PART_BYTES_MAX;

    #[tokio::test(start_paused = true)]
    async fn many_groups_together_are_as_fast_as_one_and_no_credit_is_saved_up() {
        let pace = Arc::new(Pace::default());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        let parts = SNAPSHOT_SEND_BYTES_PER_S / SNAPSHOT_PART_BYTES_MAX / 4;
        let groups = (0..4).map(|_| {
            let pace = Arc::clone(&pace);
            tokio::spawn(async move {
                for _ in 0..parts {
                    pace.take(SNAPSHOT_PART_BYTES_MAX).await;
                }
            })
        });
        futures_util::future::join_all(groups).await;
        pace.take(1).await;
        let took = begun.elapsed();
        assert!((Duration::from_millis(995)..Duration::from_millis(1_100)).contains(&took), "{took:?}");
    }
}
