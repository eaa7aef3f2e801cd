//! Shards, catalogue replication and escrow transfers behind ports.

pub mod limits;
pub mod log;
pub mod ports;
pub mod propose;
pub mod routing;
