//! What nodes say to each other for the cluster's own sake, and the bytes of it. Versioned by the peers' protocol, like all they say.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::catalog::Command;
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::keys::{CustomerId, OfferKey, Revision, ShardId, TenantId};
use proffer_engine::learn::ExperimentTally;
use proffer_engine::level::Level;
use proffer_engine::profile::command::{AccountId, EscrowMessage, ShardOp};
use proffer_engine::profile::trials::{ExperimentId, Slice};

use super::failure::Failure;
use crate::calls::Changed;
use crate::calls::Operation;
use crate::directory::Claim;
use crate::error::Error;
use crate::group::Group;
use crate::identity::Reach;
use crate::learning::{Counted, Mark};
use crate::lease::{Grant, Renew, Report};
use crate::meta::ask::LedgerRow;
use crate::meta::roster::{Configured, NodeInfo};
use crate::raft::Remains;
use crate::shard::ask::Held;

/// One node to another.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum Message {
    /// What the sender leads, and what it hears that others do.
    Leading(Vec<Claim>),
    /// To whoever leads the shard.
    Shard(ShardId, ToShard),
    /// To whoever leads the meta group.
    Meta(ToMeta),
    /// To a node that the sender has no way to: these are the bytes of a message, which is none of this kind. Whoever has no way
    /// either says so; it goes through one node and not through another.
    Pass { to: u64, message: Vec<u8> },
    /// What is left of a group on the node that is asked.
    Remains(Group),
    /// To whoever leads the meta group: begin a shard anew.
    Recover(ToRecover),
    /// How far the sender's replicas have come, for good. Safe to lose.
    Reached(Vec<(u64, Reach)>),
    /// What others know that is later than these marks of what shards have counted.
    Learn(Vec<(ShardId, Mark)>),
}

/// What an operator wants who wants a shard begun anew.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ToRecover {
    pub(crate) shard: ShardId,
    /// What the lost replicas alone knew may be lost. Without it nothing is done but telling what that may be.
    pub(crate) accept_loss: bool,
    /// Who wants it.
    pub(crate) by: String,
}

/// What a shard is asked on behalf of another node.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToShard {
    /// The ledger's totals. Safe to lose.
    Notice { generation: u64, messages: Vec<EscrowMessage>, booked: Vec<EscrowReport> },
    /// Deeds of the cluster's own: fences, recalls.
    Order(Vec<ShardOp>),
    /// A share of a tenant's bulk write.
    Write { tenant: TenantId, ops: Vec<ShardOp> },
    /// What it holds of accounts.
    Held { tenant: TenantId, accounts: Vec<AccountId> },
    /// Whether any profile has an impression or outcome of an offer.
    History { tenant: TenantId, offer: OfferKey },
    /// Whom it has, part by part.
    Customers { tenant: TenantId, segment: Option<String>, part: u16 },
    /// What came of an experiment, or of a slice of it.
    Experiment { tenant: TenantId, experiment: ExperimentId, slice: Slice },
}

/// What the meta group is asked on behalf of another node.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum ToMeta {
    /// A shard's totals. Safe to lose.
    Report { shard: ShardId, generation: u64, reports: Vec<EscrowReport> },
    /// Change the catalogue.
    Change(Vec<Command>),
    /// The ledger's side of an offer's accounts.
    Budget { tenant: TenantId, offer: OfferKey },
    /// A node joins, or has started again.
    Enroll(NodeInfo),
    /// A node has given up what it held of groups, through these replicas.
    Replace { disk: u128, given_up: BTreeMap<Group, u64> },
    /// A node says which feature level it can. Safe to lose.
    Able { disk: u128, level: Level },
    /// A group's leader says how its members stand. Safe to lose.
    Configured(Configured),
    /// What an operator wants.
    Operate(Operation),
    /// A node wants its catalogue lease renewed. Whoever does not lead passes it on, once.
    Renew { renew: Renew, relayed: bool },
    /// What has come into force on a node. Safe to lose.
    InForce(Report),
    /// When a revision is in force on every node that may decide.
    Everywhere(Revision),
}

/// The answer to a message.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) enum Answer {
    /// It was heard.
    Heard,
    /// So many were applied.
    Applied(u64),
    /// What the shard holds.
    Held(Vec<Held>),
    /// Whether there is one.
    Seen(bool),
    /// What became of each change.
    Changed(Vec<Result<Changed, Failure>>),
    /// The ledger's rows.
    Rows(Vec<LedgerRow>),
    /// The node is of the cluster.
    Enrolled { node: u64, replica: u64 },
    /// It is refused for good, in words.
    Barred(String),
    /// Done, in words.
    Operated(String),
    /// The lease is renewed.
    Granted(Grant),
    /// What the other node answered: the bytes.
    Passed(Vec<u8>),
    /// What is left there, if anything.
    Remains(Option<Remains>),
    /// Some customers, and the part of the shard to go on with.
    Customers(Vec<CustomerId>, Option<u16>),
    /// What shards have counted, and whether there is more than fits.
    Learned(Vec<Counted>, bool),
    /// What came of an experiment.
    Experiment(ExperimentTally),
}

/// An answer's bytes.
pub(super) fn encode_answer(answer: Result<Answer, Error>) -> Vec<u8> {
    codec::encode(&answer.map_err(|error| Failure::from(&error)))
}

/// What was answered.
pub(super) fn decode_answer(bytes: &[u8]) -> Result<Answer, Error> {
    let read: Result<Result<Answer, Failure>, DecodeError> = codec::decode("an answer of another node", bytes);
    match read {
        Ok(answer) => answer.map_err(Error::from),
        Err(error) => {
            tracing::warn!(%error, "another node's answer cannot be read");
            Err(Error::Unknown)
        }
    }
}
