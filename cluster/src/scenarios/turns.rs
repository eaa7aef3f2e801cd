//! A shard's leader in hand: each turn, each answer of its log and each instant as the test wants it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proffer_engine::catalog::{self, EntityKind, Op, Touched};
use proffer_engine::decide::decision::EmptyReason;
use proffer_engine::keys::ShardId;
use proffer_engine::level::Level;
use proffer_engine::profile::apply::{Outcome, Refusal};
use proffer_engine::profile::command::{
    AccountId, DecisionId, EscrowMessage, Leader, Position, PutProfile, Recall, ShardCommand, ShardCommandV1, ShardOp,
};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::{Span, Timestamp};
use proffer_engine::value::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, advance};

use super::world::*;
use crate::calls::{Call, CallKey, Degraded, RespondRequest};
use crate::config::Reads;
use crate::error::Error;
use crate::learning::Learning;
use crate::limits::{ENTRY_BYTES_MAX, OWN_RETRY_MS, PROPOSE_TRIES, TICK_DUE_MAX, WAITERS_SWEEP_MS};
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::compile::Compile;
use crate::meta::door::MetaDoor;
use crate::meta::state::MetaState;
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::propose::{Committed, Proposed, Reason};
use crate::shard::ask::{Ask, DecideAsk, Lane, Notice, Reply, RespondAsk, Told, WriteAsk};
use crate::shard::door::ShardDoor;
use crate::shard::leader::{Command, ShardLeader, Surroundings};
use crate::shard::trial::Raw;
use crate::timing::Timing;
use crate::view::Views;

const LED: Leader = Leader { term: 1, replica: 1 };

/// Draws until it is told to fail.
struct FailingEntropy(SeededEntropy, AtomicBool);

impl Entropy for FailingEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        assert!(!self.1.load(Ordering::SeqCst), "a fault of the test's making");
        self.0.fill(bytes);
    }
}

struct Bench {
    leader: ShardLeader,
    door: Arc<ShardDoor>,
    views: Arc<Views>,
    entropy: Arc<FailingEntropy>,
    index: u64,
}

type Answer<T> = oneshot::Receiver<Result<T, Error>>;

