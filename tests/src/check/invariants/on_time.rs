//! Log time is not ahead of the time, whichever clock on whichever wall was put wrong, as long as most are right (docs/adr/0013): periods
//! would begin and reservations lapse too early.

use proffer_engine::profile::cells::Look;

use crate::check::{Invariant, Seen, State};

/// How wrong a clock may be without anybody noticing, with what drifts and is under way.
const AHEAD_MS_MAX: i64 = 5_000;

/// See the module.
pub struct OnTime;

impl Invariant for OnTime {
    fn sentence(&self) -> &'static str {
        "log time is not ahead of the time"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let log_time = match &*seen.state {
            State::Shard(state) => state.log_time(),
            State::Meta(state) => state.log_time(),
        };
        let ahead_ms = log_time.0.saturating_sub(seen.at.0);
        if ahead_ms > AHEAD_MS_MAX {
            Err(format!("{} on h{}: by {ahead_ms} ms", seen.group, seen.host))
        } else {
            Ok(())
        }
    }
}
