//! Calls about one customer are answered by the node that leads the customer's shard, whichever node is asked.
//!
//! A handler says whom its call is about ([`Asked::at_home`]). Where another node leads, the call goes there **whole** and its answer
//! comes back as bytes: a decision is rendered where it was made. The node that was asked (the *entry*) waits while nobody leads,
//! and asks again after a link broke if the call may be repeated. A node in between does neither: it answers at once that it
//! does not lead, or passes the call on if it knows who does and it has been forwarded once only.
//!
//! Map: `wire` is what travels, [`answering`] the other end, [`ways`] what is needed of the cluster.

pub mod answering;
pub mod ways;
pub mod wire;

use std::future::Future;
use std::sync::Arc;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proffer_cluster::peers::Lane;
use proffer_cluster::{Error, Outcome};
use proffer_engine::keys::Revision;
use tokio::time::{Instant, sleep_until};

use crate::access::{Home, Repeat, Route, Weight};
use crate::asked::Asked;
use crate::forwarding::answering::Unfinished;
use crate::forwarding::wire::{ForwardedAnswer, ForwardedCall, response};
use crate::layers::REQUEST_ID;
use crate::limits::{FORWARDS_MAX, LAST_WORD, LOOK_AGAIN, LOST_RETRY_AFTER_MS};
use crate::problem::Problem;

/// Headers of a call that the node which answers it needs. What else a client sends changes no answer.
static HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-tenant-id"),
    HeaderName::from_static("idempotency-key"),
    REQUEST_ID,
    header::CONTENT_TYPE,
];

/// Why a handler did not answer.
#[derive(Debug, PartialEq)]
pub enum Unanswered {
    /// The client is told this.
    Problem(Problem),
    /// This node leads the customer's shard.
    Elsewhere(u64),
    /// The customer's shard is not led here, nor elsewhere as far as is known: nothing was begun.
    NotLed(String),
}

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Unanswered::Problem(problem)
    }
}

impl From<Error> for Unanswered {
    fn from(error: Error) -> Self {
        if let Error::NotLed { reason } = error {
            Unanswered::NotLed(reason)
        } else {
            Unanswered::Problem(error.into())
        }
    }
}

/// What became of a call sent to another node.
enum Sent {
    /// This, and nothing is left to do.
    Answered(Response),
    /// Nothing: it does not lead, or cannot be reached.
    NotLed(String),
    /// It is not known.
    Lost,
}

/// Has the call answered: here, or where its customer's shard is led.
///
/// # Errors
/// What the client is told.
pub async fn answer<F>(asked: Asked, route: &Route, handler: impl Fn(Arc<Asked>) -> F) -> Result<Response, Problem>
where
    F: Future<Output = Result<Response, Unanswered>>,
{
    let mut asked = Arc::new(asked);
    let mut doubt = Doubt { repeat: None, in_doubt: false };
    loop {
        let answered = handler(Arc::clone(&asked)).await;
        // Only who has read the body knows whether it has a key.
        doubt.repeat = may_repeat(route.home, &asked);
        let sent = match answered {
            Ok(response) => Sent::Answered(response),
            Err(Unanswered::Problem(problem)) if is_lost(&problem) => Sent::Lost,
            Err(Unanswered::Problem(problem)) => return Err(doubt.judge(problem)),
            Err(Unanswered::NotLed(reason)) => Sent::NotLed(reason),
            Err(Unanswered::Elsewhere(node)) => send(&asked, node).await.map_err(|problem| doubt.judge(problem))?,
        };
        if asked.came.is_some() {
            return Ok(pass_back(sent));
        }
        let reason = match sent {
            Sent::Answered(response) => return doubt.judge_response(response),
            Sent::NotLed(reason) => reason,
            Sent::Lost => doubt.lose()?,
        };
        let again = match route.weight {
            Weight::Ordinary => look_again(&asked, &reason).await,
            // It is cut by shard, and each part waits for itself.
            Weight::Bulk => Err(not_led(reason)),
        };
        asked = Arc::new(again.map_err(|problem| doubt.judge(problem))?);
    }
}

/// Waits until the call may be answered elsewhere than where it was sent, for as long as its client waits.
async fn look_again(asked: &Asked, reason: &str) -> Result<Asked, Problem> {
    let (begin, last) = (Instant::now(), asked.deadline.checked_sub(LAST_WORD).unwrap_or(asked.deadline));
    if begin < last {
        if let Some((customer, was)) = asked.about.get() {
            asked.app.ways.place_changes(asked.tenant(), customer, *was, last).await;
        }
        // A hint that flutters must not keep a core busy.
        sleep_until(last.min(begin + LOOK_AGAIN)).await;
        if Instant::now() < last {
            return asked.renewed();
        }
    }
    Err(not_led(reason.to_owned()))
}

