//! Which content an offer would show in a slot.

use std::sync::Arc;

use super::case::{Case, OfferRow};
use super::slots::Slot;
use crate::decide::variant;
use crate::keys::{ChannelKey, CreativeKey, PlacementKey};
use crate::model::creative::Creative;
use crate::model::flow::PlacementMatchMode;
use crate::model::{Entity, Status};

pub(super) type CreativeRow = Arc<Entity<CreativeKey, Creative>>;

impl Case<'_> {
    /// The offer's active creatives on the slot's channel, by key.
    pub(super) fn creatives_on(&self, offer: &OfferRow, channel: ChannelKey) -> Vec<CreativeRow> {
        let creatives = self.catalog.creatives().iter().filter(|creative| {
            creative.body.offer_id.0 == offer.id
                && creative.body.status == Status::Active
                && self.catalog.channels().key_of(&creative.body.channel_id.0) == Some(channel)
        });
        creatives.cloned().collect()
    }

    /// Those of `creatives` that fit the slot: of content types that its placement takes, the ones made for it, else (unless
    /// matching is exact) those made for none; in a list without slots all of them.
    pub(super) fn fitting(&self, creatives: &[CreativeRow], slot: &Slot, mode: PlacementMatchMode) -> Vec<CreativeRow> {
        let takes = |creative: &&CreativeRow| {
            let placement = self.catalog.placements().get(slot.placement);
            placement.is_none_or(|placement| {
                let types = &placement.body.content_types;
                types.is_empty() || types.contains(&creative.body.content_type)
            })
        };
        let creatives: Vec<CreativeRow> = creatives.iter().filter(takes).cloned().collect();
        let made_for = |placement: Option<PlacementKey>| -> Vec<CreativeRow> {
            let is_for = |creative: &&CreativeRow| {
                let own = creative.body.placement_id.as_ref().map(|id| self.catalog.placements().key_of(&id.0));
                own == placement.map(Some)
            };
            creatives.iter().filter(is_for).cloned().collect()
        };
        if slot.placement == PlacementKey::NONE {
            return creatives;
        }
        let exact = made_for(Some(slot.placement));
        match mode {
            PlacementMatchMode::None => creatives,
            PlacementMatchMode::Exact => exact,
            PlacementMatchMode::Any if exact.is_empty() => made_for(None),
            PlacementMatchMode::Any => exact,
        }
    }

    /// Whether propositions in the slot must have a creative.
    pub(super) fn needs_creative(&self, slot: &Slot) -> bool {
        slot.placement != PlacementKey::NONE || self.flow.creatives.require_creative
    }

    /// The variant this customer sees.
    pub(super) fn variant(&self, offer: &OfferRow, fitting: &[CreativeRow]) -> Option<CreativeRow> {
        let splits: Vec<f64> = fitting.iter().map(|creative| creative.body.split).collect();
        let index = variant::choose(&self.request.tenant, &offer.id, &self.request.customer, &splits)?;
        Some(Arc::clone(&fitting[index]))
    }

    pub(super) fn is_excluded_creative(&self, creative: &CreativeRow) -> bool {
        self.request.exclude_creatives.contains(&creative.key)
    }
}
