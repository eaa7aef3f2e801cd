//! Tenant settings.

use std::collections::BTreeSet;

use crate::catalog::entity::{resolve, shown};
use crate::catalog::outcomes;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::fault::Faults;
use crate::model::offer::CountOn;
use crate::model::placement::Placement;
use crate::model::policy::PolicyConfig;
use crate::model::settings::Settings;
use crate::time::Calendar;

/// Checks settings and turns their references into ids.
pub(crate) fn check(settings: &mut Settings, tenant: &TenantCatalog, faults: &mut Faults) {
    if let Err(unknown) = Calendar::new(&settings.time_zone, settings.week_start) {
        faults.add_at("timeZone", unknown.to_string());
    }
    text::check_range("mandatoryPerDay", f64::from(settings.mandatory_per_day), 0.0, 1_000.0, faults);
    text::check_reservation_seconds(Some(settings.reservation_seconds), faults);
    text::check_range("outcomeWindowDays", f64::from(settings.outcome_window_days), 1.0, 365.0, faults);
    text::check_range("maxSlots", f64::from(settings.max_slots), 1.0, f64::from(limits::SLOTS_MAX), faults);
    text::check_range("explainLimit", f64::from(settings.explain_limit), 0.0, f64::from(limits::EXPLAIN_MAX), faults);
    text::check_positive("fatigueHalfLifeHours", settings.fatigue_half_life_hours, limits::HALF_LIFE_HOURS_MAX, faults);
    text::check_range("fatigueStrength", settings.fatigue_strength, 0.0, limits::FATIGUE_STRENGTH_MAX, faults);
    if let Some(flow) = &settings.default_flow_key {
        check_flow("defaultFlowKey", flow, tenant, faults);
    }
    check_routes(settings, tenant, faults);
    check_outcomes(settings, tenant, faults);
}

fn check_flow(member: &str, key: &str, tenant: &TenantCatalog, faults: &mut Faults) {
    if tenant.flow_by_key(key).is_none() {
        faults.add_at(member, format!("no decision flow has the key {:?}", shown(key)));
    }
}

fn check_routes(settings: &mut Settings, tenant: &TenantCatalog, faults: &mut Faults) {
    text::check_count("routes", &settings.routes, limits::LIST_ITEMS_MAX, faults);
    let mut seen = BTreeSet::new();
    faults.within("routes", |faults| {
        for (index, route) in settings.routes.iter_mut().enumerate().take(limits::LIST_ITEMS_MAX) {
            faults.within(&index.to_string(), |faults| {
                let channel =
                    faults.within("channelId", |faults| resolve::<Channel>(tenant, &mut route.channel_id, faults));
                let placement = route.placement_id.as_mut().and_then(|reference| {
                    faults.within("placementId", |faults| resolve::<Placement>(tenant, reference, faults))
                });
                if let (Some(channel), Some(placement)) = (channel, placement)
                    && tenant.channel_of(placement) != Some(channel)
                {
                    faults.add_at("placementId", "is a placement of another channel");
                }
                check_flow("decisionFlowKey", &route.decision_flow_key, tenant, faults);
                if !seen.insert((route.channel_id.clone(), route.placement_id.clone())) {
                    faults.add("is a second route for the same channel and placement");
                }
            });
        }
    });
}

fn check_outcomes(settings: &Settings, tenant: &TenantCatalog, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    let fresh = settings.outcomes.iter().filter(|outcome| tenant.outcomes().is_new(&outcome.key)).count();
    faults.within("outcomes", |faults| {
        if fresh + tenant.outcomes().custom_count() > limits::CUSTOM_OUTCOMES_MAX {
            faults.add(format!("a tenant has at most {} outcomes in its life", limits::CUSTOM_OUTCOMES_MAX));
            return;
        }
        for (index, outcome) in settings.outcomes.iter().enumerate() {
            faults.within(&index.to_string(), |faults| {
                text::check_key("key", &outcome.key, faults);
                if outcomes::BUILT_IN.iter().any(|(word, _)| *word == outcome.key) || outcome.key == "decision" {
                    faults.add_at("key", format!("{:?} is built in", outcome.key));
                } else if !seen.insert(&outcome.key) {
                    faults.add_at("key", "is given twice");
                }
            });
        }
    });
}

/// Outcomes that caps or policies count cannot go away. O(offers + policies), and only when one is removed.
pub(crate) fn check_removed_outcomes(settings: &Settings, tenant: &TenantCatalog, conflicts: &mut Faults) {
    let removed: Vec<&str> = tenant
        .settings()
        .outcomes
        .iter()
        .map(|outcome| outcome.key.as_str())
        .filter(|word| !settings.outcomes.iter().any(|outcome| outcome.key == *word))
        .collect();
    if removed.is_empty() {
        return;
    }
    for offer in tenant.offers().iter() {
        let counted = offer.body.caps.iter().map(|cap| &cap.count_on).chain([&offer.body.budget.count_on]);
        for count_on in counted {
            if let CountOn::Outcome(word) = count_on
                && removed.contains(&word.as_str())
            {
                conflicts.add_at("outcomes", format!("offer {} counts {word:?}", offer.id));
            }
        }
    }
    for policy in tenant.policies().iter() {
        if let Some(PolicyConfig::OutcomeBased(config)) = tenant.policy_config(policy.key).map(AsRef::as_ref)
            && let Some(word) = config.outcomes.iter().find(|word| removed.contains(&word.as_str()))
        {
            conflicts.add_at("outcomes", format!("contact policy {} looks at {word:?}", policy.id));
        }
    }
}
