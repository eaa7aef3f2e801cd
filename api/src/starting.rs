//! The HTTP face of a node that is still recovering: the process lives, but decides nothing yet.

use std::sync::OnceLock;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use proffer_cluster::ports::entropy::Entropy;
use proffer_cluster::{Handle, Outcome};

use crate::asked::Queried;
use crate::ids::RequestIds;
use crate::layers::{CATALOG_REVISION, REQUEST_ID};
use crate::limits::STARTING_RETRY_AFTER_MS;
use crate::problem::Problem;
use crate::v1::probes;

/// Answers for a node until its [`crate::router`] can.
#[derive(Debug)]
pub struct Starting {
    request_ids: RequestIds,
    /// The cluster, once this node has found its place in it.
    handle: OnceLock<Handle>,
}

impl Starting {
    /// Draws what request ids are made from.
    pub fn new(entropy: &dyn Entropy) -> Self {
        Starting { request_ids: RequestIds::new(entropy), handle: OnceLock::new() }
    }

    /// From now on `/readyz?verbose` says what the cluster misses.
    pub fn know(&self, handle: Handle) {
        // A node has one, and learns of it once.
        let _ = self.handle.set(handle);
    }

    /// `/livez` with 200, `/readyz` with 503 and why, everything else with a problem.
    pub fn answer(&self, request: &Request) -> Response {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut response = match request.uri().path() {
            "/livez" if is_read => probes::alive(),
            "/readyz" if is_read => self.not_ready(request).unwrap_or_else(Problem::into_response),
            _ => recovering().into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, self.request_ids.take_or_make(request.headers().get(REQUEST_ID)));
        headers.insert(CATALOG_REVISION, HeaderValue::from(0));
        response
    }

    fn not_ready(&self, request: &Request) -> Result<Response, Problem> {
        let verbose = Queried::read(request.uri())?.flag("verbose")?;
        let details = verbose.then(|| {
            let status = self.handle.get().map(Handle::status);
            probes::Details::unready(REASON, status)
        });
        Ok(probes::health(StatusCode::SERVICE_UNAVAILABLE, "notReady", details))
    }
}

const REASON: &str = "the node is recovering";

fn recovering() -> Problem {
    Problem::Unavailable {
        message: REASON.to_owned(),
        retry_after_ms: STARTING_RETRY_AFTER_MS,
        outcome: Outcome::NotApplied,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use proffer_cluster::ports::entropy::SeededEntropy;

    use super::*;

    async fn ask(method: Method, path: &str) -> (StatusCode, String, Response<()>) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (parts, body) = Starting::new(&SeededEntropy::new(1)).answer(&request).into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (parts.status, text, Response::from_parts(parts, ()))
    }

    #[tokio::test]
    async fn a_recovering_node_lives_is_not_ready_and_says_why() {
        assert_eq!(ask(Method::GET, "/livez").await.0, StatusCode::OK);
        let (status, text, _) = ask(Method::GET, "/readyz?verbose").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("notReady") && text.contains(REASON), "{text}");
        assert!(!ask(Method::GET, "/readyz").await.1.contains(REASON));
    }

    #[tokio::test]
    async fn whatever_else_is_asked_of_a_recovering_node_may_be_asked_again() {
        for method in [Method::GET, Method::POST] {
            let (status, text, response) = ask(method, "/api/v1/recommend").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(text.contains("notApplied"), "{text}");
            let headers = response.headers();
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["retry-after"], "1");
            assert!(headers.contains_key("x-request-id") && headers.contains_key("x-catalog-revision"));
        }
    }
}
