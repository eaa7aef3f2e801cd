//! `POST /what-if`: what recorded decisions would be under a changed catalogue. Nothing is written and nothing counted.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::ports::offload::{self, Lane};
use proffer_engine::catalog::{Actor, Catalog, Command, CommandV1, EntityKind, Op, Role, TenantCatalog};
use proffer_engine::decide::trace::Trace;
use proffer_engine::decide::what_if::{Comparison, Totals, Under, compare};
use proffer_engine::keys::{OfferKey, Revision};
use proffer_engine::model::fault::Faults;
use proffer_engine::record;
use proffer_engine::snapshot::Snapshot;
use proffer_engine::value::Value;

use crate::asked::{Asked, typed};
use crate::limits::{TRACES_KEPT, WHAT_IF_CHANGES_MAX, WHAT_IF_OFFERS_MAX};
use crate::problem::Problem;
use crate::routes::Answered;
use crate::traces;
use crate::v1::json;
use crate::wire::value::{Number, round_score, round_significant};

record! {
    /// What is asked.
    pub struct WhatIf {
        /// Traces as answers carry them; without any, those that this node keeps.
        pub traces: Vec<String> => "traces" = Vec::new(),
        /// What would be written, in this order.
        pub changes: Vec<Change> => "changes",
    }
}

