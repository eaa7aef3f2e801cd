//! Whatever a network does to the messages between ledger and shards: no unit is made, none is lost for good.

use proptest::prelude::*;

use crate::budget::escrow::{EscrowAccount, EscrowReport};
use crate::budget::ledger::{AccountState, Ledger, Terms};
use crate::keys::{CapKey, ShardId};
use crate::profile::command::{AccountId, EscrowMessage};
use crate::time::{HOUR_MS, Span, Timestamp};

const SHARDS: usize = 4;
const ACCOUNT: AccountId = AccountId { tenant: 1, cap: CapKey(7), ordinal: 3 };

/// Something on its way.
#[derive(Clone, Copy, Debug)]
enum Mail {
    ToShard(usize, EscrowMessage),
    ToLedger(usize, EscrowReport),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(usize),
    Tell(usize),
    Report(usize),
    Deliver(usize),
    DeliverAgainLater(usize),
    Lose(usize),
    Reserve(usize),
    Confirm(usize),
    Release(usize),
    Spend(usize),
    SetLimit(u64),
    Soften(bool),
    Wait(i64),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        4 => shard.clone().prop_map(Step::Ask),
        2 => shard.clone().prop_map(Step::Tell),
        4 => shard.clone().prop_map(Step::Report),
        8 => (0..64_usize).prop_map(Step::Deliver),
        2 => (0..64_usize).prop_map(Step::DeliverAgainLater),
        1 => (0..64_usize).prop_map(Step::Lose),
        6 => shard.clone().prop_map(Step::Reserve),
        4 => shard.clone().prop_map(Step::Confirm),
        2 => shard.clone().prop_map(Step::Release),
        4 => shard.prop_map(Step::Spend),
        1 => (0..60_u64).prop_map(Step::SetLimit),
        2 => (1..1_500_i64).prop_map(Step::Wait),
    ]
}

struct World {
    ledger: Ledger,
    shards: Vec<Option<EscrowAccount>>,
    mail: Vec<Mail>,
    now: Timestamp,
    /// Counted apart from the accounts: what was ever taken and not let go.
    held: [u64; SHARDS],
    sold: u64,
    unit: u64,
    largest_limit: u64,
    soft: bool,
}

impl World {
    fn new(limit: u64, unit: u64, cooling_ms: i64, span: Span) -> Self {
        let mut ledger = Ledger::default();
        ledger.open(ACCOUNT, Terms { limit, span, unit, cooling_ms, soft: false }, SHARDS as u16).unwrap();
        World {
            ledger,
            shards: vec![None; SHARDS],
            mail: Vec::new(),
            now: Timestamp(1_000_000),
            held: [0; SHARDS],
            sold: 0,
            unit,
            largest_limit: limit,
            soft: false,
        }
    }

    fn relimit(&mut self, limit: u64, unit: u64, soft: bool) {
        let terms = Terms { limit, span: Span::ALWAYS, unit, cooling_ms: 0, soft };
        self.ledger.set_terms(ACCOUNT, terms, SHARDS as u16).unwrap();
        self.soft = soft;
    }

    fn ask(&mut self, shard: usize) {
        let seen = self.shards[shard].as_ref().map_or(0, EscrowAccount::granted_seen);
        let message = self.ledger.grant(ACCOUNT, ShardId(shard as u16), seen, SHARDS as u64, self.now).unwrap();
        self.mail.push(Mail::ToShard(shard, message));
    }

    fn report(&mut self, shard: usize) {
        if let Some(account) = &self.shards[shard] {
            self.mail.push(Mail::ToLedger(shard, account.report(ACCOUNT, self.now)));
        }
    }

