//! A request that has passed the gate: its caller is known and allowed, its catalogue is new enough, its time is limited.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Query;
use axum::http::{HeaderMap, Method, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use proffer_cluster::Handle;
use proffer_cluster::calls::{Identity, Place};
use proffer_cluster::view::TenantView;
use proffer_engine::catalog::{Actor, Command, CommandV1, Op, Role};
use proffer_engine::keys::{CustomerId, Revision, TenantId};
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::App;
use crate::forwarding::Unanswered;
use crate::forwarding::answering::Came;
use crate::limits::{DISCARD_BYTES_MAX, DISCARD_TIMEOUT};
use crate::problem::Problem;
use crate::wire::value;

/// One admitted request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The application.
    pub app: Arc<App>,
    /// Who asks.
    pub identity: Arc<Identity>,
    /// The caller's catalogue, loaded once.
    pub view: Arc<TenantView>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Parameters of the path, decoded.
    pub path: Vec<(String, String)>,
    /// Parameters of the query, decoded.
    pub query: Queried,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body, within its limit.
    pub body: Bytes,
    /// Method.
    pub method: Method,
    /// Path and query, as they came.
    pub uri: Uri,
    /// The catalogue revision that the client asks for at least.
    pub least_revision: Option<Revision>,
    /// Another node forwarded it.
    pub came: Option<Came>,
    /// The customer it is about, once that is known, and where calls about them were answered then.
    pub about: OnceLock<(CustomerId, Place)>,
    /// The body has an idempotency key.
    pub keyed: OnceLock<()>,
    /// The place of a bulk request, left when the last of it is dropped.
    pub _room: Option<Arc<OwnedSemaphorePermit>>,
}

/// Parameters of a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queried(BTreeMap<String, String>);

impl Queried {
    /// Reads the query of `uri`.
    ///
    /// # Errors
    /// A parameter that is given twice or cannot be decoded.
    pub fn read(uri: &Uri) -> Result<Self, Problem> {
        if uri.query().is_none_or(str::is_empty) {
            return Ok(Queried::default());
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::invalid("/query", error.to_string()))?;
        let mut query = BTreeMap::new();
        for (name, value) in pairs {
            if query.contains_key(&name) {
                return Err(Problem::invalid(&format!("/query/{name}"), "is given twice"));
            }
            query.insert(name, value);
        }
        Ok(Queried(query))
    }

    /// Refuses parameters that are not in `known`.
    ///
    /// # Errors
    /// One fault each.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        let mut faults = Faults::new();
        faults.within("query", |faults| {
            for name in self.0.keys().filter(|name| !known.contains(&name.as_str())) {
                faults.add_at(name, "unknown parameter");
            }
        });
        if faults.is_empty() { Ok(()) } else { Err(Problem::Invalid(faults.into_vec())) }
    }

    /// The parameter `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Takes the parameter `name` out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The flag `name`: absent is false, present alone is true.
    ///
    /// # Errors
    /// Anything but `true`, `false`, `1`, `0` or nothing.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(Problem::invalid(&format!("/query/{name}"), "must be true or false")),
        }
    }
}

/// The catalogue in force of the caller's tenant.
///
/// # Errors
/// The tenant is gone.
pub fn tenant_view(app: &App, identity: &Identity) -> Result<Arc<TenantView>, Problem> {
    app.handle.tenant(&identity.tenant).ok_or_else(|| Problem::Forbidden("the tenant is gone".to_owned()))
}

impl Asked {
    /// The cluster.
    pub fn handle(&self) -> &Handle {
        &self.app.handle
    }

    /// The caller's tenant.
    pub fn tenant(&self) -> &TenantId {
        &self.identity.tenant
    }

    /// Says whom the call is about: another node may lead their shard.
    ///
    /// # Errors
    /// It does, or nobody is known to: the call is not answered here.
    pub fn at_home(&self, customer: &CustomerId) -> Result<(), Unanswered> {
        let place = self.app.ways.place(self.tenant(), customer);
        let _ = self.about.set((customer.clone(), place));
        match place {
            Place::Here => Ok(()),
            Place::At(node) => Err(Unanswered::Elsewhere(node)),
            Place::Nowhere => Err(Unanswered::NotLed("nobody is known to lead the customer's shard".to_owned())),
        }
    }

    /// Says that the body has an idempotency key: twice is as good as once.
    pub fn note_key(&self) {
        let _ = self.keyed.set(());
    }

    /// The same request, of the same caller, under the catalogue of now.
    ///
    /// # Errors
    /// The tenant is gone.
    pub fn renewed(&self) -> Result<Asked, Problem> {
        let view = tenant_view(&self.app, &self.identity)?;
        Ok(Asked { view, about: OnceLock::new(), ..self.clone() })
    }

    /// A parameter of the path.
    pub fn param(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The clock's time.
    pub fn now(&self) -> Timestamp {
        self.app.config.clock.wall()
    }

    /// A catalogue command of this caller.
    pub fn command(&self, op: Op) -> Command {
        let actor = Actor { name: self.identity.name.clone(), admin: self.identity.roles.contains(&Role::Admin) };
        Command::V1(CommandV1 { tenant: self.tenant().clone(), actor, at: self.now(), op })
    }

    /// The whole body, checked for its type.
    ///
    /// # Errors
    /// 415.
    pub fn bytes(&self, accepted: Accepted) -> Result<&[u8], Problem> {
        accepted.check(&self.headers)?;
        Ok(&self.body)
    }

    /// The body as a JSON value.
    ///
    /// # Errors
    /// As [`Asked::bytes`], and malformed JSON.
    pub fn json(&self) -> Result<Value, Problem> {
        value::read(self.bytes(Accepted::Json)?)
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 413, or 400 if the client broke off.
pub async fn read_body(headers: &HeaderMap, body: &mut Body, limit: usize) -> Result<Bytes, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limit as u64) {
        return Err(Problem::TooLarge { limit });
    }
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::TooLarge { limit }),
        Err(_) => Err(Problem::invalid("", "the body broke off")),
    }
}

/// Reads what is left of a body that is not wanted, within bounds: closing a connection on a client that is still writing
/// would take the answer from it. One that waits to be asked for its body is not asked.
pub async fn discard(waits_to_be_asked: bool, body: &mut Body) {
    if waits_to_be_asked || body.is_end_stream() {
        return;
    }
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { break };
            left = rest;
        }
    };
    // Whoever is too slow, or has still more, may not get to read the answer.
    let _ = timeout(DISCARD_TIMEOUT, reading).await;
}

/// Reads a typed body, all faults at once.
///
/// # Errors
/// [`Problem::Invalid`].
pub fn typed<T: Field>(value: &Value) -> Result<T, Problem> {
    let mut faults = Faults::new();
    match T::read(value, &mut faults) {
        Some(body) if faults.is_empty() => Ok(body),
        _ => Err(Problem::Invalid(faults.into_vec())),
    }
}

/// Content types that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// One JSON document.
    Json,
    /// JSON objects, one a line.
    Lines,
}

impl Accepted {
    fn check(self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
        let essence = given.to_str().unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        let is_json =
            essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
        let (fits, accepted) = match self {
            Accepted::Json => (is_json, "application/json"),
            Accepted::Lines => {
                let lines =
                    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"];
                (is_json || lines.contains(&essence.as_str()), "application/x-ndjson")
            }
        };
        if fits { Ok(()) } else { Err(Problem::UnsupportedMediaType { accepted }) }
    }
}
