//! Two of the three nodes that hold a shard are lost for good, or so it seems.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::budget::ledger::Ledger;
use proffer_engine::catalog::Op;
use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{Cluster, address, age, put};
use super::disks::{self, Kept};
use super::world::*;
use crate::config::Config;
use crate::error::{Error, StartError};
use crate::groups::{Group, Groups};
use crate::handle::Handle;
use crate::identity;
use crate::log::{GroupId, LogOptions};
use crate::ports::memory_disk::MemoryDisk;
use crate::remnant::begin_alone;
use crate::start::launch;

const LIMIT: u64 = 60;

/// A shard and those who hold it, by their numbers.
#[derive(Clone, Copy, Debug)]
struct Loss {
    shard: ShardId,
    /// The one that leads it, and one that follows.
    lost: [usize; 2],
    survivor: usize,
}

impl Cluster {
    fn number_of(&self, node: u64) -> usize {
        self.nodes.iter().position(|handle| handle.report().node == node).unwrap() + 1
    }

    /// Shard 0, which is led.
    async fn loss(&self) -> Loss {
        let shard = ShardId(0);
        loop {
            let report = self.node(1).report();
            let group = report.groups.iter().find(|group| group.shard == Some(shard)).unwrap();
            if let Some(leader) = group.leader {
                let mut followers = group.voters.iter().copied().filter(|node| *node != leader);
                let (survivor, other) = (followers.next().unwrap(), followers.next().unwrap());
                let lost = [self.number_of(leader), self.number_of(other)];
                return Loss { shard, lost, survivor: self.number_of(survivor) };
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn others(&self, than: [usize; 2]) -> Vec<usize> {
        (1..=self.nodes.len()).filter(|node| !than.contains(node)).collect()
    }

    /// Cuts both off from everybody and from each other.
    fn lose(&self, lost: [usize; 2]) {
        self.network.cut(&address(lost[0]), &address(lost[1]));
        for (one, other) in self.others(lost).into_iter().flat_map(|other| lost.map(|one| (one, other))) {
            self.network.cut(&address(one), &address(other));
        }
    }

    /// The customers of a shard.
    fn customers_of(&self, shard: ShardId) -> impl Iterator<Item = usize> + '_ {
        (0..).filter(move |number| self.node(1).shard_number(&tenant(), &customer(*number)) == shard)
    }

    /// Has every shard begun anew that has lost its majority with these two.
    async fn recover(&self, lost: [usize; 2]) -> Vec<String> {
        let lost = lost.map(|number| self.node(number).report().node);
        let entry = self.node(self.others(lost.map(|node| self.number_of(node)))[0]);
        let roster = entry.roster();
        let is_lost = |voters: &BTreeSet<u64>| lost.iter().all(|node| voters.contains(node));
        let shards = roster.groups().filter_map(|(group, record)| match group {
            Group::Shard(shard) if is_lost(&roster.nodes_of(&record.now.voters)) => Some(shard),
            Group::Shard(_) | Group::Meta => None,
        });
        let mut words = Vec::new();
        for shard in shards {
            let done = timeout(Duration::from_secs(30), async {
                loop {
                    match entry.recover(shard, true, "me".to_owned(), soon()).await {
                        Ok(Ok(words)) => return words,
                        Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(200)).await,
                    }
                }
            });
            words.push(done.await.unwrap_or_else(|_| panic!("{shard:?}: {:#?}", entry.report())));
        }
        words
    }
}

/// Whether a decision was given the one unit there is to give.
async fn takes(cluster: &Cluster, entry: usize, number: usize) -> Result<u64, Error> {
    let decided = cluster.at(entry, number, async |node| decide(node, number).await).await?;
    Ok(decided.decision.propositions.len() as u64)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(120), async {
        while !is_so() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_goes_on_from_what_is_left_of_it_and_its_lost_majority_serves_nothing_when_it_comes_back() {
    let cluster = Cluster::of("recovery", 5).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let changed = change(cluster.node(1), offer("one", 50, vec![global_cap(LIMIT)])).await;
    for node in &cluster.nodes {
        node.wait_for_revision(changed.revision, soon()).await.unwrap();
    }
    let loss = cluster.loss().await;
    let [leader, other] = loss.lost;
    let left = cluster.others(loss.lost);
    let mut customers = cluster.customers_of(loss.shard);
    let known = customers.next().unwrap();
    cluster.at(1, known, async |node| put(node, known, 40.0).await).await.unwrap();
    let mut sold = takes(&cluster, leader, customers.next().unwrap()).await.unwrap();
    assert_eq!(sold, 1);
    let early = cluster.node(left[0]).recover(loss.shard, true, "me".to_owned(), soon()).await.unwrap();
    assert!(early.as_ref().is_err_and(|words| words.contains("led by node")), "{early:?}");

    // What the two acknowledge from here on the third does not hear of.
    for lost in loss.lost {
        cluster.network.cut(&address(lost), &address(loss.survivor));
    }
    let missed: Vec<usize> = customers.by_ref().take(4).collect();
    for number in &missed {
        sold += takes(&cluster, leader, *number).await.unwrap();
        cluster.at(leader, *number, async |node| put(node, *number, 50.0).await).await.unwrap();
    }
    assert!(sold > 1);
    cluster.lose(loss.lost);

    let entry = cluster.node(left[0]);
    let refused = timeout(Duration::from_secs(30), async {
        loop {
            match entry.recover(loss.shard, false, "me".to_owned(), soon()).await {
                Ok(Err(words)) if words.contains("--accept-loss") => return words,
                Ok(_) | Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    });
    let refused = refused.await.expect("it says what is lost");
    assert!(refused.contains("is lost"), "{refused}");
    assert_eq!(entry.roster().generation(Group::Shard(loss.shard)), 0, "nothing was done");
    let read = entry.budget(&tenant(), key_of(entry, "one"), false, soon()).await.unwrap();
    let account = &read.accounts[0];
    let held: u64 = account.shards.iter().map(|shard| shard.free + shard.reserved + shard.spent).sum();
    let sum = account.pool + i64::try_from(held + account.in_flight).unwrap();
    assert_eq!(sum, i64::try_from(LIMIT).unwrap(), "the lost shard's last report makes up the sum: {read:?}");
    let linearizable = entry.budget(&tenant(), key_of(entry, "one"), true, soon()).await;
    assert!(linearizable.is_err_and(|error| error.retryable()), "nobody knows what it would say");
    let words = cluster.recover(loss.lost).await;
    assert!(words.iter().any(|words| words.contains("begins anew")), "{words:?}");
    let again = entry.recover(loss.shard, true, "me".to_owned(), soon()).await;
    assert!(!matches!(again, Ok(Ok(_))), "it has its majority: {again:?}");

    // It is served, knows what the survivor knew, and sells what the lost cannot have sold.
    let seen = cluster.at(left[0], known, async |node| age(node, known).await).await.unwrap();
    assert_eq!(seen, Some(proffer_engine::value::Value::Number(40.0)));
    let numbers: Vec<usize> = (10_000..10_400).collect();
    let mut left_empty = 0;
    for number in &numbers {
        let taken = takes(&cluster, left[0], *number).await.unwrap();
        sold += taken;
        left_empty = if taken == 0 { left_empty + 1 } else { 0 };
        if left_empty > 20 {
            break;
        }
        if taken == 0 {
            sleep(Duration::from_millis(300)).await;
        }
    }
    assert!(sold <= LIMIT, "{sold} of {LIMIT}");
    assert!(sold > LIMIT / 2, "most of it was never given to the lost: {sold}");

    // The two are back, and hear each other alone: they are the majority of the shard as they know it.
    cluster.network.heal(&address(leader), &address(other));
    let opens = |node: &Handle| node.inner.shards[usize::from(loss.shard.0)].is_open();
    until("one of them leads", || loss.lost.iter().any(|lost| opens(cluster.node(*lost)))).await;
    for lost in loss.lost {
        for number in &missed {
            let refused = decide(cluster.node(lost), *number).await.unwrap_err();
            assert!(matches!(refused, Error::Unavailable { .. }), "{refused}");
        }
    }
    // They meet the others, and what they hold of the shard goes.
    for (one, other) in left.iter().flat_map(|other| loss.lost.map(|one| (one, *other))) {
        cluster.network.heal(&address(one), &address(other));
    }
    let group = Group::Shard(loss.shard);
    let founder = entry.roster().recovery(group).unwrap().founder;
    let is_gone = |number: usize| {
        let home = identity::peek(cluster.disk(number)).cluster.unwrap();
        home.seats.get(&group).is_none_or(|replica| *replica > founder) && home.leaving.is_empty()
    };
    until("what was lost is destroyed", || loss.lost.iter().all(|lost| is_gone(*lost))).await;
    let is_whole = |node: &Handle| {
        let report = node.report();
        report.groups.iter().all(|group| group.target.is_none() && group.voters.len() >= 3 && group.leader.is_some())
    };
    until("there are three replicas again", || cluster.nodes.iter().all(is_whole)).await;
    let seen = cluster.at(leader, known, async |node| age(node, known).await).await.unwrap();
    assert_eq!(seen, Some(proffer_engine::value::Value::Number(40.0)));
    assert!(matches!(takes(&cluster, other, known).await, Ok(0)), "all is sold");
    let report = loop {
        match cluster.node(leader).budget(&tenant(), key_of(entry, "one"), false, soon()).await {
            Ok(report) if report.accounts[0].in_flight == 0 => break report,
            Ok(_) | Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    let account = &report.accounts[0];
    let held: u64 = account.shards.iter().map(|shard| shard.free + shard.reserved + shard.spent).sum();
    assert_eq!(account.pool + i64::try_from(held).unwrap(), i64::try_from(LIMIT).unwrap(), "{report:?}");
    let shown = cluster.node(leader).report().groups;
    let recovery = shown.into_iter().find(|group| group.shard == Some(loss.shard)).and_then(|group| group.recovery);
    assert_eq!(recovery.map(|recovery| (recovery.generation, recovery.by)), Some((1, "me".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn exclusions_and_caps_are_answered_while_a_shard_has_no_majority() {
    let cluster = Cluster::of("recovery-edits", 5).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    change(cluster.node(1), offer("one", 50, vec![global_cap(LIMIT)])).await;
    let loss = cluster.loss().await;
    cluster.lose(loss.lost);
    let entry = cluster.node(cluster.others(loss.lost)[0]);
    sleep(Duration::from_secs(10)).await;
    let answered = async |command| {
        let begun = Instant::now();
        let changed = change(entry, command).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        changed
    };
    answered(update("one", object([("emergencyExcluded", Value::Bool(true))]))).await;
    answered(offer("two", 50, vec![global_cap(LIMIT)])).await;
    // The lost shard was granted units, and cannot give them back.
    let lowered = answered(update("one", object([("caps", Value::list([global_cap(1)]))]))).await;
    assert!(lowered.over_by > 0, "{lowered:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_catalogues_majority_no_shard_is_begun_anew_and_it_is_said_what_to_do() {
    let cluster = Cluster::of("recovery-none", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let loss = cluster.loss().await;
    cluster.lose(loss.lost);
    let refused = timeout(Duration::from_secs(30), async {
        loop {
            match cluster.node(loss.survivor).recover(loss.shard, true, "me".to_owned(), soon()).await {
                Err(Error::NotLed { reason }) => return reason,
                Ok(Err(_)) | Err(_) => sleep(Duration::from_millis(200)).await,
                Ok(Ok(words)) => panic!("{words}"),
            }
        }
    });
    let reason = refused.await.expect("it is refused");
    assert!(reason.contains("docs/operations.md"), "{reason}");
}

/// The replica of shard 0 that a cluster begins with, and one that is placed later.
const SURVIVOR: u64 = 2;
const HEIR: u64 = 1 << 20;
const FLOOR: u64 = 1 << 32;

/// What is left of shard 0: some of it in a snapshot, some in the log after it.
async fn remains() -> MemoryDisk {
    let disk = Arc::new(MemoryDisk::new());
    let node = Kept::on(&disk, LogOptions::default()).await;
    let (_, propose) = node.shard(0).await.unwrap();
    for number in 0..30 {
        disks::put(&propose, number).await;
        if number == 9 {
            node.keep(0).await.unwrap();
        }
    }
    node.groups.close().await;
    disk.copy()
}

#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_what_is_left_is_handed_on_whole_and_goes_on_in_later_terms_and_entries() {
    let remains = remains().await;
    let last = {
        let node = Kept::on(&Arc::new(remains.copy()), LogOptions::default()).await;
        node.log.bounds(GroupId(SURVIVOR)).and_then(|bounds| bounds.next).unwrap() - 1
    };
    let settle = |state: &mut ShardState| {
        state.begin_generation(1, (&Ledger::default(), ShardId(0)), Revision(0), Timestamp(NOON));
    };
    let (mut is_whole, mut failed) = (false, 0);
    for (calls, torn) in (0..).flat_map(|calls| [0, 7, usize::MAX].map(|torn| (calls, torn))) {
        if is_whole && torn == 0 {
            break;
        }
        let disk = Arc::new(remains.copy());
        let node = Kept::on(&disk, LogOptions::default()).await;
        node.groups.unseat(Group::Shard(ShardId(0))).await;
        disk.fail_after(calls);
        is_whole = node.groups.bequeath((SURVIVOR, HEIR), FLOOR, settle).await.is_ok();
        failed += usize::from(!is_whole);
        disk.cut_power(|_, unsynced| unsynced.min(torn));
        // What ran before writes there no more.
        let disk = Arc::new(disk.copy());
        let node = Kept::on(&disk, LogOptions::default()).await;
        let (whole, _) = node.groups.recover_shard(ShardId(0)).await.unwrap();
        assert!(whole.profiles_of(&tenant()).count() >= 10, "the survivor is as it was");
        node.groups.unseat(Group::Shard(ShardId(0))).await;
        node.groups.bequeath((SURVIVOR, HEIR), FLOOR, settle).await.unwrap();
        node.groups.seat(Group::Shard(ShardId(0)), HEIR);
        node.groups.destroy(SURVIVOR).await.unwrap();
        let (heir, propose) = node.shard(0).await.unwrap();
        assert_eq!(disks::profiles(&heir), 30, "after {calls} calls");
        let leader = propose.leader().borrow().unwrap();
        assert!(leader.replica == HEIR && leader.term > FLOOR, "{leader:?}");
        disks::put(&propose, 30).await;
        node.groups.close().await;
        // It is read again as any other is.
        let node = Kept::on(&disk, LogOptions::default()).await;
        node.groups.seat(Group::Shard(ShardId(0)), HEIR);
        assert_eq!(node.log.bounds(GroupId(HEIR)).unwrap().first, last + 1);
        assert_eq!(disks::profiles(&node.shard(0).await.unwrap().0), 31);
    }
    assert!(failed > 10, "{failed}");
}

async fn alone(disk: &Arc<MemoryDisk>, accept_loss: bool) -> Result<String, StartError> {
    let (ports, _) = ports(Arc::clone(disk) as _, 91);
    begin_alone(ports, accept_loss, "me".to_owned()).await
}

#[tokio::test(start_paused = true)]
async fn one_disk_of_three_is_made_all_there_is_of_the_cluster_and_sells_nothing_twice() {
    let cluster = Cluster::of("remnant", 3).await;
    change(cluster.node(1), command(Op::CreateTenant)).await;
    let changed = change(cluster.node(1), offer("one", 50, vec![global_cap(LIMIT)])).await;
    for node in &cluster.nodes {
        node.wait_for_revision(changed.revision, soon()).await.unwrap();
    }
    let (mut sold, mut customers) = (0, 0..);
    for number in customers.by_ref().take(20) {
        cluster.at(1, number, async |node| put(node, number, number as f64).await).await.unwrap();
        sold += takes(&cluster, 1, number).await.unwrap();
    }
    sleep(Duration::from_secs(2)).await;
    let disk = cluster.disk(2).copy();
    let node = cluster.node(2).report().node;
    let disk = Arc::new(disk);
    let refused = alone(&disk, false).await.unwrap_err().to_string();
    assert!(refused.contains("--accept-loss") && refused.contains("is lost"), "{refused}");
    // However often the power goes before it is done, it is done over.
    let mut disk = disk;
    for calls in (0..).step_by(7) {
        disk.fail_after(calls);
        let done = alone(&disk, true).await;
        disk.cut_power(|_, unsynced| unsynced);
        disk = Arc::new(disk.copy());
        if let Ok(words) = done {
            assert!(words.contains(&format!("n{node}")), "{words}");
            break;
        }
        assert!(calls < 3_000, "{done:?}");
    }
    let (ports, _) = ports(Arc::clone(&disk) as _, 92);
    let config = Config { node: "remnant-alone".to_owned(), ..Config::default() };
    let handle = launch(config, ports).await.unwrap();
    let settled = timeout(Duration::from_secs(60), handle.settled()).await;
    assert!(settled.is_ok() && handle.status().ready, "{:?} {:#?}", handle.status(), handle.report());
    let roster = handle.roster();
    assert_eq!((roster.nodes().count(), roster.removed().count()), (1, 2));
    assert!(roster.groups().all(|(group, _)| roster.generation(group) == 1));
    for number in 0..20 {
        assert_eq!(age(&handle, number).await.unwrap(), Some(proffer_engine::value::Value::Number(number as f64)));
    }
    let mut empty = 0;
    while empty < 10 {
        let number = customers.next().unwrap();
        let taken = decide(&handle, number).await.unwrap().decision.propositions.len() as u64;
        sold += taken;
        empty = if taken == 0 { empty + 1 } else { 0 };
        sleep(Duration::from_millis(if taken == 0 { 400 } else { 0 })).await;
    }
    assert!(sold <= LIMIT, "{sold} of {LIMIT}");
    let report = handle.budget(&tenant(), key_of(&handle, "one"), false, soon()).await.unwrap();
    let account = &report.accounts[0];
    let held: u64 = account.shards.iter().map(|shard| shard.free + shard.reserved + shard.spent).sum();
    assert_eq!((account.pool, account.in_flight, held), (0, 0, LIMIT), "{report:?}");
    let stranger = Arc::new(MemoryDisk::new());
    assert!(alone(&stranger, true).await.unwrap_err().to_string().contains("no cluster"));
}
