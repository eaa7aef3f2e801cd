//! The world as it is: the real sides of the ports of `cluster`.

pub mod clock;
pub mod disk;
pub mod entropy;
pub mod fatal;
pub mod network;
pub mod offload;
