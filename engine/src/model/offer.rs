//! Offers: what can be proposed (domain.md §2).

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::keys::Micros;
use crate::model::fault::Faults;
use crate::model::moment::{MinuteOfDay, Moment};
use crate::model::record::{Field, Record, choice, record, refuse_unknown};
use crate::model::{Percent, Ref, Status};
use crate::value::Value;

record! {
    /// A thing that can be proposed.
    pub struct Offer {
        /// Display name, unique in the tenant, 1–255 characters.
        pub name: String => "name",
        /// Internal documentation.
        pub description: String => "description" = String::new(),
        /// Only active offers in active categories are candidates.
        pub status: Status => "status" = Status::Draft,
        /// Constrained (`general`) or last resort (`fallback`).
        pub kind: OfferKind => "kind" = OfferKind::General,
        /// Parent category.
        pub category_id: Option<Ref> => "categoryId" = None,
        /// Category by name: resolved, or created, by the write that carries it; never stored.
        pub category: Option<String> => "category" = None,
        /// Sub-category within the category.
        pub sub_category_id: Option<Ref> => "subCategoryId" = None,
        /// Nature of the product, for score overrides and `offer_attribute` rules.
        pub product_type: String => "productType" = String::new(),
        /// Emphasis E, 0–100.
        pub priority: Percent => "priority" = Percent(50),
        /// Impact I, 0–100.
        pub business_value: Percent => "businessValue" = Percent(50),
        /// Profit per conversion.
        pub margin: f64 => "margin" = 0.0,
        /// Expected revenue per conversion.
        pub revenue_value: f64 => "revenueValue" = 0.0,
        /// Prepended whatever the scores; needs the three fields below.
        pub mandatory: bool => "mandatory" = false,
        /// Why it must be shown.
        pub mandatory_reason: Option<String> => "mandatoryReason" = None,
        /// Who approved that.
        pub mandatory_approved_by: Option<String> => "mandatoryApprovedBy" = None,
        /// When it becomes a normal offer again.
        pub mandatory_expires_at: Option<Moment> => "mandatoryExpiresAt" = None,
        /// Brief description for answers.
        pub short_desc: String => "shortDesc" = String::new(),
        /// Hard rules written on the offer itself.
        pub eligibility: Eligibility => "eligibility" = Eligibility::default(),
        /// Spend and impression limits.
        pub budget: Budget => "budget" = Budget::default(),
        /// When it may be proposed.
        pub schedule: Schedule => "schedule" = Schedule::default(),
        /// Caps on how often.
        pub caps: Vec<Cap> => "caps" = Vec::new(),
        /// Shorthand for profile caps.
        pub frequency_caps: FrequencyCaps => "frequencyCaps" = FrequencyCaps::default(),
        /// Overrides of the tenant's fatigue settings.
        pub fatigue: FatigueOverride => "fatigue" = FatigueOverride::default(),
        /// Segments that the relevance signal `segmentMatch` looks at.
        pub preferred_segments: Vec<String> => "preferredSegments" = Vec::new(),
        /// Values for the category's custom fields.
        pub custom_fields: BTreeMap<String, Value> => "customFields" = BTreeMap::new(),
        /// Free words for collections and filters.
        pub tags: Vec<String> => "tags" = Vec::new(),
        /// Anything integrations need; not read by decisions.
        pub metadata: BTreeMap<String, Value> => "metadata" = BTreeMap::new(),
        /// Withheld from every answer, at once and everywhere.
        pub emergency_excluded: bool => "emergencyExcluded" = false,
    }
}

choice! {
    /// Whether an offer competes.
    pub enum OfferKind {
        /// Competes under constraints.
        General => "general",
        /// Fills a slot that nothing else fills; unconstrained, never competes.
        Fallback => "fallback",
    }
}

