//! Problem documents (RFC 9457): everything that can go wrong on the HTTP face, in one enum with total functions.
//!
//! Invariant: no response with a status of 400 or more leaves this crate without a problem document.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proffer_cluster::{Error, Outcome};
use proffer_engine::catalog::Refusal;
use proffer_engine::model::fault::Fault;
use serde::Serialize;

/// Why a request was not answered as asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// The body is not JSON, or breaks a limit of its shape.
    Malformed {
        /// Line of the body, from 1.
        line: usize,
        /// Column of that line, from 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// Body, query or header say something that cannot be: every fault found.
    Invalid(Vec<Fault>),
    /// Lines of a bulk body are wrong; nothing was stored.
    InvalidLines {
        /// The first of them.
        lines: Vec<BadLine>,
        /// How many there are.
        count: usize,
    },
    /// No API key, or one that does not exist.
    Unauthenticated,
    /// The key may not do this.
    Forbidden(String),
    /// No such route or entity.
    NotFound(String),
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// Well formed, but it clashes with what is stored.
    Conflict {
        /// The clash.
        message: String,
        /// Every clash, where members are to blame.
        faults: Vec<Fault>,
    },
    /// The idempotency key was used for another body.
    KeyReused,
    /// The `recommendationId` has expired; nothing was recorded.
    Expired,
    /// The entity has another revision than `If-Match` says.
    RevisionMismatch(String),
    /// The body is larger than the route takes.
    TooLarge {
        /// Most bytes it takes.
        limit: usize,
    },
    /// The body is of a type the route does not take.
    UnsupportedMediaType {
        /// What it takes.
        accepted: &'static str,
    },
    /// Too much is waiting.
    Busy {
        /// What is full.
        message: String,
        /// Milliseconds after which a retry is worth it.
        retry_after_ms: u64,
    },
    /// The node cannot do it now.
    Unavailable {
        /// Why.
        message: String,
        /// Milliseconds after which a retry is worth it.
        retry_after_ms: u64,
        /// Whether it may have taken effect.
        outcome: Outcome,
    },
    /// A bulk write was not applied wholly.
    Partial {
        /// Why; gives status and retryability.
        cause: Box<Problem>,
        /// How many items are known to be applied.
        applied: usize,
        /// How many were asked for.
        asked: usize,
        /// The first of the lines that were refused.
        lines: Vec<BadLine>,
    },
    /// The time for the request ran out.
    Timeout,
    /// It was answered, with more than one node sends another.
    AnswerTooLarge,
    /// A fault of this program.
    Internal,
}

/// A line of a bulk body with what is wrong with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BadLine {
    /// In a body of several kinds: which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub errors: Vec<FaultDocument>,
}

/// A fault as problem documents write it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultDocument {
    /// JSON pointer (RFC 6901) into the body; for query and headers into `/query` and `/headers`.
    pub pointer: String,
    /// A sentence.
    pub detail: String,
}

impl From<Fault> for FaultDocument {
    fn from(fault: Fault) -> Self {
        FaultDocument { pointer: fault.pointer, detail: fault.message }
    }
}

impl Problem {
    /// One fault at `pointer`.
    pub fn invalid(pointer: &str, message: impl Into<String>) -> Self {
        Problem::Invalid(vec![Fault { pointer: pointer.to_owned(), message: message.into() }])
    }

    /// An entity or thing that is not there.
    pub fn not_found(what: impl std::fmt::Display) -> Self {
        Problem::NotFound(format!("{what} does not exist"))
    }

    /// What of it is to be said of the line it is about.
    pub fn into_faults(self) -> Vec<Fault> {
        let detail = self.detail();
        if let Problem::Invalid(faults) | Problem::Conflict { faults, .. } = self
            && !faults.is_empty()
        {
            return faults;
        }
        vec![Fault { pointer: String::new(), message: detail }]
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Problem::Malformed { .. } | Problem::Invalid(_) | Problem::InvalidLines { .. } => StatusCode::BAD_REQUEST,
            Problem::Unauthenticated => StatusCode::UNAUTHORIZED,
            Problem::Forbidden(_) => StatusCode::FORBIDDEN,
            Problem::NotFound(_) => StatusCode::NOT_FOUND,
            Problem::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Problem::Conflict { .. } | Problem::KeyReused => StatusCode::CONFLICT,
            Problem::Expired => StatusCode::GONE,
            Problem::RevisionMismatch(_) => StatusCode::PRECONDITION_FAILED,
            Problem::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Problem::Unavailable { .. } | Problem::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Problem::Partial { cause, .. } => cause.status(),
            Problem::Internal | Problem::AnswerTooLarge => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The stable `type` URI, relative to the API's origin.
    pub fn type_uri(&self) -> &'static str {
        match self {
            Problem::Malformed { .. } => "/problems/malformed-json",
            Problem::Invalid(_) => "/problems/invalid",
            Problem::InvalidLines { .. } => "/problems/invalid-lines",
            Problem::Unauthenticated => "/problems/unauthenticated",
            Problem::Forbidden(_) => "/problems/forbidden",
            Problem::NotFound(_) => "/problems/not-found",
            Problem::MethodNotAllowed => "/problems/method-not-allowed",
            Problem::Conflict { .. } => "/problems/conflict",
            Problem::KeyReused => "/problems/idempotency-key-reused",
            Problem::Expired => "/problems/expired",
            Problem::RevisionMismatch(_) => "/problems/revision-mismatch",
            Problem::TooLarge { .. } => "/problems/too-large",
            Problem::UnsupportedMediaType { .. } => "/problems/unsupported-media-type",
            Problem::Busy { .. } => "/problems/busy",
            Problem::Unavailable { .. } => "/problems/unavailable",
            Problem::Partial { .. } => "/problems/partially-applied",
            Problem::Timeout => "/problems/timeout",
            Problem::AnswerTooLarge => "/problems/answer-too-large",
            Problem::Internal => "/problems/internal",
        }
    }

