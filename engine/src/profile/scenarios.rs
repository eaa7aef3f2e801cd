//! One rule of the semantics a test.

use std::sync::Arc;

use crate::catalog::outcomes::IMPRESSION;
use crate::decide::decision::{Decision, FlowChoice, Funnel, Ghost, Proposition, PropositionKind, Remarks};
use crate::decide::view::EscrowView;
use crate::keys::*;
use crate::limits::{EXPOSURES_PER_PROFILE, KEPT_ANSWER_BYTES, RETENTION_MS};
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, Refusal, Responded, Took, apply};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::*;
use crate::profile::shard::ShardState;
use crate::profile::state::Profile;
use crate::time::{DAY_MS, HOUR_MS, Span, Timestamp};
use crate::value::Value;

const LEADER: Leader = Leader { term: 1, replica: 1 };
const CLICK: OutcomeKey = OutcomeKey(1);
const CAP: CapKey = CapKey(3);
const ACCOUNT: AccountId = AccountId { tenant: 1, cap: CapKey(9), ordinal: 0 };
const HOLD_MS: i64 = 900_000;

struct World {
    state: ShardState,
    now: Timestamp,
    keys: u128,
}

fn ann() -> ProfileId {
    ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new("ann") }
}

fn proposition(offer: u32, takes: Vec<CapTake>) -> TakenProposition {
    TakenProposition {
        offer: OfferKey(offer),
        creative: CreativeKey::NONE,
        channel: ChannelKey(2),
        placement: PlacementKey(6),
        category: Some(CategoryKey(1)),
        score: 0.5,
        mandatory: false,
        fallback: false,
        evidence: true,
        implied_impression: false,
        takes,
    }
}

impl World {
    fn new() -> Self {
        World { state: ShardState::new(), now: Timestamp(500 * DAY_MS), keys: 0 }
    }

    fn run(&mut self, op: ShardOp) -> Outcome {
        let command = ShardCommandV1 { now: self.now, leader: LEADER, revision: Revision(5), op };
        apply(&mut self.state, Position { leader: LEADER, index: 1 }, &ShardCommand::V1(command))
    }

    fn wait(&mut self, ms: i64) {
        self.now = self.now.plus_ms(ms);
    }

    fn take(&self, decision: u64, propositions: Vec<TakenProposition>) -> Take {
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
            answerable_until: self.now.plus_ms(90 * DAY_MS),
            answer: None,
        }
    }

    fn taking(&mut self, take: Take) -> Outcome {
        self.run(ShardOp::Take(Box::new(take)))
    }

    fn outcome(&mut self, proposition: Option<(u64, u16)>, outcome: OutcomeKey, counts: Vec<CapTake>) -> Respond {
        self.keys += 1;
        Respond {
            tenant: ann().tenant,
            customer: ann().customer,
            idempotency: Idempotency { key: self.keys, body: 1, until: self.now.plus_ms(DAY_MS) },
            proposition: proposition.map(|(decision, rank)| (DecisionId(decision), rank)),
            decided_at: Some(self.now),
            answerable_until: Some(self.now.plus_ms(90 * DAY_MS)),
            offer: OfferKey(1),
            creative: CreativeKey::NONE,
            channel: ChannelKey(2),
            placement: PlacementKey(6),
            category: Some(CategoryKey(1)),
            outcome,
            sentiment: if outcome == CLICK { Sentiment::Positive } else { Sentiment::Neutral },
            value: None,
            evidence: true,
            counts,
            opt_out: None,
            withheld: false,
        }
    }

    fn responding(&mut self, respond: Respond) -> Responded {
        let outcome = self.run(ShardOp::Respond(Box::new(respond)));
        let Outcome::Responded(responded) = outcome else { panic!("{outcome:?}") };
        responded
    }

    fn own(&self, limit: u64, window: Window) -> CapTake {
        CapTake {
            cap: CAP,
            account: TakeAccount::Profile { limit, window },
            count_on: CountEvent::Impression,
            expires_at: self.now.plus_ms(HOLD_MS),
        }
    }

    fn global(&self, count_on: CountEvent) -> CapTake {
        let account = TakeAccount::Global { account: ACCOUNT, amount: 1 };
        CapTake { cap: ACCOUNT.cap, account, count_on, expires_at: self.now.plus_ms(HOLD_MS) }
    }

    fn grant(&mut self, granted: u64, span: Span, closed: bool) {
        let message = EscrowMessage {
            account: ACCOUNT,
            granted,
            span,
            unit: 1,
            cooling_ms: 0,
            recall: Recall::Nothing,
            closed,
            version: 0,
            soft: None,
        };
        assert_eq!(self.run(ShardOp::Escrow(vec![message])), Outcome::Done);
    }

    fn ann(&self) -> &Profile {
        self.state.profile(&ann()).unwrap()
    }
}

