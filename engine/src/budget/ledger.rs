//! The ledger's side of the global accounts: the pool, and what each shard was given and gave back.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use bincode::{Decode, Encode};

use crate::budget::escrow::{EscrowAccount, EscrowReport};
use crate::keys::ShardId;
use crate::limits::STARVING_MS;
use crate::profile::command::{AccountId, EscrowMessage, Recall, SoftTerms};
use crate::time::{Span, Timestamp};

/// All global accounts. Invariant: for each, `pool + in flight + Σ shards (free + reserved + spent) = limit`; the giver
/// subtracts before the receiver adds, so a fault can strand units for a while and never make one.
///
/// In a soft account shards count first and tell afterwards (docs/adr/0014): what they have not told yet is in flight with a
/// minus, and pool may be negative: by what the limit was overshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ledger {
    accounts: BTreeMap<AccountId, Account>,
}

/// One account: one cap in one period.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Account {
    limit: u64,
    span: Span,
    unit: NonZeroU64,
    cooling_ms: i64,
    state: AccountState,
    shards: BTreeMap<ShardId, Given>,
    /// Shards that asked while the pool had nothing, and until when that counts: others are asked to give back. Who still
    /// wants units asks again; one that no longer does must not keep them from those who do.
    starving: BTreeMap<ShardId, Timestamp>,
    /// Shards count without units in hand.
    soft: bool,
    /// Rises with every edit of limit, unit and enforcement.
    version: u32,
}

/// What an account is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Terms {
    /// Units, or micro-units of money.
    pub limit: u64,
    /// Its period.
    pub span: Span,
    /// Units one action takes: grants are multiples of it.
    pub unit: u64,
    /// Rolling window after which a spent unit is free again; 0 = never.
    pub cooling_ms: i64,
    /// Whether it only counts: shards need no units, and the limit may be overshot.
    pub soft: bool,
}

/// Where an account is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AccountState {
    /// Units are granted while its period lasts.
    Open,
    /// Ended, or its cap is gone: nothing is granted, what returns is booked.
    Closing,
    /// No shard holds anything that could still move.
    Closed,
}

/// Totals between the ledger and one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
struct Given {
    granted: u64,
    returned_seen: u64,
    minted_seen: u64,
    last: Option<EscrowReport>,
    /// The shard may count without a unit in hand, until it reports that it no longer does.
    loose: bool,
}

/// Why the ledger refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An account is opened once.
    #[error("account is already open")]
    AlreadyOpen,
    /// Periods of one cap never overlap and their numbers rise.
    #[error("account overlaps or precedes one of the same cap")]
    OutOfOrder,
    /// No such account.
    #[error("no such account")]
    Unknown,
    /// A shard cannot return more than it was granted, nor know of more than was granted.
    #[error("a shard reports units that it was never granted")]
    ForeignUnits,
}

/// Where the units of an account are, as the ledger and the shards see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// With the ledger; negative after a limit was lowered below what is out, or a soft one was overshot.
    pub pool: i128,
    /// Granted and not received, or returned and not booked; less what a soft account counted and has not reported.
    pub in_flight: i128,
    /// Free in shards.
    pub free: i128,
    /// Held by reservations.
    pub reserved: i128,
    /// Counted.
    pub spent: i128,
}

impl Whereabouts {
    /// Sum: equals the limit, always.
    pub fn total(&self) -> i128 {
        self.pool + self.in_flight + self.free + self.reserved + self.spent
    }
}

/// An action takes one unit at least, whatever its price.
fn unit_of(terms: Terms) -> NonZeroU64 {
    NonZeroU64::new(terms.unit).unwrap_or(NonZeroU64::MIN)
}

impl Account {
    /// One that nobody was granted anything of.
    fn new(terms: Terms) -> Self {
        Account {
            limit: terms.limit,
            span: terms.span,
            unit: unit_of(terms),
            cooling_ms: terms.cooling_ms.max(0),
            state: AccountState::Open,
            shards: BTreeMap::new(),
            starving: BTreeMap::new(),
            soft: terms.soft,
            version: 0,
        }
    }

