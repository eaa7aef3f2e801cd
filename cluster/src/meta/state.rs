//! What the meta group replicates: catalogue and ledger, a pure state machine.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use proffer_engine::budget::ledger::{AccountState, Ledger, Terms};
use proffer_engine::catalog::{self, CapDefinition, Catalog, CommandV1, TenantCatalog, Touched};
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::keys::{CapKey, OfferKey, Revision, ShardId, TenantId};
use proffer_engine::model::Status;
use proffer_engine::model::offer::CapScope;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Position};
use proffer_engine::time::Timestamp;

use crate::meta::command::{Change, Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};

/// Catalogue and ledger. Two states that applied the same entries encode to the same bytes.
#[derive(Clone, Debug, Default)]
pub struct MetaState {
    founding: Option<Founding>,
    log_time: Timestamp,
    /// Index of the last entry that changed the catalogue.
    revision: Revision,
    catalog: Catalog,
    ledger: Ledger,
    /// Tenants by number, in the order they were made.
    numbers: BTreeMap<TenantId, u32>,
    /// Global caps whose accounts are kept, by offer. Derived from the catalogue, kept to see which are gone.
    global: BTreeMap<(u32, OfferKey), Vec<CapKey>>,
}

/// The parts of the state that are stored in one piece.
#[derive(Encode, Decode)]
enum StoredHead {
    V1 {
        founding: Option<Founding>,
        log_time: Timestamp,
        revision: Revision,
        numbers: BTreeMap<TenantId, u32>,
        ledger: Ledger,
    },
}

/// The global caps of an offer that have accounts: none once it is gone for good.
pub(crate) fn global_caps(catalog: &TenantCatalog, offer: OfferKey) -> impl Iterator<Item = &CapDefinition> {
    let alive = catalog.offers().get(offer).is_some_and(|offer| offer.body.status != Status::Archived);
    catalog.caps(offer).iter().filter(move |cap| alive && cap.scope == CapScope::Global)
}

/// The offers that a change may have given or taken caps.
pub(crate) fn touched_offers(catalog: &TenantCatalog, effect: &[Touched]) -> Vec<OfferKey> {
    let mut offers = Vec::new();
    for touched in effect {
        match touched {
            Touched::Overlay(offer) | Touched::Offer(offer) => offers.push(*offer),
            Touched::Shared => {}
            Touched::Everything => return catalog.offers().iter().map(|offer| offer.key).collect(),
        }
    }
    offers
}

impl MetaState {
    /// A cluster that was not founded yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the cluster was created with.
    pub fn founding(&self) -> Option<Founding> {
        self.founding
    }

    /// Latest `now` of any entry.
    pub fn log_time(&self) -> Timestamp {
        self.log_time
    }

    /// Index of the last entry that changed the catalogue.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What was authored.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The accounts of global caps.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A tenant's number, never reused.
    pub fn number(&self, tenant: &TenantId) -> Option<u32> {
        self.numbers.get(tenant).copied()
    }

