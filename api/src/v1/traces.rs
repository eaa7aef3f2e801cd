//! `POST /replay`, `GET /traces`: decisions again, from what they read.

use std::sync::Arc;

use axum::http::StatusCode;
use proffer_cluster::ports::offload::{self, Lane};
use proffer_engine::calendar::iso;
use proffer_engine::record;
use xxhash_rust::xxh3::xxh3_128;

use crate::asked::{Asked, typed};
use crate::limits::PAGE_TRACES_MAX;
use crate::problem::Problem;
use crate::routes::Answered;
use crate::traces;
use crate::v1::json;

record! {
    /// A trace to decide again.
    pub struct Replay {
        /// As an answer, or `GET /traces/{id}`, gave it.
        pub trace: String => "trace",
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Replayed<'a> {
    same: bool,
    customer_id: &'a str,
    decided_at: String,
    seed: String,
    revision: u64,
    offers: Vec<&'a str>,
    /// XXH3-128 of the decision's bytes.
    recorded: String,
    replayed: String,
    difference: Option<Difference>,
}

#[derive(serde::Serialize)]
struct Difference {
    path: String,
    recorded: String,
    replayed: String,
}

/// `POST /api/v1/replay`: decides again what a trace holds, under the catalogue of then.
pub async fn replay(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let body: Replay = typed(&asked.json()?)?;
    let foreign = || Problem::invalid("/trace", "is no trace that this cluster made");
    let trace = traces::open(&asked.app.config.token_keys, &body.trace).ok_or_else(foreign)?;
    if trace.recorded.request.tenant != *asked.tenant() {
        return Err(foreign().into());
    }
    let revision = trace.recorded.revision;
    let then = match asked.handle().catalogue_at(asked.tenant(), revision) {
        Some(then) => then,
        None => {
            asked.handle().wait_for_revision(revision, asked.deadline).await?;
            let then = asked.handle().catalogue_at(asked.tenant(), revision);
            then.ok_or_else(|| Problem::Conflict {
                message: format!("the catalogue of revision {revision} is no longer kept on this node"),
                faults: Vec::new(),
            })?
        }
    };
    let offload = Arc::clone(&asked.app.config.offload);
    let working = offload::call(&*offload, Lane::Bulk, move || {
        let snapshot = then.compiled();
        let again = trace.replay(&snapshot);
        let difference = trace.difference(&again);
        (trace, again, difference, then)
    });
    let (trace, again, difference, then) = working.await.map_err(|lost| {
        tracing::error!(%lost, "a decision could not be replayed");
        Problem::Internal
    })?;
    let hash = |decision| format!("{:032x}", xxh3_128(&proffer_engine::codec::encode(decision)));
    let propositions = again.propositions.iter();
    let offers = propositions.filter_map(|proposed| then.catalog().offers().get(proposed.offer));
    let answer = Replayed {
        same: difference.is_none(),
        customer_id: &trace.recorded.request.customer.0,
        decided_at: iso(trace.recorded.now),
        seed: format!("{:016x}", trace.recorded.seed),
        revision: revision.0,
        offers: offers.map(|offer| offer.id.as_str()).collect(),
        recorded: hash(&trace.recorded.decision),
        replayed: hash(&again),
        difference: difference.map(|at| Difference { path: at.path, recorded: at.recorded, replayed: at.replayed }),
    };
    Ok(json(StatusCode::OK, &answer))
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    id: &'a str,
    customer_id: &'a str,
    decided_at: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(kept: &'a traces::Kept, whole: bool) -> Self {
        Entry {
            id: &kept.id,
            customer_id: &kept.customer.0,
            decided_at: iso(kept.at),
            revision: kept.revision.0,
            trace: whole.then_some(&*kept.text),
        }
    }
}

#[derive(serde::Serialize)]
struct List<'a> {
    items: Vec<Entry<'a>>,
}

/// `GET /api/v1/traces`: those that this node keeps, newest first.
pub async fn list(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let kept = asked.app.traces.of(asked.tenant());
    let items = kept.iter().take(PAGE_TRACES_MAX).map(|kept| Entry::of(kept, false)).collect();
    Ok(json(StatusCode::OK, &List { items }))
}

/// `GET /api/v1/traces/{id}`.
pub async fn get(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let id = asked.param("id");
    let kept = asked.app.traces.of(asked.tenant()).into_iter().find(|kept| kept.id == id);
    let kept = kept.ok_or_else(|| Problem::not_found(format!("trace {id:?} on this node")))?;
    Ok(json(StatusCode::OK, &Entry::of(&kept, true)))
}