record! {
    /// Hard rules written on the offer.
    pub struct Eligibility {
        /// Least propensity, 0–1.
        pub propensity_threshold: Option<f64> => "propensityThreshold" = None,
        /// Least days since the profile's last impression of this offer.
        pub recency: Option<f64> => "recency" = None,
        /// Segments the profile must all have.
        pub required_segments: Vec<String> => "requiredSegments" = Vec::new(),
        /// Model that gives the propensity for the threshold.
        pub model_reference: Option<String> => "modelReference" = None,
    }
}

record! {
    /// Spend and impression limits.
    pub struct Budget {
        /// Lifetime impressions over all profiles.
        pub max_impressions: Option<u64> => "maxImpressions" = None,
        /// Money per calendar day.
        pub max_daily_budget: Option<Money> => "maxDailyBudget" = None,
        /// Money per counted action.
        pub cost_per_action: Option<Money> => "costPerAction" = None,
        /// What costs.
        pub count_on: CountOn => "countOn" = CountOn::Impression,
    }
}

record! {
    /// When an offer may be proposed.
    pub struct Schedule {
        /// First instant.
        pub start_date: Option<Moment> => "startDate" = None,
        /// First instant no more (an end at …:59 means one second later).
        pub end_date: Option<Moment> => "endDate" = None,
        /// Allowed weekdays, 0 = Sunday; empty = all.
        pub days_of_week: Vec<u8> => "daysOfWeek" = Vec::new(),
        /// Allowed time of day.
        pub time_window: Option<TimeWindow> => "timeWindow" = None,
    }
}

record! {
    /// `[start, end)` by the clock on the wall; one that wraps midnight belongs to the day it starts on.
    pub struct TimeWindow {
        /// First minute.
        pub start: MinuteOfDay => "start",
        /// First minute after.
        pub end: MinuteOfDay => "end",
    }
}

record! {
    /// How often an offer may be proposed.
    pub struct Cap {
        /// Identity across edits; default `scope-per-countOn-placementId`.
        pub key: Option<String> => "key" = None,
        /// Per profile, or over all of them.
        pub scope: CapScope => "scope",
        /// At most this many.
        pub limit: u64 => "limit",
        /// Per what stretch of time.
        pub per: CapPer => "per" = CapPer::Lifetime,
        /// Calendar periods or a moving window; default calendar for day, week, month, rolling for hours.
        pub window: Option<CapWindow> => "window" = None,
        /// What is counted.
        pub count_on: CountOn => "countOn" = CountOn::Impression,
        /// Only propositions in this placement.
        pub placement_id: Option<Ref> => "placementId" = None,
        /// Reserve at the decision (`strict`), or count outcomes only (`soft`). Default by `countOn`.
        pub enforcement: Option<Enforcement> => "enforcement" = None,
        /// How long a proposition holds its unit, 1–86,400.
        pub reservation_seconds: Option<u32> => "reservationSeconds" = None,
    }
}

choice! {
    /// Whose propositions a cap counts.
    pub enum CapScope {
        /// Each profile's own.
        Profile => "profile",
        /// All profiles' together.
        Global => "global",
    }
}

choice! {
    /// How a cap's stretch of time moves.
    pub enum CapWindow {
        /// With every instant.
        Rolling => "rolling",
        /// At the tenant's midnights, week starts, month starts.
        Calendar => "calendar",
    }
}

choice! {
    /// Whether a limit is promised or only steers.
    pub enum Enforcement {
        /// Never exceeded: units are reserved at the decision.
        Strict => "strict",
        /// Counted after the fact.
        Soft => "soft",
    }
}

/// The stretch of time of a cap: a word, or `{"hours": n}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CapPer {
    /// For ever.
    Lifetime,
    /// A day.
    Day,
    /// A week.
    Week,
    /// A month.
    Month,
    /// So many hours, 1–8,760.
    Hours(u32),
}

