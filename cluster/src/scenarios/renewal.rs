//! Nodes whose replicas may not vote any more, because they may have forgotten what they promised: they get new ones from the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::Op;
use proffer_engine::value::Value;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, address, age, put};
use super::world::*;
use crate::config::Config;
use crate::group::Group;
use crate::identity;
use crate::log::Durability;
use crate::ports::disk::{Disk, read_all};
use crate::ports::memory_disk::MemoryDisk;
use crate::start::start;

const CUSTOMERS: usize = 12;

/// The replicas that lie on a disk.
fn seats(disk: &MemoryDisk) -> BTreeMap<Group, u64> {
    identity::peek(disk).cluster.unwrap().seats
}

/// Those of them that an in-memory start gives up: the meta group's is synced in every mode.
fn shards(disk: &MemoryDisk) -> BTreeMap<Group, u64> {
    seats(disk).into_iter().filter(|(group, _)| *group != Group::Meta).collect()
}

/// The first file of the log that lies on a disk, with its frames: where each is, and of a record whose entry it is.
fn frames(disk: &MemoryDisk) -> (String, Vec<(usize, Option<u64>)>) {
    let name = disk.list().unwrap().into_iter().find(|name| name.ends_with(".log")).unwrap();
    let bytes = read_all(disk, &name, u64::MAX).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut frames) = (48, Vec::new());
    while at + 40 <= bytes.len() {
        let is_mark = word(at) == u32::from_le_bytes(*b"MARK");
        let group = u64::from_le_bytes(bytes[at + 12..at + 20].try_into().unwrap());
        frames.push((at, (!is_mark && bytes[at + 28] == 1).then_some(group)));
        at += if is_mark { 40 } else { 29 + word(at) as usize };
    }
    (name, frames)
}

impl Cluster {
    async fn write(&self, entry: usize, value: f64) {
        for number in 0..CUSTOMERS {
            self.at(entry, number, async |node| put(node, number, value).await).await.unwrap();
        }
    }

    async fn reads(&self, entry: usize, value: f64) {
        for number in 0..CUSTOMERS {
            let seen = self.at(entry, number, async |node| age(node, number).await).await.unwrap();
            assert_eq!(seen, Some(Value::Number(value)), "customer {number}");
        }
    }

