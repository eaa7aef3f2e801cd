//! # proffer-api
//!
//! The HTTP face of a node: [`router`] turns a [`proffer_cluster::Handle`] into an axum router. It reads requests with every
//! fault reported, checks who may call what, puts keys for names and names for keys, and writes answers and problem
//! documents. It decides nothing and stores nothing.
//!
//! Invariant: no response of 400 or more without a problem document; no route without a declared role; no panic leaves a
//! handler; nothing here knows of actors, Raft or files.
//!
//! Map: [`access`] is the table of routes and roles, [`routes`] the gate before each handler, [`layers`] what surrounds all
//! responses, [`forwarding`] the way to the node that answers,
//! [`starting`] what answers before there is a cluster, `v1` the handlers, [`wire`] readers and writers, [`resolve`] names to keys, [`recommendation`] the signed
//! `recommendationId`, [`problem`] everything that can go wrong, [`limits`] every limit.

pub mod access;
mod asked;
pub mod config;
pub mod forwarding;
#[cfg(test)]
mod fuzz;
pub mod idempotency;
pub mod ids;
mod layers;
pub mod limits;
pub mod problem;
pub mod recommendation;
pub mod resolve;
mod routes;
pub mod starting;
mod traces;
mod v1;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::middleware::from_fn_with_state;
use proffer_cluster::Handle;
use tokio::sync::Semaphore;

pub use config::Config;
use forwarding::answering::Answering;
use forwarding::ways::Ways;

/// What all handlers share.
pub struct App {
    handle: Handle,
    /// To the nodes that lead what this one does not.
    ways: Arc<dyn Ways>,
    config: Config,
    request_ids: ids::RequestIds,
    /// Places for bulk requests.
    bulk: Arc<Semaphore>,
    /// Places for batches of decisions.
    batches: Arc<Semaphore>,
    /// Handlers that panicked since the start; `/readyz?verbose` shows it.
    panics: AtomicU64,
    /// Traces of decisions made here.
    traces: traces::Traces,
}

impl App {
    fn new(handle: Handle, config: Config) -> Self {
        let request_ids = ids::RequestIds::new(&*config.entropy);
        let bulk = Arc::new(Semaphore::new(limits::BULK_REQUESTS_MAX));
        let batches = Arc::new(Semaphore::new(limits::BATCHES_MAX));
        let ways = Arc::new(handle.clone());
        let (panics, traces) = (AtomicU64::new(0), traces::Traces::default());
        App { handle, ways, config, request_ids, bulk, batches, panics, traces }
    }

    fn into_router(self) -> Router {
        let app = Arc::new(self);
        v1::routes().layer(from_fn_with_state(Arc::clone(&app), layers::surround)).with_state(app)
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The router of a node. It answers what other nodes forward, too.
///
/// # Panics
/// If a route has no declared role, or a declared one no handler.
pub fn router(handle: Handle, config: Config) -> Router {
    let start = config.entropy.u64();
    let router = App::new(handle.clone(), config).into_router();
    handle.on_forwarded(Arc::new(Answering::new(router.clone(), start)));
    router
}

/// The router of a node that reaches others by `ways` of its own: for tests and simulations.
///
/// # Panics
/// As [`router`].
pub fn router_with_ways(handle: Handle, ways: Arc<dyn Ways>, config: Config) -> Router {
    App { ways, ..App::new(handle, config) }.into_router()
}
