//! Raft under the propose port (docs/adr/0010): the only place that names openraft.
//!
//! `types` is what openraft is configured with, `stored` the bytes of it; `store` (with `appender` and `recent`) keeps a replica's log
//! and vote in the node's write-ahead log, `machine` stands between openraft and the actor that is the state machine, `replica`
//! runs one member of a group, and `port` is its propose port. `network` turns openraft's messages into `wire` messages for the
//! other members, `receiving` answers theirs; `members` changes who they are, `hand_over` who leads; `survey` tells what a replica left,
//! `legacy` hands it on to the one that begins its group anew; `pace` is how fast snapshots
//! leave a node.

mod appender;
#[cfg(test)]
mod fuzz;
mod hand_over;
mod legacy;
mod machine;
mod members;
mod network;
mod pace;
mod port;
mod receiving;
mod recent;
mod replica;
mod store;
mod stored;
mod survey;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub(crate) use hand_over::HandOver;
pub(crate) use legacy::{Legacy, Remains};
pub(crate) use machine::Erased;
pub(crate) use members::StepError;
pub use members::{Members, Step};
pub(crate) use network::{Carrier, Unreached};
pub(crate) use port::Port;
pub(crate) use replica::{Found, Replica, ReplicaPorts};
pub(crate) use survey::{is_indispensable, reach};
pub use types::Seat;
pub(crate) use types::{Commands, Kind, Results};
pub(crate) use wire::{RaftAnswer, RaftMessage};

/// What a node logs unless asked for otherwise. A heartbeat that comes late is no news for an operator; what comes of it is told by
/// the cluster itself.
pub const LOG_FILTER: &str = "warn,openraft=error";
