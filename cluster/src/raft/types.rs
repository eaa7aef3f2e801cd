//! What openraft is configured with: one configuration for every group of the node.

use std::fmt;
use std::sync::Arc;

use bincode::{Decode, Encode};
use openraft::impls::leader_id_adv::LeaderId;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::{Leader, Position};

use crate::meta::command::MetaOutcome;
use crate::meta::leader::Command as MetaEntry;
use crate::shard::leader::Command as ShardEntry;

openraft::declare_raft_types!(
    /// Entries are [`Proposal`]s, members are replicas; a leader is told by term *and* replica, as the engine's [`Leader`] is.
    pub(crate) Types:
        D = Proposal,
        R = Results,
        NodeId = u64,
        Node = Seat,
        AsyncRuntime = DeterministicRng<TokioRuntime>,
);

/// An index with its leader, as openraft has it.
pub(super) type LogId = openraft::LogId<LeaderId<u64, u64>>;
/// A vote, as openraft has it.
pub(super) type Vote = openraft::Vote<LeaderId<u64, u64>>;
/// A configuration and where it stands.
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId<u64, u64>, u64, Seat>;
/// A configuration.
pub(super) type Membership = openraft::Membership<u64, Seat>;
/// An entry of a log.
pub(super) type Entry = openraft::type_config::alias::EntryOf<Types>;
/// The payload of one.
pub(super) type Payload = openraft::EntryPayload<Proposal, u64, Seat>;
/// A snapshot's description.
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// Where a replica lives. Only the node: addresses change, and openraft keeps what a configuration says of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Seat {
    /// The node.
    pub node: u64,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.node)
    }
}

/// Which state machine a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Kind {
    Meta,
    Shard,
}

/// The commands of one entry.
#[derive(Clone, Debug)]
pub(crate) enum Commands {
    Meta(Vec<MetaEntry>),
    Shard(Vec<ShardEntry>),
}

impl Commands {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Commands::Meta(commands) => codec::encode(commands),
            Commands::Shard(commands) => codec::encode(commands),
        }
    }

    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, DecodeError> {
        match kind {
            Kind::Meta => codec::decode("meta commands", bytes).map(Commands::Meta),
            Kind::Shard => codec::decode("shard commands", bytes).map(Commands::Shard),
        }
    }
}

/// What applying an entry gave, one result per command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Results {
    /// The entry held no commands: openraft's own.
    None,
    Meta(Vec<MetaOutcome>),
    Shard(Vec<Outcome>),
}

/// An entry's commands: encoded once, wherever they go; on the replica that proposed them also the very objects.
#[derive(Clone)]
pub(crate) struct Proposal {
    encoded: Arc<[u8]>,
    proposed: Option<Commands>,
}

impl Proposal {
    pub(super) fn new(commands: Commands) -> Self {
        Proposal { encoded: commands.encode().into(), proposed: Some(commands) }
    }

    /// As it came from the log or from another replica.
    pub(super) fn received(encoded: Vec<u8>) -> Self {
        Proposal { encoded: encoded.into(), proposed: None }
    }

    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The commands; decoded now unless they were proposed here.
    pub(super) fn commands(self, kind: Kind) -> Result<Commands, DecodeError> {
        self.proposed.map_or_else(|| Commands::decode(kind, &self.encoded), Ok)
    }
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.encoded.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The engine's leader for openraft's.
pub(super) fn leader_of(id: LeaderId<u64, u64>) -> Leader {
    Leader { term: id.term, replica: id.node_id }
}

/// Openraft's leader for the engine's.
pub(super) fn leader_id(leader: Leader) -> LeaderId<u64, u64> {
    LeaderId { term: leader.term, node_id: leader.replica }
}

/// The engine's position for openraft's log id.
pub(super) fn position_of(id: &LogId) -> Position {
    Position { leader: leader_of(id.leader_id), index: id.index }
}
