//! `POST /adobe/decisions`: decisions in the shape of Adobe's decisioning API, so that a client written for it changes its URL and key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode};
use proffer_cluster::calls::{Call, Decided};
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::decide::decision::{Proposition, PropositionKind};
use proffer_engine::decide::request::{Explain, Request, SlotRequest, SlotTarget};
use proffer_engine::keys::{ChannelKey, CustomerId};
use proffer_engine::model::Entity;
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;

use crate::asked::Asked;
use crate::idempotency;
use crate::limits::PROPOSITIONS_MAX;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::v1::json;
use crate::v1::recommend::{REPLAYED, seal};
use crate::wire::adobe::{
    ActivityDetail, AdobeAnswer, AdobeProfile, AdobeProposition, AdobeRequest, Chosen, OptionDetail, PlacementDetail,
    Thing,
};
use crate::wire::answer::Words;
use crate::wire::value::{Json, Number, round_score};

/// `POST /api/v1/adobe/decisions`.
pub async fn decisions(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let value = asked.json()?;
    let mut faults = Faults::new();
    let body = AdobeRequest::read(&value, &mut faults);
    body.iter().for_each(|body| body.check(&mut faults));
    let body = body.filter(|_| faults.is_empty()).ok_or_else(|| Problem::Invalid(faults.into_vec()))?;
    let [profile] = &body.profiles[..] else { unreachable!("one profile was checked for") };
    let customer = profile.customer().expect("an identity was checked for");
    let customer = CustomerId(Arc::clone(&customer.0));
    let named = idempotency::header(&asked.headers)?.or(profile.decision_request_id.as_ref().map(|id| &*id.0));
    let idempotency = named.filter(|_| !body.dry_run).map(|key| {
        // The id names the request, it is not a part of it.
        let unnamed = AdobeProfile { decision_request_id: None, ..profile.clone() };
        idempotency::call_key("adobe", key, &AdobeRequest { profiles: vec![unnamed], ..body.clone() }.write())
    });
    if idempotency.is_some() {
        asked.note_key();
    }
    asked.at_home(&customer)?;
    let request = request(&asked, &body, customer.clone())?;
    let call = Call { deadline: asked.deadline, idempotency, supersedes: None, dry_run: body.dry_run, trace: false };
    let slots = request.slots.clone();
    let decided = asked.handle().decide(request, call).await?;
    let id = (!body.dry_run).then(|| seal(&asked, &decided, &customer));
    let answer = AdobeAnswer {
        proposition_id: id.as_deref(),
        propositions: propositions(&body, &decided, &slots),
        created: decided.at.0,
        excluded: !decided.excluded.is_empty(),
    };
    let mut answer = json(StatusCode::OK, &answer);
    if decided.duplicate {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// The decision that is asked for.
fn request(asked: &Asked, body: &AdobeRequest, customer: CustomerId) -> Result<Request, Problem> {
    let mut faults = Faults::new();
    let slots = faults.within("xdm:propositionRequests", |faults| slots(&asked.view.catalog, body, faults));
    if !faults.is_empty() {
        return Err(Problem::Invalid(faults.into_vec()));
    }
    let context = body.profiles.iter().flat_map(|profile| profile.context());
    let channels: BTreeSet<_> = slots.iter().filter_map(|slot| channel_of(&asked.view.catalog, slot.target)).collect();
    Ok(Request {
        tenant: asked.view.tenant.clone(),
        customer,
        // What is asked of the request's channel is asked of the slots', if they have one together.
        channel: channels.first().copied().filter(|_| channels.len() == 1),
        slots,
        flow: None,
        limit: None,
        attributes: Vec::new(),
        context: context.map(|(name, value)| (Arc::from(name), value.clone())).collect(),
        segments: Vec::new(),
        exclude_offers: Vec::new(),
        exclude_creatives: Vec::new(),
        duplicates: body.allow_duplicates.duplicates(),
        arbitration: None,
        explain: Explain::Off,
        counters: true,
    })
}

fn channel_of(catalog: &TenantCatalog, slot: SlotTarget) -> Option<ChannelKey> {
    let SlotTarget::Activity(activity) = slot else { return None };
    let placement = catalog.placements().key_of(&catalog.activities().get(activity)?.body.placement_id.0)?;
    catalog.channel_of(placement)
}

fn slots(catalog: &TenantCatalog, body: &AdobeRequest, faults: &mut Faults) -> Vec<SlotRequest> {
    let most = catalog.settings().max_slots as usize;
    if body.proposition_requests.len() > most {
        faults.add(format!("must have at most {most} items"));
    }
    let asked: u32 = body.proposition_requests.iter().map(|asked| asked.item_count.0).sum();
    if asked > PROPOSITIONS_MAX {
        faults.add(format!("ask for {asked} propositions, at most {PROPOSITIONS_MAX} fit an answer"));
    }
    let mut slots = Vec::with_capacity(body.proposition_requests.len());
    for (index, asked) in body.proposition_requests.iter().enumerate() {
        faults.within(&index.to_string(), |faults| {
            let Some(activity) = catalog.activity(&asked.activity_id.0) else {
                return faults.add_at("xdm:activityId", format!("activity {:?} does not exist", asked.activity_id.0));
            };
            let placement = catalog.placements().by_id(&activity.body.placement_id.0);
            let is_its = placement.is_some_and(|placement| {
                *placement.id == *asked.placement_id.0 || placement.body.key.as_deref() == Some(&asked.placement_id.0)
            });
            if !is_its {
                let its = &activity.body.placement_id.0;
                return faults.add_at("xdm:placementId", format!("must be {its:?}, the activity's placement"));
            }
            slots.push(SlotRequest { target: SlotTarget::Activity(activity.key), limit: asked.item_count.0 });
        });
    }
    slots
}

/// What fills the slots, in their order.
fn propositions<'a>(body: &AdobeRequest, decided: &'a Decided, slots: &[SlotRequest]) -> Vec<AdobeProposition<'a>> {
    let catalog = &*decided.view.catalog;
    let wanted = &body.response_format.include_metadata;
    let filled = slots.iter().zip(0u16..).filter_map(|(slot, number)| {
        let SlotTarget::Activity(activity) = slot.target else { return None };
        // Of a repeated answer's activities some may have been deleted since.
        let activity = catalog.activities().get(activity)?;
        let placement = catalog.placements().by_id(&activity.body.placement_id.0)?;
        let ranked = decided.decision.propositions.iter().zip(1..);
        let shown = ranked.filter(|(chosen, rank)| chosen.slot == Some(number) && !decided.excluded.contains(rank));
        let (fallbacks, options): (Vec<_>, Vec<_>) =
            shown.partition(|(chosen, _)| chosen.kind == PropositionKind::Fallback);
        let fallback = fallbacks.first().and_then(|fallback| chosen(body, catalog, *fallback));
        let options: Vec<_> = options.into_iter().filter_map(|option| chosen(body, catalog, option)).collect();
        let channel = catalog.channels().by_id(&placement.body.channel_id.0);
        let says_channel = wanted.placement.contains(&PlacementDetail::Channel);
        Some(AdobeProposition {
            activity: thing(activity, |body| &body.name, wanted.activity.contains(&ActivityDetail::Name)),
            placement: Thing {
                channel: channel.filter(|_| says_channel).map(|channel| channel.body.name.as_str()),
                ..thing(placement, |body| &body.name, wanted.placement.contains(&PlacementDetail::Name))
            },
            options: fallback.is_none().then_some(options),
            fallback,
        })
    });
    filled.collect()
}

