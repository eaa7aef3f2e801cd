//! The side that dials: one link per peer and lane, kept up.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::converse;
use super::framing::Ended;
use super::greet::{Met, introduce};
use super::requests::Requests;
use super::{Common, Lane, Standing, Unreached};

/// A connection that lived so long was sound: the next one is dialled without much waiting.
const SOUND: Duration = Duration::from_secs(1);

/// A peer and its two links.
pub(super) struct Node {
    pub(super) route: watch::Sender<Option<String>>,
    pub(super) standing: watch::Sender<Standing>,
    control: Link,
    bulk: Link,
    there: Arc<Notify>,
}

struct Link {
    state: Arc<watch::Sender<State>>,
    wanted: Arc<Notify>,
    task: AbortHandle,
}

#[derive(Clone)]
enum State {
    /// Not yet up; no reason to give up.
    Starting,
    Up(Arc<Requests>),
    Down(String),
}

impl Node {
    pub(super) fn new(common: &Arc<Common>, node: u64) -> Self {
        let route = watch::Sender::new(None);
        let standing = watch::Sender::new(Standing::default());
        let there = Arc::new(Notify::new());
        let link = |lane| {
            let state = Arc::new(watch::Sender::new(State::Down(NO_ADDRESS.to_owned())));
            let wanted = Arc::new(Notify::new());
            let keeper = Keeper {
                common: Arc::clone(common),
                node,
                lane,
                route: route.subscribe(),
                state: Arc::clone(&state),
                wanted: Arc::clone(&wanted),
                there: Arc::clone(&there),
                standing: standing.clone(),
            };
            Link { state, wanted, task: tokio::spawn(keeper.keep()).abort_handle() }
        };
        let (control, bulk) = (link(Lane::Control), link(Lane::Bulk));
        Node { route, standing, control, bulk, there }
    }

    /// The node was heard of: whoever waits before dialling it again need not.
    pub(super) fn is_there(&self) {
        self.there.notify_waiters();
    }

