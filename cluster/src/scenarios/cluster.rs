//! Several nodes in one process, over a network in memory: they join, share the shards, and lose each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::time::{Instant, sleep, timeout};

use super::world::*;
use crate::calls::{Place, ProfileWrite};
use crate::config::{Begin, Config, Reads};
use crate::error::{Error, StartError};
use crate::group::Group;
use crate::handle::Handle;
use crate::identity;
use crate::log::Durability;
use crate::meta::state::MetaState;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::memory_network::MemoryNetwork;
use crate::start::{Ports, launch};

const SHARDS: u16 = 3;

pub(super) struct Cluster {
    name: &'static str,
    pub(super) network: MemoryNetwork,
    pub(super) nodes: Vec<Handle>,
    pub(super) clocks: Vec<Arc<OddClock>>,
    pub(super) disks: Vec<Arc<MemoryDisk>>,
    starts: usize,
    /// What nodes are started with, but for who they are.
    pub(super) config: Config,
    /// Nodes that have crashed.
    down: BTreeSet<usize>,
}

pub(super) fn address(node: usize) -> String {
    format!("host-{node}:1")
}

impl Cluster {
    /// So many nodes, each of which has joined the first; everything is where it should be.
    pub(super) async fn of(name: &'static str, nodes: usize) -> Self {
        Self::with(name, nodes, Durability::Fsync).await
    }

    /// As [`Cluster::of`], under another promise.
    pub(super) async fn with(name: &'static str, nodes: usize, durability: Durability) -> Self {
        Self::configured(name, nodes, Config { durability, ..Config::default() }).await
    }

    /// As [`Cluster::of`], with nodes that are started otherwise.
    pub(super) async fn configured(name: &'static str, nodes: usize, config: Config) -> Self {
        let mut cluster = Cluster {
            name,
            network: MemoryNetwork::new(),
            nodes: Vec::new(),
            clocks: Vec::new(),
            disks: Vec::new(),
            starts: 0,
            config,
            down: BTreeSet::new(),
        };
        for _ in 0..nodes {
            cluster.add().await;
        }
        cluster.settle(nodes).await;
        cluster
    }

    async fn add(&mut self) {
        let number = self.nodes.len() + 1;
        self.disks.push(Arc::new(MemoryDisk::new()));
        self.clocks.push(Arc::new(OddClock::new()));
        let node = self.start(number, address(number)).await;
        self.nodes.push(node);
    }

    /// Ends a node: with `power`, what it wrote and did not sync stays, as after a kill; without, it is lost.
    pub(super) async fn crash(&mut self, number: usize, power: bool) {
        let others: Vec<String> = (1..=self.nodes.len()).filter(|other| *other != number).map(address).collect();
        others.iter().for_each(|other| self.network.cut(&address(number), other));
        let disk = self.disks[number - 1].copy();
        if !power {
            disk.cut_power(|_, _| 0);
        }
        self.nodes[number - 1].shutdown().await;
        others.iter().for_each(|other| self.network.heal(&address(number), other));
        self.disks[number - 1] = Arc::new(disk);
        self.down.insert(number);
    }

    /// Starts a node that has crashed, on what its disk holds.
    pub(super) async fn revive(&mut self, number: usize) {
        self.nodes[number - 1] = self.start(number, address(number)).await;
        self.down.remove(&number);
    }

    /// All crash, and are started again.
    pub(super) async fn restart_all(&mut self) {
        for number in 1..=self.nodes.len() {
            self.crash(number, false).await;
        }
        for number in 1..=self.nodes.len() {
            self.nodes[number - 1] = self.begin(number, address(number)).await.unwrap();
        }
        for node in &self.nodes {
            timeout(Duration::from_secs(60), node.settled()).await.expect("it starts");
        }
        self.down.clear();
    }

    /// The latest log time of any group at any node.
    pub(super) async fn latest_log_time(&self) -> Timestamp {
        let mut latest = Timestamp(i64::MIN);
        for node in &self.nodes {
            for group in [Group::Meta].into_iter().chain((0..SHARDS).map(|shard| Group::Shard(ShardId(shard)))) {
                let Some(examined) = node.examine(group).await else { continue };
                let log_time = match group {
                    Group::Meta => MetaState::decode_chunks(examined.pieces.into_iter()).unwrap().log_time(),
                    Group::Shard(_) => ShardState::decode_chunks(&examined.pieces).unwrap().log_time(),
                };
                latest = latest.max(log_time);
            }
        }
        latest
    }

    /// Starts a node at an address, on what its disk holds.
    pub(super) async fn start(&mut self, number: usize, at: String) -> Handle {
        self.try_to_start(number, at).await.unwrap()
    }

    /// As [`Cluster::start`], which may be refused.
    pub(super) async fn try_to_start(&mut self, number: usize, at: String) -> Result<Handle, StartError> {
        let node = self.begin(number, at).await?;
        if timeout(Duration::from_secs(60), node.settled()).await.is_err() {
            panic!("node {number} does not start: {:?}\n{:#?}", node.status(), self.nodes[0].report());
        }
        Ok(node)
    }

