//! The log entries of the meta group.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;

use bincode::{Decode, Encode};
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::Terms;
use proffer_engine::catalog;
use proffer_engine::keys::ShardId;
use proffer_engine::level::Level;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Leader};
use proffer_engine::time::Timestamp;
use siphasher::sip::SipHasher13;

use crate::group::Group;
use crate::meta::roster::{Configured, NodeInfo, NodeStanding, Recover};

/// A stored command of the meta group, by format version.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum MetaCommand {
    /// The first format.
    V1(MetaCommandV1),
}

/// What is asked, when, and under which leader.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct MetaCommandV1 {
    /// Cluster time at the proposer.
    pub now: Timestamp,
    /// Leader that proposed it; `apply` refuses another's.
    pub leader: Leader,
    /// What to do.
    pub op: MetaOp,
}

/// The deeds.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum MetaOp {
    /// The first entry of a cluster: what is fixed for its whole life.
    Found(Founding),
    /// Change a tenant's catalogue. The entry's index is the revision.
    Change(catalog::Command),
    /// Open accounts of global caps; each shard is granted its first share.
    Open(Vec<(AccountId, Terms)>),
    /// Book what a shard reports, and grant what it wishes.
    Settle {
        /// Which shard.
        shard: ShardId,
        /// Its totals.
        reports: Vec<EscrowReport>,
    },
    /// End the periods that are over.
    EndPeriods,
    /// Admit a node, or learn of another start of one.
    Enroll(NodeInfo),
    /// Set what a group's members should be.
    Retarget {
        /// Of which group.
        group: Group,
        /// Nodes whose replicas vote.
        voters: BTreeSet<u64>,
        /// Nodes whose replicas are sent everything and do not vote.
        learners: BTreeSet<u64>,
        /// The node that should lead.
        leader: Option<u64>,
        /// An operator chose that node.
        pinned: bool,
    },
    /// Book what a group's members are.
    Configured(Configured),
    /// Set what is meant to become of a node.
    SetStanding {
        /// Which node.
        node: u64,
        /// What.
        standing: NodeStanding,
    },
    /// Forget a node that was removed and holds nothing any more.
    Forget {
        /// Which node.
        node: u64,
    },
    /// Give a node new replicas in place of those that it has given up.
    Replace {
        /// The node's disk.
        disk: u128,
        /// Of which groups, and through which replica.
        given_up: BTreeMap<Group, u64>,
    },
    /// Begin a group anew from what is left of it. A fence.
    Recover(Recover),
    /// As [`MetaOp::Settle`], of one generation of the shard: what another says is not booked. `Settle` is of the first.
    SettleOf {
        /// Which generation.
        generation: u64,
        /// Which shard.
        shard: ShardId,
        /// Its totals.
        reports: Vec<EscrowReport>,
    },
    /// Book the highest feature level that a node can.
    Able {
        /// The node's disk.
        disk: u128,
        /// What it can.
        level: Level,
    },
    /// Raise the feature level: entries after this one are applied at it.
    Level(Level),
}

impl MetaOp {
    /// Books what one generation of a shard reports.
    pub fn settle(generation: u64, shard: ShardId, reports: Vec<EscrowReport>) -> Self {
        match generation {
            0 => MetaOp::Settle { shard, reports },
            _ => MetaOp::SettleOf { generation, shard, reports },
        }
    }
}

/// What a cluster is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Founding {
    /// Key of the routing hash.
    pub secret: [u8; 16],
    /// Number of shards.
    pub shards: u16,
}

impl Founding {
    /// The cluster's id: its nodes are told apart by it from those of others. SipHash-1-3 under the secret, which it does not give away.
    pub fn cluster_id(&self) -> u128 {
        let half = |number: u8| {
            let mut hasher = SipHasher13::new_with_key(&self.secret);
            hasher.write(b"proffer cluster id");
            hasher.write_u8(number);
            u128::from(hasher.finish())
        };
        half(0) << 64 | half(1)
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum MetaOutcome {
    /// Of a change.
    Changed(Box<Change>),
    /// Of a change that the catalogue refused: nothing happened.
    Refused(catalog::Refusal),
    /// Of everything else: totals that shards are to be told.
    Told(Vec<(ShardId, EscrowMessage)>),
    /// Another leader's entry: nothing happened.
    WrongLeader,
    /// Of an enrolment.
    Enrolled {
        /// The node's id.
        node: u64,
        /// The id of its replica of the meta group.
        replica: u64,
    },
    /// Of a change to the roster that is not allowed: nothing happened.
    Barred(String),
}

/// See [`MetaOutcome::Changed`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Change {
    /// What the catalogue says.
    pub changed: catalog::Changed,
    /// Totals that shards are to be told: limits were lowered, caps are gone.
    pub told: Vec<(ShardId, EscrowMessage)>,
    /// Accounts whose limit is exceeded by what shards hold.
    pub over: Vec<AccountId>,
}

#[cfg(test)]
mod tests {
    use proffer_engine::codec;
    use proffer_engine::keys::CapKey;
    use proffer_engine::profile::command::Position;
    use proffer_engine::time::Span;

