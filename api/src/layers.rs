//! What surrounds every response, also those that no route made: the request id, the catalogue revision, and a problem
//! document in place of a panic.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::App;
use crate::forwarding::answering::Unfinished;
use crate::problem::Problem;

/// Names a request in logs and to its client.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The catalogue revision in force when the request was answered, or the one that a write made.
pub const CATALOG_REVISION: HeaderName = HeaderName::from_static("x-catalog-revision");

/// The outermost layer.
pub async fn surround(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = app.request_ids.take_or_make(request.headers().get(REQUEST_ID));
    // Another node that answers it is to know it by the same name.
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut answer = pin!(next.run(request));
    let caught = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    });
    let mut response = caught.await.unwrap_or_else(|| {
        app.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(request_id = ?id, "a handler panicked");
        Problem::Internal.into_response()
    });
    let is_passed_back = response.extensions().get::<Unfinished>().is_some();
    if response.status().is_server_error() && !is_passed_back {
        tracing::warn!(request_id = ?id, status = response.status().as_u16(), "failed");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if !headers.contains_key(CATALOG_REVISION) {
        headers.insert(CATALOG_REVISION, HeaderValue::from(app.handle.revision().0));
    }
    response
}
