//! Shards, catalogue replication and escrow transfers behind ports.

pub mod identity;
pub mod limits;
pub mod log;
pub mod ports;
pub mod propose;
pub mod routing;
pub mod snapshots;
