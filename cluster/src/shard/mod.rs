//! A shard: profiles and escrow as one state machine, and the turn of its leader.

pub(crate) mod ask;
pub(crate) mod door;
pub(crate) mod trial;
