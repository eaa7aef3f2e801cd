//! Qualification rules, compiled: what they ask, what a failure does, and whom they bind.

use std::sync::Arc;

use super::checks::Check;
use super::slots::{Field, Names};
use super::world::{OfferWorld, is_true};
use crate::catalog::TenantCatalog;
use crate::expr::{self, Name, Namespace, Program, Resolver, Source, compare};
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, RuleKey, SubCategoryKey};
use crate::model::Entity;
use crate::model::rule::{OnMissing, Operator, QualificationRule, RuleConfig, RuleStage, Scope, ScopeKind};
use crate::profile::state::Profile;
use crate::time::DAY_MS;
use crate::value::Value;

/// What a rule does to the offers it binds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// A failure removes.
    Hard,
    /// A failure multiplies the score.
    Match {
        /// By this.
        multiplier: f64,
    },
    /// A pass multiplies the score.
    Ranking {
        /// By this.
        boost: f64,
    },
}

/// What a rule asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// The same for every offer.
    Request(Check),
    /// An expression that reads the offer is true.
    Program(Arc<Program>),
    /// A field of the offer compares so.
    Field {
        /// Number of the field.
        field: u16,
        /// How.
        operator: Operator,
        /// With what.
        expected: Value,
        /// What a missing field does.
        on_missing: OnMissing,
    },
    /// The offer was not shown for so many days.
    Recency {
        /// Days of 24 hours.
        days: f64,
    },
    /// P of the offer is not below this.
    Propensity {
        /// 0–1.
        least: f64,
    },
}

impl Question {
    /// The answer for one offer.
    pub(crate) fn holds(&self, at: &OfferWorld<'_, '_>, profile: Option<&Profile>) -> bool {
        match self {
            Question::Request(check) => check.holds(at.world),
            Question::Program(program) => is_true(&program.eval(at)),
            Question::Field { field, operator, expected, on_missing } => {
                compare::condition_holds(&expr::Environment::offer(at, *field), *operator, expected, *on_missing)
            }
            Question::Recency { days } => {
                let last = profile.and_then(|profile| profile.last_shown(at.segment.keys[at.position as usize]));
                last.is_none_or(|last| at.world.now.since_ms(last) as f64 >= days * DAY_MS as f64)
            }
            Question::Propensity { least } => at.propensity().value >= *least,
        }
    }

    /// Whether the answer depends on which offer it is, its history aside.
    pub(crate) fn looks_at_offers(&self) -> bool {
        match self {
            Question::Program(_) | Question::Field { .. } | Question::Propensity { .. } => true,
            Question::Request(_) | Question::Recency { .. } => false,
        }
    }

    /// Whether any of these fields of the offer is read, except by computed ones.
    pub(crate) fn reads_any(&self, fields: &[u16]) -> bool {
        match self {
            Question::Program(program) => program.offer_fields().iter().any(|field| fields.contains(field)),
            Question::Field { field, .. } => fields.contains(field),
            Question::Request(_) | Question::Recency { .. } | Question::Propensity { .. } => false,
        }
    }

    /// The answer, if offer `at` alone decides it: no fact, time or history is read.
    pub(crate) fn settled(&self, at: &OfferWorld<'_, '_>) -> Option<bool> {
        let reads_only_stored =
            |fields: &[u16]| fields.iter().all(|field| at.segment.fields[usize::from(*field)].is_stored(at.position));
        let settled = match self {
            Question::Request(Check::Constant(_)) => true,
            Question::Request(_) | Question::Recency { .. } | Question::Propensity { .. } => false,
            Question::Program(program) => {
                program.facts().is_empty() && !program.reads_time() && reads_only_stored(program.offer_fields())
            }
            Question::Field { field, .. } => reads_only_stored(std::slice::from_ref(field)),
        };
        settled.then(|| self.holds(at, None))
    }
}

/// A compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which.
    pub key: RuleKey,
    /// Highest first, then by key.
    pub priority: u8,
    /// What it does.
    pub effect: Effect,
    /// What it asks.
    pub question: Question,
}

