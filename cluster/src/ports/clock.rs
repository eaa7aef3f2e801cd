//! Time, read in two ways and nowhere else.

use std::sync::Mutex;
use std::time::Duration;

use proffer_engine::time::Timestamp;

/// The machine's clocks.
///
/// Contract: [`Clock::boottime`] never goes back while the machine is up, and runs on while it sleeps
/// (`CLOCK_BOOTTIME`); two nodes' rates differ by at most 5 % (leases rest on it). [`Clock::wall`] may jump either way.
pub trait Clock: Send + Sync + 'static {
    /// What the clock on the wall shows: for a proposer to put into a command, never to be read in `apply`.
    fn wall(&self) -> Timestamp;

    /// Time since the machine was started, with the time it slept. Only differences mean anything.
    fn boottime(&self) -> Duration;
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    // One lock for both readings, so that a reader never sees one moved without the other.
    now: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock at `wall`, just booted.
    pub fn new(wall: Timestamp) -> Self {
        ManualClock { now: Mutex::new((wall, Duration::ZERO)) }
    }

    /// Moves both readings on.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock().expect("no holder panics");
        now.0 = now.0.plus_ms(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        now.1 += by;
    }

    /// Makes the wall clock jump; the time since boot is not touched.
    pub fn set_wall(&self, wall: Timestamp) {
        self.now.lock().expect("no holder panics").0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        self.now.lock().expect("no holder panics").0
    }

    fn boottime(&self) -> Duration {
        self.now.lock().expect("no holder panics").1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_jump_leaves_boottime_alone() {
        let clock = ManualClock::new(Timestamp(1_000));
        clock.advance(Duration::from_millis(250));
        assert_eq!((clock.wall(), clock.boottime()), (Timestamp(1_250), Duration::from_millis(250)));
        clock.set_wall(Timestamp(5));
        assert_eq!((clock.wall(), clock.boottime()), (Timestamp(5), Duration::from_millis(250)));
    }
}
