//! What nodes say to each other beside Raft: whoever asks a part of the cluster asks here, and it is answered by the node that leads
//! that part.
//!
//! Map: `message` is what is said and `failure` how it fails; `local` asks what this node leads; `service` answers other nodes,
//! `gatekeeper` lets them in; `carrier` takes Raft's messages; `courier` brings what the cluster itself left at doors that are not led
//! here to where they are; `grantor` gets this node its lease; `claims` tells who leads what; `joining` gets a new node in; `recovery`
//! finds out what is left of a shard whose majority is lost.

mod carrier;
mod claims;
mod courier;
mod failure;
#[cfg(test)]
mod fuzz;
mod gatekeeper;
#[cfg(test)]
mod golden;
mod grantor;
mod joining;
mod learning;
mod local;
mod message;
mod recovery;
mod service;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use proffer_engine::codec;
use proffer_engine::keys::ShardId;
use tokio::time::{Instant, timeout_at};

use crate::calls::Forwarded;
use crate::directory::Directory;
use crate::error::Error;
use crate::groups::Group;
use crate::limits::PLACE_LOOK_MS;
use crate::peers::{Class, Lane, Peers, Unreached};

pub(crate) use carrier::PeerCarrier;
pub(crate) use claims::tell_claims;
pub(crate) use courier::run_courier;
pub(crate) use gatekeeper::Porter;
pub(crate) use grantor::NearestGrantor;
pub(crate) use joining::{Admission, Newcomer, enroll, join};
pub(crate) use learning::learn_from_others;
pub(crate) use local::Local;
pub(crate) use message::{Answer, Message, ToMeta, ToRecover, ToShard};
pub(crate) use service::PeerService;

/// The ways to the other nodes, once there are any.
pub(crate) type Ways = Arc<ArcSwapOption<Peers>>;

/// Who answers the calls that others forward.
#[derive(Default)]
enum Answerer {
    /// The node has not opened yet.
    #[default]
    None,
    Open(Arc<dyn Forwarded>),
    /// The node has ended.
    Closed,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) local: Arc<Local>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) ways: Ways,
    /// What answers forwarded calls. It asks this node, and so owns its post: a node that ends lets go of it.
    answerer: Arc<Mutex<Answerer>>,
}

impl Post {
    /// Between the doors of this node and those of others.
    pub(crate) fn new(local: Arc<Local>, directory: Arc<Directory>, ways: Ways) -> Self {
        Post { local, directory, ways, answerer: Arc::default() }
    }

    /// Calls that other nodes forward are answered by this from now on; only the first one is taken.
    pub(crate) fn answer_with(&self, answerer: Arc<dyn Forwarded>) {
        let mut face = self.face();
        // The node has one face, and it opens once.
        if let Answerer::None = *face {
            *face = Answerer::Open(answerer);
        }
    }

    /// Nothing that others forward is answered any more.
    pub(crate) fn close(&self) {
        let closed = std::mem::replace(&mut *self.face(), Answerer::Closed);
        // It may be the last that holds what owns this.
        drop(closed);
        self.ways.store(None);
    }

