//! Global caps as escrow (architecture.md §4): every unit of a limit is at any moment in exactly one place, the ledger's pool, a
//! message in flight, or a shard's free, reserved and spent units. Arithmetic only, no messages.

pub mod escrow;
pub mod ledger;
pub mod periods;

#[cfg(test)]
mod conservation;