impl Rule {
    /// Compiles a rule of the catalogue.
    pub(crate) fn new(
        catalog: &TenantCatalog,
        names: &mut Names,
        rule: &Entity<RuleKey, QualificationRule>,
    ) -> Option<Self> {
        let config = catalog.rule_config(rule.key)?;
        let effect = match rule.body.effective_stage() {
            RuleStage::Eligibility | RuleStage::Fit => Effect::Hard,
            RuleStage::Match => Effect::Match { multiplier: config.multiplier() },
            RuleStage::Ranking => Effect::Ranking { boost: config.boost() },
        };
        let question = ask(names, config);
        Some(Rule { key: rule.key, priority: rule.body.priority.0, effect, question })
    }

    /// Sorts as rules are applied: priority, then key.
    pub(crate) fn order(&self) -> (std::cmp::Reverse<u8>, RuleKey) {
        (std::cmp::Reverse(self.priority), self.key)
    }
}

fn ask(names: &mut Names, config: &RuleConfig) -> Question {
    match config {
        RuleConfig::SegmentRequired(config) => Question::Request(require_segments(names, &config.required_segments)),
        RuleConfig::AttributeCondition(config) => {
            let mut name = Name::from(config.attribute.as_str());
            if name.namespace == Namespace::Bare {
                name.namespace = Namespace::Customer;
            }
            compare_name(names, name, config.operator, &config.value, config.on_missing)
        }
        RuleConfig::Expression(config) => ask_expression(names, &config.expression),
        RuleConfig::PropensityThreshold(config) => {
            // 0 is below every P.
            match config.min_propensity {
                ..=0.0 => Question::Request(Check::Constant(true)),
                least => Question::Propensity { least },
            }
        }
        RuleConfig::RecencyCheck(config) => Question::Recency { days: config.min_days },
        RuleConfig::MetricCondition(config) => {
            ask_metric(names, &config.metric, config.group.as_deref(), config.operator, &config.value)
        }
        RuleConfig::OfferAttribute(config) => {
            let mut name = Name::from(config.field.as_str());
            if name.namespace == Namespace::Bare {
                name.namespace = Namespace::Offer;
            }
            compare_name(names, name, config.operator, &config.value, config.on_missing)
        }
    }
}

/// `metric operator expected`, as a question.
pub(crate) fn ask_metric(
    names: &mut Names,
    metric: &str,
    group: Option<&str>,
    operator: Operator,
    expected: &Value,
) -> Question {
    let path = group.map_or_else(|| metric.to_owned(), |group| format!("{metric}.{group}"));
    compare_name(names, Name { namespace: Namespace::Metric, path }, operator, expected, OnMissing::Fail)
}

/// Whether an expression is true.
pub(crate) fn ask_expression(names: &mut Names, expression: &str) -> Question {
    match program(names, expression) {
        None => Question::Request(Check::Constant(false)),
        Some(program) => match program.constant() {
            Some(value) => Question::Request(Check::Constant(is_true(value))),
            None if program.reads_offer() => Question::Program(Arc::new(program)),
            None => Question::Request(Check::Program(Arc::new(program))),
        },
    }
}

