//! A whole cluster in one process and on one thread, under a seed (docs/adr/0015).

pub mod clock;
pub mod disk;
pub mod faults;
pub mod host;
pub mod net;
pub mod offload;
pub mod seed;
pub mod trace;
pub mod world;
