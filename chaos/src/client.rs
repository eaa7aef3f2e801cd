//! Calls to any node, made again at another one until they are answered, and written down.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::history::{Answer, Call, Line, write};
use crate::limits::{CALL_MAX, CONNECT_MAX, TRY_MAX, TRY_PAUSE};
use crate::supervisor::DEV_KEY;

/// Writes the history of a run, and keeps its clock.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    /// All clients write to it, a line at a time.
    file: Mutex<BufWriter<File>>,
    next: AtomicU64,
    answered: AtomicU64,
}

impl Recorder {
    /// A new history; its clock begins now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(path: &Path) -> anyhow::Result<Recorder> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (next, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Recorder { begun: Instant::now(), file: Mutex::new(BufWriter::new(file)), next, answered })
    }

    /// Microseconds since the run began.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How many calls were answered so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Writes down what was done to the cluster.
    pub fn note(&self, what: String) {
        self.put(&Line::Note { at_us: self.now_us(), what });
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        Ok(std::io::Write::flush(&mut *self.file.lock().expect("no holder panics"))?)
    }

    fn put(&self, line: &Line) {
        let mut file = self.file.lock().expect("no holder panics");
        // A run without its history would say nothing: better none.
        write(line, &mut *file).expect("the history can be written");
    }
}

/// Where nodes are called.
#[derive(Debug)]
pub struct Doors {
    /// Base URLs of all places.
    pub urls: Vec<String>,
    /// At which of them a node is.
    pub open: watch::Receiver<Vec<usize>>,
}

/// One who makes a call at a time.
#[derive(Clone, Debug)]
pub struct Caller {
    http: reqwest::Client,
    doors: Arc<Doors>,
    recorder: Arc<Recorder>,
    client: u64,
    turn: usize,
}

/// A call as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// From the root.
    pub path: String,
    /// JSON; null: none.
    pub body: Value,
    /// Idempotency key.
    pub key: Option<String>,
    /// Least revision of the catalogue.
    pub least: Option<u64>,
    /// It may be made again when it is not known what became of it.
    pub may_repeat: bool,
}

impl Request {
    /// Without a key; what reads may be repeated.
    pub fn new(method: Method, path: impl Into<String>, body: Value) -> Request {
        let may_repeat = method == Method::GET;
        Request { method, path: path.into(), body, key: None, least: None, may_repeat }
    }

    /// With an idempotency key, and so as often as one likes.
    pub fn keyed(self, key: &str) -> Request {
        Request { key: Some(key.to_owned()), may_repeat: true, ..self }
    }
}

/// How a call ended.
#[derive(Clone, Debug)]
pub enum Reached {
    /// It was answered with a success.
    Ok {
        /// When the request was sent that was answered.
        sent_us: u64,
        /// `X-Catalog-Revision` of the answer.
        revision: u64,
        /// JSON.
        body: Value,
    },
    /// It was refused, and had no effect.
    Fail {
        /// Of the last answer, if there was one.
        status: Option<StatusCode>,
        /// In words.
        why: String,
    },
    /// Nobody knows what became of it.
    Unknown {
        /// In words.
        why: String,
    },
}

/// One try.
enum Tried {
    Answered {
        revision: u64,
        body: Value,
    },
    /// For good, and without effect.
    Refused(StatusCode, String),
    /// Without effect; another time it may go.
    NotNow(Option<StatusCode>, String),
    InDoubt(String),
}

