//! Routes with their gate: every handler stands behind authentication, its declared roles, the wait for a catalogue revision
//! and a time limit.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use proffer_cluster::Outcome;
use proffer_cluster::calls::Identity;
use proffer_engine::keys::Revision;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use crate::App;
use crate::access::{self, Access, ROUTES, Route, Weight};
use crate::asked::{Asked, Queried, discard, read_body, tenant_view};
use crate::forwarding::answering::Came;
use crate::forwarding::{self, Unanswered};
use crate::layers::CATALOG_REVISION;
use crate::limits::{
    AUTHOR_PATIENCE, BODY_BYTES_MAX, BULK_BODY_BYTES_MAX, BULK_REQUESTS_MAX, BULK_RETRY_AFTER_MS, BULK_TIMEOUT,
    LAST_WORD, LOST_RETRY_AFTER_MS,
};
use crate::problem::Problem;

/// What a handler answers.
pub type Answered = Result<Response, Unanswered>;

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
        handler: impl Fn(Arc<Asked>) -> F + Clone + Send + Sync + 'static,
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
                let (parts, mut body) = request.into_parts();
                let came = parts.extensions.get::<Came>().copied();
                let deadline = Instant::now() + time_limit(&app, route);
                let deadline = came.map_or(deadline, |came| came.deadline.min(deadline));
                let expects = waits_to_be_asked(&parts);
                let answering = async {
                    let mut asked = pass(Arc::clone(&app), route, deadline, came, params, parts, &mut body).await?;
                    let everywhere = route.authors && is_everywhere(&mut asked.query)?;
                    let answer = forwarding::answer(asked, route, handler).await?;
                    if everywhere {
                        let revision = revision_of(&answer).unwrap_or_else(|| app.handle.revision());
                        wait_everywhere(&app, revision, deadline).await?;
                    }
                    Ok(answer)
                };
                let answered = timeout_at(deadline, answering).await.unwrap_or(Err(Problem::Timeout));
                discard(expects, &mut body).await;
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
        F: Future<Output = Result<Response, Problem>> + Send,
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
            .fallback(|request: Request| async move {
                let problem = Problem::not_found(request.uri().path());
                unwanted(request, problem).await
            })
            .method_not_allowed_fallback(|request: Request| unwanted(request, Problem::MethodNotAllowed))
    }
}

/// The answer to a request that no route takes.
async fn unwanted(request: Request, problem: Problem) -> Problem {
    let (parts, mut body) = request.into_parts();
    discard(waits_to_be_asked(&parts), &mut body).await;
    problem
}

/// Whether the client sends its body only when it is read.
fn waits_to_be_asked(parts: &Parts) -> bool {
    parts.headers.contains_key(header::EXPECT)
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("the table names standard methods only")
}

fn time_limit(app: &App, route: &Route) -> Duration {
    match route.weight {
        Weight::Ordinary if route.authors => app.config.request_timeout * AUTHOR_PATIENCE,
        Weight::Ordinary => app.config.request_timeout,
        Weight::Bulk => BULK_TIMEOUT,
    }
}

