//! What has been learned from outcomes (domain.md §8): tallies of all shards together, and the propensities that follow from them.
//!
//! Pure, as everything here: who counts, sends and adds up is told in docs/adr/0020.

mod draws;
mod experiment;
#[cfg(test)]
mod peeking;
mod propensity;
pub mod statistics;
mod tallies;

pub use draws::{Draws, Purpose};
pub use experiment::{ArmResult, ArmTally, EFFECT, ExperimentResult, ExperimentTally};
pub use propensity::{Learned, NOTHING, Propensity, PropensitySource};
pub use tallies::Tallies;
