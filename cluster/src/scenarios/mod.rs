//! Whole nodes in one process, under paused time: what clients are promised, on good logs and on bad ones.

mod catalogue;
mod cluster;
mod deaths;
mod disks;
mod exclusions;
mod experiments;
mod hostile;
mod learning;
mod lease;
mod levels;
mod links;
mod moving;
mod node;
mod recovery;
mod renewal;
mod roster;
mod soft;
mod timing;
mod turns;
mod world;
