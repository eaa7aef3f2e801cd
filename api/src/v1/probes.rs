//! `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use axum::response::Response;
use proffer_cluster::calls::Status;

use crate::App;
use crate::asked::Queried;
use crate::problem::Problem;
use crate::v1::json;

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
/// With `?verbose`.
pub struct Details {
    reasons: Vec<String>,
    remarks: Vec<String>,
    catalog_revision: u64,
    shards: u16,
    panics: u64,
}

impl Details {
    /// Of a node that answers nothing else yet: for this reason, and those of its cluster if it knows one.
    pub fn unready(reason: &str, status: Option<Status>) -> Self {
        let (revision, shards) = status.as_ref().map_or((0, 0), |status| (status.revision.0, status.shards));
        let (own, remarks) = status.map_or_else(Default::default, |status| (status.reasons, status.remarks));
        let reasons = std::iter::once(reason.to_owned()).chain(own).collect();
        Details { reasons, remarks, catalog_revision: revision, shards, panics: 0 }
    }
}

/// What a probe says.
pub fn health(code: StatusCode, status: &'static str, details: Option<Details>) -> Response {
    json(code, &Health { status, details })
}

/// The process answers.
pub fn alive() -> Response {
    health(StatusCode::OK, "live", None)
}

/// The process answers.
pub async fn live(_: Arc<App>, _: Queried) -> Result<Response, Problem> {
    Ok(alive())
}

/// The node decides: 200, else 503. `?verbose` says why not.
pub async fn ready(app: Arc<App>, query: Queried) -> Result<Response, Problem> {
    let status = app.handle.status();
    let (code, word) = match status.ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "notReady"),
    };
    let details = query.flag("verbose")?.then(|| Details {
        reasons: status.reasons,
        remarks: status.remarks,
        catalog_revision: status.revision.0,
        shards: status.shards,
        panics: app.panics.load(Ordering::Relaxed),
    });
    Ok(health(code, word, details))
}
