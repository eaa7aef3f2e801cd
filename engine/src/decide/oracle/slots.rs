//! The slots of a request: where each proposition would go, and what may compete for it.

use std::sync::Arc;

use super::case::{Case, OfferRow};
use crate::decide::request::SlotTarget;
use crate::keys::{ActivityKey, ChannelKey, CollectionKey, PlacementKey};
use crate::model::channel::CouplingMode;
use crate::model::collection::Collection;
use crate::model::{Entity, Ref, Status};

/// One place to fill. A request without slots has one without a number.
pub(super) struct Slot {
    pub(super) number: Option<u16>,
    pub(super) activity: Option<ActivityKey>,
    /// Effective channel, or NONE.
    pub(super) channel: ChannelKey,
    /// Or NONE.
    pub(super) placement: PlacementKey,
    pub(super) limit: usize,
    /// Flow, activity, placement and channel are in force.
    pub(super) is_active: bool,
    pub(super) is_atomic: bool,
    pub(super) collection: Option<Arc<Entity<CollectionKey, Collection>>>,
    pub(super) fallback: Option<Ref>,
}

/// Most propositions of a request without slots that gives no limit.
const DEFAULT_LIMIT: u32 = 5;

impl Case<'_> {
    pub(super) fn slots(&self) -> Vec<Slot> {
        if self.request.slots.is_empty() {
            let channel = self.request.channel.unwrap_or(ChannelKey::NONE);
            let limit = self.request.limit.unwrap_or(DEFAULT_LIMIT).min(self.flow.most);
            return vec![Slot {
                number: None,
                activity: None,
                channel,
                placement: PlacementKey::NONE,
                limit: limit as usize,
                is_active: self.flow.is_active && self.is_open(channel),
                is_atomic: false,
                collection: None,
                fallback: None,
            }];
        }
        let slots = self.request.slots.iter().zip(0..);
        slots.map(|(slot, number)| self.slot(slot.target, slot.limit as usize, number)).collect()
    }

    fn slot(&self, target: SlotTarget, limit: usize, number: u16) -> Slot {
        let activity = match target {
            SlotTarget::Placement(_) => None,
            SlotTarget::Activity(activity) => self.catalog.activities().get(activity),
        };
        let (key, placement) = match target {
            SlotTarget::Placement(placement) => (None, Some(placement)),
            SlotTarget::Activity(key) => (
                Some(key),
                activity.and_then(|activity| self.catalog.placements().key_of(&activity.body.placement_id.0)),
            ),
        };
        let placed = placement.and_then(|placement| self.catalog.placements().get(placement));
        let channel = placement.and_then(|placement| self.catalog.channel_of(placement)).unwrap_or(ChannelKey::NONE);
        let is_atomic = self
            .catalog
            .channels()
            .get(channel)
            .is_some_and(|channel| channel.body.coupling_mode == CouplingMode::Atomic);
        Slot {
            number: Some(number),
            activity: key,
            channel,
            placement: placement.unwrap_or(PlacementKey::NONE),
            limit,
            is_active: self.flow.is_active
                && placed.is_some_and(|placement| placement.body.status == Status::Active)
                && self.is_open(channel)
                && (key.is_none() || activity.is_some_and(|activity| activity.body.status == Status::Active)),
            is_atomic,
            collection: activity
                .and_then(|activity| self.catalog.collections().by_id(&activity.body.collection_id.0).cloned()),
            fallback: activity.map(|activity| activity.body.fallback_offer_id.clone()),
        }
    }

    /// Whether a channel (if there is one) is active.
    fn is_open(&self, channel: ChannelKey) -> bool {
        channel == ChannelKey::NONE
            || self.catalog.channels().get(channel).is_some_and(|channel| channel.body.status == Status::Active)
    }
}

impl Slot {
    /// Whether the slot's collection, if it has one, holds the offer: `offerIds` if any are given, else all of `allOf` and
    /// one of `anyOf`; all empty = every general offer.
    pub(super) fn admits(&self, offer: &OfferRow) -> bool {
        let Some(collection) = &self.collection else { return self.activity.is_none() };
        let Collection { status, all_of, any_of, offer_ids, .. } = &collection.body;
        if *status != Status::Active {
            return false;
        }
        if !offer_ids.is_empty() {
            return offer_ids.iter().any(|id| id.0 == offer.id);
        }
        let has = |tag: &String| offer.body.tags.contains(tag);
        all_of.iter().all(has) && (any_of.is_empty() || any_of.iter().any(has))
    }
}
