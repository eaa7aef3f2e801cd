//! Contact policies: has this profile been contacted too much? (domain.md §4)

use crate::model::moment::MinuteOfDay;
use crate::model::offer::{CapWindow, Enforcement};
use crate::model::record::{Field, choice, record};
use crate::model::rule::{Operator, Scope, ScopeKind, single_or_several};
use crate::model::{Percent, Ref, Status};
use crate::value::Value;

record! {
    /// A limit on contact. `config` holds the members its `rule_type` names; see [`PolicyConfig`].
    pub struct ContactPolicy {
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active policies bind.
        pub status: Status => "status" = Status::Active,
        /// Which propositions it applies to.
        pub scope: Option<ScopeKind> => "scope" = None,
        /// The thing of that kind.
        pub scope_id: Option<Ref> => "scopeId" = None,
        /// Several scopes, OR-ed, instead of `scope`.
        pub scopes: Vec<Scope> => "scopes" = Vec::new(),
        /// What is limited.
        pub rule_type: PolicyType => "ruleType",
        /// Its parameters.
        pub config: Value => "config" = Value::map::<&str>([]),
        /// Highest first; the first that blocks is the one named.
        pub priority: Percent => "priority" = Percent(50),
        /// Whether mandatory offers pass it by; default false for frequency_cap and cross_channel_cap, else true.
        pub bypassable: Option<bool> => "bypassable" = None,
    }
}

choice! {
    /// What a policy limits.
    pub enum PolicyType {
        /// Impressions per day, week, month, ever.
        FrequencyCap => "frequency_cap",
        /// Hours between impressions.
        Cooldown => "cooldown",
        /// Offers whose budget is used up.
        BudgetExhausted => "budget_exhausted",
        /// After certain outcomes.
        OutcomeBased => "outcome_based",
        /// Profiles in certain segments.
        SegmentExclusion => "segment_exclusion",
        /// Outside certain days and hours.
        TimeWindow => "time_window",
        /// After another offer of a set was shown.
        MutualExclusion => "mutual_exclusion",
        /// Each candidate's own impressions over all channels.
        CrossChannelCap => "cross_channel_cap",
        /// All impressions of the profile.
        CustomerTotalCap => "customer_total_cap",
        /// Lets its scope through whatever blocks.
        AllowOverride => "allow_override",
        /// After an offer of the same category was shown.
        CategorySuppression => "category_suppression",
        /// While a behavioural metric holds.
        MetricCondition => "metric_condition",
    }
}

/// The typed `config` of a policy, by type.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub enum PolicyConfig {
    /// See [`PolicyType::FrequencyCap`].
    FrequencyCap(FrequencyCap),
    /// See [`PolicyType::Cooldown`].
    Cooldown(Cooldown),
    /// See [`PolicyType::BudgetExhausted`].
    BudgetExhausted(BudgetExhausted),
    /// See [`PolicyType::OutcomeBased`].
    OutcomeBased(OutcomeBased),
    /// See [`PolicyType::SegmentExclusion`].
    SegmentExclusion(SegmentExclusion),
    /// See [`PolicyType::TimeWindow`].
    TimeWindow(ContactWindow),
    /// See [`PolicyType::MutualExclusion`].
    MutualExclusion(MutualExclusion),
    /// See [`PolicyType::CrossChannelCap`].
    CrossChannelCap(CrossChannelCap),
    /// See [`PolicyType::CustomerTotalCap`].
    CustomerTotalCap(CustomerTotalCap),
    /// See [`PolicyType::AllowOverride`].
    AllowOverride(AllowOverride),
    /// See [`PolicyType::CategorySuppression`].
    CategorySuppression(CategorySuppression),
    /// See [`PolicyType::MetricCondition`].
    MetricCondition(PolicyMetric),
}

