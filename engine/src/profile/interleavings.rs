//! Takes, outcomes, retries, releases, expiry and grants in any order, over two shards with a ledger between, against a count
//! kept apart; and the pending view against the committed state.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::budget::ledger::{Ledger, Terms};
use crate::catalog::outcomes::IMPRESSION;
use crate::keys::*;
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, Refusal, apply};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::*;
use crate::profile::pending::{Pending, Sequence};
use crate::profile::shard::ShardState;
use crate::time::{DAY_MS, Span, Timestamp};

const SHARDS: usize = 2;
const CUSTOMERS: u8 = 3;
const PROFILE_CAP: CapKey = CapKey(5);
const PROFILE_LIMIT: u64 = 2;
const GLOBAL_CAP: CapKey = CapKey(9);
const ACCOUNT: AccountId = AccountId { tenant: 1, cap: GLOBAL_CAP, ordinal: 0 };
const LEADER: Leader = Leader { term: 3, replica: 8 };
const CLICK: OutcomeKey = OutcomeKey(1);

#[derive(Clone, Copy, Debug)]
enum Step {
    Take { shard: usize, customer: u8, global: bool, supersede: bool },
    Respond { which: usize, click: bool },
    Retry { which: usize },
    Release { which: usize },
    Wait(i64),
    Tick(usize),
    Grant(usize),
    Report(usize),
    SetLimit(u64),
    Commit(usize, usize),
    Restart(usize),
    ForeignLeader(usize),
    Delete { shard: usize, customer: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        8 => (shard.clone(), 0..CUSTOMERS, any::<bool>(), any::<bool>())
            .prop_map(|(shard, customer, global, supersede)| Step::Take { shard, customer, global, supersede }),
        6 => (0..64_usize, any::<bool>()).prop_map(|(which, click)| Step::Respond { which, click }),
        2 => (0..64_usize).prop_map(|which| Step::Retry { which }),
        2 => (0..64_usize).prop_map(|which| Step::Release { which }),
        3 => (1..500_i64).prop_map(Step::Wait),
        2 => shard.clone().prop_map(Step::Tick),
        5 => shard.clone().prop_map(Step::Grant),
        2 => shard.clone().prop_map(Step::Report),
        1 => (0..20_u64).prop_map(Step::SetLimit),
        5 => (shard.clone(), 1..4_usize).prop_map(|(shard, count)| Step::Commit(shard, count)),
        1 => shard.clone().prop_map(Step::Restart),
        1 => shard.clone().prop_map(Step::ForeignLeader),
        1 => (shard, 0..CUSTOMERS).prop_map(|(shard, customer)| Step::Delete { shard, customer }),
    ]
}

#[derive(Default)]
struct Shard {
    base: ShardState,
    pending: Pending,
    waiting: Vec<(Sequence, ShardCommand, Outcome)>,
    index: u64,
}

/// One proposition as a bystander sees it.
#[derive(Clone, Debug)]
struct Sold {
    shard: usize,
    customer: u8,
    decision: DecisionId,
    global: bool,
    expires_at: Timestamp,
    /// Neither lapsed nor released nor counted.
    held: bool,
}

struct World {
    shards: Vec<Shard>,
    ledger: Ledger,
    now: Timestamp,
    sold: Vec<Sold>,
    asked: Vec<(usize, Respond, crate::profile::apply::Responded)>,
    used_global: u64,
    used: BTreeMap<(usize, u8), u64>,
    largest_limit: u64,
    ids: u64,
}

fn profile_id(customer: u8) -> ProfileId {
    ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new(format!("c{customer}")) }
}

fn unit(global: bool, expires_at: Timestamp) -> CapTake {
    let account = if global {
        TakeAccount::Global { account: ACCOUNT, amount: 1 }
    } else {
        TakeAccount::Profile { limit: PROFILE_LIMIT, window: Window::Lifetime }
    };
    let cap = if global { GLOBAL_CAP } else { PROFILE_CAP };
    CapTake { cap, account, count_on: CountEvent::Impression, expires_at }
}

