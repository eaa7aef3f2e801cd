//! The catalogue's leader in hand: what goes first, what waits, and what never runs in a turn.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::{self, CommandV1, Op};
use proffer_engine::keys::Revision;
use proffer_engine::level::Level;
use proffer_engine::profile::command::{Leader, Position};
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::world::*;
use crate::calls::Changed;
use crate::error::Error;
use crate::lease::Tenure;
use crate::limits::{ENTRY_COMMANDS_MAX, OWN_RETRY_MS};
use crate::meta::ask::MetaAsk;
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::door::MetaDoor;
use crate::meta::keeper::Whereabouts;
use crate::meta::leader::{Command, MetaLeader, Surroundings};
use crate::meta::roster::NodeInfo;
use crate::meta::state::MetaState;
use crate::ports::propose::{Committed, Proposed, Reason};
use crate::shard::door::ShardDoor;
use crate::view::Views;

const LED: Leader = Leader { term: 1, replica: 1 };

struct Bench {
    leader: MetaLeader,
    door: Arc<MetaDoor>,
    index: u64,
}

type Answers<T> = oneshot::Receiver<Result<Vec<T>, Error>>;

impl Bench {
    async fn new(commands: Vec<catalog::Command>) -> Self {
        let mut state = MetaState::new();
        let founded = Position { leader: LED, index: 1 };
        let founding = Founding { secret: [1; 16], shards: 1 };
        let op = MetaOp::Found(founding);
        state.apply(founded, &MetaCommand::V1(MetaCommandV1 { now: Timestamp(NOON), leader: LED, op }));
        let door = Arc::new(MetaDoor::default());
        door.open(Arc::new(|| {}));
        let (views, clock) = (Arc::new(Views::new()), Arc::new(TokioClock::new()));
        views.expect(Revision(0));
        let around = Surroundings {
            door: Arc::clone(&door),
            shards: vec![Arc::new(ShardDoor::new())],
            tenure: Arc::new(Tenure::new(Arc::clone(&clock) as _, Arc::clone(&views))),
            views,
            clock,
            founding,
            whereabouts: Whereabouts::of(NodeInfo { disk: 1, boots: 1, ..NodeInfo::default() }),
            can: Level::NEWEST,
        };
        let mut leader = MetaLeader::new(around, state, founded);
        leader.follow(Some(LED));
        let mut bench = Bench { leader, door, index: 1 };
        let _kept = bench.change([command(Op::CreateTenant)].into_iter().chain(commands).collect());
        while let Some(entry) = bench.turn() {
            bench.commit(&entry);
        }
        bench
    }

    fn change(&self, commands: Vec<catalog::Command>) -> Answers<Result<Changed, Error>> {
        let (reply, answer) = oneshot::channel();
        self.door.send(MetaAsk::Change { commands, deadline: soon(), reply }).unwrap();
        answer
    }

    fn turn(&mut self) -> Option<Vec<Command>> {
        self.leader.next_entry().map(|(commands, _)| commands)
    }

    fn commit(&mut self, commands: &[Command]) -> Vec<MetaOutcome> {
        self.index += 1;
        let position = Position { leader: LED, index: self.index };
        let results = self.leader.apply(position, commands);
        self.leader.proposed(Proposed::Applied(Committed { position, results: results.clone() }));
        results
    }
}

/// The offer that a change is of.
fn offer_of(command: &Command) -> &str {
    let MetaCommand::V1(MetaCommandV1 { op, .. }) = &**command;
    let MetaOp::Change(catalog::Command::V1(CommandV1 { op, .. })) = op else { panic!("no change: {op:?}") };
    if let Op::Create { id, .. } | Op::Update { id, .. } = op {
        return id;
    }
    panic!("neither created nor updated: {op:?}")
}

fn exclusion(id: &str) -> catalog::Command {
    update(id, object([("emergencyExcluded", Value::Bool(true))]))
}

#[tokio::test(start_paused = true)]
async fn an_exclusion_overtakes_imports_and_a_small_change_waits_for_an_entry_of_each() {
    let mut bench = Bench::new(vec![offer("bad", 50, vec![]), offer("other", 50, vec![])]).await;
    let import = |name: &str| (0..20_000).map(|number| offer(&format!("{name}-{number}"), 50, vec![])).collect();
    let _imports = [bench.change(import("a")), bench.change(import("b"))];
    let first = bench.turn().unwrap();
    assert!(first.len() > 100 && offer_of(&first[0]).starts_with("a-"));
    // Both come while that entry is under way.
    let _small = bench.change(vec![update("other", object([("priority", Value::Number(60.0))]))]);
    let _urgent = bench.change(vec![exclusion("bad")]);
    let results = bench.commit(&first);
    assert!(results.iter().all(|outcome| matches!(outcome, MetaOutcome::Changed(_))));
    let second = bench.turn().unwrap();
    assert_eq!(offer_of(&second[0]), "bad", "nothing goes before an exclusion");
    assert!(offer_of(&second[1]).starts_with("b-"), "nor does one import keep the other waiting");
    assert!(bench.commit(&second).iter().all(|outcome| matches!(outcome, MetaOutcome::Changed(_))));
    // One entry for each import that came before it, and not the whole of them.
    let third = bench.turn().unwrap();
    assert!(offer_of(&third[0]).starts_with("a-"));
    bench.commit(&third);
    assert_eq!(offer_of(&bench.turn().unwrap()[0]), "other");
}