fn took(outcome: Outcome) -> Took {
    let Outcome::Took(took) = outcome else { panic!("{outcome:?}") };
    took
}

fn refused_offers(outcome: Outcome) -> Vec<u32> {
    let Outcome::Refused(Refusal::CapRefused { offers, .. }) = outcome else { panic!("{outcome:?}") };
    offers.into_iter().map(|offer| offer.0).collect()
}

#[test]
fn a_click_implies_one_impression_and_each_outcome_counts_once() {
    let mut world = World::new();
    world.grant(5, Span::ALWAYS, false);
    let own = world.own(3, Window::Lifetime);
    let click_cap = world.global(CountEvent::Outcome(CLICK));
    took(world.taking(world.take(1, vec![proposition(1, vec![own])])));
    let click = world.outcome(Some((1, 1)), CLICK, vec![own, click_cap]);
    assert_eq!(world.responding(click), Responded::default());
    let again = world.outcome(Some((1, 1)), CLICK, vec![own, click_cap]);
    assert_eq!(world.responding(again), Responded { repeat: true, ..Responded::default() });
    let shown = world.outcome(Some((1, 1)), IMPRESSION, vec![own]);
    assert!(world.responding(shown).repeat, "the click implied it");

    assert_eq!(world.ann().exposures.len(), 1);
    assert_eq!(world.ann().cap_used(CAP, Window::Lifetime, world.now), 1);
    assert_eq!(world.state.account(ACCOUNT).unwrap().spent(), 1);
    let tally = world.state.evidence(&ann().tenant).unwrap().offer(OfferKey(1));
    assert_eq!((tally.shown, tally.positive), (1, 1));
    assert_eq!(world.ann().fatigue(OfferKey(1), 1e9, world.now), 0.0, "good news resets fatigue");
}

#[test]
fn a_late_outcome_takes_a_fresh_unit_or_is_over_the_cap() {
    let mut world = World::new();
    let own = world.own(1, Window::Lifetime);
    took(world.taking(world.take(1, vec![proposition(1, vec![own])])));
    assert_eq!(refused_offers(world.taking(world.take(2, vec![proposition(8, vec![own])]))), [8]);
    world.wait(HOLD_MS);
    let own = world.own(1, Window::Lifetime);
    took(world.taking(world.take(3, vec![proposition(1, vec![own])])));
    let late = world.outcome(Some((1, 1)), IMPRESSION, vec![own]);
    assert_eq!(world.responding(late), Responded { late: true, over_cap: true, ..Responded::default() });
    let in_time = world.outcome(Some((3, 1)), IMPRESSION, vec![own]);
    assert_eq!(world.responding(in_time), Responded::default());
    assert_eq!(world.ann().exposures.len(), 2, "both were seen");
    assert_eq!(world.ann().outcomes().len(), 1, "one is stored as over the cap");
    assert_eq!(world.ann().cap_used(CAP, Window::Lifetime, world.now), 1);
}

#[test]
fn what_is_shown_by_being_decided_is_used_at_once() {
    let mut world = World::new();
    world.grant(1, Span::ALWAYS, false);
    let units = vec![world.own(1, Window::Lifetime), world.global(CountEvent::Decision)];
    let implied = TakenProposition { implied_impression: true, ..proposition(1, units) };
    took(world.taking(world.take(1, vec![implied])));
    assert_eq!((world.ann().exposures.len(), world.state.account(ACCOUNT).unwrap().spent()), (1, 1));
    assert!(world.ann().dealings.as_ref().unwrap().reservations.is_empty());
    assert_eq!(world.state.evidence(&ann().tenant).unwrap().all().shown, 1);
}

