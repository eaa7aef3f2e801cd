//! Fallback offers promise to fill the slots that name them: no write may take away what that needs.

use crate::catalog::command::EntityKind;
use crate::catalog::index::Thing;
use crate::catalog::tenant::TenantCatalog;
use crate::keys::{CreativeKey, OfferKey, PlacementKey};
use crate::model::Status;
use crate::model::activity::Activity;
use crate::model::creative::Creative;
use crate::model::placement::Placement;

/// Whether a creative's content can be shown in a placement: made for it, or for any of its channel.
pub(crate) fn serves(tenant: &TenantCatalog, creative: &Creative, placement: PlacementKey) -> bool {
    tenant.placements.get(placement).is_some_and(|slot| fits(tenant, creative, placement, &slot.body))
}

/// The same, were the placement's body this one.
pub(crate) fn fits(tenant: &TenantCatalog, creative: &Creative, placement: PlacementKey, slot: &Placement) -> bool {
    let is_for = match &creative.placement_id {
        Some(own) => tenant.placements.key_of(&own.0) == Some(placement),
        None => slot.channel_id == creative.channel_id,
    };
    is_for && creative.status == Status::Active && slot.admits(&creative.content_type)
}

/// Whether the offer has an active creative for the placement, with `except` counted as `instead` (`None`: gone).
pub(crate) fn is_served(
    tenant: &TenantCatalog,
    offer: OfferKey,
    placement: PlacementKey,
    except: Option<(CreativeKey, Option<&Creative>)>,
) -> bool {
    let stored = tenant
        .creatives_of(offer)
        .filter(|row| except.is_none_or(|(key, _)| key != row.key))
        .any(|row| serves(tenant, &row.body, placement));
    let changed = except.and_then(|(_, instead)| instead).is_some_and(|creative| {
        tenant.offers.key_of(&creative.offer_id.0) == Some(offer) && serves(tenant, creative, placement)
    });
    stored || changed
}

/// The activities that name an offer as their fallback.
pub(crate) fn activities_of(tenant: &TenantCatalog, offer: OfferKey) -> impl Iterator<Item = (&str, &Activity)> {
    tenant
        .index
        .users_of_kind(Thing::new(EntityKind::Offer, offer), EntityKind::Activity)
        .filter_map(|user| tenant.activities.get(user.key()))
        .map(|row| (row.id.as_str(), &row.body))
}

/// The first activity left without content for its fallback offer if the creative becomes `after` (`None`: deleted).
pub(crate) fn activity_unserved<'a>(
    tenant: &'a TenantCatalog,
    key: CreativeKey,
    before: &Creative,
    after: Option<&Creative>,
) -> Option<&'a str> {
    let offer = tenant.offers.key_of(&before.offer_id.0)?;
    activities_of(tenant, offer).find_map(|(id, activity)| {
        let placement = tenant.placements.key_of(&activity.placement_id.0)?;
        // Only what was served by this creative can be lost with it.
        let lost = serves(tenant, before, placement) && !is_served(tenant, offer, placement, Some((key, after)));
        lost.then_some(id)
    })
}
