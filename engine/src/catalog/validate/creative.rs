//! Creatives.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{fallback, text};
use crate::keys::{CreativeKey, OfferKey};
use crate::limits;
use crate::model::channel::Channel;
use crate::model::creative::Creative;
use crate::model::fault::Faults;
use crate::model::offer::Offer;
use crate::model::placement::Placement;
use crate::model::template::{self, Piece};
use crate::value::Value;

impl Authored for Creative {
    stored_in!(creatives: CreativeKey, EntityKind::Creative, at most 5_000_000);
    const UNIQUE_NAME: bool = false;
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[
        ("placementId", "contentType"),
        ("channelId", "placementId"),
        ("offerId", "personalization"),
        ("personalization", "content"),
    ];

    fn stand_in() -> Value {
        let word = || Value::text("-");
        Value::map([("name", word()), ("offerId", word()), ("channelId", word())])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_name("contentType", &self.content_type, faults);
        text::check_range("split", self.split, 0.0, 1e6, faults);
        text::check_words("personalization", &self.personalization, limits::LIST_ITEMS_MAX, faults);
        let offer = faults.within("offerId", |faults| resolve::<Offer>(tenant, &mut self.offer_id, faults));
        let channel = faults.within("channelId", |faults| resolve::<Channel>(tenant, &mut self.channel_id, faults));
        if let Some(reference) = &mut self.placement_id {
            let placement = faults.within("placementId", |faults| resolve::<Placement>(tenant, reference, faults));
            if let Some(slot) = placement.and_then(|key| tenant.placements.get(key)) {
                if channel.is_some() && slot.body.channel_id != self.channel_id {
                    faults.add_at("placementId", "is a placement of another channel");
                }
                if !slot.body.admits(&self.content_type) {
                    let fits = slot.body.content_types.join(", ");
                    let message = format!("does not fit placement {}, which takes {}", slot.id, shown(&fits));
                    faults.add_at("contentType", message);
                }
            }
        }
        if !self.personalization.is_empty() {
            faults.within("content", |faults| check_template(&self.content, &self.personalization, faults));
        }
        if let Some(offer) = offer {
            self.check_personalization(offer, context, findings);
        }
        if let Some(before) = context.before
            && let Some(activity) = fallback::activity_unserved(tenant, before.key, &before.body, Some(self))
        {
            let message = format!("activity {activity} would have no content for its fallback offer");
            findings.conflicts.add(message);
        }
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        let placement = self.placement_id.as_ref();
        [
            thing_of::<Offer>(tenant, &self.offer_id),
            thing_of::<Channel>(tenant, &self.channel_id),
            placement.and_then(|placement| thing_of::<Placement>(tenant, placement)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn touched(
        tenant: &TenantCatalog,
        _key: CreativeKey,
        before: Option<&Self>,
        after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        let offers = [before, after].into_iter().flatten().filter_map(|body| tenant.offers.key_of(&body.offer_id.0));
        effect.extend(offers.map(Touched::Offer));
    }
}

/// Checks every text of a content that is filled: it names what `personalization` lists.
fn check_template(content: &Value, listed: &[String], faults: &mut Faults) {
    match content {
        Value::Text(text) => match template::pieces(text) {
            Err(why) => faults.add(why),
            Ok(pieces) => {
                for piece in pieces {
                    if let Piece::Slot { name, .. } = piece
                        && !listed.iter().any(|known| known == name)
                    {
                        faults.add(format!("{:?} is not listed in personalization", shown(name)));
                    }
                }
            }
        },
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                faults.within(&index.to_string(), |faults| check_template(item, listed, faults));
            }
        }
        Value::Map(members) => {
            for (name, item) in members.iter() {
                faults.within(name, |faults| check_template(item, listed, faults));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Creative {
    /// Names in `personalization` are custom fields of the offer's category.
    fn check_personalization(&self, offer: OfferKey, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let before = context.before.map(|row| &row.body);
        if before.is_some_and(|old| old.personalization == self.personalization && old.offer_id == self.offer_id) {
            return;
        }
        let category = tenant.offers.get(offer).and_then(|row| row.body.category_id.as_ref());
        let fields =
            category.and_then(|id| tenant.categories.by_id(&id.0)).map(|row| row.body.custom_fields.as_slice());
        findings.faults.within("personalization", |faults| {
            for (index, name) in self.personalization.iter().enumerate() {
                if !fields.unwrap_or(&[]).iter().any(|field| field.name == *name) {
                    let message = format!("the offer's category has no custom field {:?}", shown(name));
                    faults.add_at(&index.to_string(), message);
                }
            }
        });
    }
}
