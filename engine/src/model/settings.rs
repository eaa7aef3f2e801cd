//! Tenant settings, each with its default.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::model::fault::Faults;
use crate::model::record::{Field, choice, record};
use crate::value::Value;

record! {
    /// What a tenant can set. A new zone or week start holds from the next period.
    pub struct Settings {
        /// IANA time zone.
        pub time_zone: String => "timeZone" = "UTC".to_owned(),
        /// First day of the week.
        pub week_start: WeekStart => "weekStart" = WeekStart::Monday,
        /// Distinct mandatory offers per profile and day.
        pub mandatory_per_day: u32 => "mandatoryPerDay" = 5,
        /// How long a proposition holds its units, 1–86,400.
        pub reservation_seconds: u32 => "reservationSeconds" = 900,
        /// How long a `recommendationId` is answered for, 1–365.
        pub outcome_window_days: u32 => "outcomeWindowDays" = 90,
        /// Most slots in one request, 1–100.
        pub max_slots: u32 => "maxSlots" = 30,
        /// Most removed offers in an explanation, ≤ 10,000.
        pub explain_limit: u32 => "explainLimit" = 100,
        /// Fatigue: hours in which an exposure's weight halves, > 0.
        pub fatigue_half_life_hours: f64 => "fatigueHalfLifeHours" = 72.0,
        /// Fatigue: its weight in the score, ≥ 0; 0 = off.
        pub fatigue_strength: f64 => "fatigueStrength" = 0.3,
        /// Flow for requests that name none and match no route.
        pub default_flow_key: Option<String> => "defaultFlowKey" = None,
        /// Flows by channel and placement.
        pub routes: Vec<Route> => "routes" = Vec::new(),
        /// Outcome types beside the ten built-in ones.
        pub outcomes: Vec<CustomOutcome> => "outcomes" = Vec::new(),
        /// How many of a hundred decisions are traced unasked, 0–100.
        pub trace_percent: TracePercent => "tracePercent" = TracePercent(0.0),
    }
}

/// A share of decisions. It came later than the other settings and is stored beside them: see `catalog/stored.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TracePercent(pub f64);

impl Field for TracePercent {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        match f64::read(value, faults) {
            Some(percent) if (0.0..=100.0).contains(&percent) => Some(TracePercent(percent)),
            Some(_) => {
                faults.add("must be from 0 to 100");
                None
            }
            None => None,
        }
    }

    fn write(&self) -> Value {
        Value::Number(self.0)
    }
}

impl Encode for TracePercent {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for TracePercent {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(TracePercent::default())
    }
}
bincode::impl_borrow_decode!(TracePercent);

impl Default for Settings {
    fn default() -> Self {
        Field::read(&Value::map::<&str>([]), &mut super::fault::Faults::new()).expect("every member has a default")
    }
}

record! {
    /// Sends requests on a channel (and placement) to a flow.
    pub struct Route {
        /// The channel.
        pub channel_id: crate::model::Ref => "channelId",
        /// The placement; null = any of the channel.
        pub placement_id: Option<crate::model::Ref> => "placementId" = None,
        /// The flow, by key.
        pub decision_flow_key: String => "decisionFlowKey",
    }
}

record! {
    /// A tenant's own outcome type.
    pub struct CustomOutcome {
        /// What `respond` calls it.
        pub key: String => "key",
        /// How it counts.
        pub sentiment: Sentiment => "sentiment" = Sentiment::Neutral,
    }
}

choice! {
    /// How an outcome counts as evidence and for fatigue.
    pub enum Sentiment {
        /// Good.
        Positive => "positive",
        /// Neither.
        Neutral => "neutral",
        /// Bad.
        Negative => "negative",
    }
}

choice! {
    /// First day of a calendar week.
    pub enum WeekStart {
        /// Monday.
        Monday => "monday",
        /// Tuesday.
        Tuesday => "tuesday",
        /// Wednesday.
        Wednesday => "wednesday",
        /// Thursday.
        Thursday => "thursday",
        /// Friday.
        Friday => "friday",
        /// Saturday.
        Saturday => "saturday",
        /// Sunday.
        Sunday => "sunday",
    }
}
