//! Schedules, grouped: each distinct one is looked at once a minute, not once per offer and decision.

use std::sync::Arc;

use super::bitset::{Bits, Members};
use crate::decide::schedule::OpenHours;
use crate::decide::view::Instant;
use crate::time::{Span, Timestamp};

/// The distinct schedules of a segment.
#[derive(Clone, Debug)]
pub struct Schedules {
    always: Bits,
    some: Box<[(OpenHours, Members)]>,
}

impl Schedules {
    /// Groups positions by their schedule.
    pub fn new(hours: &[OpenHours]) -> Self {
        let len = hours.len();
        let mut groups = hashbrown::HashMap::<OpenHours, Vec<u32>>::new();
        let mut order = Vec::new();
        for (position, hours) in hours.iter().enumerate() {
            let positions = groups.entry(*hours).or_insert_with(|| {
                order.push(*hours);
                Vec::new()
            });
            positions.push(position as u32);
        }
        let always = Bits::of(len, groups.remove(&OpenHours::ALWAYS).unwrap_or_default());
        let some = order.into_iter().filter_map(|hours| Some((hours, Members::new(len, groups.remove(&hours)?))));
        Schedules { some: some.collect(), always }
    }

    /// The positions open at `at`; shortens `valid` to where that holds.
    fn open(&self, at: &Instant, valid: &mut Span) -> Bits {
        let mut open = self.always.clone();
        for (hours, members) in &self.some {
            for edge in [hours.from, hours.until] {
                shorten(valid, edge, at.now);
            }
            if hours.are_open(at.now, &at.frame) {
                members.or_into(&mut open.0);
            }
        }
        open
    }
}

fn shorten(valid: &mut Span, edge: Timestamp, now: Timestamp) {
    if edge <= now {
        valid.from = valid.from.max(edge);
    } else {
        valid.until = valid.until.min(edge);
    }
}

/// What is open while an instant's minute lasts (or up to the next start or end date).
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenCache {
    of: Vec<(Arc<Schedules>, Bits)>,
    /// Where that holds, and the weekday and minute it holds for.
    valid: Option<(Span, u8, u16)>,
}

impl OpenCache {
    /// Makes the cache hold at `at` for these segments.
    pub(crate) fn follow<'a>(&mut self, schedules: impl Iterator<Item = &'a Arc<Schedules>> + Clone, at: &Instant) {
        let same = self.of.iter().map(|(known, _)| Arc::as_ptr(known)).eq(schedules.clone().map(Arc::as_ptr));
        let (day, minute) = (at.frame.weekday, at.frame.minute_of_day);
        if same && self.valid.is_some_and(|(valid, on, when)| valid.contains(at.now) && (on, when) == (day, minute)) {
            return;
        }
        let mut valid = at.frame.valid;
        self.of = schedules.map(|schedules| (Arc::clone(schedules), schedules.open(at, &mut valid))).collect();
        self.valid = Some((valid, day, minute));
    }

    /// What is open of segment number `index`.
    pub(crate) fn of(&self, index: usize) -> &[u64] {
        &self.of[index].1.0
    }
}
