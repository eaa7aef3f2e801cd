//! The roster's bytes: its parts one after the other, in pieces of bounded size.

use bincode::{Decode, Encode};
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::level::Level;
use proffer_engine::limits::PIECE_BYTES;

use super::{GroupRecord, NodeRecord, Recovery, ReplicaRecord, Roster};
use crate::group::Group;

/// One row of one table.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
enum Part {
    Node(u64, NodeRecord),
    Replica(u64, ReplicaRecord),
    Group(Group, GroupRecord),
    Removed(u64, u128),
    Recovered(Group, Recovery),
    /// Where it is not the first.
    Level(Level),
    Able(u64, Level),
}

/// Some of the parts, by format version.
#[derive(Encode, Decode)]
enum StoredParts {
    V1(Vec<Part>),
}

impl Roster {
    /// How many parts there are.
    pub(in crate::meta) fn len(&self) -> u64 {
        let tables = [self.nodes.len(), self.replicas.len(), self.groups.len(), self.removed.len()];
        let later = [self.recovered.len(), usize::from(self.level > Level::FIRST), self.able.len()];
        tables.into_iter().chain(later).sum::<usize>() as u64
    }

    fn parts(&self) -> impl Iterator<Item = Part> + '_ {
        let nodes = self.nodes.iter().map(|(node, record)| Part::Node(*node, record.clone()));
        let replicas = self.replicas.iter().map(|(replica, record)| Part::Replica(*replica, *record));
        let groups = self.groups.iter().map(|(group, record)| Part::Group(*group, record.clone()));
        let removed = self.removed.iter().map(|(node, disk)| Part::Removed(*node, *disk));
        let recovered = self.recovered.iter().map(|(group, recovery)| Part::Recovered(*group, recovery.clone()));
        let level = (self.level > Level::FIRST).then_some(Part::Level(self.level));
        let able = self.able.iter().map(|(node, level)| Part::Able(*node, *level));
        nodes.chain(replicas).chain(groups).chain(removed).chain(recovered).chain(level).chain(able)
    }

    /// The parts in pieces, to be read in order.
    pub(in crate::meta) fn encode_pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let mut parts = self.parts();
        std::iter::from_fn(move || {
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while bytes < PIECE_BYTES
                && let Some(part) = parts.next()
            {
                bytes += codec::claims(&part);
                piece.push(part);
            }
            (!piece.is_empty()).then(|| codec::encode_stored("roster", &StoredParts::V1(piece)))
        })
    }

    /// The roster of so many parts, which the next pieces hold.
    pub(in crate::meta) fn decode_pieces(
        parts: u64,
        last_id: u64,
        pieces: &mut impl Iterator<Item = Vec<u8>>,
    ) -> Result<Self, DecodeError> {
        let mut roster = Roster { last_id, ..Roster::default() };
        while roster.len() < parts {
            let StoredParts::V1(piece) = codec::decode("roster", &pieces.next().unwrap_or_default())?;
            if piece.is_empty() {
                return Err(DecodeError::new("roster", "a piece of it is empty".to_owned()));
            }
            for part in piece {
                if !roster.restore(part) {
                    return Err(DecodeError::new("roster", "a part of it comes twice".to_owned()));
                }
            }
        }
        Ok(roster)
    }

    fn restore(&mut self, part: Part) -> bool {
        match part {
            Part::Node(node, record) => self.nodes.insert(node, record).is_none(),
            Part::Replica(replica, record) => self.replicas.insert(replica, record).is_none(),
            Part::Group(group, record) => self.groups.insert(group, record).is_none(),
            Part::Removed(node, disk) => self.removed.insert(node, disk).is_none(),
            Part::Recovered(group, recovery) => self.recovered.insert(group, recovery).is_none(),
            Part::Level(level) => std::mem::replace(&mut self.level, level) == Level::FIRST,
            Part::Able(node, level) => self.able.insert(node, level).is_none(),
        }
    }
}
