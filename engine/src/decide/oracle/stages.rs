//! One offer's way through the stages of one slot.

use super::case::{Case, OfferRow};
use super::choice::Choices;
use super::creatives::CreativeRow;
use super::policies::Proposed;
use super::scoring::Scored;
use super::slots::Slot;
use crate::decide::decision::RemovalReason;
use crate::decide::schedule::{LocalHours, OpenHours};
use crate::model::Status;
use crate::model::flow::{Inventory, InventoryScope};
use crate::model::guardrail::GuardrailMode;
use crate::model::offer::OfferKind;
use crate::profile::command::OptOut;

/// What became of an offer in a slot, before anything is chosen.
pub(super) enum Standing {
    /// It competes with this content and score.
    Competes(Option<CreativeRow>, Scored),
    /// It is mandatory and admitted: prepended, not ranked.
    Admitted,
    /// The first stage that removed it.
    Removed(RemovalReason),
}

/// How far an offer came: the index of the stage that removed it. Rising with the pipeline.
pub(super) fn depth(reason: &RemovalReason) -> u8 {
    match reason {
        RemovalReason::Status => 0,
        RemovalReason::Schedule => 1,
        RemovalReason::EmergencyExcluded => 2,
        RemovalReason::Inventory => 3,
        RemovalReason::Creative => 4,
        RemovalReason::Rule(_)
        | RemovalReason::Eligibility
        | RemovalReason::Filter { .. }
        | RemovalReason::Guardrail(_) => 5,
        RemovalReason::OptOut => 6,
        RemovalReason::Excluded => 7,
        RemovalReason::ProfileCap(_) => 8,
        RemovalReason::GlobalCap(_) => 9,
        RemovalReason::MandatoryPerDay => 10,
        RemovalReason::Policy(_) => 11,
        RemovalReason::ZeroFactor => 12,
        RemovalReason::Outscored => 13,
        RemovalReason::Coupled => 14,
        RemovalReason::Contended => 15,
    }
}

