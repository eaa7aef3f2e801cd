//! The binary as its operator sees it: real processes, real disks, real sockets on loopback.

mod bench;
mod chaos;
mod cluster;
mod commands;
mod cross_sell;
mod demo_cluster;
mod exclusion;
mod growth;
mod minority;
mod nodes;
mod open_bandit;
mod process;
mod race;
mod recovery;
mod renewal;
mod replay;
mod restart;
mod rewards;
mod sockets;
