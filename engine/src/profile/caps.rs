//! Counting a profile's own caps.

use crate::keys::CapKey;
use crate::limits::ROLLING_TIMES;
use crate::profile::command::Window;
use crate::profile::state::{CapUse, Dealings, Profile, Used};
use crate::time::Timestamp;

impl Profile {
    /// Whether the cap has a unit left in `window`, and its use could be counted.
    pub(crate) fn has_unit(&self, cap: CapKey, limit: u64, window: Window, now: Timestamp) -> bool {
        let limit = match window {
            Window::Rolling { .. } => limit.min(ROLLING_TIMES),
            Window::Lifetime | Window::Calendar(_) => limit,
        };
        let counted = self.dealings.as_ref().is_none_or(|dealings| dealings.can_count(cap, window));
        counted && self.cap_used(cap, window, now) < limit
    }
}

impl Dealings {
    /// Counts one confirmed use of `cap` in `window`. A use in a calendar period that is over changes nothing any more.
    pub(crate) fn count_use(&mut self, cap: CapKey, window: Window, now: Timestamp) {
        let index = match self.cap_uses.iter().position(|use_of| use_of.cap == cap) {
            Some(index) => index,
            None => {
                let used = match window {
                    Window::Lifetime => Used::Lifetime(0),
                    Window::Calendar(span) => Used::Calendar(span, 0),
                    Window::Rolling { .. } => Used::Rolling(Vec::new()),
                };
                self.cap_uses.push(CapUse { cap, used });
                self.cap_uses.len() - 1
            }
        };
        let used = &mut self.cap_uses[index].used;
        match (&mut *used, window) {
            (Used::Lifetime(count), Window::Lifetime) => *count = count.saturating_add(1),
            (Used::Calendar(span, count), Window::Calendar(asked)) => {
                if span.overlaps(&asked) {
                    *count = count.saturating_add(1);
                } else if asked.from >= span.until {
                    *used = Used::Calendar(asked, 1);
                }
            }
            (Used::Rolling(times), Window::Rolling { ms }) => {
                times.retain(|at| now.since_ms(*at) < ms);
                if times.len() as u64 >= ROLLING_TIMES {
                    times.remove(0);
                }
                times.push(now);
                times.shrink_to_fit();
            }
            (Used::Lifetime(_) | Used::Calendar(..) | Used::Rolling(_), _) => {
                *used = match window {
                    Window::Lifetime => Used::Lifetime(1),
                    Window::Calendar(span) => Used::Calendar(span, 1),
                    Window::Rolling { .. } => Used::Rolling(vec![now]),
                };
            }
        }
    }
}
