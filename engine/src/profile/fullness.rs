//! Profiles and shards at their limits: everything stored can be read again, and a busy customer is still served.

use std::sync::Arc;

use proptest::prelude::*;

use crate::catalog::outcomes::IMPRESSION;
use crate::codec::{MAX_ENCODED_BYTES, claims};
use crate::decide::decision::{Decision, FlowChoice, Funnel, Ghost, Proposition, PropositionKind, Remarks};
use crate::keys::*;
use crate::limits::*;
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, Refusal, apply};
use crate::profile::cells::{Cells, Look, ProfileId};
use crate::profile::command::*;
use crate::profile::evidence::Observation;
use crate::profile::keyed::{Keyed, KeyedAnswer};
use crate::profile::measured::{Event, Measured, MeasuredOp};
use crate::profile::shard::ShardState;
use crate::profile::state::*;
use crate::time::{DAY_MS, Timestamp};
use crate::value::Value;

const NOW: Timestamp = Timestamp(500 * DAY_MS);
const LEADER: Leader = Leader { term: 1, replica: 1 };
const HOLD_MS: i64 = 900_000;

fn ann() -> ProfileId {
    ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new("ann") }
}

fn run(state: &mut ShardState, now: Timestamp, op: ShardOp) -> Outcome {
    let command = ShardCommandV1 { now, leader: LEADER, revision: Revision(5), op };
    apply(state, Position { leader: LEADER, index: 1 }, &ShardCommand::V1(command))
}

/// Every piece can be read, and the whole is what it was.
fn check_stored(state: &ShardState) {
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    let restored = ShardState::decode_chunks(&pieces).unwrap();
    assert!(restored.encode_chunks().eq(pieces));
    assert_eq!(restored.next_due(), state.next_due());
    assert_eq!(restored.keyed_bytes(), state.keyed_bytes());
}

fn proposition(offer: u32, takes: Vec<CapTake>) -> TakenProposition {
    TakenProposition {
        offer: OfferKey(offer),
        creative: CreativeKey(offer),
        channel: ChannelKey(2),
        placement: PlacementKey(6),
        category: Some(CategoryKey(1)),
        score: 0.5,
        mandatory: false,
        fallback: false,
        implied_impression: false,
        evidence: true,
        takes,
    }
}

fn decided(propositions: u32) -> Decision {
    let chosen = |offer| Proposition {
        offer: OfferKey(offer),
        creative: CreativeKey(offer),
        channel: ChannelKey(2),
        placement: PlacementKey(6),
        activity: None,
        slot: None,
        score: 0.5,
        kind: PropositionKind::Regular,
        takes: Vec::new(),
        computed: Vec::new(),
    };
    Decision {
        revision: Revision(5),
        flow: FlowChoice { key: None, version: 0, compact: false },
        propositions: (0..propositions).map(chosen).collect(),
        slots: Vec::new(),
        empty: None,
        funnel: Funnel::default(),
        arm: None,
        ghosts: Vec::new(),
        remarks: Remarks::default(),
        explanation: None,
    }
}

fn unit(cap: u32, limit: u64, window: Window, now: Timestamp) -> CapTake {
    let account = TakeAccount::Profile { limit, window };
    CapTake { cap: CapKey(cap), account, count_on: CountEvent::Impression, expires_at: now.plus_ms(HOLD_MS) }
}

fn take(decision: u64, now: Timestamp, propositions: Vec<TakenProposition>) -> Take {
    Take {
        tenant: ann().tenant,
        customer: ann().customer,
        decision: DecisionId(decision),
        idempotency: None,
        supersedes: None,
        propositions,
        ghosts: Vec::new(),
        mandatory: None,
        policies: Vec::new(),
        counts: Vec::new(),
        answerable_until: now.plus_ms(90 * DAY_MS),
        answer: None,
    }
}