record! {
    /// One write that is not made.
    pub struct Change {
        /// Kind of entity, as in its route.
        pub kind: String => "kind",
        /// Which; a new one without.
        pub id: Option<String> => "id" = None,
        /// The members to set, or the whole body of a new one.
        pub set: Value => "set" = Value::Null,
        /// It would be gone, with what hangs on it.
        pub delete: bool => "delete" = false,
        /// Of a flow: its draft would be published.
        pub publish: bool => "publish" = false,
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct WhatIfAnswer {
    decisions: u64,
    changed: u64,
    before: Sums,
    after: Sums,
    offers: Vec<Moved>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Sums {
    filled: u64,
    propositions: u64,
    fallbacks: u64,
    mean_score: Number,
    revenue: Number,
    budget_limited: u64,
    total_candidates: u32,
    after_qualification: u32,
    after_suppression: u32,
    after_contact_policy: u32,
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Self {
        let mean = if totals.propositions > 0 { totals.score / totals.propositions as f64 } else { 0.0 };
        Sums {
            filled: totals.filled,
            propositions: totals.propositions,
            fallbacks: totals.fallbacks,
            mean_score: Number(round_score(mean)),
            revenue: Number(round_significant(totals.revenue)),
            budget_limited: totals.budget_limited,
            total_candidates: totals.funnel.total_candidates,
            after_qualification: totals.funnel.after_qualification,
            after_suppression: totals.funnel.after_suppression,
            after_contact_policy: totals.funnel.after_contact_policy,
        }
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    offer_id: String,
    before: u64,
    after: u64,
}

/// `POST /api/v1/what-if`.
pub async fn what_if(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let body: WhatIf = typed(&asked.json()?)?;
    let traces = read_traces(&asked, &body)?;
    let ops = read_changes(&body.changes)?;
    let offload = Arc::clone(&asked.app.config.offload);
    let working = offload::call(&*offload, Lane::Bulk, move || try_out(&asked, &traces, ops));
    let answer = working.await.map_err(|lost| {
        tracing::error!(%lost, "a change could not be tried out");
        Problem::Internal
    })??;
    Ok(json(StatusCode::OK, &answer))
}

fn read_traces(asked: &Asked, body: &WhatIf) -> Result<Vec<Trace>, Problem> {
    let keys = &asked.app.config.token_keys;
    if body.traces.is_empty() {
        let kept = asked.app.traces.of(asked.tenant());
        return Ok(kept.iter().filter_map(|kept| traces::open(keys, &kept.text)).collect());
    }
    if body.traces.len() > TRACES_KEPT {
        return Err(Problem::invalid("/traces", format!("must have at most {TRACES_KEPT} items")));
    }
    let mut faults = Faults::new();
    let mut read = Vec::with_capacity(body.traces.len());
    for (index, text) in body.traces.iter().enumerate() {
        match traces::open(keys, text).filter(|trace| trace.recorded.request.tenant == *asked.tenant()) {
            Some(trace) => read.push(trace),
            None => faults.within("traces", |faults| {
                faults.add_at(&index.to_string(), "is no trace that this cluster made");
            }),
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(Problem::Invalid(faults.into_vec())) }
}

fn read_changes(changes: &[Change]) -> Result<Vec<Op>, Problem> {
    let mut faults = Faults::new();
    let mut ops = Vec::new();
    if changes.len() > WHAT_IF_CHANGES_MAX {
        return Err(Problem::invalid("/changes", format!("must have at most {WHAT_IF_CHANGES_MAX} items")));
    }
    faults.within("changes", |faults| {
        for (index, change) in changes.iter().enumerate() {
            faults.within(&index.to_string(), |faults| read_change(index, change, &mut ops, faults));
        }
    });
    if faults.is_empty() { Ok(ops) } else { Err(Problem::Invalid(faults.into_vec())) }
}

fn read_change(index: usize, change: &Change, ops: &mut Vec<Op>, faults: &mut Faults) {
    let Some(kind) = EntityKind::parse(&change.kind) else {
        faults.add_at("kind", "is no kind of entity");
        return;
    };
    let is_set = !change.set.is_null();
    match (&change.id, change.delete) {
        (None, _) if !is_set || change.delete => faults.add_at("id", "is required, or set for a new one"),
        (Some(_), false) if !is_set && !change.publish => faults.add_at("set", "is required, or delete, or publish"),
        (Some(_), true) if is_set || change.publish => faults.add_at("delete", "leaves nothing to change"),
        (Some(id), true) => ops.push(Op::Delete { kind, id: id.clone(), force: true, has_history: false }),
        (id, false | true) => {
            let new = format!("what-if-{index}");
            let body = || change.set.clone();
            match id {
                Some(id) if is_set => {
                    ops.push(Op::Update { kind, id: id.clone(), patch: body(), expected: None });
                }
                Some(_) => {}
                None => ops.push(Op::Create { kind, id: new.clone(), body: body() }),
            }
            if change.publish {
                ops.push(Op::PublishFlow { id: id.clone().unwrap_or(new) });
            }
        }
    }
    if change.publish && kind != EntityKind::Flow {
        faults.add_at("publish", "is for decision flows");
    }
}

fn try_out(asked: &Asked, traces: &[Trace], ops: Vec<Op>) -> Result<WhatIfAnswer, Problem> {
    let view = &asked.view;
    let mut trial = Catalog::trial(asked.tenant().clone(), TenantCatalog::clone(&view.catalog));
    let actor = Actor { name: asked.identity.name.clone(), admin: asked.identity.roles.contains(&Role::Admin) };
    let revision = Revision(view.revision.0 + 1);
    for op in ops {
        let command = CommandV1 { tenant: asked.tenant().clone(), actor: actor.clone(), at: asked.now(), op };
        trial.apply(revision, &Command::V1(command))?;
    }
    let changed = trial.tenant(asked.tenant()).ok_or(Problem::Internal)?;
    let snapshot = Snapshot::compile(asked.tenant(), changed, revision);
    let before = Under { catalog: &view.catalog, snapshot: &view.snapshot };
    let found = compare(traces, before, Under { catalog: changed, snapshot: &snapshot });
    Ok(describe(&found, &view.catalog, changed))
}

fn describe(found: &Comparison, before: &TenantCatalog, after: &TenantCatalog) -> WhatIfAnswer {
    let mut keys: Vec<OfferKey> = found.before.offers.keys().chain(found.after.offers.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let times = |totals: &Totals, key: OfferKey| totals.offers.get(&key).copied().unwrap_or(0);
    let id = |key| after.offers().get(key).or_else(|| before.offers().get(key)).map(|offer| offer.id.clone());
    let moved = keys.into_iter().filter_map(|key| {
        Some(Moved { offer_id: id(key)?, before: times(&found.before, key), after: times(&found.after, key) })
    });
    let mut offers: Vec<Moved> = moved.collect();
    offers.sort_by_key(|moved| std::cmp::Reverse(moved.before.abs_diff(moved.after)));
    offers.truncate(WHAT_IF_OFFERS_MAX);
    WhatIfAnswer {
        decisions: found.decisions,
        changed: found.changed,
        before: (&found.before).into(),
        after: (&found.after).into(),
        offers,
    }
}
