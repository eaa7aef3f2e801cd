//! The meta group: catalogue, ledger and roster as one state machine, and the turn of its leader.

pub(crate) mod ask;
pub mod command;
pub(crate) mod compile;
pub(crate) mod door;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod generations;
pub(crate) mod hearing;
pub(crate) mod job;
pub(crate) mod keeper;
pub(crate) mod leader;
mod leasing;
mod openings;
pub mod planner;
pub mod roster;
pub mod state;
mod stored;