    fn tell(&mut self, shard: usize) {
        let message = self.ledger.message(ACCOUNT, ShardId(shard as u16), self.now).unwrap();
        self.mail.push(Mail::ToShard(shard, message));
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::ToShard(shard, message) => match &mut self.shards[shard] {
                Some(account) => account.receive(&message, self.now),
                empty @ None => *empty = Some(EscrowAccount::open(&message, self.now)),
            },
            Mail::ToLedger(shard, report) => self.ledger.see(ShardId(shard as u16), report, self.now).unwrap(),
        }
    }

    fn run(&mut self, step: Step) {
        let (now, unit) = (self.now, self.unit);
        let pick = |mail: &Vec<Mail>, index: usize| (!mail.is_empty()).then(|| index % mail.len());
        match step {
            Step::Ask(shard) => self.ask(shard),
            Step::Tell(shard) => self.tell(shard),
            Step::Report(shard) => self.report(shard),
            Step::Deliver(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    let mail = self.mail.remove(index);
                    self.deliver(mail);
                }
            }
            Step::DeliverAgainLater(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    self.deliver(self.mail[index]);
                }
            }
            Step::Lose(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    self.mail.remove(index);
                }
            }
            Step::Reserve(shard) => {
                let held = self.shards[shard].as_mut().is_some_and(|account| account.reserve(unit, now));
                self.held[shard] += u64::from(held);
            }
            Step::Confirm(shard) => {
                if self.held[shard] > 0 {
                    self.held[shard] -= 1;
                    self.sold += 1;
                    self.shards[shard].as_mut().unwrap().confirm(unit, now);
                }
            }
            Step::Release(shard) => {
                if self.held[shard] > 0 {
                    self.held[shard] -= 1;
                    self.shards[shard].as_mut().unwrap().release(unit, now);
                }
            }
            Step::Spend(shard) => {
                let spent = self.shards[shard].as_mut().is_some_and(|account| account.spend(unit, now));
                self.sold += u64::from(spent);
            }
            Step::SetLimit(limit) => {
                self.relimit(limit * unit, unit, self.soft);
                self.largest_limit = self.largest_limit.max(limit * unit);
            }
            Step::Soften(soft) => {
                let limit = self.ledger.account(ACCOUNT).unwrap().limit();
                self.relimit(limit, self.unit, soft);
            }
            Step::Wait(ms) => {
                self.now = self.now.plus_ms(ms);
                for account in self.shards.iter_mut().flatten() {
                    account.settle(self.now);
                }
            }
            Step::Close => self.ledger.close(ACCOUNT, now).unwrap(),
        }
    }

    fn check(&self) {
        let shards = self.shards.iter().enumerate();
        let shards = shards.filter_map(|(shard, account)| Some((ShardId(shard as u16), account.as_ref()?)));
        let found = self.ledger.whereabouts(ACCOUNT, shards).unwrap();
        let account = self.ledger.account(ACCOUNT).unwrap();
        assert_eq!(found.total(), i128::from(account.limit()), "{found:?}");
        let minted: u64 = self.shards.iter().flatten().map(EscrowAccount::minted).sum();
        let told: u64 = account.totals().map(|(_, totals)| totals.minted).sum();
        let untold = i128::from(minted - told);
        assert!(found.in_flight + untold >= 0 && found.free >= 0, "{found:?}");
    }

    /// Everything arrives, again and again, until nothing moves any more.
    fn heal(&mut self) {
        for _ in 0..6 {
            for shard in 0..SHARDS {
                self.tell(shard);
                self.report(shard);
            }
            for mail in std::mem::take(&mut self.mail) {
                self.deliver(mail);
            }
            for shard in 0..SHARDS {
                self.report(shard);
            }
            for mail in std::mem::take(&mut self.mail) {
                self.deliver(mail);
            }
            // A second goes by: what was used in the last one no longer keeps units from being recalled.
            self.run(Step::Wait(2_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_unit_is_made_or_lost_and_the_last_one_can_be_sold(
        limit in 0..60_u64,
        unit in 1..4_u64,
        steps in proptest::collection::vec(step(), 0..200),
        buyer in 0..SHARDS,
    ) {
        let mut world = World::new(limit * unit, unit, 0, Span::ALWAYS);
        for step in steps {
            world.run(step);
            world.check();
            let account = world.ledger.account(ACCOUNT).unwrap();
            let taken = (world.sold + world.held.iter().sum::<u64>()) * unit;
            prop_assert!(taken <= world.largest_limit);
            prop_assert!(taken <= account.limit() + account.over_by());
        }
        world.heal();
        world.check();
        let limit = world.ledger.account(ACCOUNT).unwrap().limit();
        for _ in 0..400 {
            let before = world.sold;
            world.run(Step::Spend(buyer));
            if world.sold == before {
                world.ask(buyer);
                world.heal();
                world.ask(buyer);
                world.heal();
            }
        }
        let taken = (world.sold + world.held.iter().sum::<u64>()) * unit;
        let over_by = world.ledger.account(ACCOUNT).unwrap().over_by();
        prop_assert!(taken == limit || (over_by > 0 && taken == limit + over_by), "{taken} of {limit}, over by {over_by}");
    }

    #[test]
    fn a_soft_account_counts_without_units_and_turned_strict_it_grants_only_what_is_left(
        limit in 0..20_u64,
        unit in 1..4_u64,
        steps in proptest::collection::vec(
            prop_oneof![8 => step(), 1 => any::<bool>().prop_map(Step::Soften)], 0..200,
        ),
        buyer in 0..SHARDS,
    ) {
        let mut world = World::new(limit * unit, unit, 0, Span::ALWAYS);
        world.run(Step::Soften(true));
        for step in steps {
            world.run(step);
            world.check();
        }
        world.heal();
        world.check();
        let account = world.ledger.account(ACCOUNT).unwrap();
        let found = world.ledger.whereabouts(ACCOUNT, std::iter::empty()).unwrap();
        prop_assert_eq!(found.pool, i128::from(account.limit()) - found.in_flight);
        if world.soft {
            let taken = (world.sold + world.held.iter().sum::<u64>()) * unit;
            prop_assert_eq!(account.pool(), i128::from(account.limit()) - i128::from(taken), "all that is out is used");
            for held in world.shards.iter().flatten() {
                prop_assert_eq!(held.left(), Some(account.limit().saturating_sub(taken)), "every shard knows what is left");
            }
        }
        // A limit that there is no way past: what was overshot before stays, nothing is added.
        world.run(Step::Soften(false));
        world.heal();
        let before = world.sold + world.held.iter().sum::<u64>();
        let limit = world.ledger.account(ACCOUNT).unwrap().limit() / unit;
        let mut idle = 0;
        while idle < 2 {
            let sold = world.sold;
            world.run(Step::Spend(buyer));
            if world.sold == sold {
                world.ask(buyer);
                world.heal();
                idle += 1;
            } else {
                idle = 0;
            }
            world.check();
        }
        let taken = world.sold + world.held.iter().sum::<u64>();
        prop_assert_eq!(taken, before.max(limit), "sold out, and not one more");
    }

    #[test]
    fn a_rolling_limit_holds_in_every_window(
        limit in 1..20_u64,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let window = 2_000;
        let mut world = World::new(limit, 1, window, Span::ALWAYS);
        let mut uses: Vec<Timestamp> = Vec::new();
        for step in steps.into_iter().filter(|step| !matches!(step, Step::SetLimit(_))) {
            let before = world.sold;
            world.run(step);
            world.check();
            if world.sold > before {
                uses.push(world.now);
            }
            let inside = uses.iter().filter(|at| world.now.since_ms(**at) < window).count() as u64;
            prop_assert!(inside + world.held.iter().sum::<u64>() <= limit);
        }
    }

    #[test]
    fn an_account_that_ended_gives_everything_back_and_closes(
        limit in 0..40_u64,
        steps in proptest::collection::vec(step(), 0..150),
        archived in any::<bool>(),
        soft in any::<bool>(),
    ) {
        let end = Timestamp(1_000_000 + HOUR_MS);
        let mut world = World::new(limit, 1, 0, Span { from: Timestamp(0), until: end });
        if soft {
            world.run(Step::Soften(true));
        }
        for step in steps.into_iter().filter(|step| !matches!(step, Step::SetLimit(_))) {
            world.run(step);
        }
        if archived {
            world.run(Step::Close);
        } else {
            world.run(Step::Wait(HOUR_MS + 1));
        }
        world.heal();
        let held: u64 = world.held.iter().sum();
        let state = world.ledger.account(ACCOUNT).unwrap().state();
        prop_assert!(held == 0 || state != AccountState::Closed, "closed while units were held");
        for shard in 0..SHARDS {
            while world.held[shard] > 0 {
                world.run(Step::Confirm(shard));
                let before = world.sold;
                world.run(Step::Spend(shard));
                prop_assert_eq!(world.sold, before, "sold after the end");
            }
        }
        world.ledger.end_periods(world.now);
        world.heal();
        world.check();
        prop_assert_eq!(world.ledger.account(ACCOUNT).unwrap().state(), AccountState::Closed);
        let rest = i128::from(limit) - i128::from(world.sold);
        prop_assert_eq!(world.ledger.account(ACCOUNT).unwrap().pool(), rest);
    }
}

#[test]
fn accounts_of_a_cap_follow_each_other() {
    let terms = |from, until| Terms {
        limit: 5,
        span: Span { from: Timestamp(from), until: Timestamp(until) },
        unit: 1,
        cooling_ms: 0,
        soft: false,
    };
    let mut ledger = Ledger::default();
    ledger.open(ACCOUNT, terms(0, 10), 4).unwrap();
    let later = AccountId { ordinal: 4, ..ACCOUNT };
    assert!(ledger.open(ACCOUNT, terms(10, 20), 4).is_err());
    assert!(ledger.open(later, terms(9, 20), 4).is_err());
    assert!(ledger.open(AccountId { ordinal: 2, ..ACCOUNT }, terms(10, 20), 4).is_err());
    assert!(ledger.open(later, terms(10, 20), 4).is_ok());
}

#[test]
fn a_grant_is_a_quarter_of_an_equal_share_and_at_least_one_action() {
    let mut ledger = Ledger::default();
    let terms = Terms { limit: 1_000, span: Span::ALWAYS, unit: 30, cooling_ms: 0, soft: false };
    ledger.open(ACCOUNT, terms, 4).unwrap();
    let size = |ledger: &Ledger, shards| ledger.account(ACCOUNT).unwrap().grant_size(shards);
    assert_eq!((size(&ledger, 1), size(&ledger, 4), size(&ledger, 100)), (240, 60, 30));
    ledger.set_terms(ACCOUNT, Terms { limit: 29, ..terms }, 4).unwrap();
    assert_eq!(size(&ledger, 1), 0);
}

#[test]
fn a_unit_that_many_starve_for_can_be_taken_where_it_comes_to() {
    let now = Timestamp(0);
    let mut ledger = Ledger::default();
    let terms = Terms { limit: 1, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
    ledger.open(ACCOUNT, terms, SHARDS as u16).unwrap();
    for shard in (0..SHARDS as u16).map(ShardId) {
        ledger.grant(ACCOUNT, shard, 0, SHARDS as u64, now).unwrap();
    }
    let first = ShardId(0);
    let mut held = EscrowAccount::open(&ledger.message(ACCOUNT, first, now).unwrap(), now);
    assert_eq!(held.free(), 1, "it is not recalled before anybody could take it");
    // Nobody did, and it says so: others shall have it.
    ledger.see(first, held.report(ACCOUNT, now), now).unwrap();
    assert_eq!(ledger.recall_plan(ACCOUNT, now), [first]);
    held.receive(&ledger.message(ACCOUNT, first, now).unwrap(), now);
    assert_eq!((held.free(), held.returned()), (0, 1));
}

#[test]
fn the_last_action_is_still_sold_after_its_price_was_raised() {
    let now = Timestamp(0);
    let mut ledger = Ledger::default();
    let terms = Terms { limit: 30, span: Span::ALWAYS, unit: 10, cooling_ms: 0, soft: false };
    ledger.open(ACCOUNT, terms, 3).unwrap();
    let mut shards: Vec<(ShardId, EscrowAccount)> = (0..3)
        .map(|shard| {
            let message = ledger.grant(ACCOUNT, ShardId(shard), 0, 3, now).unwrap();
            (ShardId(shard), EscrowAccount::open(&message, now))
        })
        .collect();
    assert!(shards.iter().all(|(_, held)| held.free() == 10));
    ledger.set_terms(ACCOUNT, Terms { unit: 30, ..terms }, 3).unwrap();
    for (shard, held) in &mut shards {
        held.receive(&ledger.message(ACCOUNT, *shard, now).unwrap(), now);
        ledger.see(*shard, held.report(ACCOUNT, now), now).unwrap();
    }
    let (buyer, held) = &mut shards[1];
    let message = ledger.grant(ACCOUNT, *buyer, held.granted_seen(), 3, now).unwrap();
    held.receive(&message, now);
    assert!(held.spend(30, now));
    let message = ledger.grant(ACCOUNT, ShardId(0), shards[0].1.granted_seen(), 3, now).unwrap();
    shards[0].1.receive(&message, now);
    assert!(!shards[0].1.spend(30, now), "one action was all");
}
