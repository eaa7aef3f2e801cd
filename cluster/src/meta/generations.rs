//! Whatever is lost of a shard, and however late what it said arrives: no unit is sold twice, and each is somewhere.

use proffer_engine::budget::ledger::Terms;
use proffer_engine::keys::{
    CapKey, CategoryKey, ChannelKey, CreativeKey, CustomerId, OfferKey, PlacementKey, Revision, ShardId, TenantId,
};
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::{
    AccountId, CapTake, CountEvent, DecisionId, EscrowMessage, Leader, Position, Release, ShardCommand, ShardCommandV1,
    ShardOp, Take, TakeAccount, TakenProposition,
};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::{Span, Timestamp};
use proptest::prelude::*;

use crate::group::Group;
use crate::identity::FOUNDER;
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::roster::{Configured, Members, NodeInfo, Recover};
use crate::meta::state::MetaState;

const SHARDS: usize = 3;
const LEADER: Leader = Leader { term: 1, replica: 1 };
/// The second is opened later, and large enough for each shard to be given some at once.
const ACCOUNTS: [AccountId; 2] =
    [AccountId { tenant: 0, cap: CapKey(0), ordinal: 0 }, AccountId { tenant: 0, cap: CapKey(1), ordinal: 0 }];

/// Something on its way.
#[derive(Clone, Debug)]
enum Mail {
    ToShard(ShardId, u64, EscrowMessage),
    ToLedger(ShardId, u64, proffer_engine::budget::escrow::EscrowReport),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Tell(usize),
    Report {
        shard: usize,
        wish: u64,
    },
    Deliver(usize),
    DeliverAgainLater(usize),
    Lose(usize),
    Take {
        shard: usize,
        account: usize,
        at_once: bool,
    },
    Release(usize),
    OpenSecond,
    /// The shard's majority is gone; the ledger is told.
    Recover(usize),
    /// A survivor that knows so much of a hundred of the log goes on.
    Begin(usize, usize),
    /// The new generation is led, and says so.
    Lead(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let shard = 0..SHARDS;
    prop_oneof![
        2 => shard.clone().prop_map(Step::Tell),
        6 => (shard.clone(), 0..2_u64).prop_map(|(shard, wish)| Step::Report { shard, wish }),
        12 => (0..64_usize).prop_map(Step::Deliver),
        2 => (0..64_usize).prop_map(Step::DeliverAgainLater),
        1 => (0..64_usize).prop_map(Step::Lose),
        8 => (shard.clone(), 0..2_usize, any::<bool>())
            .prop_map(|(shard, account, at_once)| Step::Take { shard, account, at_once }),
        3 => (0..64_usize).prop_map(Step::Release),
        1 => Just(Step::OpenSecond),
        1 => shard.clone().prop_map(Step::Recover),
        3 => (shard.clone(), 0..=100_usize).prop_map(|(shard, part)| Step::Begin(shard, part)),
        1 => shard.prop_map(Step::Lead),
    ]
}

/// A shard as its majority has it.
#[derive(Clone, Default)]
struct Shard {
    /// What its log comes after.
    base: ShardState,
    log: Vec<ShardCommand>,
    state: ShardState,
}

impl Shard {
    fn apply(&mut self, now: Timestamp, op: ShardOp) -> Outcome {
        let index = self.log.len() as u64;
        let command = ShardCommand::V1(ShardCommandV1 { now, leader: LEADER, revision: Revision(1 << 40), op });
        self.log.push(command.clone());
        apply(&mut self.state, Position { leader: LEADER, index }, &command)
    }

    /// The state of one that knows only so many of the entries.
    fn remembered(&self, entries: usize) -> ShardState {
        let mut state = self.base.clone();
        for (command, index) in self.log[..entries].iter().zip(0..) {
            apply(&mut state, Position { leader: LEADER, index }, command);
        }
        state
    }
}

struct World {
    meta: MetaState,
    index: u64,
    now: Timestamp,
    limits: [u64; 2],
    /// `None` between the loss and the new beginning.
    shards: Vec<Option<Shard>>,
    /// Lost majorities, which come back in part: what reaches them they apply, and they say what they hold. They answer nobody.
    lost: Vec<(usize, Shard)>,
    mail: Vec<Mail>,
    decisions: u64,
    /// What was acknowledged and not let go: shard, account, customer's number, decision.
    held: Vec<(usize, usize, u64)>,
    sold: [u64; 2],
}

impl World {
    fn new(limits: [u64; 2]) -> Self {
        let shards = (0..SHARDS).map(|_| Some(Shard::default())).collect();
        let mut world = World {
            meta: MetaState::new(),
            index: 0,
            now: Timestamp(5),
            limits,
            shards,
            lost: Vec::new(),
            mail: Vec::new(),
            decisions: 0,
            held: Vec::new(),
            sold: [0; 2],
        };
        world.meta(MetaOp::Found(Founding { secret: [1; 16], shards: SHARDS as u16 }));
        let info = NodeInfo { disk: 1, boots: 1, ..NodeInfo::default() };
        world.meta(MetaOp::Enroll(info));
        world.open(0);
        world
    }