async fn pass(
    app: Arc<App>,
    route: &'static Route,
    deadline: Instant,
    came: Option<Came>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    parts: Parts,
    body: &mut Body,
) -> Result<Asked, Problem> {
    if let Some(came) = came {
        // The node before has let the caller in by this catalogue: one without it might not.
        app.handle.wait_for_revision(came.least_revision, deadline).await?;
    }
    app.handle.leased(deadline).await?;
    let identity = authenticate(&app, &parts.headers)?;
    if !access::allows(route.access, &identity.roles) {
        return Err(Problem::Forbidden(format!("the key {:?} has no role that allows this", identity.name)));
    }
    if !route.conditional && parts.headers.contains_key(header::IF_MATCH) {
        let message = "is honoured by PUT of an entity only: without it this would do what it was to prevent";
        return Err(Problem::invalid("/headers/If-Match", message));
    }
    let params = params.map_err(|_| Problem::invalid("/path", "must be UTF-8"))?;
    let path = params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = Queried::read(&parts.uri)?;
    let least_revision = least_revision(&parts.headers)?;
    if let Some(revision) = least_revision {
        app.handle.wait_for_revision(revision, deadline).await?;
    }
    let (limit, room) = match route.weight {
        Weight::Ordinary => (BODY_BYTES_MAX, None),
        Weight::Bulk => (BULK_BODY_BYTES_MAX, Some(Arc::new(bulk_room(&app)?))),
    };
    let body = read_body(&parts.headers, body, limit).await?;
    let view = tenant_view(&app, &identity)?;
    let Parts { method, uri, headers, .. } = parts;
    let about = OnceLock::new();
    Ok(Asked {
        app,
        identity,
        view,
        deadline,
        path,
        query,
        headers,
        body,
        method,
        uri,
        least_revision,
        came,
        about,
        keyed: OnceLock::new(),
        _room: room,
    })
}

/// Whether a write is to be answered when it is in force on every node.
fn is_everywhere(query: &mut Queried) -> Result<bool, Problem> {
    match query.take("wait").as_deref() {
        None => Ok(false),
        Some("all") => Ok(true),
        Some(_) => Err(Problem::invalid("/query/wait", "must be all")),
    }
}

/// The revision that a write made.
fn revision_of(written: &Response) -> Option<Revision> {
    written.headers().get(CATALOG_REVISION)?.to_str().ok()?.parse().ok().map(Revision)
}

/// Waits until what was written is in force wherever decisions are made.
async fn wait_everywhere(app: &App, revision: Revision, deadline: Instant) -> Result<(), Problem> {
    let last = deadline.checked_sub(LAST_WORD).unwrap_or(deadline);
    let waited = timeout_at(last, app.handle.wait_everywhere(revision, last)).await;
    if matches!(waited, Ok(Ok(()))) {
        return Ok(());
    }
    Err(Problem::Unavailable {
        message: format!("revision {revision} is written, and not yet in force on every node"),
        retry_after_ms: LOST_RETRY_AFTER_MS,
        outcome: Outcome::Applied,
    })
}

fn bulk_room(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&app.bulk).try_acquire_owned().map_err(|_full| Problem::Busy {
        message: format!("{BULK_REQUESTS_MAX} bulk requests are under way"),
        retry_after_ms: BULK_RETRY_AFTER_MS,
    })
}