fn respond(key: u128, now: Timestamp, offer: u32, outcome: OutcomeKey) -> Respond {
    Respond {
        tenant: ann().tenant,
        customer: ann().customer,
        idempotency: Idempotency { key, body: 1, until: now.plus_ms(DAY_MS) },
        proposition: None,
        decided_at: None,
        answerable_until: None,
        offer: OfferKey(offer),
        creative: CreativeKey(offer),
        channel: ChannelKey(2),
        placement: PlacementKey(6),
        category: Some(CategoryKey(1)),
        outcome,
        sentiment: Sentiment::Neutral,
        value: None,
        evidence: true,
        counts: Vec::new(),
        opt_out: None,
        withheld: false,
    }
}

#[test]
fn a_tenant_with_all_the_names_and_counters_it_may_have_can_be_read_again() {
    let mut state = ShardState::new();
    let names: Vec<Arc<str>> = (0..NAMES_PER_TENANT).map(|number| Arc::from(format!("{number:0>256}"))).collect();
    state.intern(&ann().tenant, &names);
    for number in 0..50_000 {
        let (offer, category) = (OfferKey(number), Some(CategoryKey(number)));
        state.observe(&ann().tenant, &Observation { offer, category, shown: true, positive: number % 3 == 0 });
    }
    check_stored(&state);
    assert!(state.encode_chunks().all(|piece| piece.len() <= 2 * PIECE_BYTES));
}

#[test]
fn rows_that_would_make_a_profile_unreadable_are_refused_and_nothing_is_lost() {
    let mut state = ShardState::new();
    let put = |schema: u32| {
        // Short texts take ten times as much in memory as encoded.
        let texts = Value::list((0..15).map(|_| Value::text("a")));
        let columns = (0..ATTRIBUTES_PER_PROFILE).map(|column| (format!("c{column}"), texts.clone())).collect();
        ShardOp::PutRow(PutRow { tenant: ann().tenant, customer: ann().customer, schema: SchemaKey(schema), columns })
    };
    let outcomes: Vec<Outcome> = (0..12).map(|schema| run(&mut state, NOW, put(schema))).collect();
    let kept = outcomes.iter().take_while(|outcome| **outcome == Outcome::Done).count();
    assert!((2..12).contains(&kept), "{kept} rows");
    assert_eq!(outcomes[kept], Outcome::Refused(Refusal::ProfileTooLarge));
    let profile = state.profile(&ann()).unwrap();
    assert_eq!(profile.rows.len(), kept);
    assert!(claims(profile) <= profile.weight() && profile.weight() < MAX_ENCODED_BYTES);
    // What is there can be replaced by less.
    let less = PutRow { tenant: ann().tenant, customer: ann().customer, schema: SchemaKey(0), columns: Vec::new() };
    assert_eq!(run(&mut state, NOW, ShardOp::PutRow(less)), Outcome::Done);
    check_stored(&state);
}

#[test]
fn events_leave_room_for_what_is_more_than_counted() {
    let mut state = ShardState::new();
    let idempotency = |key: usize| Idempotency { key: key as u128, body: 1, until: NOW.plus_ms(HOLD_MS) };
    let event = |key: usize| {
        let ProfileId { tenant, customer } = ann();
        let event = Event { tenant, customer, idempotency: idempotency(key) };
        ShardOp::Measured(Box::new(Measured { op: MeasuredOp::Event(event), feeds: Vec::new(), gone: Vec::new() }))
    };
    for key in 0..EVENT_KEYS_PER_PROFILE {
        assert!(matches!(run(&mut state, NOW, event(key)), Outcome::Responded(_)));
    }
    assert_eq!(run(&mut state, NOW, event(EVENT_KEYS_PER_PROFILE)), Outcome::Refused(Refusal::KeyTableFull));
    let answer = Some(Arc::new(FirstAnswer { decision: decided(1), contended: false }));
    let keyed =
        Take { idempotency: Some(idempotency(9_999)), answer, ..take(1, NOW, vec![proposition(1, Vec::new())]) };
    assert!(matches!(run(&mut state, NOW, ShardOp::Take(Box::new(keyed))), Outcome::Took(_)));
    let later = NOW.plus_ms(HOLD_MS);
    assert!(
        matches!(run(&mut state, later, event(EVENT_KEYS_PER_PROFILE)), Outcome::Responded(_)),
        "old keys are forgotten"
    );
}

