//! The actors: the only files that name ractor. Thin: what they do lies in `shard` and `meta`, which know no actors.

mod acknowledge;
mod fences;
mod meta;
pub(crate) mod root;
mod shard;
mod timer;