impl Bench {
    fn new(commands: Vec<catalog::Command>) -> Self {
        let mut meta = MetaState::new();
        let founding = MetaOp::Found(Founding { secret: [1; 16], shards: 1 });
        let changes = [command(Op::CreateTenant)].into_iter().chain(commands).map(MetaOp::Change);
        for (index, op) in (1..).zip(std::iter::once(founding).chain(changes)) {
            let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(NOON), leader: LED, op });
            let outcome = meta.apply(Position { leader: LED, index }, &command);
            assert!(!matches!(outcome, MetaOutcome::Refused(_)), "{outcome:?}");
        }
        let views = Arc::new(Views::new());
        let stale = BTreeMap::from([(tenant(), vec![Touched::Everything])]);
        let compiled = Compile::new(&meta, &views.load(), stale).run();
        views.swap(compiled.into_in_force(&views.load()));
        let door = Arc::new(ShardDoor::new());
        door.open(1, Arc::new(|| {}));
        let entropy = Arc::new(FailingEntropy(SeededEntropy::new(3), AtomicBool::new(false)));
        let around = Surroundings {
            shard: ShardId(0),
            door: Arc::clone(&door),
            views: Arc::clone(&views),
            learning: Arc::new(Learning::new(1)),
            meta: Arc::new(MetaDoor::default()),
            clock: Arc::new(TokioClock::new()),
            entropy: Arc::clone(&entropy) as _,
            reads: Reads::Lease,
            timing: Timing::Fast,
            can: Level::NEWEST,
        };
        let mut leader = ShardLeader::new(around, ShardState::new(), Position::default());
        leader.follow(Some(LED));
        Bench { leader, door, views, entropy, index: 0 }
    }

    /// Does what waits; the entry that is then proposed.
    fn turn(&mut self) -> Vec<Command> {
        while self.leader.work() {}
        self.leader.next_entry().map_or(Vec::new(), |(commands, _)| commands)
    }

    fn commit(&mut self, commands: &[Command]) {
        self.index += 1;
        let position = Position { leader: LED, index: self.index };
        let results = self.leader.apply(position, commands);
        self.leader.proposed(Proposed::Applied(Committed { position, results }));
    }

    /// Turns and commits until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let commands = self.turn();
            if commands.is_empty() {
                break;
            }
            self.commit(&commands);
        }
    }

    fn answer(&mut self, proposed: Proposed<Outcome>) {
        assert!(!self.turn_is_empty(), "something is under way");
        self.leader.proposed(proposed);
    }

    fn turn_is_empty(&mut self) -> bool {
        while self.leader.work() {}
        self.leader.next_entry().is_none() && self.leader.is_idle()
    }

    fn send(&self, ask: Ask) {
        assert!(self.door.send(Lane::Request(tenant()), ask).is_ok());
    }

    fn decide(&self, number: usize, call: Call) -> Answer<Raw> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Decide(Box::new(DecideAsk::new(request(customer(number)), call, Reply::new(reply)))));
        answer
    }

    fn write(&self, ops: Vec<ShardOp>) -> Answer<usize> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Write(WriteAsk { ops, deadline: Some(soon()), reply: Reply::new(reply) }));
        answer
    }

    fn respond(&self, number: usize, offer: &str, key: u128) -> Answer<crate::calls::Responded> {
        use proffer_engine::keys::{ChannelKey, CreativeKey, PlacementKey};
        let offer = self.views.tenant(&tenant()).unwrap().catalog.offers().key_of(offer).unwrap();
        let request = RespondRequest {
            tenant: tenant(),
            customer: customer(number),
            proposition: None,
            decided_at: None,
            offer,
            creative: CreativeKey::NONE,
            channel: ChannelKey::NONE,
            placement: PlacementKey::NONE,
            outcome: proffer_engine::catalog::outcomes::IMPRESSION,
            value: None,
            evidence: true,
            opt_out: None,
            withheld: false,
        };
        let (reply, answer) = oneshot::channel();
        let reply = Reply::new(reply);
        self.send(Ask::Respond(Box::new(RespondAsk {
            told: Told::Outcome(request),
            call: keyed(key),
            reply,
            proposed: 0,
        })));
        answer
    }
}

fn put<const N: usize>(number: usize, attributes: [(&str, Value); N]) -> ShardOp {
    let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let put = PutProfile { tenant: tenant(), customer: customer(number), attributes: Some(attributes), segments: None };
    ShardOp::PutProfile(put)
}

fn op_of(command: &Command) -> &ShardOp {
    let ShardCommand::V1(ShardCommandV1 { op, .. }) = &**command;
    op
}

fn full() -> Proposed<Outcome> {
    Proposed::NotApplied("the disk is full".to_owned())
}

fn moved(leader: Option<Leader>) -> Proposed<Outcome> {
    Proposed::Refused(Reason::NotLeader(leader))
}

