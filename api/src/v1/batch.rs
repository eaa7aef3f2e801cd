//! `POST /batch-decisions`: decides for a segment or everybody and streams the answers, a line each. Every decision is made as if it had
//! been asked for alone, where its customer's shard is led: caps are as exact. Whoever closes the connection stops it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, unfold};
use http_body_util::BodyExt;
use proffer_cluster::calls::Listing;
use proffer_engine::keys::CustomerId;
use proffer_engine::model::fault::Fault;
use proffer_engine::value::{Members, Value};
use tokio::time::{Instant, sleep, timeout_at};
use xxhash_rust::xxh3::xxh3_128;

use crate::access::{self, Route};
use crate::asked::{Asked, Queried, tenant_view, typed};
use crate::forwarding;
use crate::idempotency;
use crate::limits::{BATCH_IN_FLIGHT, BATCH_LINES_PROGRESS, BATCH_RETRY, BATCH_TRIES};
use crate::problem::Problem;
use crate::resolve::{Slots, resolve};
use crate::routes::Answered;
use crate::v1::recommend;
use crate::wire::batch::{BatchDecisions, Word};
use crate::wire::value::Json;

/// `POST /api/v1/batch-decisions`.
pub async fn decide(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let value = asked.json()?;
    let batch = Batch::new(asked, typed(&value)?)?;
    let run = Run::new(Arc::new(batch));
    let lines =
        unfold(run, async |mut run| run.next_line().await.map(|line| (Ok::<_, std::convert::Infallible>(line), run)));
    let mut response = Response::new(Body::from_stream(Box::pin(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

/// What is asked for each customer.
struct Batch {
    asked: Arc<Asked>,
    id: String,
    segment: Option<Arc<str>>,
    request: Members,
    /// The route of one decision.
    route: &'static Route,
    slots: Slots,
}

impl Batch {
    /// A batch whose request would be answered.
    fn new(asked: Arc<Asked>, body: BatchDecisions) -> Result<Self, Problem> {
        let Value::Map(request) = &body.request else {
            let message = format!("must be an object, not {}", body.request.kind());
            return Err(Problem::invalid("/request", message));
        };
        for (member, why) in [("customerId", "is the batch's to give"), ("supersedes", "is one customer's")] {
            if request.contains_key(member) {
                return Err(Problem::invalid(&format!("/request/{member}"), why));
            }
        }
        let (path, slots) = match (body.dry_run, request.contains_key("activities")) {
            (true, _) => ("/api/v1/simulate", Slots::Any),
            (false, true) => ("/api/v1/decisions", Slots::Activities),
            (false, false) => ("/api/v1/recommend", Slots::Placements),
        };
        let route = access::find(&Method::POST, path).expect("it is in the table");
        if !access::allows(route.access, &asked.identity.roles) {
            return Err(Problem::Forbidden(format!("the key may not call {path}, which this does for each customer")));
        }
        let id = match idempotency::header(&asked.headers)? {
            Some(key) => key.to_owned(),
            None => format!("{:016x}{:016x}", asked.app.config.entropy.u64(), asked.app.config.entropy.u64()),
        };
        let segment = body.segment.map(|segment| segment.0);
        let batch = Batch { id, segment, request: (**request).clone(), route, slots, asked };
        let value = batch.body_for(&CustomerId::new("-"));
        let readable = recommend::read(&value, slots, &batch.asked);
        readable.and_then(|body| resolve(&body, slots, &batch.asked.view)).map_err(within_request)?;
        Ok(batch)
    }

    fn body_for(&self, customer: &CustomerId) -> Value {
        let mut body = self.request.clone();
        body.insert(Arc::from("customerId"), Value::Text(Arc::clone(&customer.0)));
        Value::Map(Arc::new(body))
    }

    /// The call that decides for one customer.
    fn call(&self, customer: &CustomerId) -> Result<Asked, Problem> {
        let key = xxh3_128(format!("{}\0{}", self.id, customer.0).as_bytes());
        let key = HeaderValue::try_from(format!("batch-{key:032x}")).expect("it is hexadecimal");
        let mut headers = self.asked.headers.clone();
        headers.insert("idempotency-key", key);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = serde_json::to_vec(&Json(&self.body_for(customer))).expect("values can be written");
        Ok(Asked {
            view: tenant_view(&self.asked.app, &self.asked.identity)?,
            deadline: Instant::now() + self.asked.app.config.request_timeout,
            query: Queried::default(),
            headers,
            body: Bytes::from(body),
            uri: Uri::from_static(self.route.path),
            about: OnceLock::new(),
            ..(*self.asked).clone()
        })
    }

    async fn answer(&self, customer: &CustomerId) -> Result<Response, Problem> {
        let call = self.call(customer)?;
        let deadline = call.deadline;
        let answered = async {
            match self.slots {
                Slots::Any => forwarding::answer(call, self.route, recommend::simulate).await,
                Slots::Activities => forwarding::answer(call, self.route, recommend::decisions).await,
                Slots::Placements => forwarding::answer(call, self.route, recommend::recommend).await,
            }
        };
        timeout_at(deadline, answered).await.unwrap_or(Err(Problem::Timeout))
    }

    /// Decides for one customer; again, if that may help. The line, and whether it was decided.
    async fn decide(self: Arc<Self>, customer: CustomerId) -> (Bytes, bool) {
        let mut tries = 1;
        loop {
            let answered = self.answer(&customer).await.unwrap_or_else(Problem::into_response);
            let status = answered.status();
            let may_help = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
            if may_help && tries < BATCH_TRIES {
                sleep(BATCH_RETRY * tries).await;
                tries += 1;
                continue;
            }
            // What the node wrote is whole in memory.
            let body = answered.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let (kind, member) = if status.is_success() { ("decision", "answer") } else { ("problem", "problem") };
            let customer = serde_json::to_string(&*customer.0).expect("text can be written");
            let head = format!(r#"{{"type":"{kind}","customerId":{customer},"{member}":"#);
            return (Bytes::from([head.as_bytes(), &*body, b"}\n"].concat()), status.is_success());
        }
    }

    /// Some customers, and where to go on.
    async fn list(&self, at: Listing) -> Result<(Vec<CustomerId>, Option<Listing>), Problem> {
        let mut tries = 1;
        loop {
            let deadline = Instant::now() + self.asked.app.config.request_timeout;
            let listed = self.asked.handle().customers(self.asked.tenant(), self.segment.as_deref(), at, deadline);
            match listed.await.map_err(Problem::from) {
                Err(problem) if problem.retryable() && tries < BATCH_TRIES => {
                    sleep(BATCH_RETRY * tries).await;
                    tries += 1;
                }
                listed => return listed,
            }
        }
    }
}

/// The faults of a request as those of the batch that it is in.
fn within_request(problem: Problem) -> Problem {
    match problem {
        Problem::Invalid(faults) => {
            let within = |fault: Fault| Fault { pointer: format!("/request{}", fault.pointer), ..fault };
            Problem::Invalid(faults.into_iter().map(within).collect())
        }
        other => other,
    }
}

type Deciding = Pin<Box<dyn Future<Output = (Bytes, bool)> + Send>>;

/// A batch under way.
struct Run {
    batch: Arc<Batch>,
    begun: Option<Instant>,
    /// Where the listing goes on.
    next: Option<Listing>,
    waiting: VecDeque<CustomerId>,
    deciding: FuturesUnordered<Deciding>,
    decided: u64,
    failed: u64,
    /// How many were answered for when that was last told.
    told: u64,
    is_over: bool,
}

impl Run {
    fn new(batch: Arc<Batch>) -> Self {
        Run {
            batch,
            begun: None,
            next: Some(Listing::default()),
            waiting: VecDeque::new(),
            deciding: FuturesUnordered::new(),
            decided: 0,
            failed: 0,
            told: 0,
            is_over: false,
        }
    }

    /// The next line; `None` after the last.
    async fn next_line(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        let Some(begun) = self.begun else {
            self.begun = Some(Instant::now());
            return Some(line(&Word::Begin { batch_id: &self.batch.id }));
        };
        if self.decided + self.failed >= self.told + BATCH_LINES_PROGRESS {
            self.told = self.decided + self.failed;
            return Some(self.progress());
        }
        loop {
            while self.waiting.is_empty()
                && let Some(at) = self.next
            {
                match self.batch.list(at).await {
                    Ok((customers, next)) => {
                        self.waiting.extend(customers);
                        self.next = next;
                    }
                    Err(problem) => {
                        self.is_over = true;
                        return Some(broken_off(problem).await);
                    }
                }
            }
            while self.deciding.len() < BATCH_IN_FLIGHT
                && let Some(customer) = self.waiting.pop_front()
            {
                self.deciding.push(Box::pin(Arc::clone(&self.batch).decide(customer)));
            }
            let Some((line, is_decided)) = self.deciding.next().await else {
                self.is_over = true;
                return Some(self.done(begun.elapsed()));
            };
            self.decided += u64::from(is_decided);
            self.failed += u64::from(!is_decided);
            return Some(line);
        }
    }

    fn progress(&self) -> Bytes {
        let Run { decided, failed, .. } = *self;
        let share = self.next.map_or(1.0, |at| self.batch.asked.handle().listed(at));
        line(&Word::Progress { profiles: decided + failed, decided, failed, share })
    }

    fn done(&self, took: Duration) -> Bytes {
        let Run { decided, failed, .. } = *self;
        let (profiles, seconds) = (decided + failed, took.as_secs_f64());
        let profiles_per_second = if seconds > 0.0 { profiles as f64 / seconds } else { 0.0 };
        line(&Word::Done { profiles, decided, failed, seconds, profiles_per_second })
    }
}

fn line(word: &Word<'_>) -> Bytes {
    let mut bytes = serde_json::to_vec(word).expect("words can be written");
    bytes.push(b'\n');
    bytes.into()
}

/// The last line of a batch whose customers cannot be listed to the end.
async fn broken_off(problem: Problem) -> Bytes {
    let body = problem.into_response().into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    [br#"{"type":"brokenOff","problem":"#, &*body, b"}\n"].concat().into()
}
