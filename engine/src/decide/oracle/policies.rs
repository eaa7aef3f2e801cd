//! Contact policies: has this profile been contacted too much for this proposition?

use std::sync::Arc;

use super::case::{Case, OfferRow};
use super::choice::{Choice, Choices};
use super::creatives::CreativeRow;
use super::flow::selects;
use super::rules::metric_name;
use super::slots::Slot;
use crate::catalog::CapOrigin;
use crate::decide::counting::{cross_channel_limit, days_ms, frequency_limits, hours_ms, total_limit};
use crate::decide::schedule::LocalHours;
use crate::expr::compare::condition_holds;
use crate::keys::{CategoryKey, OfferKey, PolicyKey};
use crate::model::policy::{BudgetExhausted, ContactPolicy, OutcomeAction, OutcomeBased, PolicyConfig};
use crate::model::rule::{OnMissing, Scope, ScopeKind};
use crate::model::{Entity, Status};
use crate::profile::command::{Counted, Window};

type PolicyRow = Arc<Entity<PolicyKey, ContactPolicy>>;

/// What a proposition would be.
pub(super) struct Proposed<'p> {
    pub(super) offer: &'p OfferRow,
    pub(super) creative: Option<&'p CreativeRow>,
    pub(super) slot: &'p Slot,
    pub(super) mandatory: bool,
}

