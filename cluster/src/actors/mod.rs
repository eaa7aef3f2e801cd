//! The actors: the only files that name ractor. Thin: what they do lies in `shard` and `meta`, which know no actors.

mod acknowledge;
mod fences;
mod meta;
pub(crate) mod root;
mod shard;
mod timer;

use proffer_engine::level::Level;
use ractor::ActorProcessingErr;

use crate::meta::roster::change::too_old;

/// A replica whose group is at a feature level that this release cannot must not go on: it would apply entries otherwise than the others.
fn check_level(at: Level, can: Level) -> Result<(), ActorProcessingErr> {
    if at > can { Err(too_old(can, at).into()) } else { Ok(()) }
}
