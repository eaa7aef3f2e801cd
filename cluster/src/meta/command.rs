//! The log entries of the meta group.

use bincode::{Decode, Encode};
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::Terms;
use proffer_engine::catalog;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Leader};
use proffer_engine::time::Timestamp;

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
}

/// What a cluster is created with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Founding {
    /// Key of the routing hash.
    pub secret: [u8; 16],
    /// Number of shards.
    pub shards: u16,
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