    /// The requests of a connection that is up, or comes up in time.
    pub(super) async fn requests(&self, lane: Lane, deadline: Instant) -> Result<Arc<Requests>, Unreached> {
        let link = match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        };
        link.wanted.notify_one();
        let mut states = link.state.subscribe();
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                State::Up(requests) => return Ok(requests),
                State::Down(reason) => return Err(Unreached::Unreachable(reason)),
                State::Starting => {}
            }
            match timeout_at(deadline, states.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Unreached::Unreachable("the node is closing".to_owned())),
                Err(_) => return Err(Unreached::Unreachable("not connected yet".to_owned())),
            }
        }
    }

    /// Starts both links anew at the address given, if it is another one.
    pub(super) fn set_route(&self, address: &str) {
        self.route.send_if_modified(|route| {
            let is_new = route.as_deref() != Some(address);
            if is_new {
                *route = Some(address.to_owned());
                // Before the keepers can see the address: what they find there must not be overwritten.
                for link in [&self.control, &self.bulk] {
                    link.state.send_replace(State::Starting);
                }
            }
            is_new
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for link in [&self.control, &self.bulk] {
            link.task.abort();
            link.state.send_replace(State::Down("the node is closing".to_owned()));
        }
    }
}

pub(super) const NO_ADDRESS: &str = "its address is not known";

/// What keeps one link up.
struct Keeper {
    common: Arc<Common>,
    node: u64,
    lane: Lane,
    route: watch::Receiver<Option<String>>,
    state: Arc<watch::Sender<State>>,
    wanted: Arc<Notify>,
    there: Arc<Notify>,
    standing: watch::Sender<Standing>,
}

impl Keeper {
    async fn keep(mut self) {
        let common = Arc::clone(&self.common);
        let config = &common.config;
        let mut back_off = config.back_off_min;
        let mut told = String::new();
        loop {
            match self.lane {
                Lane::Control => {}
                Lane::Bulk => self.wanted.notified().await,
            }
            let Some(address) = self.address().await else { return };
            let mut moved = self.route.clone();
            let start = Instant::now();
            let dialled = tokio::select! {
                biased;
                dialled = timeout(config.dial_within, self.open(&address)) => dialled,
                _ = moved.changed() => Ok(Err(Ended::Replaced)),
            };
            let (was_up, ended) = match dialled {
                Ok(Ok(met)) => (true, self.talk(met).await),
                Ok(Err(ended)) => (false, ended),
                Err(_) => (false, Ended::Silent(config.dial_within)),
            };
            let was_sound = (was_up && start.elapsed() >= SOUND) || matches!(ended, Ended::Replaced);
            if was_sound {
                back_off = config.back_off_min;
            } else if matches!(ended, Ended::Refused(_)) {
                back_off = config.back_off_max;
            }
            let reason = ended.to_string();
            if was_up || told != reason {
                tracing::warn!(node = self.node, lane = ?self.lane, address, reason, "a peer is not connected");
                told.clone_from(&reason);
            }
            // After a sound connection calls wait for the next; otherwise there is no reason to hope.
            self.state.send_replace(if was_sound { State::Starting } else { State::Down(reason) });
            tokio::select! {
                biased;
                changed = self.route.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    back_off = config.back_off_min;
                    self.state.send_replace(State::Starting);
                }
                () = self.there.notified() => back_off = config.back_off_min,
                () = tokio::time::sleep(jittered(back_off, common.entropy.u64())) => {
                    back_off = (back_off * 2).min(config.back_off_max);
                }
            }
            match self.lane {
                Lane::Control => {}
                // It is dialled when somebody asks, who then waits for it.
                Lane::Bulk => drop(self.state.send_replace(State::Starting)),
            }
        }
    }

    /// The node's address, once it is known; none if this ends.
    async fn address(&mut self) -> Option<String> {
        loop {
            if let Some(address) = self.route.borrow_and_update().clone() {
                return Some(address);
            }
            self.route.changed().await.ok()?;
        }
    }

    async fn open(&self, address: &str) -> Result<Met, Ended> {
        let stream = self.common.network.dial(address).await?;
        introduce(&self.common, stream, self.lane, Some(self.node)).await
    }

    /// Lets requests through until the connection ends or the node has another address.
    async fn talk(&mut self, met: Met) -> Ended {
        let requests = Arc::new(Requests::default());
        self.state.send_replace(State::Up(Arc::clone(&requests)));
        let up = Up { standing: self.standing.clone(), lane: self.lane, requests: &requests };
        up.tell(true);
        let silence = self.common.config.silence;
        let conversation = converse(met, silence, requests.outbox(), |message, body| requests.hear(message, body));
        let ended = tokio::select! {
            biased;
            ended = conversation => ended,
            _ = self.route.changed() => {
                self.route.mark_changed();
                Ended::Replaced
            }
        };
        requests.end(&ended.to_string());
        ended
    }
}

/// A link that is up, until it is dropped.
struct Up<'a> {
    standing: watch::Sender<Standing>,
    lane: Lane,
    requests: &'a Requests,
}

impl Up<'_> {
    fn tell(&self, is_up: bool) {
        match self.lane {
            Lane::Control => self.standing.send_modify(|standing| {
                standing.is_up = is_up;
                standing.times += u64::from(is_up);
            }),
            Lane::Bulk => {}
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.requests.end("the node is closing");
        self.tell(false);
    }
}

/// Between a half and the whole of `back_off`.
fn jittered(back_off: Duration, draw: u64) -> Duration {
    let half = back_off / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    half + Duration::from_nanos(draw % nanos.max(1))
}

/// One request to whoever is at an address, on a connection of its own.
pub(super) async fn ask_address(
    common: &Common,
    address: &str,
    class: super::Class,
    body: Vec<u8>,
    deadline: Instant,
) -> Result<Vec<u8>, Unreached> {
    let lane = Lane::of(body.len());
    let opening = async {
        let stream = common.network.dial(address).await?;
        introduce(common, stream, lane, None).await
    };
    let met = match timeout_at(deadline, opening).await {
        Ok(Ok(met)) => met,
        Ok(Err(ended)) => return Err(Unreached::Unreachable(ended.to_string())),
        Err(_) => return Err(Unreached::Unreachable(format!("nothing was heard from {address}"))),
    };
    let requests = Requests::default();
    let conversation =
        converse(met, common.config.silence, requests.outbox(), |message, body| requests.hear(message, body));
    tokio::select! {
        biased;
        answer = requests.ask(class, body, deadline) => answer,
        ended = conversation => Err(Unreached::Broken(ended.to_string())),
    }
}