#[test]
fn answered_keys_of_one_customer_are_limited_and_shared_not_copied() {
    let mut state = ShardState::new();
    let keyed = |decision: u64| {
        let idempotency = Some(Idempotency { key: decision.into(), body: 1, until: NOW.plus_ms(HOLD_MS) });
        let answer = Some(Arc::new(FirstAnswer { decision: decided(150), contended: false }));
        let propositions = (0..150).map(|offer| proposition(offer, Vec::new())).collect();
        ShardOp::Take(Box::new(Take { idempotency, answer, ..take(decision, NOW, propositions) }))
    };
    let taken = (0..1_000).take_while(|decision| matches!(run(&mut state, NOW, keyed(*decision)), Outcome::Took(_)));
    assert!((100..1_000).contains(&taken.count()));
    assert_eq!(run(&mut state, NOW, keyed(2_000)), Outcome::Refused(Refusal::KeyTableFull));
    let answer_of =
        |state: &ShardState| match &state.profile(&ann()).unwrap().dealings.as_ref().unwrap().keyed[0].answer {
            KeyedAnswer::Took { answer, .. } => Arc::clone(answer),
            KeyedAnswer::Responded { .. } | KeyedAnswer::Noted => panic!("a decision was asked for"),
        };
    let before = answer_of(&state);
    assert!(matches!(run(&mut state, NOW, ShardOp::Take(Box::new(take(3_000, NOW, Vec::new())))), Outcome::Took(_)));
    assert!(Arc::ptr_eq(&before, &answer_of(&state)));
    assert!(state.keyed_bytes() <= KEYED_BYTES_PER_PROFILE);
    check_stored(&state);
    let later = NOW.plus_ms(HOLD_MS);
    assert!(matches!(run(&mut state, later, keyed(4_000)), Outcome::Took(_)), "expired ones make room");
}

/// Which lists are full.
#[derive(Clone, Copy, Debug)]
struct Full {
    exposures: bool,
    /// Of how many different things the impressions are.
    things: u32,
    older: bool,
    outcomes: bool,
    caps: bool,
    holds: bool,
    opt_outs: bool,
    decisions: bool,
    answered: bool,
    keys: bool,
}

const ALL: Full = Full {
    exposures: true,
    things: 5_000,
    older: true,
    outcomes: true,
    caps: true,
    holds: true,
    opt_outs: true,
    decisions: true,
    answered: true,
    keys: true,
};

