//! The committed state of one shard.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::Xxh3;

use crate::budget::escrow::{EscrowAccount, EscrowReport};
use crate::keys::{CapKey, CustomerId, Revision, TenantId};
use crate::level::Level;
use crate::profile::cells::{Cells, Due, Look, ProfileId};
use crate::profile::command::AccountId;
use crate::profile::evidence::{Evidence, Observation};
use crate::profile::state::{Profile, Reservation};
use crate::profile::symbols::Symbols;
use crate::time::Timestamp;

/// Chunks of a shard: a snapshot shares them, and a write copies the one it touches.
pub const CHUNKS: usize = 256;

/// Everything one shard owns. Cloning shares: O(chunks). Two states that applied the same commands encode to the same bytes.
#[derive(Clone, Debug)]
pub struct ShardState {
    pub(super) log_time: Timestamp,
    pub(super) fence: Revision,
    pub(super) generation: u64,
    pub(super) level: Level,
    /// By number; profiles name their tenant by it. Grows only.
    pub(super) tenants: Vec<Tenant>,
    pub(super) numbers: BTreeMap<TenantId, u32>,
    pub(super) escrow: Arc<Escrow>,
    chunks: Box<[Arc<Chunk>]>,
    keyed_bytes: u64,
    profiles: u64,
}

/// What a shard keeps of a tenant beside profiles.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    pub(super) symbols: Arc<Symbols>,
    pub(super) evidence: Arc<Evidence>,
}

/// The shard's accounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Escrow {
    pub(super) accounts: BTreeMap<AccountId, EscrowAccount>,
    /// By tenant number and cap: ordinals below are closed for good, so that a late message can not bring one back.
    pub(super) closed_below: BTreeMap<(u32, CapKey), u32>,
    /// Accounts by the instant something happens to them.
    due: BTreeMap<(Timestamp, AccountId), ()>,
}

/// Profiles whose hash starts with the chunk's number.
#[derive(Clone, Debug, Default)]
struct Chunk {
    /// Found by hash of (tenant, customer); never iterated but to sort, or for sums that need no order.
    table: HashTable<Box<Entry>>,
    /// How many profiles of a hash have something to lapse at an instant.
    due: BTreeMap<(Timestamp, u64), u32>,
}

/// One profile in its chunk.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tenant: u32,
    pub(super) customer: Box<str>,
    pub(super) profile: Profile,
}

impl Entry {
    fn hash(&self, tenants: &[Tenant]) -> u64 {
        hash_of(&tenants[self.tenant as usize].id, &self.customer)
    }

    fn is(&self, tenant: u32, customer: &str) -> bool {
        self.tenant == tenant && &*self.customer == customer
    }
}

impl Default for ShardState {
    fn default() -> Self {
        ShardState {
            log_time: Timestamp(i64::MIN),
            fence: Revision(0),
            generation: 0,
            level: Level::FIRST,
            tenants: Vec::new(),
            numbers: BTreeMap::new(),
            escrow: Arc::default(),
            chunks: (0..CHUNKS).map(|_| Arc::default()).collect(),
            keyed_bytes: 0,
            profiles: 0,
        }
    }
}

/// Where a profile lies within its shard. Fixed for ever: it is not stored, but every replica must agree on tick order.
fn hash_of(tenant: &TenantId, customer: &str) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(tenant.0.as_bytes());
    hasher.update(&[0]);
    hasher.update(customer.as_bytes());
    hasher.digest()
}

fn chunk_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

impl ShardState {
    /// A shard that nothing has happened to.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many profiles it has.
    pub fn profile_count(&self) -> u64 {
        self.profiles
    }

    /// When the next `Tick` has something to do. O(chunks).
    pub fn next_due(&self) -> Option<Timestamp> {
        let profiles = self.chunks.iter().filter_map(|chunk| chunk.due.first_key_value()).map(|((at, _), _)| *at);
        profiles.chain(self.escrow.due.first_key_value().map(|((at, _), ())| *at)).min()
    }

