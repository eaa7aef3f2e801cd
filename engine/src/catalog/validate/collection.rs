//! Collections.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve_all, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::text;
use crate::keys::CollectionKey;
use crate::limits;
use crate::model::collection::Collection;
use crate::model::offer::Offer;
use crate::value::Value;

impl Authored for Collection {
    stored_in!(collections: CollectionKey, EntityKind::Collection, at most 10_000);
    const UNIQUE_NAME: bool = true;

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        text::check_words("allOf", &self.all_of, limits::LIST_ITEMS_MAX, faults);
        text::check_words("anyOf", &self.any_of, limits::LIST_ITEMS_MAX, faults);
        text::check_count("offerIds", &self.offer_ids, limits::COLLECTION_OFFERS_MAX, faults);
        if self.offer_ids.len() <= limits::COLLECTION_OFFERS_MAX {
            faults.within("offerIds", |faults| {
                resolve_all::<Offer>(context.tenant, &mut self.offer_ids, faults);
            });
        }
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        self.offer_ids.iter().filter_map(|offer| thing_of::<Offer>(tenant, offer)).collect()
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: CollectionKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}