    /// The sentence that belongs to the type.
    pub fn title(&self) -> &'static str {
        match self {
            Problem::Malformed { .. } => "The body is not well-formed JSON.",
            Problem::Invalid(_) => "The request is invalid.",
            Problem::InvalidLines { .. } => "Lines of the body are invalid; nothing was stored.",
            Problem::Unauthenticated => "A valid API key is required.",
            Problem::Forbidden(_) => "The API key does not allow this.",
            Problem::NotFound(_) => "There is no such thing.",
            Problem::MethodNotAllowed => "The route does not take this method.",
            Problem::Conflict { .. } => "The request clashes with what is stored.",
            Problem::KeyReused => "The idempotency key was used for another request.",
            Problem::Expired => "The recommendation has expired; nothing was recorded.",
            Problem::RevisionMismatch(_) => "The entity has another revision.",
            Problem::TooLarge { .. } => "The body is too large.",
            Problem::UnsupportedMediaType { .. } => "The body is of a type that is not supported.",
            Problem::Busy { .. } => "Too much is waiting; try again later.",
            Problem::Unavailable { .. } => "The node cannot do this now; try again later.",
            Problem::Partial { .. } => "Only a part was applied; repeating the request is harmless.",
            Problem::Timeout => "The time for the request ran out.",
            Problem::AnswerTooLarge => "The answer is too large to come from another node.",
            Problem::Internal => "The server failed; the fault is in its log.",
        }
    }

    /// What happened this time, as a sentence.
    pub fn detail(&self) -> String {
        match self {
            Problem::Malformed { line, column, message } => format!("{message} (line {line}, column {column})"),
            Problem::Invalid(faults) => match faults.as_slice() {
                [only] => only.to_string(),
                many => format!("{} faults; the first: {}", many.len(), many.first().map_or("", |f| &f.message)),
            },
            Problem::InvalidLines { lines, count } => {
                format!("{count} invalid lines, {} of them listed", lines.len())
            }
            Problem::Unauthenticated => "the header X-API-Key is missing or names no key".to_owned(),
            Problem::Forbidden(message) | Problem::NotFound(message) | Problem::RevisionMismatch(message) => {
                message.clone()
            }
            Problem::MethodNotAllowed => "see the header Allow".to_owned(),
            Problem::Conflict { message, .. } => message.clone(),
            Problem::KeyReused => "use a new key for a new request".to_owned(),
            Problem::Expired => "the outcome window of this recommendationId has passed".to_owned(),
            Problem::TooLarge { limit } => format!("at most {limit} bytes are taken"),
            Problem::UnsupportedMediaType { accepted } => format!("the content type must be {accepted}"),
            Problem::Busy { message, .. } | Problem::Unavailable { message, .. } => message.clone(),
            Problem::Partial { cause, applied, asked, .. } => {
                format!("{applied} of {asked} applied: {}", cause.detail())
            }
            Problem::Timeout => "whether it took effect is not known".to_owned(),
            Problem::AnswerTooLarge => {
                "it took effect; ask for less, or the node that leads the customer's shard".to_owned()
            }
            Problem::Internal => "unexpected".to_owned(),
        }
    }

    /// What is known of the effect of the request.
    pub fn outcome(&self) -> Outcome {
        match self {
            Problem::Unavailable { outcome, .. } => *outcome,
            Problem::Partial { applied: 0, cause, .. } => cause.outcome(),
            Problem::AnswerTooLarge => Outcome::Applied,
            Problem::Timeout | Problem::Internal | Problem::Partial { .. } => Outcome::Unknown,
            Problem::Malformed { .. }
            | Problem::Invalid(_)
            | Problem::InvalidLines { .. }
            | Problem::Unauthenticated
            | Problem::Forbidden(_)
            | Problem::NotFound(_)
            | Problem::MethodNotAllowed
            | Problem::Conflict { .. }
            | Problem::KeyReused
            | Problem::Expired
            | Problem::RevisionMismatch(_)
            | Problem::TooLarge { .. }
            | Problem::UnsupportedMediaType { .. }
            | Problem::Busy { .. } => Outcome::NotApplied,
        }
    }

    /// Milliseconds after which the same request may succeed; `None` if it will not.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Problem::Busy { retry_after_ms, .. } | Problem::Unavailable { retry_after_ms, .. } => Some(*retry_after_ms),
            Problem::Partial { cause, .. } => cause.retry_after_ms(),
            Problem::Timeout => Some(1_000),
            Problem::Malformed { .. }
            | Problem::Invalid(_)
            | Problem::InvalidLines { .. }
            | Problem::Unauthenticated
            | Problem::Forbidden(_)
            | Problem::NotFound(_)
            | Problem::MethodNotAllowed
            | Problem::Conflict { .. }
            | Problem::KeyReused
            | Problem::Expired
            | Problem::RevisionMismatch(_)
            | Problem::TooLarge { .. }
            | Problem::UnsupportedMediaType { .. }
            | Problem::AnswerTooLarge
            | Problem::Internal => None,
        }
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.retry_after_ms().is_some()
    }

    fn document(&self) -> Document {
        let mut document = Document {
            type_uri: self.type_uri(),
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.detail(),
            retryable: self.retryable(),
            outcome: match self.outcome() {
                Outcome::Applied => "applied",
                Outcome::NotApplied => "notApplied",
                Outcome::Unknown => "unknown",
            },
            errors: Vec::new(),
            lines: Vec::new(),
            line: None,
            column: None,
            applied: None,
        };
        match self {
            Problem::Malformed { line, column, .. } => {
                document.line = Some(*line);
                document.column = Some(*column);
            }
            Problem::Invalid(faults) | Problem::Conflict { faults, .. } => {
                document.errors = faults.iter().cloned().map(FaultDocument::from).collect();
            }
            Problem::InvalidLines { lines, .. } => document.lines = lines.clone(),
            Problem::Partial { applied, lines, .. } => {
                document.applied = Some(*applied);
                document.lines = lines.clone();
            }
            Problem::Unauthenticated
            | Problem::Forbidden(_)
            | Problem::NotFound(_)
            | Problem::MethodNotAllowed
            | Problem::KeyReused
            | Problem::Expired
            | Problem::RevisionMismatch(_)
            | Problem::TooLarge { .. }
            | Problem::UnsupportedMediaType { .. }
            | Problem::Busy { .. }
            | Problem::Unavailable { .. }
            | Problem::Timeout
            | Problem::AnswerTooLarge
            | Problem::Internal => {}
        }
        document
    }
}

