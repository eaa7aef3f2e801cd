//! Bytes on disk and on the wire: a change here needs a new version variant, never a new snapshot of these.

use std::fmt::Write;
use std::sync::Arc;

use crate::codec::{decode, encode};
use crate::decide::decision::{
    Arm, Decision, FlowChoice, Funnel, Ghost, Proposition, PropositionKind, Remarks, SlotOutcome,
};
use crate::keys::*;
use crate::level::Level;
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, apply};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::*;
use crate::profile::measured::{Event, Measured, MeasuredOp};
use crate::profile::metrics::{Feed, Group, Trigger};
use crate::profile::shard::ShardState;
use crate::profile::trials::{Enrolment, ExperimentId};
use crate::time::{Span, Timestamp};
use crate::value::Value;

pub(super) const LEADER: Leader = Leader { term: 2, replica: 11 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn idempotency(key: u128) -> Idempotency {
    Idempotency { key, body: 77, until: Timestamp(86_400_000) }
}

/// What a retry of the one decision is answered.
fn answer(takes: Vec<CapTake>) -> FirstAnswer {
    let proposition = Proposition {
        offer: OfferKey(70),
        creative: CreativeKey(71),
        channel: ChannelKey(7),
        placement: PlacementKey(8),
        activity: Some(ActivityKey(3)),
        slot: Some(0),
        score: 0.75,
        kind: PropositionKind::Mandatory,
        takes,
        computed: vec![(2, Value::text("gold"))],
    };
    let decision = Decision {
        revision: Revision(300),
        flow: FlowChoice { key: Some(FlowKey(1)), version: 4, compact: true },
        propositions: vec![proposition],
        slots: vec![SlotOutcome { count: 1, fallback: false, empty: None }],
        empty: None,
        funnel: Funnel { total_candidates: 4, after_qualification: 3, after_suppression: 2, after_contact_policy: 1 },
        arm: Some(Arm { experiment: "e".to_owned(), control: true }),
        ghosts: vec![Ghost { offer: OfferKey(72), creative: CreativeKey::NONE }],
        remarks: Remarks { budget_limited: true, degraded: false },
        explanation: None,
    };
    FirstAnswer { decision, contended: false }
}

/// One of each, in the order in which they make a small state.
pub(super) fn commands() -> Vec<(&'static str, ShardOp)> {
    let tenant = TenantId::new("acme");
    let customer = CustomerId::new("ann");
    let day = Span { from: Timestamp(0), until: Timestamp(86_400_000) };
    let account = AccountId { tenant: 1, cap: CapKey(9), ordinal: 2 };
    let global = CapTake {
        cap: CapKey(9),
        account: TakeAccount::Global { account, amount: 3 },
        count_on: CountEvent::Outcome(OutcomeKey(1)),
        expires_at: Timestamp(901_000),
    };
    let own = CapTake {
        cap: CapKey(4),
        account: TakeAccount::Profile { limit: 2, window: Window::Calendar(day) },
        count_on: CountEvent::Impression,
        expires_at: Timestamp(901_000),
    };
    let put = PutProfile {
        tenant: tenant.clone(),
        customer: customer.clone(),
        attributes: Some(vec![("age".to_owned(), Value::Number(41.0)), ("tier".to_owned(), Value::text("gold"))]),
        segments: Some(vec!["vip".to_owned()]),
    };
    let row = PutRow {
        tenant: tenant.clone(),
        customer: customer.clone(),
        schema: SchemaKey(6),
        columns: vec![("balance".to_owned(), Value::Bool(true)), ("age".to_owned(), Value::Null)],
    };
    let escrow = EscrowMessage {
        account,
        granted: 12,
        span: day,
        unit: 3,
        cooling_ms: 0,
        recall: Recall::Nothing,
        closed: false,
        version: 0,
        soft: None,
    };
    let rolling = AccountId { cap: CapKey(10), ..account };
    let other = EscrowMessage { account: rolling, cooling_ms: 64_000, recall: Recall::Spare, ..escrow };
    let soft = EscrowMessage {
        account: AccountId { cap: CapKey(11), ..account },
        granted: 0,
        version: 2,
        soft: Some(SoftTerms { limit: 5, taken_elsewhere: 4, returned_elsewhere: 1 }),
        ..escrow
    };
    let proposition = TakenProposition {
        offer: OfferKey(70),
        creative: CreativeKey(71),
        channel: ChannelKey(7),
        placement: PlacementKey(8),
        category: Some(CategoryKey(5)),
        score: 0.75,
        mandatory: true,
        fallback: false,
        evidence: false,
        implied_impression: false,
        takes: vec![global, own],
    };
    let take = Take {
        tenant: tenant.clone(),
        customer: customer.clone(),
        decision: DecisionId(0xfeed),
        idempotency: Some(idempotency(1 << 100)),
        supersedes: Some(DecisionId(1)),
        propositions: vec![proposition],
        ghosts: vec![Ghost { offer: OfferKey(72), creative: CreativeKey::NONE }],
        mandatory: Some((day, 5)),
        policies: vec![PolicyTake {
            rank: 1,
            counted: Counted::Channel(ChannelKey(7)),
            limit: 4,
            window: Window::Rolling { ms: 3_600_000 },
            earlier_only: false,
            expires_at: Timestamp(901_000),
        }],
        counts: vec![own],
        answerable_until: Timestamp(7_776_000_000),
        answer: Some(Arc::new(answer(vec![global, own]))),
    };
    let respond = Respond {
        tenant: tenant.clone(),
        customer: customer.clone(),
        idempotency: idempotency(2),
        proposition: Some((DecisionId(0xfeed), 1)),
        decided_at: Some(Timestamp(1_000)),
        answerable_until: Some(Timestamp(7_776_000_000)),
        offer: OfferKey(70),
        creative: CreativeKey(71),
        channel: ChannelKey(7),
        placement: PlacementKey(8),
        category: Some(CategoryKey(5)),
        outcome: OutcomeKey(4),
        sentiment: Sentiment::Positive,
        value: Some(Micros(1_500_000)),
        evidence: true,
        counts: vec![global, own],
        opt_out: Some(OptOut::Category(CategoryKey(5))),
        withheld: false,
    };
    let release =
        Release { tenant: tenant.clone(), customer: customer.clone(), decision: DecisionId(0xfeed), ranks: vec![2] };
    vec![
        ("PutProfile", ShardOp::PutProfile(put)),
        ("PutRow", ShardOp::PutRow(row)),
        ("Escrow", ShardOp::Escrow(vec![escrow, other, soft])),
        ("Take", ShardOp::Take(Box::new(take))),
        ("Respond", ShardOp::Respond(Box::new(respond))),
        ("Release", ShardOp::Release(release)),
        ("Tick", ShardOp::Tick),
        ("Fence", ShardOp::Fence(Revision(300))),
        ("ClearOptOuts", ShardOp::ClearOptOuts { tenant: tenant.clone(), customer: customer.clone() }),
        ("DeleteProfile", ShardOp::DeleteProfile { tenant, customer: CustomerId::new("bob") }),
    ]
}

pub(super) fn command(op: ShardOp) -> ShardCommand {
    ShardCommand::V1(ShardCommandV1 { now: Timestamp(1_000), leader: LEADER, revision: Revision(300), op })
}

#[test]
fn commands_keep_their_bytes() {
    let mut lines = String::new();
    for (name, op) in commands() {
        let command = command(op);
        let bytes = encode(&command);
        assert_eq!(decode::<ShardCommand>(name, &bytes).unwrap(), command);
        writeln!(lines, "{name} {}", hex(&bytes)).unwrap();
    }
    insta::assert_snapshot!(lines);
}

#[test]
fn a_level_keeps_its_bytes_and_outlives_a_start() {
    let raise = ShardOp::Level(Level(3));
    assert_eq!(encode(&raise), [12, 3]);
    assert_eq!(decode::<ShardOp>("level", &[12, 3]).unwrap(), raise);
    assert!(decode::<ShardOp>("a later release's", &[13, 3]).is_err());
    let mut state = ShardState::new();
    let at = |index| Position { leader: LEADER, index };
    assert_eq!(apply(&mut state, at(1), &command(raise)), Outcome::Done);
    assert_eq!(apply(&mut state, at(2), &command(ShardOp::Level(Level(2)))), Outcome::Done);
    assert_eq!(state.level(), Level(3), "never lowered");
    let restored = ShardState::decode_chunks(state.encode_chunks()).unwrap();
    assert_eq!((restored.level(), restored.hash()), (Level(3), state.hash()));
}

#[test]
fn a_lapse_keeps_its_bytes() {
    let lapse = ShardOp::Lapse(Timestamp(1_000));
    assert_eq!(encode(&lapse), [10, 251, 208, 7]);
    assert_eq!(decode::<ShardOp>("lapse", &[10, 251, 208, 7]).unwrap(), lapse);
}

#[test]
fn a_stored_shard_keeps_its_bytes() {
    let mut state = ShardState::new();
    for (name, op) in commands() {
        let outcome = apply(&mut state, Position { leader: LEADER, index: 1 }, &command(op));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{name}: {outcome:?}");
    }
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    let restored = ShardState::decode_chunks(&pieces).unwrap();
    assert_eq!(restored.hash(), state.hash());
    let lines: Vec<String> = pieces.iter().map(|piece| hex(piece)).collect();
    insta::assert_snapshot!(lines.join("\n"));

    for cut in 0..pieces.len() {
        assert!(ShardState::decode_chunks(&pieces[..cut]).is_err(), "cut after {cut} pieces");
    }
    let mut unknown = pieces.clone();
    unknown[0][0] = 1;
    assert!(ShardState::decode_chunks(&unknown).is_err(), "an unknown version stops the replica");
}

#[test]
fn totals_for_a_generation_keep_their_bytes_and_those_for_the_first_are_as_ever() {
    let totals = ShardOp::escrow(300, Vec::new());
    assert_eq!(encode(&totals), [11, 251, 44, 1, 0]);
    assert_eq!(decode::<ShardOp>("totals", &[11, 251, 44, 1, 0]).unwrap(), totals);
    assert_eq!(encode(&ShardOp::escrow(0, Vec::new())), encode(&ShardOp::Escrow(Vec::new())));
}

#[test]
fn a_shard_that_was_begun_anew_is_stored_with_its_generation() {
    let mut state = ShardState::new();
    let before = state.encode_chunks().count();
    state.begin_generation(3, (&crate::budget::ledger::Ledger::default(), ShardId(0)), Revision(7), Timestamp(5));
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    assert_eq!((pieces.len(), &pieces[1][..]), (before + 1, &[0, 9, 3][..]));
    let restored = ShardState::decode_chunks(&pieces).unwrap();
    assert_eq!(restored.hash(), state.hash());
    let doubled = [&pieces[..2], &pieces[1..]].concat();
    assert!(ShardState::decode_chunks(&doubled).is_err(), "it has one generation");
}

/// A week's clicks of one offer, the sum of an hour's purchases, and what is counted of a metric that is gone.
fn measured(op: MeasuredOp) -> ShardOp {
    let week = Span { from: Timestamp(0), until: Timestamp(604_800_000) };
    let group = Group { offer: Some(OfferKey(70)), property: Some("red".into()), ..Group::default() };
    let feed = |trigger, metric, group, number, window| Feed {
        trigger,
        metric: MetricKey(metric),
        generation: 1,
        group,
        number: Micros(number),
        window,
    };
    let feeds = vec![
        feed(Trigger::Itself, 2, group.clone(), 0, Window::Calendar(week)),
        feed(Trigger::Itself, 3, Group::default(), -1_500_000, Window::Rolling { ms: 3_600_000 }),
        feed(Trigger::Impression(0), 4, Group { channel: Some(ChannelKey(7)), ..group }, 0, Window::Lifetime),
    ];
    ShardOp::Measured(Box::new(Measured { op, feeds, gone: vec![MetricKey(9)] }))
}

fn event() -> ShardOp {
    let (tenant, customer) = (TenantId::new("acme"), CustomerId::new("ann"));
    measured(MeasuredOp::Event(Event { tenant, customer, idempotency: idempotency(3) }))
}

#[test]
fn what_metrics_count_keeps_its_bytes() {
    let mut lines = String::new();
    for (name, op) in commands() {
        let op = if let ShardOp::Take(take) = op {
            measured(MeasuredOp::Take(take))
        } else if let ShardOp::Respond(respond) = op {
            measured(MeasuredOp::Respond(respond))
        } else {
            continue;
        };
        // What is inside is as ever: the beginning says that something is.
        let bytes = encode(&op);
        assert_eq!(decode::<ShardOp>(name, &bytes).unwrap(), op);
        writeln!(lines, "{name} {} … {}", hex(&bytes[..4]), hex(&bytes[bytes.len() - 48..])).unwrap();
    }
    let bytes = encode(&event());
    assert_eq!(decode::<ShardOp>("event", &bytes).unwrap(), event());
    writeln!(lines, "Event {}", hex(&bytes)).unwrap();

    let mut state = ShardState::new();
    for (_, op) in commands().into_iter().take(1) {
        apply(&mut state, Position { leader: LEADER, index: 1 }, &command(op));
    }
    let without = state.encode_chunks().count();
    let outcome = apply(&mut state, Position { leader: LEADER, index: 2 }, &command(event()));
    assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    assert_eq!(pieces.len(), without + 1, "a piece before the profile's own");
    let (piece, profile) = (&pieces[pieces.len() - 3], &pieces[pieces.len() - 2]);
    writeln!(lines, "Piece {}\nProfile {}", hex(piece), hex(profile)).unwrap();
    insta::assert_snapshot!(lines);

    let restored = ShardState::decode_chunks(&pieces).unwrap();
    assert_eq!(restored.hash(), state.hash());
    let id = ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new("ann") };
    assert_eq!(restored.profile(&id), state.profile(&id));
    // Each piece is needed, once, before its profile.
    let mut late = pieces.clone();
    late.swap(pieces.len() - 3, pieces.len() - 2);
    assert!(ShardState::decode_chunks(&late).is_err());
    let mut twice = pieces.clone();
    twice.insert(pieces.len() - 3, piece.clone());
    assert!(ShardState::decode_chunks(&twice).is_err());
}