    /// Waits until a node's replicas have been replaced, and the old ones are of no group any more.
    async fn renewed(&self, number: usize, old: &BTreeMap<Group, u64>) {
        let waited = timeout(Duration::from_secs(60), async {
            loop {
                let now = seats(&self.disks[number - 1]);
                let roster = self.node(number).roster();
                let is_new = |(group, old): (&Group, &u64)| now.get(group).is_some_and(|new| new > old);
                if old.iter().all(is_new) && old.values().all(|old| roster.has_left(*old)) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(waited.await.is_ok(), "{:?}\n{:#?}", seats(&self.disks[number - 1]), self.node(1).roster());
        self.settle(self.nodes.len()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_memory_each_start_takes_new_replicas_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::with("memory", 3, Durability::Memory).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    for (round, (number, power)) in [(2, false), (1, false), (3, true)].into_iter().enumerate() {
        let other = 1 + number % 3;
        cluster.write(other, round as f64).await;
        let old = shards(&cluster.disks[number - 1]);
        cluster.crash(number, power).await;
        cluster.write(other, 10.0 + round as f64).await;
        cluster.revive(number).await;
        assert!(
            shards(&cluster.disks[number - 1]).iter().all(|(group, now)| old[group] != *now),
            "from the first moment"
        );
        cluster.renewed(number, &old).await;
        cluster.reads(number, 10.0 + round as f64).await;
    }
    // What all now hold, any two of them hold without the third.
    cluster.crash(1, true).await;
    cluster.reads(2, 12.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_keeps_its_replicas_and_what_its_disk_holds_in_memory_too() {
    let disk = Arc::new(MemoryDisk::new());
    let mut before = None;
    for name in ["alone-1", "alone-2", "alone-3"] {
        let (ports, _) = ports(Arc::clone(&disk) as _, 7);
        let config = Config { durability: Durability::Memory, ..Config::founding(name, 2) };
        let handle = start(config, ports).await.unwrap();
        assert_eq!(*before.get_or_insert_with(|| seats(&disk)), seats(&disk));
        if handle.tenant(&tenant()).is_none() {
            change(&handle, command(Op::CreateTenant)).await;
            put(&handle, 1, 5.0).await.unwrap();
        }
        assert_eq!(age(&handle, 1).await.unwrap(), Some(Value::Number(5.0)));
        handle.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_run_in_memory_the_replicas_are_new_whatever_the_next_run_promises() {
    let mut cluster = Cluster::with("mixed", 3, Durability::Memory).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    cluster.write(1, 1.0).await;
    cluster.config.durability = Durability::Fsync;
    let old = shards(&cluster.disks[1]);
    cluster.crash(2, false).await;
    cluster.revive(2).await;
    cluster.renewed(2, &old).await;
    let kept = seats(&cluster.disks[1]);
    cluster.crash(2, false).await;
    cluster.revive(2).await;
    cluster.reads(2, 1.0).await;
    assert_eq!(seats(&cluster.disks[1]), kept, "what was synced goes on");
}

#[tokio::test(start_paused = true)]
async fn a_rotten_log_costs_its_node_what_is_hurt_and_nobody_a_write() {
    let mut cluster = Cluster::of("rotten", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    cluster.write(1, 1.0).await;
    let old = seats(&cluster.disks[2]);
    // In a payload: whose it was can be told.
    cluster.crash(3, true).await;
    let disk = Arc::clone(&cluster.disks[2]);
    let entry = *old.iter().find(|(group, _)| **group != Group::Meta).unwrap().1;
    let (name, found) = frames(&disk);
    let (at, _) = found.into_iter().filter(|(_, of)| *of == Some(entry)).nth(2).unwrap();
    disk.flip(&name, at + 29, 1);
    cluster.revive(3).await;
    let now = seats(&disk);
    assert!(old.iter().filter(|(group, replica)| now.get(group) == Some(replica)).count() + 1 == old.len(), "{now:?}");
    let hurt: BTreeMap<_, _> = old.iter().filter(|(_, replica)| **replica == entry).map(|(g, r)| (*g, *r)).collect();
    cluster.renewed(3, &hurt).await;
    cluster.write(3, 2.0).await;
    // In a header: nobody can tell whose it was, the log is set aside.
    let old = seats(&disk);
    cluster.crash(3, true).await;
    let disk = Arc::clone(&cluster.disks[2]);
    let (name, found) = frames(&disk);
    disk.flip(&name, found[found.len() / 2].0 + 13, 1);
    cluster.revive(3).await;
    assert!(seats(&disk).iter().all(|(group, now)| old[group] != *now));
    cluster.renewed(3, &old).await;
    assert!(disk.list().unwrap().iter().any(|name| name.ends_with(".bad")), "{:?}", disk.list());
    cluster.reads(3, 2.0).await;
    cluster.crash(1, true).await;
    cluster.write(3, 3.0).await;
    cluster.reads(2, 3.0).await;
}

#[tokio::test(start_paused = true)]
async fn an_older_copy_of_a_disk_is_let_in_by_nobody_who_knows_better_and_the_newest_one_is() {
    let mut cluster = Cluster::of("copy", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    cluster.write(1, 1.0).await;
    let older = cluster.disks[2].copy();
    cluster.write(1, 2.0).await;
    sleep(Duration::from_secs(15)).await;
    cluster.crash(3, true).await;
    // What was heard outlives those who have heard it.
    cluster.crash(1, true).await;
    cluster.revive(1).await;
    let newest = std::mem::replace(&mut cluster.disks[2], Arc::new(older));
    let copy = cluster.begin(3, address(3)).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(!copy.status().ready, "{:?}", copy.status());
    let own = copy.report().node;
    for node in [1, 2] {
        let report = cluster.node(node).report();
        assert!(report.nodes.iter().any(|node| node.node == own && !node.is_up), "{report:?}");
        let boots = cluster.node(node).roster().node(own).unwrap().info.boots;
        assert_eq!(boots, 1, "its start is not heard of either");
    }
    copy.shutdown().await;
    cluster.disks[2] = newest;
    cluster.revive(3).await;
    cluster.settle(3).await;
    cluster.reads(3, 2.0).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_in_memory_the_one_that_votes_keeps_its_replica_and_the_other_follows_it_whatever_it_has_forgotten()
 {
    let mut cluster = Cluster::with("pair", 2, Durability::Memory).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    cluster.write(1, 1.0).await;
    for (round, (number, power)) in [(2, true), (1, true), (1, false), (2, false)].into_iter().enumerate() {
        let before = shards(&cluster.disks[number - 1]);
        let roster = cluster.node(1).roster();
        let votes = |group: &Group| roster.group(*group).unwrap().now.voters.contains(&before[group]);
        let (voting, following): (BTreeMap<_, _>, _) =
            before.iter().map(|(group, replica)| (*group, *replica)).partition(|(group, _)| votes(group));
        cluster.crash(number, power).await;
        cluster.revive(number).await;
        for (group, replica) in voting {
            assert_eq!(seats(&cluster.disks[number - 1]).get(&group), Some(&replica), "{group}");
        }
        cluster.renewed(number, &following).await;
        cluster.write(2, 2.0 + round as f64).await;
        cluster.reads(1, 2.0 + round as f64).await;
        sleep(Duration::from_secs(1)).await;
    }
    // What a learner has applied and its leader forgotten is gone on both: the two are the same.
    cluster.settle(2).await;
    let hashes = || {
        let revision = |node: &crate::handle::Handle| (node.revision(), node.tenant(&tenant()).is_some());
        (revision(cluster.node(1)), revision(cluster.node(2)))
    };
    let same = timeout(Duration::from_secs(10), async {
        while hashes().0 != hashes().1 {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(same.await.is_ok(), "{:?}", hashes());
}
