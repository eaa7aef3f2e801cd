//! `POST /respond` and `POST /release`.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::{Call, ReleaseRequest, RespondRequest};
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::catalog::outcomes::OPT_OUT;
use proffer_engine::catalog::table::Resolved;
use proffer_engine::decide::decision::PropositionKind;
use proffer_engine::keys::{ChannelKey, CreativeKey, CustomerId, Micros, OfferKey, PlacementKey};
use proffer_engine::model::Ref;
use proffer_engine::model::fault::Faults;
use proffer_engine::profile::command::{DecisionId, OptOut};
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;

use crate::asked::{Asked, typed};
use crate::idempotency;
use crate::limits::TIMESTAMP_AHEAD_MS_MAX;
use crate::problem::Problem;
use crate::recommendation::{Refused, Token, TokenArm};
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::field::Name;
use crate::wire::respond::{Release, Respond};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct RespondAnswer {
    recorded: bool,
    duplicate: bool,
    late: bool,
    repeat: bool,
    over_cap: bool,
}

/// `POST /api/v1/respond`.
pub async fn respond(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let value = asked.json()?;
    let body: Respond = typed(&value)?;
    asked.at_home(&CustomerId(body.customer_id.0.clone()))?;
    let key = idempotency::required(&asked.headers, body.idempotency_key.as_ref())?;
    let request = outcome(&asked, &body)?;
    let call =
        Call { idempotency: Some(idempotency::call_key("respond", &key, &value)), ..Call::until(asked.deadline) };
    let responded = asked.handle().respond(request, call).await?;
    let answer = RespondAnswer {
        recorded: responded.recorded,
        duplicate: responded.duplicate,
        late: responded.late,
        repeat: responded.repeat,
        over_cap: responded.over_cap,
    };
    Ok(json(StatusCode::OK, &answer))
}

/// What was shown.
#[derive(Clone, Copy)]
struct Shown {
    proposition: Option<(DecisionId, u16)>,
    offer: OfferKey,
    creative: CreativeKey,
    channel: ChannelKey,
    placement: PlacementKey,
    evidence: bool,
    /// It was withheld from a held-out customer.
    withheld: bool,
}

fn outcome(asked: &Asked, body: &Respond) -> Result<RespondRequest, Problem> {
    let catalog = &*asked.view.catalog;
    let customer = CustomerId(body.customer_id.0.clone());
    let token = body.recommendation_id.as_deref().map(|id| open(asked, id, &customer)).transpose()?;
    let mut faults = Faults::new();
    let kind = catalog.outcomes().get(&body.outcome.0);
    if kind.is_none() {
        faults.add_at("outcome", format!("outcome {:?} does not exist", body.outcome.0));
    }
    let named = Named::read(catalog, body, &mut faults);
    let shown = match &token {
        Some(token) => proposed(token, body.rank, named, &mut faults),
        None => unproposed(catalog, body, named, &mut faults),
    };
    let decided_at = token.as_ref().map(|token| token.at);
    check_timestamp(body.timestamp.as_deref(), decided_at, asked.now(), &mut faults);
    let value = money(body.conversion_value, &mut faults);
    let outcome = kind.map(|kind| kind.key);
    let opt_out = match (outcome, &shown) {
        (Some(OPT_OUT), Some(shown)) => opt_out(catalog, body, shown, &mut faults),
        _ => None,
    };
    check_details(body.outcome_details.as_ref(), &mut faults);
    let (Some(shown), Some(outcome), true) = (shown, outcome, faults.is_empty()) else {
        return Err(Problem::Invalid(faults.into_vec()));
    };
    Ok(RespondRequest {
        tenant: asked.tenant().clone(),
        customer,
        proposition: shown.proposition,
        decided_at,
        offer: shown.offer,
        creative: shown.creative,
        channel: shown.channel,
        placement: shown.placement,
        outcome,
        value,
        evidence: shown.evidence,
        opt_out,
        withheld: shown.withheld,
    })
}

fn open(asked: &Asked, id: &str, customer: &CustomerId) -> Result<Token, Problem> {
    let opened = asked.app.config.token_keys.open(id, asked.tenant(), customer, asked.now());
    opened.map_err(|refused| match refused {
        Refused::Foreign => Problem::invalid("/recommendationId", refused.to_string()),
        Refused::Expired => Problem::Expired,
    })
}

