//! A node to play with: manual disk, paused clock, a small catalogue.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use proffer_engine::catalog::{Actor, Command, CommandV1, EntityKind, Op};
use proffer_engine::decide::request::{Duplicates, Explain, Request};
use proffer_engine::keys::{CustomerId, OfferKey, TenantId};
use proffer_engine::profile::command::DecisionId;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::time::Instant;

use crate::calls::{Call, CallKey, Changed, Decided, RespondRequest, Responded};
use crate::error::Error;
use crate::handle::Handle;
use crate::ports::clock::Clock;
use crate::ports::disk::Disk;
use crate::ports::entropy::SeededEntropy;
use crate::ports::fatal::RecordedFatal;
use crate::ports::memory_network::MemoryNetwork;
use crate::ports::offload::InlineOffload;
use crate::start::Ports;

/// Wall and boot time as tokio's paused clock has them.
pub(super) struct TokioClock(Instant);

/// Where every scenario begins: 2026-11-21, 12:00 UTC.
pub(super) const NOON: i64 = 1_795_262_400_000;

impl TokioClock {
    pub(super) fn new() -> Self {
        TokioClock(Instant::now())
    }
}

impl Clock for TokioClock {
    fn wall(&self) -> Timestamp {
        Timestamp(NOON).plus_ms(i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }

    fn boottime(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that can be put forward, as a node finds it that was stopped for a while, and put wrong.
pub(super) struct OddClock {
    inner: TokioClock,
    /// It was stopped for so long.
    pub(super) stopped_ms: AtomicU64,
    /// Each look finds it so much later.
    pub(super) races_ms: AtomicU64,
    /// What its wall shows too much.
    pub(super) ahead_ms: AtomicI64,
}

impl OddClock {
    /// One that is right.
    pub(super) fn new() -> Self {
        OddClock {
            inner: TokioClock::new(),
            stopped_ms: AtomicU64::new(0),
            races_ms: AtomicU64::new(0),
            ahead_ms: AtomicI64::new(0),
        }
    }
}

impl Clock for OddClock {
    fn wall(&self) -> Timestamp {
        let stopped = self.stopped_ms.load(Ordering::SeqCst).cast_signed();
        self.inner.wall().plus_ms(stopped + self.ahead_ms.load(Ordering::SeqCst))
    }

    fn boottime(&self) -> Duration {
        let race = self.races_ms.load(Ordering::SeqCst);
        self.inner.boottime() + Duration::from_millis(self.stopped_ms.fetch_add(race, Ordering::SeqCst))
    }
}

pub(super) fn ports(disk: Arc<dyn Disk>, seed: u64) -> (Ports, Arc<RecordedFatal>) {
    let fatal = Arc::new(RecordedFatal::default());
    let ports = Ports {
        disk,
        offload: Arc::new(InlineOffload),
        clock: Arc::new(TokioClock::new()),
        entropy: Arc::new(SeededEntropy::new(seed)),
        network: Arc::new(MemoryNetwork::new().host("here")),
        fatal: Arc::clone(&fatal) as _,
    };
    (ports, fatal)
}

pub(super) fn tenant() -> TenantId {
    TenantId::new("acme")
}

pub(super) fn customer(number: usize) -> CustomerId {
    CustomerId::new(format!("customer-{number}"))
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

pub(super) fn command(op: Op) -> Command {
    let actor = Actor { name: "test".to_owned(), admin: true };
    Command::V1(CommandV1 { tenant: tenant(), actor, at: Timestamp(NOON), op })
}

pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::map(members)
}

/// A global cap on impressions.
pub(super) fn global_cap(limit: u64) -> Value {
    object([("scope", Value::text("global")), ("limit", Value::Number(limit as f64))])
}

/// A cap on impressions of one profile.
pub(super) fn profile_cap(limit: u64) -> Value {
    object([("scope", Value::text("profile")), ("limit", Value::Number(limit as f64))])
}

pub(super) fn offer(id: &str, priority: u8, caps: Vec<Value>) -> Command {
    let body = object([
        ("name", Value::text(id)),
        ("status", Value::text("active")),
        ("priority", Value::Number(f64::from(priority))),
        ("caps", Value::list(caps)),
    ]);
    command(Op::Create { kind: EntityKind::Offer, id: id.to_owned(), body })
}

pub(super) fn update(id: &str, patch: Value) -> Command {
    command(Op::Update { kind: EntityKind::Offer, id: id.to_owned(), patch, expected: None })
}

pub(super) async fn change(handle: &Handle, command: Command) -> Changed {
    handle.change(command, Instant::now() + Duration::from_secs(30)).await.unwrap()
}

pub(super) fn key_of(handle: &Handle, id: &str) -> OfferKey {
    handle.tenant(&tenant()).unwrap().catalog.offers().key_of(id).unwrap()
}

pub(super) fn request(customer: CustomerId) -> Request {
    Request {
        tenant: tenant(),
        customer,
        channel: None,
        slots: Vec::new(),
        flow: None,
        limit: Some(1),
        attributes: Vec::new(),
        context: Vec::new(),
        segments: Vec::new(),
        exclude_offers: Vec::new(),
        exclude_creatives: Vec::new(),
        duplicates: Duplicates::Never,
        arbitration: None,
        explain: Explain::Off,
        counters: true,
    }
}

pub(super) fn keyed(key: u128) -> Call {
    Call { idempotency: Some(CallKey { key, body: 1 }), ..Call::until(soon()) }
}

pub(super) async fn decide(handle: &Handle, number: usize) -> Result<Decided, Error> {
    handle.decide(request(customer(number)), Call::until(soon())).await
}

pub(super) async fn impression(
    handle: &Handle,
    number: usize,
    offer: OfferKey,
    decided: Option<(DecisionId, Timestamp)>,
    key: u128,
) -> Result<Responded, Error> {
    use proffer_engine::catalog::outcomes::IMPRESSION;
    use proffer_engine::keys::{ChannelKey, CreativeKey, PlacementKey};
    let request = RespondRequest {
        tenant: tenant(),
        customer: customer(number),
        proposition: decided.map(|(id, _)| (id, 1)),
        decided_at: decided.map(|(_, at)| at),
        offer,
        creative: CreativeKey::NONE,
        channel: ChannelKey::NONE,
        placement: PlacementKey::NONE,
        outcome: IMPRESSION,
        value: None,
        evidence: true,
        opt_out: None,
        withheld: false,
    };
    handle.respond(request, keyed(key)).await
}