fn capped() -> Bench {
    Bench::new(vec![offer("one", 50, vec![profile_cap(1)])])
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_applied_is_never_said_not_to_be() {
    // However a later attempt ends: not taken by the log, refused too often, or too late.
    for ending in 0..3 {
        let mut bench = capped();
        let decision = bench.decide(1, keyed(5));
        let outcome = bench.respond(2, "one", 6);
        let write = bench.write(vec![put(3, [("tier", Value::text("gold"))])]);
        bench.answer(Proposed::Unknown);
        match ending {
            0 => bench.answer(full()),
            1 => {
                for _ in 0..PROPOSE_TRIES {
                    bench.answer(moved(Some(LED)));
                }
            }
            _ => {
                tokio::time::advance(Duration::from_secs(3)).await;
                let commands = bench.turn();
                assert_eq!(commands.len(), 1, "the write has no deadline once it is begun");
                bench.leader.proposed(full());
            }
        }
        assert_eq!(decision.await.unwrap().unwrap_err(), Error::Unknown, "ending {ending}");
        assert_eq!(outcome.await.unwrap().unwrap_err(), Error::Unknown, "ending {ending}");
        assert_eq!(write.await.unwrap().unwrap_err(), Error::Unknown, "ending {ending}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_applied_is_said_not_to_be() {
    let mut bench = capped();
    let decision = bench.decide(1, keyed(5));
    bench.answer(moved(Some(LED)));
    bench.answer(full());
    assert!(matches!(decision.await.unwrap(), Err(Error::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_part_in_doubt_puts_the_whole_bulk_write_in_doubt() {
    let mut bench = capped();
    let write = bench.write((0..3).map(|number| put(number, [("tier", Value::text("gold"))])).collect());
    bench.answer(Proposed::Unknown);
    bench.answer(full());
    let error = write.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Partial { applied: 0, asked: 3, .. }), "{error:?}");
    assert_eq!(error.outcome(), crate::error::Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_taken_back_leaves_no_trace_in_decisions() {
    let config = object([
        ("attribute", Value::text("customer.tier")),
        ("operator", Value::text("eq")),
        ("value", Value::text("gold")),
    ]);
    let rule = object([
        ("name", Value::text("only gold")),
        ("ruleType", Value::text("attribute_condition")),
        ("scope", Value::text("offer")),
        ("scopeId", Value::text("one")),
        ("stage", Value::text("eligibility")),
        ("config", config),
    ]);
    let rule = command(Op::Create { kind: EntityKind::Rule, id: "gold".to_owned(), body: rule });
    let mut bench = Bench::new(vec![offer("one", 50, vec![]), rule]);
    // The first name is `tier`, decided on while it is pending, and then not applied.
    let lost = bench.write(vec![put(1, [("tier", Value::text("gold"))])]);
    let early = bench.decide(1, Call::until(soon()));
    bench.answer(full());
    assert!(lost.await.unwrap().is_err());
    // Nothing is decided (this comes too late) until its number has gone to another name.
    tokio::time::advance(Duration::from_secs(3)).await;
    bench.settle();
    assert_eq!(early.await.unwrap().unwrap_err(), Error::Expired);
    let kept = bench.write(vec![put(1, [("colour", Value::text("gold"))])]);
    bench.settle();
    kept.await.unwrap().unwrap();
    let decided = bench.decide(1, Call::until(soon()));
    bench.settle();
    assert!(decided.await.unwrap().unwrap().decided.decision.propositions.is_empty(), "a colour is no tier");
    let kept = bench.write(vec![put(1, [("tier", Value::text("gold"))])]);
    bench.settle();
    kept.await.unwrap().unwrap();
    let decided = bench.decide(1, Call::until(soon()));
    bench.settle();
    assert_eq!(decided.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_the_log_did_not_take_waits_a_second() {
    for refusal in [full(), moved(Some(LED))] {
        let mut bench = capped();
        let held = bench.decide(1, Call::until(soon()));
        bench.settle();
        assert_eq!(held.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
        tokio::time::advance(Duration::from_secs(901)).await;
        let second = Duration::from_millis(OWN_RETRY_MS);
        for _ in 0..3 {
            bench.leader.wake();
            let commands = bench.turn();
            assert_eq!(commands.iter().map(op_of).collect::<Vec<_>>(), [&ShardOp::Tick]);
            bench.leader.proposed(refusal.clone());
            for _ in 0..10 {
                bench.leader.wake();
                assert!(bench.turn().is_empty(), "not again at once");
            }
            assert_eq!(bench.leader.next_timer(), Some(Instant::now() + second), "nor is it woken for it before");
            tokio::time::advance(second).await;
        }
        bench.leader.wake();
        bench.settle();
        bench.leader.wake();
        assert!(bench.turn().is_empty(), "it lapses when there is space");
    }
}

#[tokio::test(start_paused = true)]
async fn writes_of_one_call_stay_in_order_when_an_entry_is_refused() {
    let mut bench = capped();
    // More than one entry holds.
    let text = "x".repeat(9_000);
    let ops = (0..40).map(|round| put(1, [("round", Value::Number(f64::from(round))), ("text", Value::text(&text))]));
    let write = bench.write(ops.collect());
    assert!(bench.turn().len() < 40);
    bench.leader.proposed(moved(Some(LED)));
    bench.settle();
    assert_eq!(write.await.unwrap(), Ok(40));
    let (state, _) = bench.leader.share();
    let (_, profile) = state.profiles_of(&tenant()).next().unwrap();
    assert!(profile.attributes.iter().any(|(_, value)| *value == Value::Number(39.0)), "the last one wins");
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_at_a_leader_that_is_cut_off_are_answered_and_may_have_been_applied() {
    // However the log ends it: applied after all, taken no more, or never told.
    for ending in 0..3 {
        let mut bench = capped();
        let [mut decision, mut unkeyed] = [bench.decide(1, keyed(5)), bench.decide(2, Call::until(soon()))];
        let mut write = bench.write(vec![put(3, [("tier", Value::text("gold"))])]);
        let commands = bench.turn();
        assert_eq!(commands.len(), 3);
        bench.leader.follow(None);
        let timeout = Timing::Fast.longest_election();
        assert_eq!(bench.leader.next_timer(), Some(Instant::now() + timeout));
        tokio::time::advance(timeout - Duration::from_millis(1)).await;
        bench.leader.wake();
        assert!(decision.try_recv().is_err(), "it may lead again before another does");
        tokio::time::advance(Duration::from_millis(1)).await;
        bench.leader.wake();
        assert_eq!(decision.try_recv().unwrap().unwrap_err(), Error::Unknown, "ending {ending}");
        assert_eq!(unkeyed.try_recv().unwrap().unwrap_err(), Error::Unknown);
        assert_eq!(write.try_recv().unwrap().unwrap_err(), Error::Unknown);
        assert_eq!(bench.leader.next_timer(), None);
        let taken = match ending {
            0 => {
                bench.commit(&commands);
                true
            }
            1 => {
                bench.leader.proposed(moved(None));
                false
            }
            _ => {
                bench.leader.proposed(Proposed::Unknown);
                false
            }
        };
        bench.leader.follow(Some(Leader { term: 3, ..LED }));
        assert!(bench.turn().is_empty(), "nothing of it is begun again here");
        let (state, _) = bench.leader.share();
        assert_eq!(state.profiles_of(&tenant()).count(), if taken { 3 } else { 0 }, "ending {ending}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_in_flight_is_waited_for_by_a_replica_that_soon_leads_again() {
    let mut bench = capped();
    let write = bench.write(vec![put(3, [("tier", Value::text("gold"))])]);
    let commands = bench.turn();
    bench.leader.follow(None);
    tokio::time::advance(Timing::Fast.longest_election() / 2).await;
    bench.leader.follow(Some(LED));
    tokio::time::advance(Timing::Fast.longest_election()).await;
    bench.leader.wake();
    bench.commit(&commands);
    assert_eq!(write.await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn nobody_leads_when_the_log_says_so() {
    let mut bench = capped();
    let decision = bench.decide(1, keyed(5));
    bench.answer(moved(None));
    assert!(bench.turn().is_empty() && bench.leader.is_held_up());
    // It is handed back: done when this replica leads again, it could be an hour late.
    assert!(matches!(decision.await.unwrap(), Err(Error::NotLed { .. })));
    bench.leader.follow(Some(LED));
    let again = bench.decide(1, keyed(5));
    bench.settle();
    assert_eq!(again.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reused_key_is_told_only_once_its_first_use_has_committed() {
    let mut bench = capped();
    let first = bench.decide(1, keyed(5));
    let commands = bench.turn();
    let other = Call { idempotency: Some(CallKey { key: 5, body: 2 }), ..Call::until(soon()) };
    let mut second = bench.decide(1, other);
    assert!(bench.turn().is_empty());
    assert!(second.try_recv().is_err(), "what it would be told is not committed");
    // It never is: the key is free.
    bench.leader.proposed(full());
    drop(commands);
    assert!(first.await.unwrap().is_err());
    bench.settle();
    assert_eq!(second.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
    let third = bench.decide(1, keyed(5));
    bench.settle();
    assert_eq!(third.await.unwrap().unwrap_err(), Error::KeyReused);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_costs_its_own_answer_only() {
    let mut bench = capped();
    for _ in 0..5 {
        bench.entropy.1.store(true, Ordering::SeqCst);
        let broken = bench.decide(1, Call::until(soon()));
        bench.settle();
        assert_eq!(broken.await.unwrap().unwrap_err(), Error::Poisonous);
    }
    bench.entropy.1.store(false, Ordering::SeqCst);
    let decided = bench.decide(1, Call::until(soon()));
    bench.settle();
    assert_eq!(decided.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn old_units_go_in_the_entry_that_takes_the_new_ones() {
    let mut apart = 0;
    for room in (0..600).step_by(20) {
        let mut bench = capped();
        let first = bench.decide(1, Call::until(soon()));
        bench.settle();
        let earlier: DecisionId = first.await.unwrap().unwrap().decided.id;
        // So much of the entry is full already.
        let text = "x".repeat(15_000);
        let mut ops: Vec<_> = (0..17).map(|number| put(number + 10, [("text", Value::text(&text))])).collect();
        let used: usize = ops.iter().map(|op| proffer_engine::codec::encode(op).len() + 84).sum();
        let rest = "y".repeat(ENTRY_BYTES_MAX - used - 150 - room);
        ops.push(put(9, [("text", Value::text(&rest))]));
        let _filler = bench.write(ops);
        let second = bench.decide(1, Call { supersedes: Some(earlier), ..Call::until(soon()) });
        let commands = bench.turn();
        let has = |what: fn(&ShardOp) -> bool| commands.iter().any(|command| what(op_of(command)));
        let released = has(|op| matches!(op, ShardOp::Release(_)));
        assert_eq!(released, has(|op| matches!(op, ShardOp::Take(_))), "with {room} bytes left");
        apart += usize::from(!released);
        bench.commit(&commands);
        bench.settle();
        assert_eq!(second.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
    }
    assert!((1..30).contains(&apart), "the entry was too full now and then: {apart}");
}

#[tokio::test(start_paused = true)]
async fn callers_that_are_gone_make_room_though_the_log_says_nothing() {
    let mut bench = Bench::new(vec![offer("one", 50, vec![profile_cap(9)])]);
    let taking = bench.decide(1, Call::until(soon()));
    assert_eq!(bench.turn().len(), 1);
    let read = {
        let (reply, answer) = oneshot::channel();
        let reply = Reply::new(reply);
        let (tenant, customer) = (tenant(), customer(1));
        bench.send(Ask::Read(crate::shard::ask::ReadAsk::Profile { tenant, customer, reply }));
        answer
    };
    bench.turn();
    assert!(!bench.leader.is_idle());
    drop(read);
    let timer = bench.leader.next_timer().unwrap();
    assert!(timer <= Instant::now() + Duration::from_millis(WAITERS_SWEEP_MS));
    bench.leader.wake();
    assert_eq!(bench.leader.waiting(), 0);
    drop(taking);
}

#[tokio::test(start_paused = true)]
async fn what_fell_due_in_a_downtime_lapses_in_parts() {
    let mut bench = capped();
    let customers = 2 * TICK_DUE_MAX + 500;
    for batch in 0..customers.div_ceil(200) {
        for number in 0..200.min(customers - batch * 200) {
            drop(bench.decide(batch * 200 + number, Call::until(soon())));
        }
        bench.settle();
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    tokio::time::advance(Duration::from_secs(901)).await;
    let mut lapses = 0;
    let mut through = Timestamp(0);
    loop {
        bench.leader.wake();
        let commands = bench.turn();
        if commands.is_empty() {
            break;
        }
        if let ShardOp::Lapse(part) = op_of(&commands[0]) {
            assert!(*part > through, "the oldest first");
            through = *part;
        } else {
            assert_eq!((op_of(&commands[0]), lapses), (&ShardOp::Tick, 2));
        }
        lapses += 1;
        // Between the parts, others have their turn.
        let decided = bench.decide(customers + lapses, Call::until(soon()));
        bench.commit(&commands);
        let taken = bench.turn();
        bench.commit(&taken);
        assert_eq!(decided.await.unwrap().unwrap().decided.decision.propositions.len(), 1);
    }
    assert_eq!(lapses, 3);
    for number in [0, TICK_DUE_MAX, customers - 1] {
        let again = bench.decide(number, Call::until(soon()));
        bench.settle();
        assert_eq!(again.await.unwrap().unwrap().decided.decision.propositions.len(), 1, "customer {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_twenty_milliseconds_for_units_and_no_time_where_there_are_none() {
    let mut bench = Bench::new(vec![offer("scarce", 90, vec![global_cap(10)]), offer("plain", 50, vec![])]);
    let view = bench.views.tenant(&tenant()).unwrap();
    let scarce = view.catalog.offers().key_of("scarce").unwrap();
    let message = EscrowMessage {
        account: AccountId { tenant: view.number, cap: view.catalog.caps(scarce)[0].cap, ordinal: 0 },
        granted: 1,
        span: Span::ALWAYS,
        unit: 1,
        cooling_ms: 0,
        recall: Recall::Nothing,
        closed: false,
        version: 0,
        soft: None,
    };
    let _told = bench.write(vec![ShardOp::escrow(0, vec![message])]);
    bench.settle();
    let proposes = |answer: &mut Answer<Raw>| {
        let decision = answer.try_recv().ok()?.unwrap().decided.decision;
        Some((
            decision.propositions.iter().any(|proposition| proposition.offer == scarce),
            decision.remarks.budget_limited,
        ))
    };
    let mut first = bench.decide(1, Call::until(soon()));
    bench.settle();
    assert_eq!(proposes(&mut first), Some((true, false)));

    // The ledger says nothing.
    let mut second = bench.decide(2, Call::until(soon()));
    for _ in 0..20 {
        bench.settle();
        assert_eq!(proposes(&mut second), None);
        advance(Duration::from_millis(1)).await;
        bench.leader.wake();
    }
    bench.settle();
    assert_eq!(proposes(&mut second), Some((false, true)), "it is told what is left");

    // It says that it has nothing.
    bench.send(Ask::Notice(Notice { messages: vec![message], ..Notice::default() }));
    let mut third = bench.decide(3, Call::until(soon()));
    bench.settle();
    assert_eq!(proposes(&mut third), Some((false, true)), "there is nothing to wait for");
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_others_outrun_three_times_takes_nothing_and_says_so() {
    let mut bench = Bench::new(["a", "b", "c", "d"].map(|id| offer(id, 50, vec![profile_cap(1)])).into());
    let mut answer = bench.decide(1, Call::until(soon()));
    let mut masked = Vec::new();
    for _ in 0..3 {
        let commands = bench.turn();
        let ShardOp::Take(take) = op_of(&commands[0]) else { panic!("{commands:?}") };
        let offers = vec![take.propositions[0].offer];
        assert!(!masked.contains(&offers[0]), "what was refused is left out");
        masked.extend(&offers);
        bench.index += 1;
        let refused = Outcome::Refused(Refusal::CapRefused { offers, caps: Vec::new() });
        let position = Position { leader: LED, index: bench.index };
        bench.leader.proposed(Proposed::Applied(Committed { position, results: vec![refused] }));
        assert!(answer.try_recv().is_err(), "another is tried");
    }
    assert!(bench.turn().is_empty(), "nothing is taken");
    let decided = answer.try_recv().unwrap().unwrap().decided;
    assert_eq!((decided.decision.propositions.len(), decided.degraded), (0, Some(Degraded::Contention)));
    assert_eq!(decided.decision.empty, Some(EmptyReason::NoCandidate));
}
