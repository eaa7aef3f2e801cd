//! What commands read and write of a shard, as an interface: the committed state and the leader's pending view of it
//! implement it, and the same `apply` runs on both.

use std::sync::Arc;

use crate::budget::escrow::EscrowAccount;
use crate::decide::view::{EscrowView, Free, Subject};
use crate::keys::{CapKey, CustomerId, Revision, TenantId};
use crate::level::Level;
use crate::profile::command::AccountId;
use crate::profile::evidence::Observation;
use crate::profile::state::Profile;
use crate::profile::symbols::Symbols;
use crate::time::Timestamp;

/// Names one profile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileId {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
}

/// What has fallen due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Profiles with something lapsed.
    pub profiles: Vec<ProfileId>,
    /// Accounts with something cooled, or past their period.
    pub accounts: Vec<AccountId>,
}

/// Reads of a shard.
pub trait Look {
    /// Log time: the latest `now` of any command applied.
    fn log_time(&self) -> Timestamp;
    /// Oldest catalogue revision that commands may be decided under.
    fn fence(&self) -> Revision;
    /// How often the shard was begun anew after its majority was lost for good.
    fn generation(&self) -> u64;
    /// The feature level that commands are applied at.
    fn level(&self) -> Level;
    /// A profile; `None` for a customer never seen.
    fn profile(&self, id: &ProfileId) -> Option<&Profile>;
    /// An escrow account.
    fn account(&self, id: AccountId) -> Option<&EscrowAccount>;
    /// The account of a cap whose period contains `now`.
    fn current_account(&self, tenant: u32, cap: CapKey, now: Timestamp) -> Option<(AccountId, &EscrowAccount)>;
    /// Ordinal below which accounts of a cap are closed for good.
    fn closed_below(&self, tenant: u32, cap: CapKey) -> u32;
    /// The names of a tenant's profiles.
    fn symbols(&self, tenant: &TenantId) -> Option<&Arc<Symbols>>;
    /// Bytes of idempotency keys held.
    fn keyed_bytes(&self) -> u64;
    /// What has fallen due at `now`. O(due).
    fn due(&self, now: Timestamp) -> Due;

    /// The escrow of one tenant, as a decision sees it.
    fn escrow(&self, tenant: u32) -> TenantEscrow<'_, Self> {
        TenantEscrow { look: self, tenant }
    }

    /// The person a decision is for.
    fn subject(&self, id: &ProfileId) -> Subject<'_> {
        static NO_NAMES: std::sync::LazyLock<Symbols> = std::sync::LazyLock::new(Symbols::default);
        Subject { profile: self.profile(id), symbols: self.symbols(&id.tenant).map_or(&*NO_NAMES, Arc::as_ref) }
    }
}

/// Writes of a shard. Only `apply` calls them, each command's all together, once nothing can be refused any more.
pub trait Cells: Look {
    /// Advances log time.
    fn advance(&mut self, to: Timestamp);
    /// Raises the fence.
    fn raise_fence(&mut self, to: Revision);
    /// Raises the feature level.
    fn raise_level(&mut self, to: Level);
    /// Stores a profile; an empty one is removed.
    fn put_profile(&mut self, id: &ProfileId, profile: Profile);
    /// Stores an account.
    fn put_account(&mut self, id: AccountId, account: EscrowAccount);
    /// Removes the accounts of a cap up to and including `id`'s, for good.
    fn forget_account(&mut self, id: AccountId);
    /// Gives names their symbols.
    fn intern(&mut self, tenant: &TenantId, names: &[Arc<str>]);
    /// Counts evidence. What is only pending may leave it out: no command reads it.
    fn observe(&mut self, tenant: &TenantId, seen: &Observation);
}

/// One tenant's escrow in a shard.
#[derive(Debug)]
pub struct TenantEscrow<'a, L: ?Sized> {
    look: &'a L,
    tenant: u32,
}

impl<L: Look + ?Sized> EscrowView for TenantEscrow<'_, L> {
    fn free(&self, cap: CapKey, now: Timestamp) -> Option<Free> {
        let (account, held) = self.look.current_account(self.tenant, cap, now)?;
        Some(Free { account, amount: held.free(), left: held.left() })
    }
}