/// The members of a problem document.
#[derive(Serialize)]
struct Document {
    #[serde(rename = "type")]
    type_uri: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    retryable: bool,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FaultDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<BadLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<usize>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document()).expect("a document of strings and numbers can be written");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(ms) = self.retry_after_ms() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        if self == Problem::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey realm=\"proffer\""));
        }
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(faults) => Problem::Invalid(faults),
            Refusal::Forbidden(message) => Problem::Forbidden(message),
            Refusal::NotFound(what) => Problem::not_found(what),
            Refusal::Conflict { message, faults } => Problem::Conflict { message, faults },
            mismatch @ Refusal::RevisionMismatch { .. } => Problem::RevisionMismatch(mismatch.to_string()),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (retry, outcome) = (error.retry_after_ms().unwrap_or(1_000), error.outcome());
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::UnknownTenant(_) => Problem::Forbidden(message),
            Error::NotFound(_) => Problem::NotFound(message),
            Error::Invalid(message) => Problem::invalid("", message),
            Error::KeyReused => Problem::KeyReused,
            Error::KeysFull => Problem::Busy { message, retry_after_ms: retry },
            Error::Overloaded { retry_after_ms } => Problem::Busy { message, retry_after_ms },
            Error::Unavailable { .. } | Error::NotLed { .. } | Error::Expired | Error::Unknown => {
                Problem::Unavailable { message, retry_after_ms: retry, outcome }
            }
            Error::Partial { applied, asked, cause, .. } => {
                Problem::Partial { cause: Box::new((*cause).into()), applied, asked, lines: Vec::new() }
            }
            Error::Poisonous => {
                tracing::error!(%message, "a command cannot be applied");
                Problem::Internal
            }
        }
    }
}
