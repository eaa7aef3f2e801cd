//! Which account of a calendar cap comes next: contiguous, never overlapping, computed once by the ledger's leader and
//! committed as instants.

use crate::budget::ledger::Terms;
use crate::catalog::caps::CapDefinition;
use crate::limits::OPEN_AHEAD_MS;
use crate::model::offer::{CapPer, CapWindow, Enforcement};
use crate::time::{CalendarFrame, DAY_MS, HOUR_MS, Period, Span, Timestamp};

/// The calendar period that a cap's accounts last; `None`: one account for ever (lifetime caps and rolling windows).
pub fn period_of(cap: &CapDefinition) -> Option<Period> {
    match (cap.window, cap.per) {
        (CapWindow::Rolling, _) | (CapWindow::Calendar, CapPer::Lifetime | CapPer::Hours(_)) => None,
        (CapWindow::Calendar, CapPer::Day) => Some(Period::Day),
        (CapWindow::Calendar, CapPer::Week) => Some(Period::Week),
        (CapWindow::Calendar, CapPer::Month) => Some(Period::Month),
    }
}

/// What an account of a global cap is opened with.
pub fn terms_of(cap: &CapDefinition, span: Span) -> Terms {
    let cooling_ms = match (cap.window, cap.per) {
        (CapWindow::Calendar, CapPer::Lifetime | CapPer::Day | CapPer::Week | CapPer::Month)
        | (CapWindow::Rolling, CapPer::Lifetime) => 0,
        (CapWindow::Rolling, CapPer::Day) => DAY_MS,
        (CapWindow::Rolling, CapPer::Week) => 7 * DAY_MS,
        (CapWindow::Rolling, CapPer::Month) => 30 * DAY_MS,
        (CapWindow::Calendar | CapWindow::Rolling, CapPer::Hours(hours)) => i64::from(hours) * HOUR_MS,
    };
    let soft = cap.enforcement == Enforcement::Soft;
    Terms { limit: cap.limit, span, unit: cap.cost, cooling_ms, soft }
}

/// The account to open next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Counted from 0.
    pub ordinal: u32,
    /// Its period.
    pub span: Span,
}

/// The account that has to be opened at `now` for a cap that counts per calendar `period` (`None`: for ever, or in a
/// rolling window), after the `last` one opened; `None` while that will do. The next one opens a minute ahead. It starts
/// where the last one ends, also when nobody was there to open those in between, or when the calendar has changed since:
/// a new calendar holds from the next period.
pub fn next_opening(
    frame_at: impl Fn(Timestamp) -> CalendarFrame,
    period: Option<Period>,
    last: Option<Opening>,
    now: Timestamp,
) -> Option<Opening> {
    let Some(period) = period else {
        return last.is_none().then_some(Opening { ordinal: 0, span: Span::ALWAYS });
    };
    let Some(last) = last else {
        return Some(Opening { ordinal: 0, span: frame_at(now).span(period) });
    };
    if now.plus_ms(OPEN_AHEAD_MS) < last.span.until {
        return None;
    }
    let until = frame_at(now.max(last.span.until)).span(period).until;
    Some(Opening { ordinal: last.ordinal.checked_add(1)?, span: Span { from: last.span.until, until } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days that start `shift` after midnight UTC; weeks and months are not asked for.
    fn frame(shift: i64) -> impl Fn(Timestamp) -> CalendarFrame {
        move |at| {
            let from = (at.0 - shift).div_euclid(DAY_MS) * DAY_MS + shift;
            let day = Span { from: Timestamp(from), until: Timestamp(from + DAY_MS) };
            CalendarFrame { valid: day, weekday: 0, minute_of_day: 0, day, week: day, month: day }
        }
    }

    #[test]
    fn a_cap_without_periods_has_one_account_for_ever() {
        let first = next_opening(frame(0), None, None, Timestamp(5)).unwrap();
        assert_eq!(first, Opening { ordinal: 0, span: Span::ALWAYS });
        assert_eq!(next_opening(frame(0), None, Some(first), Timestamp(i64::MAX)), None);
    }

    #[test]
    fn the_next_period_opens_a_minute_ahead_and_touches_the_last() {
        let first = next_opening(frame(0), Some(Period::Day), None, Timestamp(5)).unwrap();
        let eve = Timestamp(DAY_MS - OPEN_AHEAD_MS);
        assert_eq!(next_opening(frame(0), Some(Period::Day), Some(first), Timestamp(eve.0 - 1)), None);
        let second = next_opening(frame(0), Some(Period::Day), Some(first), eve).unwrap();
        assert_eq!((second.ordinal, second.span.from, second.span.until.0), (1, first.span.until, 2 * DAY_MS));
    }

    #[test]
    fn a_changed_calendar_or_a_long_silence_leaves_neither_gap_nor_overlap() {
        let mut last = next_opening(frame(0), Some(Period::Day), None, Timestamp(5)).unwrap();
        for (shift, now) in [(DAY_MS / 3, DAY_MS), (DAY_MS / 2, 9 * DAY_MS), (1, 9 * DAY_MS + DAY_MS / 2)] {
            let now = Timestamp(now);
            let next = next_opening(frame(shift), Some(Period::Day), Some(last), now).unwrap();
            assert_eq!(next.span.from, last.span.until);
            assert!(next.span.contains(now.max(next.span.from)), "{next:?} at {now:?}");
            last = next;
        }
    }
}