impl World {
    fn new(limit: u64) -> Self {
        let mut ledger = Ledger::default();
        ledger
            .open(ACCOUNT, Terms { limit, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false }, SHARDS as u16)
            .unwrap();
        World {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            ledger,
            now: Timestamp(1_000_000),
            sold: Vec::new(),
            asked: Vec::new(),
            used_global: 0,
            used: BTreeMap::new(),
            largest_limit: limit,
            ids: 0,
        }
    }

    fn command(&self, op: ShardOp) -> ShardCommand {
        ShardCommand::V1(ShardCommandV1 { now: self.now, leader: LEADER, revision: Revision(4), op })
    }

    fn propose(&mut self, shard: usize, op: ShardOp) -> Outcome {
        let command = self.command(op);
        let shard = &mut self.shards[shard];
        let position = Position { leader: LEADER, index: 0 };
        let (sequence, outcome) = shard.pending.apply(&shard.base, position, &command);
        if !matches!(outcome, Outcome::Refused(_)) {
            shard.waiting.push((sequence, command, outcome.clone()));
        }
        outcome
    }

    fn commit(&mut self, shard: usize, count: usize) {
        let shard = &mut self.shards[shard];
        for (sequence, command, foreseen) in shard.waiting.drain(..count.min(shard.waiting.len())) {
            shard.index += 1;
            let position = Position { leader: LEADER, index: shard.index };
            assert_eq!(apply(&mut shard.base, position, &command), foreseen);
            shard.pending.commit(sequence);
        }
        for (customer, account) in (0..CUSTOMERS).map(|customer| (profile_id(customer), ACCOUNT)) {
            if shard.waiting.is_empty() {
                assert!(shard.pending.is_empty());
                let view = shard.pending.view(&shard.base);
                assert_eq!(view.profile(&customer), shard.base.profile(&customer));
                assert_eq!(view.account(account), shard.base.account(account));
            }
        }
    }

    fn respond(&mut self, which: usize, click: bool) -> Option<(usize, Respond)> {
        let sold = self.sold.get(which % self.sold.len().max(1))?;
        self.ids += 1;
        let id = profile_id(sold.customer);
        let respond = Respond {
            tenant: id.tenant,
            customer: id.customer,
            idempotency: Idempotency { key: u128::from(self.ids), body: self.ids, until: self.now.plus_ms(DAY_MS) },
            proposition: Some((sold.decision, 1)),
            decided_at: Some(self.now),
            answerable_until: Some(self.now.plus_ms(90 * DAY_MS)),
            offer: OfferKey(1),
            creative: CreativeKey::NONE,
            channel: ChannelKey(2),
            placement: PlacementKey::NONE,
            category: Some(CategoryKey(1)),
            outcome: if click { CLICK } else { IMPRESSION },
            sentiment: if click { Sentiment::Positive } else { Sentiment::Neutral },
            value: None,
            evidence: true,
            counts: vec![unit(sold.global, self.now)],
            opt_out: None,
            withheld: false,
        };
        Some((sold.shard, respond))
    }

    fn lapse(&mut self) {
        let now = self.now;
        for sold in &mut self.sold {
            sold.held &= now < sold.expires_at;
        }
    }