impl Case<'_> {
    /// Mandatory until it expires; then a normal offer.
    pub(super) fn is_mandatory(&self, offer: &OfferRow) -> bool {
        let until = offer.body.mandatory_expires_at.as_ref().map(|moment| self.calendar.resolve(moment));
        offer.body.kind == OfferKind::General && offer.body.mandatory && until.is_some_and(|until| self.now() < until)
    }

    /// The offer's way through all stages; the score decides nothing yet.
    pub(super) fn stand(&self, offer: &OfferRow, slot: &Slot, by_priority: bool) -> Standing {
        if self.is_mandatory(offer) {
            return match self.admit_mandatory(offer, slot, &Choices::default()) {
                Ok(_) => Standing::Admitted,
                Err(reason) => Standing::Removed(reason),
            };
        }
        let creative = match self.qualify(offer, slot) {
            Ok(creative) => creative,
            Err(reason) => return Standing::Removed(reason),
        };
        if let Err(reason) = self.contact(offer, creative.as_ref(), slot, &Choices::default()) {
            return Standing::Removed(reason);
        }
        let scored = self.score(offer, creative.as_ref(), slot, by_priority);
        if scored.is_removed {
            return Standing::Removed(RemovalReason::ZeroFactor);
        }
        Standing::Competes(creative, scored)
    }

    /// Status, schedule, emergency exclusion: the same for every slot and kind of offer.
    fn is_available(&self, offer: &OfferRow) -> Result<(), RemovalReason> {
        if !self.is_live(offer) {
            return Err(RemovalReason::Status);
        }
        if !self.hours(offer).are_open(self.now(), &self.at.frame) {
            return Err(RemovalReason::Schedule);
        }
        if offer.body.emergency_excluded {
            return Err(RemovalReason::EmergencyExcluded);
        }
        Ok(())
    }

    /// Active, in an active category and sub-category (if in any).
    pub(super) fn is_live(&self, offer: &OfferRow) -> bool {
        let category = self.category_of(&offer.body).and_then(|key| self.catalog.categories().get(key));
        let sub_category = self.sub_category_of(&offer.body).and_then(|key| self.catalog.sub_categories().get(key));
        offer.body.status == Status::Active
            && category.is_none_or(|category| category.body.status == Status::Active)
            && sub_category.is_none_or(|sub_category| sub_category.body.status == Status::Active)
    }

    fn hours(&self, offer: &OfferRow) -> OpenHours {
        let schedule = &offer.body.schedule;
        let window = schedule.time_window.as_ref();
        let (start, end) = (window.map(|window| window.start.0), window.map(|window| window.end.0));
        OpenHours {
            from: schedule.start_date.as_ref().map_or(OpenHours::ALWAYS.from, |moment| self.calendar.resolve(moment)),
            until: schedule
                .end_date
                .as_ref()
                .map_or(OpenHours::ALWAYS.until, |moment| self.calendar.resolve_end(moment)),
            local: LocalHours::new(&schedule.days_of_week, start, end),
        }
    }

    fn is_in_inventory(&self, offer: &OfferRow) -> bool {
        self.flow.inventories.iter().all(|inventory| Self::is_in(inventory, offer))
    }

    fn is_in(inventory: &Inventory, offer: &OfferRow) -> bool {
        let Inventory { scope, category_ids, sub_category_ids, offer_ids, include_statuses: _ } = inventory;
        match scope {
            InventoryScope::All => true,
            InventoryScope::Category => {
                offer.body.category_id.as_ref().is_some_and(|own| category_ids.contains(own))
                    || offer.body.sub_category_id.as_ref().is_some_and(|own| sub_category_ids.contains(own))
            }
            InventoryScope::Manual => offer_ids.iter().any(|id| id.0 == offer.id),
        }
    }

    /// Everything up to `excludeOffers` for a regular offer, and the creative it would show.
    fn qualify(&self, offer: &OfferRow, slot: &Slot) -> Result<Option<CreativeRow>, RemovalReason> {
        self.is_available(offer)?;
        if !self.is_in_inventory(offer) || !slot.admits(offer) {
            return Err(RemovalReason::Inventory);
        }
        let mode = self.flow.creatives.placement_match_mode;
        let mut creatives = self.creatives_on(offer, slot.channel);
        let fit = |creatives: &[CreativeRow]| self.fitting(creatives, slot, mode);
        if self.needs_creative(slot) && fit(&creatives).is_empty() {
            return Err(RemovalReason::Creative);
        }
        let had_creatives = !creatives.is_empty();
        for rule in self.hard_rules() {
            let scopes = rule.body.all_scopes();
            let binds = self.binds(&scopes, offer, slot);
            let binds_some = creatives.iter().any(|creative| Self::binds_creative(&scopes, creative));
            if !(binds || binds_some) || self.passes(&rule, offer) {
                continue;
            }
            creatives.retain(|creative| !Self::binds_creative(&scopes, creative));
            if binds || had_creatives && fit(&creatives).is_empty() {
                return Err(RemovalReason::Rule(rule.key));
            }
        }
        if !self.flow.qualify.is_empty() && !self.is_eligible(offer) {
            return Err(RemovalReason::Eligibility);
        }
        if let Some((reason, _)) = self.flow.filters.iter().find(|(_, filter)| !self.passes_filter(filter, offer)) {
            return Err(*reason);
        }
        let failing = self.guardrails(GuardrailMode::Hard).into_iter().find(|row| !self.meets(&row.body, offer));
        if let Some(guardrail) = failing {
            return Err(RemovalReason::Guardrail(guardrail.key));
        }
        if self.has_opted_out(offer, slot) {
            return Err(RemovalReason::OptOut);
        }
        creatives.retain(|creative| !self.is_excluded_creative(creative));
        let fitting = fit(&creatives);
        if self.request.exclude_offers.contains(&offer.key) || had_creatives && fitting.is_empty() {
            return Err(RemovalReason::Excluded);
        }
        Ok(self.variant(offer, &fitting))
    }

    fn has_opted_out(&self, offer: &OfferRow, slot: &Slot) -> bool {
        self.profile.opt_outs().iter().any(|opt_out| match opt_out {
            OptOut::Offer(key) => *key == offer.key,
            OptOut::Category(category) => self.category_of(&offer.body) == Some(*category),
            OptOut::Channel(channel) => *channel == slot.channel,
            OptOut::All => true,
        })
    }

    /// Caps, budgets and policies: what depends on what was chosen before.
    pub(super) fn contact(
        &self,
        offer: &OfferRow,
        creative: Option<&CreativeRow>,
        slot: &Slot,
        chosen: &Choices,
    ) -> Result<(), RemovalReason> {
        if let Some(reason) = self.cap_reached(offer, slot, chosen) {
            return Err(reason);
        }
        let proposed = Proposed { offer, creative, slot, mandatory: false };
        self.blocking_policy(&proposed, chosen).map_or(Ok(()), |policy| Err(RemovalReason::Policy(policy)))
    }

    /// Whether a mandatory offer may be prepended in the slot, and with which creative. It skips inventory, rules,
    /// opt-outs and bypassable policies.
    pub(super) fn admit_mandatory(
        &self,
        offer: &OfferRow,
        slot: &Slot,
        chosen: &Choices,
    ) -> Result<Option<CreativeRow>, RemovalReason> {
        self.is_available(offer)?;
        if !slot.admits(offer) {
            return Err(RemovalReason::Inventory);
        }
        let fit = |creatives: &[CreativeRow]| self.fitting(creatives, slot, self.flow.creatives.placement_match_mode);
        let mut creatives = self.creatives_on(offer, slot.channel);
        let had_creatives = !creatives.is_empty();
        if self.needs_creative(slot) && fit(&creatives).is_empty() {
            return Err(RemovalReason::Creative);
        }
        creatives.retain(|creative| !self.is_excluded_creative(creative));
        let fitting = fit(&creatives);
        if self.request.exclude_offers.contains(&offer.key) || had_creatives && fitting.is_empty() {
            return Err(RemovalReason::Excluded);
        }
        if let Some(reason) = self.cap_reached(offer, slot, chosen) {
            return Err(reason);
        }
        if self.is_past_mandatory_limit(offer, chosen) {
            return Err(RemovalReason::MandatoryPerDay);
        }
        let creative = self.variant(offer, &fitting);
        let proposed = Proposed { offer, creative: creative.as_ref(), slot, mandatory: true };
        match self.blocking_policy(&proposed, chosen) {
            Some(policy) => Err(RemovalReason::Policy(policy)),
            None => Ok(creative),
        }
    }

    /// Whether the offer would be one distinct mandatory offer too many today.
    fn is_past_mandatory_limit(&self, offer: &OfferRow, chosen: &Choices) -> bool {
        let mut today = self.profile.mandatory_today(self.now()).to_vec();
        today.extend(chosen.0.iter().filter(|choice| choice.mandatory).map(|choice| choice.offer));
        today.sort_unstable();
        today.dedup();
        !today.contains(&offer.key) && today.len() >= self.catalog.settings().mandatory_per_day as usize
    }

    /// The creative of a fallback offer, if it may be shown in the slot: it obeys status, exclusion and the request's
    /// excludes, nothing else.
    pub(super) fn admit_fallback(&self, offer: &OfferRow, slot: &Slot) -> Option<CreativeRow> {
        let barred =
            !self.is_live(offer) || offer.body.emergency_excluded || self.request.exclude_offers.contains(&offer.key);
        if barred {
            return None;
        }
        let mut creatives = self.creatives_on(offer, slot.channel);
        creatives.retain(|creative| !self.is_excluded_creative(creative));
        let fitting = self.fitting(&creatives, slot, crate::model::flow::PlacementMatchMode::Any);
        self.variant(offer, &fitting)
    }
}
