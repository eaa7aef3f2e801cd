//! The leader's view of its shard: what is committed, with the effects of commands that are proposed and not yet committed.
//!
//! `apply` is deterministic, so a cell that a pending command wrote has the value it will have once the last command that
//! wrote it has committed: from then on the committed state speaks for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::escrow::EscrowAccount;
use crate::keys::{CapKey, Revision, TenantId};
use crate::level::Level;
use crate::profile::apply::{Outcome, apply};
use crate::profile::cells::{Cells, Due, Look, ProfileId};
use crate::profile::command::{AccountId, Position, ShardCommand};
use crate::profile::evidence::Observation;
use crate::profile::shard::{Escrow, ShardState};
use crate::profile::state::Profile;
use crate::profile::symbols::Symbols;
use crate::time::Timestamp;

/// Number of a pending command, in the order proposed. Rises; never reused by one [`Pending`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// Copies of what pending commands touched.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    last: Sequence,
    committed: Sequence,
    log_time: Option<Touched<Timestamp>>,
    fence: Option<Touched<Revision>>,
    level: Option<Touched<Level>>,
    keyed_bytes: Option<Touched<u64>>,
    /// `None`: removed.
    profiles: BTreeMap<ProfileId, Touched<Option<Profile>>>,
    /// `None`: closed and forgotten.
    accounts: BTreeMap<AccountId, Touched<Option<EscrowAccount>>>,
    closed_below: BTreeMap<(u32, CapKey), Touched<u32>>,
    symbols: BTreeMap<TenantId, Touched<Arc<Symbols>>>,
}

/// A value, and the last pending command that wrote it.
#[derive(Clone, Debug)]
struct Touched<T> {
    by: Sequence,
    value: T,
}

impl Pending {
    /// Nothing pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `command` as it will be applied after everything pending. Unless it is refused its effects are pending now,
    /// under the number returned. A refused one leaves no trace and is not to be proposed.
    pub fn apply(&mut self, base: &ShardState, position: Position, command: &ShardCommand) -> (Sequence, Outcome) {
        let sequence = Sequence(self.last.0 + 1);
        let outcome = apply(&mut Overlay { base, pending: self, sequence }, position, command);
        if !matches!(outcome, Outcome::Refused(_)) {
            self.last = sequence;
        }
        (self.last, outcome)
    }

    /// What a decision sees: committed state with everything pending over it.
    pub fn view<'a>(&'a self, base: &'a ShardState) -> View<'a> {
        View { base, pending: self }
    }

    /// Commands up to `through` are in the committed state now: what they alone touched is dropped here.
    pub fn commit(&mut self, through: Sequence) {
        self.committed = self.committed.max(through);
        let stays = |by: Sequence| by > through;
        self.log_time = self.log_time.take().filter(|touched| stays(touched.by));
        self.fence = self.fence.take().filter(|touched| stays(touched.by));
        self.level = self.level.take().filter(|touched| stays(touched.by));
        self.keyed_bytes = self.keyed_bytes.take().filter(|touched| stays(touched.by));
        self.profiles.retain(|_, touched| stays(touched.by));
        self.accounts.retain(|_, touched| stays(touched.by));
        self.closed_below.retain(|_, touched| stays(touched.by));
        self.symbols.retain(|_, touched| stays(touched.by));
    }

    /// Forgets everything pending: a refusal, another leader, a snapshot. Numbers go on.
    pub fn clear(&mut self) {
        *self = Pending { last: self.last, committed: self.last, ..Pending::default() };
    }

    /// Number of the last command; whoever read the view waits until it has committed.
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// Whether something is pending.
    pub fn is_empty(&self) -> bool {
        self.committed >= self.last
    }

    /// The last pending command that touched this profile: an answer that reads only the profile waits for it.
    pub fn touched_profile(&self, id: &ProfileId) -> Option<Sequence> {
        self.profiles.get(id).map(|touched| touched.by)
    }

    /// The last pending command that touched any escrow account.
    pub fn touched_escrow(&self) -> Option<Sequence> {
        self.accounts.values().map(|touched| touched.by).max()
    }
}

/// Committed state with everything pending over it, to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    base: &'a ShardState,
    pending: &'a Pending,
}

/// The same, to run a command on.
struct Overlay<'a> {
    base: &'a ShardState,
    pending: &'a mut Pending,
    sequence: Sequence,
}

impl Overlay<'_> {
    fn view(&self) -> View<'_> {
        View { base: self.base, pending: self.pending }
    }

    fn touch<T>(&self, value: T) -> Touched<T> {
        Touched { by: self.sequence, value }
    }
}

impl<'a> View<'a> {
    fn find_profile(self, id: &ProfileId) -> Option<&'a Profile> {
        match self.pending.profiles.get(id) {
            Some(touched) => touched.value.as_ref(),
            None => self.base.profile(id),
        }
    }

    fn find_account(self, id: AccountId) -> Option<&'a EscrowAccount> {
        match self.pending.accounts.get(&id) {
            Some(touched) => touched.value.as_ref(),
            None => self.base.account(id),
        }
    }

    fn find_current(self, tenant: u32, cap: CapKey, now: Timestamp) -> Option<(AccountId, &'a EscrowAccount)> {
        let touched = self.pending.accounts.range(Escrow::range_of(tenant, cap)).rev();
        let pending = touched
            .filter_map(|(id, touched)| Some((*id, touched.value.as_ref()?)))
            .find(|(_, account)| account.span().contains(now));
        let base = || {
            let (id, account) = self.base.current_account(tenant, cap, now)?;
            (!self.pending.accounts.contains_key(&id)).then_some((id, account))
        };
        pending.or_else(base)
    }

    fn find_symbols(self, tenant: &TenantId) -> Option<&'a Arc<Symbols>> {
        match self.pending.symbols.get(tenant) {
            Some(touched) => Some(&touched.value),
            None => self.base.symbols(tenant),
        }
    }

    fn find_due(self, now: Timestamp) -> Due {
        let mut due = self.base.due(now);
        due.profiles.retain(|id| !self.pending.profiles.contains_key(id));
        due.accounts.retain(|id| !self.pending.accounts.contains_key(id));
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let profiles = self.pending.profiles.iter();
        due.profiles.extend(
            profiles
                .filter(|(_, touched)| is_due(touched.value.as_ref().and_then(Profile::due)))
                .map(|(id, _)| id.clone()),
        );
        let accounts = self.pending.accounts.iter();
        due.accounts.extend(
            accounts
                .filter(|(_, touched)| is_due(touched.value.as_ref().and_then(EscrowAccount::due)))
                .map(|(id, _)| *id),
        );
        due
    }
}

