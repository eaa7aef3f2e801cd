//! Contact policies.

use std::sync::Arc;

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve_all, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::outcomes::IMPRESSION;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{condition, metric, scope, text};
use crate::keys::PolicyKey;
use crate::limits;
use crate::model::fault::Faults;
use crate::model::offer::{Enforcement, Offer};
use crate::model::policy::{ContactPolicy, PolicyConfig};
use crate::model::rule::{Scope, ScopeKind};
use crate::value::Value;

impl Authored for ContactPolicy {
    stored_in!(policies: PolicyKey, EntityKind::Policy, at most 10_000);
    const UNIQUE_NAME: bool = false;
    const DEPENDENT: &'static [(&'static str, &'static str)] =
        &[("ruleType", "config"), ("scope", "scopeId"), ("scope", "scopes"), ("scopes", "scopeId")];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("ruleType", Value::text("allow_override"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        scope::check(context.tenant, self.scope, &mut self.scope_id, &mut self.scopes, faults);
        faults.within("config", |faults| {
            if let Some(mut config) = PolicyConfig::read(self.rule_type, &self.config, faults) {
                check_config(&mut config, context.tenant, faults);
                check_strictness(&config, &self.all_scopes(), faults);
                self.config = config.write();
            }
        });
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        let mut things = scope::references(tenant, &self.all_scopes());
        if let Some(PolicyConfig::MutualExclusion(config)) = self.config() {
            things.extend(config.offer_ids.iter().filter_map(|offer| thing_of::<Offer>(tenant, offer)));
        }
        things
    }

    fn settle(tenant: &mut TenantCatalog, key: PolicyKey, _before: Option<&Self>, after: Option<&Self>) {
        match after {
            None => drop(tenant.policy_configs.remove(&key)),
            Some(policy) => {
                let config = policy.config().expect("a stored config was read before");
                tenant.policy_configs.insert(key, Arc::new(config));
            }
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: PolicyKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

impl ContactPolicy {
    /// The typed config; every stored policy has one.
    pub(crate) fn config(&self) -> Option<PolicyConfig> {
        PolicyConfig::read(self.rule_type, &self.config, &mut Faults::new())
    }
}

fn check_config(config: &mut PolicyConfig, tenant: &TenantCatalog, faults: &mut Faults) {
    match config {
        PolicyConfig::FrequencyCap(config) => {
            let limits = [
                ("maxPerDay", config.max_per_day),
                ("maxPerWeek", config.max_per_week),
                ("maxPerMonth", config.max_per_month),
                ("maxTotal", config.max_total),
            ];
            if limits.iter().all(|(_, limit)| limit.is_none()) {
                faults.add("must hold at least one of maxPerDay, maxPerWeek, maxPerMonth, maxTotal");
            }
            for (member, limit) in limits {
                check_limit(member, limit.unwrap_or(0), faults);
            }
        }
        PolicyConfig::Cooldown(config) => {
            text::check_positive("cooldownHours", config.cooldown_hours, limits::LOOKBACK_DAYS_MAX * 24.0, faults);
        }
        PolicyConfig::BudgetExhausted(config) => {
            if !config.check_impressions && !config.check_daily_budget {
                faults.add("must check impressions or the daily budget");
            }
        }
        PolicyConfig::OutcomeBased(config) => {
            check_days("lookbackDays", config.lookback_days, faults);
            text::check_count("outcomes", &config.outcomes, limits::LIST_ITEMS_MAX, faults);
            faults.within("outcomes", |faults| {
                if config.outcomes.is_empty() {
                    faults.add("must not be empty");
                }
                for (index, word) in config.outcomes.iter().enumerate() {
                    match tenant.outcomes().get(word) {
                        None => faults.add_at(&index.to_string(), format!("no outcome is named {:?}", shown(word))),
                        Some(outcome) if outcome.key == IMPRESSION => {
                            faults.add_at(&index.to_string(), "impressions are counted by other types of policy");
                        }
                        Some(_) => {}
                    }
                }
            });
        }
        PolicyConfig::SegmentExclusion(config) => {
            text::check_words("excludeSegments", &config.exclude_segments, limits::LIST_ITEMS_MAX, faults);
            if config.exclude_segments.is_empty() {
                faults.add_at("excludeSegments", "must not be empty");
            }
        }
        PolicyConfig::TimeWindow(config) => {
            text::check_weekdays("allowedDays", &config.allowed_days, faults);
            match (config.start, config.end) {
                (Some(start), Some(end)) => {
                    if start == end {
                        faults.add_at("end", "must differ from start");
                    }
                }
                (Some(_), None) => faults.add_at("end", "is required with start"),
                (None, Some(_)) => faults.add_at("start", "is required with end"),
                (None, None) => {
                    if config.allowed_days.is_empty() {
                        faults.add("must hold allowedDays, or start and end");
                    }
                }
            }
        }
        PolicyConfig::MutualExclusion(config) => {
            check_days("lookbackDays", config.lookback_days, faults);
            text::check_count("offerIds", &config.offer_ids, limits::LIST_ITEMS_MAX, faults);
            faults.within("offerIds", |faults| {
                let given = config.offer_ids.len();
                if given <= limits::LIST_ITEMS_MAX {
                    resolve_all::<Offer>(tenant, &mut config.offer_ids, faults);
                }
                if config.offer_ids.len() < 2 {
                    faults.add("must name at least two offers");
                }
            });
        }
        PolicyConfig::CrossChannelCap(config) => {
            check_limit("maxTotal", config.max_total, faults);
            check_days("periodDays", config.period_days, faults);
        }
        PolicyConfig::CustomerTotalCap(config) => check_limit("maxTotal", config.max_total, faults),
        PolicyConfig::AllowOverride(config) => {
            text::check_words("requiredSegments", &config.required_segments, limits::LIST_ITEMS_MAX, faults);
        }
        PolicyConfig::CategorySuppression(config) => check_days("lookbackDays", config.lookback_days, faults),
        PolicyConfig::MetricCondition(config) => {
            metric::check_named(tenant, &config.metric, config.group.as_deref(), faults);
            condition::check(config.operator, &config.value, condition::Kind::Number, faults);
        }
    }
}

/// A shard holds units of what it counts, and that is not sub-categories: offers move between them.
fn check_strictness(config: &PolicyConfig, scopes: &[Scope], faults: &mut Faults) {
    let counts_by_scope = match config {
        PolicyConfig::FrequencyCap(config) => config.enforcement == Enforcement::Strict,
        PolicyConfig::Cooldown(config) => config.enforcement == Enforcement::Strict,
        PolicyConfig::CustomerTotalCap(_)
        | PolicyConfig::CrossChannelCap(_)
        | PolicyConfig::BudgetExhausted(_)
        | PolicyConfig::OutcomeBased(_)
        | PolicyConfig::SegmentExclusion(_)
        | PolicyConfig::TimeWindow(_)
        | PolicyConfig::MutualExclusion(_)
        | PolicyConfig::AllowOverride(_)
        | PolicyConfig::CategorySuppression(_)
        | PolicyConfig::MetricCondition(_) => false,
    };
    if counts_by_scope && scopes.iter().any(|scope| scope.scope == ScopeKind::Subcategory) {
        faults.add_at("enforcement", "a policy that counts by sub-category cannot be strict");
    }
}

fn check_days(member: &str, days: f64, faults: &mut Faults) {
    text::check_positive(member, days, limits::LOOKBACK_DAYS_MAX, faults);
}

/// Contact limits lie within what a profile keeps.
fn check_limit(member: &str, limit: u64, faults: &mut Faults) {
    if limit > limits::ROLLING_TIMES {
        faults.add_at(member, format!("must be at most {}", limits::ROLLING_TIMES));
    }
}
