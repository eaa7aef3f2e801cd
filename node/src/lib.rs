//! The `proffer` binary's parts: composition root, command line, adapters to the real world, sample data.

pub mod adapters;
pub mod cli;
pub mod client;
pub mod compose;
pub mod demo;
pub mod limits;
mod listen;
pub mod processes;
