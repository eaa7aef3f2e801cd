//! The routes under `/api/v1` and `/cluster`, and the probes: thin handlers, one file a resource.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use proffer_engine::catalog::EntityKind;
use proffer_engine::keys::Revision;
use serde::Serialize;
use std::sync::Arc;

use crate::App;
use crate::layers::CATALOG_REVISION;
use crate::routes::Routes;

mod adobe;
mod batch;
mod budget;
mod cluster;
mod entities;
mod events;
mod experiments;
mod flow_diff;
mod flows;
pub(crate) mod import;
pub mod probes;
mod profiles;
mod propensity;
mod recommend;
mod respond;
mod rows;
mod settings;
mod sub_categories;
mod traces;
mod what_if;
mod why_not;

/// Kinds with plain routes of their own.
pub const KINDS: [EntityKind; 14] = [
    EntityKind::Category,
    EntityKind::Offer,
    EntityKind::Creative,
    EntityKind::Channel,
    EntityKind::Placement,
    EntityKind::Collection,
    EntityKind::Activity,
    EntityKind::Rule,
    EntityKind::Policy,
    EntityKind::Schema,
    EntityKind::Flow,
    EntityKind::Guardrail,
    EntityKind::Metric,
    EntityKind::Model,
];

/// All routes.
pub fn routes() -> Router<Arc<App>> {
    let mut routes = Routes::new().open("/livez", probes::live).open("/readyz", probes::ready);
    for kind in KINDS {
        routes = entities::serve(routes, kind);
    }
    let subs = "/api/v1/categories/{id}/sub-categories";
    let sub = "/api/v1/categories/{id}/sub-categories/{subId}";
    routes
        .on(Method::GET, subs, sub_categories::list)
        .on(Method::POST, subs, sub_categories::create)
        .on(Method::PUT, subs, sub_categories::update)
        .on(Method::DELETE, subs, sub_categories::delete)
        .on(Method::GET, sub, sub_categories::get)
        .on(Method::PUT, sub, sub_categories::update)
        .on(Method::DELETE, sub, sub_categories::delete)
        .on(Method::GET, "/api/v1/offers/{id}/budget", budget::get)
        .on(Method::GET, "/api/v1/offers/{id}/propensity", propensity::get)
        .on(Method::GET, "/api/v1/experiments/{key}/results", experiments::results)
        .on(Method::POST, "/api/v1/schemas/{id}/rows", rows::put)
        .on(Method::POST, "/api/v1/decision-flows/publish", flows::publish_named)
        .on(Method::POST, "/api/v1/decision-flows/{id}/publish", flows::publish)
        .on(Method::GET, "/api/v1/decision-flows/{id}/versions", flows::versions)
        .on(Method::GET, "/api/v1/decision-flows/{id}/diff", flow_diff::diff)
        .on(Method::POST, "/api/v1/decision-flows/{id}/rollback", flows::roll_back)
        .on(Method::GET, "/api/v1/settings", settings::get)
        .on(Method::PUT, "/api/v1/settings", settings::put)
        .on(Method::GET, "/api/v1/tags", settings::tags)
        .on(Method::POST, "/api/v1/recommend", recommend::recommend)
        .on(Method::POST, "/api/v1/decisions", recommend::decisions)
        .on(Method::POST, "/api/v1/adobe/decisions", adobe::decisions)
        .on(Method::POST, "/api/v1/batch-decisions", batch::decide)
        .on(Method::POST, "/api/v1/simulate", recommend::simulate)
        .on(Method::GET, "/api/v1/why-not", why_not::why_not)
        .on(Method::POST, "/api/v1/replay", traces::replay)
        .on(Method::POST, "/api/v1/what-if", what_if::what_if)
        .on(Method::GET, "/api/v1/traces", traces::list)
        .on(Method::GET, "/api/v1/traces/{id}", traces::get)
        .on(Method::POST, "/api/v1/respond", respond::respond)
        .on(Method::POST, "/api/v1/release", respond::release)
        .on(Method::POST, "/api/v1/events", events::event)
        .on(Method::GET, "/api/v1/profiles/{customerId}", profiles::get)
        .on(Method::PUT, "/api/v1/profiles/{customerId}", profiles::put)
        .on(Method::DELETE, "/api/v1/profiles/{customerId}", profiles::delete)
        .on(Method::DELETE, "/api/v1/profiles/{customerId}/opt-outs", profiles::clear_opt_outs)
        .on(Method::POST, "/api/v1/import", import::import_catalogue)
        .on(Method::POST, "/api/v1/import/{kind}", import::import)
        .on(Method::GET, "/cluster/status", cluster::status)
        .on(Method::GET, "/cluster/shards", cluster::shards)
        .on(Method::GET, "/cluster/locate", cluster::locate)
        .on(Method::POST, "/cluster/nodes/{node}/drain", cluster::drain)
        .on(Method::POST, "/cluster/nodes/{node}/undrain", cluster::undrain)
        .on(Method::POST, "/cluster/nodes/{node}/remove", cluster::remove)
        .on(Method::POST, "/cluster/shards/{shard}/transfer", cluster::transfer)
        .on(Method::POST, "/cluster/shards/{shard}/recover", cluster::recover)
        .on(Method::POST, "/cluster/rebalance", cluster::rebalance)
        .finish()
}

/// A JSON response.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers can be written");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 204.
fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Says which revision holds what was written.
fn at_revision(mut response: Response, revision: Revision) -> Response {
    response.headers_mut().insert(CATALOG_REVISION, HeaderValue::from(revision.0));
    response
}
