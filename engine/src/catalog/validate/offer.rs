//! Offers: lifecycle, hierarchy, governance, schedule, limits.

use std::collections::BTreeSet;

use crate::catalog::apply::derive_category_id;
use crate::catalog::caps;
use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, NewCategory, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::slug::slug;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::category::CATEGORIES_MAX;
use crate::catalog::validate::{algorithm, custom_fields, fallback, text};
use crate::keys::OfferKey;
use crate::limits;
use crate::model::category::{Category, SubCategory};
use crate::model::fault::Faults;
use crate::model::offer::{
    Budget, Cap, CapPer, CapScope, CapWindow, CountOn, Eligibility, FrequencyCaps, Offer, OfferKind, Schedule,
};
use crate::model::placement::Placement;
use crate::model::record::Field;
use crate::model::{Ref, Status};
use crate::time::Calendar;
use crate::value::{Members, Value};

impl Authored for Offer {
    stored_in!(offers: OfferKey, EntityKind::Offer, at most 1_000_000);
    const UNIQUE_NAME: bool = true;
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[
        ("categoryId", "customFields"),
        ("categoryId", "subCategoryId"),
        ("category", "customFields"),
        ("category", "subCategoryId"),
    ];

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-"))])
    }

    /// A category given by name alone replaces the stored `categoryId`.
    fn merge(stored: &Self, patch: &Members) -> Members {
        let Value::Map(stored) = stored.write() else { unreachable!("records write maps") };
        let mut merged = std::sync::Arc::unwrap_or_clone(stored);
        if patch.contains_key("category") && !patch.contains_key("categoryId") {
            merged.remove("categoryId");
        }
        merged.extend(patch.iter().map(|(name, value)| (name.clone(), value.clone())));
        merged
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        self.check_authority(context, findings);
        self.check_lifecycle(context, findings);
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_length("shortDesc", &self.short_desc, limits::TEXT_CHARS_MAX, faults);
        text::check_length("productType", &self.product_type, limits::WORD_CHARS_MAX, faults);
        text::check_words("tags", &self.tags, limits::TAGS_MAX, faults);
        let mut seen = BTreeSet::new();
        self.tags.retain(|tag| seen.insert(tag.clone()));
        text::check_words("preferredSegments", &self.preferred_segments, limits::LIST_ITEMS_MAX, faults);
        self.check_mandatory(faults);
        let known = context.before.and_then(|row| row.body.eligibility.model_reference.as_deref());
        check_eligibility(context.tenant, &self.eligibility, known, faults);
        check_schedule(&self.schedule, context.tenant, faults);
        check_budget(&self.budget, context.tenant, faults);
        check_frequency(&self.frequency_caps, faults);
        self.check_caps(context.tenant, faults);
        self.check_fatigue(faults);
        self.check_fallback(context, findings);
        self.check_hierarchy(context, findings);
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        let category = self.category_id.as_ref().and_then(|id| thing_of::<Category>(tenant, id));
        let sub_category = self.sub_category_id.as_ref().and_then(|id| thing_of::<SubCategory>(tenant, id));
        let placements = self.caps.iter().filter_map(|cap| cap.placement_id.as_ref());
        let placements = placements.filter_map(|id| thing_of::<Placement>(tenant, id));
        category.into_iter().chain(sub_category).chain(placements).collect()
    }

    fn reindex(tenant: &mut TenantCatalog, _key: OfferKey, before: Option<&Self>, after: Option<&Self>) {
        let competes = |body: &&Self| body.status == Status::Active && body.kind == OfferKind::General;
        if let Some(body) = before.filter(competes) {
            tenant.index.worths.remove(body.margin, body.revenue_value);
        }
        if let Some(body) = after.filter(competes) {
            tenant.index.worths.add(body.margin, body.revenue_value);
        }
        if before.map(|body| &body.tags) == after.map(|body| &body.tags) {
            return;
        }
        tenant.index.remove_tags(before.map_or(&[], |body| &body.tags));
        tenant.index.add_tags(after.map_or(&[], |body| &body.tags));
    }

    fn settle(tenant: &mut TenantCatalog, key: OfferKey, _before: Option<&Self>, after: Option<&Self>) {
        let Some(offer) = after else {
            tenant.caps.remove(&key);
            return;
        };
        let mut next = tenant.state.next_cap;
        let defined = caps::define(tenant, offer, tenant.caps(key), &mut next);
        tenant.state.next_cap = next;
        if defined.is_empty() {
            tenant.caps.remove(&key);
        } else {
            tenant.caps.insert(key, defined.into());
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        key: OfferKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let (Some(before), Some(after)) = (before, after) else {
            effect.push(Touched::Offer(key));
            return;
        };
        let mut as_before = after.clone();
        as_before.status = before.status;
        as_before.emergency_excluded = before.emergency_excluded;
        effect.push(if as_before == *before { Touched::Overlay(key) } else { Touched::Offer(key) });
    }
}