    use super::*;
    use crate::meta::roster::Members;

    #[test]
    fn commands_keep_their_bytes() {
        let account = AccountId { tenant: 1, cap: CapKey(2), ordinal: 3 };
        let span = Span { from: Timestamp(0), until: Timestamp(1) };
        let report = EscrowReport {
            account,
            granted_seen: 10,
            returned: 1,
            free: 2,
            reserved: 3,
            spent: 4,
            wish: 0,
            minted: 5,
            version: 6,
            soft: Some(7),
            as_of: Timestamp(8),
        };
        let members = Members { voters: [2].into(), learners: [3].into() };
        let at = Position { leader: Leader { term: 4, replica: 5 }, index: 6 };
        let group = Group::Shard(ShardId(1));
        let info = NodeInfo {
            disk: 1,
            boots: 2,
            peer_address: "a:1".to_owned(),
            http_address: "b:2".to_owned(),
            zone: "z".to_owned(),
        };
        let last = Position { leader: Leader { term: 2, replica: 3 }, index: 4 };
        let recover = Recover { group, generation: 1, survivor: 5, last, by: "me".to_owned() };
        let golden: [(MetaOp, &[u8]); 14] = [
            (
                MetaOp::Found(Founding { secret: [9; 16], shards: 16 }),
                &[0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 16],
            ),
            (
                MetaOp::Open(vec![(account, Terms { limit: 100, span, unit: 1, cooling_ms: 0, soft: true })]),
                &[2, 1, 1, 2, 3, 100, 0, 2, 1, 0, 1],
            ),
            (
                MetaOp::Settle { shard: ShardId(5), reports: vec![report] },
                &[3, 5, 1, 1, 2, 3, 10, 1, 2, 3, 4, 0, 5, 6, 1, 7, 16],
            ),
            (MetaOp::EndPeriods, &[4]),
            (MetaOp::Enroll(info), &[5, 1, 2, 3, b'a', b':', b'1', 3, b'b', b':', b'2', 1, b'z']),
            (
                MetaOp::Retarget { group, voters: [1, 2].into(), learners: [3].into(), leader: Some(2), pinned: true },
                &[6, 1, 1, 2, 1, 2, 1, 3, 1, 2, 1],
            ),
            (MetaOp::Configured(Configured { group, members, at, targets: 7 }), &[7, 1, 1, 1, 2, 1, 3, 4, 5, 6, 7]),
            (MetaOp::SetStanding { node: 3, standing: NodeStanding::Draining }, &[8, 3, 1]),
            (MetaOp::Forget { node: 3 }, &[9, 3]),
            (MetaOp::Replace { disk: 3, given_up: [(group, 9)].into() }, &[10, 3, 1, 1, 1, 9]),
            (MetaOp::Recover(recover), &[11, 1, 1, 1, 5, 2, 3, 4, 2, b'm', b'e']),
            (MetaOp::settle(8, ShardId(5), vec![report]), &[12, 8, 5, 1, 1, 2, 3, 10, 1, 2, 3, 4, 0, 5, 6, 1, 7, 16]),
            (MetaOp::Able { disk: 3, level: Level(2) }, &[13, 3, 2]),
            (MetaOp::Level(Level(2)), &[14, 2]),
        ];
        for (op, bytes) in golden {
            let leader = Leader { term: 7, replica: 3 };
            let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(1), leader, op });
            let expected = [&[0, 2, 7, 3][..], bytes].concat();
            assert_eq!(codec::encode(&command), expected, "{command:?}");
            assert_eq!(codec::decode::<MetaCommand>("command", &expected).unwrap(), command);
        }
    }
}