#[test]
fn what_is_no_evidence_is_not_counted_as_shown() {
    let mut world = World::new();
    let held_out = TakenProposition { implied_impression: true, evidence: false, ..proposition(1, Vec::new()) };
    took(world.taking(world.take(1, vec![held_out])));
    assert_eq!(world.ann().exposures.len(), 1);
    assert!(world.state.evidence(&ann().tenant).is_none_or(|evidence| evidence.all().shown == 0));
}

#[test]
fn soft_caps_count_what_the_decision_shows_as_far_as_they_have_units() {
    let mut world = World::new();
    for decision in 1..=3 {
        let implied = TakenProposition { implied_impression: true, ..proposition(1, Vec::new()) };
        let counts = vec![world.own(2, Window::Lifetime)];
        took(world.taking(Take { counts, ..world.take(decision, vec![implied]) }));
        assert_eq!(world.ann().cap_used(CAP, Window::Lifetime, world.now), decision.min(2));
    }
    // Said again by the channel, it is a repeat and counts nowhere twice.
    let again = world.outcome(Some((3, 1)), IMPRESSION, vec![world.own(9, Window::Lifetime)]);
    assert!(world.responding(again).repeat);
    assert_eq!(world.ann().cap_used(CAP, Window::Lifetime, world.now), 2);
}

#[test]
fn what_passes_a_strict_policy_by_counts_and_is_not_refused() {
    let mut world = World::new();
    let policy = |world: &World, limit| PolicyTake {
        rank: 1,
        counted: Counted::All,
        limit,
        window: Window::Rolling { ms: HOUR_MS },
        earlier_only: false,
        expires_at: world.now.plus_ms(HOLD_MS),
    };
    let take = |world: &World, decision, limit| Take {
        policies: vec![policy(world, limit)],
        ..world.take(decision, vec![proposition(1, Vec::new())])
    };
    took(world.taking(take(&world, 1, 1)));
    took(world.taking(take(&world, 2, u64::MAX)));
    assert_eq!(world.ann().impressions(Counted::All, Window::Lifetime, world.now), 2);
    assert_eq!(refused_offers(world.taking(take(&world, 3, 2))), [1]);
}

#[test]
fn a_refused_decision_takes_nothing_at_all() {
    let mut world = World::new();
    world.grant(1, Span::ALWAYS, false);
    let unit = world.global(CountEvent::Impression);
    let before = world.state.hash();
    let two = vec![proposition(1, vec![unit]), proposition(2, vec![unit])];
    assert_eq!(refused_offers(world.taking(world.take(1, two))), [2]);
    assert_eq!(world.state.hash(), before);
    assert_eq!(world.state.escrow(1).free(ACCOUNT.cap, world.now).unwrap().amount, 1);
}

/// An empty decision over so many candidates.
fn said(candidates: u32) -> Decision {
    Decision {
        revision: Revision(5),
        flow: FlowChoice { key: None, version: 0, compact: false },
        propositions: Vec::new(),
        slots: Vec::new(),
        empty: None,
        funnel: Funnel { total_candidates: candidates, ..Funnel::default() },
        arm: None,
        ghosts: Vec::new(),
        remarks: Remarks::default(),
        explanation: None,
    }
}

#[test]
fn an_answer_is_kept_for_retries_without_computed_fields_that_no_log_entry_could_hold() {
    let with = |bytes: usize| {
        let computed = vec![(0, Value::text("x".repeat(bytes)))];
        let chosen = Proposition {
            offer: OfferKey(1),
            creative: CreativeKey::NONE,
            channel: ChannelKey::NONE,
            placement: PlacementKey::NONE,
            activity: None,
            slot: None,
            score: 0.5,
            kind: PropositionKind::Regular,
            takes: Vec::new(),
            computed,
        };
        Decision { propositions: vec![chosen; 100], explanation: Some(Box::default()), ..said(1) }
    };
    let kept = FirstAnswer::of(&with(1_000), false);
    assert_eq!(kept.decision, Decision { explanation: None, ..with(1_000) });
    let kept = FirstAnswer::of(&with(2_000), false);
    assert!(kept.bytes() < KEPT_ANSWER_BYTES && kept.decision.propositions[99].computed.is_empty());
    assert_eq!(kept.decision.propositions.len(), 100);
}