impl Case<'_> {
    /// The policy that blocks: the first by priority, then key, unless an `allow_override` matches.
    pub(super) fn blocking_policy(&self, proposed: &Proposed<'_>, chosen: &Choices) -> Option<PolicyKey> {
        let bind = |policy: &&PolicyRow| {
            policy.body.status == Status::Active
                && selects(&self.flow.contact, &policy.id)
                && !self.matching_scopes(policy, proposed).is_empty()
        };
        let mut policies: Vec<&PolicyRow> = self.catalog.policies().iter().filter(bind).collect();
        policies.sort_by_key(|policy| (std::cmp::Reverse(policy.body.priority), policy.key));
        if policies.iter().any(|policy| self.overrides(policy)) {
            return None;
        }
        let binding = policies.iter().filter(|policy| !proposed.mandatory || !policy.body.is_bypassable());
        binding
            .map(|policy| (policy.key, policy))
            .find(|(_, policy)| self.blocks(policy, proposed, chosen))
            .map(|(key, _)| key)
    }

    fn policy_config(&self, policy: &PolicyRow) -> &PolicyConfig {
        self.catalog.policy_config(policy.key).expect("every stored policy has a typed config")
    }

    fn overrides(&self, policy: &PolicyRow) -> bool {
        match self.policy_config(policy) {
            PolicyConfig::AllowOverride(config) => self.is_in_all(&config.required_segments),
            PolicyConfig::FrequencyCap(_)
            | PolicyConfig::Cooldown(_)
            | PolicyConfig::BudgetExhausted(_)
            | PolicyConfig::OutcomeBased(_)
            | PolicyConfig::SegmentExclusion(_)
            | PolicyConfig::TimeWindow(_)
            | PolicyConfig::MutualExclusion(_)
            | PolicyConfig::CrossChannelCap(_)
            | PolicyConfig::CustomerTotalCap(_)
            | PolicyConfig::CategorySuppression(_)
            | PolicyConfig::MetricCondition(_) => false,
        }
    }

    /// The scopes of the policy that take in what is proposed.
    fn matching_scopes(&self, policy: &PolicyRow, proposed: &Proposed<'_>) -> Vec<Scope> {
        let matches = |scope: &Scope| {
            self.binds_one(scope, proposed.offer, proposed.slot)
                || proposed.creative.is_some_and(|creative| Self::binds_creative(std::slice::from_ref(scope), creative))
        };
        policy.body.all_scopes().into_iter().filter(matches).collect()
    }

    fn blocks(&self, policy: &PolicyRow, proposed: &Proposed<'_>, chosen: &Choices) -> bool {
        let offer = proposed.offer;
        match self.policy_config(policy) {
            PolicyConfig::FrequencyCap(config) => self.matching_scopes(policy, proposed).iter().any(|scope| {
                frequency_limits(config, &self.at.frame)
                    .any(|(window, limit)| self.shown(scope, window) + self.chosen_in(scope, chosen) >= limit)
            }),
            PolicyConfig::CustomerTotalCap(config) => {
                let (window, limit) = total_limit(config, &self.at.frame);
                self.profile.impressions(Counted::All, window, self.now()) + chosen.count(|_| true) >= limit
            }
            PolicyConfig::CrossChannelCap(config) => {
                let (window, limit) = cross_channel_limit(config);
                let earlier = self.profile.impressions(Counted::Offer(offer.key), window, self.now());
                earlier + chosen.count(|choice| choice.offer == offer.key) >= limit
            }
            PolicyConfig::Cooldown(config) => {
                let window = Window::Rolling { ms: hours_ms(config.cooldown_hours) };
                self.matching_scopes(policy, proposed).iter().any(|scope| self.shown(scope, window) > 0)
            }
            PolicyConfig::BudgetExhausted(config) => self.budget_is_exhausted(config, offer),
            PolicyConfig::OutcomeBased(config) => self.follows_outcome(config, offer),
            PolicyConfig::SegmentExclusion(config) => {
                config.exclude_segments.iter().any(|segment| self.segments.contains(segment))
            }
            PolicyConfig::TimeWindow(config) => !LocalHours::of_policy(config).are_open(&self.at.frame),
            PolicyConfig::MutualExclusion(config) => {
                let is_other = |other: OfferKey| {
                    let id = self.catalog.offers().get(other).map(|other| other.id.as_str());
                    other != offer.key && config.offer_ids.iter().any(|member| Some(member.0.as_str()) == id)
                };
                config.offer_ids.iter().any(|member| member.0 == offer.id)
                    && self.saw_or_chose(days_ms(config.lookback_days), chosen, is_other)
            }
            PolicyConfig::CategorySuppression(config) => self.category_of(&offer.body).is_some_and(|category| {
                self.category_is_suppressed(category, offer.key, days_ms(config.lookback_days), chosen)
            }),
            PolicyConfig::MetricCondition(config) => {
                let actual = self.value(&metric_name(&config.metric, config.group.as_deref()), offer);
                condition_holds(&actual, config.operator, &config.value, OnMissing::Fail)
            }
            PolicyConfig::AllowOverride(_) => false,
        }
    }

    /// Impressions that a scope counts.
    fn shown(&self, scope: &Scope, window: Window) -> u64 {
        let id = scope.scope_id.as_ref().map_or("", |id| id.0.as_str());
        let count = |counted| self.profile.impressions(counted, window, self.now());
        let counted = match scope.scope {
            ScopeKind::Global | ScopeKind::Segment => Some(Counted::All),
            ScopeKind::Channel => self.catalog.channels().key_of(id).map(Counted::Channel),
            ScopeKind::Category => self.catalog.categories().key_of(id).map(Counted::Category),
            ScopeKind::Offer => self.catalog.offers().key_of(id).map(Counted::Offer),
            ScopeKind::Creative => self.catalog.creatives().key_of(id).map(Counted::Creative),
            ScopeKind::Placement => self.catalog.placements().key_of(id).map(Counted::Placement),
            ScopeKind::Subcategory => {
                let members = self
                    .catalog
                    .offers()
                    .iter()
                    .filter(|offer| offer.body.sub_category_id.as_ref().is_some_and(|own| own.0 == id));
                return members.map(|offer| count(Counted::Offer(offer.key))).sum();
            }
        };
        counted.map_or(0, count)
    }

    /// Choices of this answer that a scope counts.
    fn chosen_in(&self, scope: &Scope, chosen: &Choices) -> u64 {
        let id = scope.scope_id.as_ref().map_or("", |id| id.0.as_str());
        chosen.count(|choice: &Choice| match scope.scope {
            ScopeKind::Global | ScopeKind::Segment => true,
            ScopeKind::Channel => self.catalog.channels().key_of(id) == Some(choice.channel),
            ScopeKind::Category => choice.category.is_some() && self.catalog.categories().key_of(id) == choice.category,
            ScopeKind::Subcategory => {
                choice.sub_category.is_some() && self.catalog.sub_categories().key_of(id) == choice.sub_category
            }
            ScopeKind::Offer => self.catalog.offers().key_of(id) == Some(choice.offer),
            ScopeKind::Creative => self.catalog.creatives().key_of(id) == Some(choice.creative),
            ScopeKind::Placement => self.catalog.placements().key_of(id) == Some(choice.placement),
        })
    }

    /// Whether an offer that `matches` was shown within the last `lookback_ms`, or chosen for this answer.
    fn saw_or_chose(&self, lookback_ms: i64, chosen: &Choices, matches: impl Fn(OfferKey) -> bool) -> bool {
        let recent = self.profile.exposures.iter().filter(|seen| self.now().since_ms(seen.at()) < lookback_ms);
        recent.map(|seen| seen.offer).chain(chosen.0.iter().map(|choice| choice.offer)).any(matches)
    }

    /// Whether another offer of the category was shown lately or chosen. The category of a past impression is the one it
    /// was recorded under, else the offer's current one; that of a choice the current one.
    fn category_is_suppressed(
        &self,
        category: CategoryKey,
        offer: OfferKey,
        lookback_ms: i64,
        chosen: &Choices,
    ) -> bool {
        let current =
            |other: OfferKey| self.catalog.offers().get(other).and_then(|other| self.category_of(&other.body));
        let seen_in = |other: OfferKey| self.profile.category_of(other).or_else(|| current(other));
        let is_recent = |at| self.now().since_ms(at) < lookback_ms;
        let seen = self
            .profile
            .exposures
            .iter()
            .any(|seen| seen.offer != offer && is_recent(seen.at()) && seen_in(seen.offer) == Some(category));
        seen || chosen.0.iter().any(|choice| choice.offer != offer && choice.category == Some(category))
    }

    fn budget_is_exhausted(&self, config: &BudgetExhausted, offer: &OfferRow) -> bool {
        self.catalog.caps(offer.key).iter().any(|cap| {
            let looked_at = match cap.origin {
                CapOrigin::BudgetImpressions => config.check_impressions,
                CapOrigin::BudgetDaily => config.check_daily_budget,
                CapOrigin::Caps(_)
                | CapOrigin::FrequencyDaily
                | CapOrigin::FrequencyWeekly
                | CapOrigin::FrequencyMonthly => false,
            };
            looked_at && self.is_exhausted(cap, offer.key, &Choices::default())
        })
    }

    fn follows_outcome(&self, config: &OutcomeBased, offer: &OfferRow) -> bool {
        let is_named = |outcome| {
            config
                .outcomes
                .iter()
                .any(|word| self.catalog.outcomes().get(word).is_some_and(|known| known.key == outcome))
        };
        let category = self.category_of(&offer.body);
        self.profile.outcomes().iter().any(|record| {
            is_named(record.outcome)
                && self.now().since_ms(record.at) < days_ms(config.lookback_days)
                && match config.action {
                    OutcomeAction::SuppressOffer => record.offer == offer.key,
                    OutcomeAction::SuppressCategory => category.is_some() && record.category == category,
                    OutcomeAction::SuppressAll => true,
                }
        })
    }
}