    fn open(&mut self, account: usize) {
        let terms = Terms { limit: self.limits[account], span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
        self.meta(MetaOp::Open(vec![(ACCOUNTS[account], terms)]));
    }

    fn generation(&self, shard: ShardId) -> u64 {
        self.meta.roster().generation(Group::Shard(shard))
    }

    /// Applies at the ledger; what it has to tell is on its way.
    fn meta(&mut self, op: MetaOp) -> MetaOutcome {
        self.index += 1;
        let position = Position { leader: LEADER, index: self.index };
        let command = MetaCommand::V1(MetaCommandV1 { now: self.now, leader: LEADER, op });
        let outcome = self.meta.apply(position, &command);
        if let MetaOutcome::Told(told) = &outcome {
            for (shard, message) in told {
                self.mail.push(Mail::ToShard(*shard, self.generation(*shard), *message));
            }
        }
        outcome
    }

    fn deliver(&mut self, mail: Mail) {
        match mail {
            Mail::ToShard(shard, generation, message) => {
                let number = usize::from(shard.0);
                let op = ShardOp::escrow(generation, vec![message]);
                let lost = self.lost.iter_mut().filter(|(of, _)| *of == number).map(|(_, lost)| lost);
                for held in self.shards[number].iter_mut().chain(lost) {
                    held.apply(self.now, op.clone());
                }
            }
            Mail::ToLedger(shard, generation, report) => {
                self.meta(MetaOp::settle(generation, shard, vec![report]));
            }
        }
    }

    /// Everybody who has something of the shard says so.
    fn report(&mut self, number: usize, wish: u64) {
        let lost = self.lost.iter().filter(|(of, _)| *of == number).map(|(_, lost)| lost);
        for held in self.shards[number].iter().chain(lost) {
            for mut report in held.state.reports() {
                report.wish = wish;
                self.mail.push(Mail::ToLedger(ShardId(number as u16), held.state.generation(), report));
            }
        }
    }

    fn tell(&mut self, number: usize) {
        let shard = ShardId(number as u16);
        for account in ACCOUNTS {
            if let Some(message) = self.meta.message(account, shard) {
                self.mail.push(Mail::ToShard(shard, self.generation(shard), message));
            }
        }
    }

    fn take(&mut self, number: usize, account: usize, at_once: bool) {
        let Some(shard) = &mut self.shards[number] else { return };
        self.decisions += 1;
        let id = self.decisions;
        let count_on = if at_once { CountEvent::Decision } else { CountEvent::Impression };
        let taken = CapTake {
            cap: ACCOUNTS[account].cap,
            account: TakeAccount::Global { account: ACCOUNTS[account], amount: 1 },
            count_on,
            expires_at: Timestamp(1 << 50),
        };
        let proposition = TakenProposition {
            offer: OfferKey(7),
            creative: CreativeKey::NONE,
            channel: ChannelKey::NONE,
            placement: PlacementKey::NONE,
            category: None::<CategoryKey>,
            score: 1.0,
            mandatory: false,
            fallback: false,
            evidence: false,
            implied_impression: false,
            takes: vec![taken],
        };
        let take = Take {
            tenant: TenantId::new("acme"),
            customer: CustomerId::new(format!("c{id}")),
            decision: DecisionId(id),
            idempotency: None,
            supersedes: None,
            propositions: vec![proposition],
            ghosts: Vec::new(),
            mandatory: None,
            policies: Vec::new(),
            counts: Vec::new(),
            answerable_until: Timestamp(1 << 50),
            answer: None,
        };
        if let Outcome::Took(_) = shard.apply(self.now, ShardOp::Take(Box::new(take))) {
            self.sold[account] += 1;
            if !at_once {
                self.held.push((number, account, id));
            }
        }
    }

    /// A held unit is let go, if the shard still knows of it: a release is acknowledged either way, and counts only then.
    fn release(&mut self, index: usize) {
        if self.held.is_empty() {
            return;
        }
        let (number, account, id) = self.held.remove(index % self.held.len());
        let Some(shard) = &mut self.shards[number] else { return };
        let release = Release {
            tenant: TenantId::new("acme"),
            customer: CustomerId::new(format!("c{id}")),
            decision: DecisionId(id),
            ranks: Vec::new(),
        };
        if shard.apply(self.now, ShardOp::Release(release)) == (Outcome::Released { units: 1 }) {
            self.sold[account] -= 1;
        }
    }

    fn recover(&mut self, number: usize) {
        let Some(lost) = self.shards[number].take() else { return };
        let group = Group::Shard(ShardId(number as u16));
        let survivor = self.meta.roster().replica_on(group, FOUNDER).unwrap();
        let generation = self.generation(ShardId(number as u16)) + 1;
        let last = Position { leader: LEADER, index: lost.log.len() as u64 };
        let recover = Recover { group, generation, survivor, last, by: "test".to_owned() };
        assert_eq!(self.meta(MetaOp::Recover(recover)), MetaOutcome::Told(Vec::new()));
        self.lost.push((number, lost));
    }

    fn begin(&mut self, number: usize, part: usize) {
        if self.shards[number].is_some() {
            return;
        }
        let (_, lost) = self.lost.iter().rev().find(|(of, _)| *of == number).unwrap();
        let mut state = lost.remembered(lost.log.len() * part / 100);
        let shard = ShardId(number as u16);
        state.begin_generation(self.generation(shard), (self.meta.ledger(), shard), self.meta.fence(), Timestamp(9));
        // It is stored, and read, before it is gone on with.
        let state = ShardState::decode_chunks(state.encode_chunks()).unwrap();
        self.shards[number] = Some(Shard { base: state.clone(), log: Vec::new(), state });
    }

    fn lead(&mut self, number: usize) {
        let group = Group::Shard(ShardId(number as u16));
        let record = self.meta.roster().group(group).unwrap().clone();
        if self.shards[number].is_none() || record.at.is_some() {
            return;
        }
        let members = Members { voters: record.now.voters.clone(), ..Members::default() };
        let at = Position { leader: LEADER, index: 1 };
        let outcome = self.meta(MetaOp::Configured(Configured { group, members, at, targets: record.targets }));
        assert_eq!(outcome, MetaOutcome::Told(Vec::new()));
    }

    fn run(&mut self, step: Step) {
        let pick = |mail: &Vec<Mail>, index: usize| (!mail.is_empty()).then(|| index % mail.len());
        match step {
            Step::Tell(shard) => self.tell(shard),
            Step::Report { shard, wish } => self.report(shard, wish),
            Step::Deliver(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    let mail = self.mail.remove(index);
                    self.deliver(mail);
                }
            }
            Step::DeliverAgainLater(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    self.deliver(self.mail[index].clone());
                }
            }
            Step::Lose(index) => {
                if let Some(index) = pick(&self.mail, index) {
                    self.mail.remove(index);
                }
            }
            Step::Take { shard, account, at_once } => self.take(shard, account, at_once),
            Step::Release(index) => self.release(index),
            Step::OpenSecond => self.open(1),
            Step::Recover(shard) => self.recover(shard),
            Step::Begin(shard, part) => self.begin(shard, part),
            Step::Lead(shard) => self.lead(shard),
        }
    }

