//! The tenant's calendar: what instants are called in its zone, and where its days, weeks and months begin.

use std::sync::OnceLock;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{ToSpan, Zoned};

use crate::model::moment::Moment;
use crate::model::settings::{Settings, WeekStart};
use crate::time::{CalendarFrame, DAY_MS, Period, SECOND_MS, Span, Timestamp};

/// A tenant's calendar: IANA zone and first day of the week. Used where decisions are made (snapshot and leader) and
/// where authored moments are checked, never in a shard's `apply`: what that needs comes as instants in the command.
///
/// Days are as long as the zone makes them: 23 or 25 hours where clocks change. All answers are instants.
#[derive(Clone, Debug, PartialEq)]
pub struct Calendar {
    zone: TimeZone,
    week_start: Weekday,
}

/// A time zone name that the bundled database does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no time zone is named {0:?}")]
pub struct UnknownZone(pub String);

const MINUTE_MS: i64 = 60 * SECOND_MS;
/// Instants are clamped to these for calendar arithmetic: within jiff's years, with room for a period on either side.
const EARLIEST_MS: i64 = -300_000_000_000_000;
const LATEST_MS: i64 = 200_000_000_000_000;

impl Calendar {
    /// The calendar of an IANA zone.
    ///
    /// # Errors
    /// If the zone's name is unknown.
    pub fn new(zone_name: &str, week_start: WeekStart) -> Result<Self, UnknownZone> {
        let zone = bundled().get(zone_name).map_err(|_| UnknownZone(zone_name.to_owned()))?;
        let week_start = match week_start {
            WeekStart::Monday => Weekday::Monday,
            WeekStart::Tuesday => Weekday::Tuesday,
            WeekStart::Wednesday => Weekday::Wednesday,
            WeekStart::Thursday => Weekday::Thursday,
            WeekStart::Friday => Weekday::Friday,
            WeekStart::Saturday => Weekday::Saturday,
            WeekStart::Sunday => Weekday::Sunday,
        };
        Ok(Calendar { zone, week_start })
    }

    /// The calendar of a tenant. Its zone was checked when the settings were written; one that a newer database has
    /// dropped counts as UTC.
    pub fn of(settings: &Settings) -> Self {
        Self::new(&settings.time_zone, settings.week_start)
            .or_else(|_| Self::new("UTC", settings.week_start))
            .expect("UTC is in every database")
    }

    /// What the clock on the wall shows at `at`, and the periods around it.
    pub fn frame(&self, at: Timestamp) -> CalendarFrame {
        let local = self.local(at);
        let day = self.span_of(Period::Day, local.date());
        let into_minute = i64::from(local.second()) * SECOND_MS + i64::from(local.millisecond());
        let minute = Timestamp(at.0 - into_minute);
        let valid = Span { from: minute.max(day.from), until: minute.plus_ms(MINUTE_MS).min(day.until) };
        CalendarFrame {
            valid,
            weekday: local.weekday().to_sunday_zero_offset().unsigned_abs(),
            minute_of_day: u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs()),
            day,
            week: self.span_of(Period::Week, local.date()),
            month: self.span_of(Period::Month, local.date()),
        }
    }

    /// The instant an authored moment means: without offset in the tenant's zone, a date alone at its midnight. Local
    /// times that a clock change skips or doubles mean the later or the earlier instant.
    pub fn resolve(&self, moment: &Moment) -> Timestamp {
        let text = moment.0.as_str();
        if let Ok(instant) = text.parse::<jiff::Timestamp>() {
            return Timestamp(instant.as_millisecond());
        }
        if let Ok(local) = text.parse::<DateTime>() {
            return self.instant(local);
        }
        let date = text.parse::<Date>().expect("a moment is an instant, a local date-time or a date");
        self.midnight(date)
    }

    /// The first instant after an authored end: the moment itself, but an end at …:59 means the whole minute.
    pub fn resolve_end(&self, moment: &Moment) -> Timestamp {
        let end = self.resolve(moment);
        let into_minute = end.0.rem_euclid(MINUTE_MS);
        if into_minute >= 59 * SECOND_MS { end.plus_ms(MINUTE_MS - into_minute) } else { end }
    }

    /// The period that `at` lies in.
    pub fn span_at(&self, period: Period, at: Timestamp) -> Span {
        self.span_of(period, self.local(at).date())
    }

    fn local(&self, at: Timestamp) -> Zoned {
        jiff::Timestamp::from_millisecond(at.0.clamp(EARLIEST_MS, LATEST_MS))
            .expect("clamped to years that jiff knows")
            .to_zoned(self.zone.clone())
    }

    fn span_of(&self, period: Period, date: Date) -> Span {
        let (first, next) = match period {
            Period::Day => (date, date.saturating_add(1.day())),
            Period::Week => {
                let first = date.saturating_sub(i64::from(date.weekday().since(self.week_start)).days());
                (first, first.saturating_add(7.days()))
            }
            Period::Month => (date.first_of_month(), date.first_of_month().saturating_add(1.month())),
        };
        Span { from: self.midnight(first), until: self.midnight(next) }
    }

    /// The first instant of a day: midnight, or where clocks skip that, the first instant after.
    fn midnight(&self, date: Date) -> Timestamp {
        self.instant(date.to_datetime(jiff::civil::Time::midnight()))
    }

    fn instant(&self, local: DateTime) -> Timestamp {
        match self.zone.to_ambiguous_timestamp(local).compatible() {
            Ok(instant) => Timestamp(instant.as_millisecond()),
            // Only the last day of year 9999 has no instant everywhere.
            Err(_) => Timestamp(LATEST_MS + DAY_MS),
        }
    }
}