#[test]
fn an_outcome_uses_no_unit_that_is_held_for_another_offers_cap() {
    let mut world = World::new();
    world.grant(1, Span::ALWAYS, false);
    let own = world.own(1, Window::Lifetime);
    let unit = world.global(CountEvent::Impression);
    took(world.taking(world.take(1, vec![proposition(2, vec![unit])])));
    let mistaken = world.outcome(Some((1, 1)), IMPRESSION, vec![own]);
    world.responding(mistaken);
    let account = world.state.account(ACCOUNT).unwrap();
    assert_eq!((account.spent(), account.reserved()), (0, 1), "rank 1 is another offer's");
    assert_eq!(world.ann().cap_used(CAP, Window::Lifetime, world.now), 1);
}

#[test]
fn a_retried_decision_gets_the_first_answer_for_its_time() {
    let mut world = World::new();
    let key = Idempotency { key: 4, body: 9, until: world.now.plus_ms(15 * 60_000) };
    let own = world.own(9, Window::Lifetime);
    let answer = |funnel| Some(Arc::new(FirstAnswer { decision: said(funnel), contended: false }));
    let first = Take { idempotency: Some(key), answer: answer(1), ..world.take(1, vec![proposition(1, vec![own])]) };
    let again = Take { idempotency: Some(key), answer: answer(2), ..world.take(2, vec![proposition(2, vec![own])]) };
    assert_eq!(took(world.taking(first)).first_answer, None);
    let repeated = took(world.taking(again.clone()));
    assert_eq!((repeated.decision, repeated.first_answer), (DecisionId(1), answer(1)));
    let other = Take { idempotency: Some(Idempotency { body: 8, ..key }), ..again.clone() };
    assert_eq!(world.taking(other), Outcome::Refused(Refusal::IdempotencyConflict));
    assert_eq!(world.taking(world.take(1, Vec::new())), Outcome::Refused(Refusal::DecisionRepeated));
    world.wait(15 * 60_000);
    assert_eq!(world.run(ShardOp::Tick), Outcome::Done);
    assert_eq!(world.state.keyed_bytes(), 0);
    assert_eq!(took(world.taking(again)).first_answer, None);
}

#[test]
fn a_calendar_reservation_belongs_to_the_day_of_its_decision() {
    let mut world = World::new();
    let day = Span { from: world.now, until: world.now.plus_ms(DAY_MS) };
    let next = Span { from: day.until, until: day.until.plus_ms(DAY_MS) };
    world.wait(DAY_MS - 1_000);
    let yesterday = world.own(1, Window::Calendar(day));
    took(world.taking(world.take(1, vec![proposition(1, vec![yesterday])])));
    world.wait(2_000);
    let today = world.own(1, Window::Calendar(next));
    took(world.taking(world.take(2, vec![proposition(1, vec![today])])));
    let shown = world.outcome(Some((1, 1)), IMPRESSION, vec![today]);
    assert_eq!(world.responding(shown), Responded::default());
    assert_eq!(world.ann().cap_used(CAP, Window::Calendar(next), world.now), 1, "only today's reservation");
}

#[test]
fn superseding_and_releasing_give_unshown_units_back() {
    let mut world = World::new();
    world.grant(2, Span::ALWAYS, false);
    let unit = world.global(CountEvent::Impression);
    took(world.taking(world.take(1, vec![proposition(1, vec![unit]), proposition(2, vec![unit])])));
    let shown = world.outcome(Some((1, 1)), IMPRESSION, vec![unit]);
    world.responding(shown);
    let next = Take { supersedes: Some(DecisionId(1)), ..world.take(2, vec![proposition(3, vec![unit])]) };
    took(world.taking(next));
    let account = world.state.account(ACCOUNT).unwrap();
    assert_eq!((account.spent(), account.reserved(), account.free()), (1, 1, 0));
    let (tenant, customer) = (ann().tenant, ann().customer);
    let release = Release { tenant, customer, decision: DecisionId(2), ranks: vec![1] };
    assert_eq!(world.run(ShardOp::Release(release)), Outcome::Released { units: 1 });
    assert_eq!(world.state.account(ACCOUNT).unwrap().free(), 1);
}