impl Offer {
    fn check_authority(&self, context: &Context<'_, Self>, findings: &mut Findings) {
        let was_mandatory = context.before.is_some_and(|row| row.body.mandatory);
        if (self.mandatory || was_mandatory) && !context.actor.admin {
            findings.forbidden = Some("only an admin may write a mandatory offer".to_owned());
        }
    }

    fn check_lifecycle(&self, context: &Context<'_, Self>, findings: &mut Findings) {
        use Status::{Active, Archived, Draft, Paused};
        let allowed = match (context.before.map(|row| row.body.status), self.status) {
            (None, Archived) => false,
            (None, Draft | Active | Paused) => true,
            (Some(before), after) if before == after => true,
            (Some(Draft), Active) | (Some(Active), Paused) | (Some(Paused), Active) => true,
            (Some(Draft | Active | Paused), Archived) => true,
            (Some(Draft | Active | Paused | Archived), Draft | Active | Paused | Archived) => false,
        };
        if !allowed {
            let message = match context.before {
                None => "an offer cannot be created archived".to_owned(),
                Some(row) => {
                    format!("an offer cannot go from {} to {}", row.body.status.as_str(), self.status.as_str())
                }
            };
            findings.conflicts.add_at("status", message);
        }
    }

    fn check_mandatory(&self, faults: &mut Faults) {
        let texts = [
            ("mandatoryReason", self.mandatory_reason.as_ref()),
            ("mandatoryApprovedBy", self.mandatory_approved_by.as_ref()),
        ];
        for (member, text) in texts {
            if self.mandatory && text.is_none_or(|text| text.trim().is_empty()) {
                faults.add_at(member, "is required when mandatory is true");
            }
            text::check_length(member, text.map_or("", String::as_str), limits::TEXT_CHARS_MAX, faults);
        }
        if self.mandatory && self.mandatory_expires_at.is_none() {
            faults.add_at("mandatoryExpiresAt", "is required when mandatory is true");
        }
    }

    fn check_fatigue(&self, faults: &mut Faults) {
        faults.within("fatigue", |faults| {
            if let Some(hours) = self.fatigue.half_life_hours {
                text::check_positive("halfLifeHours", hours, limits::HALF_LIFE_HOURS_MAX, faults);
            }
            if let Some(strength) = self.fatigue.strength {
                text::check_range("strength", strength, 0.0, limits::FATIGUE_STRENGTH_MAX, faults);
            }
        });
    }

    fn check_caps(&mut self, tenant: &TenantCatalog, faults: &mut Faults) {
        text::check_count("caps", &self.caps, limits::CAPS_MAX, faults);
        let mut keys = BTreeSet::new();
        faults.within("caps", |faults| {
            for (index, cap) in self.caps.iter_mut().enumerate().take(limits::CAPS_MAX) {
                faults.within(&index.to_string(), |faults| {
                    check_cap(cap, tenant, faults);
                    if !keys.insert(caps::effective_key(cap)) {
                        faults.add_at("key", "is the key of another cap of this offer");
                    }
                });
            }
        });
    }

