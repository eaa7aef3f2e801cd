//! How nodes talk: requests and answers over links that come and go.
//!
//! [`Peers::ask`] asks another node, a [`Service`] answers what others ask. Two lanes, a connection each and each dialled by the side
//! that asks: *control* for what is small and urgent, *bulk* for the rest. On a lane Raft's messages go first, the cluster's own next, channels' calls
//! last. Every message is safe to lose: a link that breaks loses what is under way, and who asked is told.
//!
//! Map: `wire` is what is said, byte by byte; `framing` moves frames through a stream; `greet` is how two nodes make themselves
//! known, `registry` who is connected; `connection` runs one, with an `outbox` for what waits to be written; `link`,
//! `requests` are the asking side, `server`, `serving` the answering one, `load` the room that both give.
//!
//! Invariants: nothing that a peer sends panics, or takes memory beyond `limits`; no clock but `tokio::time`, no chance but the
//! entropy port; all tasks end with their [`Peers`].

mod connection;
mod framing;
#[cfg(test)]
mod fuzz;
mod greet;
mod link;
mod load;
mod outbox;
mod registry;
mod requests;
mod server;
mod serving;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bincode::{Decode, Encode};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::limits::{
    PEER_ABOUT_BYTES_MAX, PEER_ADDRESS_BYTES_MAX, PEER_BULK_FRAME_BYTES_MAX, PEER_CONTROL_FRAME_BYTES_MAX,
    PEER_FRAME_OVERHEAD_BYTES,
};
use crate::ports::entropy::Entropy;
use crate::ports::network::Network;
use crate::ports::propose::Pending;
use crate::timing::Timing;
use link::Node;
use registry::Registry;
use requests::deadline;
use server::Nodes;
#[cfg(test)]
pub(crate) use wire::PROTOCOLS;

/// What a request is for: what goes first when not everything can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Class {
    /// Raft's messages. Never answered *busy*.
    Raft,
    /// What the cluster asks for itself: fences, totals, budgets.
    Own,
    /// Calls of channels, forwarded.
    Call,
}

impl Class {
    const COUNT: usize = 3;

    const fn rank(self) -> usize {
        match self {
            Class::Raft => 0,
            Class::Own => 1,
            Class::Call => 2,
        }
    }
}

/// One of the two connections in each direction between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Lane {
    /// Small frames, so that nothing stands long before a heartbeat. Kept up.
    Control,
    /// Large ones. Dialled when needed.
    Bulk,
}

impl Lane {
    const fn frame_bytes_max(self) -> usize {
        match self {
            Lane::Control => PEER_CONTROL_FRAME_BYTES_MAX,
            Lane::Bulk => PEER_BULK_FRAME_BYTES_MAX,
        }
    }

    /// Largest body of a request or an answer.
    pub const fn body_bytes_max(self) -> usize {
        self.frame_bytes_max() - PEER_FRAME_OVERHEAD_BYTES
    }

    /// The lane for a body of so many bytes.
    pub const fn of(bytes: usize) -> Lane {
        if bytes <= Lane::Control.body_bytes_max() { Lane::Control } else { Lane::Bulk }
    }
}

/// What a process says of itself at the beginning of each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Lowest version of the protocol that it speaks.
    pub lowest: u16,
    /// Highest version.
    pub highest: u16,
    /// Its cluster. None: it is of none yet.
    pub cluster: Option<u128>,
    /// Its node id. 0: it has none yet.
    pub node: u64,
    /// Id of its disk.
    pub disk: u128,
    /// Starts of that disk.
    pub boots: u64,
    /// Drawn at its start: another process has another, also one with a copy of the disk.
    pub nonce: u64,
    /// What the connection is for.
    pub lane: Lane,
    /// Where it listens for nodes.
    pub address: String,
    /// What the layer above wants known of it, ≤ 16 KiB.
    pub about: Vec<u8>,
}

/// A node's place in the cluster, and its patience.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster, once there is one.
    pub cluster: Option<u128>,
    /// This node; 0 as long as it has no id.
    pub node: u64,
    /// Id of its disk.
    pub disk: u128,
    /// Starts of that disk, this one included.
    pub boots: u64,
    /// Where it listens for nodes.
    pub address: String,
    /// A connection on which nothing is heard for so long is closed: twice the longest election timeout.
    pub silence: Duration,
    /// Longest time for a connection to be made, the hello included.
    pub dial_within: Duration,
    /// First wait before dialling again; doubled for each further one.
    pub back_off_min: Duration,
    /// Longest wait.
    pub back_off_max: Duration,
}

