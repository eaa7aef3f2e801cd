//! Behavioural metrics, and the names by which everything else reads them.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, shown, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::publish;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{condition, text};
use crate::expr::{Ast, Namespace};
use crate::keys::MetricKey;
use crate::limits;
use crate::model::Status;
use crate::model::fault::Faults;
use crate::model::filter::{FilterGroup, FilterOperator, FilterTerm};
use crate::model::metric::{Aggregation, BehavioralMetric, Dimension, PROPERTIES, VALUE};
use crate::model::offer::{CapPer, CapWindow};
use crate::model::policy::PolicyConfig;
use crate::value::Value;

/// What filters of metrics read beside properties, with the kind of it.
const FACTS: [(&str, condition::Kind); 6] = [
    ("type", condition::Kind::Text),
    (VALUE, condition::Kind::Number),
    ("offerId", condition::Kind::Text),
    ("categoryId", condition::Kind::Text),
    ("channel", condition::Kind::Text),
    ("placementId", condition::Kind::Text),
];

impl Authored for BehavioralMetric {
    // Each is looked at whenever anything happens, and a profile has room for one series of each.
    stored_in!(metrics: MetricKey, EntityKind::Metric, at most limits::METRICS_MAX);
    const UNIQUE_NAME: bool = true;
    const READ_ONLY: &'static [&'static str] = &["generation"];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("m")), ("outcomes", Value::list([Value::text("click")]))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        if !text::is_identifier(&self.name) {
            faults.add_at("name", "must be letters, digits and _, not starting with a digit");
        }
        text::check_description(&self.description, faults);
        text::check_words("events", &self.events, limits::LIST_ITEMS_MAX, faults);
        text::check_distinct("events", &self.events, faults);
        check_outcomes(context.tenant, &self.outcomes, faults);
        if self.outcomes.is_empty() && self.events.is_empty() {
            faults.add("must name outcomes or events");
        }
        check_field(self, faults);
        match (self.per, self.window) {
            (CapPer::Hours(_), Some(CapWindow::Calendar)) => faults.add_at("window", "hours are always rolling"),
            (CapPer::Lifetime, Some(CapWindow::Rolling)) => faults.add_at("window", "a lifetime does not roll"),
            (CapPer::Lifetime, None | Some(CapWindow::Calendar))
            | (CapPer::Hours(_), None | Some(CapWindow::Rolling))
            | (CapPer::Day | CapPer::Week | CapPer::Month, _) => {}
        }
        if let Some(filters) = &self.filters {
            faults.within("filters", |faults| check_filters(filters, faults));
        }
        check_dimensions(&self.group_by, faults);
        let Some(before) = context.before.map(|row| &row.body) else { return };
        if before.name != self.name {
            findings.conflicts.add_at("name", "the name of a metric never changes: others read it by that");
        }
        if before.group_by != self.group_by {
            findings.conflicts.add_at("groupBy", "what a metric counts apart by never changes: make another metric");
        }
        let resumes = before.status != Status::Active && self.status == Status::Active;
        let paused = BehavioralMetric { status: before.status, ..self.clone() };
        self.generation = before.generation + u32::from(resumes || !paused.means_the_same(before));
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: MetricKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

fn check_outcomes(tenant: &TenantCatalog, outcomes: &[String], faults: &mut Faults) {
    text::check_count("outcomes", outcomes, limits::LIST_ITEMS_MAX, faults);
    text::check_distinct("outcomes", outcomes, faults);
    faults.within("outcomes", |faults| {
        for (index, word) in outcomes.iter().enumerate().take(limits::LIST_ITEMS_MAX) {
            if tenant.outcomes().get(word).is_none() {
                faults.add_at(&index.to_string(), format!("no outcome is named {:?}", shown(word)));
            }
        }
    });
}

fn check_field(metric: &BehavioralMetric, faults: &mut Faults) {
    let property = metric.field.strip_prefix(PROPERTIES).filter(|name| text::is_identifier(name));
    if metric.field != VALUE && property.is_none() {
        faults.add_at("field", "must be value, or properties. and a name");
    } else if metric.aggregation == Aggregation::Count && metric.field != VALUE {
        faults.add_at("field", "a count needs no number");
    }
}

fn check_dimensions(group_by: &[Dimension], faults: &mut Faults) {
    text::check_distinct("groupBy", group_by, faults);
    faults.within("groupBy", |faults| {
        let mut properties = 0;
        for (index, by) in group_by.iter().enumerate() {
            let Dimension::Property(name) = by else { continue };
            properties += 1;
            if !text::is_identifier(name) {
                faults.add_at(&index.to_string(), "must be properties. and letters, digits and _");
            } else if properties > 1 {
                faults.add_at(&index.to_string(), "only one property can be named where a metric is read");
            }
        }
    });
}

