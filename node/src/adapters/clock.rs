//! The machine's clocks.

use std::time::Duration;

use proffer_cluster::ports::clock::Clock;
use proffer_engine::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_REALTIME` and `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let now = clock_gettime(ClockId::Realtime);
        Timestamp(now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000))
    }

    fn boottime(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let positive = "the time since boot is never negative";
        Duration::new(u64::try_from(now.tv_sec).expect(positive), u32::try_from(now.tv_nsec).expect(positive))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_never_goes_back_and_the_wall_shows_this_century() {
        let mut last = SystemClock.boottime();
        for _ in 0..1_000 {
            let now = SystemClock.boottime();
            assert!(now >= last);
            last = now;
        }
        assert!(!last.is_zero());
        let (year_2025, year_2100) = (Timestamp(1_735_689_600_000), Timestamp(4_102_444_800_000));
        assert!((year_2025..year_2100).contains(&SystemClock.wall()));
    }
}