#[test]
fn a_deleted_profile_returns_what_it_held() {
    let mut world = World::new();
    world.grant(1, Span::ALWAYS, false);
    took(world.taking(world.take(1, vec![proposition(1, vec![world.global(CountEvent::Impression)])])));
    let (tenant, customer) = (ann().tenant, ann().customer);
    world.run(ShardOp::DeleteProfile { tenant, customer });
    assert!(world.state.profile(&ann()).is_none());
    assert_eq!((world.state.account(ACCOUNT).unwrap().free(), world.state.profile_count()), (1, 0));
    assert_eq!(world.state.next_due(), None);
}

#[test]
fn what_a_held_out_customer_does_all_the_same_is_recorded_and_takes_nothing() {
    let mut world = World::new();
    let own = world.own(9, Window::Lifetime);
    let bought = Respond { withheld: true, ..world.outcome(None, CLICK, vec![own]) };
    assert_eq!(world.responding(bought), Responded::default());
    let profile = world.ann();
    assert_eq!((profile.outcomes().len(), profile.exposures.len()), (1, 0));
    assert_eq!(profile.cap_used(CAP, Window::Lifetime, world.now), 0);
}

#[test]
fn mandatory_offers_are_limited_by_distinct_offers_a_day() {
    let mut world = World::new();
    let day = Span { from: world.now, until: world.now.plus_ms(DAY_MS) };
    let mandatory = |offer| TakenProposition { mandatory: true, ..proposition(offer, Vec::new()) };
    let take = |world: &World, decision, offers: &[u32], day| Take {
        mandatory: Some((day, 2)),
        ..world.take(decision, offers.iter().map(|offer| mandatory(*offer)).collect())
    };
    took(world.taking(take(&world, 1, &[1, 2], day)));
    took(world.taking(take(&world, 2, &[2, 1], day)));
    assert_eq!(refused_offers(world.taking(take(&world, 3, &[1, 3], day))), [3]);
    world.wait(DAY_MS);
    let next = Span { from: day.until, until: day.until.plus_ms(DAY_MS) };
    took(world.taking(take(&world, 4, &[3], next)));
}

#[test]
fn a_strict_policy_holds_within_an_answer_but_a_cooldown_looks_at_earlier_ones() {
    let mut world = World::new();
    let policy = |world: &World, rank, earlier_only| PolicyTake {
        rank,
        counted: Counted::All,
        limit: 1,
        window: Window::Rolling { ms: HOUR_MS },
        earlier_only,
        expires_at: world.now.plus_ms(HOLD_MS),
    };
    let take = |world: &World, decision, earlier_only| Take {
        policies: vec![policy(world, 1, earlier_only), policy(world, 2, earlier_only)],
        ..world.take(decision, vec![proposition(1, Vec::new()), proposition(2, Vec::new())])
    };
    assert_eq!(refused_offers(world.taking(take(&world, 1, false))), [2]);
    took(world.taking(take(&world, 2, true)));
    assert_eq!(refused_offers(world.taking(take(&world, 3, true))), [1, 2], "held");
    world.wait(HOLD_MS);
    took(world.taking(take(&world, 4, true)));
    let shown = world.outcome(Some((4, 1)), IMPRESSION, Vec::new());
    world.responding(shown);
    world.wait(HOLD_MS);
    assert_eq!(refused_offers(world.taking(take(&world, 5, true))), [1, 2], "shown within the hour");
    world.wait(HOUR_MS);
    took(world.taking(take(&world, 6, true)));
}

#[test]
fn without_a_proposition_an_outcome_takes_a_unit_if_one_is_free() {
    let mut world = World::new();
    let own = world.own(1, Window::Rolling { ms: HOUR_MS });
    for expected in [false, true] {
        let shown = world.outcome(None, IMPRESSION, vec![own]);
        assert_eq!(world.responding(shown), Responded { over_cap: expected, ..Responded::default() });
    }
    world.wait(HOUR_MS);
    let shown = world.outcome(None, IMPRESSION, vec![own]);
    assert_eq!(world.responding(shown), Responded::default());
}

