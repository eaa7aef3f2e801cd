//! # proffer-cluster
//!
//! Shards, catalogue replication and escrow transfers behind ports. [`start`] recovers a node and gives its [`Handle`], the
//! front door.
//!
//! Map: `handle`, `customers`, `bulk`, `experiments` and `calls` are what the api sees; `shard` and `meta` are the turns of the two kinds of group, `transfer` the
//! units between them, `lease` how new the catalogue is that decides; `actors` runs them; `groups`, `raft` and `propose` are the ways into a log; `log` and `snapshots` keep it;
//! `peers` is how nodes talk.
//!
//! Invariants: nothing here opens a socket or a file but through [`ports`]; only `actors` names ractor; state changes only in
//! the engine's `apply`, of entries that came out of a log.

mod accounts;
mod actors;
mod bell;
mod bulk;
pub mod calls;
pub mod config;
mod customers;
mod directory;
pub mod error;
mod experiments;
#[cfg(test)]
mod fuzz;
pub mod group;
mod groups;
pub mod handle;
mod home;
mod hosting;
pub mod identity;
mod learning;
mod lease;
pub mod limits;
pub mod log;
pub mod meta;
mod operations;
pub mod peers;
pub mod placement;
pub mod planted;
pub mod ports;
mod post;
pub mod propose;
mod raft;
pub mod reconcile;
mod remnant;
pub mod routing;
mod salvage;
#[cfg(test)]
mod scenarios;
mod shard;
pub mod snapshots;
mod start;
mod surrender;
mod timing;
mod transfer;
pub mod view;
mod witness;

pub use config::{Begin, Config, Reads};
pub use error::{Error, Outcome, StartError};
pub use handle::Handle;
pub use raft::LOG_FILTER;
pub use remnant::begin_alone;
pub use start::{Ports, launch, start};
pub use timing::Timing;
pub use view::TenantView;
