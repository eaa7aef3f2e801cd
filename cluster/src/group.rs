//! The groups of a cluster by name: the catalogue's, and one for each shard.

use std::fmt;

use bincode::{Decode, Encode};
use proffer_engine::keys::ShardId;

/// Which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Group {
    /// Catalogue, ledger and roster.
    Meta,
    /// A shard.
    Shard(ShardId),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::Meta => f.write_str("meta"),
            Group::Shard(shard) => write!(f, "shard-{:02}", shard.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::codec;

    use super::*;

    #[test]
    fn golden_bytes() {
        for (group, bytes) in [(Group::Meta, vec![0]), (Group::Shard(ShardId(300)), vec![1, 251, 44, 1])] {
            assert_eq!(codec::encode(&group), bytes);
            assert_eq!(codec::decode::<Group>("group", &bytes).unwrap(), group);
        }
    }
}
