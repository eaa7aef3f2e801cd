//! Groups that become what a roster says, while they are written to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use super::world::{Group as World, Host};
use crate::group::Group;
use crate::meta::roster::{Configured, NodeInfo, Roster};
use crate::ports::propose::Proposed;
use crate::reconcile::{Around, OwnStart, run};

/// Replica 1 is the founder's of the meta group: the group that is reconciled here.
const GROUP: Group = Group::Meta;

/// A group whose replicas are driven by a roster, and marks that are proposed all the while.
struct Driven {
    world: World,
    roster: watch::Sender<Arc<Roster>>,
    reports: (mpsc::UnboundedSender<Configured>, mpsc::UnboundedReceiver<Configured>),
    entry: u64,
    mark: i64,
    acknowledged: VecDeque<i64>,
}

fn says(disk: u128) -> NodeInfo {
    let (peer_address, http_address) = ("a:1".to_owned(), "a:2".to_owned());
    NodeInfo { disk, boots: 1, peer_address, http_address, zone: String::new() }
}

impl Driven {
    async fn new(seed: u64) -> Self {
        let world = World::of(1, seed).await;
        let roster = watch::Sender::new(Arc::default());
        let mut driven = Driven {
            world,
            roster,
            reports: mpsc::unbounded_channel(),
            entry: 0,
            mark: 0,
            acknowledged: VecDeque::new(),
        };
        driven.change(|roster, entry| roster.enroll(&says(1), 1, entry).map(drop));
        driven.drive(1, OwnStart { disk: 1, boots: 1 });
        driven
    }

    fn change(&mut self, change: impl FnOnce(&mut Roster, u64) -> Result<(), String>) {
        self.entry += 1;
        let mut roster = Roster::clone(&self.roster.borrow());
        change(&mut roster, self.entry).unwrap();
        self.roster.send_replace(Arc::new(roster));
    }

    /// A node joins, with its replica; gives its id.
    async fn join(&mut self, disk: u128) -> u64 {
        let mut enrolled = (0, 0);
        self.change(|roster, entry| {
            enrolled = roster.enroll(&says(disk), 1, entry)?;
            Ok(())
        });
        self.host().await;
        enrolled.0
    }

    /// Replicas that are placed begin to be, those that have left end.
    async fn host(&mut self) {
        let roster = Arc::clone(&self.roster.borrow());
        let gone: Vec<u64> = self.world.hosts.keys().copied().filter(|replica| roster.has_left(*replica)).collect();
        for replica in gone {
            self.world.stop(replica, false).await;
            self.world.hosts.remove(&replica);
        }
        let placed = roster.replicas().filter(|(_, record)| record.group == GROUP).map(|(replica, _)| replica);
        let begun: BTreeSet<u64> = self.world.hosts.keys().copied().collect();
        for replica in placed.filter(|replica| !begun.contains(replica)) {
            self.world.hosts.insert(replica, Host::new());
            self.start(replica).await;
        }
    }

    async fn start(&mut self, replica: u64) {
        self.world.join(replica).await;
        let roster = Arc::clone(&self.roster.borrow());
        let node = roster.node_of(replica).unwrap();
        let info = &roster.node(node).unwrap().info;
        self.drive(replica, OwnStart { disk: info.disk, boots: info.boots });
    }

    fn drive(&self, replica: u64, own: OwnStart) {
        let reports = self.reports.0.clone();
        let around = Around {
            own,
            roster: self.roster.subscribe(),
            report: Arc::new(move |report| drop(reports.send(report))),
            is_fit: Arc::new(|_| true),
            is_stuck: Arc::new(|group| panic!("{group} is stuck")),
            bulk: Arc::new(Semaphore::new(1)),
        };
        tokio::spawn(run(Arc::clone(self.world.replica(replica)), GROUP, around));
    }

    fn aim(&mut self, voters: &[u64], leader: Option<u64>) {
        let voters: BTreeSet<u64> = voters.iter().copied().collect();
        self.change(|roster, entry| roster.retarget(GROUP, &voters, &BTreeSet::new(), (leader, false), entry));
    }

