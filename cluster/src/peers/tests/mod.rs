//! The peers' transport over the network in memory, on a paused clock.

mod bytes;
mod lanes;
mod strangers;
mod talking;
mod world;
