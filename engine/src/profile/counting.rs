//! Behavioural metrics against a list of everything that happened, added up anew each time.

use proptest::prelude::*;

use crate::calendar::Calendar;
use crate::keys::*;
use crate::limits::{METRIC_BUCKETS_PER_SERIES, METRIC_SERIES_PER_PROFILE};
use crate::model::metric::Aggregation;
use crate::model::settings::WeekStart;
use crate::profile::apply::{Outcome, Refusal, Responded, apply};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::*;
use crate::profile::measured::{Event, Measured, MeasuredOp};
use crate::profile::metrics::{Feed, Group, GroupRef, Tally, Trigger, aggregate};
use crate::profile::pending::Pending;
use crate::profile::shard::ShardState;
use crate::profile::state::Profile;
use crate::time::{DAY_MS, HOUR_MS, Period, SECOND_MS, Timestamp};
use crate::value::Value;

const START: Timestamp = Timestamp(500 * DAY_MS);
const LEADER: Leader = Leader { term: 1, replica: 1 };
const GENERATION: u32 = 3;

fn ann() -> ProfileId {
    ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new("ann") }
}

fn calendar() -> Calendar {
    Calendar::new("Europe/Berlin", WeekStart::Monday).unwrap()
}

/// Metric 0 has a window of all time, 1 to 3 of calendar periods, the others rolling ones.
fn window(metric: u32, now: Timestamp) -> Window {
    let frame = calendar().frame(now);
    match metric {
        0 => Window::Lifetime,
        1 => Window::Calendar(frame.span(Period::Day)),
        2 => Window::Calendar(frame.span(Period::Week)),
        3 => Window::Calendar(frame.span(Period::Month)),
        4 => Window::Rolling { ms: HOUR_MS },
        _ => Window::Rolling { ms: 7 * DAY_MS },
    }
}

const METRICS: u32 = 6;

fn group(number: u32) -> Group {
    Group { offer: (number > 0).then_some(OfferKey(number)), ..Group::default() }
}

fn feeds(now: Timestamp, of: u32, number: i64) -> Vec<Feed> {
    let feed = |metric| Feed {
        trigger: Trigger::Itself,
        metric: MetricKey(metric),
        generation: GENERATION,
        group: group(of),
        number: Micros(number),
        window: window(metric, now),
    };
    (0..METRICS).map(feed).collect()
}

fn event(now: Timestamp, key: u128, feeds: Vec<Feed>) -> ShardCommand {
    let ProfileId { tenant, customer } = ann();
    let idempotency = Idempotency { key, body: 1, until: now.plus_ms(HOUR_MS) };
    let op = MeasuredOp::Event(Event { tenant, customer, idempotency });
    let op = ShardOp::Measured(Box::new(Measured { op, feeds, gone: Vec::new() }));
    ShardCommand::V1(ShardCommandV1 { now, leader: LEADER, revision: Revision(1), op })
}

fn run(state: &mut ShardState, command: &ShardCommand) -> Outcome {
    apply(state, Position { leader: LEADER, index: 1 }, command)
}

fn tally(look: &impl Look, metric: u32, of: u32, now: Timestamp) -> Option<Tally> {
    let metrics = look.profile(&ann()).and_then(Profile::metrics)?;
    let offer = group(of).offer;
    metrics.tally(MetricKey(metric), GENERATION, &GroupRef { offer, ..GroupRef::default() }, now)
}

/// What happened in the window of `metric` at `now`, reaching `more` further back.
fn added_up(past: &[(Timestamp, u32, i64)], metric: u32, of: u32, now: Timestamp, more: i64) -> Option<Tally> {
    let inside = |at: Timestamp| match window(metric, now) {
        Window::Lifetime => true,
        Window::Calendar(span) => span.contains(at),
        Window::Rolling { ms } => now.since_ms(at) < ms + more,
    };
    let numbers: Vec<i64> = past.iter().filter(|(at, group, _)| inside(*at) && *group == of).map(|it| it.2).collect();
    let (least, most) = (numbers.iter().min()?, numbers.iter().max()?);
    let sum = numbers.iter().map(|number| i128::from(*number)).sum();
    Some(Tally { count: numbers.len() as u64, sum, least: Micros(*least), most: Micros(*most) })
}

