//! Qualification rules: may this profile get this offer? (domain.md §4)

use crate::model::record::{Field, choice, record};
use crate::model::{Ref, Status};
use crate::value::Value;

record! {
    /// A rule over profile, request and offer. `config` holds the members its `rule_type` names; the catalogue reads it
    /// with [`RuleConfig::read`] and stores it canonical.
    pub struct QualificationRule {
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active rules bind.
        pub status: Status => "status" = Status::Active,
        /// Which offers it applies to.
        pub scope: Option<ScopeKind> => "scope" = None,
        /// The thing of that kind.
        pub scope_id: Option<Ref> => "scopeId" = None,
        /// Several scopes, OR-ed, instead of `scope`.
        pub scopes: Vec<Scope> => "scopes" = Vec::new(),
        /// What a failure does; default by rule type.
        pub stage: Option<RuleStage> => "stage" = None,
        /// What is tested.
        pub rule_type: RuleType => "ruleType",
        /// Its parameters.
        pub config: Value => "config",
        /// Order in explanations, 0–100, highest first.
        pub priority: crate::model::Percent => "priority" = crate::model::Percent(50),
    }
}

record! {
    /// One scope of a rule or policy.
    pub struct Scope {
        /// Kind of thing.
        pub scope: ScopeKind => "scope",
        /// Which one; required unless global. A segment is named, everything else referenced.
        pub scope_id: Option<Ref> => "scopeId" = None,
    }
}

choice! {
    /// What a rule or policy can be scoped to.
    pub enum ScopeKind {
        /// Every offer.
        Global => "global",
        /// Profiles of a segment.
        Segment => "segment",
        /// Requests on a channel.
        Channel => "channel",
        /// Offers of a category.
        Category => "category",
        /// Offers of a sub-category.
        Subcategory => "subcategory",
        /// One offer.
        Offer => "offer",
        /// One creative.
        Creative => "creative",
        /// Propositions in a placement.
        Placement => "placement",
    }
}

choice! {
    /// What a failing rule does.
    pub enum RuleStage {
        /// Hard: removes.
        Eligibility => "eligibility",
        /// Hard: removes.
        Fit => "fit",
        /// Soft: multiplies the score by `config.multiplier` when it fails.
        Match => "match",
        /// Multiplies the score by `config.boost` when it passes.
        Ranking => "ranking",
    }
}

choice! {
    /// What a rule tests.
    pub enum RuleType {
        /// All of `requiredSegments`.
        SegmentRequired => "segment_required",
        /// `attribute operator value`.
        AttributeCondition => "attribute_condition",
        /// A boolean expression.
        Expression => "expression",
        /// P ≥ `minPropensity`.
        PropensityThreshold => "propensity_threshold",
        /// At least `minDays` since the profile last received the offer.
        RecencyCheck => "recency_check",
        /// `metric operator value`.
        MetricCondition => "metric_condition",
        /// `field operator value` on the offer.
        OfferAttribute => "offer_attribute",
    }
}

choice! {
    /// Operators of conditions.
    pub enum Operator {
        /// Equal.
        Eq => "eq",
        /// Not equal.
        Neq => "neq",
        /// Greater.
        Gt => "gt",
        /// Greater or equal.
        Gte => "gte",
        /// Less.
        Lt => "lt",
        /// Less or equal.
        Lte => "lte",
        /// One of a list.
        In => "in",
        /// None of a list.
        NotIn => "not_in",
        /// Substring, or member of a list.
        Contains => "contains",
        /// Prefix of a string.
        StartsWith => "starts_with",
        /// Present and not null.
        Exists => "exists",
        /// Missing or null.
        NotExists => "not_exists",
        /// Inclusive range `[low, high]`.
        Between => "between",
    }
}

choice! {
    /// What a condition does when its attribute is missing.
    pub enum OnMissing {
        /// Fails (ours, also for neq and not_in).
        Fail => "fail",
        /// Passes.
        Pass => "pass",
    }
}

/// The typed `config` of a rule, by rule type.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub enum RuleConfig {
    /// See [`RuleType::SegmentRequired`].
    SegmentRequired(SegmentRequired),
    /// See [`RuleType::AttributeCondition`].
    AttributeCondition(AttributeCondition),
    /// See [`RuleType::Expression`].
    Expression(ExpressionRule),
    /// See [`RuleType::PropensityThreshold`].
    PropensityThreshold(PropensityThreshold),
    /// See [`RuleType::RecencyCheck`].
    RecencyCheck(RecencyCheck),
    /// See [`RuleType::MetricCondition`].
    MetricCondition(MetricCondition),
    /// See [`RuleType::OfferAttribute`].
    OfferAttribute(OfferAttribute),
}

