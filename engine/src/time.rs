//! Instants, durations and the tenant's calendar. Nothing here reads a clock: `now` is always an argument.

use bincode::{Decode, Encode};

pub use crate::calendar::{Calendar, UnknownZone};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Timestamp(pub i64);

/// One second in milliseconds.
pub const SECOND_MS: i64 = 1_000;
/// One hour in milliseconds.
pub const HOUR_MS: i64 = 3_600 * SECOND_MS;
/// Twenty-four hours in milliseconds (a rolling day; calendar days may be 23 or 25 hours).
pub const DAY_MS: i64 = 24 * HOUR_MS;

impl Timestamp {
    /// Later than every instant in use.
    pub const FOREVER: Timestamp = Timestamp(i64::MAX);

    /// This instant moved by `ms` (saturating).
    pub fn plus_ms(self, ms: i64) -> Self {
        Timestamp(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; negative if it lies after.
    pub fn since_ms(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Calendar periods that caps, budgets and policies count in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Period {
    /// Midnight to midnight in the tenant's zone.
    Day,
    /// From the tenant's first day of the week.
    Week,
    /// First of the month to first of the next.
    Month,
}

/// A half-open stretch of time `[from, until)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Span {
    /// First instant inside.
    pub from: Timestamp,
    /// First instant after.
    pub until: Timestamp,
}

impl Span {
    /// All of time.
    pub const ALWAYS: Span = Span { from: Timestamp(i64::MIN), until: Timestamp::FOREVER };

    /// Whether `at` lies inside.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether the two share an instant.
    pub fn overlaps(&self, other: &Span) -> bool {
        self.from < other.until && other.from < self.until
    }
}

/// What the tenant's clock on the wall shows at one instant, and the periods around it. Computed once per decision (or
/// reused while [`CalendarFrame::valid`] holds), so that no rule does calendar arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CalendarFrame {
    /// The instants this frame's local fields hold for (one local minute).
    pub valid: Span,
    /// 0 = Sunday … 6 = Saturday.
    pub weekday: u8,
    /// Minutes since local midnight by the clock on the wall, 0–1439.
    pub minute_of_day: u16,
    /// Today.
    pub day: Span,
    /// This week.
    pub week: Span,
    /// This month.
    pub month: Span,
}

impl CalendarFrame {
    /// The span of `period` around the frame's instant.
    pub fn span(&self, period: Period) -> Span {
        match period {
            Period::Day => self.day,
            Period::Week => self.week,
            Period::Month => self.month,
        }
    }
}
