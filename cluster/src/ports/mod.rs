//! Where the world begins: time, chance, disks, networks and threads, each behind a small trait whose contract is its doc comment.
//!
//! `node` brings the real adapters, the simulator its own; tests use the ones in memory that live beside the traits.
//! Timers are no port: `tokio::time` is used directly, since a simulation controls it.

pub mod clock;
pub mod disk;
pub mod disk_conformance;
pub mod entropy;
pub mod fatal;
pub mod memory_disk;
pub mod memory_network;
pub mod network;
pub mod network_conformance;
pub mod offload;
pub mod propose;
pub mod propose_conformance;