#[test]
fn a_fence_refuses_what_was_decided_before_it() {
    let mut world = World::new();
    assert_eq!(world.run(ShardOp::Fence(Revision(6))), Outcome::Done);
    assert_eq!(world.taking(world.take(1, Vec::new())), Outcome::Refused(Refusal::Fenced { need: Revision(6) }));
    assert_eq!(world.run(ShardOp::Tick), Outcome::Done);
}

#[test]
fn an_account_that_was_closed_is_not_revived_by_an_old_message() {
    let mut world = World::new();
    let day = Span { from: Timestamp(0), until: world.now.plus_ms(1_000) };
    world.grant(5, day, false);
    world.wait(1_000);
    assert_eq!(world.state.next_due(), Some(day.until));
    world.run(ShardOp::Tick);
    assert_eq!(world.state.account(ACCOUNT).unwrap().returned(), 5);
    world.grant(5, day, true);
    assert_eq!(world.state.account(ACCOUNT), None);
    world.grant(5, Span::ALWAYS, false);
    assert_eq!(world.state.account(ACCOUNT), None);
}

#[test]
fn impressions_older_than_every_window_still_count_for_ever() {
    let mut world = World::new();
    let own = world.own(9, Window::Lifetime);
    for _ in 0..3 {
        let shown = world.outcome(None, IMPRESSION, vec![own]);
        world.responding(shown);
    }
    world.wait(RETENTION_MS);
    let shown = world.outcome(None, IMPRESSION, vec![own]);
    world.responding(shown);
    let profile = world.ann();
    assert_eq!(profile.exposures.len(), 1);
    for counted in [Counted::All, Counted::Category(CategoryKey(1)), Counted::Placement(PlacementKey(6))] {
        assert_eq!(profile.impressions(counted, Window::Lifetime, world.now), 4, "{counted:?}");
    }
    assert_eq!(profile.cap_used(CAP, Window::Lifetime, world.now), 4);
}

#[test]
fn a_history_that_is_full_still_counts_every_impression() {
    let mut world = World::new();
    let shown = EXPOSURES_PER_PROFILE as u64 + 10;
    for _ in 0..shown {
        world.wait(2);
        let mut shown = world.outcome(None, IMPRESSION, Vec::new());
        shown.idempotency.until = world.now.plus_ms(1);
        world.responding(shown);
    }
    let profile = world.ann();
    assert!(profile.exposures.len() <= EXPOSURES_PER_PROFILE);
    for window in [Window::Lifetime, Window::Rolling { ms: DAY_MS }] {
        assert_eq!(profile.impressions(Counted::Offer(OfferKey(1)), window, world.now), shown);
    }
    assert_eq!(profile.last_shown(OfferKey(1)), Some(world.now));
}

#[test]
fn repeated_outcomes_are_counted_and_not_kept_one_by_one() {
    let mut world = World::new();
    took(world.taking(world.take(1, vec![proposition(1, vec![world.own(3, Window::Lifetime)])])));
    for _ in 0..5 {
        let shown = world.outcome(Some((1, 1)), IMPRESSION, Vec::new());
        world.responding(shown);
        world.wait(1);
    }
    let [repeated] = world.ann().outcomes() else { panic!("{:?}", world.ann().outcomes()) };
    assert_eq!((repeated.times, repeated.repeat, repeated.at), (4, true, world.now.plus_ms(-1)));
}

#[test]
fn a_ghost_is_remembered_once_per_offer() {
    let mut world = World::new();
    let ghost = Ghost { offer: OfferKey(4), creative: CreativeKey::NONE };
    for decision in 1..3 {
        took(world.taking(Take { ghosts: vec![ghost], ..world.take(decision, Vec::new()) }));
        world.wait(1);
    }
    let ghosts = &world.ann().dealings.as_ref().unwrap().ghosts;
    assert_eq!(ghosts.as_slice(), [(ghost, Timestamp(500 * DAY_MS))]);
}