impl Caller {
    /// A client with a number of its own.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(client: u64, doors: Arc<Doors>, recorder: Arc<Recorder>) -> anyhow::Result<Caller> {
        let http = reqwest::Client::builder().no_proxy().timeout(TRY_MAX).connect_timeout(CONNECT_MAX).build()?;
        Ok(Caller { http, doors, recorder, client, turn: usize::try_from(client)? })
    }

    /// The clock of the run.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Makes a call and writes down how it ended. `read` turns what came back into the answer; nothing if it makes no sense. Answers with the
    /// operation's id and that answer, if there was one, and the body.
    pub async fn record(
        &mut self,
        call: Call,
        request: Request,
        read: impl FnOnce(u64, &Value) -> Option<Answer>,
    ) -> (u64, Option<(Answer, Value)>) {
        self.record_failing(call, request, |_| None, read).await
    }

    /// As [`Caller::record`], where some refusals are answers too.
    pub async fn record_failing(
        &mut self,
        call: Call,
        request: Request,
        refused: impl FnOnce(StatusCode) -> Option<Answer>,
        read: impl FnOnce(u64, &Value) -> Option<Answer>,
    ) -> (u64, Option<(Answer, Value)>) {
        let recorder = Arc::clone(&self.recorder);
        let id = recorder.next.fetch_add(1, Ordering::Relaxed);
        let begun_us = recorder.now_us();
        recorder.put(&Line::Invoke { id, client: self.client, at_us: begun_us, call });
        let reached = self.reach(&request).await;
        let at_us = recorder.now_us();
        let (line, answered) = match reached {
            Reached::Ok { sent_us, revision, body } => match read(revision, &body) {
                Some(answer) => (Line::Ok { id, at_us, sent_us, answer: answer.clone() }, Some((answer, body))),
                None => (Line::Unknown { id, at_us, why: format!("cannot be read: {body}") }, None),
            },
            Reached::Fail { status, why } => match status.and_then(refused) {
                Some(answer) => {
                    (Line::Ok { id, at_us, sent_us: begun_us, answer: answer.clone() }, Some((answer, Value::Null)))
                }
                None => (Line::Fail { id, at_us, why }, None),
            },
            Reached::Unknown { why } => (Line::Unknown { id, at_us, why }, None),
        };
        recorder.put(&line);
        recorder.answered.fetch_add(u64::from(answered.is_some()), Ordering::Relaxed);
        (id, answered)
    }

    /// Makes a call, again at another node where that is harmless, until it is answered or too old.
    pub async fn reach(&mut self, request: &Request) -> Reached {
        let deadline = Instant::now() + CALL_MAX;
        let mut doubt: Option<String> = None;
        loop {
            let sent_us = self.recorder.now_us();
            let (status, why) = match self.attempt(request).await {
                Tried::Answered { revision, body } => return Reached::Ok { sent_us, revision, body },
                Tried::Refused(status, why) => {
                    return match doubt {
                        Some(doubt) => Reached::Unknown { why: format!("{doubt}; then {why}") },
                        None => Reached::Fail { status: Some(status), why },
                    };
                }
                Tried::NotNow(status, why) => (status, why),
                Tried::InDoubt(why) if request.may_repeat => {
                    // What only reads leaves no doubt behind.
                    if request.method != Method::GET {
                        doubt = Some(why.clone());
                    }
                    (None, why)
                }
                Tried::InDoubt(why) => return Reached::Unknown { why },
            };
            if Instant::now() + TRY_PAUSE >= deadline {
                return match doubt {
                    Some(why) => Reached::Unknown { why },
                    None => Reached::Fail { status, why },
                };
            }
            sleep(TRY_PAUSE).await;
        }
    }

    /// The next node's address: of those that there are, in turn.
    fn next(&mut self) -> Option<String> {
        self.turn = self.turn.wrapping_add(1);
        let open = self.doors.open.borrow();
        let number = *open.get(self.turn % open.len().max(1))?;
        self.doors.urls.get(number).cloned()
    }

    async fn attempt(&mut self, request: &Request) -> Tried {
        let Some(url) = self.next() else { return Tried::NotNow(None, "there is no node".to_owned()) };
        let mut asked = self.http.request(request.method.clone(), format!("{url}{}", request.path));
        asked = asked.header("X-API-Key", DEV_KEY);
        if !request.body.is_null() {
            asked = asked.json(&request.body);
        }
        if let Some(key) = &request.key {
            asked = asked.header("Idempotency-Key", key);
        }
        if let Some(least) = request.least {
            asked = asked.header("X-Min-Catalog-Revision", least);
        }
        let answer = match asked.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => return Tried::NotNow(None, format!("{url}: {error}")),
            Err(error) => return Tried::InDoubt(format!("{url}: {error}")),
        };
        let status = answer.status();
        let revision = answer.headers().get("x-catalog-revision").and_then(|header| header.to_str().ok()?.parse().ok());
        let body: Value = match answer.bytes().await {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            Err(error) => return Tried::InDoubt(format!("{url}: {error}")),
        };
        judge(status, revision.unwrap_or_default(), body)
    }
}

fn judge(status: StatusCode, revision: u64, body: Value) -> Tried {
    if status.is_success() {
        return Tried::Answered { revision, body };
    }
    let why = format!("{status}: {}", body["detail"].as_str().unwrap_or("no problem document"));
    let is_later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    match (is_later, body["outcome"] == "notApplied") {
        (false, _) => Tried::Refused(status, why),
        (true, true) => Tried::NotNow(Some(status), why),
        (true, false) => Tried::InDoubt(why),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_says_so_was_not_applied() {
        let kind = |status: u16, body: Value| match judge(StatusCode::from_u16(status).unwrap(), 7, body) {
            Tried::Answered { .. } => "answered",
            Tried::Refused(..) => "refused",
            Tried::NotNow(..) => "not now",
            Tried::InDoubt(_) => "in doubt",
        };
        assert_eq!(kind(200, json!({})), "answered");
        assert_eq!((kind(400, json!({})), kind(410, json!({"outcome": "notApplied"}))), ("refused", "refused"));
        assert_eq!(
            (kind(503, json!({"outcome": "notApplied"})), kind(429, json!({"outcome": "notApplied"}))),
            ("not now", "not now")
        );
        for body in [json!({"outcome": "unknown"}), json!({"outcome": "applied"}), Value::Null] {
            assert_eq!(kind(503, body), "in doubt");
        }
    }
}
