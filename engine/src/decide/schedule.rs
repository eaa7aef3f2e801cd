//! Opening hours: when an offer may be proposed, and when a contact policy lets contact through (domain.md §2, §4).

use crate::model::policy::ContactWindow;
use crate::time::{CalendarFrame, Timestamp};

const MINUTES_A_DAY: u16 = 24 * 60;
const ALL_DAYS: u8 = 0b111_1111;

/// Weekdays and a time of day by the tenant's clock on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalHours {
    /// Bit n: weekday n, 0 = Sunday.
    days: u8,
    /// First minute of the day inside.
    start: u16,
    /// First minute after; at or before `start` the window ends on the next day.
    end: u16,
}

impl LocalHours {
    /// Always.
    pub const ALWAYS: LocalHours = LocalHours { days: ALL_DAYS, start: 0, end: MINUTES_A_DAY };

    /// Hours on `days` (0 = Sunday; empty = all) from minute `start` (default midnight) to minute `end` (default the
    /// following midnight).
    pub fn new(days: &[u8], start: Option<u16>, end: Option<u16>) -> Self {
        let days = if days.is_empty() { ALL_DAYS } else { days.iter().fold(0, |set, day| set | 1 << (day % 7)) };
        LocalHours { days, start: start.unwrap_or(0), end: end.unwrap_or(MINUTES_A_DAY) }
    }

    /// The hours that a `time_window` policy allows.
    pub fn of_policy(window: &ContactWindow) -> Self {
        Self::new(&window.allowed_days, window.start.map(|minute| minute.0), window.end.map(|minute| minute.0))
    }

    /// Whether the clock of `frame` shows a time inside. After midnight a window that wraps still belongs to the day it
    /// started on: Friday 22:00–02:00 is open at 01:00 on Saturday and not at 01:00 on Friday.
    pub fn are_open(&self, frame: &CalendarFrame) -> bool {
        let (minute, today) = (frame.minute_of_day, frame.weekday);
        let yesterday = (today + 6) % 7;
        if self.start < self.end {
            self.has(today) && self.start <= minute && minute < self.end
        } else {
            self.has(today) && self.start <= minute || self.has(yesterday) && minute < self.end
        }
    }

    fn has(&self, day: u8) -> bool {
        self.days & (1 << day) != 0
    }
}

/// A schedule with its moments resolved to instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenHours {
    /// First instant.
    pub from: Timestamp,
    /// First instant no more.
    pub until: Timestamp,
    /// Within that.
    pub local: LocalHours,
}

impl OpenHours {
    /// Always.
    pub const ALWAYS: OpenHours =
        OpenHours { from: Timestamp(i64::MIN), until: Timestamp::FOREVER, local: LocalHours::ALWAYS };

    /// Whether `now`, whose calendar frame is `frame`, lies inside.
    pub fn are_open(&self, now: Timestamp, frame: &CalendarFrame) -> bool {
        self.from <= now && now < self.until && self.local.are_open(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Span;

    fn frame(weekday: u8, hour: u16, minute: u16) -> CalendarFrame {
        let span = Span::ALWAYS;
        let minute_of_day = hour * 60 + minute;
        CalendarFrame { valid: span, weekday, minute_of_day, day: span, week: span, month: span }
    }

    #[test]
    fn a_window_includes_its_start_and_not_its_end() {
        let hours = LocalHours::new(&[], Some(8 * 60), Some(20 * 60));
        assert!(!hours.are_open(&frame(1, 7, 59)));
        assert!(hours.are_open(&frame(1, 8, 0)));
        assert!(hours.are_open(&frame(1, 19, 59)));
        assert!(!hours.are_open(&frame(1, 20, 0)));
    }

    #[test]
    fn a_wrapping_window_belongs_to_the_day_it_starts_on() {
        let friday_night = LocalHours::new(&[5], Some(22 * 60), Some(2 * 60));
        assert!(friday_night.are_open(&frame(5, 22, 0)));
        assert!(friday_night.are_open(&frame(6, 1, 59)));
        assert!(!friday_night.are_open(&frame(6, 2, 0)));
        assert!(!friday_night.are_open(&frame(5, 1, 0)));
        assert!(!friday_night.are_open(&frame(6, 22, 0)));
    }

    #[test]
    fn saturday_night_reaches_into_sunday() {
        let saturday_night = LocalHours::new(&[6], Some(23 * 60), Some(60));
        assert!(saturday_night.are_open(&frame(0, 0, 30)));
        assert!(!saturday_night.are_open(&frame(6, 0, 30)));
    }

    #[test]
    fn days_alone_mean_whole_days() {
        let weekend = LocalHours::new(&[0, 6], None, None);
        assert!(weekend.are_open(&frame(0, 0, 0)) && weekend.are_open(&frame(6, 23, 59)));
        assert!(!weekend.are_open(&frame(1, 0, 0)) && !weekend.are_open(&frame(5, 23, 59)));
    }

    #[test]
    fn one_end_alone_opens_to_midnight() {
        assert!(LocalHours::new(&[], Some(600), None).are_open(&frame(2, 23, 59)));
        assert!(!LocalHours::new(&[], Some(600), None).are_open(&frame(2, 9, 59)));
        assert!(LocalHours::new(&[], None, Some(600)).are_open(&frame(2, 0, 0)));
        assert!(!LocalHours::new(&[], None, Some(600)).are_open(&frame(2, 10, 0)));
    }

    #[test]
    fn dates_bound_from_start_inclusive_to_end_exclusive() {
        let hours = OpenHours { from: Timestamp(10), until: Timestamp(20), local: LocalHours::ALWAYS };
        let noon = frame(3, 12, 0);
        let open: Vec<i64> = (8..23).filter(|now| hours.are_open(Timestamp(*now), &noon)).collect();
        assert_eq!(open, (10..20).collect::<Vec<_>>());
        assert!(OpenHours::ALWAYS.are_open(Timestamp(0), &noon));
    }
}