impl PeersConfig {
    /// A configuration with the patience of the `fast` timing profile.
    pub fn new(cluster: Option<u128>, node: u64, disk: u128, boots: u64, address: &str) -> Self {
        PeersConfig {
            cluster,
            node,
            disk,
            boots,
            address: address.to_owned(),
            silence: 2 * Timing::Fast.longest_election(),
            dial_within: Duration::from_millis(500),
            back_off_min: Duration::from_millis(10),
            back_off_max: Duration::from_secs(1),
        }
    }

    /// With the patience of another one.
    pub fn with(self, timing: Timing) -> Self {
        PeersConfig { silence: 2 * timing.longest_election(), ..self }
    }
}

/// Says who is let in, on both sides of a connection.
pub trait Gatekeeper: Send + Sync + 'static {
    /// What to tell others of this node, asked at each connection: at most 16 KiB, the rest is cut off.
    fn about(&self) -> Vec<u8>;

    /// Whether the process that says `hello` is who it says. Called after versions and cluster were found to fit; must not
    /// block. Who is of no cluster yet (node 0) is judged by this alone. `is_met`: this process has been let in before.
    ///
    /// # Errors
    /// Why not, in words: both sides log it.
    fn judge(&self, hello: &Hello, is_met: bool) -> Result<(), String>;
}

/// A request as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is for.
    pub class: Class,
    /// The lane it came on: the answer has to fit ([`Lane::body_bytes_max`]).
    pub lane: Lane,
    /// How long the other side waits.
    pub within: Duration,
    /// What is asked.
    pub body: Vec<u8>,
}

/// Answers what other nodes ask.
pub trait Service: Send + Sync + 'static {
    /// Works on a request of the process `from`. Dropped when its time is up, when the other side cancels, or when the connection
    /// ends; a panic is told as [`Unreached::Broken`].
    fn serve(&self, from: &Hello, request: Request) -> Pending<'static, Vec<u8>>;
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// There is no connection. It did not reach the other node, and trying again at once is of no use.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Too much is under way, here or there: it was not begun.
    #[error("too much is under way already")]
    Busy,
    /// Larger than a frame: it was not sent.
    #[error("{bytes} bytes where {max} are allowed")]
    TooLarge {
        /// Bytes of the request.
        bytes: usize,
        /// Most that the lane takes.
        max: usize,
    },
    /// It was answered, but the answer does not fit into a frame of the lane.
    #[error("the answer is too large for its lane")]
    AnswerTooLarge,
    /// The connection broke under it: it may or may not have been worked on.
    #[error("{0}")]
    Broken(String),
    /// Its time ran out: it may or may not have been worked on.
    #[error("no answer in time")]
    TimedOut,
}

/// How it stands with the control link to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is connected.
    pub is_up: bool,
    /// How often it came up.
    pub times: u64,
}

/// What all parts need.
struct Common {
    config: PeersConfig,
    nonce: u64,
    network: Arc<dyn Network>,
    entropy: Arc<dyn Entropy>,
    gatekeeper: Arc<dyn Gatekeeper>,
    registry: Arc<Registry>,
}

impl Common {
    fn new(
        config: PeersConfig,
        network: Arc<dyn Network>,
        entropy: Arc<dyn Entropy>,
        gatekeeper: Arc<dyn Gatekeeper>,
    ) -> Self {
        let nonce = entropy.u64();
        Common { config, nonce, network, entropy, gatekeeper, registry: Arc::default() }
    }

    fn hello(&self, lane: Lane) -> Hello {
        let PeersConfig { cluster, node, disk, boots, ref address, .. } = self.config;
        let mut address = address.clone();
        address.truncate(address.floor_char_boundary(PEER_ADDRESS_BYTES_MAX));
        let mut about = self.gatekeeper.about();
        about.truncate(PEER_ABOUT_BYTES_MAX);
        let (lowest, highest) = wire::PROTOCOLS;
        Hello { lowest, highest, cluster, node, disk, boots, nonce: self.nonce, lane, address, about }
    }
}

