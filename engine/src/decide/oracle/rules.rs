//! Qualification rules: whom they bind and whether they pass.

use std::sync::Arc;

use super::case::{Case, OfferRow};
use super::creatives::CreativeRow;
use super::flow::selects;
use super::slots::Slot;
use crate::expr::compare::condition_holds;
use crate::expr::{Name, Namespace, Pattern};
use crate::keys::{GuardrailKey, RuleKey};
use crate::model::filter::{Combinator, FilterGroup, FilterTerm};
use crate::model::guardrail::{Guardrail, GuardrailMode};
use crate::model::offer::Eligibility;
use crate::model::rule::{OnMissing, QualificationRule, RuleConfig, RuleStage, Scope, ScopeKind};
use crate::model::{Entity, Status};
use crate::time::DAY_MS;
use crate::value::Value;

pub(super) type RuleRow = Arc<Entity<RuleKey, QualificationRule>>;

impl Case<'_> {
    /// Active rules that the flow selects, by priority (highest first), then key.
    pub(super) fn rules(&self) -> Vec<RuleRow> {
        let bind = |rule: &&RuleRow| rule.body.status == Status::Active && selects(&self.flow.qualify, &rule.id);
        let mut rules: Vec<RuleRow> = self.catalog.rules().iter().filter(bind).cloned().collect();
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.body.priority), rule.key));
        rules
    }

    pub(super) fn hard_rules(&self) -> Vec<RuleRow> {
        let is_hard = |rule: &RuleRow| match rule.body.effective_stage() {
            RuleStage::Eligibility | RuleStage::Fit => true,
            RuleStage::Match | RuleStage::Ranking => false,
        };
        self.rules().into_iter().filter(is_hard).collect()
    }

    pub(super) fn config(&self, rule: &RuleRow) -> &RuleConfig {
        self.catalog.rule_config(rule.key).expect("every stored rule has a typed config")
    }

    /// Whether one of the scopes takes in any proposition of `offer` in `slot`, whatever its creative.
    pub(super) fn binds(&self, scopes: &[Scope], offer: &OfferRow, slot: &Slot) -> bool {
        scopes.iter().any(|scope| self.binds_one(scope, offer, slot))
    }

    /// The same for one scope.
    pub(super) fn binds_one(&self, scope: &Scope, offer: &OfferRow, slot: &Slot) -> bool {
        let id = scope.scope_id.as_ref().map_or("", |id| id.0.as_str());
        let is = |reference: &Option<crate::model::Ref>| reference.as_ref().is_some_and(|own| own.0 == id);
        match scope.scope {
            ScopeKind::Global => true,
            ScopeKind::Segment => self.segments.contains(id),
            ScopeKind::Channel => self.catalog.channels().key_of(id) == Some(slot.channel),
            ScopeKind::Category => is(&offer.body.category_id),
            ScopeKind::Subcategory => is(&offer.body.sub_category_id),
            ScopeKind::Offer => offer.id == id,
            ScopeKind::Placement => self.catalog.placements().key_of(id) == Some(slot.placement),
            ScopeKind::Creative => false,
        }
    }

    /// Whether one of the scopes is this creative.
    pub(super) fn binds_creative(scopes: &[Scope], creative: &CreativeRow) -> bool {
        scopes.iter().any(|scope| {
            scope.scope == ScopeKind::Creative && scope.scope_id.as_ref().is_some_and(|id| id.0 == creative.id)
        })
    }

    /// Whether the customer and request pass a rule about `offer`.
    pub(super) fn passes(&self, rule: &RuleRow, offer: &OfferRow) -> bool {
        match self.config(rule) {
            RuleConfig::SegmentRequired(config) => self.is_in_all(&config.required_segments),
            RuleConfig::AttributeCondition(config) => {
                let actual = self.value(&named(&config.attribute, Namespace::Customer), offer);
                condition_holds(&actual, config.operator, &config.value, config.on_missing)
            }
            RuleConfig::OfferAttribute(config) => {
                let actual = self.value(&named(&config.field, Namespace::Offer), offer);
                condition_holds(&actual, config.operator, &config.value, config.on_missing)
            }
            RuleConfig::Expression(config) => self.evaluate(&config.expression, offer) == Value::Bool(true),
            RuleConfig::PropensityThreshold(config) => self.expected(offer).value >= config.min_propensity,
            RuleConfig::RecencyCheck(config) => self.is_recent_enough(config.min_days, offer),
            RuleConfig::MetricCondition(config) => {
                let actual = self.value(&metric_name(&config.metric, config.group.as_deref()), offer);
                condition_holds(&actual, config.operator, &config.value, OnMissing::Fail)
            }
        }
    }

    /// Active guardrails of a mode, by priority (highest first), then key.
    pub(super) fn guardrails(&self, mode: GuardrailMode) -> Vec<Arc<Entity<GuardrailKey, Guardrail>>> {
        let all = self.catalog.guardrails().iter().cloned();
        let mut found: Vec<_> = all.filter(|row| row.body.status == Status::Active && row.body.mode == mode).collect();
        found.sort_by_key(|row| (std::cmp::Reverse(row.body.priority), row.key));
        found
    }

    /// Whether `offer` meets a guardrail.
    pub(super) fn meets(&self, guardrail: &Guardrail, offer: &OfferRow) -> bool {
        self.evaluate(&guardrail.expression, offer) == Value::Bool(true)
    }

    /// Whether `offer` meets a filter.
    pub(super) fn passes_filter(&self, filter: &FilterGroup, offer: &OfferRow) -> bool {
        let mut terms = filter.conditions.iter().map(|term| match term {
            FilterTerm::Condition(condition) => {
                let actual = self.value(&condition.name(), offer);
                match condition.operator.as_rule_operator() {
                    Some(operator) => condition_holds(&actual, operator, &condition.value, OnMissing::Fail),
                    None => {
                        let pattern = condition.value.as_text().and_then(|text| Pattern::new(text).ok());
                        pattern.is_some_and(|pattern| pattern.is_in(&actual))
                    }
                }
            }
            FilterTerm::Group(group) => self.passes_filter(group, offer),
        });
        match filter.combinator {
            Combinator::And => terms.all(|holds| holds),
            Combinator::Or => terms.any(|holds| holds),
        }
    }

    /// Whether the offer's own `eligibility` lets the customer have it.
    pub(super) fn is_eligible(&self, offer: &OfferRow) -> bool {
        let Eligibility { propensity_threshold, recency, required_segments, model_reference: _ } =
            &offer.body.eligibility;
        propensity_threshold.is_none_or(|least| self.is_likely_enough(least, offer))
            && recency.is_none_or(|days| self.is_recent_enough(days, offer))
            && self.is_in_all(required_segments)
    }

    /// Never shown, or last shown at least `days` × 24 hours ago.
    fn is_recent_enough(&self, days: f64, offer: &OfferRow) -> bool {
        let last = self.profile.last_shown(offer.key);
        last.is_none_or(|last| self.now().since_ms(last) as f64 >= days * DAY_MS as f64)
    }
}

/// The name under which expressions read a metric that a condition names.
pub(super) fn metric_name(metric: &str, group: Option<&str>) -> Name {
    let path = group.map_or_else(|| metric.to_owned(), |group| format!("{metric}.{group}"));
    Name { namespace: Namespace::Metric, path }
}

/// A name as conditions write it: a bare one belongs to `namespace`.
fn named(text: &str, namespace: Namespace) -> Name {
    let name = Name::from(text);
    if name.namespace == Namespace::Bare { Name { namespace, ..name } } else { name }
}
