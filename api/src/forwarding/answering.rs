//! The other end of a forwarded call: the same router answers it, in the time that is left of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use http_body_util::BodyExt;
use proffer_cluster::calls::Forwarded;
use proffer_cluster::peers::Lane;
use proffer_cluster::ports::propose::Pending;
use proffer_engine::keys::Revision;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::forwarding::wire::{ForwardedAnswer, ForwardedCall, Forwarding};
use crate::limits::KEPT_ANSWERS_BYTES_MAX;

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
    kept: Arc<Mutex<KeptAnswers>>,
}

impl Answering {
    /// With this router. Answers that are kept are numbered after `start`, which should be another at each start of the node: what an
    /// earlier start kept, somebody may ask this one for.
    pub fn new(router: Router, start: u64) -> Self {
        Answering { router, kept: Arc::new(Mutex::new(KeptAnswers::after(start))) }
    }
}

impl Forwarded for Answering {
    fn answer(&self, call: Vec<u8>, within: Duration) -> Pending<'static, Vec<u8>> {
        let (answering, deadline) = (self.clone(), Instant::now() + within);
        let room = Lane::of(call.len()).body_bytes_max();
        Box::pin(async move {
            match Forwarding::decode(call) {
                Ok(Forwarding::Call(call)) => {
                    let answer = answer(answering.router.clone(), *call, deadline).await.encode();
                    if answer.len() <= room { answer } else { answering.kept().keep(answer).encode() }
                }
                Ok(Forwarding::Fetch(number)) => {
                    answering.kept().take(number).unwrap_or_else(|| ForwardedAnswer::Lost.encode())
                }
                Err(unreadable) => {
                    ForwardedAnswer::NotLed(format!("the other node cannot read the call: {unreadable}")).encode()
                }
            }
        })
    }
}

impl Answering {
    fn kept(&self) -> MutexGuard<'_, KeptAnswers> {
        self.kept.lock().expect("no holder panics")
    }
}

/// Answers that were too large for the lane on which they were asked for, until they are fetched on the other one. The oldest go
/// when there are too many.
#[derive(Debug, Default)]
struct KeptAnswers {
    answers: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    count: u64,
}

impl KeptAnswers {
    fn after(start: u64) -> Self {
        KeptAnswers { count: start, ..KeptAnswers::default() }
    }

    fn keep(&mut self, answer: Vec<u8>) -> ForwardedAnswer {
        self.count = self.count.wrapping_add(1);
        self.bytes += answer.len();
        self.answers.push_back((self.count, answer));
        while self.bytes > KEPT_ANSWERS_BYTES_MAX
            && let Some((_, oldest)) = self.answers.pop_front()
        {
            self.bytes -= oldest.len();
        }
        ForwardedAnswer::Kept(self.count)
    }

    fn take(&mut self, number: u64) -> Option<Vec<u8>> {
        let index = self.answers.iter().position(|(kept, _)| *kept == number)?;
        let (_, answer) = self.answers.remove(index)?;
        self.bytes -= answer.len();
        Some(answer)
    }
}

async fn answer(router: Router, call: ForwardedCall, deadline: Instant) -> ForwardedAnswer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_answers_are_fetched_once_and_never_more_than_fit() {
        let mut kept = KeptAnswers::default();
        let answer = vec![7; KEPT_ANSWERS_BYTES_MAX / 3];
        let numbers: Vec<_> = (0..4).map(|_| kept.keep(answer.clone())).collect();
        assert_eq!(numbers, (1..=4).map(ForwardedAnswer::Kept).collect::<Vec<_>>());
        assert!(kept.bytes <= KEPT_ANSWERS_BYTES_MAX);
        assert_eq!(kept.take(1), None, "the oldest is gone");
        assert_eq!(kept.take(3), Some(answer));
        assert_eq!(kept.take(3), None);
        assert_eq!(kept.bytes, 2 * (KEPT_ANSWERS_BYTES_MAX / 3));
    }

    #[test]
    fn what_an_earlier_start_kept_is_not_taken_for_what_this_one_keeps() {
        let (mut before, mut now) = (KeptAnswers::after(7), KeptAnswers::after(u64::MAX));
        assert_eq!(before.keep(b"old".to_vec()), ForwardedAnswer::Kept(8));
        assert_eq!(now.keep(b"new".to_vec()), ForwardedAnswer::Kept(0), "any start is as good as another");
        assert_eq!(now.take(8), None);
        assert_eq!(now.take(0), Some(b"new".to_vec()));
    }
}