#[test]
fn what_experiments_keep_keeps_its_bytes() {
    let enrolment = Enrolment {
        experiment: ExperimentId(0x0102_0304),
        control: true,
        window_days: 30,
        offers: vec![OfferKey(70), OfferKey(72)],
    };
    let mut lines = String::new();
    let mut state = ShardState::new();
    let at = |index| Position { leader: LEADER, index };
    for (name, op) in commands() {
        let is_respond = matches!(op, ShardOp::Respond(_));
        let is_row = matches!(op, ShardOp::PutProfile(_) | ShardOp::PutRow(_) | ShardOp::Escrow(_));
        let op = if let ShardOp::Take(_) = op { op.enrolling(enrolment.clone()) } else { op };
        if let ShardOp::Enrolled(_) = op {
            // What is inside is as ever: the beginning says that something is, and its place comes last.
            let bytes = encode(&op);
            assert_eq!(decode::<ShardOp>(name, &bytes).unwrap(), op);
            writeln!(lines, "{name} {} … {}", hex(&bytes[..4]), hex(&bytes[bytes.len() - 16..])).unwrap();
        } else if !is_respond && !is_row {
            continue;
        }
        let outcome = apply(&mut state, at(1), &command(op));
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
    let other = ShardOp::Tick.enrolling(enrolment);
    assert_eq!(other, ShardOp::Tick, "what takes nothing enrols nobody");

    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    let piece = &pieces[pieces.len() - 3];
    writeln!(lines, "Piece {}", hex(piece)).unwrap();
    insta::assert_snapshot!(lines);
    let restored = ShardState::decode_chunks(&pieces).unwrap();
    let id = ProfileId { tenant: TenantId::new("acme"), customer: CustomerId::new("ann") };
    assert_eq!((restored.hash(), restored.profile(&id)), (state.hash(), state.profile(&id)));
    // Each piece is needed, once, before its profile.
    let mut late = pieces.clone();
    late.swap(pieces.len() - 3, pieces.len() - 2);
    assert!(ShardState::decode_chunks(&late).is_err());
    let mut twice = pieces.clone();
    twice.insert(pieces.len() - 3, piece.clone());
    assert!(ShardState::decode_chunks(&twice).is_err());
    let without: Vec<_> = pieces.iter().filter(|other| *other != piece).collect();
    assert_ne!(ShardState::decode_chunks(without).unwrap().hash(), state.hash());
}
