//! The other end of a forwarded call: the same router answers it, in the time that is left of it.

use std::time::Duration;

use axum::Router;
use http_body_util::BodyExt;
use proffer_cluster::calls::Forwarded;
use proffer_cluster::ports::propose::Pending;
use proffer_engine::keys::Revision;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::forwarding::wire::{ForwardedAnswer, ForwardedCall};

/// What a request that another node forwarded carries beside what its client sent. Clients cannot set it: it travels as a type,
/// not as a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Came {
    /// How often it was forwarded.
    pub forwards: u8,
    /// The revision that the node before had.
    pub least_revision: Revision,
    /// When the client stops waiting.
    pub deadline: Instant,
}

/// What a response to another node carries in place of an answer for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// Nothing was begun.
    NotLed(String),
    /// It is not known whether it was.
    Lost,
}

/// Answers what other nodes forward.
#[derive(Clone, Debug)]
pub struct Answering {
    router: Router,
}

impl Answering {
    /// With this router.
    pub fn new(router: Router) -> Self {
        Answering { router }
    }
}

impl Forwarded for Answering {
    fn answer(&self, call: Vec<u8>, within: Duration) -> Pending<'static, Vec<u8>> {
        let (router, deadline) = (self.router.clone(), Instant::now() + within);
        Box::pin(async move { answer(router, call, deadline).await.encode() })
    }
}

async fn answer(router: Router, call: Vec<u8>, deadline: Instant) -> ForwardedAnswer {
    let call = match ForwardedCall::decode(call) {
        Ok(call) => call,
        Err(unreadable) => {
            return ForwardedAnswer::NotLed(format!("the other node cannot read the call: {unreadable}"));
        }
    };
    let came = Came { forwards: call.forwards, least_revision: call.least_revision, deadline };
    let mut request = call.into_request();
    request.extensions_mut().insert(came);
    let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
    let (parts, body) = response.into_parts();
    match parts.extensions.get::<Unfinished>() {
        Some(Unfinished::NotLed(reason)) => return ForwardedAnswer::NotLed(reason.clone()),
        Some(Unfinished::Lost) => return ForwardedAnswer::Lost,
        None => {}
    }
    match body.collect().await {
        Ok(body) => ForwardedAnswer::Answered { status: parts.status, headers: parts.headers, body: body.to_bytes() },
        Err(error) => {
            tracing::error!(%error, "an answer for another node broke off");
            ForwardedAnswer::Lost
        }
    }
}
