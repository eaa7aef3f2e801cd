//! One machine: a disk, a wall clock, and a process on a runtime of its own that the harness steps. A crash drops the runtime with
//! all that runs in it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use proffer_api::recommendation::{TokenKey, TokenKeys};
use proffer_cluster::config::Begin;
use proffer_cluster::ports::clock::Clock;
use proffer_cluster::ports::entropy::SeededEntropy;
use proffer_cluster::ports::fatal::{Fatal, RecordedFatal};
use proffer_cluster::{Config, Error, Handle, Ports, Timing, launch};
use proffer_engine::catalog::{Actor, Command, CommandV1, Op, Refusal, Role};
use proffer_engine::keys::TenantId;
use sha2::{Digest, Sha256};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tower::ServiceExt;

use super::clock::{SimClock, Wall};
use super::disk::SimDisk;
use super::net::SimNetwork;
use super::offload::{Pace, SimOffload};
use super::seed::{Draws, stream};

/// The tenant of every run.
pub const TENANT: &str = "default";
/// The key of every run: it may do everything.
pub const KEY: &str = "simulated-key";

/// How far a process has come.
#[derive(Clone)]
enum Stage {
    Starting,
    /// It talks with other nodes, and does not serve yet.
    Settling(Handle),
    /// It serves.
    Up(Handle, Router),
    /// It has ended, and said why.
    Ended(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if it was JSON.
    pub body: serde_json::Value,
}

/// An answer under way: it may never come.
pub type Slot = Arc<Mutex<Option<Reply>>>;

struct Process {
    runtime: Runtime,
    began: Instant,
    lived: Duration,
    stage: Arc<Mutex<Stage>>,
    fatal: Arc<RecordedFatal>,
}

/// See the module.
pub struct Host {
    /// From 1.
    pub number: usize,
    /// What is on it stays when the process goes.
    pub disk: Arc<SimDisk>,
    /// The clock on its wall.
    pub wall: Arc<Wall>,
    /// How slow its disk is.
    pub pace: Arc<Pace>,
    /// Parts per million by which its clocks run fast.
    pub drift_ppm: i64,
    /// The process does not run until then, and does not know.
    pub paused_until_ms: u64,
    /// How often it was started.
    pub starts: u64,
    seed: u64,
    timing: Timing,
    begin: Begin,
    process: Option<Process>,
    missed: Duration,
}

/// What a step of a host brought about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// It ran, or there is nothing to run.
    On,
    /// It runs and serves, for the first time since its start.
    Up,
    /// The process ended itself.
    Ended(String),
    /// It could not be started.
    NotStarted(String),
}

/// Where a host is reached.
pub fn address(number: usize) -> String {
    format!("host-{number}:7170")
}

impl Host {
    /// A machine with an empty disk that is switched off.
    pub fn new(number: usize, seed: u64, timing: Timing, begin: Begin) -> Self {
        Host {
            number,
            disk: Arc::default(),
            wall: Arc::default(),
            pace: Arc::default(),
            drift_ppm: 0,
            paused_until_ms: 0,
            starts: 0,
            seed,
            timing,
            begin,
            process: None,
            missed: Duration::ZERO,
        }
    }

    /// Starts a process on what the disk holds.
    pub fn start(&mut self, network: &SimNetwork, now_ms: u64) {
        self.starts += 1;
        let number = self.number as u64;
        let start = number * 1_000_000 + self.starts;
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().expect("threads need none");
        let (stage, fatal) = (Arc::new(Mutex::new(Stage::Starting)), Arc::new(RecordedFatal::default()));
        let host = network.host(self.number, start, &address(self.number));
        let (disk, wall, pace, seed) =
            (Arc::clone(&self.disk), Arc::clone(&self.wall), Arc::clone(&self.pace), self.seed);
        let config = Config {
            begin: self.begin.clone(),
            timing: self.timing,
            node: format!("h{}-{}", self.number, self.starts),
            peer_address: address(self.number),
            http_address: format!("host-{}:7070", self.number),
            ..Config::default()
        };
        let is_founder = self.starts == 1 && matches!(self.begin, Begin::Bootstrap { .. });
        let (told, dying) = (Arc::clone(&stage), Arc::clone(&fatal));
        let began = runtime.block_on(async move {
            let began = Instant::now();
            let ports = Ports {
                disk,
                offload: Arc::new(SimOffload::new(Draws::new(seed, "offload", start), pace)),
                clock: Arc::new(SimClock::new(wall, Duration::from_millis(now_ms))),
                entropy: Arc::new(SeededEntropy::new(stream(seed, "entropy", start))),
                network: Arc::new(host),
                fatal: dying as Arc<dyn Fatal>,
            };
            tokio::spawn(async move {
                let tell = |stage| *told.lock().expect("no holder panics") = stage;
                let launched = |handle: &Handle| tell(Stage::Settling(handle.clone()));
                tell(match serve(config, ports, is_founder, launched).await {
                    Ok((handle, router)) => Stage::Up(handle, router),
                    Err(error) => Stage::Ended(error),
                });
            });
            began
        });
        self.missed = Duration::ZERO;
        self.paused_until_ms = 0;
        self.process = Some(Process { runtime, began, lived: Duration::ZERO, stage, fatal });
    }

    /// Whether there is a process.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it is stopped just now.
    pub fn is_paused(&self, now_ms: u64) -> bool {
        self.paused_until_ms > now_ms
    }

    /// The process, if it serves.
    pub fn handle(&self) -> Option<Handle> {
        match &*self.process.as_ref()?.stage.lock().expect("no holder panics") {
            Stage::Up(handle, _) => Some(handle.clone()),
            Stage::Starting | Stage::Settling(_) | Stage::Ended(_) => None,
        }
    }

