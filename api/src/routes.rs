//! Routes with their gate: every handler stands behind authentication, its declared roles, the wait for a catalogue revision
//! and a time limit.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use proffer_cluster::calls::Identity;
use proffer_engine::keys::Revision;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::App;
use crate::access::{self, Access, ROUTES, Route, Weight};
use crate::asked::{Asked, Queried, read_body};
use crate::limits::{BODY_BYTES_MAX, BULK_BODY_BYTES_MAX, BULK_TIMEOUT};
use crate::problem::Problem;

/// What a handler answers.
pub type Answered = Result<Response, Problem>;

/// Collects routes; each must be declared in [`access::ROUTES`].
#[derive(Debug)]
pub struct Routes {
    router: Router<Arc<App>>,
    served: BTreeSet<(&'static str, &'static str)>,
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Routes { router: Router::new(), served: BTreeSet::new() }
    }

    /// Serves `path` behind the gate.
    ///
    /// # Panics
    /// If the table declares no role for it: such a route must not start.
    pub fn on<F>(
        mut self,
        method: Method,
        path: &str,
        handler: impl Fn(Asked) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answered> + Send,
    {
        let route = self.declare(&method, path);
        let gated = move |State(app): State<Arc<App>>,
                          params: Result<RawPathParams, RawPathParamsRejection>,
                          request: Request| {
            let handler = handler.clone();
            async move {
                let deadline = Instant::now() + time_limit(&app, route.weight);
                let answering = async { handler(pass(app, route, deadline, params, request).await?).await };
                let answered = timeout_at(deadline, answering).await.unwrap_or(Err(Problem::Timeout));
                answered.unwrap_or_else(Problem::into_response)
            }
        };
        self.router = self.router.route(path, on(filter(&method), gated));
        self
    }

    /// Serves `path` to everybody.
    ///
    /// # Panics
    /// If the table does not declare it open.
    pub fn open<F>(
        mut self,
        path: &str,
        handler: impl Fn(Arc<App>, Queried) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answered> + Send,
    {
        let route = self.declare(&Method::GET, path);
        assert_eq!(route.access, Access::Open, "{path} is not declared open");
        let open = move |State(app): State<Arc<App>>, request: Request| {
            let handler = handler.clone();
            async move {
                match Queried::read(request.uri()) {
                    Ok(query) => handler(app, query).await.unwrap_or_else(Problem::into_response),
                    Err(problem) => problem.into_response(),
                }
            }
        };
        self.router = self.router.route(path, on(MethodFilter::GET, open));
        self
    }

    fn declare(&mut self, method: &Method, path: &str) -> &'static Route {
        let route = access::find(method, path);
        let route = route.unwrap_or_else(|| panic!("no role is declared for {method} {path}"));
        self.served.insert((route.method, route.path));
        route
    }

    /// The router, with a problem for whatever else is asked.
    ///
    /// # Panics
    /// If a declared route has no handler.
    pub fn finish(self) -> Router<Arc<App>> {
        for route in ROUTES {
            assert!(self.served.contains(&(route.method, route.path)), "{} {} is not served", route.method, route.path);
        }
        self.router
            .fallback(|request: Request| async move { Problem::not_found(request.uri().path()) })
            .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("the table names standard methods only")
}

fn time_limit(app: &App, weight: Weight) -> Duration {
    match weight {
        Weight::Ordinary => app.config.request_timeout,
        Weight::Bulk => BULK_TIMEOUT,
    }
}

async fn pass(
    app: Arc<App>,
    route: &'static Route,
    deadline: Instant,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Asked, Problem> {
    let (parts, body) = request.into_parts();
    let identity = authenticate(&app, &parts.headers)?;
    if !access::allows(route.access, &identity.roles) {
        return Err(Problem::Forbidden(format!("the key {:?} has no role that allows this", identity.name)));
    }
    let params = params.map_err(|_| Problem::invalid("/path", "must be UTF-8"))?;
    let path = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = Queried::read(&parts.uri)?;
    if let Some(revision) = least_revision(&parts.headers)? {
        app.handle.wait_for_revision(revision, deadline).await?;
    }
    let limit = match route.weight {
        Weight::Ordinary => BODY_BYTES_MAX,
        Weight::Bulk => BULK_BODY_BYTES_MAX,
    };
    let body = read_body(&parts.headers, body, limit).await?;
    let view =
        app.handle.tenant(&identity.tenant).ok_or_else(|| Problem::Forbidden("the tenant is gone".to_owned()))?;
    Ok(Asked { app, identity, view, deadline, path, query, headers: parts.headers, body })
}

/// Who calls: the key is looked up by its SHA-256, so that no comparison of secrets can be timed.
fn authenticate(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    let key = headers.get("x-api-key").ok_or(Problem::Unauthenticated)?;
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let identity = app.handle.verify_api_key(&hash).ok_or(Problem::Unauthenticated)?;
    match headers.get("x-tenant-id") {
        Some(tenant) if tenant.as_bytes() != identity.tenant.0.as_bytes() => {
            Err(Problem::Forbidden("the key belongs to another tenant than X-Tenant-Id".to_owned()))
        }
        _ => Ok(identity),
    }
}

fn least_revision(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(given) = headers.get("x-min-catalog-revision") else { return Ok(None) };
    let revision = given.to_str().ok().and_then(|text| text.parse().ok()).map(Revision);
    let fault = || Problem::invalid("/headers/X-Min-Catalog-Revision", "must be a catalogue revision");
    revision.map(Some).ok_or_else(fault)
}