    /// All tenants with their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = (&TenantId, u32)> {
        self.numbers.iter().map(|(tenant, number)| (tenant, *number))
    }

    /// Applies the command that stands at `position`.
    pub fn apply(&mut self, position: Position, command: &MetaCommand) -> MetaOutcome {
        let MetaCommand::V1(MetaCommandV1 { now, leader, op }) = command;
        if *leader != position.leader {
            return MetaOutcome::WrongLeader;
        }
        self.log_time = self.log_time.max(*now);
        match op {
            MetaOp::Found(founding) => {
                self.founding.get_or_insert(*founding);
                MetaOutcome::Told(Vec::new())
            }
            MetaOp::Change(command) => self.change(Revision(position.index), command),
            MetaOp::Open(accounts) => MetaOutcome::Told(self.open(accounts)),
            MetaOp::Settle { shard, reports } => {
                let mut told = Vec::new();
                for report in reports {
                    self.settle(*shard, report, &mut told);
                }
                MetaOutcome::Told(told)
            }
            MetaOp::EndPeriods => {
                let now = self.log_time;
                let ended: Vec<AccountId> = self
                    .ledger
                    .accounts()
                    .filter(|(_, account)| account.state() == AccountState::Open && account.span().until <= now)
                    .map(|(id, _)| id)
                    .collect();
                self.ledger.end_periods(now);
                let mut told = Vec::new();
                for id in ended {
                    self.tell_holders(id, &mut told);
                }
                MetaOutcome::Told(told)
            }
        }
    }

    /// What `shard` is to be told of all accounts: for a shard that says it knows less.
    pub fn message(&self, account: AccountId, shard: ShardId) -> Option<EscrowMessage> {
        self.ledger.message(account, shard, self.log_time)
    }

    /// The state in pieces, to be read in order.
    pub fn encode_chunks(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let head = StoredHead::V1 {
            founding: self.founding,
            log_time: self.log_time,
            revision: self.revision,
            numbers: self.numbers.clone(),
            ledger: self.ledger.clone(),
        };
        std::iter::once(codec::encode(&head)).chain(self.catalog.records())
    }

    /// The state that was encoded into these pieces.
    ///
    /// # Errors
    /// If they are no such pieces.
    pub fn decode_chunks(mut pieces: impl Iterator<Item = Vec<u8>>) -> Result<Self, DecodeError> {
        let head = pieces.next().unwrap_or_default();
        let StoredHead::V1 { founding, log_time, revision, numbers, ledger } = codec::decode("meta state", &head)?;
        let catalog = Catalog::from_records(pieces)?;
        let mut state = MetaState { founding, log_time, revision, catalog, ledger, numbers, global: BTreeMap::new() };
        for (tenant, number) in state.numbers.clone() {
            let Some(catalog) = state.catalog.tenant(&tenant) else { continue };
            let offers: Vec<OfferKey> = catalog.offers().iter().map(|offer| offer.key).collect();
            for offer in offers {
                let caps: Vec<CapKey> = global_caps(catalog, offer).map(|cap| cap.cap).collect();
                if !caps.is_empty() {
                    state.global.insert((number, offer), caps);
                }
            }
        }
        Ok(state)
    }

    fn change(&mut self, revision: Revision, command: &catalog::Command) -> MetaOutcome {
        let changed = match self.catalog.apply(revision, command) {
            Ok(changed) => changed,
            Err(refusal) => return MetaOutcome::Refused(refusal),
        };
        self.revision = revision;
        let catalog::Command::V1(CommandV1 { tenant, .. }) = command;
        let next = u32::try_from(self.numbers.len()).expect("fewer tenants than that");
        let number = *self.numbers.entry(tenant.clone()).or_insert(next);
        let (mut told, mut over) = (Vec::new(), Vec::new());
        for offer in self.catalog.tenant(tenant).map_or(Vec::new(), |catalog| touched_offers(catalog, &changed.effect))
        {
            self.follow_caps(tenant, number, offer, &mut told, &mut over);
        }
        MetaOutcome::Changed(Box::new(Change { changed, told, over }))
    }

    /// Gives an offer's accounts the limits in force, and closes those whose cap is gone.
    fn follow_caps(
        &mut self,
        tenant: &TenantId,
        number: u32,
        offer: OfferKey,
        told: &mut Vec<(ShardId, EscrowMessage)>,
        over: &mut Vec<AccountId>,
    ) {
        let now = self.log_time;
        let limits = |catalog| global_caps(catalog, offer).map(|cap| (cap.cap, cap.limit)).collect();
        let caps: Vec<(CapKey, u64)> = self.catalog.tenant(tenant).map_or(Vec::new(), limits);
        let before = self.global.remove(&(number, offer)).unwrap_or_default();
        for gone in before.iter().filter(|cap| !caps.iter().any(|(kept, _)| kept == *cap)) {
            for id in self.open_accounts(number, *gone) {
                self.ledger.close(id, now).expect("listed above");
                self.tell_holders(id, told);
            }
        }
        for (cap, limit) in &caps {
            for id in self.open_accounts(number, *cap) {
                if self.ledger.account(id).is_some_and(|account| account.limit() == *limit) {
                    continue;
                }
                self.ledger.set_limit(id, *limit).expect("listed above");
                if self.ledger.account(id).is_some_and(|account| account.over_by() > 0) {
                    over.push(id);
                    self.tell_holders(id, told);
                } else {
                    self.feed(id, told);
                }
            }
        }
        if !caps.is_empty() {
            self.global.insert((number, offer), caps.iter().map(|(cap, _)| *cap).collect());
        }
    }

    fn open_accounts(&self, tenant: u32, cap: CapKey) -> Vec<AccountId> {
        let accounts = self.ledger.accounts_of(tenant, cap);
        accounts.filter(|(_, account)| account.state() == AccountState::Open).map(|(id, _)| id).collect()
    }

    /// Opens accounts. A pool large enough for all gives each shard its first share; a small one is given to who asks.
    fn open(&mut self, accounts: &[(AccountId, Terms)]) -> Vec<(ShardId, EscrowMessage)> {
        let shards = self.shards();
        let mut told = Vec::new();
        for (id, terms) in accounts {
            // Opened twice by a proposer that did not know: the first holds.
            if self.ledger.open(*id, *terms).is_err() {
                continue;
            }
            let for_all = terms.limit / terms.unit.max(1) >= 4 * u64::from(shards);
            for shard in (0..shards).map(ShardId) {
                let message = if for_all {
                    self.ledger.grant(*id, shard, 0, u64::from(shards), self.log_time.max(terms.span.from)).ok()
                } else {
                    self.message(*id, shard)
                };
                told.extend(message.map(|message| (shard, message)));
            }
            self.forget_closed_before(*id);
        }
        told
    }

    fn settle(
        &mut self,
        shard: ShardId,
        report: &proffer_engine::budget::escrow::EscrowReport,
        told: &mut Vec<(ShardId, EscrowMessage)>,
    ) {
        let (id, now, shards) = (report.account, self.log_time, u64::from(self.shards()));
        if self.ledger.see(shard, *report, now).is_err() {
            return;
        }
        if report.wish > 0 {
            // A refusal leaves the answer below: the totals as they are.
            let _ = self.ledger.grant(id, shard, report.granted_seen, shards, now);
        }
        told.extend(self.message(id, shard).map(|message| (shard, message)));
        self.feed(id, told);
        // Still somebody without: the others are asked.
        for holder in self.ledger.recall_plan(id, now) {
            if holder != shard {
                told.extend(self.message(id, holder).map(|message| (holder, message)));
            }
        }
    }

    /// Grants to those who starve what the pool has.
    fn feed(&mut self, id: AccountId, told: &mut Vec<(ShardId, EscrowMessage)>) {
        let (now, shards) = (self.log_time, u64::from(self.shards()));
        let starving: Vec<ShardId> = self.ledger.starving(id, now).collect();
        for hungry in starving {
            let Some(account) = self.ledger.account(id) else { return };
            if account.grant_size(shards) == 0 {
                return;
            }
            let seen =
                account.reports().find(|(shard, _)| *shard == hungry).map_or(0, |(_, report)| report.granted_seen);
            let before = self.message(id, hungry).map(|message| message.granted);
            if let Ok(message) = self.ledger.grant(id, hungry, seen, shards, now)
                && Some(message.granted) != before
            {
                told.push((hungry, message));
            }
        }
    }

    fn tell_holders(&self, id: AccountId, told: &mut Vec<(ShardId, EscrowMessage)>) {
        told.extend((0..self.shards()).map(ShardId).filter_map(|shard| Some((shard, self.message(id, shard)?))));
    }

    /// Closed periods are forgotten when a later one of the cap is open, so that its number stays in use.
    fn forget_closed_before(&mut self, id: AccountId) {
        let closed: Vec<AccountId> = self
            .ledger
            .accounts_of(id.tenant, id.cap)
            .filter(|(old, account)| *old < id && account.state() == AccountState::Closed)
            .map(|(old, _)| old)
            .collect();
        for old in closed {
            self.ledger.forget_closed(old);
        }
    }

    fn shards(&self) -> u16 {
        self.founding.map_or(0, |founding| founding.shards)
    }
}