impl Full {
    fn profile(self) -> Profile {
        let many = DEALINGS_PER_PROFILE as u32;
        let ago = |ms: u32| NOW.plus_ms(-i64::from(ms) * 60_000);
        let if_full = |full: bool| if full { many } else { 0 };
        let mut dealings = Dealings::default();
        let exposures = (0..if_full(self.exposures)).map(|index| {
            let thing = index % self.things;
            let (creative, channel) = (CreativeKey(thing), ChannelKey((thing % 9) as u16));
            Exposure::new(ago(many - index), OfferKey(thing), creative, channel, PlacementKey(thing % 7))
                .in_category(Some(CategoryKey(thing % 50)))
        });
        let exposures: Exposures = exposures.collect();
        if self.older {
            let counted = (0..OLDER_PER_PROFILE as u32).map(|offer| (Counted::Offer(OfferKey(offer)), 1 + offer % 3));
            dealings.older = counted.collect();
            dealings.crowds = exposures.iter().map(|last| (*last, 2)).collect();
        }
        dealings.outcomes.extend((0..if_full(self.outcomes)).map(|index| OutcomeRecord {
            at: ago(many - index),
            offer: OfferKey(index),
            category: None,
            outcome: OutcomeKey(5),
            value: Some(Micros(1)),
            over_cap: false,
            repeat: false,
            times: 1,
        }));
        dealings.cap_uses.extend((0..if_full(self.caps)).map(|cap| {
            let times = (0..15).map(|index| ago(15 - index)).collect();
            CapUse { cap: CapKey(100 + cap), used: Used::Rolling(times) }
        }));
        for index in 0..if_full(self.holds) {
            let (decision, expires_at) = (DecisionId(index.into()), NOW.plus_ms(HOLD_MS));
            let CapTake { account, count_on, .. } = unit(0, 9, Window::Lifetime, NOW);
            let cap = CapKey(100 + index);
            dealings.reservations.push(Reservation { decision, rank: 1, cap, account, count_on, expires_at });
            dealings.policy_holds.push(PolicyHold { decision, rank: 1, counted: Counted::All, expires_at });
        }
        dealings.opt_outs.extend((0..if_full(self.opt_outs)).map(|index| OptOut::Offer(OfferKey(1_000_000 + index))));
        dealings.decisions.extend((0..if_full(self.decisions)).map(|index| DecisionRecord {
            decision: DecisionId(index.into()),
            at: ago(many - index),
            until: NOW.plus_ms(DAY_MS),
        }));
        if self.answered {
            dealings.answers.extend((0..ANSWERS_PER_PROFILE as u32).map(|index| Answer {
                decision: DecisionId((index % many).into()),
                rank: 1,
                outcome: OutcomeKey((index / many) as u16),
                positive: false,
            }));
            dealings.lapsed.extend((0..ANSWERS_PER_PROFILE as u32).map(|index| Lapsed {
                decision: DecisionId((index % many).into()),
                rank: 1,
                cap: CapKey(index),
            }));
            dealings.ghosts.extend(
                (0..many)
                    .map(|offer| (Ghost { offer: OfferKey(offer), creative: CreativeKey::NONE }, ago(many - offer))),
            );
            dealings.answered.extend((0..many).map(|offer| (OfferKey(offer), NOW)));
        }
        for key in 0..if_full(self.keys) {
            let answer = KeyedAnswer::Responded { late: false, repeat: false, over_cap: false };
            dealings.keyed.push(Keyed { key: key.into(), body: 1, until: NOW.plus_ms(DAY_MS), answer });
        }
        let mut profile = Profile { exposures, dealings: Some(Box::new(dealings)), ..Profile::default() };
        profile.tidy();
        profile
    }
}

#[test]
fn a_profile_at_every_limit_can_be_read_again() {
    let mut profile = ALL.profile();
    let values = VALUE_BYTES_PER_PROFILE / size_of::<Value>() - 100;
    profile.attributes = Box::new([(Symbol(0), Value::list(vec![Value::Null; values]))]);
    assert!((VALUE_BYTES_PER_PROFILE * 9 / 10..=VALUE_BYTES_PER_PROFILE).contains(&profile.value_weight()));
    assert!(claims(&profile) <= profile.weight());
    let mut state = ShardState::new();
    state.intern(&ann().tenant, &[Arc::from("list")]);
    for customer in 0..3 {
        let id = ProfileId { tenant: ann().tenant, customer: CustomerId::new(format!("c{customer}")) };
        state.put_profile(&id, profile.clone());
    }
    check_stored(&state);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A recommend on a channel that counts decisions as shown.
    Plain(u32),
    /// One that takes a unit of a profile cap.
    Capped(u32),
    /// One that a strict policy holds.
    Strict(u32),
    /// The impression of an earlier decision.
    Shown(usize),
    /// An impression without a proposition.
    Alone(u32),
    OptOut(u32),
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..9_000_u32).prop_map(Step::Plain),
        4 => (0..3_u32).prop_map(Step::Capped),
        2 => (0..9_000_u32).prop_map(Step::Strict),
        4 => (0..16_usize).prop_map(Step::Shown),
        2 => (0..9_000_u32).prop_map(Step::Alone),
        2 => (0..9_000_u32).prop_map(Step::OptOut),
        1 => (1..HOLD_MS / 2).prop_map(Step::Wait),
    ]
}