record! {
    /// At most so many impressions; what is counted follows the scope.
    pub struct FrequencyCap {
        /// A day.
        pub max_per_day: Option<u64> => "maxPerDay" = None,
        /// A week.
        pub max_per_week: Option<u64> => "maxPerWeek" = None,
        /// A month.
        pub max_per_month: Option<u64> => "maxPerMonth" = None,
        /// Ever.
        pub max_total: Option<u64> => "maxTotal" = None,
        /// Calendar (default), or rolling 24 h, 7 d, 30 d.
        pub window: CapWindow => "window" = CapWindow::Calendar,
        /// Count after the fact (default), or reserve like a cap.
        pub enforcement: Enforcement => "enforcement" = Enforcement::Soft,
    }
}

record! {
    /// No impression within so many hours of the last.
    pub struct Cooldown {
        /// Hours, > 0.
        pub cooldown_hours: f64 => "cooldownHours",
        /// Count after the fact (default), or reserve like a cap.
        pub enforcement: Enforcement => "enforcement" = Enforcement::Soft,
    }
}

record! {
    /// Blocks offers whose budget is used up.
    pub struct BudgetExhausted {
        /// Look at lifetime impressions.
        pub check_impressions: bool => "checkImpressions" = true,
        /// Look at the daily money.
        pub check_daily_budget: bool => "checkDailyBudget" = true,
    }
}

choice! {
    /// What an outcome-based policy applies to after the outcome.
    pub enum OutcomeAction {
        /// The offer that had it.
        SuppressOffer => "suppress_offer",
        /// Its category.
        SuppressCategory => "suppress_category",
        /// Everything in the policy's scope.
        SuppressAll => "suppress_all",
    }
}

record! {
    /// Blocks after certain outcomes.
    pub struct OutcomeBased {
        /// Outcome keys.
        pub outcomes: Vec<String> => "outcomes",
        /// Days back, > 0.
        pub lookback_days: f64 => "lookbackDays",
        /// What is blocked.
        pub action: OutcomeAction => "action" = OutcomeAction::SuppressOffer,
    }
}

record! {
    /// Blocks profiles in any of these segments.
    pub struct SegmentExclusion {
        /// Any of them.
        pub exclude_segments: Vec<String> => "excludeSegments",
    }
}

record! {
    /// Contact allowed only then; outside it blocks. Local time, wraps midnight like an offer's schedule.
    pub struct ContactWindow {
        /// Weekdays, 0 = Sunday; empty = all.
        pub allowed_days: Vec<u8> => "allowedDays" = Vec::new(),
        /// First minute.
        pub start: Option<MinuteOfDay> => "start" = None,
        /// First minute after.
        pub end: Option<MinuteOfDay> => "end" = None,
    }
}

record! {
    /// Of these offers only one may be shown within the time.
    pub struct MutualExclusion {
        /// The set.
        pub offer_ids: Vec<Ref> => "offerIds",
        /// Days back, > 0.
        pub lookback_days: f64 => "lookbackDays",
    }
}

record! {
    /// Each candidate's own impressions over all channels.
    pub struct CrossChannelCap {
        /// At most.
        pub max_total: u64 => "maxTotal",
        /// In so many rolling days, > 0.
        pub period_days: f64 => "periodDays",
        /// Count after the fact (default), or reserve like a cap.
        pub enforcement: Enforcement => "enforcement" = Enforcement::Soft,
    }
}

choice! {
    /// Stretch of time of a total.
    pub enum TotalPeriod {
        /// A day.
        Daily => "daily",
        /// A week.
        Weekly => "weekly",
        /// A month.
        Monthly => "monthly",
        /// Ever.
        Alltime => "alltime",
    }
}

record! {
    /// All impressions of the profile.
    pub struct CustomerTotalCap {
        /// At most.
        pub max_total: u64 => "maxTotal",
        /// In this stretch.
        pub period_type: TotalPeriod => "periodType",
        /// Calendar (default), or rolling 24 h, 7 d, 30 d.
        pub window: CapWindow => "window" = CapWindow::Calendar,
        /// Count after the fact (default), or reserve like a cap.
        pub enforcement: Enforcement => "enforcement" = Enforcement::Soft,
    }
}

