//! Cluster time (architecture.md §4): the leader's clock as the newest grant carried it, moved on by the node's own `boottime`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::time::Timestamp;

use super::{Clocks, Grant};
use crate::ports::clock::Clock;

/// There was no grant yet.
const NONE: i64 = i64::MIN;

/// A clock whose wall shows cluster time: as the newest grant has it, also where the meta group is led, for that node grants itself leases
/// too, and not before the clocks of most are known. Before the first grant nobody knows what time it is, and the clock shows the
/// earliest there is: log time stays where it was.
pub(crate) struct ClusterClock {
    own: Arc<dyn Clock>,
    /// Cluster time at boottime 0, in milliseconds.
    ahead: AtomicI64,
    /// When the grant was asked for that says so: an older one that comes late says nothing.
    asked_at: Mutex<Option<Duration>>,
    /// 0: it is not.
    off_ms: AtomicI64,
}

impl ClusterClock {
    /// Nobody has said yet what time it is.
    pub(crate) fn new(own: Arc<dyn Clock>) -> Self {
        ClusterClock { own, ahead: AtomicI64::new(NONE), asked_at: Mutex::default(), off_ms: AtomicI64::new(0) }
    }

    /// A grant has come that was asked for at `asked_at`. One that was under way for longer than it holds says too little of what
    /// the time is now.
    pub(crate) fn granted(&self, asked_at: Duration, grant: Grant) {
        let now = self.own.boottime();
        if now.saturating_sub(asked_at) > Duration::from_millis(u64::from(grant.lease_ms)) {
            return;
        }
        let mut newest = self.asked_at.lock().expect("no holder panics");
        if newest.is_none_or(|newest| newest < asked_at) {
            *newest = Some(asked_at);
            self.ahead.store(grant.wall.0.saturating_sub(millis(now)), Ordering::SeqCst);
        }
    }

    /// The clocks of the nodes say this of the own one, where the meta group is led; where it is not, it is of no interest.
    pub(crate) fn judge_own(&self, clocks: Clocks) {
        let off_ms = match clocks {
            Clocks::Right | Clocks::TooFewHeard | Clocks::Disagreeing => 0,
            Clocks::Off(off_ms) => off_ms,
        };
        self.off_ms.store(off_ms, Ordering::SeqCst);
    }

    /// Cluster time, if anybody has said what it is.
    pub(crate) fn known(&self) -> Option<Timestamp> {
        Some(self.wall()).filter(|wall| wall.0 != NONE)
    }

    /// Whether the own clock is so wrong that the meta group must not be led here, though it is; by how many milliseconds.
    pub(crate) fn off_by(&self) -> Option<i64> {
        Some(self.off_ms.load(Ordering::SeqCst)).filter(|off_ms| *off_ms != 0)
    }
}

impl Clock for ClusterClock {
    fn wall(&self) -> Timestamp {
        let ahead = self.ahead.load(Ordering::SeqCst);
        if ahead == NONE {
            return Timestamp(NONE);
        }
        Timestamp(millis(self.own.boottime()).saturating_add(ahead))
    }

    fn boottime(&self) -> Duration {
        self.own.boottime()
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::Revision;

    use super::*;
    use crate::ports::clock::ManualClock;

    const MS: Duration = Duration::from_millis(1);

    fn grant(wall: i64) -> Grant {
        Grant { fence: Revision(0), revision: Revision(0), wall: Timestamp(wall), lease_ms: 2_000 }
    }

    #[test]
    fn the_leaders_time_goes_on_with_boottime_whatever_the_own_wall_does() {
        let own = Arc::new(ManualClock::new(Timestamp(7)));
        let clock = ClusterClock::new(Arc::clone(&own) as _);
        own.advance(100 * MS);
        assert_eq!(clock.wall(), Timestamp(i64::MIN), "whatever its own shows, nobody has said what time it is");
        clock.granted(clock.boottime(), grant(5_000));
        own.set_wall(Timestamp(1));
        own.advance(250 * MS);
        assert_eq!(clock.wall(), Timestamp(5_250));
        assert_eq!(clock.boottime(), own.boottime());
        clock.judge_own(Clocks::Off(-4_999));
        assert_eq!((clock.off_by(), clock.wall()), (Some(-4_999), Timestamp(5_250)));
        clock.judge_own(Clocks::Right);
        assert_eq!((clock.off_by(), clock.wall()), (None, Timestamp(5_250)));
    }

    #[test]
    fn a_grant_that_is_late_says_nothing() {
        let own = Arc::new(ManualClock::new(Timestamp(0)));
        let clock = ClusterClock::new(Arc::clone(&own) as _);
        let first = clock.boottime();
        own.advance(10 * MS);
        clock.granted(clock.boottime(), grant(1_000));
        clock.granted(first, grant(900));
        assert_eq!(clock.wall(), Timestamp(1_000), "an older one");
        let stopped = clock.boottime();
        own.advance(3_600_000 * MS);
        clock.granted(stopped + MS, grant(1_001));
        assert_eq!(clock.wall(), Timestamp(3_601_000), "one that lay there while the node was stopped");
    }
}
