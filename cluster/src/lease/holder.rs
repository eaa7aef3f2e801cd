//! A node's side of the catalogue lease: looked at twice by every request, so nothing but atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proffer_engine::keys::Revision;

use super::Grant;
use crate::planted::{Bug, is};
use crate::ports::clock::Clock;

/// The lease that a node holds, or does not.
pub(crate) struct Lease {
    clock: Arc<dyn Clock>,
    /// When it runs out, in nanoseconds of the node's `boottime`; what it began with, if there never was one.
    until: AtomicU64,
    /// The highest fence that was named.
    fence: AtomicU64,
}

impl Lease {
    /// None yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let until = AtomicU64::new(nanos(clock.boottime()));
        Lease { clock, until, fence: AtomicU64::new(0) }
    }

    /// The instant that the next lease is counted from: to be read before the question goes.
    pub(crate) fn before_asking(&self) -> Duration {
        self.clock.boottime()
    }

    /// What was asked for at `asked_at` was granted. Grants may come in any order, and more than once.
    pub(crate) fn granted(&self, asked_at: Duration, grant: Grant) {
        let asked_at = if is(Bug::LeaseFromReceipt) { self.clock.boottime() } else { asked_at };
        // On a clock that is 5 % slow this is the lease's whole length.
        let held = Duration::from_millis(u64::from(grant.lease_ms)) * 95 / 100;
        // In this order: whoever sees the longer lease sees the fence it came with.
        self.fence.fetch_max(grant.fence.0, Ordering::SeqCst);
        self.until.fetch_max(nanos(asked_at.saturating_add(held)), Ordering::SeqCst);
    }

    /// Whether the node may decide under revision `in_force` now.
    pub(crate) fn is_held(&self, in_force: Revision) -> bool {
        let until = self.until.load(Ordering::SeqCst);
        nanos(self.clock.boottime()) < until && in_force.0 >= self.fence.load(Ordering::SeqCst)
    }

    /// The highest fence that was named.
    pub(crate) fn fence(&self) -> Revision {
        Revision(self.fence.load(Ordering::SeqCst))
    }

    /// For how long there has been no lease, if there is none.
    pub(crate) fn lost_for(&self) -> Option<Duration> {
        let now = nanos(self.clock.boottime());
        now.checked_sub(self.until.load(Ordering::SeqCst)).map(Duration::from_nanos)
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("until", &self.until).field("fence", &self.fence).finish_non_exhaustive()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proffer_engine::time::Timestamp;

    use super::*;
    use crate::ports::clock::ManualClock;

    fn grant(fence: u64) -> Grant {
        Grant { fence: Revision(fence), revision: Revision(9), wall: Timestamp(0), lease_ms: 2_000 }
    }

    fn lease() -> (Arc<ManualClock>, Lease) {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        clock.advance(Duration::from_secs(100));
        (Arc::clone(&clock), Lease::new(clock))
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_lease_counts_from_before_it_was_asked_for() {
        let (clock, lease) = lease();
        assert!(!lease.is_held(Revision(9)), "there was none yet");
        let asked_at = lease.before_asking();
        clock.advance(1_000 * MS);
        assert_eq!(lease.lost_for(), Some(1_000 * MS));
        lease.granted(asked_at, grant(0));
        assert!(lease.is_held(Revision(0)));
        assert_eq!(lease.lost_for(), None);
        clock.advance(899 * MS);
        assert!(lease.is_held(Revision(0)));
        clock.advance(MS);
        assert!(!lease.is_held(Revision(0)), "1,900 ms after it was asked for");
        clock.advance(7 * MS);
        assert_eq!(lease.lost_for(), Some(7 * MS));
    }

    #[test]
    fn what_comes_late_or_twice_neither_shortens_a_lease_nor_forgets_a_fence() {
        let (clock, lease) = lease();
        let first = lease.before_asking();
        clock.advance(500 * MS);
        let second = lease.before_asking();
        lease.granted(second, grant(5));
        lease.granted(first, grant(4));
        assert!(!lease.is_held(Revision(4)), "the later grant named a higher fence");
        clock.advance(1_899 * MS);
        assert!(lease.is_held(Revision(5)));
        clock.advance(MS);
        lease.granted(second, grant(5));
        assert!(!lease.is_held(Revision(5)));
    }

    #[test]
    fn a_wall_clock_that_jumps_changes_nothing() {
        let (clock, lease) = lease();
        lease.granted(lease.before_asking(), grant(0));
        clock.set_wall(Timestamp(1 << 50));
        assert!(lease.is_held(Revision(0)));
    }
}