    /// Begins to start a node, which may never get anywhere.
    pub(super) async fn begin(&mut self, number: usize, at: String) -> Result<Handle, StartError> {
        let begin = match number {
            1 => Begin::Bootstrap { shards: SHARDS },
            _ => Begin::Join(vec![address(1)]),
        };
        self.starts += 1;
        let node = format!("{}-{number}-{}", self.name, self.starts);
        let config = Config { begin, node, peer_address: at.clone(), ..self.config.clone() };
        let (ports, _) = ports(Arc::clone(&self.disks[number - 1]) as _, self.starts as u64);
        let clock = Arc::clone(&self.clocks[number - 1]);
        let ports = Ports { network: Arc::new(self.network.host(&at)), clock, ..ports };
        timeout(Duration::from_secs(60), launch(config, ports)).await.expect("it begins")
    }

    pub(super) fn node(&self, number: usize) -> &Handle {
        &self.nodes[number - 1]
    }

    pub(super) fn disk(&self, number: usize) -> &MemoryDisk {
        &self.disks[number - 1]
    }

    /// Which of the nodes leads the catalogue.
    pub(super) async fn catalogue_leader(&self) -> usize {
        for _ in 0..1_000 {
            let mut nodes = self.nodes.iter().zip(1..);
            if let Some((_, number)) = nodes.find(|(node, _)| node.inner.meta.is_up()) {
                return number;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads the catalogue within ten seconds");
    }

    /// Waits until every shard has as many replicas as there can be, and nothing is to be changed.
    pub(super) async fn settle(&self, nodes: usize) {
        let voters = if nodes < 3 { 1 } else { 3 };
        let is_settled = |handle: &Handle| {
            let report = handle.report();
            let mut shards = report.groups.iter().filter(|group| group.shard.is_some());
            report.nodes.len() == nodes
                && shards.all(|group| {
                    group.target.is_none()
                        && group.voters.len() == voters
                        && group.voters.len() + group.learners.len() == nodes.min(3)
                })
        };
        let waited = timeout(Duration::from_secs(120), async {
            while !self.nodes.iter().all(is_settled) {
                sleep(Duration::from_millis(50)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{:#?}", self.nodes.iter().map(Handle::report).collect::<Vec<_>>());
        }
    }

    /// Does something at the node that leads a customer's shard, as the face of any node would.
    pub(super) async fn at<T>(
        &self,
        entry: usize,
        number: usize,
        deed: impl AsyncFn(&Handle) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let entry = self.node(entry);
        loop {
            let place = entry.place(&tenant(), &customer(number));
            let result = match place {
                Place::Here => deed(entry).await,
                Place::At(node) => match self.nodes.iter().zip(1..).find(|(handle, _)| handle.report().node == node) {
                    Some((handle, number)) if !self.down.contains(&number) => deed(handle).await,
                    Some(_) | None => Err(Error::NotLed { reason: "gone".to_owned() }),
                },
                Place::Nowhere => Err(Error::NotLed { reason: "nobody".to_owned() }),
            };
            match result {
                Err(Error::NotLed { .. }) if Instant::now() < deadline => {
                    entry.place_changes(&tenant(), &customer(number), place, deadline).await;
                }
                result => return result,
            }
        }
    }
}

pub(super) async fn put(handle: &Handle, number: usize, age: f64) -> Result<(), Error> {
    let attributes = Some(vec![("age".to_owned(), Value::Number(age))]);
    handle
        .put_profile(ProfileWrite { tenant: tenant(), customer: customer(number), attributes, segments: None }, soon())
        .await
}

pub(super) async fn age(handle: &Handle, number: usize) -> Result<Option<Value>, Error> {
    let view = handle.get_profile(&tenant(), &customer(number), soon()).await?;
    Ok(view.and_then(|view| view.attributes.first().map(|(_, value)| value.clone())))
}

#[tokio::test(start_paused = true)]
async fn three_nodes_share_the_shards_and_any_of_them_takes_writes_and_sees_them() {
    let cluster = Cluster::of("share", 3).await;
    for command in [command(Op::CreateTenant), offer("one", 50, vec![profile_cap(1)])] {
        let changed = change(cluster.node(2), command).await;
        for node in &cluster.nodes {
            node.wait_for_revision(changed.revision, soon()).await.unwrap();
        }
    }
    for number in 0..12 {
        cluster.at(1 + number % 3, number, async |node| put(node, number, 40.0).await).await.unwrap();
    }
    for number in 0..12 {
        let seen = cluster.at(1 + (number + 1) % 3, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(40.0)));
        let decided = cluster.at(1 + (number + 2) % 3, number, async |node| decide(node, number).await).await.unwrap();
        assert_eq!(decided.decision.propositions.len(), 1);
    }
    // Three shards and three nodes: each comes to lead one.
    let leaders = || -> BTreeSet<_> {
        let groups = cluster.node(1).report().groups;
        groups.iter().filter(|group| group.shard.is_some()).map(|group| group.leader).collect()
    };
    let spread = timeout(Duration::from_secs(30), async {
        while leaders().len() < 3 {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(spread.await.is_ok(), "{:#?}", cluster.node(1).report());
    for number in 0..12 {
        let seen = cluster.at(1 + (number + 1) % 3, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(40.0)), "nothing is lost when leaderships move");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_leads_nothing_and_the_others_go_on() {
    let cluster = Cluster::of("cut", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    for number in 0..6 {
        cluster.at(1, number, async |node| put(node, number, 30.0).await).await.unwrap();
    }
    for other in [1, 3] {
        cluster.network.cut(&address(2), &address(other));
    }
    for number in 0..6 {
        cluster.at(1, number, async |node| put(node, number, 31.0).await).await.unwrap();
        let seen = cluster.at(3, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(31.0)));
        let lonely = put(cluster.node(2), number, 32.0).await;
        assert!(matches!(lonely, Err(Error::NotLed { .. } | Error::Unavailable { .. })), "{lonely:?}");
    }
    for other in [1, 3] {
        cluster.network.heal(&address(2), &address(other));
    }
    for number in 0..6 {
        let seen = cluster.at(2, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(31.0)));
    }
    assert!(
        cluster.nodes.iter().all(|node| node
            .report()
            .groups
            .iter()
            .all(|group| group.shard.is_none() || group.leader.is_some()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_just_cut_off_reads_under_its_lease_and_not_where_a_quorum_is_asked() {
    for (name, reads) in [("lease-reads", Reads::Lease), ("quorum-reads", Reads::Quorum)] {
        let cluster = Cluster::configured(name, 3, Config { reads, ..Config::default() }).await;
        change(cluster.node(1), command(Op::CreateTenant)).await;
        for number in 0..6 {
            cluster.at(1, number, async |node| put(node, number, 30.0).await).await.unwrap();
            let seen = cluster.at(2, number, async |node| age(node, number).await).await.unwrap();
            assert_eq!(seen, Some(Value::Number(30.0)));
        }
        let leader = (1..=3).find(|node| cluster.node(*node).place(&tenant(), &customer(1)) == Place::Here).unwrap();
        for other in (1..=3).filter(|other| *other != leader) {
            cluster.network.cut(&address(leader), &address(other));
        }
        let read = timeout(Duration::from_millis(60), age(cluster.node(leader), 1)).await;
        match reads {
            Reads::Lease => assert_eq!(read.unwrap().unwrap(), Some(Value::Number(30.0))),
            Reads::Quorum => assert!(!matches!(read, Ok(Ok(_))), "{read:?}"),
        }
        for other in (1..=3).filter(|other| *other != leader) {
            cluster.network.heal(&address(leader), &address(other));
        }
        let seen = cluster.at(1, 1, async |node| age(node, 1).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(30.0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_at_another_address_is_found_and_catches_up() {
    let mut cluster = Cluster::of("elsewhere", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    cluster.node(3).shutdown().await;
    let changed = change(cluster.node(1), offer("one", 50, vec![])).await;
    for number in 0..6 {
        cluster.at(1, number, async |node| put(node, number, 50.0).await).await.unwrap();
    }
    cluster.nodes[2] = cluster.start(3, "host-33:1".to_owned()).await;
    cluster.node(3).wait_for_revision(changed.revision, soon()).await.unwrap();
    cluster.settle(3).await;
    let known = |node: &Handle| node.report().nodes.iter().any(|node| node.peer_address == "host-33:1" && node.is_up);
    let found = timeout(Duration::from_secs(10), async {
        while !cluster.nodes.iter().all(known) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(found.await.is_ok(), "{:#?}", cluster.node(1).report());
    for number in 0..6 {
        let seen = cluster.at(3, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(50.0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_left_a_group_never_takes_that_replica_in_again_whatever_an_older_roster_says() {
    let mut cluster = Cluster::of("older", 5).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let founders = |node: &Handle| -> Vec<u64> {
        let roster = node.roster();
        let own = roster.replicas_of(1).map(|(replica, _)| replica).filter(|replica| *replica > 1);
        own.filter(|replica| *replica <= 1 + u64::from(SHARDS)).collect()
    };
    let moved = timeout(Duration::from_secs(60), async {
        while founders(cluster.node(1)).len() == usize::from(SHARDS) {
            sleep(Duration::from_millis(50)).await;
        }
        cluster.settle(5).await;
    });
    assert!(moved.await.is_ok(), "with five nodes the founder gives some up: {:#?}", cluster.node(1).report());
    let before = cluster.disks[0].clone();
    let held = |disk: &MemoryDisk| identity::peek(disk).cluster.unwrap();
    let left = held(&before).left;
    assert!(!left.is_empty(), "{:?}", held(&before));
    // The meta group's state at its next start begins with what its log says first.
    cluster.node(1).shutdown().await;
    cluster.nodes[0] = cluster.start(1, address(1)).await;
    cluster.settle(5).await;
    sleep(Duration::from_secs(5)).await;
    let now = held(&before);
    for (group, replica) in left {
        assert_ne!(now.seats.get(&group), Some(&replica), "{now:?}");
        assert!(now.left[&group] >= replica);
    }
}