    /// Until the group has become what it should, marks are proposed; replicas that leave are ended.
    async fn settle(&mut self) {
        for _ in 0..4_000 {
            while let Ok(report) = self.reports.1.try_recv() {
                // Told twice, or overtaken: as in the meta group.
                self.entry += 1;
                let mut roster = Roster::clone(&self.roster.borrow());
                if roster.configure(&report).is_ok() {
                    self.roster.send_replace(Arc::new(roster));
                }
            }
            let roster = Arc::clone(&self.roster.borrow());
            self.host().await;
            let record = roster.group(GROUP).unwrap();
            let leader = self.world.leader();
            let is_led = leader
                .is_some_and(|leader| record.leader.is_none_or(|node| roster.node_of(leader.replica) == Some(node)));
            if record.target.is_none() && record.heard == record.targets && is_led {
                return;
            }
            if let Some(leader) = leader {
                self.mark += 1;
                if let Proposed::Applied(_) = self.world.propose(self.mark, leader).await {
                    self.acknowledged.push_back(self.mark);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it does not become what it should: {:?}", self.roster.borrow().group(GROUP));
    }
}

#[tokio::test(start_paused = true)]
async fn one_becomes_three_moves_and_becomes_another_one_while_it_is_written_to() {
    let mut driven = Driven::new(21).await;
    driven.settle().await;
    let (two, three) = (driven.join(2).await, driven.join(3).await);
    driven.settle().await;
    assert_eq!(driven.roster.borrow().group(GROUP).unwrap().now.learners.len(), 2);
    driven.aim(&[1, two, three], None);
    driven.settle().await;
    assert_eq!(driven.roster.borrow().group(GROUP).unwrap().now.voters.len(), 3);
    let four = driven.join(4).await;
    driven.aim(&[two, three, four], Some(four));
    driven.settle().await;
    assert!(!driven.world.hosts.contains_key(&1), "the founder's replica has left");
    driven.aim(&[two], Some(two));
    driven.settle().await;
    assert_eq!(driven.world.hosts.len(), 1);
    let agreed = driven.world.agreed(driven.acknowledged.len()).await;
    let kept: VecDeque<i64> = agreed.into_iter().filter(|mark| driven.acknowledged.contains(mark)).collect();
    assert_eq!(kept, driven.acknowledged);
    assert!(kept.len() > 20, "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_not_there_is_not_made_a_voter_and_keeps_nobody_waiting() {
    let mut driven = Driven::new(22).await;
    let two = driven.join(2).await;
    driven.settle().await;
    let absent = driven.roster.borrow().replica_on(GROUP, two).unwrap();
    driven.world.stop(absent, true).await;
    // What it said last is not taken for a sign of life any more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    driven.aim(&[1, two], None);
    for _ in 0..200 {
        let leader = driven.world.led_by(|_| true).await;
        driven.mark += 1;
        assert!(matches!(driven.world.propose(driven.mark, leader).await, Proposed::Applied(_)));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let members = driven.world.replica(1).members().unwrap();
    assert_eq!((members.voters, members.seats.len()), ([1].into(), 2));
    driven.start(absent).await;
    driven.settle().await;
    assert_eq!(driven.world.replica(1).members().unwrap().voters.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn leaders_that_die_on_the_way_leave_it_to_the_next() {
    let mut driven = Driven::new(23).await;
    let (two, three) = (driven.join(2).await, driven.join(3).await);
    driven.aim(&[1, two, three], None);
    driven.settle().await;
    for (round, node) in [1, two, three].into_iter().enumerate() {
        let four = driven.join(10 + round as u128).await;
        let others: Vec<u64> = [1, two, three, four].into_iter().filter(|other| *other != node).collect();
        driven.aim(&others, None);
        // In the middle of whatever it is.
        tokio::time::sleep(Duration::from_millis(20 + 40 * round as u64)).await;
        if let Some(leader) = driven.world.leader() {
            driven.world.stop(leader.replica, false).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            driven.start(leader.replica).await;
        }
        driven.settle().await;
        driven.aim(&[1, two, three], None);
        driven.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_roster_that_does_not_know_of_this_start_moves_nothing() {
    let mut driven = Driven::new(24).await;
    driven.settle().await;
    driven.world.stop(1, false).await;
    driven.world.join(1).await;
    driven.drive(1, OwnStart { disk: 1, boots: 2 });
    driven.join(2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(driven.world.replica(1).members().unwrap().seats.len(), 1, "the roster may be of an earlier time");
    driven.change(|roster, entry| roster.enroll(&NodeInfo { boots: 2, ..says(1) }, 1, entry).map(drop));
    driven.settle().await;
    assert_eq!(driven.world.replica(1).members().unwrap().seats.len(), 2);
}