    /// Units with the ledger; negative while shards hold more than a lowered limit, or counted more than a soft one.
    pub fn pool(&self) -> i128 {
        i128::from(self.limit) - self.shards.values().map(Given::out).sum::<i128>()
    }

    /// Limit in force.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Price of one action.
    pub fn unit(&self) -> u64 {
        self.unit.get()
    }

    /// Its period.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Where it is in its life.
    pub fn state(&self) -> AccountState {
        self.state
    }

    /// Whether shards count without units in hand.
    pub fn is_soft(&self) -> bool {
        self.soft
    }

    /// Counts the edits of its terms.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether not one action is left with the ledger.
    pub fn is_used_up(&self) -> bool {
        self.pool() < i128::from(self.unit.get())
    }

    /// What the ledger and each shard have told each other.
    pub fn totals(&self) -> impl Iterator<Item = (ShardId, Totals)> + '_ {
        self.shards.iter().map(|(shard, given)| {
            let Given { granted, returned_seen, minted_seen, .. } = *given;
            (*shard, Totals { granted, returned: returned_seen, minted: minted_seen })
        })
    }

    /// Units that shards hold beyond a lowered limit and have not given back, or counted beyond a soft one.
    pub fn over_by(&self) -> u64 {
        u64::try_from((-self.pool()).max(0)).unwrap_or(u64::MAX)
    }

    /// Units of one grant: `max(1, pool / (4 × active shards))`, in whole actions; 0 when not one action is left. While
    /// shards may count without units nobody knows what is left.
    pub fn grant_size(&self, active_shards: u64) -> u64 {
        if self.soft || self.shards.values().any(|given| given.loose) {
            return 0;
        }
        let Ok(pool) = u64::try_from(self.pool()) else { return 0 };
        let unit = self.unit.get();
        if pool < unit {
            return 0;
        }
        let share = pool / active_shards.max(1).saturating_mul(4);
        (share / unit * unit).max(unit)
    }

    /// Last reports of the shards.
    pub fn reports(&self) -> impl Iterator<Item = (ShardId, &EscrowReport)> {
        self.shards.iter().filter_map(|(shard, given)| Some((*shard, given.last.as_ref()?)))
    }

    /// Every shard that hears of a soft account may count in it.
    fn loosen(&mut self, shards: u16) {
        for shard in (0..shards).filter(|_| self.soft).map(ShardId) {
            self.shards.entry(shard).or_default().loose = true;
        }
    }

    fn ends_by(&self, now: Timestamp) -> bool {
        self.state != AccountState::Open || now >= self.span.until
    }

    /// What `shard` is told of a soft account.
    fn soft_terms(&self, shard: ShardId) -> Option<SoftTerms> {
        if !self.soft {
            return None;
        }
        let others = self.shards.iter().filter(|(other, _)| **other != shard);
        let none = SoftTerms { limit: self.limit, taken_elsewhere: 0, returned_elsewhere: 0 };
        Some(others.fold(none, |terms, (_, given)| SoftTerms {
            taken_elsewhere: terms.taken_elsewhere.saturating_add(given.granted).saturating_add(given.minted_seen),
            returned_elsewhere: terms.returned_elsewhere.saturating_add(given.returned_seen),
            ..terms
        }))
    }
}

/// Totals that the ledger knows of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Ever granted.
    pub granted: u64,
    /// Ever returned, as reported.
    pub returned: u64,
    /// Ever counted without a unit in hand, as reported.
    pub minted: u64,
}

impl Given {
    fn out(&self) -> i128 {
        i128::from(self.granted) + i128::from(self.minted_seen) - i128::from(self.returned_seen)
    }

    /// Whether the shard has reported that it has all it was granted.
    fn is_received(&self) -> bool {
        self.last.map_or(0, |last| last.granted_seen) == self.granted
    }