    fn face(&self) -> MutexGuard<'_, Answerer> {
        self.answerer.lock().expect("no holder panics")
    }

    /// What answers forwarded calls, once the node has opened.
    async fn answerer(&self) -> Arc<dyn Forwarded> {
        loop {
            if let Answerer::Open(answerer) = &*self.face() {
                return Arc::clone(answerer);
            }
            tokio::time::sleep(Duration::from_millis(PLACE_LOOK_MS)).await;
        }
    }

    /// Has another node answer a call; through a third one if there is no way to it. One that `came` from another node already goes no
    /// more ways about: nodes without a link to the leader would only hand it to each other.
    pub(crate) async fn forward(
        &self,
        node: u64,
        lane: Lane,
        call: Vec<u8>,
        came: bool,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        let Some(peers) = self.ways.load_full() else { return Err(not_led("this node knows no others")) };
        let node = if came { node } else { self.go_between(&peers, node).unwrap_or(node) };
        let within = left(deadline)?;
        peers.ask_on(node, lane, Class::Call, call, within).await.map_err(|unreached| failed(unreached, "the call"))
    }

    /// A node that seems to have a way to one to which there is none from here.
    fn go_between(&self, peers: &Peers, node: u64) -> Option<u64> {
        if peers.is_up(node) {
            return None;
        }
        self.directory.way_to(node).filter(|third| peers.is_up(*third))
    }

    /// The node that leads a group, if it is another, and one that can be reached as far as is known.
    pub(crate) fn leader_elsewhere(&self, group: Group) -> Option<u64> {
        let (node, _) = self.leader(group).filter(|(node, _)| *node != self.directory.own())?;
        let is_linked = self.ways.load().as_ref().is_some_and(|peers| peers.is_up(node));
        (is_linked || self.directory.is_fresh(node)).then_some(node)
    }

    /// Asks a shard, wherever it is led, until the deadline.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn shard(&self, shard: ShardId, ask: ToShard, deadline: Instant) -> Result<Answer, Error> {
        self.local.door(shard)?;
        loop {
            let mut changes = self.directory.watch();
            let answer = self.shard_once(shard, ask.clone(), deadline).await;
            if !self.is_worth_another(&answer, &mut changes, deadline).await {
                return answer;
            }
        }
    }

    /// Asks a shard once, where it seems to be led.
    pub(crate) async fn shard_once(&self, shard: ShardId, ask: ToShard, deadline: Instant) -> Result<Answer, Error> {
        if self.local.door(shard)?.is_up() {
            return self.local.shard(shard, ask, deadline).await;
        }
        match self.leader_elsewhere(Group::Shard(shard)) {
            Some(node) => self.ask(node, &Message::Shard(shard, ask), deadline).await,
            None => Err(not_led("the shard")),
        }
    }

    /// Asks the meta group, wherever it is led, until the deadline.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn meta(&self, ask: ToMeta, deadline: Instant) -> Result<Answer, Error> {
        loop {
            let mut changes = self.directory.watch();
            let answer = self.meta_once(ask.clone(), deadline).await;
            if !self.is_worth_another(&answer, &mut changes, deadline).await {
                return answer;
            }
        }
    }

    /// Asks the meta group once, where it seems to be led.
    pub(crate) async fn meta_once(&self, ask: ToMeta, deadline: Instant) -> Result<Answer, Error> {
        if self.local.meta.is_up() {
            return self.local.meta(ask, deadline).await;
        }
        match self.leader_elsewhere(Group::Meta) {
            Some(node) => self.ask(node, &Message::Meta(ask), deadline).await,
            None => Err(not_led("the catalogue")),
        }
    }

    /// Waits a little for another leader if nobody that leads was found: nothing was done then.
    async fn is_worth_another(
        &self,
        answer: &Result<Answer, Error>,
        changes: &mut tokio::sync::watch::Receiver<u64>,
        deadline: Instant,
    ) -> bool {
        if !matches!(answer, Err(Error::NotLed { .. })) {
            return false;
        }
        let look = Instant::now() + Duration::from_millis(PLACE_LOOK_MS);
        if look >= deadline {
            return false;
        }
        // Doors open and close without a word to the directory: it is looked again in any case.
        let _ = timeout_at(look, changes.changed()).await;
        true
    }

    /// Asks another node; through a third one if there is no way to it.
    pub(crate) async fn ask(&self, node: u64, message: &Message, deadline: Instant) -> Result<Answer, Error> {
        let third = self.ways.load_full().and_then(|peers| self.go_between(&peers, node));
        let Some(third) = third else { return self.ask_directly(node, message, deadline).await };
        let body = codec::encode(message);
        let lane = lane_of(message, body.len());
        let passed = self.send(third, lane, &Message::Pass { to: node, message: body }, deadline).await?;
        let Answer::Passed(answer) = passed else { return Err(Error::Unknown) };
        message::decode_answer(&answer)
    }

    /// Asks another node, if there is a way to it.
    pub(crate) async fn ask_directly(&self, node: u64, message: &Message, deadline: Instant) -> Result<Answer, Error> {
        self.send(node, lane_of(message, codec::encode(message).len()), message, deadline).await
    }

    async fn send(&self, node: u64, lane: Lane, message: &Message, deadline: Instant) -> Result<Answer, Error> {
        let answer = self.pass_on(node, lane, codec::encode(message), deadline).await?;
        message::decode_answer(&answer)
    }

    /// Takes the bytes of a message to another node, and its answer back.
    async fn pass_on(&self, node: u64, lane: Lane, body: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let Some(peers) = self.ways.load_full() else { return Err(not_led("this node knows no others")) };
        // Between two lanes' largest, what is said around it counts.
        let lane = lane.max(Lane::of(body.len()));
        let answer = peers.ask_on(node, lane, Class::Own, body, left(deadline)?).await;
        answer.map_err(|unreached| failed(unreached, "the request"))
    }

    /// Tells all other nodes, and does not wait for them.
    pub(crate) fn tell_all(&self, message: &Message, within: Duration) {
        let Some(peers) = self.ways.load_full() else { return };
        let body = codec::encode(message);
        for node in peers.nodes() {
            let (peers, body) = (Arc::clone(&peers), body.clone());
            tokio::spawn(async move {
                // Safe to lose: it is said again.
                let _ = peers.ask_on(node, Lane::Control, Class::Own, body, within).await;
            });
        }
    }
}

/// What moves much goes where it does not stand before calls.
fn lane_of(message: &Message, bytes: usize) -> Lane {
    match message {
        Message::Shard(_, ToShard::Write { .. }) | Message::Meta(ToMeta::Change(_) | ToMeta::Budget { .. }) => {
            Lane::Bulk
        }
        Message::Shard(_, _)
        | Message::Meta(_)
        | Message::Leading(_)
        | Message::Pass { .. }
        | Message::Remains(_)
        | Message::Recover(_)
        | Message::Reached(_)
        | Message::Learn(_) => Lane::of(bytes),
    }
}

fn left(deadline: Instant) -> Result<Duration, Error> {
    let within = deadline.saturating_duration_since(Instant::now());
    if within < Duration::from_millis(1) { Err(Error::Expired) } else { Ok(within) }
}

fn failed(unreached: Unreached, what: &str) -> Error {
    match unreached {
        Unreached::Unreachable(_) | Unreached::Busy => not_led("the node that leads cannot be reached"),
        Unreached::TooLarge { bytes, max } => {
            Error::Invalid(format!("{what} of {bytes} bytes cannot be sent to another node: at most {max}"))
        }
        Unreached::AnswerTooLarge | Unreached::Broken(_) | Unreached::TimedOut => Error::Unknown,
    }
}

fn not_led(reason: &str) -> Error {
    Error::NotLed { reason: reason.to_owned() }
}