    /// The instant by which `most` profiles and accounts have fallen due (or a few more, at that same instant); `None` if no
    /// more than so many are due at `now`. O(chunks + most · log chunks).
    pub fn due_in_part(&self, most: usize, now: Timestamp) -> Option<Timestamp> {
        let profiles = self.chunks.iter().map(|chunk| {
            let due = chunk.due.range(..=(now, u64::MAX)).map(|((at, _), _)| *at);
            Box::new(due) as Box<dyn Iterator<Item = Timestamp>>
        });
        let accounts = self.escrow.due.keys().map(|(at, _)| *at).take_while(|at| *at <= now);
        let mut sources: Vec<_> = profiles.chain(std::iter::once(Box::new(accounts) as Box<_>)).collect();
        let firsts = sources.iter_mut().enumerate().filter_map(|(source, due)| Some(Reverse((due.next()?, source))));
        let mut heap: BinaryHeap<_> = firsts.collect();
        let mut through = None;
        for _ in 0..most {
            let Reverse((at, source)) = heap.pop()?;
            through = Some(at);
            heap.extend(sources[source].next().map(|next| Reverse((next, source))));
        }
        heap.pop().and(through)
    }

    /// All escrow accounts, by id.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, &EscrowAccount)> {
        self.escrow.accounts.iter().map(|(id, account)| (*id, account))
    }

    /// What to tell the ledger of each account.
    pub fn reports(&self) -> impl Iterator<Item = EscrowReport> + '_ {
        self.accounts().map(|(id, account)| account.report(id, self.log_time))
    }

    /// A tenant's counters for learning.
    pub fn evidence(&self, tenant: &TenantId) -> Option<&Evidence> {
        Some(&self.tenants[*self.numbers.get(tenant)? as usize].evidence)
    }

    /// Every tenant's counters for learning, shared.
    pub fn evidence_by_tenant(&self) -> impl Iterator<Item = (&TenantId, &Arc<Evidence>)> {
        self.tenants.iter().map(|tenant| (&tenant.id, &tenant.evidence))
    }

    /// All tenants that this shard has heard of.
    pub fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.iter().map(|tenant| &tenant.id)
    }

    /// All profiles, in an order that may be another one elsewhere: for sums.
    pub(super) fn unsorted(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flat_map(|chunk| chunk.table.iter().map(Box::as_ref))
    }

    /// All profiles of one chunk, by tenant number and customer.
    pub(super) fn sorted_chunk(&self, chunk: usize) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.chunks[chunk].table.iter().map(Box::as_ref).collect();
        entries.sort_unstable_by(|left, right| (left.tenant, &left.customer).cmp(&(right.tenant, &right.customer)));
        entries
    }

    /// All profiles of a tenant. Order is fixed by the ids, not by time.
    pub fn profiles_of(&self, tenant: &TenantId) -> impl Iterator<Item = (CustomerId, &Profile)> {
        let number = self.numbers.get(tenant).copied();
        (0..CHUNKS)
            .flat_map(|chunk| self.sorted_chunk(chunk))
            .filter(move |entry| Some(entry.tenant) == number)
            .map(|entry| (CustomerId::new(&entry.customer), &entry.profile))
    }

    /// Customers of a tenant, those in a segment if one is named: of the parts of the shard from `part` on (0 up to [`CHUNKS`]), whole
    /// parts, until there are `enough`; and the part to go on with. O(profiles of those parts · log).
    pub fn customers_of(
        &self,
        tenant: &TenantId,
        segment: Option<&str>,
        part: u16,
        enough: usize,
    ) -> (Vec<CustomerId>, Option<u16>) {
        let Some(number) = self.numbers.get(tenant).copied() else { return (Vec::new(), None) };
        let segment = segment.map(|name| self.tenants[number as usize].symbols.find(name));
        let is_meant = |entry: &&Entry| {
            let is_in = segment.is_none_or(|segment| segment.is_some_and(|of| entry.profile.segments.contains(&of)));
            entry.tenant == number && is_in && !entry.profile.is_deleted()
        };
        let mut customers = Vec::new();
        for chunk in usize::from(part)..CHUNKS {
            if customers.len() >= enough {
                return (customers, u16::try_from(chunk).ok());
            }
            let found = self.sorted_chunk(chunk).into_iter().filter(is_meant);
            customers.extend(found.map(|entry| CustomerId::new(&*entry.customer)));
        }
        (customers, None)
    }

    /// Bytes a profile costs beside what the channel sends of it (id, attributes, segments and rows), its place in the
    /// table included; lists within its dealings are not followed.
    pub fn dealing_bytes(&self, id: &ProfileId) -> usize {
        let Some(profile) = self.profile(id) else { return 0 };
        let chunk = &self.chunks[chunk_of(hash_of(&id.tenant, &id.customer.0))];
        let slot = chunk.table.allocation_size().div_ceil(chunk.table.len());
        // The tenant's number takes a whole word, by alignment; it is part of the id.
        let given = size_of_val(&profile.attributes) + size_of_val(&profile.segments) + size_of_val(&profile.rows);
        let fixed = size_of::<Entry>() - given - size_of::<Box<str>>() - size_of::<u64>();
        let dealings = profile.dealings.as_ref().map_or(0, |dealings| size_of_val(&**dealings));
        fixed + slot + size_of_val(&*profile.exposures) + dealings
    }

    pub(super) fn number_of(&mut self, tenant: &TenantId) -> u32 {
        if let Some(number) = self.numbers.get(tenant) {
            return *number;
        }
        let number = u32::try_from(self.tenants.len()).expect("tenants are limited");
        self.tenants.push(Tenant { id: tenant.clone(), symbols: Arc::default(), evidence: Arc::default() });
        self.numbers.insert(tenant.clone(), number);
        number
    }

    /// Stores or removes one profile, and keeps due times and sizes in step.
    pub(super) fn put_entry(&mut self, tenant: u32, customer: &str, profile: Profile) {
        let hash = hash_of(&self.tenants[tenant as usize].id, customer);
        let tenants = &self.tenants;
        let chunk = Arc::make_mut(&mut self.chunks[chunk_of(hash)]);
        let slot = chunk.table.entry(hash, |entry| entry.is(tenant, customer), |entry| entry.hash(tenants));
        let (due, keyed) = (profile.due(), profile.keyed_bytes());
        let old = match slot {
            hashbrown::hash_table::Entry::Occupied(mut slot) if !profile.is_empty() => {
                Some(std::mem::replace(&mut slot.get_mut().profile, profile))
            }
            hashbrown::hash_table::Entry::Occupied(slot) => {
                self.profiles -= 1;
                Some(slot.remove().0.profile)
            }
            hashbrown::hash_table::Entry::Vacant(_) if profile.is_empty() => None,
            hashbrown::hash_table::Entry::Vacant(slot) => {
                self.profiles += 1;
                slot.insert(Box::new(Entry { tenant, customer: Box::from(customer), profile }));
                None
            }
        };
        let old_due = old.as_ref().and_then(Profile::due);
        self.keyed_bytes = self.keyed_bytes - old.as_ref().map_or(0, Profile::keyed_bytes) + keyed;
        if old_due == due {
            return;
        }
        if let Some(at) = old_due
            && let std::collections::btree_map::Entry::Occupied(mut count) = chunk.due.entry((at, hash))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(at) = due {
            *chunk.due.entry((at, hash)).or_default() += 1;
        }
    }

    /// Changes what every profile holds. Nothing of it may fall due at another instant than before. O(profiles).
    pub(super) fn change_reservations(&mut self, change: impl Fn(&mut Reservation)) {
        for chunk in &mut self.chunks {
            let holds = |entry: &Entry| entry.profile.dealings.as_ref().is_some_and(|of| !of.reservations.is_empty());
            if !chunk.table.iter().any(|entry| holds(entry)) {
                continue;
            }
            let entries = Arc::make_mut(chunk).table.iter_mut();
            let dealings = entries.filter_map(|entry| entry.profile.dealings.as_mut());
            dealings.flat_map(|dealings| &mut dealings.reservations).for_each(&change);
        }
    }

    /// Drops the free places of tables after a bulk load.
    pub(super) fn shrink(&mut self) {
        let tenants = &self.tenants;
        for chunk in &mut self.chunks {
            Arc::make_mut(chunk).table.shrink_to_fit(|entry| entry.hash(tenants));
        }
    }
}

