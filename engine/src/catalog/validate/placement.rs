//! Placements.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::slug::slug;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{fallback, text};
use crate::keys::PlacementKey;
use crate::limits;
use crate::model::Status;
use crate::model::channel::Channel;
use crate::model::placement::Placement;
use crate::value::Value;

impl Authored for Placement {
    stored_in!(placements: PlacementKey, EntityKind::Placement, at most 10_000);
    const UNIQUE_NAME: bool = false;

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("channelId", Value::text("-"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_words("contentTypes", &self.content_types, limits::LIST_ITEMS_MAX, faults);
        let key = self.key.get_or_insert_with(|| slug(&self.name, '-')).clone();
        text::check_key("key", &key, faults);
        let channel =
            faults.within("channelId", |faults| resolve::<Channel>(context.tenant, &mut self.channel_id, faults));
        let Some(channel) = channel else { return };
        let taken = context.tenant.index.placement_keys.get(&(channel, key.clone()));
        if taken.is_some_and(|taken| Some(*taken) != context.key()) {
            findings.conflicts.add_at("key", format!("another placement of the channel has the key {:?}", shown(&key)));
        }
        if let Some(before) = context.before {
            self.check_users(before.key, &before.body, context, findings);
        }
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        thing_of::<Channel>(tenant, &self.channel_id).into_iter().collect()
    }

    fn reindex(tenant: &mut TenantCatalog, key: PlacementKey, before: Option<&Self>, after: Option<&Self>) {
        let place = |body: &Self| Some((tenant.channels.key_of(&body.channel_id.0)?, body.key.clone()?));
        let (before, after) = (before.and_then(place), after.and_then(place));
        if let Some(before) = before {
            tenant.index.placement_keys.remove(&before);
        }
        if let Some(after) = after {
            tenant.index.placement_keys.insert(after, key);
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: PlacementKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

impl Placement {
    /// Whether content of this type fits.
    pub(crate) fn admits(&self, content_type: &str) -> bool {
        self.content_types.is_empty() || self.content_types.iter().any(|fits| fits == content_type)
    }

    /// What lies in a placement must still fit after it changes.
    fn check_users(&self, key: PlacementKey, before: &Placement, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let this = Thing::new(EntityKind::Placement, key);
        if before.channel_id != self.channel_id && tenant.index.users(this).next().is_some() {
            findings.conflicts.add_at("channelId", "cannot change while something refers to the placement");
        }
        if before.content_types == self.content_types {
            return;
        }
        let misfits = tenant
            .index
            .users_of_kind(this, EntityKind::Creative)
            .filter_map(|user| tenant.creatives.get(user.key()))
            .filter(|row| row.body.status != Status::Archived && !self.admits(&row.body.content_type));
        for creative in misfits {
            let content_type = shown(&creative.body.content_type);
            let message = format!("creative {} was made for it with content type {content_type:?}", creative.id);
            findings.conflicts.add_at("contentTypes", message);
        }
        let unserved = tenant
            .index
            .users_of_kind(this, EntityKind::Activity)
            .filter_map(|user| tenant.activities.get(user.key()))
            .filter(|row| {
                let offer = tenant.offers.key_of(&row.body.fallback_offer_id.0);
                // Content made for the placement is looked at above.
                offer.is_some_and(|offer| {
                    fallback::is_served(tenant, offer, key, None)
                        && !tenant.creatives_of(offer).any(|row| fallback::fits(tenant, &row.body, key, self))
                })
            });
        for activity in unserved {
            let message = format!("activity {} would have no content for its fallback offer", activity.id);
            findings.conflicts.add_at("contentTypes", message);
        }
    }
}