    /// A fallback offer carries no constraint, and stays able to fill the slots that name it.
    fn check_fallback(&self, context: &Context<'_, Self>, findings: &mut Findings) {
        if self.kind == OfferKind::Fallback {
            let constraints = [
                ("schedule", self.schedule != Schedule::default()),
                ("eligibility", self.eligibility != Eligibility::default()),
                ("budget", self.budget != Budget::default()),
                ("caps", !self.caps.is_empty()),
                ("frequencyCaps", self.frequency_caps != FrequencyCaps::default()),
            ];
            for (member, _) in constraints.into_iter().filter(|(_, given)| *given) {
                findings.faults.add_at(member, "a fallback offer carries no constraint");
            }
            if self.mandatory {
                findings.faults.add_at("mandatory", "a fallback offer cannot be mandatory");
            }
        }
        let Some(before) = context.before else { return };
        if self.kind == OfferKind::Fallback && self.status == Status::Active {
            return;
        }
        if let Some((activity, _)) = fallback::activities_of(context.tenant, before.key).next() {
            let member = if self.kind == OfferKind::Fallback { "status" } else { "kind" };
            findings.conflicts.add_at(member, format!("activity {activity} needs it as an active fallback offer"));
        }
    }

    /// Category by id or name, sub-category, and the values the category asks for.
    fn check_hierarchy(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let faults = &mut findings.faults;
        let mut is_known = true;
        let mut category = None;
        if let Some(reference) = &mut self.category_id {
            category = faults.within("categoryId", |faults| resolve::<Category>(tenant, reference, faults));
            is_known = category.is_some();
        }
        if let Some(name) = self.category.take() {
            let named = tenant.categories.by_name(&name);
            match (named, &self.category_id) {
                (Some(named), None) => {
                    category = Some(named.key);
                    self.category_id = Some(Ref(named.id.clone()));
                }
                (Some(named), Some(id)) => {
                    if is_known && named.id != id.0 {
                        faults.add_at("category", format!("is category {}, not the one in categoryId", named.id));
                    }
                }
                (None, Some(_)) => {
                    if is_known {
                        faults.add_at("category", "is not the name of the category in categoryId");
                    }
                }
                (None, None) => {
                    text::check_name("category", &name, faults);
                    if tenant.categories.len() >= CATEGORIES_MAX {
                        faults.add_at("category", format!("a tenant has at most {CATEGORIES_MAX} categories"));
                    }
                    let slug = slug(&name, '_');
                    let id = derive_category_id(tenant, &slug);
                    self.category_id = Some(Ref(id.clone()));
                    findings.new_category = Some(NewCategory { id, slug, name });
                }
            }
        }
        if let Some(reference) = &mut self.sub_category_id {
            faults.within("subCategoryId", |faults| {
                let Some(sub_category) = resolve::<SubCategory>(tenant, reference, faults) else { return };
                let parent =
                    &tenant.sub_categories.get(sub_category).expect("a resolved key has a row").body.category_id;
                if is_known && self.category_id.as_ref() != Some(parent) {
                    faults.add("is a sub-category of another category");
                }
            });
        }
        if is_known {
            let made = findings.new_category.is_some();
            let schema = category.and_then(|key| tenant.categories.get(key)).map(|row| &*row.body.custom_fields);
            let schema = if made { Some(&[] as &[_]) } else { schema };
            custom_fields::check_values(self, schema, context.before, faults);
        }
    }
}

/// `known` is the model that the stored offer names: one from a time when none had to exist does not stand in the way of other changes.
fn check_eligibility(tenant: &TenantCatalog, eligibility: &Eligibility, known: Option<&str>, faults: &mut Faults) {
    faults.within("eligibility", |faults| {
        if let Some(threshold) = eligibility.propensity_threshold {
            text::check_range("propensityThreshold", threshold, 0.0, 1.0, faults);
        }
        if let Some(days) = eligibility.recency {
            text::check_range("recency", days, 0.0, limits::LOOKBACK_DAYS_MAX, faults);
        }
        text::check_words("requiredSegments", &eligibility.required_segments, limits::LIST_ITEMS_MAX, faults);
        let model = eligibility.model_reference.as_deref().filter(|model| Some(*model) != known);
        algorithm::check_named(tenant, "modelReference", model, faults);
    });
}