#[tokio::test(start_paused = true)]
async fn an_exclusion_that_comes_while_others_wait_in_the_door_is_first() {
    let mut bench = Bench::new(vec![offer("bad", 50, vec![])]).await;
    let _import = bench.change((0..5_000).map(|number| offer(&format!("a-{number}"), 50, vec![])).collect());
    let _urgent = bench.change(vec![exclusion("bad")]);
    assert_eq!(offer_of(&bench.turn().unwrap()[0]), "bad");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_nothing_but_mistakes_does_not_hold_a_turn() {
    let mut bench = Bench::new(vec![offer("bad", 50, vec![])]).await;
    let count = 3 * ENTRY_COMMANDS_MAX;
    let wrong = bench.change((0..count).map(|_| update("nothing", object([]))).collect());
    for _ in 0..3 {
        assert!(bench.turn().is_none());
        assert!(bench.leader.wants_a_turn() || bench.leader.is_idle() || bench.turn().is_none());
    }
    let _urgent = bench.change(vec![exclusion("bad")]);
    let entry = bench.turn().unwrap();
    assert_eq!(offer_of(&entry[0]), "bad");
    bench.commit(&entry);
    while bench.leader.wants_a_turn() {
        assert!(bench.turn().is_none());
    }
    for ready in bench.leader.acknowledgements() {
        let _ = ready.reply.send(Ok(ready.answers));
    }
    let answers = wrong.await.unwrap().unwrap();
    assert_eq!(answers.len(), count);
    assert!(answers.iter().all(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_itself_wants_waits_a_second_when_the_log_takes_nothing() {
    for refusal in
        [Proposed::NotApplied("the disk is full".to_owned()), Proposed::Refused(Reason::NotLeader(Some(LED)))]
    {
        // A tenant made in the same entry has its accounts opened in the next one.
        let mut bench = Bench::new(vec![]).await;
        let body = object([("name", Value::text("one")), ("caps", Value::list([global_cap(10)]))]);
        let create = Op::Create { kind: proffer_engine::catalog::EntityKind::Offer, id: "one".to_owned(), body };
        let _made = bench.change(vec![command(create)]);
        let entry = bench.turn().unwrap();
        // The offer without its account: as if an older release had written it.
        bench.commit(&entry[..1]);
        assert!(bench.turn().is_some(), "the account is opened");
        bench.leader.proposed(refusal);
        for _ in 0..10 {
            assert!(bench.turn().is_none(), "not again at once");
        }
        let second = Duration::from_millis(OWN_RETRY_MS);
        assert_eq!(bench.leader.next_timer(), Some(Instant::now() + second), "nor is it woken for it before");
        tokio::time::advance(second).await;
        assert!(bench.turn().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_cannot_be_compiled_is_not_said_to_be_in_force() {
    let mut bench = Bench::new(vec![]).await;
    let changed = bench.change(vec![offer("one", 50, vec![])]);
    let entry = bench.turn().unwrap();
    bench.commit(&entry);
    let compile = bench.leader.next_compile().unwrap();
    bench.leader.compiled(compile.run_with(|_| panic!("a fault of the test's making")));
    for ready in bench.leader.acknowledgements() {
        let _ = ready.reply.send(Ok(ready.answers));
    }
    assert_eq!(changed.await.unwrap().unwrap()[0].as_ref().unwrap_err(), &Error::Unknown);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_after_the_leadership_was_lost_is_handed_back() {
    let mut bench = Bench::new(vec![]).await;
    let [mut begun, mut queued] = ["one", "two"].map(|id| bench.change(vec![offer(id, 50, vec![])]));
    assert!(bench.turn().is_some());
    // The leadership is lost first, then the log says that it took nothing.
    bench.leader.follow(None);
    bench.leader.proposed(Proposed::Refused(Reason::NotLeader(None)));
    for ready in bench.leader.acknowledgements() {
        let _ = ready.reply.send(Ok(ready.answers));
    }
    for answer in [&mut begun, &mut queued] {
        let answers = answer.try_recv().expect("it is answered now").unwrap();
        assert!(matches!(answers[0], Err(Error::NotLed { .. })), "{answers:?}");
    }
    assert!(!bench.leader.has_work(), "nothing of it is begun again");
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_the_door_when_the_leadership_is_lost_is_turned_away() {
    let bench = Bench::new(vec![]).await;
    let mut late = bench.change(vec![offer("one", 50, vec![])]);
    bench.door.close();
    bench.leader.turn_away();
    assert!(matches!(late.try_recv(), Ok(Err(Error::NotLed { .. }))));
}
