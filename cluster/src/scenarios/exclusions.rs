//! Exclusions and leases among several nodes: whoever is asked after the answer proposes it no more, whatever is cut off.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::value::Value;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, address};
use super::world::*;
use crate::calls::{Call, Place};
use crate::error::Error;
use crate::handle::Handle;
use crate::ports::clock::Clock;

fn excluded(is_excluded: bool) -> proffer_engine::catalog::Command {
    update("one", object([("emergencyExcluded", Value::Bool(is_excluded))]))
}

async fn with_offer(name: &'static str) -> Cluster {
    let cluster = Cluster::of(name, 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    change(cluster.node(1), offer("one", 50, vec![])).await;
    let revision = cluster.node(1).revision();
    for node in &cluster.nodes {
        node.wait_for_revision(revision, soon()).await.unwrap();
    }
    cluster
}

/// Asks a node itself, whoever leads what: what it answers, if it does.
async fn proposes(node: &Handle, number: usize) -> Result<bool, Error> {
    decide(node, number).await.map(|decided| !decided.decision.propositions.is_empty())
}

async fn none_proposes(cluster: &Cluster) {
    for number in 0..12 {
        for node in &cluster.nodes {
            assert!(!matches!(proposes(node, number).await, Ok(true)), "customer {number}");
        }
    }
}

fn has_lease(node: &Handle) -> bool {
    node.verify_api_key(&[0; 32]).is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_exclusion_is_in_force_on_every_node_when_it_is_answered_and_takes_no_lease_to_run_out() {
    let cluster = with_offer("exclude").await;
    for round in 0..5 {
        let begun = Instant::now();
        change(cluster.node(1 + round % 3), excluded(true)).await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        none_proposes(&cluster).await;
        let changed = change(cluster.node(1 + (round + 1) % 3), excluded(false)).await;
        cluster.node(1 + (round + 2) % 3).wait_everywhere(changed.revision, soon()).await.unwrap();
        assert!(cluster.nodes.iter().all(|node| node.revision() >= changed.revision));
        let seen = cluster.at(1, round, async |node| proposes(node, round).await).await;
        assert_eq!(seen, Ok(true), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exclusion_waits_for_the_lease_of_a_node_that_is_cut_off_and_for_no_more() {
    let cluster = with_offer("cut-lease").await;
    let leader = cluster.catalogue_leader().await;
    let lost = 1 + leader % 3;
    // Until leaderships are spread: it decides for some customers, and now it proposes the offer.
    let spread = tokio::time::timeout(Duration::from_secs(60), async {
        while proposes_somewhere(&cluster, lost).await != Some(true) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    spread.await.expect("it comes to lead a shard");
    let before = cluster.node(lost).revision();
    for other in (1..=3).filter(|other| *other != lost) {
        cluster.network.cut(&address(lost), &address(other));
    }
    let begun = Instant::now();
    let changed = change(cluster.node(leader), excluded(true)).await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_millis(1_500) && waited < Duration::from_millis(2_600), "{waited:?}");
    assert_eq!(cluster.node(lost).revision(), before, "it knows nothing of it");
    assert!(!has_lease(cluster.node(lost)));
    none_proposes(&cluster).await;
    // The others wait for it no more.
    let begun = Instant::now();
    change(cluster.node(leader), excluded(true)).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    for other in (1..=3).filter(|other| *other != lost) {
        cluster.network.heal(&address(lost), &address(other));
    }
    let healed = Instant::now();
    while !has_lease(cluster.node(lost)) {
        assert!(!matches!(proposes(cluster.node(lost), 1).await, Ok(true)));
        assert!(healed.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(1)).await;
    }
    assert!(cluster.node(lost).revision() >= changed.revision, "a lease names what it has to know");
    none_proposes(&cluster).await;
}

/// What a node answers to the first customer whose shard it leads.
async fn proposes_somewhere(cluster: &Cluster, node: usize) -> Option<bool> {
    for number in 0..40 {
        if cluster.node(node).place(&tenant(), &customer(number)) == Place::Here {
            return proposes(cluster.node(node), number).await.ok();
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_reach_the_leader_has_its_lease_from_it_through_another() {
    let cluster = with_offer("relay").await;
    let leader = cluster.catalogue_leader().await;
    let far = 1 + leader % 3;
    cluster.network.cut(&address(leader), &address(far));
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        assert!(cluster.nodes.iter().all(has_lease), "leader {leader}, far {far}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_cannot_reach_the_leader_either_is_not_asked_for_ever() {
    let cluster = Cluster::of("relays", 4).await;
    let mut rounds = 0;
    for third in 1..=4 {
        let leader = cluster.catalogue_leader().await;
        let far = (1..=4).filter(|node| *node != leader && *node != third);
        if third == leader {
            continue;
        }
        far.clone().for_each(|far| cluster.network.cut(&address(leader), &address(far)));
        let mut is_led = true;
        for _ in 0..50 {
            sleep(Duration::from_millis(100)).await;
            // Unless the third has no vote: then another leads.
            is_led &= cluster.node(leader).inner.meta.is_up();
            assert!(!is_led || cluster.nodes.iter().all(has_lease), "only {third} reaches {leader}");
        }
        rounds += usize::from(is_led);
        far.for_each(|far| cluster.network.heal(&address(leader), &address(far)));
        sleep(Duration::from_secs(3)).await;
    }
    assert!(rounds >= 2, "{rounds}");
}

#[tokio::test(start_paused = true)]
async fn leases_outlast_the_change_of_the_catalogues_leader_and_exclusions_hold_across_it() {
    let cluster = with_offer("new-leader").await;
    let old = cluster.catalogue_leader().await;
    let others: Vec<usize> = (1..=3).filter(|other| *other != old).collect();
    for other in &others {
        cluster.network.cut(&address(old), &address(*other));
    }
    let cut = Instant::now();
    // Whichever of them leads next: it does not know until when the old one may have granted leases.
    let changed = loop {
        let within = Instant::now() + Duration::from_secs(10);
        match cluster.node(others[0]).change(excluded(true), within).await {
            Ok(changed) => break changed,
            Err(error) => assert!(error.retryable() && cut.elapsed() < Duration::from_secs(20), "{error}"),
        }
        assert!(others.iter().all(|node| has_lease(cluster.node(*node))), "their leases hold until there is a leader");
        sleep(Duration::from_millis(10)).await;
    };
    assert!(!has_lease(cluster.node(old)), "the old leader has none, nor grants itself one");
    assert!(cluster.node(old).revision() < changed.revision);
    assert!(cut.elapsed() > Duration::from_millis(2_000), "{:?}", cut.elapsed());
    none_proposes(&cluster).await;
    assert!(others.iter().all(|node| has_lease(cluster.node(*node))));
    assert!(others.iter().all(|node| cluster.node(*node).revision() >= changed.revision));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_lease_leads_nothing_for_long() {
    let cluster = with_offer("surrender").await;
    let leader = cluster.catalogue_leader().await;
    let sick = 1 + leader % 3;
    let spread = tokio::time::timeout(Duration::from_secs(60), async {
        while proposes_somewhere(&cluster, sick).await != Some(true) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    spread.await.expect("it comes to lead a shard");
    // Whatever it is granted has run out when it looks.
    cluster.clocks[sick - 1].races_ms.store(5_000, Ordering::SeqCst);
    sleep(Duration::from_secs(3)).await;
    for _ in 0..20 {
        let led = (0..40).filter(|number| cluster.node(sick).place(&tenant(), &customer(*number)) == Place::Here);
        assert_eq!(led.count(), 0, "it is alive and well connected, and may not decide");
        assert_eq!(cluster.at(sick, 1, async |node| proposes(node, 1).await).await, Ok(true), "others do");
        sleep(Duration::from_millis(500)).await;
    }
    cluster.clocks[sick - 1].races_ms.store(0, Ordering::SeqCst);
    sleep(Duration::from_secs(1)).await;
    assert!(has_lease(cluster.node(sick)));
}

/// What a clock is put ahead by.
const MONTH_MS: i64 = 30 * 86_400_000;

#[tokio::test(start_paused = true)]
async fn a_leader_whose_clock_is_not_what_the_others_show_does_not_set_the_clusters_time() {
    let cluster = with_offer("clock").await;
    let wrong = cluster.catalogue_leader().await;
    cluster.clocks[wrong - 1].ahead_ms.store(MONTH_MS, Ordering::SeqCst);
    for _ in 0..50 {
        sleep(Duration::from_millis(100)).await;
        let _ = cluster.node(wrong).change(excluded(false), soon()).await;
    }
    let right = cluster.catalogue_leader().await;
    assert_ne!(right, wrong);
    let walls: Vec<i64> = cluster.nodes.iter().map(|node| node.inner.tenure.clock().wall().0).collect();
    let own = cluster.clocks[right - 1].wall();
    assert!(walls.iter().all(|wall| (wall - own.0).abs() < 100), "{walls:?} {own:?}");
    assert!(cluster.latest_log_time().await <= own, "nothing was written at another time");
}

#[tokio::test(start_paused = true)]
async fn nobody_sets_the_clusters_time_before_most_clocks_are_known_whoever_is_elected_first() {
    let mut cluster = with_offer("clock-at-start").await;
    let key = keyed(9);
    change(cluster.node(1), offer("capped", 90, vec![profile_cap(1)])).await;
    let again = async |cluster: &Cluster| {
        let call = async |node: &Handle| node.decide(request(customer(3)), Call { deadline: soon(), ..key }).await;
        cluster.at(1, 3, call).await.unwrap()
    };
    let first = again(&cluster).await;
    for wrong in 1..=3 {
        cluster.clocks[wrong - 1].ahead_ms.store(MONTH_MS, Ordering::SeqCst);
        cluster.restart_all().await;
        sleep(Duration::from_secs(5)).await;
        let right = cluster.clocks[wrong % 3].wall();
        assert!(cluster.latest_log_time().await <= right, "node {wrong} was wrong");
        let again = again(&cluster).await;
        assert!(again.duplicate && again.id == first.id, "no time has passed, and its key is known");
        cluster.clocks[wrong - 1].ahead_ms.store(0, Ordering::SeqCst);
    }
}
