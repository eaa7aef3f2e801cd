//! Qualification rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, shown, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{condition, formula, metric, scope, text};
use crate::expr::{Name, Namespace};
use crate::keys::RuleKey;
use crate::limits;
use crate::model::fault::Faults;
use crate::model::rule::{QualificationRule, RuleConfig};
use crate::value::Value;

impl Authored for QualificationRule {
    stored_in!(rules: RuleKey, EntityKind::Rule, at most 1_000_000);
    const UNIQUE_NAME: bool = false;
    const DEPENDENT: &'static [(&'static str, &'static str)] =
        &[("ruleType", "config"), ("scope", "scopeId"), ("scope", "scopes"), ("scopes", "scopeId")];

    fn stand_in() -> Value {
        let config = Value::map([("requiredSegments", Value::list([Value::text("-")]))]);
        Value::map([("name", Value::text("-")), ("ruleType", Value::text("segment_required")), ("config", config)])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        scope::check(context.tenant, self.scope, &mut self.scope_id, &mut self.scopes, faults);
        faults.within("config", |faults| {
            if let Some(config) = RuleConfig::read(self.rule_type, &self.config, faults) {
                check_config(&config, context.tenant, faults);
                formula::check_reads(context.tenant, &names_read(&config), faults);
                self.config = config.write();
            }
        });
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        scope::references(tenant, &self.all_scopes())
    }

    fn reindex(tenant: &mut TenantCatalog, key: RuleKey, before: Option<&Self>, after: Option<&Self>) {
        let reads = |body: Option<&Self>| body.and_then(Self::config).map(|config| names_read(&config));
        tenant.index.reread(&reads(before).unwrap_or_default(), reads(after).unwrap_or_default());
        if after.is_some_and(|rule| rule.all_scopes().iter().any(|scope| scope::is_wide(scope.scope))) {
            tenant.index.wide_rules.insert(key);
        } else {
            tenant.index.wide_rules.remove(&key);
        }
    }

    fn settle(tenant: &mut TenantCatalog, key: RuleKey, _before: Option<&Self>, after: Option<&Self>) {
        match after {
            None => drop(tenant.rule_configs.remove(key)),
            Some(rule) => {
                let config = rule.config().expect("a stored config was read before");
                tenant.rule_configs.insert(key, Arc::new(config));
            }
        }
    }

    fn touched(
        tenant: &TenantCatalog,
        _key: RuleKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        for rule in [before, after].into_iter().flatten() {
            scope::touched(tenant, &rule.all_scopes(), effect);
        }
    }
}

impl QualificationRule {
    /// The typed config; every stored rule has one.
    pub(crate) fn config(&self) -> Option<RuleConfig> {
        RuleConfig::read(self.rule_type, &self.config, &mut Faults::new())
    }
}

/// The names of facts and fields that a rule reads.
fn names_read(config: &RuleConfig) -> BTreeSet<String> {
    let one = |name: &str, bare: Namespace| {
        let mut name = Name::from(name);
        if name.namespace == Namespace::Bare {
            name.namespace = bare;
        }
        BTreeSet::from([name.to_string()])
    };
    match config {
        RuleConfig::AttributeCondition(config) => one(&config.attribute, Namespace::Customer),
        RuleConfig::OfferAttribute(config) => one(&config.field, Namespace::Offer),
        RuleConfig::Expression(config) => formula::names_read(&config.expression).into_iter().collect(),
        RuleConfig::MetricCondition(config) => {
            BTreeSet::from([format!("metric.{}", metric::path_of(&config.metric, config.group.as_deref()))])
        }
        RuleConfig::SegmentRequired(_) | RuleConfig::PropensityThreshold(_) | RuleConfig::RecencyCheck(_) => {
            BTreeSet::new()
        }
    }
}

fn check_config(config: &RuleConfig, tenant: &TenantCatalog, faults: &mut Faults) {
    match config {
        RuleConfig::SegmentRequired(config) => {
            text::check_words("requiredSegments", &config.required_segments, limits::LIST_ITEMS_MAX, faults);
            if config.required_segments.is_empty() {
                faults.add_at("requiredSegments", "must not be empty");
            }
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::AttributeCondition(config) => {
            check_attribute("attribute", &config.attribute, faults);
            if let Some(why) = config.attribute.strip_prefix("metric.").and_then(|path| metric::misread(tenant, path)) {
                faults.add_at("attribute", why);
            }
            let kind = condition::kind_of_attribute(tenant, &config.attribute);
            condition::check(config.operator, &config.value, kind, faults);
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::Expression(config) => {
            formula::check_condition(tenant, "expression", &config.expression, faults);
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::PropensityThreshold(config) => {
            text::check_range("minPropensity", config.min_propensity, 0.0, 1.0, faults);
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::RecencyCheck(config) => {
            text::check_range("minDays", config.min_days, 0.0, limits::LOOKBACK_DAYS_MAX, faults);
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::MetricCondition(config) => {
            metric::check_named(tenant, &config.metric, config.group.as_deref(), faults);
            condition::check(config.operator, &config.value, condition::Kind::Number, faults);
            check_factors(config.multiplier, config.boost, faults);
        }
        RuleConfig::OfferAttribute(config) => {
            check_attribute("field", &config.field, faults);
            let name = config.field.strip_prefix("offer.").unwrap_or(&config.field);
            match condition::kind_of_offer_field(tenant, name) {
                Some(kind) => condition::check(config.operator, &config.value, kind, faults),
                None => faults.add_at("field", format!("no offer has a field {:?}", shown(name))),
            }
            check_factors(config.multiplier, config.boost, faults);
        }
    }
}

/// A name with dots.
pub(crate) fn check_attribute(member: &str, name: &str, faults: &mut Faults) {
    let fits = name.len() <= limits::WORD_CHARS_MAX && name.split('.').all(text::is_identifier);
    if !fits {
        faults.add_at(member, "must be names of letters, digits and _, joined by dots");
    }
}

fn check_factors(multiplier: Option<f64>, boost: Option<f64>, faults: &mut Faults) {
    if let Some(multiplier) = multiplier {
        text::check_range("multiplier", multiplier, 0.1, 1.0, faults);
    }
    if let Some(boost) = boost {
        text::check_range("boost", boost, 0.0, 10.0, faults);
    }
}
