//! Activities.

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, resolve, shown, stored_in, thing_of};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::slug::slug;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{fallback, text};
use crate::keys::ActivityKey;
use crate::model::Status;
use crate::model::activity::Activity;
use crate::model::collection::Collection;
use crate::model::offer::{Offer, OfferKind};
use crate::model::placement::Placement;
use crate::value::Value;

impl Authored for Activity {
    stored_in!(activities: ActivityKey, EntityKind::Activity, at most 10_000);
    const UNIQUE_NAME: bool = false;
    const DEPENDENT: &'static [(&'static str, &'static str)] = &[("placementId", "fallbackOfferId")];

    fn stand_in() -> Value {
        let word = || Value::text("-");
        Value::map([("name", word()), ("collectionId", word()), ("placementId", word()), ("fallbackOfferId", word())])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let tenant = context.tenant;
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        let key = self.key.get_or_insert_with(|| slug(&self.name, '-')).clone();
        text::check_key("key", &key, faults);
        if tenant.index.activity_keys.get(&key).is_some_and(|taken| Some(*taken) != context.key()) {
            findings.conflicts.add_at("key", format!("another activity has the key {:?}", shown(&key)));
        }
        faults.within("collectionId", |faults| resolve::<Collection>(tenant, &mut self.collection_id, faults));
        let placement =
            faults.within("placementId", |faults| resolve::<Placement>(tenant, &mut self.placement_id, faults));
        faults.within("fallbackOfferId", |faults| {
            let Some(offer) = resolve::<Offer>(tenant, &mut self.fallback_offer_id, faults) else { return };
            let row = tenant.offers.get(offer).expect("a resolved key has a row");
            if row.body.kind != OfferKind::Fallback {
                faults.add("must be an offer of kind fallback");
            } else if row.body.status != Status::Active {
                faults.add("must be an active offer");
            }
            if placement.is_some_and(|placement| !fallback::is_served(tenant, offer, placement, None)) {
                faults.add("has no active creative for the placement");
            }
        });
        if let Some(flow) = &self.decision_flow_key
            && tenant.flow_by_key(flow).is_none()
        {
            faults.add_at("decisionFlowKey", format!("no decision flow has the key {:?}", shown(flow)));
        }
    }

    fn references(&self, tenant: &TenantCatalog) -> Vec<Thing> {
        let flow = self.decision_flow_key.as_deref().and_then(|key| tenant.flow_by_key(key));
        [
            thing_of::<Collection>(tenant, &self.collection_id),
            thing_of::<Placement>(tenant, &self.placement_id),
            thing_of::<Offer>(tenant, &self.fallback_offer_id),
            flow.map(|row| Thing::new(EntityKind::Flow, row.key)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn reindex(tenant: &mut TenantCatalog, key: ActivityKey, before: Option<&Self>, after: Option<&Self>) {
        if let Some(word) = before.and_then(|body| body.key.as_ref()) {
            tenant.index.activity_keys.remove(word);
        }
        if let Some(word) = after.and_then(|body| body.key.as_ref()) {
            tenant.index.activity_keys.insert(word.clone(), key);
        }
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: ActivityKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}
