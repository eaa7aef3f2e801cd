//! What a shard owns of its profiles, as a pure state machine: commands in, outcomes out.

pub mod command;
pub mod state;
pub mod symbols;