/// The time zones compiled in, never the host's: replicas on different hosts must give the same answers.
fn bundled() -> &'static TimeZoneDatabase {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    ZONES.get_or_init(TimeZoneDatabase::bundled)
}

/// The instant as ISO 8601 in UTC, for answers.
pub fn iso(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0.clamp(EARLIEST_MS, LATEST_MS))
        .expect("clamped to years that jiff knows")
        .to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::HOUR_MS;

    fn at(text: &str) -> Timestamp {
        Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
    }

    fn berlin() -> Calendar {
        Calendar::new("Europe/Berlin", WeekStart::Monday).unwrap()
    }

    #[test]
    fn days_with_a_clock_change_have_23_or_25_hours() {
        let length = |text| {
            let day = berlin().frame(at(text)).day;
            day.until.since_ms(day.from) / HOUR_MS
        };
        assert_eq!(length("2026-03-29T10:00:00Z"), 23);
        assert_eq!(length("2026-10-25T10:00:00Z"), 25);
        assert_eq!(length("2026-10-26T10:00:00Z"), 24);
    }

    #[test]
    fn a_frame_shows_the_clock_on_the_wall() {
        let frame = berlin().frame(at("2026-07-05T22:30:15Z"));
        // Half past midnight on Monday the 6th in Berlin.
        assert_eq!((frame.weekday, frame.minute_of_day), (1, 30));
        assert_eq!(frame.valid, Span { from: at("2026-07-05T22:30:00Z"), until: at("2026-07-05T22:31:00Z") });
        assert_eq!(frame.day.from, at("2026-07-05T22:00:00Z"));
        assert_eq!(frame.week.from, frame.day.from);
        assert_eq!(frame.month, Span { from: at("2026-06-30T22:00:00Z"), until: at("2026-07-31T22:00:00Z") });
    }

    #[test]
    fn weeks_begin_on_the_day_that_the_tenant_says() {
        let sunday = Calendar::new("UTC", WeekStart::Sunday).unwrap();
        let week = sunday.frame(at("2026-07-08T12:00:00Z")).week;
        assert_eq!(week, Span { from: at("2026-07-05T00:00:00Z"), until: at("2026-07-12T00:00:00Z") });
    }

    #[test]
    fn moments_without_offset_are_in_the_zone() {
        let calendar = berlin();
        let resolve = |text: &str| calendar.resolve(&Moment(text.to_owned()));
        assert_eq!(resolve("2026-07-05T12:00:00"), at("2026-07-05T10:00:00Z"));
        assert_eq!(resolve("2026-07-05"), at("2026-07-04T22:00:00Z"));
        assert_eq!(resolve("2026-07-05T12:00:00Z"), at("2026-07-05T12:00:00Z"));
        assert_eq!(resolve("2026-07-05T12:00:00-04:00"), at("2026-07-05T16:00:00Z"));
        // Skipped by the clock change: an hour later by the clock on the wall.
        assert_eq!(resolve("2026-03-29T02:30:00"), at("2026-03-29T01:30:00Z"));
    }

    #[test]
    fn an_end_at_59_seconds_means_the_whole_minute() {
        let calendar = berlin();
        let end = |text: &str| calendar.resolve_end(&Moment(text.to_owned()));
        assert_eq!(end("2026-06-15T23:59:59Z"), at("2026-06-16T00:00:00Z"));
        assert_eq!(end("2026-06-15T23:59:59.999Z"), at("2026-06-16T00:00:00Z"));
        assert_eq!(end("2026-06-15T23:59:58Z"), at("2026-06-15T23:59:58Z"));
    }

    #[test]
    fn unknown_zones_are_refused() {
        assert_eq!(
            Calendar::new("Mars/Olympus", WeekStart::Monday).unwrap_err().to_string(),
            "no time zone is named \"Mars/Olympus\""
        );
    }

    proptest! {
        #[test]
        fn periods_follow_each_other_without_gap(
            ms in any::<i64>(),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Africa/Cairo"]),
            period in prop::sample::select(vec![Period::Day, Period::Week, Period::Month]),
        ) {
            let calendar = Calendar::new(zone, WeekStart::Wednesday).unwrap();
            let now = Timestamp(ms.clamp(EARLIEST_MS + 400 * DAY_MS, LATEST_MS - 400 * DAY_MS));
            let span = calendar.span_at(period, now);
            prop_assert!(span.contains(now));
            prop_assert_eq!(calendar.frame(now).span(period), span);
            let next = calendar.span_at(period, span.until);
            prop_assert_eq!(next.from, span.until);
            prop_assert!(next.until > next.from);
            prop_assert!(calendar.frame(now).valid.contains(now));
            calendar.frame(Timestamp(ms));
        }
    }
}