/// A check for all of these segments.
pub(crate) fn require_segments(names: &mut Names, segments: &[String]) -> Check {
    let mut numbers: Vec<u32> = segments.iter().map(|segment| names.segment(segment)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() { Check::Constant(true) } else { Check::Segments(numbers.into()) }
}

/// `name operator expected`, as a question.
pub(crate) fn compare_name(
    names: &mut Names,
    name: Name,
    operator: Operator,
    expected: &Value,
    on_missing: OnMissing,
) -> Question {
    let expected = || expected.clone();
    if name.namespace == Namespace::Metric {
        return match names.metric(&name.path) {
            Some(Source::Offer(field)) => Question::Field { field, operator, expected: expected(), on_missing },
            Some(Source::Fact(slot)) => {
                Question::Request(Check::Condition { slot, operator, expected: expected(), on_missing })
            }
            Some(Source::Constant(_)) | None => {
                let holds = compare::condition_holds(&Value::Null, operator, &expected(), on_missing);
                Question::Request(Check::Constant(holds))
            }
        };
    }
    if name.namespace == Namespace::Offer
        && let Some(field) = names.field(Field::of_offer(&name.path, true))
    {
        return Question::Field { field, operator, expected: expected(), on_missing };
    }
    Question::Request(match names.fact(&name) {
        Some(slot) => Check::Condition { slot, operator, expected: expected(), on_missing },
        None => Check::Constant(compare::condition_holds(&Value::Null, operator, &expected(), on_missing)),
    })
}

/// Compiles an expression of the catalogue; `None` for one that does not parse (none is stored).
pub(crate) fn program(names: &mut Names, text: &str) -> Option<Program> {
    let ast = expr::parse(text).ok()?;
    Some(expr::compile(&ast, names))
}

impl Resolver for Names {
    fn resolve(&mut self, name: &Name) -> Source {
        let found = match &name.namespace {
            Namespace::Bare => self.field(Field::of_offer(&name.path, false)).map(Source::Offer),
            Namespace::Offer => self.field(Field::of_offer(&name.path, true)).map(Source::Offer),
            Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Other(_) => {
                self.fact(name).map(Source::Fact)
            }
            Namespace::Metric => self.metric(&name.path),
        };
        found.unwrap_or(Source::Constant(Value::Null))
    }
}

/// Whom a rule or policy binds; kinds are OR-ed. References to what is gone bind nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scopes {
    /// Everything.
    pub global: bool,
    /// Customers of these segments.
    pub segments: Vec<u32>,
    /// Propositions on these channels.
    pub channels: Vec<ChannelKey>,
    /// Offers of these categories.
    pub categories: Vec<CategoryKey>,
    /// Offers of these sub-categories.
    pub sub_categories: Vec<SubCategoryKey>,
    /// These offers.
    pub offers: Vec<OfferKey>,
    /// These creatives.
    pub creatives: Vec<CreativeKey>,
    /// Propositions in these placements.
    pub placements: Vec<PlacementKey>,
}

impl Scopes {
    pub(crate) fn new(catalog: &TenantCatalog, names: &mut Names, scopes: &[Scope]) -> Self {
        let mut found = Scopes::default();
        for Scope { scope, scope_id } in scopes {
            let id = scope_id.as_ref().map_or("", |id| id.0.as_str());
            match scope {
                ScopeKind::Global => found.global = true,
                ScopeKind::Segment => found.segments.push(names.segment(id)),
                ScopeKind::Channel => found.channels.extend(catalog.channels().key_of(id)),
                ScopeKind::Category => found.categories.extend(catalog.categories().key_of(id)),
                ScopeKind::Subcategory => found.sub_categories.extend(catalog.sub_categories().key_of(id)),
                ScopeKind::Offer => found.offers.extend(catalog.offers().key_of(id)),
                ScopeKind::Creative => found.creatives.extend(catalog.creatives().key_of(id)),
                ScopeKind::Placement => found.placements.extend(catalog.placements().key_of(id)),
            }
        }
        found.offers.sort_unstable();
        found.offers.dedup();
        found
    }

    /// Whether nothing but categories is named.
    pub(crate) fn is_only_categories(&self) -> bool {
        let Scopes { global, segments, channels, categories: _, sub_categories, offers, creatives, placements } = self;
        !global
            && segments.is_empty()
            && channels.is_empty()
            && sub_categories.is_empty()
            && offers.is_empty()
            && creatives.is_empty()
            && placements.is_empty()
    }

    /// Whether more than listed offers and creatives is bound.
    pub(crate) fn is_wide(&self) -> bool {
        self.global
            || !self.segments.is_empty()
            || !self.channels.is_empty()
            || !self.categories.is_empty()
            || !self.sub_categories.is_empty()
            || !self.placements.is_empty()
    }
}

/// All rules (or policies), or named ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector<K> {
    /// All active ones.
    All,
    /// These, sorted.
    Named(Vec<K>),
}

impl<K: Ord> Selector<K> {
    /// Whether `key` is selected.
    pub fn selects(&self, key: &K) -> bool {
        match self {
            Selector::All => true,
            Selector::Named(keys) => keys.binary_search(key).is_ok(),
        }
    }
}