    fn check(&self) {
        for (number, id) in ACCOUNTS.into_iter().enumerate() {
            assert!(self.sold[number] <= self.limits[number], "{} of {}", self.sold[number], self.limits[number]);
            let Some(account) = self.meta.ledger().account(id) else { continue };
            if self.shards.iter().any(Option::is_none) {
                // What is where is known again when what is left goes on.
                assert!(account.pool() >= 0);
                continue;
            }
            let states = self.shards.iter().flatten().enumerate();
            let held = states.filter_map(|(shard, of)| Some((ShardId(shard as u16), of.state.account(id)?)));
            let found = self.meta.ledger().whereabouts(id, held).unwrap();
            assert_eq!(found.total(), i128::from(account.limit()), "{found:?}");
            assert!(found.pool >= 0 && found.in_flight >= 0 && found.free >= 0, "{found:?}");
        }
    }

    /// What is on its way arrives, and what is said in answer.
    fn deliver_all(&mut self) {
        while !self.mail.is_empty() {
            for mail in std::mem::take(&mut self.mail) {
                self.deliver(mail);
            }
        }
    }

    /// All shards go on, and everything arrives, again and again.
    fn heal(&mut self) {
        for shard in 0..SHARDS {
            self.begin(shard, 50);
            self.lead(shard);
        }
        for _ in 0..4 {
            for shard in 0..SHARDS {
                self.tell(shard);
                self.report(shard, 0);
            }
            self.deliver_all();
        }
    }
}