    /// The process, from when other nodes can talk to it.
    fn launched(&self) -> Option<Handle> {
        match &*self.process.as_ref()?.stage.lock().expect("no holder panics") {
            Stage::Settling(handle) | Stage::Up(handle, _) => Some(handle.clone()),
            Stage::Starting | Stage::Ended(_) => None,
        }
    }

    /// The process is gone, from one instruction to the next. The network has to be told first.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Lets a millisecond of the world pass.
    pub fn step(&mut self, now_ms: u64) -> Stepped {
        let is_paused = self.is_paused(now_ms);
        let Some(process) = &mut self.process else { return Stepped::On };
        let passes = 1_000 + self.drift_ppm / 1_000;
        let passes = Duration::from_micros(u64::try_from(passes).unwrap_or(1_000));
        if is_paused {
            self.missed += passes;
            return Stepped::On;
        }
        let was_up = process.is_up();
        let missed = std::mem::take(&mut self.missed);
        process.lived += missed + passes;
        let until = process.began + process.lived;
        process.runtime.block_on(async {
            if !missed.is_zero() {
                // As a process finds it that was stopped: all its timers are late at once.
                tokio::time::advance(missed).await;
            }
            tokio::time::sleep_until(until).await;
        });
        if let Some(reason) = process.fatal.reasons().first() {
            return Stepped::Ended(reason.clone());
        }
        let stage = process.stage.lock().expect("no holder panics").clone();
        match stage {
            Stage::Ended(reason) => Stepped::NotStarted(reason),
            Stage::Up(..) if !was_up => Stepped::Up,
            Stage::Up(..) | Stage::Starting | Stage::Settling(_) => Stepped::On,
        }
    }

    /// Sends a request to its HTTP interface; `None` if it does not serve.
    pub fn call(&self, request: Request<Body>) -> Option<Slot> {
        let process = self.process.as_ref()?;
        let Stage::Up(_, router) = process.stage.lock().expect("no holder panics").clone() else { return None };
        let slot = Slot::default();
        let answered = Arc::clone(&slot);
        process.runtime.spawn(async move {
            // Routers are infallible services that are always ready.
            let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let reply = Reply { status: parts.status.as_u16(), headers: parts.headers, body };
            *answered.lock().expect("no holder panics") = Some(reply);
        });
        Some(slot)
    }

    /// Looks at the process from inside, if it serves. No time passes.
    pub fn look<T>(&self, look: impl FnOnce(&Handle) -> T) -> Option<T> {
        self.look_with(self.handle()?, look)
    }

    /// As [`Host::look`], from when other nodes can talk to it.
    pub fn look_early<T>(&self, look: impl FnOnce(&Handle) -> T) -> Option<T> {
        self.look_with(self.launched()?, look)
    }

    fn look_with<T>(&self, handle: Handle, look: impl FnOnce(&Handle) -> T) -> Option<T> {
        let process = self.process.as_ref()?;
        // What it tells of time is of its own clock, and that is found inside its runtime only.
        Some(process.runtime.block_on(async { look(&handle) }))
    }

    /// Runs something inside the process; what it gives appears in the slot.
    pub fn ask<T, F>(&self, question: impl FnOnce(Handle) -> F) -> Option<Arc<Mutex<Option<T>>>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let handle = self.handle()?;
        let process = self.process.as_ref()?;
        let slot = Arc::new(Mutex::new(None));
        let answered = Arc::clone(&slot);
        let future = question(handle);
        process.runtime.spawn(async move {
            let answer = future.await;
            *answered.lock().expect("no holder panics") = Some(answer);
        });
        Some(slot)
    }
}

impl Process {
    fn is_up(&self) -> bool {
        matches!(*self.stage.lock().expect("no holder panics"), Stage::Up(..))
    }
}

/// As the binary's composition root does it: recovers, answers others, settles, then serves.
async fn serve(
    config: Config,
    ports: Ports,
    is_founder: bool,
    launched: impl FnOnce(&Handle),
) -> Result<(Handle, Router), String> {
    let (clock, entropy, offload) = (Arc::clone(&ports.clock), Arc::clone(&ports.entropy), Arc::clone(&ports.offload));
    let handle = launch(config, ports).await.map_err(|error| error.to_string())?;
    launched(&handle);
    let signing: [u8; 32] = Sha256::digest(handle.secret()).into();
    let keys = TokenKeys::new(TokenKey::new(1, &signing), Vec::new());
    let router =
        proffer_api::router(handle.clone(), proffer_api::Config::new(Arc::clone(&clock), entropy, offload, keys));
    handle.settled().await;
    if is_founder {
        admit(&handle, &*clock).await?;
    }
    Ok((handle, router))
}

/// Makes the tenant and lets the one key in, unless that is done.
async fn admit(handle: &Handle, clock: &dyn Clock) -> Result<(), String> {
    let tenant = TenantId::new(TENANT);
    let actor = Actor { name: "start".to_owned(), admin: true };
    let hash: [u8; 32] = Sha256::digest(KEY).into();
    let key = Op::PutApiKey { id: "key".to_owned(), hash, roles: Role::ALL.to_vec(), name: "key".to_owned() };
    for op in [Op::CreateTenant, key] {
        loop {
            if handle.verify_api_key(&hash).is_ok_and(|known| known.is_some()) {
                break;
            }
            let command = CommandV1 { tenant: tenant.clone(), actor: actor.clone(), at: clock.wall(), op: op.clone() };
            match handle.change(Command::V1(command), Instant::now() + Duration::from_secs(5)).await {
                Ok(_) | Err(Error::Refused(Refusal::NotFound(_) | Refusal::Conflict { .. })) => break,
                Err(error) if error.retryable() => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Ok(())
}