/// The other nodes, as one node sees them. Dropping it ends all links and connections.
pub struct Peers {
    common: Arc<Common>,
    nodes: Arc<Nodes>,
    server: AbortHandle,
}

impl Peers {
    /// Begins to accept connections. Within a tokio runtime.
    pub fn start(
        config: PeersConfig,
        network: Arc<dyn Network>,
        entropy: Arc<dyn Entropy>,
        gatekeeper: Arc<dyn Gatekeeper>,
        service: Arc<dyn Service>,
    ) -> Peers {
        let common = Arc::new(Common::new(config, network, entropy, gatekeeper));
        let nodes: Arc<Nodes> = Arc::new(Mutex::new(BTreeMap::new()));
        let server = tokio::spawn(server::accept(Arc::clone(&common), service, Arc::clone(&nodes)));
        Peers { common, nodes, server: server.abort_handle() }
    }

    /// Asks a node on the lane that takes a body of this size. Dropping the future cancels the request, there too.
    ///
    /// # Errors
    /// See [`Unreached`]; `Broken` and `TimedOut` leave open whether it was worked on.
    pub async fn ask(&self, node: u64, class: Class, body: Vec<u8>, within: Duration) -> Result<Vec<u8>, Unreached> {
        self.ask_on(node, Lane::of(body.len()), class, body, within).await
    }

    /// Asks a node on a lane: the bulk one for what is small but must not be in the way, or has a large answer.
    ///
    /// # Errors
    /// As [`Peers::ask`].
    pub async fn ask_on(
        &self,
        node: u64,
        lane: Lane,
        class: Class,
        body: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, Unreached> {
        let deadline = deadline(within);
        let (bytes, max) = (body.len(), lane.body_bytes_max());
        if bytes > max {
            return Err(Unreached::TooLarge { bytes, max });
        }
        let known = self.known(node).ok_or_else(|| Unreached::Unreachable(link::NO_ADDRESS.to_owned()))?;
        let requests = known.requests(lane, deadline).await?;
        requests.ask(class, body, deadline).await
    }

    /// Where a node is reached; its control link is kept up from now on. Another address than before ends its connections.
    pub fn set_route(&self, node: u64, address: &str) {
        self.node(node).set_route(address);
    }

    /// The nodes that there are ways to.
    pub fn nodes(&self) -> Vec<u64> {
        self.nodes.lock().expect("no holder panics").keys().copied().collect()
    }

    /// Ends the links to a node.
    pub fn forget(&self, node: u64) {
        let forgotten = self.nodes.lock().expect("no holder panics").remove(&node);
        drop(forgotten);
    }

    /// Whether the control link to a node is up.
    pub fn is_up(&self, node: u64) -> bool {
        self.known(node).is_some_and(|known| known.standing.borrow().is_up)
    }

    /// Tells when the control link to a node comes up or goes down, until the node is forgotten.
    pub fn watch(&self, node: u64) -> watch::Receiver<Standing> {
        self.node(node).standing.subscribe()
    }

    fn known(&self, node: u64) -> Option<Arc<Node>> {
        self.nodes.lock().expect("no holder panics").get(&node).cloned()
    }

    fn node(&self, node: u64) -> Arc<Node> {
        let mut nodes = self.nodes.lock().expect("no holder panics");
        Arc::clone(nodes.entry(node).or_insert_with(|| Arc::new(Node::new(&self.common, node))))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.server.abort();
        let nodes = std::mem::take(&mut *self.nodes.lock().expect("no holder panics"));
        drop(nodes);
    }
}

/// Asks whoever is at `address`, without being a peer: how a node that has no id and no cluster yet asks to join.
///
/// # Errors
/// As [`Peers::ask`].
pub async fn ask_address(
    config: PeersConfig,
    network: Arc<dyn Network>,
    entropy: Arc<dyn Entropy>,
    gatekeeper: Arc<dyn Gatekeeper>,
    address: &str,
    body: Vec<u8>,
    within: Duration,
) -> Result<Vec<u8>, Unreached> {
    let (bytes, max) = (body.len(), Lane::Bulk.body_bytes_max());
    if bytes > max {
        return Err(Unreached::TooLarge { bytes, max });
    }
    let common = Common::new(config, network, entropy, gatekeeper);
    link::ask_address(&common, address, Class::Own, body, deadline(within)).await
}
