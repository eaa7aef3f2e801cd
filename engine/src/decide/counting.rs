//! Limits as windows: over which stretch of time a cap or contact policy counts, and up to what.

use crate::model::offer::{CapPer, CapWindow};
use crate::model::policy::{CrossChannelCap, CustomerTotalCap, FrequencyCap, TotalPeriod};
use crate::profile::command::Window;
use crate::time::{CalendarFrame, DAY_MS, HOUR_MS, Period};

/// The window a cap counts in at the instant of `frame`.
pub fn cap_window(per: CapPer, window: CapWindow, frame: &CalendarFrame) -> Window {
    match per {
        CapPer::Lifetime => Window::Lifetime,
        CapPer::Day => period_window(Period::Day, window, frame),
        CapPer::Week => period_window(Period::Week, window, frame),
        CapPer::Month => period_window(Period::Month, window, frame),
        CapPer::Hours(hours) => Window::Rolling { ms: i64::from(hours) * HOUR_MS },
    }
}

/// A calendar period around the frame's instant, or its rolling like: 24 h, 7 d, 30 d.
pub fn period_window(period: Period, window: CapWindow, frame: &CalendarFrame) -> Window {
    match window {
        CapWindow::Calendar => Window::Calendar(frame.span(period)),
        CapWindow::Rolling => Window::Rolling { ms: rolling_ms(period) },
    }
}

/// How long the rolling like of a calendar period is.
pub fn rolling_ms(period: Period) -> i64 {
    match period {
        Period::Day => DAY_MS,
        Period::Week => 7 * DAY_MS,
        Period::Month => 30 * DAY_MS,
    }
}

/// The limits of a `frequency_cap`: per day, week, month, ever, as far as given.
pub fn frequency_limits(config: &FrequencyCap, frame: &CalendarFrame) -> impl Iterator<Item = (Window, u64)> {
    let per = |period| period_window(period, config.window, frame);
    [
        (per(Period::Day), config.max_per_day),
        (per(Period::Week), config.max_per_week),
        (per(Period::Month), config.max_per_month),
        (Window::Lifetime, config.max_total),
    ]
    .into_iter()
    .filter_map(|(window, limit)| Some((window, limit?)))
}

/// The limit of a `customer_total_cap`.
pub fn total_limit(config: &CustomerTotalCap, frame: &CalendarFrame) -> (Window, u64) {
    let window = match config.period_type {
        TotalPeriod::Daily => period_window(Period::Day, config.window, frame),
        TotalPeriod::Weekly => period_window(Period::Week, config.window, frame),
        TotalPeriod::Monthly => period_window(Period::Month, config.window, frame),
        TotalPeriod::Alltime => Window::Lifetime,
    };
    (window, config.max_total)
}

/// The limit of a `cross_channel_cap`.
pub fn cross_channel_limit(config: &CrossChannelCap) -> (Window, u64) {
    (rolling_days(config.period_days), config.max_total)
}

/// The last `days` × 24 hours, to the millisecond.
pub fn rolling_days(days: f64) -> Window {
    Window::Rolling { ms: days_ms(days) }
}

/// `days` × 24 hours in milliseconds, rounded; saturating.
pub fn days_ms(days: f64) -> i64 {
    libm::round(days * DAY_MS as f64) as i64
}

/// `hours` in milliseconds, rounded; saturating.
pub fn hours_ms(hours: f64) -> i64 {
    libm::round(hours * HOUR_MS as f64) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Span, Timestamp};

    fn frame() -> CalendarFrame {
        let span = |from, until| Span { from: Timestamp(from), until: Timestamp(until) };
        let (day, week, month) = (span(4, 5), span(3, 10), span(1, 31));
        CalendarFrame { valid: day, weekday: 0, minute_of_day: 0, day, week, month }
    }

    #[test]
    fn caps_count_in_calendar_periods_or_the_last_hours() {
        let frame = frame();
        assert_eq!(cap_window(CapPer::Week, CapWindow::Calendar, &frame), Window::Calendar(frame.week));
        assert_eq!(cap_window(CapPer::Month, CapWindow::Rolling, &frame), Window::Rolling { ms: 30 * DAY_MS });
        assert_eq!(cap_window(CapPer::Hours(6), CapWindow::Rolling, &frame), Window::Rolling { ms: 6 * HOUR_MS });
        assert_eq!(cap_window(CapPer::Lifetime, CapWindow::Calendar, &frame), Window::Lifetime);
    }

    #[test]
    fn frequency_limits_are_those_given() {
        let frame = frame();
        let config = FrequencyCap {
            max_per_day: Some(1),
            max_per_week: None,
            max_per_month: Some(9),
            max_total: Some(20),
            window: CapWindow::Calendar,
            enforcement: crate::model::offer::Enforcement::Soft,
        };
        let limits: Vec<_> = frequency_limits(&config, &frame).collect();
        assert_eq!(
            limits,
            [(Window::Calendar(frame.day), 1), (Window::Calendar(frame.month), 9), (Window::Lifetime, 20)]
        );
    }

    #[test]
    fn fractions_of_days_are_milliseconds() {
        assert_eq!(days_ms(0.5), 12 * HOUR_MS);
        assert_eq!(hours_ms(1.0 / 3.0), 1_200_000);
        assert_eq!(days_ms(1e300), i64::MAX);
    }
}
