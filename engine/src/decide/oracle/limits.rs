//! An offer's own caps and budget: whether a unit is free, and what a proposition takes.

use super::case::{Case, OfferRow};
use super::choice::{Choice, Choices};
use super::slots::Slot;
use crate::catalog::CapDefinition;
use crate::decide::counting::cap_window;
use crate::decide::decision::RemovalReason;
use crate::keys::{OfferKey, PlacementKey};
use crate::model::offer::{CapScope, CountOn, Enforcement};
use crate::profile::command::{CapTake, CountEvent, TakeAccount};
use crate::time::SECOND_MS;

impl Case<'_> {
    /// The first profile cap of the offer that has no unit left, else the first global one.
    pub(super) fn cap_reached(&self, offer: &OfferRow, slot: &Slot, chosen: &Choices) -> Option<RemovalReason> {
        let caps = || self.catalog.caps(offer.key).iter().filter(|cap| counts_in(cap, slot.placement));
        let profile = caps().find(|cap| cap.scope == CapScope::Profile && self.is_used_up(cap, offer.key, chosen));
        let global = || caps().find(|cap| cap.scope == CapScope::Global && self.is_exhausted(cap, offer.key, chosen));
        profile
            .map(|cap| RemovalReason::ProfileCap(cap.cap))
            .or_else(|| global().map(|cap| RemovalReason::GlobalCap(cap.cap)))
    }

    /// Whether a profile cap has no unit left for one more proposition.
    fn is_used_up(&self, cap: &CapDefinition, offer: OfferKey, chosen: &Choices) -> bool {
        let window = cap_window(cap.per, cap.window, &self.at.frame);
        self.profile.cap_used(cap.cap, window, self.now()) + taken_by(cap, offer, chosen) >= cap.limit
    }

    /// Whether the shard's account of a global cap cannot pay for one more proposition. A strict cap takes units in hand, and
    /// without an account can pay nothing; a soft one needs none in hand: it bars what is known to be used up, and without an
    /// account nothing.
    pub(super) fn is_exhausted(&self, cap: &CapDefinition, offer: OfferKey, chosen: &Choices) -> bool {
        let wanted = (taken_by(cap, offer, chosen) + 1).saturating_mul(cap.cost);
        match (self.escrow.free(cap.cap, self.now()), cap.enforcement) {
            (None, Enforcement::Strict) => true,
            (None, Enforcement::Soft) => false,
            (Some(free), Enforcement::Strict) => wanted > free.amount,
            (Some(free), Enforcement::Soft) => free.left.is_some_and(|left| wanted > left),
        }
    }

    /// What a proposition of the offer in the slot takes: a unit of each strict cap.
    pub(super) fn takes(&self, offer: &OfferRow, slot: &Slot) -> Vec<CapTake> {
        let caps = self.catalog.caps(offer.key).iter();
        let strict = caps.filter(|cap| cap.enforcement == Enforcement::Strict && counts_in(cap, slot.placement));
        strict.filter_map(|cap| self.take(cap, slot)).collect()
    }

    fn take(&self, cap: &CapDefinition, slot: &Slot) -> Option<CapTake> {
        let account = match cap.scope {
            CapScope::Profile => {
                TakeAccount::Profile { limit: cap.limit, window: cap_window(cap.per, cap.window, &self.at.frame) }
            }
            CapScope::Global => {
                TakeAccount::Global { account: self.escrow.free(cap.cap, self.now())?.account, amount: cap.cost }
            }
        };
        let count_on = match &cap.count_on {
            CountOn::Decision => CountEvent::Decision,
            CountOn::Impression => CountEvent::Impression,
            CountOn::Outcome(word) => CountEvent::Outcome(self.catalog.outcomes().get(word)?.key),
        };
        let channel = self.catalog.channels().get(slot.channel);
        let seconds = cap
            .reservation_seconds
            .or_else(|| channel.and_then(|channel| channel.body.reservation_seconds))
            .unwrap_or(self.catalog.settings().reservation_seconds);
        let expires_at = self.now().plus_ms(i64::from(seconds) * SECOND_MS);
        Some(CapTake { cap: cap.cap, account, count_on, expires_at })
    }
}

/// Whether the cap counts propositions in this placement.
fn counts_in(cap: &CapDefinition, placement: PlacementKey) -> bool {
    cap.placement.is_none_or(|only| only == placement)
}

/// Units that earlier choices of the same answer use of a cap. A soft cap on outcomes is used by none: they may never come.
fn taken_by(cap: &CapDefinition, offer: OfferKey, chosen: &Choices) -> u64 {
    let counts = match (&cap.count_on, cap.enforcement) {
        (CountOn::Outcome(_), Enforcement::Soft) => false,
        (CountOn::Decision | CountOn::Impression, _) | (CountOn::Outcome(_), Enforcement::Strict) => true,
    };
    chosen.count(|choice: &Choice| counts && choice.offer == offer && counts_in(cap, choice.placement))
}