    /// Whether nothing of the account is left with the shard that could still move.
    fn is_over(&self) -> bool {
        !self.loose && (self.granted == 0 && self.minted_seen == 0 || self.is_settled())
    }

    /// Nothing in flight, free, held or cooling.
    fn is_settled(&self) -> bool {
        self.last.is_some_and(|last| {
            last.granted_seen == self.granted
                && last.returned == self.returned_seen
                && last.minted == self.minted_seen
                && last.free == 0
                && last.reserved == 0
        })
    }
}

impl Ledger {
    /// Opens an account in which so many `shards` will take units.
    ///
    /// # Errors
    /// If it exists, or does not come after the last account of its cap.
    pub fn open(&mut self, id: AccountId, terms: Terms, shards: u16) -> Result<(), LedgerError> {
        let mut account = Account::new(terms);
        account.loosen(shards);
        self.restore(id, account)
    }

    /// Takes an account as [`Ledger::accounts`] showed it, later periods of a cap after earlier ones.
    ///
    /// # Errors
    /// If it exists, or does not come after the last account of its cap.
    pub fn restore(&mut self, id: AccountId, account: Account) -> Result<(), LedgerError> {
        if self.accounts.contains_key(&id) {
            return Err(LedgerError::AlreadyOpen);
        }
        let of_cap = AccountId { ordinal: 0, ..id }..=AccountId { ordinal: u32::MAX, ..id };
        let last = self.accounts.range(of_cap).next_back();
        if last.is_some_and(|(last, earlier)| last.ordinal > id.ordinal || earlier.span.until > account.span.from) {
            return Err(LedgerError::OutOfOrder);
        }
        self.accounts.insert(id, account);
        Ok(())
    }

    /// One account.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// All accounts, by id.
    pub fn accounts(&self) -> impl ExactSizeIterator<Item = (AccountId, &Account)> {
        self.accounts.iter().map(|(id, account)| (*id, account))
    }

    /// Accounts of one cap, oldest first.
    pub fn accounts_of(
        &self,
        tenant: u32,
        cap: crate::keys::CapKey,
    ) -> impl DoubleEndedIterator<Item = (AccountId, &Account)> {
        let first = AccountId { tenant, cap, ordinal: 0 };
        self.accounts.range(first..=AccountId { ordinal: u32::MAX, ..first }).map(|(id, account)| (*id, account))
    }

    /// Grants `shard` units and tells its new total. `granted_seen` is the total the shard has received: while an earlier
    /// grant is still on its way nothing is added, so asking twice costs nothing. From a pool that is empty nothing is added
    /// either: then the shard is noted as starving.
    ///
    /// # Errors
    /// If there is no such account, or the shard has seen units that were never granted.
    pub fn grant(
        &mut self,
        id: AccountId,
        shard: ShardId,
        granted_seen: u64,
        active_shards: u64,
        now: Timestamp,
    ) -> Result<EscrowMessage, LedgerError> {
        let account = self.accounts.get_mut(&id).ok_or(LedgerError::Unknown)?;
        let granted = account.shards.entry(shard).or_default().granted;
        if granted_seen > granted {
            return Err(LedgerError::ForeignUnits);
        }
        if granted_seen == granted && !account.ends_by(now) {
            let amount = account.grant_size(active_shards);
            match granted.checked_add(amount) {
                Some(total) if amount > 0 => {
                    account.shards.entry(shard).or_default().granted = total;
                    account.starving.remove(&shard);
                }
                Some(_) | None => {
                    account.starving.insert(shard, now.plus_ms(STARVING_MS));
                }
            }
        }
        self.message(id, shard, now).ok_or(LedgerError::Unknown)
    }