/// Waits, what they happened to, numbers; and waits before it is looked at.
fn pasts(most: usize, wait: i64) -> impl Strategy<Value = Vec<(i64, u32, i64)>> {
    let waits = prop_oneof![Just(0), 0..SECOND_MS, 0..HOUR_MS, 0..wait];
    prop::collection::vec((waits, 0..3u32, prop_oneof![-5_000_000..5_000_000i64, any::<i64>()]), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn metrics_are_what_happened_in_their_window(
        past in pasts(METRIC_BUCKETS_PER_SERIES / 2, 4 * DAY_MS), waits in prop::collection::vec(0..5 * DAY_MS, 1..6),
    ) {
        let (mut state, mut now, mut happened) = (ShardState::new(), START, Vec::new());
        let mut pending = Pending::new();
        for (key, (wait, of, number)) in (0..).zip(past) {
            now = now.plus_ms(wait);
            let command = event(now, key, feeds(now, of, number));
            // The leader sees at once what it proposes, and the same is committed.
            let (_, foreseen) = pending.apply(&state, Position { leader: LEADER, index: 1 }, &command);
            prop_assert_eq!(&foreseen, &Outcome::Responded(Responded::default()));
            happened.push((now, of, number));
            for metric in 0..METRICS {
                let expected = added_up(&happened, metric, of, now, 0);
                prop_assert_eq!(tally(&pending.view(&state), metric, of, now), expected, "metric {} pending", metric);
            }
            prop_assert_eq!(run(&mut state, &command), foreseen);
            pending = Pending::new();
            // A retry counts once.
            prop_assert_eq!(run(&mut state, &command), Outcome::Responded(Responded { duplicate: true, ..Responded::default() }));
            for metric in 0..METRICS {
                prop_assert_eq!(tally(&state, metric, of, now), added_up(&happened, metric, of, now, 0), "metric {}", metric);
            }
        }
        let restored = ShardState::decode_chunks(state.encode_chunks()).unwrap();
        prop_assert_eq!(restored.hash(), state.hash());
        for wait in waits {
            now = now.plus_ms(wait);
            for metric in 0..METRICS {
                for of in 0..3 {
                    let expected = added_up(&happened, metric, of, now, 0);
                    prop_assert_eq!(tally(&state, metric, of, now), expected, "metric {} of {}", metric, of);
                    prop_assert_eq!(tally(&restored, metric, of, now), expected);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_crowded_rolling_window_reaches_at_most_a_64th_too_far_back(past in pasts(800, HOUR_MS / 12)) {
        let (mut state, mut now, mut happened) = (ShardState::new(), START, Vec::new());
        for (key, (wait, of, number)) in (0..).zip(past) {
            now = now.plus_ms(wait);
            run(&mut state, &event(now, key, feeds(now, of, number)));
            happened.push((now, of, number));
            if key % 8 > 0 {
                continue;
            }
            let count = |tally: Option<Tally>| tally.map_or(0, |tally| tally.count);
            for metric in 0..METRICS {
                let found = tally(&state, metric, of, now);
                let exact = added_up(&happened, metric, of, now, 0);
                let Window::Rolling { ms } = window(metric, now) else {
                    prop_assert_eq!(found, exact);
                    continue;
                };
                let most = added_up(&happened, metric, of, now, ms / 64);
                prop_assert!(count(exact) <= count(found) && count(found) <= count(most), "{:?} {:?} {:?}", exact, found, most);
            }
        }
        let series = state.profile(&ann()).and_then(Profile::metrics).map_or(0, |metrics| metrics.series().len());
        prop_assert!(series <= 3 * METRICS as usize);
        prop_assert_eq!(ShardState::decode_chunks(state.encode_chunks()).unwrap().hash(), state.hash());
    }
}

#[test]
fn means_are_rounded_to_the_micro_unit_and_nothing_has_none() {
    let tally = |count, sum| Some(Tally { count, sum, least: Micros(-7), most: Micros(2_500_000) });
    let table = [
        (Aggregation::Count, tally(3, 10), Value::Number(3.0)),
        (Aggregation::Sum, tally(3, 10), Value::Number(0.000_01)),
        (Aggregation::Avg, tally(3, 10), Value::Number(0.000_003)),
        (Aggregation::Avg, tally(3, 11), Value::Number(0.000_004)),
        (Aggregation::Avg, tally(2, -3), Value::Number(-0.000_002)),
        (Aggregation::Avg, tally(2, i128::MIN), Value::Number(i128::MIN as f64 / 2e6)),
        (Aggregation::Min, tally(1, 0), Value::Number(-0.000_007)),
        (Aggregation::Max, tally(1, 0), Value::Number(2.5)),
        (Aggregation::Count, None, Value::Number(0.0)),
        (Aggregation::Sum, None, Value::Number(0.0)),
        (Aggregation::Avg, None, Value::Null),
        (Aggregation::Min, None, Value::Null),
        (Aggregation::Max, None, Value::Null),
    ];
    for (aggregation, tally, expected) in table {
        assert_eq!(aggregate(aggregation, tally), expected, "{aggregation:?} {tally:?}");
    }
}

#[test]
fn of_too_many_groups_the_one_that_was_fed_least_recently_goes_and_what_counts_all_stays() {
    let mut state = ShardState::new();
    let one = |of: u32| {
        let whole = Feed {
            metric: MetricKey(1),
            group: Group::default(),
            window: Window::Lifetime,
            ..feeds(START, of, 1).remove(0)
        };
        vec![whole.clone(), Feed { metric: MetricKey(7), group: group(of), ..whole }]
    };
    let many = METRIC_SERIES_PER_PROFILE as u32 + 10;
    for of in 1..=many {
        let now = START.plus_ms(i64::from(of));
        assert!(!matches!(run(&mut state, &event(now, of.into(), one(of))), Outcome::Refused(_)));
    }
    let metrics = state.profile(&ann()).and_then(Profile::metrics).unwrap();
    assert_eq!(metrics.series().len(), METRIC_SERIES_PER_PROFILE);
    let whole = metrics.tally(MetricKey(1), GENERATION, &GroupRef::default(), START).unwrap();
    assert_eq!(whole.count, u64::from(many));
    let kept: Vec<u32> = metrics.series().iter().filter_map(|series| series.group.offer).map(|offer| offer.0).collect();
    assert_eq!((kept[0], kept.len()), (12, METRIC_SERIES_PER_PROFILE - 1));
    assert_eq!(ShardState::decode_chunks(state.encode_chunks()).unwrap().hash(), state.hash());
}

#[test]
fn a_metric_whose_groups_have_no_end_costs_no_other_its_counts() {
    let mut state = ShardState::new();
    let feed = |metric: u32, of: u32| Feed {
        metric: MetricKey(metric),
        group: group(of),
        window: Window::Lifetime,
        ..feeds(START, of, 1).remove(0)
    };
    for of in 1..=3 {
        run(&mut state, &event(START, of.into(), vec![feed(7, of)]));
    }
    for of in 1..=2 * METRIC_SERIES_PER_PROFILE as u32 {
        run(&mut state, &event(START.plus_ms(of.into()), u128::from(of) + 100, vec![feed(8, of)]));
    }
    let metrics = state.profile(&ann()).and_then(Profile::metrics).unwrap();
    let of = |metric: u32| metrics.series().iter().filter(|series| series.metric == MetricKey(metric)).count();
    assert_eq!((of(7), of(8)), (3, METRIC_SERIES_PER_PROFILE - 3));
}

#[test]
fn what_another_meaning_counted_and_what_a_metric_that_is_gone_did_is_forgotten() {
    let mut state = ShardState::new();
    let feed = |metric: u32, generation: u32, of: u32| Feed {
        metric: MetricKey(metric),
        generation,
        group: group(of),
        window: Window::Lifetime,
        ..feeds(START, 0, 1).remove(0)
    };
    let held = |state: &ShardState| {
        let metrics = state.profile(&ann()).and_then(Profile::metrics).unwrap();
        metrics.series().iter().map(|series| (series.metric.0, series.generation)).collect::<Vec<_>>()
    };
    run(&mut state, &event(START, 1, vec![feed(1, 1, 1), feed(1, 1, 2), feed(2, 0, 0)]));
    run(&mut state, &event(START, 2, vec![feed(1, 2, 3)]));
    assert_eq!(held(&state), [(1, 2), (2, 0)]);
    // A leader that did not know better yet.
    run(&mut state, &event(START, 3, vec![feed(1, 1, 3)]));
    assert_eq!(held(&state), [(1, 2), (2, 0)]);
    let ShardCommand::V1(mut command) = event(START, 4, vec![feed(1, 2, 3)]);
    if let ShardOp::Measured(measured) = &mut command.op {
        measured.gone.push(MetricKey(2));
    }
    run(&mut state, &ShardCommand::V1(command));
    assert_eq!(held(&state), [(1, 2)]);
}

#[test]
fn a_deleted_profile_forgets_what_was_counted_and_not_which_events_were() {
    let mut state = ShardState::new();
    let command = event(START, 1, feeds(START, 0, 5));
    run(&mut state, &command);
    let ProfileId { tenant, customer } = ann();
    let op = ShardOp::DeleteProfile { tenant, customer };
    run(&mut state, &ShardCommand::V1(ShardCommandV1 { now: START, leader: LEADER, revision: Revision(1), op }));
    assert_eq!(tally(&state, 0, 0, START), None);
    assert_eq!(run(&mut state, &command), Outcome::Responded(Responded { duplicate: true, ..Responded::default() }));
    assert_eq!(tally(&state, 0, 0, START), None);
    let ShardCommand::V1(mut other) = command;
    if let ShardOp::Measured(measured) = &mut other.op
        && let MeasuredOp::Event(event) = &mut measured.op
    {
        event.idempotency.body = 2;
    }
    assert_eq!(run(&mut state, &ShardCommand::V1(other)), Outcome::Refused(Refusal::IdempotencyConflict));
}
