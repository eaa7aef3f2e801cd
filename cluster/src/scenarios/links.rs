//! One link is cut and every node lives: what two nodes cannot say to each other goes through the third.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::value::Value;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Cluster, address, age, put};
use super::world::*;
use crate::calls::{Forwarded, Place};
use crate::error::Error;
use crate::peers::Lane;
use crate::ports::propose::Pending;

/// The nodes of a cluster of three by what they are.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// Leads the catalogue.
    leader: usize,
    /// Leads a shard, that of this customer.
    far: usize,
    customer: usize,
    /// Hears both.
    between: usize,
}

impl Cluster {
    /// Waits until leaderships are spread: a node that does not lead the catalogue leads a shard.
    async fn parts(&self) -> Parts {
        let spread = timeout(Duration::from_secs(60), async {
            loop {
                let leader = self.catalogue_leader().await;
                let far = 1 + leader % 3;
                let led = (0..40).find(|number| self.node(far).place(&tenant(), &customer(*number)) == Place::Here);
                if let Some(customer) = led {
                    let between = (1..=3).find(|node| ![leader, far].contains(node)).unwrap();
                    return Parts { leader, far, customer, between };
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        spread.await.expect("it comes to lead a shard")
    }
}

async fn proposes(cluster: &Cluster, entry: usize, number: usize) -> Result<bool, Error> {
    let decided = cluster.at(entry, number, async |node| decide(node, number).await).await;
    decided.map(|decided| !decided.decision.propositions.is_empty())
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_between_two_leaders_costs_no_call_no_unit_and_no_exclusion() {
    let cluster = Cluster::of("one-link", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    change(cluster.node(1), offer("one", 50, vec![global_cap(3)])).await;
    let revision = cluster.node(1).revision();
    for node in &cluster.nodes {
        node.wait_for_revision(revision, soon()).await.unwrap();
    }
    let parts = cluster.parts().await;
    cluster.network.cut(&address(parts.leader), &address(parts.far));
    // Longer than anybody believes what was said before.
    sleep(Duration::from_secs(3)).await;
    for number in 0..12 {
        for entry in 1..=3 {
            let begun = Instant::now();
            let value = (number * 3 + entry) as f64;
            cluster.at(entry, number, async |node| put(node, number, value).await).await.unwrap();
            let seen = cluster.at(entry, number, async |node| age(node, number).await).await.unwrap();
            assert_eq!(seen, Some(Value::Number(value)));
            assert!(begun.elapsed() < Duration::from_millis(500), "node {entry}: {:?}, {parts:?}", begun.elapsed());
        }
    }
    let begun = Instant::now();
    let mut sold = 0;
    while sold < 3 {
        // At the shard whose leader has no way to the catalogue's, and at all others.
        for number in [parts.customer].into_iter().chain(100..110) {
            sold += usize::from(proposes(&cluster, 1 + number % 3, number).await.unwrap());
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the last unit is not sold: {sold}");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sold, 3);
    change(cluster.node(1), update("one", object([("caps", Value::list([]))]))).await;
    for entry in [parts.leader, parts.far, parts.between] {
        let begun = Instant::now();
        change(cluster.node(entry), update("one", object([("emergencyExcluded", Value::Bool(true))]))).await;
        // A lease without it has to run out, and a node that cannot follow waits a little for what it was told is in force.
        assert!(begun.elapsed() < Duration::from_millis(3_000), "through {entry}: {:?}, {parts:?}", begun.elapsed());
        for number in 0..12 {
            for node in &cluster.nodes {
                let decided = decide(node, number).await;
                assert!(!decided.is_ok_and(|decided| !decided.decision.propositions.is_empty()), "{parts:?}");
            }
        }
        let changed = update("one", object([("emergencyExcluded", Value::Bool(false))]));
        change(cluster.node(parts.leader), changed).await;
    }
    // What cannot follow the catalogue leads no more, and everybody is answered by who can.
    sleep(Duration::from_secs(5)).await;
    assert_ne!(cluster.node(parts.far).place(&tenant(), &customer(parts.customer)), Place::Here, "{parts:?}");
    for number in 0..12 {
        for entry in 1..=3 {
            let begun = Instant::now();
            assert_eq!(proposes(&cluster, entry, number).await, Ok(true), "customer {number} at {entry}, {parts:?}");
            assert!(begun.elapsed() < Duration::from_millis(500), "node {entry}: {:?}", begun.elapsed());
        }
    }
    cluster.network.heal(&address(parts.leader), &address(parts.far));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.node(parts.far).revision(), cluster.node(parts.leader).revision());
}

/// Says who answered.
struct Says(u64);

impl Forwarded for Says {
    fn answer(&self, _: Vec<u8>, _: Duration) -> Pending<'static, Vec<u8>> {
        let node = u8::try_from(self.0).unwrap_or(u8::MAX);
        Box::pin(async move { vec![node] })
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_through_a_third_node_once_and_to_nobody_who_is_gone() {
    let cluster = Cluster::of("forward", 3).await;
    for (number, node) in (0..).zip(&cluster.nodes) {
        node.on_forwarded(Arc::new(Says(number)));
    }
    let far = cluster.node(3).report().node;
    let forward = async |came| cluster.node(1).forward(far, Lane::Control, vec![7], came, soon()).await;
    assert_eq!(forward(false).await, Ok(vec![2]), "directly, while there is a link");
    cluster.network.cut(&address(1), &address(3));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(forward(false).await, Ok(vec![1]), "through the node that hears both");
    assert!(matches!(forward(true).await, Err(Error::NotLed { .. })), "it has come from another node already");
    cluster.network.cut(&address(2), &address(3));
    sleep(Duration::from_millis(700)).await;
    let led_there = (0..40).filter(|number| cluster.node(1).place(&tenant(), &customer(*number)) == Place::At(far));
    assert_eq!(led_there.count(), 0, "nobody hears it any more");
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(forward(false).await, Err(Error::NotLed { .. })), "nobody has a way to it");
}
