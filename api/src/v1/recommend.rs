//! `POST /recommend`, `/decisions`, `/simulate`.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use proffer_cluster::calls::{Call, Decided, Degraded};
use proffer_engine::calendar::iso;
use proffer_engine::decide::decision::Funnel;
use proffer_engine::decide::request::Request;
use proffer_engine::keys::CustomerId;
use proffer_engine::model::rest::Rest;
use proffer_engine::profile::command::DecisionId;
use proffer_engine::time::DAY_MS;
use proffer_engine::value::{Members, Value};

use crate::asked::{Asked, typed};
use crate::forwarding::Unanswered;
use crate::idempotency;
use crate::limits::TRACE_BYTES_ANSWERED;
use crate::problem::Problem;
use crate::recommendation::{Refused, Token, TokenArm, TokenProposition, customer_hash};
use crate::resolve::{Slots, resolve};
use crate::routes::Answered;
use crate::traces;
use crate::v1::json;
use crate::wire::answer::{Answer, Meta, Trace, Words, empty_reason};
use crate::wire::recommend::Recommend;

/// Says that an answer is the first one to its idempotency key again. Not a member of the body: that has the first one's bytes.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// `POST /api/v1/recommend`.
pub async fn recommend(asked: Arc<Asked>) -> Answered {
    answer(asked, Slots::Placements, false).await
}

/// `POST /api/v1/decisions`.
pub async fn decisions(asked: Arc<Asked>) -> Answered {
    answer(asked, Slots::Activities, false).await
}

/// `POST /api/v1/simulate`: the same, but nothing is taken or recorded, and the answer cannot be responded to.
pub async fn simulate(asked: Arc<Asked>) -> Answered {
    answer(asked, Slots::Any, true).await
}

