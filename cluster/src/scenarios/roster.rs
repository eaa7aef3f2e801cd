//! The catalogue's leader as the keeper of the roster: nodes join, operators drain and remove, groups report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::keys::ShardId;
use proffer_engine::level::Level;
use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::{oneshot, watch};

use super::world::TokioClock;
use crate::calls::Operation;
use crate::error::Error;
use crate::group::Group;
use crate::lease::Tenure;
use crate::meta::ask::{Enrolled, MetaAsk, Verdict};
use crate::meta::command::{Founding, MetaOutcome};
use crate::meta::door::MetaDoor;
use crate::meta::hearing::Hearing;
use crate::meta::keeper::Whereabouts;
use crate::meta::leader::{Command, MetaLeader, Surroundings};
use crate::meta::roster::{Configured, NodeInfo, NodeStanding, Roster};
use crate::meta::state::MetaState;
use crate::ports::propose::{Committed, Proposed, Reason};
use crate::shard::door::ShardDoor;
use crate::view::Views;

const LED: Leader = Leader { term: 1, replica: 1 };
const SHARDS: u16 = 4;

fn says(disk: u128, boots: u64) -> NodeInfo {
    let (peer_address, http_address) = (format!("n{disk}:7"), format!("n{disk}:8"));
    NodeInfo { disk, boots, peer_address, http_address, zone: String::new() }
}

type Answer<T> = oneshot::Receiver<Result<Verdict<T>, Error>>;

/// A leader whose entries are committed at once, and groups that become what they should when told to.
struct Bench {
    leader: MetaLeader,
    door: Arc<MetaDoor>,
    hearing: Arc<Hearing>,
    roster: watch::Receiver<Arc<Roster>>,
    index: u64,
}

impl Bench {
    fn new(state: MetaState, index: u64, info: NodeInfo) -> Self {
        let door = Arc::new(MetaDoor::default());
        door.open(Arc::new(|| {}));
        let whereabouts = Whereabouts::of(info);
        let (hearing, roster) = (Arc::clone(&whereabouts.hearing), whereabouts.roster.subscribe());
        let (views, clock) = (Arc::new(Views::new()), Arc::new(TokioClock::new()));
        let around = Surroundings {
            door: Arc::clone(&door),
            shards: (0..SHARDS).map(|_| Arc::new(ShardDoor::new())).collect(),
            tenure: Arc::new(Tenure::new(Arc::clone(&clock) as _, Arc::clone(&views))),
            views,
            clock,
            founding: Founding { secret: [1; 16], shards: SHARDS },
            whereabouts,
            can: Level::NEWEST,
        };
        let mut leader = MetaLeader::new(around, state, Position { leader: LED, index });
        leader.follow(Some(LED));
        Bench { leader, door, hearing, roster, index }
    }

    fn founded() -> Self {
        let mut bench = Bench::new(MetaState::new(), 0, says(101, 1));
        bench.settle();
        bench
    }

    fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    fn commit(&mut self, commands: &[Command]) -> Vec<MetaOutcome> {
        self.index += 1;
        let position = Position { leader: LED, index: self.index };
        let results = self.leader.apply(position, commands);
        self.leader.proposed(Proposed::Applied(Committed { position, results: results.clone() }));
        results
    }

    fn settle(&mut self) {
        while let Some((commands, _)) = self.leader.next_entry() {
            self.commit(&commands);
        }
    }

    /// A while goes by in which every group but those becomes what it should, and every node but those is heard.
    async fn pass(&mut self, secs: u64, deaf: &[u64]) {
        for _ in 0..secs * 5 {
            tokio::time::advance(Duration::from_millis(200)).await;
            let roster = self.roster();
            roster.nodes().filter(|(node, _)| !deaf.contains(node)).for_each(|(node, _)| self.hearing.hear(node));
            self.settle();
            let roster = self.roster();
            let open = roster.groups().filter(|(_, record)| record.target.is_some() || record.heard < record.targets);
            for (group, record) in open {
                self.index += 1;
                let at = Position { leader: LED, index: self.index };
                let report = Configured { group, members: record.meant().clone(), at, targets: record.targets };
                self.door.send(MetaAsk::Configured(report)).unwrap();
            }
            self.settle();
        }
    }

    fn ask_to_join(&mut self, info: NodeInfo) -> Answer<Enrolled> {
        let (reply, answer) = oneshot::channel();
        self.door.send(MetaAsk::Enroll { info, reply }).unwrap();
        answer
    }

    fn join(&mut self, disk: u128) -> u64 {
        let mut answer = self.ask_to_join(says(disk, 1));
        self.settle();
        answer.try_recv().unwrap().unwrap().unwrap().node
    }

    fn operate(&mut self, operation: Operation) -> Verdict<String> {
        let (reply, mut answer) = oneshot::channel();
        self.door.send(MetaAsk::Operate { operation, reply }).unwrap();
        self.settle();
        answer.try_recv().unwrap().unwrap()
    }

