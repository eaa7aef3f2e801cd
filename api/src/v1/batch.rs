//! `POST /batch-decisions`: decides for a segment or everybody and streams the answers, a line each. Every decision is made as if it had
//! been asked for alone, where its customer's shard is led: caps are as exact. Whoever closes the connection stops it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use proffer_cluster::calls::Listing;
use proffer_engine::keys::CustomerId;
use proffer_engine::model::fault::Fault;
use proffer_engine::value::{Members, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use xxhash_rust::xxh3::xxh3_128;

use crate::access::{self, Route};
use crate::asked::{Asked, Queried, tenant_view, typed};
use crate::forwarding;
use crate::idempotency;
use crate::limits::{
    BATCH_COPIES_IN_FLIGHT, BATCH_IN_FLIGHT, BATCH_LINES_PROGRESS, BATCH_LINES_WAITING, BATCH_RETRY, BATCH_STALLED,
    BATCH_TRIES, BATCH_UNAVAILABLE_MAX, BATCHES_MAX, BULK_RETRY_AFTER_MS,
};
use crate::problem::Problem;
use crate::resolve::{Slots, resolve};
use crate::routes::{Answered, authenticate};
use crate::v1::recommend;
use crate::wire::batch::{BatchDecisions, Word};
use crate::wire::value::Json;

/// `POST /api/v1/batch-decisions`.
pub async fn decide(asked: Arc<Asked>) -> Answered {
    asked.query.only(&[])?;
    let value = asked.json()?;
    let place = Arc::clone(&asked.app.batches).try_acquire_owned().map_err(|_full| Problem::Busy {
        message: format!("{BATCHES_MAX} batches are under way"),
        retry_after_ms: BULK_RETRY_AFTER_MS,
    })?;
    let run = Run::new(Arc::new(Batch::new(asked, typed(&value)?)?));
    let (sender, lines) = mpsc::channel(BATCH_LINES_WAITING);
    tokio::spawn(async move {
        run.drive(sender).await;
        drop(place);
    });
    let lines = unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
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
    /// How many are made at a time.
    in_flight: usize,
}

/// What became of one customer.
enum Fate {
    Decided,
    Failed,
    /// Nobody answered, or took no more.
    Unavailable,
    /// Nor will it be otherwise with any other.
    Barred(Problem),
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
        let copies = body.dry_run || request.get("explain") == Some(&Value::Bool(true));
        let in_flight = if copies { BATCH_COPIES_IN_FLIGHT } else { BATCH_IN_FLIGHT };
        let batch = Batch { id, segment, request: (**request).clone(), route, slots, in_flight, asked };
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

    /// The call that decides for one customer. Who asked may have lost the right to since the batch began.
    fn call(&self, customer: &CustomerId) -> Result<Asked, Problem> {
        let key = xxh3_128(format!("{}\0{}", self.id, customer.0).as_bytes());
        let key = HeaderValue::try_from(format!("batch-{key:032x}")).expect("it is hexadecimal");
        let mut headers = self.asked.headers.clone();
        headers.insert("idempotency-key", key);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let identity = authenticate(&self.asked.app, &headers)?;
        if !access::allows(self.route.access, &identity.roles) {
            return Err(Problem::Forbidden("the key has lost the role that this takes".to_owned()));
        }
        let body = serde_json::to_vec(&Json(&self.body_for(customer))).expect("values can be written");
        Ok(Asked {
            view: tenant_view(&self.asked.app, &identity)?,
            identity,
            deadline: Instant::now() + self.asked.app.config.request_timeout,
            query: Queried::default(),
            headers,
            body: Bytes::from(body),
            uri: Uri::from_static(self.route.path),
            about: OnceLock::new(),
            ..(*self.asked).clone()
        })
    }

    async fn answer(&self, call: Asked) -> Result<Response, Problem> {
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

    /// Decides for one customer; again, if that may help. The line, and what became of it.
    async fn decide(self: Arc<Self>, customer: CustomerId) -> (Bytes, Fate) {
        let mut tries = 1;
        let (answered, fate) = loop {
            let call = match self.call(&customer) {
                Ok(call) => call,
                Err(problem) if problem.retryable() && tries < BATCH_TRIES => {
                    sleep(BATCH_RETRY * tries).await;
                    tries += 1;
                    continue;
                }
                Err(problem) => return (Bytes::new(), Fate::Barred(problem)),
            };
            let answered = self.answer(call).await.unwrap_or_else(Problem::into_response);
            let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
            if !later.contains(&answered.status()) {
                let fate = if answered.status().is_success() { Fate::Decided } else { Fate::Failed };
                break (answered, fate);
            }
            if tries == BATCH_TRIES {
                break (answered, Fate::Unavailable);
            }
            sleep(BATCH_RETRY * tries).await;
            tries += 1;
        };
        let (kind, member) = match fate {
            Fate::Decided => ("decision", "answer"),
            Fate::Failed | Fate::Unavailable | Fate::Barred(_) => ("problem", "problem"),
        };
        (line_of(kind, Some(&customer), member, answered).await, fate)
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
    if let Problem::Invalid(faults) = problem {
        let within = |fault: Fault| Fault { pointer: format!("/request{}", fault.pointer), ..fault };
        Problem::Invalid(faults.into_iter().map(within).collect())
    } else {
        problem
    }
}

/// A line with what a node wrote, which is whole in memory.
async fn line_of(kind: &str, customer: Option<&CustomerId>, member: &str, written: Response) -> Bytes {
    let written = written.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let customer = customer.map(|customer| serde_json::to_string(&*customer.0).expect("text can be written"));
    let customer = customer.map_or(String::new(), |customer| format!(r#","customerId":{customer}"#));
    let head = format!(r#"{{"type":"{kind}"{customer},"{member}":"#);
    [head.as_bytes(), &*written, b"}\n"].concat().into()
}

/// A batch under way.
struct Run {
    batch: Arc<Batch>,
    begun: Option<Instant>,
    /// Where the listings go on, a shard after the other in turn: none has more to do than the others.
    listings: VecDeque<Listing>,
    shards: usize,
    waiting: VecDeque<CustomerId>,
    deciding: JoinSet<(Bytes, Fate)>,
    decided: u64,
    failed: u64,
    /// Failed because nobody answered, in a row.
    unavailable: u32,
    /// How many were answered for when that was last told.
    told: u64,
    is_over: bool,
}

impl Run {
    fn new(batch: Arc<Batch>) -> Self {
        let listings = VecDeque::from(batch.asked.handle().listings());
        Run {
            batch,
            begun: None,
            shards: listings.len(),
            listings,
            waiting: VecDeque::new(),
            deciding: JoinSet::new(),
            decided: 0,
            failed: 0,
            unavailable: 0,
            told: 0,
            is_over: false,
        }
    }

    /// To its end, or until nobody takes what it says.
    async fn drive(mut self, sender: mpsc::Sender<Bytes>) {
        loop {
            let line = tokio::select! {
                biased;
                () = sender.closed() => return,
                line = self.next_line() => line,
            };
            let Some(line) = line else { return };
            if !matches!(timeout(BATCH_STALLED, sender.send(line)).await, Ok(Ok(()))) {
                return;
            }
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
        while self.waiting.is_empty()
            && let Some(at) = self.listings.pop_front()
        {
            match self.batch.list(at).await {
                Ok((customers, next)) => {
                    self.waiting.extend(customers);
                    self.listings.extend(next);
                }
                Err(problem) => return Some(self.break_off(problem).await),
            }
        }
        while self.deciding.len() < self.batch.in_flight
            && let Some(customer) = self.waiting.pop_front()
        {
            self.deciding.spawn(Arc::clone(&self.batch).decide(customer));
        }
        let Some(joined) = self.deciding.join_next().await else {
            self.is_over = true;
            return Some(self.done(begun.elapsed()));
        };
        let (line, fate) = match joined {
            Ok(decided) => decided,
            Err(_panicked) => {
                self.batch.asked.app.panics.fetch_add(1, Ordering::Relaxed);
                (line_of("problem", None, "problem", Problem::Internal.into_response()).await, Fate::Failed)
            }
        };
        self.unavailable = if matches!(fate, Fate::Unavailable) { self.unavailable + 1 } else { 0 };
        match fate {
            Fate::Decided => self.decided += 1,
            Fate::Barred(problem) => return Some(self.break_off(problem).await),
            Fate::Unavailable if self.unavailable == BATCH_UNAVAILABLE_MAX => {
                return Some(self.break_off(Problem::Timeout).await);
            }
            Fate::Failed | Fate::Unavailable => self.failed += 1,
        }
        Some(line)
    }

    /// The last line of a batch that ends before its end.
    async fn break_off(&mut self, problem: Problem) -> Bytes {
        self.is_over = true;
        self.deciding.abort_all();
        line_of("brokenOff", None, "problem", problem.into_response()).await
    }

    fn progress(&self) -> Bytes {
        let Run { decided, failed, .. } = *self;
        let under_way: f64 = self.listings.iter().map(|at| at.share()).sum();
        let share = ((self.shards - self.listings.len()) as f64 + under_way) / self.shards as f64;
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