record! {
    /// No parameters.
    pub struct AllowOverride {
        /// Segments the profile must all have for the override to match; empty = always.
        pub required_segments: Vec<String> => "requiredSegments" = Vec::new(),
    }
}

record! {
    /// After an offer of the same category was shown, so many days nothing else of it.
    pub struct CategorySuppression {
        /// Days back, > 0.
        pub lookback_days: f64 => "lookbackDays",
    }
}

record! {
    /// Blocks while the condition holds.
    pub struct PolicyMetric {
        /// Name of a behavioural metric.
        pub metric: String => "metric",
        /// Of a metric that counts apart by a property: which of them.
        pub group: Option<String> => "group" = None,
        /// How it is compared.
        pub operator: Operator => "operator",
        /// With what.
        pub value: Value => "value" = Value::Null,
    }
}

impl PolicyConfig {
    /// Reads the config that `policy_type` calls for.
    pub fn read(policy_type: PolicyType, config: &Value, faults: &mut super::fault::Faults) -> Option<Self> {
        Some(match policy_type {
            PolicyType::FrequencyCap => PolicyConfig::FrequencyCap(Field::read(config, faults)?),
            PolicyType::Cooldown => PolicyConfig::Cooldown(Field::read(config, faults)?),
            PolicyType::BudgetExhausted => PolicyConfig::BudgetExhausted(Field::read(config, faults)?),
            PolicyType::OutcomeBased => PolicyConfig::OutcomeBased(Field::read(config, faults)?),
            PolicyType::SegmentExclusion => PolicyConfig::SegmentExclusion(Field::read(config, faults)?),
            PolicyType::TimeWindow => PolicyConfig::TimeWindow(Field::read(config, faults)?),
            PolicyType::MutualExclusion => PolicyConfig::MutualExclusion(Field::read(config, faults)?),
            PolicyType::CrossChannelCap => PolicyConfig::CrossChannelCap(Field::read(config, faults)?),
            PolicyType::CustomerTotalCap => PolicyConfig::CustomerTotalCap(Field::read(config, faults)?),
            PolicyType::AllowOverride => PolicyConfig::AllowOverride(Field::read(config, faults)?),
            PolicyType::CategorySuppression => PolicyConfig::CategorySuppression(Field::read(config, faults)?),
            PolicyType::MetricCondition => PolicyConfig::MetricCondition(Field::read(config, faults)?),
        })
    }

    /// The config as a value, with every default filled in.
    pub fn write(&self) -> Value {
        match self {
            PolicyConfig::FrequencyCap(config) => config.write(),
            PolicyConfig::Cooldown(config) => config.write(),
            PolicyConfig::BudgetExhausted(config) => config.write(),
            PolicyConfig::OutcomeBased(config) => config.write(),
            PolicyConfig::SegmentExclusion(config) => config.write(),
            PolicyConfig::TimeWindow(config) => config.write(),
            PolicyConfig::MutualExclusion(config) => config.write(),
            PolicyConfig::CrossChannelCap(config) => config.write(),
            PolicyConfig::CustomerTotalCap(config) => config.write(),
            PolicyConfig::AllowOverride(config) => config.write(),
            PolicyConfig::CategorySuppression(config) => config.write(),
            PolicyConfig::MetricCondition(config) => config.write(),
        }
    }
}

impl ContactPolicy {
    /// The scopes that apply: `scopes` if given, else the single one (default global).
    pub fn all_scopes(&self) -> Vec<Scope> {
        single_or_several(self.scope, self.scope_id.as_ref(), &self.scopes)
    }

    /// Whether mandatory offers pass this policy by.
    pub fn is_bypassable(&self) -> bool {
        self.bypassable.unwrap_or(!matches!(self.rule_type, PolicyType::FrequencyCap | PolicyType::CrossChannelCap))
    }
}