impl Escrow {
    pub(super) fn put(&mut self, id: AccountId, account: EscrowAccount) {
        let due = account.due();
        let old = self.accounts.insert(id, account);
        self.reindex(id, old.as_ref(), due);
    }

    /// Removes the accounts of a cap up to and including `id`'s, for good.
    pub(super) fn forget(&mut self, id: AccountId) {
        self.remove(id);
        let below = self.closed_below.entry((id.tenant, id.cap)).or_default();
        *below = (*below).max(id.ordinal.saturating_add(1));
    }

    fn remove(&mut self, id: AccountId) {
        let old = self.accounts.remove(&id);
        self.reindex(id, old.as_ref(), None);
    }

    fn reindex(&mut self, id: AccountId, old: Option<&EscrowAccount>, due: Option<Timestamp>) {
        if let Some(at) = old.and_then(EscrowAccount::due) {
            self.due.remove(&(at, id));
        }
        if let Some(at) = due {
            self.due.insert((at, id), ());
        }
    }

    /// Ordinals of one cap.
    pub(super) fn range_of(tenant: u32, cap: CapKey) -> std::ops::RangeInclusive<AccountId> {
        AccountId { tenant, cap, ordinal: 0 }..=AccountId { tenant, cap, ordinal: u32::MAX }
    }
}

