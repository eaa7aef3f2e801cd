//! What a node is told at its start.

use crate::error::StartError;
use crate::limits::SHARDS_MAX;
use crate::log::Durability;

/// A node's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Shards of the cluster, 1–256. Fixed when it is created: a cluster that exists keeps its number whatever is asked.
    pub shards: u16,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Name of the node, in the names of its actors: unique in the process.
    pub node: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { shards: 16, durability: Durability::Fsync, node: "n1".to_owned() }
    }
}

impl Config {
    /// Accepts what can be started.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(StartError::Config(format!("shards must be from 1 to {SHARDS_MAX}, not {}", self.shards)));
        }
        Ok(())
    }
}