/// Offer and creative that the body names, if it does.
#[derive(Clone, Copy)]
struct Named {
    offer: Option<OfferKey>,
    creative: Option<CreativeKey>,
}

impl Named {
    fn read(catalog: &TenantCatalog, body: &Respond, faults: &mut Faults) -> Named {
        let mut find = |member: &str, name: &Option<Name>| -> Option<u32> {
            let reference = Ref(name.as_ref()?.0.to_string());
            let found = match member {
                "offerId" => number(catalog.offers().resolve(&reference), |key| key.0),
                _ => number(catalog.creatives().resolve(&reference), |key| key.0),
            };
            if found.is_none() {
                faults.add_at(member, format!("{:?} does not exist", reference.0));
            }
            found
        };
        let offer = find("offerId", &body.offer_id).map(OfferKey);
        let creative = find("creativeId", &body.creative_id).map(CreativeKey);
        Named { offer, creative }
    }
}

fn number<K>(resolved: Resolved<K>, number: impl FnOnce(K) -> u32) -> Option<u32> {
    match resolved {
        Resolved::Found(key) => Some(number(key)),
        Resolved::Unknown | Resolved::Ambiguous => None,
    }
}

/// The proposition of `token` that the body names by rank, offer or creative; or the ghost.
fn proposed(token: &Token, rank: Option<u16>, named: Named, faults: &mut Faults) -> Option<Shown> {
    let at = |rank: u16| token.propositions.get(usize::from(rank).checked_sub(1)?).map(|found| (rank, *found));
    let fits = |offer: OfferKey, creative: CreativeKey| {
        named.offer.is_none_or(|wanted| wanted == offer) && named.creative.is_none_or(|wanted| wanted == creative)
    };
    let found = match rank {
        Some(rank) => {
            let found = at(rank);
            if found.is_none() {
                faults.add_at("rank", format!("the answer had {} propositions", token.propositions.len()));
                return None;
            }
            found.filter(|(_, found)| fits(found.offer, found.creative))
        }
        None if named.offer.is_none() && named.creative.is_none() => {
            if faults.is_empty() {
                faults.add_at("rank", "is required, or offerId or creativeId");
            }
            return None;
        }
        None => {
            (1..=token.propositions.len() as u16).filter_map(at).find(|(_, found)| fits(found.offer, found.creative))
        }
    };
    if let Some((rank, found)) = found {
        return Some(Shown {
            proposition: Some((token.decision, rank)),
            offer: found.offer,
            creative: found.creative,
            channel: found.channel,
            placement: found.placement,
            evidence: found.kind == PropositionKind::Regular && token.arm != TokenArm::Control,
            withheld: false,
        });
    }
    if let Some(ghost) = token.ghosts.iter().find(|ghost| rank.is_none() && fits(ghost.offer, ghost.creative)) {
        return Some(Shown {
            proposition: None,
            offer: ghost.offer,
            creative: ghost.creative,
            channel: ChannelKey::NONE,
            placement: PlacementKey::NONE,
            evidence: false,
            withheld: true,
        });
    }
    let member = if named.offer.is_some() { "offerId" } else { "creativeId" };
    faults.add_at(member, "is not what was proposed");
    None
}

/// An outcome that names no decision: what it is about comes from the catalogue.
fn unproposed(catalog: &TenantCatalog, body: &Respond, named: Named, faults: &mut Faults) -> Option<Shown> {
    if body.rank.is_some() {
        faults.add_at("rank", "needs a recommendationId");
    }
    let creative = named.creative.and_then(|key| catalog.creatives().get(key));
    let owner = creative.and_then(|creative| catalog.offers().key_of(&creative.body.offer_id.0));
    let offer = match (named.offer, owner) {
        (Some(offer), Some(owner)) if offer != owner => {
            faults.add_at("creativeId", "belongs to another offer");
            return None;
        }
        (offer, owner) => offer.or(owner),
    };
    let Some(offer) = offer else {
        if body.offer_id.is_none() && body.creative_id.is_none() {
            faults.add_at("offerId", "is required, or creativeId, or recommendationId and rank");
        }
        return None;
    };
    let channel = creative.and_then(|creative| catalog.channels().key_of(&creative.body.channel_id.0));
    let placement = creative.and_then(|creative| catalog.placements().key_of(&creative.body.placement_id.as_ref()?.0));
    Some(Shown {
        proposition: None,
        offer,
        creative: named.creative.unwrap_or(CreativeKey::NONE),
        channel: channel.unwrap_or(ChannelKey::NONE),
        placement: placement.unwrap_or(PlacementKey::NONE),
        evidence: false,
        withheld: false,
    })
}