record! {
    /// Config of `segment_required`.
    pub struct SegmentRequired {
        /// All of these.
        pub required_segments: Vec<String> => "requiredSegments",
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `attribute_condition`.
    pub struct AttributeCondition {
        /// Name; a bare one is `customer.x`.
        pub attribute: String => "attribute",
        /// How it is compared.
        pub operator: Operator => "operator",
        /// With what; a list for in, not_in, between; absent for exists, not_exists.
        pub value: Value => "value" = Value::Null,
        /// What a missing attribute does.
        pub on_missing: OnMissing => "onMissing" = OnMissing::Fail,
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `expression`.
    pub struct ExpressionRule {
        /// Passes when true.
        pub expression: String => "expression",
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `propensity_threshold`.
    pub struct PropensityThreshold {
        /// Least P, 0–1.
        pub min_propensity: f64 => "minPropensity",
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `recency_check`.
    pub struct RecencyCheck {
        /// Least days since the last impression of the offer.
        pub min_days: f64 => "minDays",
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `metric_condition`.
    pub struct MetricCondition {
        /// Name of a behavioural metric.
        pub metric: String => "metric",
        /// Of a metric that counts apart by a property: which of them.
        pub group: Option<String> => "group" = None,
        /// How it is compared.
        pub operator: Operator => "operator",
        /// With what.
        pub value: Value => "value" = Value::Null,
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

record! {
    /// Config of `offer_attribute`.
    pub struct OfferAttribute {
        /// Built-in field of the offer, else custom field.
        pub field: String => "field",
        /// How it is compared.
        pub operator: Operator => "operator",
        /// With what.
        pub value: Value => "value" = Value::Null,
        /// What a missing field does.
        pub on_missing: OnMissing => "onMissing" = OnMissing::Fail,
        /// Score factor of a failure at stage match, 0.1–1.
        pub multiplier: Option<f64> => "multiplier" = None,
        /// Score factor of a pass at stage ranking, 0–10.
        pub boost: Option<f64> => "boost" = None,
    }
}

impl RuleConfig {
    /// Reads the config that `rule_type` calls for.
    pub fn read(rule_type: RuleType, config: &Value, faults: &mut super::fault::Faults) -> Option<Self> {
        Some(match rule_type {
            RuleType::SegmentRequired => RuleConfig::SegmentRequired(Field::read(config, faults)?),
            RuleType::AttributeCondition => RuleConfig::AttributeCondition(Field::read(config, faults)?),
            RuleType::Expression => RuleConfig::Expression(Field::read(config, faults)?),
            RuleType::PropensityThreshold => RuleConfig::PropensityThreshold(Field::read(config, faults)?),
            RuleType::RecencyCheck => RuleConfig::RecencyCheck(Field::read(config, faults)?),
            RuleType::MetricCondition => RuleConfig::MetricCondition(Field::read(config, faults)?),
            RuleType::OfferAttribute => RuleConfig::OfferAttribute(Field::read(config, faults)?),
        })
    }

    /// The config as a value, with every default filled in.
    pub fn write(&self) -> Value {
        match self {
            RuleConfig::SegmentRequired(config) => config.write(),
            RuleConfig::AttributeCondition(config) => config.write(),
            RuleConfig::Expression(config) => config.write(),
            RuleConfig::PropensityThreshold(config) => config.write(),
            RuleConfig::RecencyCheck(config) => config.write(),
            RuleConfig::MetricCondition(config) => config.write(),
            RuleConfig::OfferAttribute(config) => config.write(),
        }
    }

    /// `config.multiplier`, by default 0.5.
    pub fn multiplier(&self) -> f64 {
        self.factors().0.unwrap_or(0.5)
    }

    /// `config.boost`, by default 1.
    pub fn boost(&self) -> f64 {
        self.factors().1.unwrap_or(1.0)
    }

    fn factors(&self) -> (Option<f64>, Option<f64>) {
        match self {
            RuleConfig::SegmentRequired(config) => (config.multiplier, config.boost),
            RuleConfig::AttributeCondition(config) => (config.multiplier, config.boost),
            RuleConfig::Expression(config) => (config.multiplier, config.boost),
            RuleConfig::PropensityThreshold(config) => (config.multiplier, config.boost),
            RuleConfig::RecencyCheck(config) => (config.multiplier, config.boost),
            RuleConfig::MetricCondition(config) => (config.multiplier, config.boost),
            RuleConfig::OfferAttribute(config) => (config.multiplier, config.boost),
        }
    }
}

impl QualificationRule {
    /// The scopes that apply: `scopes` if given, else the single one (default global).
    pub fn all_scopes(&self) -> Vec<Scope> {
        single_or_several(self.scope, self.scope_id.as_ref(), &self.scopes)
    }

    /// The stage that applies: the one given, else the rule type's default.
    pub fn effective_stage(&self) -> RuleStage {
        self.stage.unwrap_or(match self.rule_type {
            RuleType::PropensityThreshold | RuleType::RecencyCheck => RuleStage::Match,
            RuleType::SegmentRequired
            | RuleType::AttributeCondition
            | RuleType::Expression
            | RuleType::MetricCondition
            | RuleType::OfferAttribute => RuleStage::Eligibility,
        })
    }
}

/// The scopes of a rule or policy that may name one or several.
pub fn single_or_several(scope: Option<ScopeKind>, scope_id: Option<&Ref>, scopes: &[Scope]) -> Vec<Scope> {
    if scopes.is_empty() {
        vec![Scope { scope: scope.unwrap_or(ScopeKind::Global), scope_id: scope_id.cloned() }]
    } else {
        scopes.to_vec()
    }
}