impl Field for CapPer {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        if let Some(members) = value.as_map() {
            refuse_unknown(members, &["hours"], faults);
            let hours = crate::model::record::read_member::<u32>(members, "hours", None, faults)?;
            if !(1..=8_760).contains(&hours) {
                faults.add_at("hours", "must be from 1 to 8760");
                return None;
            }
            return Some(CapPer::Hours(hours));
        }
        let per = match value.as_text() {
            Some("lifetime") => Some(CapPer::Lifetime),
            Some("day") => Some(CapPer::Day),
            Some("week") => Some(CapPer::Week),
            Some("month") => Some(CapPer::Month),
            _ => None,
        };
        if per.is_none() {
            faults.add("must be lifetime, day, week, month or {\"hours\": n}");
        }
        per
    }

    fn write(&self) -> Value {
        match self {
            CapPer::Lifetime => Value::text("lifetime"),
            CapPer::Day => Value::text("day"),
            CapPer::Week => Value::text("week"),
            CapPer::Month => Value::text("month"),
            CapPer::Hours(hours) => Value::map([("hours", Value::Number(f64::from(*hours)))]),
        }
    }
}

/// What a cap or budget counts: `decision`, `impression`, or an outcome key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum CountOn {
    /// Each proposition.
    Decision,
    /// Each confirmed impression.
    Impression,
    /// Each outcome with this key (`click`, `conversion`, a custom one …).
    Outcome(String),
}

impl CountOn {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            CountOn::Decision => "decision",
            CountOn::Impression => "impression",
            CountOn::Outcome(key) => key,
        }
    }

    /// The enforcement that holds unless one is given: outcomes that may never come are not reserved for.
    pub fn default_enforcement(&self) -> Enforcement {
        match self {
            CountOn::Decision | CountOn::Impression => Enforcement::Strict,
            CountOn::Outcome(_) => Enforcement::Soft,
        }
    }
}

impl Field for CountOn {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        Some(match String::read(value, faults)?.as_str() {
            "decision" => CountOn::Decision,
            "impression" => CountOn::Impression,
            other => CountOn::Outcome(other.to_owned()),
        })
    }

    fn write(&self) -> Value {
        Value::text(self.as_str())
    }
}

record! {
    /// `{perCustomer: {daily, weekly, monthly}}`.
    pub struct FrequencyCaps {
        /// Limits for each profile.
        pub per_customer: PerCustomer => "perCustomer" = PerCustomer::default(),
    }
}

record! {
    /// Calendar limits on impressions of this offer for one profile.
    pub struct PerCustomer {
        /// A day.
        pub daily: Option<u64> => "daily" = None,
        /// A week.
        pub weekly: Option<u64> => "weekly" = None,
        /// A month.
        pub monthly: Option<u64> => "monthly" = None,
    }
}

record! {
    /// Overrides of the tenant's fatigue settings (domain.md §6).
    pub struct FatigueOverride {
        /// Hours in which an exposure's weight halves, > 0.
        pub half_life_hours: Option<f64> => "halfLifeHours" = None,
        /// Weight of fatigue in the score, ≥ 0; 0 turns it off.
        pub strength: Option<f64> => "strength" = None,
    }
}

/// Reads `{}`: every member at its default.
macro_rules! default_is_empty {
    ($($ty:ty),+ $(,)?) => {$(
        impl Default for $ty {
            fn default() -> Self {
                const { assert!(!<$ty as Record>::MEMBERS.is_empty()) };
                <$ty as Field>::read(&Value::map::<&str>([]), &mut Faults::new()).expect("every member has a default")
            }
        }
    )+};
}
default_is_empty!(Eligibility, Budget, Schedule, FrequencyCaps, PerCustomer, FatigueOverride);

/// Money as authored: a number with at most six decimals, kept as micro-units; 0 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Money(pub Micros);

impl Field for Money {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let amount = f64::read(value, faults)?;
        let micros = libm::round(amount * 1e6);
        if !(0.0..=1e9).contains(&amount) || libm::fabs(micros / 1e6 - amount) > 1e-9 {
            faults.add("must be an amount from 0 to 1000000000 with at most 6 decimals");
            return None;
        }
        Some(Money(Micros(micros as i64)))
    }

    fn write(&self) -> Value {
        Value::Number(self.0.0 as f64 / 1e6)
    }
}
