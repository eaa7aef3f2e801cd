//! Feature levels: what `apply` does with an entry is chosen by the level that its group has committed, so that replicas of two releases
//! do the same with the same entry. A level is raised when every node can it, and never lowered.

use bincode::{Decode, Encode};

/// A feature level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Level(pub u32);

impl Level {
    /// Where every group begins: what 0.1.0 does.
    pub const FIRST: Level = Level(1);
    /// The highest that this release can.
    pub const NEWEST: Level = Level::FIRST;
}

impl Default for Level {
    fn default() -> Self {
        Level::FIRST
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
