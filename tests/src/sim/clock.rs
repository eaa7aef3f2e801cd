//! A host's clocks: the time of its runtime, which the harness steps, on a wall that may be wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use proffer_cluster::ports::clock::Clock;
use proffer_engine::time::Timestamp;
use tokio::time::Instant;

/// Where every run begins: 2026-11-21, 23:59:40 UTC, so that a day ends in it.
pub const BEGIN_MS: i64 = 1_795_305_580_000;

/// What is wrong with a host's wall clock. It hangs there whichever process runs.
#[derive(Debug, Default)]
pub struct Wall {
    /// It shows so much too much.
    pub ahead_ms: AtomicI64,
    /// It stands still, …
    pub is_frozen: AtomicBool,
    /// … showing this.
    pub frozen_at_ms: AtomicI64,
    /// What it showed last.
    shown_ms: AtomicI64,
}

impl Wall {
    /// Stops it where it is, or lets it go on from there.
    pub fn freeze(&self, is_frozen: bool) {
        if is_frozen {
            self.frozen_at_ms.store(self.shown_ms.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.is_frozen.store(is_frozen, Ordering::SeqCst);
    }

    /// Shows the right time again.
    pub fn set_right(&self) {
        self.ahead_ms.store(0, Ordering::SeqCst);
        self.is_frozen.store(false, Ordering::SeqCst);
    }
}

/// The clock of one process on a host. It may be read inside the host's runtime only.
pub struct SimClock {
    wall: Arc<Wall>,
    started: Instant,
    /// What the world's time was then.
    started_at: Duration,
}

impl SimClock {
    /// From now on, with the world at `started_at`.
    pub fn new(wall: Arc<Wall>, started_at: Duration) -> Self {
        SimClock { wall, started: Instant::now(), started_at }
    }

    fn up(&self) -> Duration {
        self.started_at + self.started.elapsed()
    }
}

impl Clock for SimClock {
    fn wall(&self) -> Timestamp {
        if self.wall.is_frozen.load(Ordering::SeqCst) {
            return Timestamp(self.wall.frozen_at_ms.load(Ordering::SeqCst));
        }
        let up = i64::try_from(self.up().as_millis()).unwrap_or(i64::MAX);
        let shown = BEGIN_MS + up + self.wall.ahead_ms.load(Ordering::SeqCst);
        self.wall.shown_ms.store(shown, Ordering::SeqCst);
        Timestamp(shown)
    }

    fn boottime(&self) -> Duration {
        self.up()
    }
}
