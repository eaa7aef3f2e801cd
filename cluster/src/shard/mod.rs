//! A shard: profiles and escrow as one state machine, and the turn of its leader.

pub(crate) mod ask;
mod deciding;
pub(crate) mod door;
pub(crate) mod leader;
mod tally;
pub(crate) mod trial;
mod work;