fn thing<'a, K, T>(entity: &'a Entity<K, T>, name: impl Fn(&'a T) -> &'a String, says_name: bool) -> Thing<'a> {
    Thing {
        id: &entity.id,
        etag: entity.revision.0,
        name: says_name.then(|| name(&entity.body).as_str()),
        channel: None,
    }
}

/// One offer; `None` if it was deleted since.
fn chosen<'a>(
    body: &AdobeRequest,
    catalog: &'a TenantCatalog,
    (chosen, rank): (&'a Proposition, u16),
) -> Option<Chosen<'a>> {
    let offer = catalog.offers().get(chosen.offer)?;
    let creative = catalog.creatives().get(chosen.creative);
    let (format, wanted) = (&body.response_format, &body.response_format.include_metadata.option);
    let words = Words { catalog, compact: false };
    let content = creative.filter(|_| format.include_content);
    let characteristics = || -> BTreeMap<_, _> {
        offer.body.custom_fields.iter().map(|(name, value)| (name.as_str(), Json(value))).collect()
    };
    Some(Chosen {
        offer: thing(offer, |body| &body.name, wanted.contains(&OptionDetail::Name)),
        content_type: creative.map(|creative| creative.body.content_type.as_str()),
        content: content.map(|creative| words.content(chosen, &offer.body, &creative.body)),
        score: (chosen.kind != PropositionKind::Fallback).then(|| Number(round_score(chosen.score))),
        rank,
        characteristics: wanted.contains(&OptionDetail::Characteristics).then(characteristics),
    })
}