fn check_filters(filters: &FilterGroup, faults: &mut Faults) {
    if filters.conditions().len() > limits::METRIC_CONDITIONS_MAX {
        faults.add_at("conditions", format!("must have at most {} conditions", limits::METRIC_CONDITIONS_MAX));
        return;
    }
    faults.within("conditions", |faults| {
        if filters.conditions.is_empty() {
            faults.add("must not be empty");
        }
        for (index, term) in filters.conditions.iter().enumerate() {
            faults.within(&index.to_string(), |faults| match term {
                FilterTerm::Group(group) => check_filters(group, faults),
                FilterTerm::Condition(condition) => {
                    let fact = FACTS.iter().find(|(name, _)| *name == condition.field).map(|(_, kind)| *kind);
                    let property = condition.field.strip_prefix(PROPERTIES).filter(|name| text::is_identifier(name));
                    let Some(kind) = fact.or(property.map(|_| condition::Kind::Any)) else {
                        let facts = FACTS.map(|(name, _)| name).join(", ");
                        faults.add_at("field", format!("must be one of {facts}, or properties. and a name"));
                        return;
                    };
                    match (condition.operator, condition.operator.as_rule_operator()) {
                        (FilterOperator::IsNull | FilterOperator::IsNotNull, _) => {
                            if !condition.value.is_null() {
                                let word = condition.operator.as_str();
                                faults.add_at("value", format!("{word} takes no value"));
                            }
                        }
                        (_, Some(operator)) => condition::check(operator, &condition.value, kind, faults),
                        (_, None) => faults.add_at("operator", "filters of metrics know no regular expressions"),
                    }
                }
            });
        }
    });
}

/// The metric that `path` (what follows `metric.`) names, with the group that it names of it.
pub(crate) fn named<'p>(tenant: &TenantCatalog, path: &'p str) -> Option<(MetricKey, Option<&'p str>)> {
    let (name, group) = path.split_once('.').map_or((path, None), |(name, group)| (name, Some(group)));
    tenant.metrics.by_name(name).map(|row| (row.key, group))
}

/// What is wrong with reading `path`, if anything is.
pub(crate) fn misread(tenant: &TenantCatalog, path: &str) -> Option<String> {
    let Some((key, group)) = named(tenant, path) else {
        return Some(format!("no behavioural metric is named {:?}", shown(path)));
    };
    let property = tenant.metrics.get(key)?.body.property();
    match (property, group) {
        (Some(property), None) => {
            Some(format!("the metric counts apart by {PROPERTIES}{property}: name one of its groups"))
        }
        (None, Some(_)) => Some("the metric has no groups that are named".to_owned()),
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// Checks the metrics that an expression reads.
pub(crate) fn check_read(tenant: &TenantCatalog, ast: &Ast, faults: &mut Faults) {
    for name in ast.names().filter(|name| name.namespace == Namespace::Metric) {
        if let Some(why) = misread(tenant, &name.path) {
            faults.add(why);
        }
    }
}

/// Checks the metric, and its group, that a condition of a rule or policy names.
pub(crate) fn check_named(tenant: &TenantCatalog, metric: &str, group: Option<&str>, faults: &mut Faults) {
    let path = path_of(metric, group);
    if metric.contains('.') {
        faults.add_at("metric", format!("no behavioural metric is named {:?}", shown(metric)));
    } else if let Some(why) = misread(tenant, &path) {
        let is_known = tenant.metrics.by_name(metric).is_some();
        faults.add_at(if is_known { "group" } else { "metric" }, why);
    }
}

/// What follows `metric.` where a group of a metric is read.
pub(crate) fn path_of(metric: &str, group: Option<&str>) -> String {
    group.map_or_else(|| metric.to_owned(), |group| format!("{metric}.{group}"))
}

/// Whether a value of the metric depends on the offer at hand; `false` for one that does not exist.
pub(crate) fn is_by_candidate(tenant: &TenantCatalog, path: &str) -> bool {
    let row = named(tenant, path).and_then(|(key, _)| tenant.metrics.get(key));
    row.is_some_and(|row| row.body.is_by_candidate())
}

/// Whether anything that is stored, or a flow in force, reads the metric. O(policies + flows).
pub(crate) fn is_read(tenant: &TenantCatalog, metric: &BehavioralMetric) -> bool {
    let exact = format!("metric.{}", metric.name);
    let group = format!("{exact}.");
    let reads = |name: &str| name == exact || name.starts_with(&group);
    let policies = tenant.policy_configs.values().any(|config| match config.as_ref() {
        PolicyConfig::MetricCondition(config) => config.metric == metric.name,
        PolicyConfig::FrequencyCap(_)
        | PolicyConfig::Cooldown(_)
        | PolicyConfig::BudgetExhausted(_)
        | PolicyConfig::OutcomeBased(_)
        | PolicyConfig::SegmentExclusion(_)
        | PolicyConfig::TimeWindow(_)
        | PolicyConfig::MutualExclusion(_)
        | PolicyConfig::CrossChannelCap(_)
        | PolicyConfig::CustomerTotalCap(_)
        | PolicyConfig::AllowOverride(_)
        | PolicyConfig::CategorySuppression(_) => false,
    });
    let versions = tenant.flows.iter().filter_map(|row| tenant.current_version(row.key));
    policies
        || tenant.index.is_any_read(reads)
        || versions.flat_map(|version| publish::names_read(&version.config)).any(|name| reads(&name))
}
