//! `GET /why-not`: why a customer is, or is not, proposed an offer. A dry run with an explanation, read for one offer.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::calls::{Call, Decided};
use proffer_engine::catalog::table::Resolved;
use proffer_engine::decide::decision::{Decision, EmptyReason};
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::keys::{CustomerId, OfferKey};
use proffer_engine::model::Ref;
use proffer_engine::model::fault::Fault;
use proffer_engine::model::offer::OfferKind;
use proffer_engine::value::Value;

use crate::asked::{Asked, typed};
use crate::problem::Problem;
use crate::resolve::{Slots, resolve};
use crate::routes::Answered;
use crate::v1::json;
use crate::wire::answer::{Entry, FunnelEntry, RemovedEntry, Words};
use crate::wire::recommend::Recommend;

/// Parameters that say where, as a body's members do.
const WHERE: [&str; 6] = ["channel", "channelId", "placement", "decisionFlowKey", "locale", "currency"];

/// The answer.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct WhyNot<'a> {
    customer_id: &'a str,
    offer_id: &'a str,
    decision_flow_key: Option<&'a str>,
    decision_flow_version: u32,
    /// Whether a recommend would answer with it now.
    proposed: bool,
    /// Each time that it would.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Entry<'a>>,
    /// The first thing that keeps it from being proposed.
    removed: Option<RemovedEntry<'a>>,
    meta: FunnelEntry,
}

/// `GET /api/v1/why-not?customerId&offerId`.
pub async fn why_not(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[&WHERE[..], &["customerId", "offerId", "activity"]].concat())?;
    let body = body(&asked)?;
    asked.at_home(&CustomerId(body.customer_id.0.clone()))?;
    let (offer, request) = read(&asked, &body)?;
    let call = Call { dry_run: true, ..Call::until(asked.deadline) };
    let decided = asked.handle().decide(request, call).await?;
    Ok(write(&decided, &body, offer))
}

/// The body of the recommend that is asked about.
fn body(asked: &Asked) -> Result<Recommend, Problem> {
    let given = |name: &'static str| Some((name, Value::text(asked.query.get(name)?)));
    let mut members: Vec<(&str, Value)> = WHERE.into_iter().chain(["customerId"]).filter_map(given).collect();
    if let Some(activity) = asked.query.get("activity") {
        members.push(("activities", Value::list([Value::text(activity)])));
    }
    members.push(("explain", Value::Bool(true)));
    typed(&Value::map(members)).map_err(of_query)
}

/// The offer, and the request that is tried out.
fn read(asked: &Asked, body: &Recommend) -> Result<(OfferKey, Request), Problem> {
    let named = asked.query.get("offerId");
    let offer = named.map(|named| asked.view.catalog.offers().resolve(&Ref(named.to_owned())));
    let offer = match offer {
        Some(Resolved::Found(offer)) => Ok(offer),
        Some(Resolved::Unknown) => Err(Problem::invalid("/query/offerId", "no offer has this id or name")),
        Some(Resolved::Ambiguous) => {
            Err(Problem::invalid("/query/offerId", "several offers are named so: give the id"))
        }
        None => Err(Problem::invalid("/query/offerId", "is required")),
    };
    let request = resolve(body, Slots::Any, &asked.view).map_err(of_query);
    match (offer, request) {
        (Ok(offer), Ok(request)) => Ok((offer, Request { explain: Explain::Full { limit: u32::MAX }, ..request })),
        (Err(Problem::Invalid(mut faults)), Err(Problem::Invalid(more))) => {
            faults.extend(more);
            Err(Problem::Invalid(faults))
        }
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    }
}

/// Faults of the body that stands for the query, with pointers into the query.
fn of_query(problem: Problem) -> Problem {
    let Problem::Invalid(faults) = problem else { return problem };
    let moved = faults.into_iter().map(|fault| Fault {
        pointer: match fault.pointer.strip_prefix("/activities") {
            Some(_) => "/query/activity".to_owned(),
            None => format!("/query{}", fault.pointer),
        },
        ..fault
    });
    Problem::Invalid(moved.collect())
}

fn write(decided: &Decided, body: &Recommend, offer: OfferKey) -> axum::response::Response {
    let decision = &decided.decision;
    let catalog = &*decided.view.catalog;
    let words = Words { catalog, compact: false };
    let explanation = decision.explanation.as_deref();
    let ranked = decision.propositions.iter().enumerate().filter(|(_, chosen)| chosen.offer == offer);
    let decisions = ranked.filter_map(|(index, chosen)| {
        words.entry(index + 1, chosen, None, explanation.and_then(|explanation| explanation.factors.get(index)))
    });
    let decisions: Vec<Entry<'_>> = decisions.collect();
    let removed = explanation.and_then(|explanation| explanation.removed.iter().find(|removed| removed.offer == offer));
    let removed = removed.and_then(|removed| words.removed_entry(removed));
    let removed = removed.or_else(|| {
        let (stage, detail) = otherwise(decision, catalog.offers().get(offer).map(|row| row.body.kind), offer);
        words.told(offer, stage, Cow::Borrowed(detail))
    });
    let flow = decision.flow.key.and_then(|key| catalog.flows().get(key));
    let answer = WhyNot {
        customer_id: &body.customer_id.0,
        offer_id: catalog.offers().get(offer).map_or("", |row| row.id.as_str()),
        decision_flow_key: flow.map(|flow| flow.body.key.as_str()),
        decision_flow_version: decision.flow.version,
        proposed: !decisions.is_empty(),
        removed: removed.filter(|_| decisions.is_empty()),
        decisions,
        meta: decision.funnel.into(),
    };
    json(StatusCode::OK, &answer)
}

/// What keeps an offer away that no stage removed.
fn otherwise(decision: &Decision, kind: Option<OfferKind>, offer: OfferKey) -> (&'static str, &'static str) {
    let inactive = Some(EmptyReason::Inactive);
    match kind {
        Some(OfferKind::Fallback) => {
            ("fallback", "a fallback offer competes for nothing: it fills slots of its activities")
        }
        None => ("status", "the offer is gone"),
        Some(OfferKind::General) if decision.ghosts.iter().any(|ghost| ghost.offer == offer) => {
            ("holdout", "the customer is held out: it would have been proposed")
        }
        Some(OfferKind::General)
            if decision.empty == inactive || decision.slots.iter().any(|slot| slot.empty == inactive) =>
        {
            ("inactive", "the flow, activity, placement or channel is not active")
        }
        Some(OfferKind::General) => ("none", "nothing keeps it away"),
    }
}