    /// Books a shard's report: units returned are in the pool again.
    ///
    /// # Errors
    /// If there is no such account, or the report speaks of units that were never granted.
    pub fn see(&mut self, shard: ShardId, report: EscrowReport, now: Timestamp) -> Result<(), LedgerError> {
        let account = self.accounts.get_mut(&report.account).ok_or(LedgerError::Unknown)?;
        let known = account.shards.get(&shard).copied().unwrap_or_default();
        let is_foreign = report.granted_seen > known.granted
            || report.minted > known.minted_seen && !known.loose
            || report.returned > known.granted.saturating_add(report.minted);
        if is_foreign {
            return Err(LedgerError::ForeignUnits);
        }
        let given = account.shards.entry(shard).or_default();
        let fresh = given.last.is_none_or(|last| {
            last.granted_seen <= report.granted_seen
                && last.returned <= report.returned
                && last.minted <= report.minted
                && last.version <= report.version
        });
        if report.version == account.version && report.soft.is_none() {
            given.loose = false;
        }
        given.minted_seen = given.minted_seen.max(report.minted);
        given.returned_seen = given.returned_seen.max(report.returned);
        if fresh {
            given.last = Some(report);
        }
        if account.ends_by(now) && account.state == AccountState::Open {
            account.state = AccountState::Closing;
        }
        Self::close_if_settled(account);
        Ok(())
    }