#[test]
fn log_time_never_runs_back() {
    let mut world = World::new();
    world.run(ShardOp::Tick);
    let before = world.state.log_time();
    world.wait(-HOUR_MS);
    world.run(ShardOp::Tick);
    assert_eq!(world.state.log_time(), before);
}

#[test]
fn a_clone_is_not_touched_by_what_is_applied_later() {
    let mut world = World::new();
    let shown = world.outcome(None, IMPRESSION, Vec::new());
    world.responding(shown);
    let snapshot = world.state.clone();
    let hash = snapshot.hash();
    let shown = world.outcome(None, IMPRESSION, Vec::new());
    world.responding(shown);
    assert_eq!(snapshot.hash(), hash);
    assert_ne!(world.state.hash(), hash);
}

/// Given 20,000 profiles of five attributes and two segments with ten impressions each, keys and reservations lapsed.
#[test]
fn a_profile_with_ten_impressions_is_small() {
    const PROFILES: u32 = 20_000;
    let mut world = World::new();
    let start = world.now;
    for number in 0..PROFILES {
        world.now = start;
        let id = ProfileId { tenant: ann().tenant, customer: CustomerId::new(format!("c{number:07}")) };
        let attributes = (0..5).map(|index| (format!("a{index}"), Value::Number(f64::from(number)))).collect();
        let segments = Some(vec!["s1".to_owned(), "s2".to_owned()]);
        let (tenant, customer) = (id.tenant.clone(), id.customer.clone());
        world.run(ShardOp::PutProfile(PutProfile { tenant, customer, attributes: Some(attributes), segments }));
        let shown =
            (0..10).map(|offer| TakenProposition { implied_impression: true, ..proposition(offer, Vec::new()) });
        let take = Take {
            tenant: id.tenant,
            customer: id.customer,
            answerable_until: world.now.plus_ms(1),
            ..world.take(u64::from(number), shown.collect())
        };
        took(world.taking(take));
    }
    world.wait(1);
    world.run(ShardOp::Tick);
    assert_eq!(world.state.next_due(), None);
    let restored = ShardState::decode_chunks(world.state.encode_chunks()).unwrap();
    for state in [&world.state, &restored] {
        let (mut own, mut all) = (0, 0);
        for (customer, profile) in state.profiles_of(&ann().tenant) {
            let id = ProfileId { tenant: ann().tenant, customer };
            let owned = state.dealing_bytes(&id);
            own += owned;
            all +=
                owned + size_of_val(&*profile.attributes) + size_of_val(&*profile.segments) + 80 + id.customer.0.len();
        }
        let (own, all) = (own / PROFILES as usize, all / PROFILES as usize);
        assert!(own <= 250, "{own} bytes beside what the channel sends");
        assert!(all <= 600, "{all} bytes in all");
    }
}

#[test]
fn a_deleted_profile_leaves_nothing_but_keys_of_outcomes_and_a_retry_counts_once() {
    let mut world = World::new();
    took(world.taking(world.take(1, vec![proposition(1, vec![world.own(3, Window::Lifetime)])])));
    let click = world.outcome(Some((1, 1)), CLICK, Vec::new());
    world.responding(click.clone());
    let id = ann();
    let delete = ShardOp::DeleteProfile { tenant: id.tenant.clone(), customer: id.customer.clone() };
    assert_eq!(world.run(delete.clone()), Outcome::Done);
    assert!(world.ann().is_deleted());
    let again = world.responding(click.clone());
    assert!(again.duplicate, "{again:?}");
    assert!(world.ann().is_deleted(), "nothing was counted");
    let other = Respond { idempotency: Idempotency { body: 2, ..click.idempotency }, ..click.clone() };
    assert_eq!(world.run(ShardOp::Respond(Box::new(other))), Outcome::Refused(Refusal::IdempotencyConflict));
    assert_eq!(world.run(delete), Outcome::Done);
    assert!(world.responding(click).duplicate, "deleted twice");
    world.wait(DAY_MS);
    world.run(ShardOp::Tick);
    assert!(world.state.profile(&id).is_none(), "a day later nothing at all is left");
}