impl Look for View<'_> {
    fn log_time(&self) -> Timestamp {
        self.pending.log_time.as_ref().map_or(self.base.log_time(), |touched| touched.value)
    }

    fn fence(&self) -> Revision {
        self.pending.fence.as_ref().map_or(self.base.fence(), |touched| touched.value)
    }

    fn generation(&self) -> u64 {
        self.base.generation()
    }

    fn level(&self) -> Level {
        self.pending.level.as_ref().map_or(self.base.level(), |touched| touched.value)
    }

    fn profile(&self, id: &ProfileId) -> Option<&Profile> {
        self.find_profile(id)
    }

    fn account(&self, id: AccountId) -> Option<&EscrowAccount> {
        self.find_account(id)
    }

    fn current_account(&self, tenant: u32, cap: CapKey, now: Timestamp) -> Option<(AccountId, &EscrowAccount)> {
        self.find_current(tenant, cap, now)
    }

    fn closed_below(&self, tenant: u32, cap: CapKey) -> u32 {
        let touched = self.pending.closed_below.get(&(tenant, cap));
        touched.map_or_else(|| self.base.closed_below(tenant, cap), |touched| touched.value)
    }

    fn symbols(&self, tenant: &TenantId) -> Option<&Arc<Symbols>> {
        self.find_symbols(tenant)
    }

    fn keyed_bytes(&self) -> u64 {
        self.pending.keyed_bytes.as_ref().map_or(self.base.keyed_bytes(), |touched| touched.value)
    }

    fn due(&self, now: Timestamp) -> Due {
        self.find_due(now)
    }
}

impl Look for Overlay<'_> {
    fn log_time(&self) -> Timestamp {
        self.view().log_time()
    }

    fn fence(&self) -> Revision {
        self.view().fence()
    }

    fn generation(&self) -> u64 {
        self.base.generation()
    }

    fn level(&self) -> Level {
        self.view().level()
    }

    fn profile(&self, id: &ProfileId) -> Option<&Profile> {
        self.view().find_profile(id)
    }

    fn account(&self, id: AccountId) -> Option<&EscrowAccount> {
        self.view().find_account(id)
    }

    fn current_account(&self, tenant: u32, cap: CapKey, now: Timestamp) -> Option<(AccountId, &EscrowAccount)> {
        self.view().find_current(tenant, cap, now)
    }

    fn closed_below(&self, tenant: u32, cap: CapKey) -> u32 {
        self.view().closed_below(tenant, cap)
    }

    fn symbols(&self, tenant: &TenantId) -> Option<&Arc<Symbols>> {
        self.view().find_symbols(tenant)
    }

    fn keyed_bytes(&self) -> u64 {
        self.view().keyed_bytes()
    }

    fn due(&self, now: Timestamp) -> Due {
        self.view().find_due(now)
    }
}

impl Cells for Overlay<'_> {
    fn advance(&mut self, to: Timestamp) {
        self.pending.log_time = Some(self.touch(self.log_time().max(to)));
    }

    fn raise_fence(&mut self, to: Revision) {
        self.pending.fence = Some(self.touch(self.fence().max(to)));
    }

    fn raise_level(&mut self, to: Level) {
        self.pending.level = Some(self.touch(self.level().max(to)));
    }

    fn put_profile(&mut self, id: &ProfileId, profile: Profile) {
        let before = self.profile(id).map_or(0, Profile::keyed_bytes);
        self.pending.keyed_bytes = Some(self.touch(self.keyed_bytes() - before + profile.keyed_bytes()));
        let value = (!profile.is_empty()).then_some(profile);
        let touched = self.touch(value);
        self.pending.profiles.insert(id.clone(), touched);
    }

    fn put_account(&mut self, id: AccountId, account: EscrowAccount) {
        let touched = self.touch(Some(account));
        self.pending.accounts.insert(id, touched);
    }

    fn forget_account(&mut self, id: AccountId) {
        let removed = self.touch(None);
        self.pending.accounts.insert(id, removed);
        let below = self.closed_below(id.tenant, id.cap).max(id.ordinal.saturating_add(1));
        let touched = self.touch(below);
        self.pending.closed_below.insert((id.tenant, id.cap), touched);
    }

    fn intern(&mut self, tenant: &TenantId, names: &[Arc<str>]) {
        let mut touched = match self.pending.symbols.remove(tenant) {
            Some(touched) => touched,
            None => self.touch(self.base.symbols(tenant).cloned().unwrap_or_default()),
        };
        let symbols = Arc::make_mut(&mut touched.value);
        for name in names {
            symbols.intern(name);
        }
        touched.by = self.sequence;
        self.pending.symbols.insert(tenant.clone(), touched);
    }

    /// Nothing: no command reads evidence, and what is published is committed.
    fn observe(&mut self, _: &TenantId, _: &Observation) {}
}