pub(super) fn check_timestamp(text: Option<&str>, decided_at: Option<Timestamp>, now: Timestamp, faults: &mut Faults) {
    let Some(text) = text else { return };
    let Ok(at) = text.parse::<jiff::Timestamp>() else {
        faults.add_at("timestamp", "must be an ISO 8601 date-time with an offset");
        return;
    };
    let at = Timestamp(at.as_millisecond());
    if at.since_ms(now) > TIMESTAMP_AHEAD_MS_MAX {
        faults.add_at("timestamp", "lies more than 5 minutes ahead");
    }
    // A client that kept whole seconds only has not answered before it was asked.
    if decided_at.is_some_and(|decided| decided.since_ms(at) >= 1_000) {
        faults.add_at("timestamp", "lies before the decision");
    }
}

fn money(amount: Option<f64>, faults: &mut Faults) -> Option<Micros> {
    let amount = amount?;
    if amount.abs() > 1e9 {
        faults.add_at("conversionValue", "must be from -1000000000 to 1000000000");
        return None;
    }
    Some(Micros((amount * 1e6).round() as i64))
}

fn check_details(details: Option<&Value>, faults: &mut Faults) {
    if let Some(details) = details
        && details.as_map().is_none()
        && !details.is_null()
    {
        faults.add_at("outcomeDetails", format!("must be an object, not {}", details.kind()));
    }
}

fn opt_out(catalog: &TenantCatalog, body: &Respond, shown: &Shown, faults: &mut Faults) -> Option<OptOut> {
    let details = body.outcome_details.as_ref().and_then(Value::as_map);
    let Some(scope) = details.and_then(|details| details.get("scope")) else { return Some(OptOut::Offer(shown.offer)) };
    let fault = |faults: &mut Faults, message: &str| {
        faults.within("outcomeDetails", |faults| faults.add_at("scope", message));
        None
    };
    match scope.as_text() {
        Some("offer") => Some(OptOut::Offer(shown.offer)),
        Some("all") => Some(OptOut::All),
        Some("channel") if shown.channel != ChannelKey::NONE => Some(OptOut::Channel(shown.channel)),
        Some("channel") => fault(faults, "is channel, but the outcome names no channel"),
        Some("category") => {
            let offer = catalog.offers().get(shown.offer);
            let category = offer.and_then(|offer| catalog.categories().key_of(&offer.body.category_id.as_ref()?.0));
            match category {
                Some(category) => Some(OptOut::Category(category)),
                None => fault(faults, "is category, but the offer has none"),
            }
        }
        Some(_) | None => fault(faults, "must be one of offer category channel all"),
    }
}

/// `POST /api/v1/release`.
pub async fn release(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let body: Release = typed(&asked.json()?)?;
    let customer = CustomerId(body.customer_id.0.clone());
    asked.at_home(&customer)?;
    let token = open(&asked, &body.recommendation_id, &customer)?;
    let most = token.propositions.len();
    let mut faults = Faults::new();
    faults.within("ranks", |faults| {
        for (index, rank) in body.ranks.iter().enumerate() {
            if !(1..=most).contains(&usize::from(*rank)) {
                faults.add_at(&index.to_string(), format!("the answer had {most} propositions"));
            }
        }
    });
    if !faults.is_empty() {
        return Err(Problem::Invalid(faults.into_vec()).into());
    }
    let request =
        ReleaseRequest { tenant: asked.tenant().clone(), customer, decision: token.decision, ranks: body.ranks };
    asked.handle().release(request, Call::until(asked.deadline)).await?;
    Ok(json(StatusCode::OK, &Released { released: true }))
}

#[derive(serde::Serialize)]
struct Released {
    released: bool,
}
