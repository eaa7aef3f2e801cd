//! Timing profiles: one a cluster, and what each bears.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, address, put};
use super::world::*;
use crate::calls::GroupReport;
use crate::config::Config;
use crate::ports::memory_disk::MemoryDisk;
use crate::timing::Timing;

impl Cluster {
    async fn timed(name: &'static str, timing: Timing) -> Self {
        let cluster = Cluster::configured(name, 3, Config { timing, ..Config::default() }).await;
        change(cluster.node(1), command(Op::CreateTenant)).await;
        cluster
    }

    /// Terms of all groups, as the first node knows them.
    fn terms(&self) -> Vec<u64> {
        self.node(1).report().groups.iter().map(|group: &GroupReport| group.term).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_with_another_timing_profile_is_not_let_in() {
    let mut cluster = Cluster::timed("odd-timing", Timing::Fast).await;
    cluster.config.timing = Timing::Slow;
    // One that is of the cluster and was started otherwise stands outside.
    cluster.crash(3, true).await;
    let odd = cluster.begin(3, address(3)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(!odd.status().ready);
    let own = odd.report().node;
    let is_out = |number: usize| cluster.node(number).report().nodes.iter().any(|node| node.node == own && !node.is_up);
    assert!(is_out(1) && is_out(2));
    odd.shutdown().await;
    // One that is of none hears why.
    cluster.disks.push(Arc::new(MemoryDisk::new()));
    cluster.clocks.push(Arc::new(OddClock::new()));
    let Err(refused) = cluster.begin(4, address(4)).await else { panic!("it is let in") };
    assert!(refused.to_string().contains("--timing"), "{refused}");
    cluster.config.timing = Timing::Fast;
    cluster.revive(3).await;
    cluster.at(3, 1, async |node| put(node, 1, 40.0).await).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_silent_for_800_ms_keeps_its_leaderships_in_a_slow_cluster_and_not_in_a_fast_one() {
    for (name, timing) in [("slow-silence", Timing::Slow), ("fast-silence", Timing::Fast)] {
        let cluster = Cluster::timed(name, timing).await;
        sleep(Duration::from_secs(20)).await;
        let before = cluster.terms();
        let ways = [(2, 1), (2, 3), (1, 2), (3, 2)].map(|(from, to)| (address(from), address(to)));
        ways.iter().for_each(|(from, to)| cluster.network.silence(from, to));
        sleep(Duration::from_millis(800)).await;
        ways.iter().for_each(|(from, to)| cluster.network.heal(from, to));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(cluster.terms() == before, timing == Timing::Slow, "{timing}: {before:?}, {:?}", cluster.terms());
        for number in 0..6 {
            cluster.at(1 + number % 3, number, async |node| put(node, number, 40.0).await).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_cluster_replaces_a_lost_leader_within_a_request() {
    let mut cluster = Cluster::timed("slow-loss", Timing::Slow).await;
    for number in 0..6 {
        cluster.at(1, number, async |node| put(node, number, 30.0).await).await.unwrap();
    }
    cluster.crash(2, true).await;
    let lost = Instant::now();
    for number in 0..6 {
        cluster.at(1, number, async |node| put(node, number, 31.0).await).await.unwrap();
    }
    assert!(lost.elapsed() < Duration::from_secs(2), "{:?}", lost.elapsed());
}
