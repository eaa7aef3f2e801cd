//! What a shard owns of its profiles, as a pure state machine: commands in, outcomes out.
//!
//! [`apply::apply`] runs a [`command::ShardCommand`] on [`cells::Cells`]: the committed [`shard::ShardState`], or the leader's
//! [`pending::Pending`] view of what is proposed and not yet committed. The same code on both, so they agree.
//!
//! Invariant: `apply` and what it calls know no catalogue: what they need of it comes in the command. Only [`planning`],
//! which makes commands, does.

pub mod apply;
mod caps;
pub mod cells;
pub mod command;
mod draft;
pub mod evidence;
mod generation;
pub mod keyed;
mod lapse;
pub mod measured;
pub mod measuring;
pub mod metrics;
pub mod pending;
pub mod planning;
pub mod respond;
mod room;
pub mod shard;
pub mod state;
pub mod stored;
pub mod symbols;
mod take;
pub mod trials;
mod weight;

#[cfg(test)]
mod counting;
#[cfg(test)]
mod fullness;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod trialling;