/// Who calls: the key is looked up by its SHA-256, so that no comparison of secrets can be timed.
pub(crate) fn authenticate(app: &App, headers: &HeaderMap) -> Result<Arc<Identity>, Problem> {
    let key = headers.get("x-api-key").ok_or(Problem::Unauthenticated)?;
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    let identity = app.handle.verify_api_key(&hash)?.ok_or(Problem::Unauthenticated)?;
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

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use axum::middleware::from_fn_with_state;
    use proffer_cluster::log::Durability;
    use proffer_cluster::ports::clock::ManualClock;
    use proffer_cluster::ports::entropy::SeededEntropy;
    use proffer_cluster::ports::fatal::RecordedFatal;
    use proffer_cluster::ports::memory_disk::MemoryDisk;
    use proffer_cluster::ports::memory_network::MemoryNetwork;
    use proffer_cluster::ports::offload::InlineOffload;
    use proffer_cluster::{Ports, start};
    use proffer_engine::catalog::{Actor, Command, CommandV1, Op, Role};
    use proffer_engine::keys::TenantId;
    use proffer_engine::time::Timestamp;
    use std::sync::atomic::Ordering;
    use tower::ServiceExt;

    use super::*;
    use crate::config::Config;
    use crate::layers;
    use crate::recommendation::{TokenKey, TokenKeys};

    async fn app(request_timeout: Duration) -> Arc<App> {
        let (clock, entropy) = (Arc::new(ManualClock::new(Timestamp(1))), Arc::new(SeededEntropy::new(1)));
        let ports = Ports {
            disk: Arc::new(MemoryDisk::new()),
            offload: Arc::new(InlineOffload),
            clock: clock.clone(),
            entropy: entropy.clone(),
            network: Arc::new(MemoryNetwork::new().host("here")),
            fatal: Arc::new(RecordedFatal::default()),
        };
        let node = format!("routes-{}", request_timeout.as_millis());
        let config =
            proffer_cluster::Config { durability: Durability::Memory, ..proffer_cluster::Config::founding(&node, 1) };
        let handle = start(config, ports).await.unwrap();
        while !handle.status().ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let tenant = TenantId::new("default");
        let actor = Actor { name: "test".to_owned(), admin: true };
        let hash = Sha256::digest(b"key").into();
        let key = Op::PutApiKey {
            id: "key".to_owned(),
            hash,
            roles: vec![Role::Viewer, Role::Editor],
            name: "key".to_owned(),
        };
        for op in [Op::CreateTenant, key] {
            let command = CommandV1 { tenant: tenant.clone(), actor: actor.clone(), at: Timestamp(1), op };
            let deadline = Instant::now() + Duration::from_secs(5);
            handle.change(Command::V1(command), deadline).await.unwrap();
        }
        let keys = TokenKeys::new(TokenKey::new(1, &[0; 32]), Vec::new());
        let config = Config { request_timeout, ..Config::new(clock, entropy, Arc::new(InlineOffload), keys) };
        Arc::new(App::new(handle, config))
    }

    async fn call(app: &Arc<App>, routes: Routes) -> Response {
        let surround = from_fn_with_state(Arc::clone(app), layers::surround);
        let router = routes.router.layer(surround).with_state(Arc::clone(app));
        let request = Request::builder().uri("/api/v1/tags").header("X-API-Key", "key");
        router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_answered_with_a_problem() {
        let app = app(Duration::from_secs(2)).await;
        let routes = Routes::new().on(Method::GET, "/api/v1/tags", |_| async { panic!("on purpose") });
        let response = call(&app, routes).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(app.panics.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_handler_that_takes_too_long_is_answered_with_a_problem() {
        let app = app(Duration::from_millis(20)).await;
        let routes = Routes::new().on(Method::GET, "/api/v1/tags", |_| std::future::pending());
        let response = call(&app, routes).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "1");
    }

    #[tokio::test]
    async fn bulk_requests_beyond_the_places_are_refused_before_their_body_is_read_and_leave_theirs_when_done() {
        let app = app(Duration::from_secs(3)).await;
        let answer = |length: usize| {
            let routes = Routes::new().on(Method::POST, "/api/v1/import", |asked| async move {
                assert!(asked._room.is_some());
                Ok(StatusCode::NO_CONTENT.into_response())
            });
            let router = routes.router.with_state(Arc::clone(&app));
            let request = Request::builder().method("POST").uri("/api/v1/import").header("X-API-Key", "key");
            router.oneshot(request.header("Content-Length", length).body(Body::empty()).unwrap())
        };
        let under_way: Vec<_> = (0..BULK_REQUESTS_MAX).map(|_| bulk_room(&app).unwrap()).collect();
        let too_large = BULK_BODY_BYTES_MAX + 1;
        let refused = answer(too_large).await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "1");
        drop(under_way);
        for _ in 0..2 * BULK_REQUESTS_MAX {
            assert_eq!(answer(0).await.unwrap().status(), StatusCode::NO_CONTENT);
            assert_eq!(answer(too_large).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
    }

    #[test]
    #[should_panic(expected = "no role is declared for POST /api/v1/secrets")]
    fn a_route_without_a_declared_role_does_not_start() {
        drop(Routes::new().on(Method::POST, "/api/v1/secrets", |_| std::future::pending()));
    }

    #[test]
    #[should_panic(expected = "is not served")]
    fn a_declared_route_without_a_handler_does_not_start() {
        drop(Routes::new().finish());
    }
}
