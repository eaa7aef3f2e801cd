//! What is counted in any shard is known to every node within a second, once, whatever happens to the nodes.

use std::time::Duration;

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::decision::Factors;
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::keys::OfferKey;
use proffer_engine::learn::{PropensitySource, Tallies};
use proffer_engine::profile::command::DecisionId;
use proffer_engine::profile::evidence::Tally;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::time::sleep;

use super::cluster::{Cluster, address};
use super::world::*;
use crate::calls::Call;
use crate::handle::Handle;

/// Longest time until all know what was counted.
const KNOWN_MS: u64 = 1_000;

/// Offers `one` and `two`, of which `one` has the higher priority, ranked by P.
async fn open(cluster: &Cluster) {
    let node = |id: &str, kind: &str, phase: f64, config: Value| {
        let id = ("id", Value::text(id));
        let position = ("position", Value::Number(phase));
        object([id, ("type", Value::text(kind)), ("phase", Value::Number(phase)), position, ("config", config)])
    };
    let none = || Value::map::<&str>([]);
    let nodes =
        [node("a", "inventory", 1.0, none()), node("b", "score", 2.0, object([("method", Value::text("propensity"))]))];
    let version = ("version", Value::Number(2.0));
    let draft = object([version, ("flowConfig", none()), ("nodes", Value::list(nodes))]);
    let body = object([("key", Value::text("main")), ("name", Value::text("main")), ("draftConfig", draft)]);
    let commands = [
        command(Op::CreateTenant),
        offer("one", 90, vec![]),
        offer("two", 50, vec![]),
        command(Op::Create { kind: EntityKind::Flow, id: "main".to_owned(), body }),
        command(Op::PublishFlow { id: "main".to_owned() }),
        command(Op::UpdateSettings { patch: object([("defaultFlowKey", Value::text("main"))]) }),
    ];
    for command in commands {
        let changed = change(cluster.node(1), command).await;
        for node in &cluster.nodes {
            node.wait_for_revision(changed.revision, soon()).await.unwrap();
        }
    }
}

/// Customers are shown `offer`, each once; what they were proposed is of another node.
async fn show(cluster: &Cluster, entry: usize, customers: std::ops::Range<usize>, offer: OfferKey) {
    for number in customers {
        let decided = Some((DecisionId(number as u64 + 1), Timestamp(NOON)));
        let key = number as u128 + 1;
        let shown = cluster.at(entry, number, async |node| impression(node, number, offer, decided, key).await).await;
        assert!(shown.unwrap().recorded);
    }
}

fn knows(node: &Handle, offer: OfferKey, shown: u64) -> bool {
    let tally = Tally { shown, positive: 0 };
    let expected = Tallies { all: tally, offers: vec![(offer, tally)], categories: Vec::new() };
    *node.learned(&tenant()).tallies() == expected
}

/// What is proposed to somebody new, asked at a node.
async fn factors(cluster: &Cluster, entry: usize, number: usize) -> (OfferKey, Factors) {
    let asked = Request { explain: Explain::Full { limit: 5 }, ..request(customer(number)) };
    let decide = async |node: &Handle| node.decide(asked.clone(), Call::until(soon())).await;
    let decided = cluster.at(entry, number, decide).await.unwrap();
    (decided.decision.propositions[0].offer, decided.decision.explanation.unwrap().factors[0])
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_at_one_node_is_decided_with_at_every_other_within_a_second() {
    let cluster = Cluster::of("learn", 4).await;
    open(&cluster).await;
    let (one, two) = (key_of(cluster.node(1), "one"), key_of(cluster.node(1), "two"));
    let (first, factors_then) = factors(&cluster, 2, 900).await;
    assert_eq!((first, factors_then.source), (one, PropensitySource::Default), "nothing is known: by priority");
    show(&cluster, 3, 0..30, one).await;
    sleep(Duration::from_millis(KNOWN_MS)).await;
    for (number, node) in (1..).zip(&cluster.nodes) {
        assert!(knows(node, one, 30), "node {number}: {:?}", node.learned(&tenant()).tallies());
        // P of all is (0 + 5) / 40; that of the first offer less.
        for customer in 100 * number..100 * number + 6 {
            let (offer, factors) = factors(&cluster, number, customer).await;
            assert_eq!((offer, factors.propensity, factors.source), (two, 0.125, PropensitySource::Global));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_counted_is_lost_or_counts_twice_when_leaders_die_links_break_and_all_start_again() {
    let mut cluster = Cluster::of("learn-on", 3).await;
    open(&cluster).await;
    let one = key_of(cluster.node(1), "one");
    show(&cluster, 1, 0..30, one).await;
    // Whoever led a shard dies with what it had not told.
    let leader = (1..=3).find(|node| {
        cluster
            .node(*node)
            .report()
            .groups
            .iter()
            .any(|group| group.shard.is_some() && group.leader == Some(cluster.node(*node).report().node))
    });
    let dead = leader.expect("somebody leads");
    let living: Vec<usize> = (1..=3).filter(|node| *node != dead).collect();
    cluster.crash(dead, false).await;
    show(&cluster, living[0], 30..40, one).await;
    sleep(Duration::from_millis(KNOWN_MS)).await;
    for node in &living {
        assert!(knows(cluster.node(*node), one, 40), "{:?}", cluster.node(*node).learned(&tenant()).tallies());
    }
    cluster.revive(dead).await;
    sleep(Duration::from_millis(KNOWN_MS)).await;
    assert!(knows(cluster.node(dead), one, 40), "{:?}", cluster.node(dead).learned(&tenant()).tallies());

    // One that has no way to another hears of it through the third.
    cluster.network.cut(&address(1), &address(2));
    sleep(Duration::from_secs(2)).await;
    show(&cluster, 3, 40..52, one).await;
    sleep(Duration::from_millis(2 * KNOWN_MS)).await;
    assert!(cluster.nodes.iter().all(|node| knows(node, one, 52)));
    cluster.network.heal(&address(1), &address(2));

    cluster.restart_all().await;
    sleep(Duration::from_millis(KNOWN_MS)).await;
    for node in &cluster.nodes {
        assert!(knows(node, one, 52), "{:?}", node.learned(&tenant()).tallies());
    }
}