fn not_led(reason: String) -> Problem {
    Error::NotLed { reason }.into()
}

/// What a node in between answers to the one before it: that waits and repeats, not this one.
fn pass_back(sent: Sent) -> Response {
    let (problem, unfinished) = match sent {
        Sent::Answered(response) => return response,
        Sent::NotLed(reason) => (not_led(reason.clone()), Unfinished::NotLed(reason)),
        Sent::Lost => (lost(), Unfinished::Lost),
    };
    let mut response = problem.into_response();
    response.extensions_mut().insert(unfinished);
    response
}

async fn send(asked: &Asked, node: u64) -> Result<Sent, Problem> {
    let forwards = asked.came.map_or(0, |came| came.forwards);
    if forwards >= FORWARDS_MAX {
        return Ok(Sent::NotLed(format!("the call was forwarded {forwards} times, and node n{node} leads")));
    }
    let headers = HEADERS.iter().filter_map(|name| Some((name.clone(), asked.headers.get(name)?.clone())));
    let call = ForwardedCall {
        forwards: forwards + 1,
        least_revision: asked.least_revision.unwrap_or(Revision(0)).max(asked.view.revision),
        method: asked.method.clone(),
        target: asked.uri.path_and_query().map(|target| target.clone().into()).unwrap_or_default(),
        headers: headers.collect(),
        body: asked.body.clone(),
    };
    let call = call.encode().map_err(|too_large| Problem::invalid("", too_large.to_string()))?;
    let (ways, came) = (&asked.app.ways, asked.came.is_some());
    let mut answer = match ways.forward(node, Lane::of(call.len()), call, came, asked.deadline).await {
        // So a node answers that cannot ask its router yet.
        Ok(bytes) if bytes.is_empty() => return Ok(Sent::NotLed(format!("node n{node} is starting"))),
        Ok(bytes) => ForwardedAnswer::decode(bytes),
        Err(Error::NotLed { reason }) => return Ok(Sent::NotLed(format!("node n{node}: {reason}"))),
        Err(Error::Unknown) => return Ok(Sent::Lost),
        Err(error) => return Err(error.into()),
    };
    if let Ok(ForwardedAnswer::Kept(number)) = answer {
        let fetched = ways.forward(node, Lane::Bulk, wire::fetch(number), came, asked.deadline).await;
        answer = fetched.map_or(Ok(ForwardedAnswer::Lost), ForwardedAnswer::decode);
    }
    Ok(match answer {
        Ok(ForwardedAnswer::Answered { status, headers, body }) => Sent::Answered(response(status, headers, body)),
        Ok(ForwardedAnswer::NotLed(reason)) => Sent::NotLed(format!("node n{node}: {reason}")),
        Ok(ForwardedAnswer::Lost | ForwardedAnswer::Kept(_)) => Sent::Lost,
        Ok(ForwardedAnswer::TooLarge) => return Err(Problem::AnswerTooLarge),
        Err(unreadable) => {
            tracing::error!(node, %unreadable, "cannot read the answer of another node");
            Sent::Lost
        }
    })
}

/// Whether an earlier attempt may have taken effect.
struct Doubt {
    repeat: Option<Repeat>,
    in_doubt: bool,
}

impl Doubt {
    /// An attempt was lost.
    ///
    /// # Errors
    /// There must be no other.
    fn lose(&mut self) -> Result<String, Problem> {
        let repeat = self.repeat.ok_or_else(lost)?;
        self.in_doubt |= repeat != Repeat::Read;
        Ok("the node that leads was lost".to_owned())
    }

    /// What a failure means after what came before it.
    fn judge(&self, problem: Problem) -> Problem {
        if self.in_doubt && problem.retryable() && problem.outcome() == Outcome::NotApplied { lost() } else { problem }
    }

    /// The same of one that another node wrote.
    fn judge_response(&self, response: Response) -> Result<Response, Problem> {
        let again_later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
        if self.in_doubt && again_later.contains(&response.status()) { Err(lost()) } else { Ok(response) }
    }
}

fn may_repeat(home: Home, asked: &Asked) -> Option<Repeat> {
    let is_keyed = asked.headers.contains_key("idempotency-key") || asked.keyed.get().is_some();
    match home {
        Home::Anywhere => None,
        Home::Customer(Repeat::Keyed) if !is_keyed => None,
        Home::Customer(repeat) => Some(repeat),
    }
}

fn is_lost(problem: &Problem) -> bool {
    matches!(problem, Problem::Unavailable { outcome: Outcome::Unknown, .. })
}

fn lost() -> Problem {
    Problem::Unavailable {
        message: Error::Unknown.to_string(),
        retry_after_ms: LOST_RETRY_AFTER_MS,
        outcome: Outcome::Unknown,
    }
}