async fn answer(asked: Arc<Asked>, slots: Slots, dry_run: bool) -> Answered {
    asked.query.only(&["explain", "debug", "trace"])?;
    let value = asked.json()?;
    let mut body = read(&value, slots, &asked)?;
    body.explain |= asked.query.flag("explain")?;
    body.debug |= asked.query.flag("debug")?;
    body.trace |= asked.query.flag("trace")?;
    asked.at_home(&CustomerId(body.customer_id.0.clone()))?;
    let request = resolve(&body, slots, &asked.view)?;
    let idempotency = match idempotency::header(&asked.headers)? {
        Some(key) if !dry_run => Some(idempotency::call_key("decide", key, &value)),
        Some(_) | None => None,
    };
    let supersedes = match &body.supersedes {
        Some(id) => Some(superseded(&asked, id, &request.customer)?),
        None => None,
    };
    let sampled = !dry_run && is_sampled(&asked);
    let trace = body.trace || sampled;
    let call = Call { deadline: asked.deadline, idempotency, supersedes, dry_run, trace };
    let funnels = if body.debug { slot_funnels(&asked, &request).await? } else { Vec::new() };
    let slots = request.slots.clone();
    let channel = request.channel;
    let decided = asked.handle().decide(request, call).await?;
    let id = if dry_run { None } else { Some(seal(&asked, &decided, &CustomerId(body.customer_id.0.clone()))) };
    let record = decided.trace.as_ref().map(|trace| traces::seal(&asked.app.config.token_keys, trace));
    let record = record.and_then(|record| keep(&asked, &decided, &body, record, sampled));
    let mut answer = write(&decided, &body, channel, &slots, &funnels, (id.as_deref(), record));
    if decided.duplicate {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Whether the decision is traced unasked: so many of a hundred are.
fn is_sampled(asked: &Asked) -> bool {
    let percent = asked.view.catalog.settings().trace_percent.0;
    percent > 0.0 && (asked.app.config.entropy.u64() as f64) < percent / 100.0 * (u64::MAX as f64)
}

/// Keeps a trace that nobody asked for, or that no answer can carry; the rest is for the answer.
fn keep(asked: &Asked, decided: &Decided, body: &Recommend, text: String, sampled: bool) -> Option<String> {
    let is_carried = body.trace && text.len() <= TRACE_BYTES_ANSWERED;
    if sampled || !is_carried {
        asked.app.traces.keep(traces::Kept {
            id: format!("{:016x}", decided.id.0),
            tenant: asked.tenant().clone(),
            customer: CustomerId(body.customer_id.0.clone()),
            at: decided.at,
            revision: decided.decision.revision,
            text: text.as_str().into(),
        });
    }
    is_carried.then_some(text)
}

/// The body; if it cannot be read, every fault of it, names that do not exist in what can be read included.
pub(super) fn read(value: &Value, slots: Slots, asked: &Asked) -> Result<Recommend, Problem> {
    let mut faults = match (typed(value), value.as_map()) {
        (Err(Problem::Invalid(faults)), Some(_)) => faults,
        (read, _) => return read,
    };
    let mut rest = Rest::of(value.as_map().expect("matched above"), &faults, |_| false);
    if rest.lacks("channel") || rest.lacks("channelId") {
        // A placement is looked up in its channel.
        ["placement", "placements"].into_iter().for_each(|member| rest.distrust(member));
    }
    if ["placement", "placements", "activities"].into_iter().any(|member| rest.lacks(member)) {
        // How slots go together is not known.
        rest.distrust("activities");
    }
    let stand_in = Members::from([(Arc::from("customerId"), Value::text("-"))]);
    if let Some(readable) = rest.read::<Recommend>(&stand_in)
        && let Err(Problem::Invalid(found)) = resolve(&readable, slots, &asked.view)
    {
        faults.extend(rest.relevant(found));
    }
    Err(Problem::Invalid(faults))
}

fn superseded(asked: &Asked, id: &str, customer: &CustomerId) -> Result<DecisionId, Problem> {
    let opened = asked.app.config.token_keys.open(id, asked.tenant(), customer, asked.now());
    opened.map(|token| token.decision).map_err(|refused| match refused {
        Refused::Foreign => Problem::invalid("/supersedes", refused.to_string()),
        Refused::Expired => Problem::Expired,
    })
}

/// The funnel of each slot as if it were asked for alone, for `debug`.
async fn slot_funnels(asked: &Asked, request: &Request) -> Result<Vec<Funnel>, Unanswered> {
    let mut funnels = Vec::with_capacity(request.slots.len());
    for slot in &request.slots {
        let alone = Request { slots: vec![*slot], ..request.clone() };
        let call = Call { dry_run: true, ..Call::until(asked.deadline) };
        funnels.push(asked.handle().decide(alone, call).await?.decision.funnel);
    }
    Ok(funnels)
}

/// The `recommendationId` of a decision for `customer`.
pub(super) fn seal(asked: &Asked, decided: &Decided, customer: &CustomerId) -> String {
    let decision = &decided.decision;
    let window = i64::from(decided.view.catalog.settings().outcome_window_days) * DAY_MS;
    let arm = match &decision.arm {
        None => TokenArm::None,
        Some(arm) if arm.control => TokenArm::Control,
        Some(_) => TokenArm::Treated,
    };
    let propositions = decision.propositions.iter().map(|chosen| TokenProposition {
        offer: chosen.offer,
        creative: chosen.creative,
        channel: chosen.channel,
        placement: chosen.placement,
        kind: chosen.kind,
    });
    asked.app.config.token_keys.seal(Token {
        tenant: asked.tenant().clone(),
        customer: customer_hash(customer),
        decision: decided.id,
        at: decided.at,
        expires_at: decided.at.plus_ms(window),
        revision: decision.revision,
        flow: decision.flow.key.map(|key| (key, decision.flow.version)),
        arm,
        propositions: propositions.collect(),
        ghosts: decision.ghosts.clone(),
    })
}

fn write(
    decided: &Decided,
    body: &Recommend,
    channel: Option<proffer_engine::keys::ChannelKey>,
    slots: &[proffer_engine::decide::request::SlotRequest],
    funnels: &[Funnel],
    (id, record): (Option<&str>, Option<String>),
) -> Response {
    let decision = &decided.decision;
    let catalog = &*decided.view.catalog;
    let words = Words { catalog, compact: decision.flow.compact };
    let explanation = decision.explanation.as_deref();
    // What has been excluded since a first answer is left out here and only here: ranks and id are those of the first.
    let ranked = decision.propositions.iter().zip(1..).filter(|(_, rank)| !decided.excluded.contains(rank));
    let entries = ranked.filter_map(|(chosen, rank)| {
        let index = usize::from(rank) - 1;
        let factors = explanation.and_then(|explanation| explanation.factors.get(index));
        let expires = decided.expires.get(index).copied().flatten();
        words.entry(usize::from(rank), chosen, expires, factors)
    });
    let entries: Vec<_> = entries.collect();
    let slot_entries = (!slots.is_empty()).then(|| {
        let outcomes = slots.iter().zip(&decision.slots).enumerate();
        outcomes.map(|(index, (slot, outcome))| words.slot(*slot, *outcome, funnels.get(index).copied())).collect()
    });
    let meta = Meta {
        funnel: decision.funnel.into(),
        degraded_scoring: decision.remarks.degraded,
        empty: decision.empty.map(empty_reason),
        control_group: decision.arm.as_ref().filter(|arm| arm.control).map(|_| true),
        experiment: decision.arm.as_ref().map(Into::into),
        budget_limited: decision.remarks.budget_limited,
        degraded: decided.degraded.map(|degraded| match degraded {
            Degraded::Contention => "contention",
        }),
        excluded: !decided.excluded.is_empty(),
        trace: body.trace.then(|| Trace {
            seed: format!("{:016x}", decided.seed),
            decided_at: iso(decided.at),
            revision: decision.revision.0,
            id: format!("{:016x}", decided.id.0),
            record,
        }),
    };
    let flow = decision.flow.key.and_then(|key| catalog.flows().get(key));
    json(
        StatusCode::OK,
        &Answer {
            interaction_id: id,
            recommendation_id: id,
            customer_id: &body.customer_id.0,
            decision_flow_key: flow.map(|flow| flow.body.key.as_str()),
            decision_flow_version: decision.flow.version,
            channel: channel.and_then(|channel| words.channel(channel)),
            count: entries.len(),
            decisions: entries,
            slots: slot_entries,
            meta,
            explanation: explanation.map(|explanation| words.removed(explanation)),
        },
    )
}