    fn led_by(&self, node: u64) -> BTreeSet<Group> {
        let roster = self.roster();
        let led = roster.groups().filter(|(_, record)| record.leader == Some(node));
        led.map(|(group, _)| group).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_founder_enrols_itself_and_says_each_start_once() {
    let bench = Bench::founded();
    let roster = bench.roster();
    assert_eq!(roster.node(1).unwrap().info, says(101, 1));
    assert_eq!(roster.replicas_of(1).count(), usize::from(SHARDS) + 1);
    assert!(bench.leader.next_timer().is_none(), "one that is alone has nobody to look for");
    let mut again = Bench::new(bench.leader.share(), bench.index, says(101, 2));
    again.settle();
    assert_eq!((again.roster().node(1).unwrap().info.boots, again.index), (2, bench.index + 1));
    let older = again.leader.share();
    let mut copy = Bench::new(older, again.index, says(101, 1));
    copy.settle();
    assert_eq!(copy.index, again.index + 1, "a start that is refused is said once");
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_told_its_id_or_why_not() {
    let mut bench = Bench::new(MetaState::new(), 0, says(101, 1));
    let mut early = bench.ask_to_join(says(102, 1));
    bench.settle();
    let Enrolled { node, replica } = early.try_recv().unwrap().unwrap().unwrap();
    assert_eq!(bench.roster().node_of_disk(101), Some(1), "the founder is the first, whoever asks meanwhile");
    assert_eq!(bench.roster().replica_on(Group::Meta, node), Some(replica));
    let mut wrong = bench.ask_to_join(NodeInfo { peer_address: "nowhere".to_owned(), ..says(103, 1) });
    bench.settle();
    assert!(wrong.try_recv().unwrap().unwrap().unwrap_err().contains("address"));
    let mut late = bench.ask_to_join(says(104, 1));
    let (commands, _) = bench.leader.next_entry().unwrap();
    assert_eq!(commands.len(), 1);
    bench.leader.proposed(Proposed::Refused(Reason::NotLeader(None)));
    assert!(matches!(late.try_recv().unwrap(), Err(Error::NotLed { .. })));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_join_get_replicas_and_leaderships_and_give_them_back_when_drained() {
    let mut bench = Bench::founded();
    let (two, three) = (bench.join(102), bench.join(103));
    bench.pass(5, &[]).await;
    let roster = bench.roster();
    for (group, record) in roster.groups() {
        assert_eq!((record.now.voters.len(), &record.target), (3, &None), "{group}");
    }
    for node in [1, two, three] {
        assert!((1..=2).contains(&bench.led_by(node).len()), "{:?}", bench.led_by(node));
    }
    let words = bench.operate(Operation::Drain { node: three }).unwrap();
    assert!(words.contains("nowhere"), "{words}");
    bench.pass(1, &[]).await;
    assert!(bench.led_by(three).is_empty());
    assert_eq!(bench.roster().replicas_of(three).count(), usize::from(SHARDS) + 1);
    bench.operate(Operation::Undrain { node: three }).unwrap();
    bench.pass(1, &[]).await;
    assert!(!bench.led_by(three).is_empty());
    let four = bench.join(104);
    bench.operate(Operation::Drain { node: three }).unwrap();
    bench.pass(5, &[]).await;
    let words = bench.operate(Operation::Remove { node: three, reduce_redundancy: false }).unwrap();
    assert!(words.contains("removed"), "{words}");
    bench.pass(2, &[]).await;
    assert_eq!(bench.roster().nodes().map(|(node, _)| node).collect::<Vec<_>>(), [1, two, four]);
    let mut back = bench.ask_to_join(says(103, 2));
    bench.settle();
    assert!(back.try_recv().unwrap().unwrap().unwrap_err().contains("was removed"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_heard_can_be_removed_soon_and_is_replaced_in_the_end() {
    let mut bench = Bench::founded();
    let (two, three, four) = (bench.join(102), bench.join(103), bench.join(104));
    bench.pass(5, &[]).await;
    let remove = Operation::Remove { node: four, reduce_redundancy: false };
    assert!(bench.operate(remove).unwrap_err().contains("drain it first"));
    let held = bench.roster().replicas_of(four).count();
    assert!(held > 1);
    bench.pass(30, &[four]).await;
    assert_eq!(bench.roster().replicas_of(four).count(), held, "it may come back");
    tokio::time::advance(Duration::from_secs(3_600)).await;
    bench.pass(1, &[four]).await;
    assert_eq!(bench.roster().replicas_of(four).count(), held, "it was this node that stood still");
    bench.pass(600, &[four]).await;
    assert_eq!(bench.roster().replicas_of(four).count(), 1, "of the catalogue");
    assert_eq!(bench.roster().node(four).unwrap().standing, NodeStanding::Up);
    bench.operate(remove).unwrap();
    bench.pass(1, &[four]).await;
    assert_eq!(bench.roster().nodes().map(|(node, _)| node).collect::<Vec<_>>(), [1, two, three]);
}

#[tokio::test(start_paused = true)]
async fn a_leadership_that_was_transferred_stays_until_all_is_levelled() {
    let mut bench = Bench::founded();
    let (two, _) = (bench.join(102), bench.join(103));
    bench.pass(5, &[]).await;
    let transfer = |shard| Operation::Transfer { group: Group::Shard(ShardId(shard)), node: two };
    for shard in 0..SHARDS {
        bench.operate(transfer(shard)).unwrap();
    }
    bench.pass(1, &[]).await;
    assert_eq!(bench.led_by(two).len(), usize::from(SHARDS));
    let words = bench.operate(Operation::Rebalance).unwrap();
    assert!(words.contains("leaderships"), "{words}");
    bench.pass(1, &[]).await;
    assert!(bench.led_by(two).len() <= 2);
    assert!(bench.operate(Operation::Rebalance).unwrap().contains("even"));
    assert!(bench.operate(transfer(99)).unwrap_err().contains("no shard-99"));
}
