//! What can happen next, and what it does.

use std::sync::Arc;

use proffer_cluster::group::Group;
use proffer_cluster::identity::FOUNDER;
use proffer_cluster::meta::command::MetaOp;
use proffer_cluster::meta::roster::Recover;
use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::codec::encode;
use proffer_engine::keys::{ChannelKey, CreativeKey, CustomerId, OfferKey, PlacementKey, Revision, ShardId, TenantId};
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::{
    CapTake, CountEvent, DecisionId, EscrowMessage, Leader, Position, Release, ShardOp, Take, TakeAccount,
    TakenProposition,
};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;

use super::state::{ACCOUNT, Mail, Shard, State};
use super::{Escrow, Rule};

const FAR: Timestamp = Timestamp(1 << 50);

/// Something that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Whoever has something of the shard tells the ledger how it stands, and whether it wants more.
    Report {
        /// Which shard.
        shard: ShardId,
        /// It wants more.
        wish: bool,
    },
    /// The ledger tells the shard its totals again.
    Tell(ShardId),
    /// Something that was sent arrives, for the first time or again.
    Deliver(Mail),
    /// Something that was sent does not arrive any more.
    Drop(Mail),
    /// As before, and the entry that it becomes is lost, after what it would have done was told: only with a rule left out.
    DeliverAndLose(Mail),
    /// A decision uses a unit at once.
    Sell(ShardId),
    /// A decision holds a unit.
    Reserve(ShardId),
    /// What a decision holds is let go.
    LetGo(ShardId, u64),
    /// A lost majority comes back in part, and decides.
    SellLost(usize),
    /// Another limit is set.
    ChangeLimit(u64),
    /// Another node leads the shard. With the rules kept it knows all that the one before knew.
    ChangeLeader(ShardId),
    /// The shard's majority is gone for good.
    Lose(ShardId),
    /// The ledger books that a lost shard begins anew.
    Book(usize),
    /// A survivor that knows so many of the entries goes on.
    Begin {
        /// Which loss.
        loss: usize,
        /// Entries.
        entries: usize,
    },
}

impl Escrow {
    fn keeps(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    fn is_logged(&self) -> bool {
        self.bounds.losses > 0 || !self.keeps(Rule::EscrowIsReplicated)
    }

    pub(super) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (shard, of) in state.alive() {
            if state.mail.len() < self.bounds.mail {
                steps.push(Step::Report { shard, wish: true });
                steps.push(Step::Report { shard, wish: false });
                steps.push(Step::Tell(shard));
            }
            if state.decisions < self.bounds.takes && of.account().is_some_and(|account| account.free() > 0) {
                steps.push(Step::Sell(shard));
                if self.bounds.reservations {
                    steps.push(Step::Reserve(shard));
                }
            }
            if !self.keeps(Rule::EscrowIsReplicated) {
                steps.push(Step::ChangeLeader(shard));
            }
            if (state.lost.len() as u64) < self.bounds.losses {
                steps.push(Step::Lose(shard));
            }
        }
        steps.extend(state.held.iter().map(|(shard, decision)| Step::LetGo(*shard, *decision)));
        steps.extend(self.bounds.limits.get(state.limits).map(|limit| Step::ChangeLimit(*limit)));
        for mail in state.mail.values() {
            steps.push(Step::Deliver(*mail));
            steps.push(Step::Drop(*mail));
            let rule = match mail {
                Mail::ToLedger(..) => Rule::LedgerCommitsFirst,
                Mail::ToShard(..) => Rule::ShardCommitsFirst,
            };
            if !self.keeps(rule) {
                steps.push(Step::DeliverAndLose(*mail));
            }
        }
        for (loss, (shard, of)) in state.lost.iter().enumerate() {
            if state.decisions < self.bounds.takes && of.account().is_some_and(|account| account.free() > 0) {
                steps.push(Step::SellLost(loss));
            }
            if !state.is_booked[loss] {
                steps.push(Step::Book(loss));
            }
            let may_begin = state.is_booked[loss] || !self.keeps(Rule::BookedBeforeBegun);
            if may_begin && state.shards[usize::from(shard.0)].is_none() && loss + 1 == state.lost.len() {
                steps.extend((0..=of.entries()).map(|entries| Step::Begin { loss, entries }));
            }
        }
    }