    /// Sets a new limit, a new price of one action (1 for units), and whether the cap is soft; span and window of `terms` are
    /// not looked at. Raising the limit adds to the pool at once; lowering may leave it negative: nothing is granted then,
    /// and shards are asked for everything free until it no longer is. A shard that learns of a higher price returns what no
    /// longer pays for one action. A cap that was soft grants nothing until all `shards` have reported that they know.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn set_terms(&mut self, id: AccountId, terms: Terms, shards: u16) -> Result<(), LedgerError> {
        let account = self.accounts.get_mut(&id).ok_or(LedgerError::Unknown)?;
        (account.limit, account.unit, account.soft) = (terms.limit, unit_of(terms), terms.soft);
        account.version = account.version.saturating_add(1);
        account.loosen(shards);
        Ok(())
    }

    /// Ends an account at `at` at the latest: its cap is gone, or its period over.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn close(&mut self, id: AccountId, at: Timestamp) -> Result<(), LedgerError> {
        let account = self.accounts.get_mut(&id).ok_or(LedgerError::Unknown)?;
        account.span.until = account.span.until.min(at);
        if account.state == AccountState::Open {
            account.state = AccountState::Closing;
        }
        Self::close_if_settled(account);
        Ok(())
    }

    /// Closes accounts whose period is over at `now`. O(accounts).
    pub fn end_periods(&mut self, now: Timestamp) {
        for account in self.accounts.values_mut().filter(|account| account.state != AccountState::Closed) {
            if account.ends_by(now) {
                account.state = AccountState::Closing;
                Self::close_if_settled(account);
            }
        }
    }

    /// What `shard` has to be told of the account, as totals: may be sent any number of times. `None` if there is no such
    /// account.
    pub fn message(&self, id: AccountId, shard: ShardId, now: Timestamp) -> Option<EscrowMessage> {
        let account = self.accounts.get(&id)?;
        let others_starve = account.starving.iter().any(|(starving, until)| *starving != shard && now < *until);
        // What is on its way is there to be taken: recalled by the message that brings it, a unit would go round those who want it for ever.
        let is_received = account.shards.get(&shard).is_none_or(Given::is_received);
        let recall = if account.ends_by(now) || account.pool() < 0 && !account.soft {
            Recall::All
        } else if others_starve && is_received && account.pool() < i128::from(account.unit.get()) {
            Recall::Spare
        } else {
            Recall::Nothing
        };
        Some(EscrowMessage {
            account: id,
            granted: account.shards.get(&shard).map_or(0, |given| given.granted),
            span: account.span,
            unit: account.unit.get(),
            cooling_ms: account.cooling_ms,
            recall,
            closed: account.state == AccountState::Closed,
            version: account.version,
            soft: account.soft_terms(shard),
        })
    }

    /// Shards to ask for units, those first that reported most free: when others starve and the pool is empty, or a limit
    /// was lowered below what is out. Empty otherwise.
    pub fn recall_plan(&self, id: AccountId, now: Timestamp) -> Vec<ShardId> {
        let Some(account) = self.accounts.get(&id) else { return Vec::new() };
        let mut holders: Vec<(u64, ShardId)> = account
            .shards
            .iter()
            .filter(|(shard, given)| {
                given.out() > 0
                    && !given.is_settled()
                    && self.message(id, **shard, now).is_some_and(|message| message.recall != Recall::Nothing)
            })
            .map(|(shard, given)| {
                let unseen = given.last.map_or(given.granted, |last| last.free + (given.granted - last.granted_seen));
                (unseen, *shard)
            })
            .filter(|(free, _)| *free > 0)
            .collect();
        holders.sort_by_key(|(free, shard)| (std::cmp::Reverse(*free), *shard));
        holders.into_iter().map(|(_, shard)| shard).collect()
    }

    /// Shards that wait for units: to be asked again once the pool has some.
    pub fn starving(&self, id: AccountId, now: Timestamp) -> impl Iterator<Item = ShardId> + '_ {
        let starving = self.accounts.get(&id).into_iter().flat_map(|account| &account.starving);
        starving.filter(move |(_, until)| now < **until).map(|(shard, _)| *shard)
    }

    /// What a shard was given of an account, as totals; `None` if there is no such account.
    pub fn given(&self, id: AccountId, shard: ShardId) -> Option<Totals> {
        let given = self.accounts.get(&id)?.shards.get(&shard).copied().unwrap_or_default();
        Some(Totals { granted: given.granted, returned: given.returned_seen, minted: given.minted_seen })
    }

    /// The shard lost its majority for good, and begins anew: what it was granted and is not known to have returned is spent
    /// ([`EscrowAccount::inherit`]). Totals go on; what the lost generation said of its units and wishes holds no more. O(accounts).
    pub fn begin_generation(&mut self, shard: ShardId, now: Timestamp) {
        for (id, account) in &mut self.accounts {
            account.starving.remove(&shard);
            let version = account.version;
            let Some(given) = account.shards.get_mut(&shard) else { continue };
            let spent = given.granted.saturating_add(given.minted_seen).saturating_sub(given.returned_seen);
            given.last = Some(EscrowReport {
                account: *id,
                granted_seen: given.granted,
                returned: given.returned_seen,
                free: 0,
                reserved: 0,
                spent,
                wish: 0,
                minted: given.minted_seen,
                version,
                soft: None,
                as_of: now,
            });
            Self::close_if_settled(account);
        }
    }

    /// Forgets a closed account. Its number is not used again: [`Ledger::open`] needs a higher one while a later account
    /// of the cap is kept.
    pub fn forget_closed(&mut self, id: AccountId) -> bool {
        let closed = self.accounts.get(&id).is_some_and(|account| account.state == AccountState::Closed);
        if closed {
            self.accounts.remove(&id);
        }
        closed
    }

    /// Where the account's units are, `shards` telling their own side. `None` if there is no such account.
    pub fn whereabouts<'a>(
        &self,
        id: AccountId,
        shards: impl IntoIterator<Item = (ShardId, &'a EscrowAccount)>,
    ) -> Option<Whereabouts> {
        let account = self.accounts.get(&id)?;
        let mut seen = Whereabouts { pool: account.pool(), ..Whereabouts::default() };
        seen.in_flight = account.shards.values().map(Given::out).sum();
        for (_, held) in shards {
            seen.free += i128::from(held.free());
            seen.reserved += i128::from(held.reserved());
            seen.spent += i128::from(held.spent());
            seen.in_flight -= i128::from(held.granted_seen()) + i128::from(held.minted()) - i128::from(held.returned());
        }
        Some(seen)
    }

    fn close_if_settled(account: &mut Account) {
        if account.state == AccountState::Closing && account.shards.values().all(Given::is_over) {
            account.state = AccountState::Closed;
            account.starving.clear();
        }
    }
}
