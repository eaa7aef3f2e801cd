//! What a node is told at its start.

use proffer_engine::level::Level;

use crate::error::StartError;
use crate::limits::SHARDS_MAX;
use crate::log::Durability;
use crate::timing::Timing;

/// A node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How an empty disk begins; one that is of a cluster stays in it.
    pub begin: Begin,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What a read at a leader rests on.
    pub reads: Reads,
    /// How fast the cluster notices that a node is gone: the same on all nodes.
    pub timing: Timing,
    /// The highest feature level that this node can.
    pub level: Level,
    /// Name of the node, in the names of its actors: unique in the process.
    pub node: String,
    /// Where other nodes reach this one.
    pub peer_address: String,
    /// Where its HTTP interface is reached, for those who ask where a node is.
    pub http_address: String,
    /// Nodes of one zone fail together; replicas of a shard are spread over zones.
    pub zone: String,
}

/// What a read at a shard's leader rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// A quorum has acknowledged the leader so lately that no other leads yet: costs nothing, and counts on clocks that run evenly.
    #[default]
    Lease,
    /// A quorum is asked for each turn of reads, after they came: a round trip more, and no clock.
    Quorum,
}

/// How an empty disk begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With a new cluster of one node.
    Bootstrap {
        /// Shards of the cluster, 1–256, for ever.
        shards: u16,
    },
    /// By asking any node of a cluster at these addresses to be let in.
    Join(Vec<String>),
    /// Not at all.
    Neither,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            begin: Begin::Bootstrap { shards: 16 },
            durability: Durability::Fsync,
            reads: Reads::Lease,
            timing: Timing::Fast,
            level: Level::NEWEST,
            node: "n1".to_owned(),
            peer_address: "127.0.0.1:7170".to_owned(),
            http_address: "127.0.0.1:7070".to_owned(),
            zone: String::new(),
        }
    }
}

impl Config {
    /// A node that founds a cluster of so many shards, and is named `node`.
    pub fn founding(node: &str, shards: u16) -> Self {
        Config { begin: Begin::Bootstrap { shards }, node: node.to_owned(), ..Config::default() }
    }

    /// Accepts what can be started.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        match &self.begin {
            Begin::Bootstrap { shards } if !(1..=SHARDS_MAX).contains(shards) => {
                Err(StartError::Config(format!("shards must be from 1 to {SHARDS_MAX}, not {shards}")))
            }
            Begin::Join(addresses) if addresses.is_empty() => {
                Err(StartError::Config("to join a cluster takes the address of one of its nodes".to_owned()))
            }
            Begin::Bootstrap { .. } | Begin::Join(_) | Begin::Neither => Ok(()),
        }
    }
}