    pub(super) fn take_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Report { shard, wish } => self.report(state, shard, wish),
            Step::Tell(shard) => {
                let message = state.meta.message(ACCOUNT, shard).expect("the account is open");
                // Who tells amounts has nothing to tell again.
                if self.keeps(Rule::GrantsAreTotals) {
                    state.send(Mail::ToShard(shard, state.generation(shard), message));
                }
            }
            Step::Deliver(mail) => self.deliver(state, mail),
            Step::Drop(mail) => state.lose(&mail),
            Step::DeliverAndLose(mail) => {
                let mut led = state.clone();
                self.deliver(&mut led, mail);
                if let Mail::ToShard(shard, ..) = mail {
                    self.report(&mut led, shard, false);
                }
                state.send_all(led.mail.into_values());
            }
            Step::Sell(shard) => drop(self.decide(state, shard, CountEvent::Decision)),
            Step::Reserve(shard) => drop(self.decide(state, shard, CountEvent::Impression)),
            Step::LetGo(shard, decision) => self.let_go(state, shard, decision),
            Step::SellLost(loss) => {
                let take = take(state.decisions, CountEvent::Decision);
                state.decisions += 1;
                let now = state.now;
                let of = Arc::make_mut(&mut state.lost[loss].1);
                if let Outcome::Took(_) = of.commit(now, take, true) {
                    state.taken += 1;
                }
            }
            Step::ChangeLimit(limit) => drop(state.change_limit(limit)),
            Step::ChangeLeader(shard) => {
                state.shard(shard).expect("it has a majority").forget();
            }
            Step::Lose(shard) => {
                let lost = state.shards[usize::from(shard.0)].take().expect("it has a majority");
                state.lost.push((shard, lost));
                state.is_booked.push(false);
            }
            Step::Book(loss) => self.book(state, loss),
            Step::Begin { loss, entries } => self.begin(state, loss, entries),
        }
    }

    pub(super) fn report(&self, state: &mut State, shard: ShardId, wish: bool) {
        let mut mail = Vec::new();
        for of in state.holders(shard) {
            let Some(report) = of.state().reports().next() else { continue };
            let keeps_totals = self.keeps(Rule::ReturnsAreTotals);
            let returned = if keeps_totals { report.returned } else { Arc::make_mut(of).tell_more(report.returned) };
            let report = EscrowReport { returned, wish: u64::from(wish), ..report };
            mail.push(Mail::ToLedger(shard, of.state().generation(), report));
        }
        state.send_all(mail);
    }

    fn deliver(&self, state: &mut State, mail: Mail) {
        match mail {
            Mail::ToLedger(shard, generation, report) => {
                let generation =
                    if self.keeps(Rule::ReportsNameTheirGeneration) { generation } else { state.generation(shard) };
                let returned = if self.keeps(Rule::ReturnsAreTotals) {
                    report.returned
                } else {
                    state.given(shard).returned + report.returned
                };
                let report = EscrowReport { returned, ..report };
                let before: Vec<u64> = self.all_shards().map(|shard| state.given(shard).granted).collect();
                let told = state.commit(MetaOp::settle(generation, shard, vec![report]));
                // Totals can be told again at any time: by `Tell`. Amounts, and what is not kept, are told now or never.
                if !self.keeps(Rule::GrantsAreTotals) || !self.keeps(Rule::LedgerCommitsFirst) {
                    state.send_all(told.into_iter().map(|mail| self.as_told(mail, &before)).collect::<Vec<_>>());
                }
            }
            Mail::ToShard(shard, generation, message) => {
                let (is_logged, now) = (self.is_logged(), state.now);
                for of in state.holders(shard) {
                    let granted = if self.keeps(Rule::GrantsAreTotals) {
                        message.granted
                    } else {
                        of.account().map_or(0, |account| account.granted_seen()) + message.granted
                    };
                    let message = EscrowMessage { granted, ..message };
                    let named =
                        if self.keeps(Rule::TotalsNameTheirGeneration) { generation } else { of.state().generation() };
                    Arc::make_mut(of).commit(now, ShardOp::escrow(named, vec![message]), is_logged);
                }
            }
        }
    }

    /// What the ledger tells, if it does not tell totals: how much more it granted than `before`.
    fn as_told(&self, mail: Mail, before: &[u64]) -> Mail {
        match mail {
            Mail::ToShard(shard, generation, message) if !self.keeps(Rule::GrantsAreTotals) => {
                let granted = message.granted - before[usize::from(shard.0)];
                Mail::ToShard(shard, generation, EscrowMessage { granted, ..message })
            }
            Mail::ToShard(..) | Mail::ToLedger(..) => mail,
        }
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.bounds.shards).map(ShardId)
    }

    /// Whether it was taken.
    pub(super) fn decide(&self, state: &mut State, shard: ShardId, count_on: CountEvent) -> bool {
        let is_logged = self.is_logged();
        let (now, take) = (state.now, take(state.decisions, count_on));
        let Some(of) = state.shard(shard) else { return false };
        let Outcome::Took(_) = of.commit(now, take, is_logged) else { return false };
        if count_on != CountEvent::Decision {
            state.held.push((shard, state.decisions));
        }
        state.decisions += 1;
        state.taken += 1;
        true
    }

    /// What is let go is acknowledged, and counts only if the shard knows of it.
    fn let_go(&self, state: &mut State, shard: ShardId, decision: u64) {
        let is_logged = self.is_logged();
        state.held.retain(|held| *held != (shard, decision));
        let now = state.now;
        let Some(of) = state.shard(shard) else { return };
        let (tenant, customer) = (TenantId::new("acme"), CustomerId::new(format!("c{decision}")));
        let release = Release { tenant, customer, decision: DecisionId(decision), ranks: Vec::new() };
        if of.commit(now, ShardOp::Release(release), is_logged) == (Outcome::Released { units: 1 }) {
            state.taken -= 1;
        }
    }

    fn book(&self, state: &mut State, loss: usize) {
        let (shard, of) = &state.lost[loss];
        let (group, generation) = (Group::Shard(*shard), state.generation(*shard) + 1);
        let survivor = state.meta.roster().group(group).expect("it was founded").now.voters.first().copied();
        let survivor = survivor.expect("it has a voter");
        let last = Position { leader: Leader { term: 1, replica: 1 }, index: of.entries() as u64 };
        let told = state.commit(MetaOp::Recover(Recover { group, generation, survivor, last, by: "model".to_owned() }));
        assert!(told.is_empty() && state.meta.roster().replica_on(group, FOUNDER).is_some());
        state.is_booked[loss] = true;
    }

    fn begin(&self, state: &mut State, loss: usize, entries: usize) {
        let (shard, of) = &state.lost[loss];
        let (shard, mut survivor) = (*shard, of.remembered(entries));
        let generation = state.generation(shard) + u64::from(!state.is_booked[loss]);
        if self.keeps(Rule::LostUnitsAreSpent) {
            survivor.begin_generation(generation, (state.meta.ledger(), shard), Revision(1), Timestamp(9));
        } else {
            // The generation is in the state: one that goes on as it was is told so by an account that was given nothing.
            survivor = as_it_was(survivor, generation);
        }
        // It is stored, and read, before it is gone on with.
        let stored = ShardState::decode_chunks(survivor.encode_chunks()).expect("what is stored is read");
        state.shards[usize::from(shard.0)] = Some(Arc::new(Shard::beginning(stored)));
    }

    /// What is sent from here on arrives, and is said again: shards that were lost go on, with all that a survivor may know.
    /// A shard that wishes for more says so as long as it does.
    pub(super) fn heal(&self, state: &mut State, wishing: Option<ShardId>) {
        for loss in 0..state.lost.len() {
            if !state.is_booked[loss] {
                self.book(state, loss);
            }
        }
        for loss in 0..state.lost.len() {
            let (shard, entries) = (state.lost[loss].0, state.lost[loss].1.entries());
            let is_last = state.lost[loss + 1..].iter().all(|(of, _)| *of != shard);
            if is_last && state.shards[usize::from(shard.0)].is_none() {
                self.begin(state, loss, entries);
            }
        }
        state.take_mail();
        for _ in 0..ROUNDS {
            for shard in self.all_shards() {
                self.take_step(state, Step::Tell(shard));
                self.report(state, shard, wishing == Some(shard));
            }
            self.deliver_all(state);
            // What was used just now no longer keeps units from being recalled.
            state.now = state.now.plus_ms(2_000);
        }
    }

    pub(super) fn deliver_all(&self, state: &mut State) {
        loop {
            let mail = state.take_mail();
            if mail.is_empty() {
                return;
            }
            for mail in mail {
                self.deliver(state, mail);
            }
        }
    }
}

