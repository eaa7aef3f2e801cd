//! Experiments against a list of everything that was called, counted anew each time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::keys::*;
use crate::learn::{ArmTally, ExperimentTally};
use crate::limits::{DEALINGS_PER_PROFILE, EXPERIMENTS_PER_PROFILE, REACTIONS_PER_EXPERIMENT, RETENTION_MS};
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, Responded, apply};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::*;
use crate::profile::pending::Pending;
use crate::profile::shard::ShardState;
use crate::profile::state::Profile;
use crate::profile::trials::{Enrolment, ExperimentId, Slice, Trials};
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

const START: Timestamp = Timestamp(500 * DAY_MS);
const LEADER: Leader = Leader { term: 1, replica: 1 };
const SHARDS: usize = 3;
const IMPRESSION: u16 = 0;
const CLICK: u16 = 1;
const CONVERSION: u16 = 2;
const COMPLAINT: u16 = 9;

fn id(customer: u8) -> ProfileId {
    ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new(format!("c{customer}")) }
}

fn experiment(number: u8) -> ExperimentId {
    ExperimentId::of(["spring", "autumn"][usize::from(number)])
}

fn command(now: Timestamp, op: ShardOp) -> ShardCommand {
    ShardCommand::V1(ShardCommandV1 { now, leader: LEADER, revision: Revision(1), op })
}

fn at() -> Position {
    Position { leader: LEADER, index: 1 }
}

/// A decision that takes nothing but its customer's place in an experiment.
fn taking(customer: u8, decision: u64, now: Timestamp, enrolment: Enrolment) -> ShardOp {
    let ProfileId { tenant, customer } = id(customer);
    let take = Take {
        tenant,
        customer,
        decision: DecisionId(decision),
        idempotency: None,
        supersedes: None,
        propositions: Vec::new(),
        ghosts: Vec::new(),
        mandatory: None,
        policies: Vec::new(),
        counts: Vec::new(),
        answerable_until: now.plus_ms(DAY_MS),
        answer: None,
    };
    ShardOp::Take(Box::new(take)).enrolling(enrolment)
}

