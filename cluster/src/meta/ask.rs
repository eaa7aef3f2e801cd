//! What the meta group is asked.

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::catalog::{self, Command};
use proffer_engine::keys::{OfferKey, ShardId, TenantId};
use proffer_engine::profile::command::AccountId;
use proffer_engine::time::Span;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::Changed;
use crate::error::Error;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// One call to the meta group.
pub(crate) enum MetaAsk {
    /// Change the catalogue: one after the other, each wholly or not at all.
    Change { commands: Vec<Command>, deadline: Instant, reply: Reply<Vec<Result<Changed, Error>>> },
    /// Say what the catalogue would answer.
    Validate { commands: Vec<Command>, reply: Reply<Vec<Result<catalog::Changed, catalog::Refusal>>> },
    /// A shard's totals and wishes. Not answered here: the shard is told in a notice.
    Settle { shard: ShardId, reports: Vec<EscrowReport> },
    /// The ledger's side of an offer's accounts.
    Budget { tenant: TenantId, offer: OfferKey, reply: Reply<Vec<LedgerRow>> },
    /// By how much the limits of these accounts are exceeded.
    Over { accounts: Vec<AccountId>, reply: Reply<u64> },
}

/// The ledger's side of one account.
#[derive(Clone, Debug)]
pub(crate) struct LedgerRow {
    pub(crate) account: AccountId,
    pub(crate) span: Span,
    pub(crate) limit: u64,
    pub(crate) pool: i64,
}