    fn run(&mut self, step: Step) {
        self.lapse();
        match step {
            Step::Take { shard, customer, global, supersede } => {
                self.ids += 1;
                let id = profile_id(customer);
                let mine = |sold: &&mut Sold| (sold.shard, sold.customer) == (shard, customer);
                let earlier = self.sold.iter().rev().find(|sold| (sold.shard, sold.customer) == (shard, customer));
                let supersedes = earlier.filter(|_| supersede).map(|sold| sold.decision);
                let expires_at = self.now.plus_ms(900);
                let take = Take {
                    tenant: id.tenant,
                    customer: id.customer,
                    decision: DecisionId(self.ids),
                    idempotency: None,
                    supersedes,
                    propositions: vec![TakenProposition {
                        offer: OfferKey(1),
                        creative: CreativeKey::NONE,
                        channel: ChannelKey(2),
                        placement: PlacementKey::NONE,
                        category: Some(CategoryKey(1)),
                        score: 0.5,
                        mandatory: false,
                        fallback: false,
                        evidence: true,
                        implied_impression: false,
                        takes: vec![unit(global, expires_at)],
                    }],
                    ghosts: Vec::new(),
                    mandatory: None,
                    policies: Vec::new(),
                    counts: Vec::new(),
                    answerable_until: self.now.plus_ms(90 * DAY_MS),
                    answer: None,
                };
                let decision = take.decision;
                let outcome = self.propose(shard, ShardOp::Take(Box::new(take)));
                if let Outcome::Refused(Refusal::CapRefused { offers, caps }) = outcome {
                    assert_eq!(offers, [OfferKey(1)]);
                    assert_eq!(caps, [if global { GLOBAL_CAP } else { PROFILE_CAP }]);
                } else {
                    assert!(matches!(outcome, Outcome::Took(_)), "{outcome:?}");
                    let replaced = self.sold.iter_mut().filter(mine);
                    for sold in replaced.filter(|sold| Some(sold.decision) == supersedes) {
                        sold.held = false;
                    }
                    self.sold.push(Sold { shard, customer, decision, global, expires_at, held: true });
                }
            }
            Step::Respond { which, click } => {
                let Some((shard, respond)) = self.respond(which, click) else { return };
                let Outcome::Responded(responded) = self.propose(shard, ShardOp::Respond(Box::new(respond.clone())))
                else {
                    panic!("no room for an outcome")
                };
                assert!(!responded.duplicate);
                let index = which % self.sold.len();
                let sold = &mut self.sold[index];
                let was_counted =
                    self.asked.iter().any(|(_, before, of)| before.proposition == respond.proposition && !of.duplicate);
                if responded.repeat || was_counted {
                    assert!(!responded.over_cap, "an impression counts once");
                } else if !responded.over_cap {
                    sold.held = false;
                    if sold.global {
                        self.used_global += 1;
                    } else {
                        *self.used.entry((sold.shard, sold.customer)).or_default() += 1;
                    }
                } else {
                    assert!(responded.late && !sold.held, "a held unit is there when it is needed");
                }
                self.asked.push((shard, respond, responded));
            }
            Step::Retry { which } => {
                if self.asked.is_empty() {
                    return;
                }
                let (shard, respond, first) = self.asked[which % self.asked.len()].clone();
                let other = Respond {
                    idempotency: Idempotency { body: respond.idempotency.body + 1, ..respond.idempotency },
                    ..respond.clone()
                };
                let again = self.propose(shard, ShardOp::Respond(Box::new(respond)));
                let expected = crate::profile::apply::Responded { duplicate: true, ..first };
                assert_eq!(again, Outcome::Responded(expected));
                let conflict = self.propose(shard, ShardOp::Respond(Box::new(other)));
                assert_eq!(conflict, Outcome::Refused(Refusal::IdempotencyConflict));
            }
            Step::Release { which } => {
                let Some(index) = which.checked_rem(self.sold.len()) else { return };
                let Sold { shard, customer, decision, held, .. } = self.sold[index].clone();
                let id = profile_id(customer);
                let (tenant, customer) = (id.tenant, id.customer);
                let released =
                    self.propose(shard, ShardOp::Release(Release { tenant, customer, decision, ranks: Vec::new() }));
                assert_eq!(released, Outcome::Released { units: u32::from(held) });
                self.sold[index].held = false;
            }
            Step::Wait(ms) => self.now = self.now.plus_ms(ms),
            Step::Tick(shard) => assert_eq!(self.propose(shard, ShardOp::Tick), Outcome::Done),
            Step::Grant(shard) => {
                let view = self.shards[shard].pending.view(&self.shards[shard].base);
                let seen = view.account(ACCOUNT).map_or(0, |account| account.granted_seen());
                let message = self.ledger.grant(ACCOUNT, ShardId(shard as u16), seen, SHARDS as u64, self.now).unwrap();
                self.propose(shard, ShardOp::Escrow(vec![message]));
            }
            Step::Report(shard) => {
                for report in self.shards[shard].base.reports().collect::<Vec<_>>() {
                    self.ledger.see(ShardId(shard as u16), report, self.now).unwrap();
                }
            }
            Step::SetLimit(limit) => {
                let terms = Terms { limit, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
                self.ledger.set_terms(ACCOUNT, terms, SHARDS as u16).unwrap();
                self.largest_limit = self.largest_limit.max(limit);
            }
            Step::Commit(shard, count) => self.commit(shard, count),
            Step::Restart(shard) => {
                let pieces: Vec<Vec<u8>> = self.shards[shard].base.encode_chunks().collect();
                let restored = ShardState::decode_chunks(&pieces).unwrap();
                assert_eq!(restored.hash(), self.shards[shard].base.hash());
                assert_eq!(restored.next_due(), self.shards[shard].base.next_due());
                self.shards[shard].base = restored;
            }
            Step::ForeignLeader(shard) => {
                let before = self.shards[shard].base.hash();
                let position = Position { leader: Leader { term: 3, replica: 9 }, index: 7 };
                let command = self.command(ShardOp::Fence(Revision(9)));
                let outcome = apply(&mut self.shards[shard].base, position, &command);
                assert_eq!(outcome, Outcome::Refused(Refusal::WrongLeader));
                assert_eq!(self.shards[shard].base.hash(), before, "a refusal changes nothing");
            }
            Step::Delete { shard, customer } => {
                // Only one whose units and keys nobody speaks of any more: what it used globally stays used.
                if self.sold.iter().any(|sold| (sold.shard, sold.customer) == (shard, customer)) {
                    return;
                }
                let id = profile_id(customer);
                let (tenant, customer) = (id.tenant.clone(), id.customer.clone());
                self.propose(shard, ShardOp::DeleteProfile { tenant, customer });
                assert!(self.shards[shard].pending.view(&self.shards[shard].base).profile(&id).is_none());
            }
        }
    }

    fn check(&mut self) {
        self.lapse();
        let held = self.sold.iter().filter(|sold| sold.held && sold.global).count() as u64;
        assert!(self.used_global + held <= self.largest_limit, "global cap exceeded");
        for shard in 0..SHARDS {
            for customer in 0..CUSTOMERS {
                let mine = |sold: &&Sold| (sold.shard, sold.customer) == (shard, customer);
                let held = self.sold.iter().filter(mine).filter(|sold| sold.held && !sold.global).count() as u64;
                let used = self.used.get(&(shard, customer)).copied().unwrap_or(0);
                assert!(used + held <= PROFILE_LIMIT, "profile cap exceeded");
                let view = self.shards[shard].pending.view(&self.shards[shard].base);
                let counted = view
                    .profile(&profile_id(customer))
                    .map_or(0, |profile| profile.cap_used(PROFILE_CAP, Window::Lifetime, self.now));
                assert_eq!(counted, used + held, "the profile counts what happened");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_cap_is_exceeded_and_the_pending_view_foresees_the_commit(
        limit in 0..20_u64,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(limit);
        for step in steps {
            world.run(step);
            world.check();
        }
        for shard in 0..SHARDS {
            world.commit(shard, usize::MAX);
            world.run(Step::Restart(shard));
        }
        // Time frees every reservation: what the account says is spent is what was sold.
        world.now = world.now.plus_ms(DAY_MS);
        let mut spent = 0;
        for shard in 0..SHARDS {
            world.run(Step::Tick(shard));
            world.commit(shard, usize::MAX);
            let account = world.shards[shard].base.account(ACCOUNT);
            prop_assert_eq!(account.map_or(0, |account| account.reserved()), 0);
            spent += account.map_or(0, |account| account.spent());
        }
        prop_assert_eq!(spent, world.used_global);
    }

    #[test]
    fn bytes_that_are_no_state_or_command_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::codec::decode::<ShardCommand>("a command", &bytes);
        prop_assert!(ShardState::decode_chunks([bytes]).is_err());
    }
}