fn responding(customer: u8, key: u128, now: Timestamp, offer: u32, outcome: u16, value: Option<i64>) -> Respond {
    let ProfileId { tenant, customer } = id(customer);
    Respond {
        tenant,
        customer,
        idempotency: Idempotency { key, body: 1, until: now.plus_ms(DAY_MS) },
        // Every other names a decision, of which it soon is a repeat.
        proposition: key.is_multiple_of(2).then_some((DecisionId(u64::MAX), 1)),
        decided_at: Some(now),
        answerable_until: Some(now.plus_ms(90 * DAY_MS)),
        offer: OfferKey(offer),
        creative: CreativeKey::NONE,
        channel: ChannelKey::NONE,
        placement: PlacementKey::NONE,
        category: None,
        outcome: OutcomeKey(outcome),
        sentiment: match outcome {
            CLICK | CONVERSION => Sentiment::Positive,
            COMPLAINT => Sentiment::Negative,
            _ => Sentiment::Neutral,
        },
        value: value.map(Micros),
        evidence: false,
        counts: Vec::new(),
        opt_out: None,
        withheld: key.is_multiple_of(3),
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A decision of an experiment with so many days, for a customer who may have changed arms.
    Decide {
        customer: u8,
        experiment: u8,
        moved: bool,
        days: u16,
        offers: BTreeSet<u32>,
    },
    Respond {
        customer: u8,
        offer: u32,
        outcome: u16,
        value: Option<i64>,
    },
    /// An earlier outcome once more.
    Retry(prop::sample::Index),
    Delete(u8),
    Wait(i64),
    /// Shards are read from what they store.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let offers = prop::collection::btree_set(1..5_u32, 1..4);
    prop_oneof![
        4 => (0..12_u8, 0..2_u8, prop::bool::weighted(0.1), prop::sample::select(vec![1_u16, 7, 30]), offers)
            .prop_map(|(customer, experiment, moved, days, offers)| Step::Decide { customer, experiment, moved, days, offers }),
        6 => (0..12_u8, 1..5_u32, prop::sample::select(vec![IMPRESSION, CLICK, CONVERSION, 5, COMPLAINT]), prop::option::of(-9..99_i64))
            .prop_map(|(customer, offer, outcome, value)| Step::Respond { customer, offer, outcome, value }),
        2 => any::<prop::sample::Index>().prop_map(Step::Retry),
        1 => (0..12_u8).prop_map(Step::Delete),
        3 => prop_oneof![Just(0), 0..HOUR_MS, 0..3 * DAY_MS].prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Everything that was called and was new.
#[derive(Clone, Debug)]
enum Called {
    Decided { experiment: u8, control: bool, days: u16, offers: BTreeSet<u32> },
    Responded { offer: u32, outcome: u16, value: i64 },
    Deleted,
}

fn is_control(customer: u8, experiment: u8) -> bool {
    (customer + experiment).is_multiple_of(3)
}

/// The result as the history tells it: nothing of it is kept from one time to the next.
fn recount(calls: &[(Timestamp, u8, Called)], asked: u8, slice: Slice) -> ExperimentTally {
    let mut tally = ExperimentTally::default();
    for customer in 0..12 {
        let mine: Vec<_> = calls.iter().filter(|(_, of, _)| *of == customer).collect();
        let begin =
            mine.iter().rposition(|(_, _, called)| matches!(called, Called::Deleted)).map_or(0, |last| last + 1);
        let mut first = BTreeMap::<u32, (Timestamp, u16)>::new();
        let (mut arm, mut begun, mut moved, mut hit, mut revenue) = (None, BTreeSet::new(), false, false, 0_i64);
        for (at, _, called) in &mine[begin..] {
            match called {
                Called::Decided { experiment, control, days, offers } if *experiment == asked => {
                    if arm.is_none() {
                        begun.clone_from(offers);
                    }
                    moved |= *arm.get_or_insert(*control) != *control;
                    for offer in offers {
                        first.entry(*offer).or_insert((*at, *days));
                    }
                }
                Called::Responded { offer, outcome: heard, value } => {
                    let open = first.get(offer).is_some_and(|(from, days)| at.0 - from.0 < i64::from(*days) * DAY_MS);
                    let is_other = slice.outcome.is_some_and(|asked| asked.0 != *heard)
                        || slice.offer.is_some_and(|asked| asked.0 != *offer);
                    if !open || *heard == IMPRESSION || is_other {
                        continue;
                    }
                    hit |= slice.outcome.is_some() || matches!(*heard, CLICK | CONVERSION);
                    revenue += value;
                }
                Called::Decided { .. } | Called::Deleted => {}
            }
        }
        let Some(control) = arm else { continue };
        if slice.offer.is_some_and(|offer| !begun.contains(&offer.0)) {
            continue;
        }
        let into = if control { &mut tally.control } else { &mut tally.treatment };
        let revenue = i128::from(revenue);
        *into = ArmTally {
            customers: into.customers + 1,
            moved: into.moved + u64::from(moved),
            converted: into.converted + u64::from(hit),
            revenue: into.revenue + revenue,
            squares: into.squares + revenue * revenue,
        };
    }
    tally
}

fn sum(shards: &[ShardState], asked: u8, slice: Slice) -> ExperimentTally {
    let mut tally = ExperimentTally::default();
    for shard in shards {
        tally.add(&shard.experiment(&id(0).tenant, experiment(asked), slice));
    }
    tally
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_result_over_several_shards_is_a_recount_of_all_calls(steps in prop::collection::vec(step(), 1..120)) {
        let mut shards = vec![ShardState::new(); SHARDS];
        let (mut now, mut calls) = (START, Vec::new());
        let mut heard: Vec<(usize, Timestamp, ShardOp)> = Vec::new();
        for (number, step) in (0_u64..).zip(steps) {
            match step {
                Step::Decide { customer, experiment: asked, moved, days, offers } => {
                    let shard = &mut shards[usize::from(customer) % SHARDS];
                    let control = is_control(customer, asked) != moved;
                    let keys = offers.iter().map(|offer| OfferKey(*offer)).collect();
                    let enrolment = Enrolment { experiment: experiment(asked), control, window_days: days, offers: keys };
                    let nothing = Trials::default();
                    let known = shard.profile(&id(customer)).and_then(Profile::trials).unwrap_or(&nothing);
                    let before = shard.hash();
                    match known.news(enrolment.clone(), now) {
                        Some(news) => {
                            // The leader foresees what is committed.
                            let command = command(now, taking(customer, number, now, news));
                            let mut pending = Pending::new();
                            let (_, foreseen) = pending.apply(shard, at(), &command);
                            prop_assert!(matches!(foreseen, Outcome::Took(_)));
                            let seen = pending.view(shard).profile(&id(customer)).and_then(Profile::trials).cloned();
                            prop_assert_eq!(apply(shard, at(), &command), foreseen);
                            prop_assert_eq!(shard.profile(&id(customer)).and_then(Profile::trials), seen.as_ref());
                            prop_assert_eq!(seen.unwrap_or_default().news(enrolment, now), None);
                        }
                        None => prop_assert_eq!(shard.hash(), before),
                    }
                    calls.push((now, customer, Called::Decided { experiment: asked, control, days, offers }));
                }
                Step::Respond { customer, offer, outcome, value } => {
                    let op = ShardOp::Respond(Box::new(responding(customer, number.into(), now, offer, outcome, value)));
                    let shard = usize::from(customer) % SHARDS;
                    let outcome_of = apply(&mut shards[shard], at(), &command(now, op.clone()));
                    let is_new = matches!(outcome_of, Outcome::Responded(Responded { duplicate: false, .. }));
                    prop_assert!(is_new, "{:?}", outcome_of);
                    heard.push((shard, now, op));
                    calls.push((now, customer, Called::Responded { offer, outcome, value: value.unwrap_or(0) }));
                }
                Step::Retry(which) => {
                    if let Some((shard, then, op)) = (!heard.is_empty()).then(|| which.get(&heard))
                        && now.since_ms(*then) < DAY_MS
                    {
                        let again = apply(&mut shards[*shard], at(), &command(now, op.clone()));
                        let is_known = matches!(again, Outcome::Responded(Responded { duplicate: true, .. }));
                        prop_assert!(is_known, "{:?}", again);
                    }
                }
                Step::Delete(customer) => {
                    let ProfileId { tenant, customer: name } = id(customer);
                    let op = ShardOp::DeleteProfile { tenant, customer: name };
                    apply(&mut shards[usize::from(customer) % SHARDS], at(), &command(now, op));
                    calls.push((now, customer, Called::Deleted));
                }
                Step::Wait(ms) => now = now.plus_ms(ms),
                Step::Restart => {
                    for shard in &mut shards {
                        let restored = ShardState::decode_chunks(shard.encode_chunks()).unwrap();
                        prop_assert_eq!(restored.hash(), shard.hash());
                        *shard = restored;
                    }
                }
            }
            for asked in 0..2 {
                for (offer, outcome) in [(None, None), (None, Some(CONVERSION)), (Some(2), None), (Some(3), Some(COMPLAINT))] {
                    let slice = Slice { offer: offer.map(OfferKey), outcome: outcome.map(OutcomeKey) };
                    prop_assert_eq!(sum(&shards, asked, slice), recount(&calls, asked, slice), "{} {:?}", asked, slice);
                }
            }
        }
    }
}

/// A shard in which one customer is enrolled by the decisions given: experiment, offers and days.
fn enrolled(decisions: &[(ExperimentId, Vec<u32>, u16)]) -> ShardState {
    let mut state = ShardState::new();
    for (number, (experiment, offers, window_days)) in (0_u64..).zip(decisions) {
        let offers = offers.iter().map(|offer| OfferKey(*offer)).collect();
        let enrolment = Enrolment { experiment: *experiment, control: false, window_days: *window_days, offers };
        let outcome = apply(&mut state, at(), &command(START, taking(0, number, START, enrolment)));
        assert!(matches!(outcome, Outcome::Took(_)), "{outcome:?}");
    }
    state
}

fn respond(state: &mut ShardState, key: u128, now: Timestamp, offer: u32) {
    apply(state, at(), &command(now, ShardOp::Respond(Box::new(responding(0, key, now, offer, CLICK, Some(1))))));
}

fn revenue(state: &ShardState, experiment: ExperimentId) -> i128 {
    state.experiment(&id(0).tenant, experiment, Slice::default()).treatment.revenue
}

#[test]
fn a_window_is_open_to_its_last_millisecond_and_only_for_its_offer() {
    let spring = experiment(0);
    let mut state = enrolled(&[(spring, vec![1, 2], 7), (spring, vec![1], 30)]);
    respond(&mut state, 1, START.plus_ms(7 * DAY_MS - 1), 1);
    assert_eq!(revenue(&state, spring), 1);
    respond(&mut state, 2, START.plus_ms(7 * DAY_MS - 1), 3);
    respond(&mut state, 3, START.plus_ms(7 * DAY_MS), 1);
    assert_eq!(revenue(&state, spring), 1, "another offer, and too late: a second decision opens nothing");
    respond(&mut state, 4, START.plus_ms(7 * DAY_MS - 1), 2);
    assert_eq!(revenue(&state, spring), 1, "log time does not go back");
}

#[test]
fn a_customer_counts_until_the_last_window_is_forgotten_whether_or_not_anybody_looked() {
    let spring = experiment(0);
    let mut state = enrolled(&[(spring, vec![1], 7)]);
    respond(&mut state, 1, START, 1);
    let counted = |state: &ShardState| state.experiment(&id(0).tenant, spring, Slice::default()).treatment.customers;
    let tick = |state: &mut ShardState, now| apply(state, at(), &command(now, ShardOp::Tick));
    tick(&mut state, START.plus_ms(RETENTION_MS - 1));
    assert_eq!((counted(&state), revenue(&state, spring)), (1, 1));
    // Another customer moves time on; this one is not touched.
    let later = START.plus_ms(RETENTION_MS);
    let put = PutProfile {
        tenant: id(1).tenant,
        customer: id(1).customer,
        attributes: None,
        segments: Some(vec!["s".to_owned()]),
    };
    apply(&mut state, at(), &command(later, ShardOp::PutProfile(put)));
    assert!(state.profile(&id(0)).and_then(Profile::trials).is_some());
    assert_eq!(counted(&state), 0);
    // And a decision begins anew.
    let again = Enrolment { experiment: spring, control: true, window_days: 7, offers: vec![OfferKey(1)] };
    let trials = state.profile(&id(0)).and_then(Profile::trials).unwrap();
    assert_eq!(trials.news(again.clone(), later).as_ref(), Some(&again));
    apply(&mut state, at(), &command(later, taking(0, 99, later, again)));
    let tally = state.experiment(&id(0).tenant, spring, Slice::default());
    assert_eq!((tally.treatment.customers, tally.control.customers, tally.control.converted), (0, 1, 0));
}

#[test]
fn whoever_was_only_enrolled_is_gone_when_the_last_window_is_forgotten_though_nobody_touches_them() {
    let spring = experiment(0);
    let mut state = enrolled(&[(spring, vec![1], 7)]);
    let second = START.plus_ms(3 * DAY_MS);
    let more = Enrolment { experiment: spring, control: false, window_days: 7, offers: vec![OfferKey(2)] };
    apply(&mut state, at(), &command(second, taking(0, 1, second, more)));
    let mut restored = ShardState::decode_chunks(state.encode_chunks()).unwrap();
    for state in [&mut state, &mut restored] {
        let mut ticks = Vec::new();
        while let Some(due) = state.next_due() {
            assert!(state.profile(&id(0)).is_some() && ticks.len() < 10, "{ticks:?}");
            apply(state, at(), &command(due, ShardOp::Tick));
            ticks.push(due);
        }
        assert_eq!(ticks.last(), Some(&second.plus_ms(RETENTION_MS)), "{ticks:?}");
        assert_eq!((state.profile(&id(0)), state.profile_count()), (None, 0));
    }
}

#[test]
fn who_began_with_an_offer_is_asked_only_while_its_window_is_kept() {
    let spring = experiment(0);
    let mut state = enrolled(&[(spring, vec![1], 7)]);
    let later = START.plus_ms(DAY_MS);
    let more = Enrolment { experiment: spring, control: false, window_days: 7, offers: vec![OfferKey(2)] };
    apply(&mut state, at(), &command(later, taking(0, 1, later, more)));
    let customers = |state: &ShardState, offer| {
        let slice = Slice { offer, outcome: None };
        state.experiment(&id(0).tenant, spring, slice).treatment.customers
    };
    let put = |state: &mut ShardState, now| {
        let ProfileId { tenant, customer } = id(1);
        let put = PutProfile { tenant, customer, attributes: None, segments: Some(vec!["s".to_owned()]) };
        apply(state, at(), &command(now, ShardOp::PutProfile(put)));
    };
    put(&mut state, START.plus_ms(RETENTION_MS - 1));
    assert_eq!((customers(&state, None), customers(&state, Some(OfferKey(1)))), (1, 1));
    // The second window is still kept, and nobody has touched the customer.
    put(&mut state, START.plus_ms(RETENTION_MS));
    assert_eq!((customers(&state, None), customers(&state, Some(OfferKey(1)))), (1, 0));
}

proptest! {
    #[test]
    fn what_is_new_is_what_enrolling_in_what_is_kept_would_change(
        earlier in prop::collection::vec((0..500_i64, 0..3_u8, any::<bool>(), prop::collection::btree_set(1..9_u32, 0..4)), 0..9),
        (days, asked, control, offers) in (0..900_i64, 0..3_u64, any::<bool>(), prop::collection::btree_set(1..9_u32, 0..5)),
    ) {
        let enrolment = |experiment: u64, control, offers: &BTreeSet<u32>| Enrolment {
            experiment: ExperimentId(experiment),
            control,
            window_days: 7,
            offers: offers.iter().map(|offer| OfferKey(*offer)).collect(),
        };
        let mut trials = Trials::default();
        for (day, experiment, control, offers) in &earlier {
            trials.enrol(&enrolment((*experiment).into(), *control, offers), Timestamp(day * DAY_MS));
        }
        let now = Timestamp(days * DAY_MS);
        let wanted = enrolment(asked, control, &offers);
        let mut kept = trials.clone();
        kept.lapse(now);
        let (mut after, mut by_news) = (kept.clone(), kept.clone());
        after.enrol(&wanted, now);
        let news = trials.news(wanted, now);
        prop_assert_eq!(news.is_some(), after != kept);
        if let Some(news) = news {
            by_news.enrol(&news, now);
            let windows = |trials: &Trials| trials.participations().iter().map(|part| part.windows.len()).sum::<usize>();
            prop_assert_eq!(news.offers.len(), windows(&after) - windows(&kept), "nothing but what is new");
        }
        prop_assert_eq!(by_news, after);
    }
}

#[test]
fn a_profile_at_its_limits_takes_part_in_no_more_and_what_it_takes_part_in_goes_on() {
    let many = |number: usize| ExperimentId(number as u64);
    let each = DEALINGS_PER_PROFILE / EXPERIMENTS_PER_PROFILE;
    let offers: Vec<u32> = (0..each as u32).collect();
    let mut decisions: Vec<_> = (0..EXPERIMENTS_PER_PROFILE).map(|number| (many(number), offers.clone(), 30)).collect();
    // One experiment too many, and one offer too many.
    decisions.push((many(EXPERIMENTS_PER_PROFILE), vec![1], 30));
    decisions.push((many(0), vec![9_999], 30));
    let mut state = enrolled(&decisions);
    let trials = state.profile(&id(0)).and_then(Profile::trials).unwrap();
    assert_eq!(trials.participations().len(), EXPERIMENTS_PER_PROFILE);
    assert!(trials.participations().iter().all(|part| part.windows.len() == each));
    let wanted = |number: usize| Enrolment {
        experiment: many(number),
        control: false,
        window_days: 1,
        offers: vec![OfferKey(9_999)],
    };
    assert_eq!(
        (trials.news(wanted(0), START), trials.news(wanted(EXPERIMENTS_PER_PROFILE), START)),
        (None, None),
        "writes nothing"
    );
    let later = START.plus_ms(RETENTION_MS);
    let another = wanted(EXPERIMENTS_PER_PROFILE);
    assert_eq!(trials.news(another.clone(), later), Some(another), "what is forgotten takes no room");
    respond(&mut state, 1, START, 1);
    respond(&mut state, 2, START, 9_999);
    assert!((0..EXPERIMENTS_PER_PROFILE).all(|number| revenue(&state, many(number)) == 1));
    let restored = ShardState::decode_chunks(state.encode_chunks()).unwrap();
    assert_eq!((restored.hash(), restored.profile(&id(0))), (state.hash(), state.profile(&id(0))));
}

#[test]
fn what_is_not_kept_by_offer_any_more_counts_in_the_whole() {
    let spring = experiment(0);
    let many = REACTIONS_PER_EXPERIMENT as u32;
    let mut state = enrolled(&[(spring, (0..many + 40).collect(), 30)]);
    for offer in (0..many + 40).chain(0..3) {
        let key = u128::from(offer) + if offer < 3 { u128::from(state.hash()) } else { 0 };
        respond(&mut state, key, START, offer);
    }
    assert_eq!(revenue(&state, spring), i128::from(many + 43));
    let of = |offer| {
        let slice = Slice { offer: Some(OfferKey(offer)), outcome: None };
        state.experiment(&id(0).tenant, spring, slice).treatment.revenue
    };
    assert_eq!((of(0), of(3), of(many + 39)), (2, 1, 0));
    let parts = state.profile(&id(0)).and_then(Profile::trials).unwrap().participations();
    assert_eq!(
        (parts[0].reactions.len(), parts[0].reactions[0].offer, parts[0].reactions[0].times),
        (REACTIONS_PER_EXPERIMENT + 1, None, 40)
    );
    assert_eq!(ShardState::decode_chunks(state.encode_chunks()).unwrap().hash(), state.hash());
}