impl Look for ShardState {
    fn log_time(&self) -> Timestamp {
        self.log_time
    }

    fn fence(&self) -> Revision {
        self.fence
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn level(&self) -> Level {
        self.level
    }

    fn profile(&self, id: &ProfileId) -> Option<&Profile> {
        let tenant = *self.numbers.get(&id.tenant)?;
        let hash = hash_of(&id.tenant, &id.customer.0);
        let entry = self.chunks[chunk_of(hash)].table.find(hash, |entry| entry.is(tenant, &id.customer.0))?;
        Some(&entry.profile)
    }

    fn account(&self, id: AccountId) -> Option<&EscrowAccount> {
        self.escrow.accounts.get(&id)
    }

    fn current_account(&self, tenant: u32, cap: CapKey, now: Timestamp) -> Option<(AccountId, &EscrowAccount)> {
        let of_cap = self.escrow.accounts.range(Escrow::range_of(tenant, cap));
        of_cap.rev().find(|(_, account)| account.span().contains(now)).map(|(id, account)| (*id, account))
    }

    fn closed_below(&self, tenant: u32, cap: CapKey) -> u32 {
        self.escrow.closed_below.get(&(tenant, cap)).copied().unwrap_or(0)
    }

    fn symbols(&self, tenant: &TenantId) -> Option<&Arc<Symbols>> {
        Some(&self.tenants[*self.numbers.get(tenant)? as usize].symbols)
    }

    fn keyed_bytes(&self) -> u64 {
        self.keyed_bytes
    }

    fn due(&self, now: Timestamp) -> Due {
        let mut profiles = Vec::new();
        for chunk in &self.chunks {
            for ((at, hash), _) in chunk.due.range(..=(now, u64::MAX)) {
                let lapsing = chunk
                    .table
                    .iter_hash(*hash)
                    .filter(|entry| entry.profile.due() == Some(*at) && entry.hash(&self.tenants) == *hash);
                let ids = lapsing.map(|entry| ProfileId {
                    tenant: self.tenants[entry.tenant as usize].id.clone(),
                    customer: CustomerId::new(&entry.customer),
                });
                profiles.extend(ids);
            }
        }
        profiles.sort_unstable();
        let last = AccountId { tenant: u32::MAX, cap: CapKey(u32::MAX), ordinal: u32::MAX };
        let accounts = self.escrow.due.range(..=(now, last)).map(|((_, id), ())| *id).collect();
        Due { profiles, accounts }
    }
}

impl Cells for ShardState {
    fn advance(&mut self, to: Timestamp) {
        self.log_time = self.log_time.max(to);
    }

    fn raise_fence(&mut self, to: Revision) {
        self.fence = self.fence.max(to);
    }

    fn raise_level(&mut self, to: Level) {
        self.level = self.level.max(to);
    }

    fn put_profile(&mut self, id: &ProfileId, profile: Profile) {
        if profile.is_empty() && !self.numbers.contains_key(&id.tenant) {
            return;
        }
        let tenant = self.number_of(&id.tenant);
        self.put_entry(tenant, &id.customer.0, profile);
    }

    fn put_account(&mut self, id: AccountId, account: EscrowAccount) {
        Arc::make_mut(&mut self.escrow).put(id, account);
    }

    fn forget_account(&mut self, id: AccountId) {
        Arc::make_mut(&mut self.escrow).forget(id);
    }

    fn intern(&mut self, tenant: &TenantId, names: &[Arc<str>]) {
        let number = self.number_of(tenant);
        let symbols = Arc::make_mut(&mut self.tenants[number as usize].symbols);
        for name in names {
            symbols.intern(name);
        }
    }

    fn observe(&mut self, tenant: &TenantId, seen: &Observation) {
        let number = self.number_of(tenant);
        Arc::make_mut(&mut self.tenants[number as usize].evidence).observe(seen);
    }
}