prop_compose! {
    fn full()(
        flags in proptest::collection::vec(any::<bool>(), 9),
        things in prop_oneof![Just(3_u32), Just(200), Just(5_000)],
    ) -> Full {
        Full {
            exposures: flags[0],
            things,
            older: flags[1],
            outcomes: flags[2],
            caps: flags[3],
            holds: flags[4],
            opt_outs: flags[5],
            decisions: flags[6],
            answered: flags[7],
            keys: flags[8],
        }
    }
}

const CAP_LIMIT: u64 = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn nothing_refuses_a_busy_customer_and_caps_stay_exact(
        full in full(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut state = ShardState::new();
        state.intern(&ann().tenant, &[Arc::from("a")]);
        state.put_profile(&ann(), full.profile());
        let mut now = NOW;
        // By cap: units used, and those held until an instant for a decision.
        let mut used = [0_u64; 3];
        let mut held: Vec<(usize, DecisionId, Timestamp)> = Vec::new();
        for (number, step) in (0_u64..).zip(steps) {
            let id = 1_000_000 + number;
            let key = u128::from(id);
            match step {
                Step::Plain(offer) => {
                    let shown = TakenProposition { implied_impression: true, ..proposition(offer, Vec::new()) };
                    let before = state.profile(&ann()).map_or(0, |of| of.impressions(Counted::All, Window::Lifetime, now));
                    let outcome = run(&mut state, now, ShardOp::Take(Box::new(take(id, now, vec![shown]))));
                    prop_assert!(matches!(outcome, Outcome::Took(_)), "{outcome:?}");
                    let profile = state.profile(&ann()).unwrap();
                    prop_assert_eq!(profile.impressions(Counted::All, Window::Lifetime, now), before + 1);
                    let lately = profile.impressions(Counted::Offer(OfferKey(offer)), Window::Rolling { ms: 1 }, now);
                    prop_assert!(lately > 0);
                }
                Step::Capped(cap) => {
                    let wanted = proposition(20_000 + cap, vec![unit(cap, CAP_LIMIT, Window::Lifetime, now)]);
                    let outcome = run(&mut state, now, ShardOp::Take(Box::new(take(id, now, vec![wanted]))));
                    match outcome {
                        Outcome::Took(_) => held.push((cap as usize, DecisionId(id), now.plus_ms(HOLD_MS))),
                        Outcome::Refused(Refusal::CapRefused { offers, .. }) => {
                            prop_assert_eq!(offers, vec![OfferKey(20_000 + cap)]);
                        }
                        other @ (Outcome::Responded(_)
                        | Outcome::Released { .. }
                        | Outcome::Done
                        | Outcome::Refused(_)) => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Strict(offer) => {
                    let policy = PolicyTake {
                        rank: 1,
                        counted: Counted::Offer(OfferKey(offer)),
                        limit: 2,
                        window: Window::Rolling { ms: DAY_MS },
                        earlier_only: false,
                        expires_at: now.plus_ms(HOLD_MS),
                    };
                    let strict = Take { policies: vec![policy], ..take(id, now, vec![proposition(offer, Vec::new())]) };
                    let outcome = run(&mut state, now, ShardOp::Take(Box::new(strict)));
                    let fine = matches!(outcome, Outcome::Took(_) | Outcome::Refused(Refusal::CapRefused { .. }));
                    prop_assert!(fine, "{outcome:?}");
                }
                Step::Shown(which) => {
                    let Some(index) = which.checked_rem(held.len()) else { continue };
                    let (cap, decision, until) = held[index];
                    let shown = Respond {
                        proposition: Some((decision, 1)),
                        decided_at: Some(until.plus_ms(-HOLD_MS)),
                        answerable_until: Some(now.plus_ms(DAY_MS)),
                        counts: vec![unit(cap as u32, CAP_LIMIT, Window::Lifetime, now)],
                        ..respond(key, now, 20_000 + cap as u32, IMPRESSION)
                    };
                    match run(&mut state, now, ShardOp::Respond(Box::new(shown))) {
                        Outcome::Responded(responded) => {
                            prop_assert!(now >= until || responded.repeat || !responded.over_cap, "a held unit is there");
                            used[cap] += u64::from(!responded.repeat && !responded.over_cap);
                            held.remove(index);
                        }
                        Outcome::Refused(Refusal::KeyTableFull) => {}
                        other @ (Outcome::Took(_)
                        | Outcome::Released { .. }
                        | Outcome::Done
                        | Outcome::Refused(_)) => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Alone(offer) => {
                    let outcome = run(&mut state, now, ShardOp::Respond(Box::new(respond(key, now, offer, IMPRESSION))));
                    let fine = matches!(outcome, Outcome::Responded(_) | Outcome::Refused(Refusal::KeyTableFull));
                    prop_assert!(fine, "{outcome:?}");
                }
                Step::OptOut(offer) => {
                    let opt_out = Some(OptOut::Offer(OfferKey(offer)));
                    let said = Respond { opt_out, sentiment: Sentiment::Negative, ..respond(key, now, offer, OutcomeKey(4)) };
                    let outcome = run(&mut state, now, ShardOp::Respond(Box::new(said)));
                    prop_assert!(matches!(outcome, Outcome::Responded(_)), "{outcome:?}");
                    let bars = state.profile(&ann()).unwrap().opt_outs().to_vec();
                    prop_assert!(bars.contains(&OptOut::Offer(OfferKey(offer))) || bars.contains(&OptOut::All));
                }
                Step::Wait(ms) => now = now.plus_ms(ms),
            }
            let profile = state.profile(&ann()).unwrap();
            for (cap, used) in used.iter().enumerate() {
                let held = held.iter().filter(|(of, _, until)| *of == cap && now < *until).count() as u64;
                prop_assert!(used + held <= CAP_LIMIT);
                prop_assert_eq!(profile.cap_used(CapKey(cap as u32), Window::Lifetime, now), used + held);
            }
            prop_assert!(profile.exposures.len() <= EXPOSURES_PER_PROFILE);
            prop_assert!(profile.weight() < MAX_ENCODED_BYTES / 2);
        }
        check_stored(&state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn impressions_counted_together_are_never_too_few_and_hardly_too_old(
        things in prop_oneof![Just(1_u32), Just(5), Just(300), Just(6_000)],
        gaps in proptest::collection::vec(0..400_000_i64, 64),
        ages in proptest::collection::vec(0..400 * DAY_MS, 3),
        rounds in 1..3_usize,
    ) {
        let mut profile = Profile::default();
        let mut all: Vec<Exposure> = Vec::new();
        let mut now = NOW;
        for _ in 0..rounds {
            while profile.exposures.len() <= EXPOSURES_PER_PROFILE {
                now = now.plus_ms(gaps[all.len() % gaps.len()]);
                let thing = (all.len() as u32).wrapping_mul(7_919) % things;
                let seen = Exposure::new(now, OfferKey(thing), CreativeKey(thing / 2), ChannelKey(1), PlacementKey(2));
                let seen = seen.in_category(Some(CategoryKey(thing % 4)));
                profile.expose(seen);
                all.push(seen);
            }
            profile.make_room(now);
            prop_assert!(profile.exposures.len() <= EXPOSURES_PER_PROFILE);
        }
        let thing = OfferKey(things / 2);
        for counted in [Counted::All, Counted::Offer(thing), Counted::Category(CategoryKey(thing.0 % 4))] {
            let true_count = |ms: i64| {
                all.iter().filter(|seen| now.since_ms(seen.at()) < ms && profile.counts(counted, seen)).count() as u64
            };
            let lifetime = profile.impressions(counted, Window::Lifetime, now);
            prop_assert_eq!(lifetime, true_count(i64::MAX));
            for ms in &ages {
                let counts = profile.impressions(counted, Window::Rolling { ms: *ms }, now);
                prop_assert!(counts >= true_count(*ms));
                if things == 1 {
                    prop_assert!(counts <= true_count(*ms + *ms / 32 + 1));
                }
            }
        }
        for thing in (0..things).take(20).map(OfferKey) {
            let last = all.iter().rev().find(|seen| seen.offer == thing).map(Exposure::at);
            prop_assert!(profile.last_shown(thing) == last || things > 3_000);
        }
    }
}
