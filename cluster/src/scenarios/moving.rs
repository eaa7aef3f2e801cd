//! Nodes that come and go while everybody writes: whole nodes, over a network in memory.

use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::value::Value;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, age, put};
use super::world::*;
use crate::calls::Operation;
use crate::group::Group;

impl Cluster {
    /// Has the catalogue's leader do what an operator wants.
    async fn operate(&self, operation: Operation) -> Result<String, String> {
        loop {
            let leader = self.catalogue_leader().await;
            if let Ok(verdict) = self.node(leader).operate(operation, soon()).await {
                return verdict;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Customers are written to, at node 1, until it is so; gives how many.
    async fn write_until(&self, from: usize, is_so: impl Fn(&Cluster) -> bool) -> usize {
        let mut number = from;
        let written = timeout(Duration::from_secs(120), async {
            while !is_so(self) {
                self.at(1, number, async |node| put(node, number, number as f64).await).await.unwrap();
                number += 1;
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(written.await.is_ok(), "{:#?}", self.node(1).roster());
        number
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_drained_and_removed_costs_nobody_a_write() {
    let cluster = Cluster::of("moving", 4).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let written =
        cluster.write_until(0, |cluster| cluster.nodes.iter().all(|node| node.tenant(&tenant()).is_some())).await;
    let going = cluster.node(4).report().node;
    let holds = |cluster: &Cluster| {
        let roster = cluster.node(1).roster();
        roster.replicas_of(going).filter(|(_, group)| *group != Group::Meta).count()
    };
    assert!(holds(&cluster) > 0, "three shards of three on four nodes");
    let refused = cluster.operate(Operation::Remove { node: going, reduce_redundancy: false }).await.unwrap_err();
    assert!(refused.contains("drain it first"), "{refused}");
    cluster.operate(Operation::Drain { node: going }).await.unwrap();
    let written = cluster.write_until(written, |cluster| holds(cluster) == 0).await;
    cluster.operate(Operation::Remove { node: going, reduce_redundancy: false }).await.unwrap();
    let is_forgotten = |cluster: &Cluster| (1..4).all(|node| cluster.node(node).roster().node(going).is_none());
    let written = cluster.write_until(written, is_forgotten).await;
    for (group, record) in cluster.node(1).roster().groups() {
        assert_eq!((record.now.voters.len(), record.now.learners.len()), (3, 0), "{group}");
    }
    let is_led = |cluster: &Cluster| {
        let report = cluster.node(1).report();
        report.groups.iter().all(|group| group.leader.is_some_and(|leader| leader != going))
    };
    let written = cluster.write_until(written, is_led).await;
    for number in 0..written {
        let seen = cluster.at(2, number, async |node| age(node, number).await).await.unwrap();
        assert_eq!(seen, Some(Value::Number(number as f64)));
    }
}
