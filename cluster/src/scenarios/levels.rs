//! Releases that differ in what they can: none does with an entry what another does not.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::level::Level;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, address, age, put};
use super::world::*;
use crate::config::Config;
use crate::ports::memory_disk::MemoryDisk;
use crate::start::{launch, start};

impl Cluster {
    async fn at_level(&self, level: Level) {
        let reached = timeout(Duration::from_secs(30), async {
            while !self.nodes.iter().all(|node| node.roster().level() == level) {
                sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(reached.await.is_ok(), "{:?}", self.nodes.iter().map(|node| node.roster().level()).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn the_level_is_raised_when_the_last_node_is_upgraded_and_no_older_one_is_let_in_again() {
    let mut cluster = Cluster::of("levels", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let newer = Level(Level::NEWEST.0 + 1);
    cluster.config.level = newer;
    for number in 1..=3 {
        assert!(cluster.nodes.iter().all(|node| node.roster().level() == Level::NEWEST));
        cluster.crash(number, true).await;
        cluster.revive(number).await;
        cluster.at(number, 1, async |node| put(node, 1, number as f64).await).await.unwrap();
        sleep(Duration::from_secs(3)).await;
    }
    cluster.at_level(newer).await;
    cluster.config.level = Level::NEWEST;
    cluster.crash(3, true).await;
    let older = cluster.begin(3, address(3)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(!older.status().ready);
    let own = older.report().node;
    let is_out = |number: usize| cluster.node(number).report().nodes.iter().any(|node| node.node == own && !node.is_up);
    assert!(is_out(1) && is_out(2));
    older.shutdown().await;
    cluster.config.level = newer;
    cluster.revive(3).await;
    cluster.settle(3).await;
    let seen = cluster.at(3, 1, async |node| age(node, 1).await).await.unwrap();
    assert_eq!(seen, Some(proffer_engine::value::Value::Number(3.0)));
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_start_on_what_a_newer_one_has_written() {
    let disk = Arc::new(MemoryDisk::new());
    let newer = Level(Level::NEWEST.0 + 1);
    let config = |name: &str, level| Config { level, ..Config::founding(name, 2) };
    let on_disk = |seed| ports(Arc::clone(&disk) as _, seed);
    let handle = start(config("newer", newer), on_disk(1).0).await.unwrap();
    while handle.roster().level() != newer {
        sleep(Duration::from_millis(50)).await;
    }
    handle.shutdown().await;
    let (ports, fatal) = on_disk(2);
    let said = match launch(config("older", Level::NEWEST), ports).await {
        Err(error) => error.to_string(),
        Ok(_) => {
            let ended = timeout(Duration::from_secs(30), async {
                while fatal.reasons().is_empty() {
                    sleep(Duration::from_millis(50)).await;
                }
            });
            assert!(ended.await.is_ok(), "it goes on");
            fatal.reasons().remove(0)
        }
    };
    assert!(said.contains("feature level 2") && said.contains("upgrade it"), "{said}");
}
