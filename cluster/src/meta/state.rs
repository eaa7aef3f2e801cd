//! What the meta group replicates: catalogue and ledger, a pure state machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::{Account, AccountState, Ledger, Terms};
use proffer_engine::budget::periods::terms_of;
use proffer_engine::catalog::{self, CapDefinition, Catalog, CommandV1, TenantCatalog, Touched};
use proffer_engine::keys::{CapKey, OfferKey, Revision, ShardId, TenantId};
use proffer_engine::model::Status;
use proffer_engine::model::offer::CapScope;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Position};
use proffer_engine::time::{Span, Timestamp};

use crate::group::Group;
use crate::meta::command::{Change, Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::job::is_exclusion;
use crate::meta::roster::{Remnant, Roster};

/// Catalogue and ledger. Two states that applied the same entries encode to the same bytes.
#[derive(Clone, Debug, Default)]
pub struct MetaState {
    founding: Option<Founding>,
    log_time: Timestamp,
    /// Index of the last entry that changed the catalogue.
    revision: Revision,
    /// Revision of the last emergency exclusion, or change of a key.
    fence: Revision,
    catalog: Catalog,
    ledger: Ledger,
    /// Shared with who looks at it; each change makes another.
    roster: Arc<Roster>,
    /// Tenants by number, in the order they were made.
    numbers: BTreeMap<TenantId, u32>,
    /// Global caps whose accounts are kept, by offer. Derived from the catalogue, kept to see which are gone.
    global: BTreeMap<(u32, OfferKey), Vec<CapKey>>,
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

/// The outcome of a change to the roster that has nothing more to say.
fn told_or_barred(done: Result<(), String>) -> MetaOutcome {
    match done {
        Ok(()) => MetaOutcome::Told(Vec::new()),
        Err(reason) => MetaOutcome::Barred(reason),
    }
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

    /// Index of the last entry that changed the catalogue, or began a group anew.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Revision of the last emergency exclusion, change of a key, or group begun anew: no node decides under an older one (docs/adr/0013). 0 if there was none.
    pub fn fence(&self) -> Revision {
        self.fence
    }

    /// What was authored.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The accounts of global caps.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Who is where.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
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
            MetaOp::Settle { shard, reports } => MetaOutcome::Told(self.settle_all(0, *shard, reports)),
            MetaOp::SettleOf { generation, shard, reports } => {
                MetaOutcome::Told(self.settle_all(*generation, *shard, reports))
            }
            MetaOp::Recover(recover) => {
                let (now, revision) = (self.log_time, Revision(position.index));
                let done = self.arrange(|roster| roster.recover(recover, now, revision));
                if let (Ok(()), Group::Shard(shard)) = (&done, recover.group) {
                    self.ledger.begin_generation(shard, now);
                    (self.revision, self.fence) = (revision, revision);
                }
                told_or_barred(done)
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
            MetaOp::Enroll(info) => {
                let (shards, index) = (self.shards(), position.index);
                match self.arrange(|roster| roster.enroll(info, shards, index)) {
                    Ok((node, replica)) => MetaOutcome::Enrolled { node, replica },
                    Err(reason) => MetaOutcome::Barred(reason),
                }
            }
            MetaOp::Replace { disk, given_up } => {
                match self.arrange(|roster| roster.replace(*disk, given_up, position.index)) {
                    Ok((node, replica)) => MetaOutcome::Enrolled { node, replica },
                    Err(reason) => MetaOutcome::Barred(reason),
                }
            }
            MetaOp::Able { disk, level } => told_or_barred(self.arrange(|roster| roster.enable(*disk, *level))),
            MetaOp::Level(level) => told_or_barred(self.arrange(|roster| roster.raise(*level))),
            MetaOp::Retarget { group, voters, learners, leader, pinned } => told_or_barred(
                self.arrange(|roster| roster.retarget(*group, voters, learners, (*leader, *pinned), position.index)),
            ),
            MetaOp::Configured(report) => told_or_barred(self.arrange(|roster| roster.configure(report))),
            MetaOp::SetStanding { node, standing } => {
                told_or_barred(self.arrange(|roster| roster.set_standing(*node, *standing)))
            }
            MetaOp::Forget { node } => told_or_barred(self.arrange(|roster| roster.forget(*node))),
        }
    }

    /// Changes the roster wholly or not at all. One that is the same afterwards stays the very same.
    fn arrange<T>(&mut self, change: impl FnOnce(&mut Roster) -> Result<T, String>) -> Result<T, String> {
        let mut roster = Roster::clone(&self.roster);
        let done = change(&mut roster)?;
        if roster != *self.roster {
            self.roster = Arc::new(roster);
        }
        Ok(done)
    }

    /// One node is all that is left of the cluster: every group begins anew there, this one too, whose log ends at `last`. What the
    /// ledger granted and does not know to have come back is spent.
    ///
    /// # Errors
    /// In words, if something does not lie there: nothing is changed.
    pub(crate) fn begin_alone(&mut self, remnant: &Remnant, now: Timestamp, last: Position) -> Result<(), String> {
        let (at, revision) = (self.log_time.max(now), Revision(last.index));
        self.arrange(|roster| roster.begin_alone(remnant, at, revision))?;
        self.log_time = at;
        for shard in (0..self.shards()).map(ShardId) {
            self.ledger.begin_generation(shard, at);
        }
        (self.revision, self.fence) = (revision, revision);
        Ok(())
    }

    /// What `shard` is to be told of all accounts: for a shard that says it knows less.
    pub fn message(&self, account: AccountId, shard: ShardId) -> Option<EscrowMessage> {
        self.ledger.message(account, shard, self.log_time)
    }

    /// The state that these parts were of; what is derived is derived again.
    pub(super) fn restored(
        founding: Option<Founding>,
        log_time: Timestamp,
        (revision, fence): (Revision, Revision),
        numbers: BTreeMap<TenantId, u32>,
        ledger: Ledger,
        roster: Roster,
        catalog: Catalog,
    ) -> Self {
        let mut global = BTreeMap::new();
        for (tenant, number) in &numbers {
            let Some(catalog) = catalog.tenant(tenant) else { continue };
            for offer in catalog.offers().iter() {
                let caps: Vec<CapKey> = global_caps(catalog, offer.key).map(|cap| cap.cap).collect();
                if !caps.is_empty() {
                    global.insert((*number, offer.key), caps);
                }
            }
        }
        MetaState { founding, log_time, revision, fence, catalog, ledger, roster: Arc::new(roster), numbers, global }
    }

    fn change(&mut self, revision: Revision, command: &catalog::Command) -> MetaOutcome {
        let changed = match self.catalog.apply(revision, command) {
            Ok(changed) => changed,
            Err(refusal) => return MetaOutcome::Refused(refusal),
        };
        self.revision = revision;
        if is_exclusion(command) {
            self.fence = revision;
        }
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

    /// Gives an offer's accounts the limits and prices in force, and closes those whose cap is gone.
    fn follow_caps(
        &mut self,
        tenant: &TenantId,
        number: u32,
        offer: OfferKey,
        told: &mut Vec<(ShardId, EscrowMessage)>,
        over: &mut Vec<AccountId>,
    ) {
        let now = self.log_time;
        let terms = |catalog| global_caps(catalog, offer).map(|cap| (cap.cap, terms_of(cap, Span::ALWAYS))).collect();
        let caps: Vec<(CapKey, Terms)> = self.catalog.tenant(tenant).map_or(Vec::new(), terms);
        let before = self.global.remove(&(number, offer)).unwrap_or_default();
        for gone in before.iter().filter(|cap| !caps.iter().any(|(kept, ..)| kept == *cap)) {
            for id in self.open_accounts(number, *gone) {
                self.ledger.close(id, now).expect("listed above");
                self.tell_holders(id, told);
            }
        }
        let shards = self.shards();
        for (cap, terms) in &caps {
            for id in self.open_accounts(number, *cap) {
                let in_force = |held: &Account| (held.limit(), held.unit(), held.is_soft());
                let Some(old) = self.ledger.account(id).map(in_force) else { continue };
                if old == (terms.limit, terms.unit, terms.soft) {
                    continue;
                }
                let (_, old_unit, was_soft) = old;
                self.ledger.set_terms(id, *terms, shards).expect("listed above");
                let is_over = self.ledger.account(id).is_some_and(|account| account.over_by() > 0);
                if is_over {
                    over.push(id);
                } else {
                    self.feed(id, told);
                }
                // After a new price, each holder's rest may no longer pay for one action; a soft cap's limit is seen to by each.
                if is_over || old_unit != terms.unit || was_soft || terms.soft {
                    self.tell_holders(id, told);
                }
            }
        }
        if !caps.is_empty() {
            self.global.insert((number, offer), caps.iter().map(|(cap, ..)| *cap).collect());
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
            if self.ledger.open(*id, *terms, shards).is_err() {
                continue;
            }
            let for_all = !terms.soft && terms.limit / terms.unit.max(1) >= 4 * u64::from(shards);
            for shard in (0..shards).map(ShardId) {
                let message = if for_all && !self.roster.is_unborn(Group::Shard(shard)) {
                    self.ledger.grant(*id, shard, 0, self.active_shards(), self.log_time.max(terms.span.from)).ok()
                } else {
                    self.message(*id, shard)
                };
                told.extend(message.map(|message| (shard, message)));
            }
            self.forget_closed_before(*id);
        }
        told
    }

    /// Books reports of one generation of a shard; those of another say nothing of what is.
    fn settle_all(
        &mut self,
        generation: u64,
        shard: ShardId,
        reports: &[EscrowReport],
    ) -> Vec<(ShardId, EscrowMessage)> {
        let mut told = Vec::new();
        if generation == self.roster.generation(Group::Shard(shard)) {
            for report in reports {
                self.settle(shard, report, &mut told);
            }
        }
        told
    }

    fn settle(&mut self, shard: ShardId, report: &EscrowReport, told: &mut Vec<(ShardId, EscrowMessage)>) {
        let (id, now, active) = (report.account, self.log_time, self.active_shards());
        let is_closed = |state: &Self| state.ledger.account(id).is_some_and(|of| of.state() == AccountState::Closed);
        let was_closed = is_closed(self);
        let is_used_up = |state: &Self| state.ledger.account(id).is_some_and(|of| of.is_soft() && of.is_used_up());
        let was_used_up = is_used_up(self);
        if self.ledger.see(shard, *report, now).is_err() {
            return;
        }
        if is_closed(self) && !was_closed {
            // The last unit is settled: every shard may forget the account.
            self.tell_holders(id, told);
            return;
        }
        if is_used_up(self) != was_used_up {
            // A soft cap: it is for every shard to stop, or to go on.
            self.tell_holders(id, told);
            return;
        }
        if report.wish > 0 {
            // A refusal leaves the answer below: the totals as they are.
            let _ = self.ledger.grant(id, shard, report.granted_seen, active, now);
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
        let (now, active) = (self.log_time, self.active_shards());
        let starving: Vec<ShardId> = self.ledger.starving(id, now).collect();
        for hungry in starving {
            let Some(account) = self.ledger.account(id) else { return };
            if account.grant_size(active) == 0 {
                return;
            }
            let seen =
                account.reports().find(|(shard, _)| *shard == hungry).map_or(0, |(_, report)| report.granted_seen);
            let before = self.message(id, hungry).map(|message| message.granted);
            if let Ok(message) = self.ledger.grant(id, hungry, seen, active, now)
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

    /// How many shards share a pool: one that was begun anew takes nothing before it is led again.
    fn active_shards(&self) -> u64 {
        let is_active = |shard: &u16| !self.roster.is_unborn(Group::Shard(ShardId(*shard)));
        (0..self.shards()).filter(is_active).count() as u64
    }

    fn shards(&self) -> u16 {
        self.founding.map_or(0, |founding| founding.shards)
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::catalog::{Actor, EntityKind, Op};
    use proffer_engine::profile::command::{Leader, Recall};
    use proffer_engine::value::Value;

    use super::*;

    const LEADER: Leader = Leader { term: 1, replica: 1 };
    const ACCOUNT: AccountId = AccountId { tenant: 0, cap: CapKey(0), ordinal: 0 };

    struct Group {
        state: MetaState,
        index: u64,
    }

    impl Group {
        /// A cluster of four shards with one offer whose cap has `limit`.
        fn founded(limit: u64) -> Self {
            let mut group = Group { state: MetaState::new(), index: 0 };
            group.apply(MetaOp::Found(Founding { secret: [1; 16], shards: 4 }));
            group.change(Op::CreateTenant);
            let body = Value::map([("name", Value::text("one")), ("caps", caps(limit))]);
            group.change(Op::Create { kind: EntityKind::Offer, id: "one".to_owned(), body });
            group.apply(MetaOp::Open(vec![(
                ACCOUNT,
                Terms { limit, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false },
            )]));
            group
        }

        fn apply(&mut self, op: MetaOp) -> MetaOutcome {
            self.index += 1;
            let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(5), leader: LEADER, op });
            self.state.apply(Position { leader: LEADER, index: self.index }, &command)
        }

        fn change(&mut self, op: Op) -> Change {
            let actor = Actor { name: "test".to_owned(), admin: true };
            let command =
                catalog::Command::V1(CommandV1 { tenant: TenantId::new("acme"), actor, at: Timestamp(5), op });
            let MetaOutcome::Changed(change) = self.apply(MetaOp::Change(command)) else { panic!("refused") };
            *change
        }

        fn relimit(&mut self, limit: u64) -> Change {
            let patch = Value::map([("caps", caps(limit))]);
            self.change(Op::Update { kind: EntityKind::Offer, id: "one".to_owned(), patch, expected: None })
        }

        /// A shard that has received and used everything granted, and wishes for more.
        fn ask(&mut self, shard: u16) -> Vec<(ShardId, EscrowMessage)> {
            let granted = self.state.message(ACCOUNT, ShardId(shard)).unwrap().granted;
            let report = EscrowReport {
                account: ACCOUNT,
                granted_seen: granted,
                returned: 0,
                free: 0,
                reserved: 0,
                spent: granted,
                wish: 1,
                minted: 0,
                version: 0,
                soft: None,
                as_of: Timestamp(0),
            };
            let op = MetaOp::Settle { shard: ShardId(shard), reports: vec![report] };
            let MetaOutcome::Told(told) = self.apply(op) else { panic!("nothing was told") };
            told
        }

        fn pool(&self) -> i128 {
            self.state.ledger().account(ACCOUNT).unwrap().pool()
        }
    }

    fn caps(limit: u64) -> Value {
        Value::list([Value::map([("scope", Value::text("global")), ("limit", Value::Number(limit as f64))])])
    }

    #[test]
    fn a_large_pool_is_shared_out_when_it_opens_and_a_small_one_to_who_asks() {
        let large = Group::founded(1_000);
        assert!((0..4).all(|shard| large.state.message(ACCOUNT, ShardId(shard)).unwrap().granted > 0));
        let mut small = Group::founded(2);
        assert_eq!(small.pool(), 2);
        assert_eq!(small.ask(3)[0].1.granted, 1);
        assert_eq!(small.ask(1)[0].1.granted, 1);
        assert_eq!(small.ask(0)[0].1.granted, 0, "the pool is empty");
        assert_eq!(small.pool(), 0);
    }

    #[test]
    fn raising_a_limit_feeds_who_starves_and_lowering_it_recalls() {
        let mut group = Group::founded(1);
        group.ask(0);
        group.ask(1);
        let fed = group.relimit(3);
        assert!(fed.told.iter().any(|(shard, message)| *shard == ShardId(1) && message.granted == 1), "{fed:?}");
        let lowered = group.relimit(0);
        assert_eq!(lowered.over, [ACCOUNT]);
        assert!(lowered.told.iter().all(|(_, message)| message.recall == Recall::All));
        assert_eq!(group.pool(), -2);
        assert_eq!(group.ask(2)[0].1.granted, 0, "nothing is granted from a pool below zero");
    }

    #[test]
    fn the_fence_is_the_revision_of_the_last_exclusion_and_of_nothing_else() {
        let mut group = Group::founded(7);
        assert_eq!(group.state.fence(), Revision(0));
        let patch = |excluded| Value::map([("emergencyExcluded", Value::Bool(excluded))]);
        let update = |patch| Op::Update { kind: EntityKind::Offer, id: "one".to_owned(), patch, expected: None };
        group.change(update(patch(true)));
        let fence = group.state.fence();
        assert_eq!(fence, Revision(group.index));
        group.change(update(patch(false)));
        group.relimit(3);
        assert_eq!(group.state.fence(), fence, "what is let in again needs no fence");
        let restored = MetaState::decode_chunks(group.state.encode_chunks()).unwrap();
        assert_eq!(restored.fence(), fence);
    }

    #[test]
    fn an_archived_offers_accounts_close() {
        let mut group = Group::founded(1_000);
        let patch = Value::map([("status", Value::text("archived"))]);
        let change = group.change(Op::Update { kind: EntityKind::Offer, id: "one".to_owned(), patch, expected: None });
        assert_eq!(change.told.len(), 4);
        assert!(change.told.iter().all(|(_, message)| message.recall == Recall::All));
    }

    #[test]
    fn a_stored_state_is_the_same_state_and_goes_on_alike() {
        let mut group = Group::founded(7);
        group.ask(2);
        let pieces: Vec<_> = group.state.encode_chunks().collect();
        let mut restored =
            Group { state: MetaState::decode_chunks(pieces.iter().cloned()).unwrap(), index: group.index };
        assert_eq!(restored.state.encode_chunks().collect::<Vec<_>>(), pieces);
        assert_eq!(group.relimit(1), restored.relimit(1), "derived lists are derived alike");
        assert!(MetaState::decode_chunks(pieces[1..].iter().cloned()).is_err());
    }

    #[test]
    fn another_leaders_entry_changes_nothing() {
        let mut group = Group::founded(7);
        let before: Vec<_> = group.state.encode_chunks().collect();
        let stranger = Leader { term: 2, replica: 1 };
        let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(9), leader: stranger, op: MetaOp::EndPeriods });
        let outcome = group.state.apply(Position { leader: LEADER, index: 99 }, &command);
        assert_eq!(outcome, MetaOutcome::WrongLeader);
        assert_eq!(group.state.encode_chunks().collect::<Vec<_>>(), before);
    }
}