#[test]
fn a_shard_that_nobody_leads_yet_has_no_share_of_a_pool() {
    let mut world = World::new([0, 1_200]);
    world.recover(0);
    world.open(1);
    let account = world.meta.ledger().account(ACCOUNTS[1]).unwrap();
    let granted: Vec<u64> = account.totals().map(|(_, totals)| totals.granted).filter(|granted| *granted > 0).collect();
    assert_eq!(granted.len(), SHARDS - 1);
    assert_eq!(granted[0], 1_200 / (4 * (SHARDS as u64 - 1)), "the others share it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_of_shards_no_unit_is_sold_twice_and_each_is_somewhere(
        first in 0..12_u64,
        second in 12..60_u64,
        steps in proptest::collection::vec(step(), 0..160),
    ) {
        let mut world = World::new([first, second]);
        for step in steps {
            world.run(step);
            world.check();
        }
        world.heal();
        world.check();
        for (number, id) in ACCOUNTS.into_iter().enumerate() {
            if world.meta.ledger().account(id).is_none() {
                continue;
            }
            // What neither was sold nor can have been is sold now, by one: who asked before asks no more.
            for _ in 0..80 {
                world.now = world.now.plus_ms(60_000);
                for shard in 0..SHARDS {
                    world.report(shard, u64::from(shard == 0));
                }
                world.deliver_all();
                world.take(0, number, true);
            }
            world.check();
            let states = world.shards.iter().flatten().enumerate();
            let held = states.filter_map(|(shard, of)| Some((ShardId(shard as u16), of.state.account(id)?)));
            let found = world.meta.ledger().whereabouts(id, held).unwrap();
            prop_assert_eq!((found.pool, found.in_flight, found.free), (0, 0, 0));
        }
    }
}

#[test]
fn what_the_lost_may_have_spent_is_spent_and_what_a_survivor_holds_weighs_nothing() {
    let mut world = World::new([12, 0]);
    for mail in std::mem::take(&mut world.mail) {
        world.deliver(mail);
    }
    // Shard 0 has one of the twelve, holds it for somebody; nobody but the lost knows what became of it.
    world.take(0, 0, false);
    world.recover(0);
    world.begin(0, 100);
    let account = |world: &World| world.shards[0].as_ref().unwrap().state.account(ACCOUNTS[0]).unwrap().clone();
    let begun = account(&world);
    assert_eq!((begun.free(), begun.reserved(), begun.spent(), begun.granted_seen()), (0, 0, 1, 1));
    // Another unit comes, and is held; letting the first go does not give it back.
    world.lead(0);
    for _ in 0..2 {
        world.report(0, 1);
        for mail in std::mem::take(&mut world.mail) {
            world.deliver(mail);
        }
    }
    let free = account(&world).free();
    assert!(free > 0);
    world.take(0, 0, false);
    world.release(0);
    let after = account(&world);
    assert_eq!((after.free(), after.reserved(), after.spent()), (free - 1, 1, 1));
}

#[test]
fn a_rolling_caps_units_are_free_again_a_window_after_the_last_instant_they_can_have_been_spent() {
    let mut world = World::new([12, 0]);
    let rolling = AccountId { tenant: 0, cap: CapKey(5), ordinal: 0 };
    let terms = Terms { limit: 120, span: Span::ALWAYS, unit: 1, cooling_ms: 6_400, soft: false };
    world.meta(MetaOp::Open(vec![(rolling, terms)]));
    world.recover(1);
    let shard = ShardId(1);
    let mut state = ShardState::new();
    state.begin_generation(1, (world.meta.ledger(), shard), Revision(4), Timestamp(1_000));
    assert_eq!((state.generation(), state.fence()), (1, Revision(4)));
    let mut account = state.account(rolling).unwrap().clone();
    assert_eq!((account.free(), account.spent()), (0, 9), "it never heard of the account, and was granted nine");
    account.settle(Timestamp(7_399));
    assert_eq!(account.free(), 0);
    account.settle(Timestamp(7_600));
    assert_eq!((account.free(), account.spent()), (9, 0));
}