/// Rounds of reconciliation, 2 s apart, after which nothing is to be in flight: while a wish is remembered (5 s) each may recall something, which
/// is heard of a round later.
const ROUNDS: usize = 5;

/// A state that says that it is of a generation, and nothing else of what a new one is to know.
fn as_it_was(state: ShardState, generation: u64) -> ShardState {
    let mut pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    if state.generation() > 0 {
        pieces.remove(1);
    }
    pieces.insert(1, encode(&(0_u32, 9_u32, generation)));
    ShardState::decode_chunks(pieces).expect("a shard may be of any generation")
}

/// What a decision takes: one unit, of which nobody but a customer of its own knows.
fn take(decision: u64, count_on: CountEvent) -> ShardOp {
    let account = TakeAccount::Global { account: ACCOUNT, amount: 1 };
    let taken = TakenProposition {
        offer: OfferKey(7),
        creative: CreativeKey::NONE,
        channel: ChannelKey::NONE,
        placement: PlacementKey::NONE,
        category: None,
        score: 1.0,
        mandatory: false,
        fallback: false,
        evidence: false,
        implied_impression: false,
        takes: vec![CapTake { cap: ACCOUNT.cap, account, count_on, expires_at: FAR }],
    };
    ShardOp::Take(Box::new(Take {
        tenant: TenantId::new("acme"),
        customer: CustomerId::new(format!("c{decision}")),
        decision: DecisionId(decision),
        idempotency: None,
        supersedes: None,
        propositions: vec![taken],
        ghosts: Vec::new(),
        mandatory: None,
        policies: Vec::new(),
        counts: Vec::new(),
        answerable_until: FAR,
        answer: None,
    }))
}
