//! What the meta group is asked.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::Totals;
use proffer_engine::catalog::Command;
use proffer_engine::codec;
use proffer_engine::keys::{OfferKey, Revision, ShardId, TenantId};
use proffer_engine::level::Level;
use proffer_engine::profile::command::AccountId;
use proffer_engine::time::Span;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::{Changed, Operation};
use crate::error::Error;
use crate::group::Group;
use crate::lease::{Grant, Renew, Report};
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::meta::roster::{Configured, NodeInfo, Recover};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What was done, or the words of a refusal: asking again changes nothing about it.
pub(crate) type Verdict<T> = Result<T, String>;

/// A node that was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enrolled {
    pub(crate) node: u64,
    /// Its replica of the meta group.
    pub(crate) replica: u64,
}

/// One call to the meta group.
pub(crate) enum MetaAsk {
    /// Change the catalogue: one after the other, each wholly or not at all.
    Change { commands: Vec<Command>, deadline: Instant, reply: Reply<Vec<Result<Changed, Error>>> },
    /// The ledger's side of an offer's accounts.
    Budget { tenant: TenantId, offer: OfferKey, reply: Reply<Vec<LedgerRow>> },
    /// By how much the limits of these accounts are exceeded.
    Over { accounts: Vec<AccountId>, reply: Reply<u64> },
    /// Admit a node, or learn of another start of one.
    Enroll { info: NodeInfo, reply: Reply<Verdict<Enrolled>> },
    /// Give a node new replicas in place of those that it has given up: of which groups, and through which one.
    Replace { disk: u128, given_up: BTreeMap<Group, u64>, reply: Reply<Verdict<Enrolled>> },
    /// A node says which feature level it can.
    Able { disk: u128, level: Level },
    /// A group's leader reports its members.
    Configured(Configured),
    /// What an operator wants. The answer is what it comes to, in words.
    Operate { operation: Operation, reply: Reply<Verdict<String>> },
    /// Begin a group anew from what is left of it.
    Recover { recover: Recover, reply: Reply<Verdict<String>> },
    /// Answered when every node that holds a catalogue lease has put this revision in force.
    Everywhere { revision: Revision, reply: Reply<()> },
}

/// What nodes say for the sake of their catalogue leases. It never waits for the log.
pub(crate) enum LeaseAsk {
    /// A lease is asked for.
    Renew { renew: Renew, reply: oneshot::Sender<Grant> },
    /// A node says what is in force there.
    Report(Report),
}

impl MetaAsk {
    /// About how many bytes it keeps in memory while it waits. O(those).
    pub(crate) fn bytes(&self) -> usize {
        match self {
            MetaAsk::Change { commands, .. } => {
                commands.iter().map(|command| codec::encode(command).len() + ENTRY_OVERHEAD_BYTES).sum()
            }
            MetaAsk::Configured(report) => codec::encode(report).len(),
            MetaAsk::Budget { .. }
            | MetaAsk::Over { .. }
            | MetaAsk::Everywhere { .. }
            | MetaAsk::Recover { .. }
            | MetaAsk::Enroll { .. }
            | MetaAsk::Replace { .. }
            | MetaAsk::Able { .. }
            | MetaAsk::Operate { .. } => 0,
        }
    }

    /// Answers that it failed. Whoever asked may have stopped waiting.
    pub(crate) fn fail(self, error: Error) {
        match self {
            MetaAsk::Change { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Budget { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Over { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Enroll { reply, .. } | MetaAsk::Replace { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Recover { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Operate { reply, .. } => drop(reply.send(Err(error))),
            MetaAsk::Everywhere { reply, .. } => drop(reply.send(Err(error))),
            // Whoever leads the group, or is that node, says it again.
            MetaAsk::Configured(_) | MetaAsk::Able { .. } => {}
        }
    }
}

/// The ledger's side of one account.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct LedgerRow {
    pub(crate) account: AccountId,
    pub(crate) span: Span,
    pub(crate) limit: u64,
    pub(crate) pool: i64,
    /// What the ledger knows of each shard.
    pub(crate) totals: BTreeMap<ShardId, Totals>,
    /// What each shard last said of itself.
    pub(crate) reports: BTreeMap<ShardId, EscrowReport>,
}
