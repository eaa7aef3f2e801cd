//! The bytes of what a replica keeps and sends: entries, votes, configurations. Openraft's own types are no format.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::profile::command::{Leader, Position};

use super::types::{
    Entry, LogId, Membership, Payload, Proposal, Seat, SnapshotMeta, StoredMembership, Vote, leader_id, position_of,
};

/// One entry, by format version.
#[derive(Debug, PartialEq, Encode, Decode)]
enum EntryBytes {
    /// The leader that wrote it, and what it holds. Its index is the record's.
    V1(Leader, PayloadBytes),
}

#[derive(Debug, PartialEq, Encode, Decode)]
enum PayloadBytes {
    /// A leader's first entry.
    Blank,
    /// Commands: an encoded list, each of them versioned itself.
    Commands(Vec<u8>),
    /// A configuration of the group.
    Members(Members),
}

/// A configuration: voters (two sets while it changes), and where all members live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Members {
    voters: Vec<BTreeSet<u64>>,
    seats: BTreeMap<u64, Seat>,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VoteBytes {
    leader: Leader,
    committed: bool,
}

/// What a replica keeps beside its entries, by format version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum HeadBytes {
    V1 {
        vote: Option<VoteBytes>,
        /// The last entry that was purged.
        purged: Option<Position>,
    },
}

/// What a replica keeps beside its entries: a small record in the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Head {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
}

/// A snapshot's description, by format version.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum MetaBytes {
    V1 { last: Option<Position>, members_at: Option<Position>, members: Members },
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(&HeadBytes::V1 {
            vote: self.vote.as_ref().map(VoteBytes::from),
            purged: self.purged.as_ref().map(position_of),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let HeadBytes::V1 { vote, purged } = codec::decode("a replica's vote", bytes)?;
        Ok(Head { vote: vote.map(Vote::from), purged: purged.map(log_id_of) })
    }
}

impl From<&Vote> for VoteBytes {
    fn from(vote: &Vote) -> Self {
        let LeaderId { term, node_id } = vote.leader_id;
        VoteBytes { leader: Leader { term, replica: node_id }, committed: vote.committed }
    }
}

impl From<VoteBytes> for Vote {
    fn from(bytes: VoteBytes) -> Self {
        Vote { leader_id: leader_id(bytes.leader), committed: bytes.committed }
    }
}

impl From<&Membership> for Members {
    fn from(membership: &Membership) -> Self {
        Members {
            voters: membership.get_joint_config().clone(),
            seats: membership.nodes().map(|(replica, seat)| (*replica, *seat)).collect(),
        }
    }
}

impl Members {
    fn into_membership(self) -> Result<Membership, DecodeError> {
        if self.voters.is_empty() && self.seats.is_empty() {
            return Ok(Membership::default());
        }
        let Members { voters, seats } = self;
        Membership::new(voters, seats).map_err(|error| DecodeError::new("a configuration", error.to_string()))
    }
}

/// Openraft's log id for a position.
pub(super) fn log_id_of(position: Position) -> LogId {
    LogId::new(leader_id(position.leader), position.index)
}

/// The bytes of an entry.
pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let payload = match &entry.payload {
        Payload::Blank => PayloadBytes::Blank,
        Payload::Normal(proposal) => PayloadBytes::Commands(proposal.encoded().to_vec()),
        Payload::Membership(membership) => PayloadBytes::Members(membership.into()),
    };
    codec::encode(&EntryBytes::V1(position_of(&entry.log_id).leader, payload))
}

/// The entry of these bytes at an index.
///
/// # Errors
/// If they are none.
pub(super) fn decode_entry(index: u64, bytes: &[u8]) -> Result<Entry, DecodeError> {
    let EntryBytes::V1(leader, payload) = codec::decode("log entry", bytes)?;
    let payload = match payload {
        PayloadBytes::Blank => Payload::Blank,
        PayloadBytes::Commands(encoded) => Payload::Normal(Proposal::received(encoded)),
        PayloadBytes::Members(members) => Payload::Membership(members.into_membership()?),
    };
    Ok(Entry::new(LogId::new(leader_id(leader), index), payload))
}

/// The bytes of a snapshot's description.
pub(super) fn encode_meta(meta: &SnapshotMeta) -> Vec<u8> {
    codec::encode(&MetaBytes::V1 {
        last: meta.last_log_id.as_ref().map(position_of),
        members_at: meta.last_membership.log_id().as_ref().map(position_of),
        members: meta.last_membership.membership().into(),
    })
}

/// The description of these bytes.
///
/// # Errors
/// If they are none.
pub(super) fn decode_meta(bytes: &[u8]) -> Result<SnapshotMeta, DecodeError> {
    let MetaBytes::V1 { last, members_at, members } = codec::decode("a snapshot's description", bytes)?;
    Ok(SnapshotMeta {
        last_log_id: last.map(log_id_of),
        last_membership: StoredMembership::new(members_at.map(log_id_of), members.into_membership()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: Leader = Leader { term: 7, replica: 300 };

    fn entry(payload: Payload) -> Entry {
        Entry::new(LogId::new(leader_id(LEADER), 9), payload)
    }

    fn members() -> Membership {
        Membership::new(vec![[1, 2].into()], BTreeMap::from([(1, Seat { node: 4 }), (2, Seat { node: 5 })])).unwrap()
    }

    #[test]
    fn entries_are_stored_as_ever() {
        let golden: [(Payload, &[u8]); 3] = [
            (Payload::Blank, &[0]),
            (Payload::Normal(Proposal::received(vec![8, 9])), &[1, 2, 8, 9]),
            (Payload::Membership(members()), &[2, 1, 2, 1, 2, 2, 1, 4, 2, 5]),
        ];
        for (payload, bytes) in golden {
            let expected = [&[0, 7, 251, 44, 1][..], bytes].concat();
            assert_eq!(encode_entry(&entry(payload.clone())), expected);
            assert_eq!(decode_entry(9, &expected).unwrap(), entry(payload));
            assert!(decode_entry(9, &expected[1..]).is_err());
        }
    }

    #[test]
    fn heads_and_descriptions_are_stored_as_ever() {
        let vote = Vote { leader_id: leader_id(LEADER), committed: true };
        let head = Head { vote: Some(vote), purged: Some(LogId::new(leader_id(LEADER), 3)) };
        assert_eq!(head.encode(), [0, 1, 7, 251, 44, 1, 1, 1, 7, 251, 44, 1, 3]);
        assert_eq!(Head::decode(&head.encode()).unwrap(), head);
        assert_eq!(Head::default().encode(), [0, 0, 0]);
        let at = LogId::new(leader_id(LEADER), 3);
        let meta = SnapshotMeta { last_log_id: Some(at), last_membership: StoredMembership::new(Some(at), members()) };
        let bytes = encode_meta(&meta);
        assert_eq!(bytes, [0, 1, 7, 251, 44, 1, 3, 1, 7, 251, 44, 1, 3, 1, 2, 1, 2, 2, 1, 4, 2, 5]);
        assert_eq!(decode_meta(&bytes).unwrap(), meta);
    }
}