fn check_schedule(schedule: &Schedule, tenant: &TenantCatalog, faults: &mut Faults) {
    faults.within("schedule", |faults| {
        text::check_weekdays("daysOfWeek", &schedule.days_of_week, faults);
        if let Some(window) = &schedule.time_window
            && window.start == window.end
        {
            faults.add_at("timeWindow", "start and end must differ");
        }
        if let (Some(start), Some(end)) = (&schedule.start_date, &schedule.end_date) {
            let calendar = Calendar::of(tenant.settings());
            if calendar.resolve(start) >= calendar.resolve_end(end) {
                faults.add_at("endDate", "must be after startDate");
            }
        }
    });
}

fn check_budget(budget: &Budget, tenant: &TenantCatalog, faults: &mut Faults) {
    faults.within("budget", |faults| {
        if budget.max_impressions.is_some_and(|limit| limit > limits::CAP_LIMIT_MAX) {
            faults.add_at("maxImpressions", format!("must be at most {}", limits::CAP_LIMIT_MAX));
        }
        let cost = budget.cost_per_action.map(|cost| cost.0.0);
        if cost == Some(0) || (budget.max_daily_budget.is_some() && cost.is_none()) {
            faults.add_at("costPerAction", "must be greater than 0 for a daily budget");
        }
        check_counted(&budget.count_on, tenant, faults);
    });
}

fn check_frequency(frequency: &FrequencyCaps, faults: &mut Faults) {
    let limits = &frequency.per_customer;
    faults.within("frequencyCaps", |faults| {
        faults.within("perCustomer", |faults| {
            for (member, limit) in [("daily", limits.daily), ("weekly", limits.weekly), ("monthly", limits.monthly)] {
                if limit.is_some_and(|limit| limit > limits::CAP_LIMIT_MAX) {
                    faults.add_at(member, format!("must be at most {}", limits::CAP_LIMIT_MAX));
                }
            }
        });
    });
}

fn check_cap(cap: &mut Cap, tenant: &TenantCatalog, faults: &mut Faults) {
    if let Some(key) = &cap.key {
        text::check_key("key", key, faults);
    }
    if let Some(placement) = &mut cap.placement_id {
        faults.within("placementId", |faults| resolve::<Placement>(tenant, placement, faults));
    }
    let rolling = caps::effective_window(cap.per, cap.window) == CapWindow::Rolling;
    let most = if rolling && cap.scope == CapScope::Profile { limits::ROLLING_TIMES } else { limits::CAP_LIMIT_MAX };
    if cap.limit > most {
        faults.add_at("limit", format!("must be at most {most}"));
    }
    match (cap.per, cap.window) {
        (CapPer::Hours(_), Some(CapWindow::Calendar)) => faults.add_at("window", "hours are always rolling"),
        (CapPer::Lifetime, Some(CapWindow::Rolling)) => faults.add_at("window", "a lifetime does not roll"),
        (CapPer::Lifetime, None | Some(CapWindow::Calendar))
        | (CapPer::Hours(_), None | Some(CapWindow::Rolling))
        | (CapPer::Day | CapPer::Week | CapPer::Month, _) => {}
    }
    text::check_reservation_seconds(cap.reservation_seconds, faults);
    check_counted(&cap.count_on, tenant, faults);
}

fn check_counted(count_on: &CountOn, tenant: &TenantCatalog, faults: &mut Faults) {
    if let CountOn::Outcome(word) = count_on
        && tenant.outcomes().get(word).is_none()
    {
        let message = format!("must be decision, impression or an outcome; {:?} is none", shown(word));
        faults.add_at("countOn", message);
    }
}
