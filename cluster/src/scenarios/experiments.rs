//! The result of an experiment is a recount of what was called, whatever happens to the nodes meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::keys::{ChannelKey, CreativeKey, Micros, OfferKey, PlacementKey, ShardId};
use proffer_engine::learn::{ArmTally, ExperimentTally};
use proffer_engine::profile::trials::{ExperimentId, Slice};
use proffer_engine::value::Value;
use tokio::time::{Duration, Instant, sleep};

use super::cluster::{Cluster, address};
use super::world::*;
use crate::calls::{Decided, ExperimentReport, RespondRequest};
use crate::config::Config;
use crate::error::Error;
use crate::handle::Handle;
use crate::ports::memory_disk::MemoryDisk;
use crate::ports::offload::{InlineOffload, Lane, Offload, Running, Step};
use crate::start::start;

/// Offers `one` and `two` in a flow that holds three of ten customers out.
async fn open(cluster: &Cluster) {
    let none = || Value::map::<&str>([]);
    let node = object([
        ("id", Value::text("a")),
        ("type", Value::text("inventory")),
        ("phase", Value::Number(1.0)),
        ("position", Value::Number(0.0)),
        ("config", none()),
    ]);
    let experiment = object([
        ("enabled", Value::Bool(true)),
        ("key", Value::text("spring")),
        ("holdoutPercent", Value::Number(30.0)),
    ]);
    let draft = object([
        ("version", Value::Number(2.0)),
        ("flowConfig", object([("experiment", experiment)])),
        ("nodes", Value::list([node])),
    ]);
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

/// What was called and acknowledged, by customer: held out or not, what was proposed or withheld, what they brought of it.
#[derive(Default)]
struct Calls(BTreeMap<usize, (bool, OfferKey, Option<i64>)>);

impl Calls {
    /// Customers are proposed one offer; the key of that is kept only where something is withheld, for nothing else is taken. Half of those with odd numbers buy it and half of them another one, each call made twice at
    /// different nodes, with the same key.
    async fn go_on(&mut self, cluster: &Cluster, entries: [usize; 2], customers: std::ops::Range<usize>) {
        for number in customers {
            let mut decided = None;
            for entry in entries {
                let key = number as u128 * 10;
                let again = twice(cluster, entry, number, async |node| {
                    node.decide(request(customer(number)), keyed(key)).await
                });
                let again: Decided = again.await;
                let control = again.decision.arm.as_ref().unwrap().control;
                assert_eq!(decided.is_some() && control, again.duplicate, "customer {number}");
                decided = Some(again.decision);
            }
            let decision = decided.unwrap();
            let control = decision.arm.as_ref().unwrap().control;
            let proposed = decision.propositions.iter().map(|proposition| proposition.offer);
            let offers: Vec<OfferKey> = proposed.chain(decision.ghosts.iter().map(|ghost| ghost.offer)).collect();
            let [offer] = offers[..] else { panic!("{decision:?}") };
            let mut bought = None;
            if number % 2 == 1 {
                let (other, value) = (OfferKey(offer.0 ^ 1), number as i64 * 1_000_000);
                let what = if number % 4 == 1 { offer } else { other };
                bought = (what == offer).then_some(value);
                for (entry, is_again) in entries.into_iter().zip([false, true]) {
                    let key = number as u128 * 10 + 1;
                    let heard = twice(cluster, entry, number, async |node| buy(node, number, what, value, key).await);
                    assert_eq!(heard.await.duplicate, is_again, "customer {number}");
                }
            }
            self.0.insert(number, (control, offer, bought));
        }
    }

    fn recount(&self) -> ExperimentTally {
        let mut tally = ExperimentTally::default();
        for (control, _, bought) in self.0.values() {
            let arm = if *control { &mut tally.control } else { &mut tally.treatment };
            let revenue = i128::from(bought.unwrap_or(0));
            *arm = ArmTally {
                customers: arm.customers + 1,
                moved: 0,
                converted: arm.converted + u64::from(bought.is_some()),
                revenue: arm.revenue + revenue,
                squares: arm.squares + revenue * revenue,
            };
        }
        tally
    }
}

/// Does something at the node that leads the customer's shard; once more where it is not known what became of it.
async fn twice<T>(
    cluster: &Cluster,
    entry: usize,
    number: usize,
    deed: impl AsyncFn(&Handle) -> Result<T, Error>,
) -> T {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match cluster.at(entry, number, &deed).await {
            Ok(done) => return done,
            Err(error) => assert!(error.retryable() && Instant::now() < until, "{error:?}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn buy(
    node: &Handle,
    number: usize,
    offer: OfferKey,
    value: i64,
    key: u128,
) -> Result<crate::calls::Responded, Error> {
    let outcome = node.tenant(&tenant()).unwrap().catalog.outcomes().get("conversion").unwrap().key;
    let request = RespondRequest {
        tenant: tenant(),
        customer: customer(number),
        proposition: None,
        decided_at: None,
        offer,
        creative: CreativeKey::NONE,
        channel: ChannelKey::NONE,
        placement: PlacementKey::NONE,
        outcome,
        value: Some(Micros(value)),
        evidence: false,
        opt_out: None,
        withheld: false,
    };
    node.respond(request, keyed(key)).await
}

async fn result(node: &Handle) -> ExperimentReport {
    node.experiment(&tenant(), ExperimentId::of("spring"), Slice::default(), soon()).await.unwrap()
}

fn whole(tally: ExperimentTally) -> ExperimentReport {
    ExperimentReport { tally, unreachable: Vec::new() }
}

#[tokio::test(start_paused = true)]
async fn the_result_at_every_node_is_a_recount_of_the_calls_after_leaders_died_and_all_started_again() {
    let mut cluster = Cluster::of("trial", 3).await;
    open(&cluster).await;
    let mut calls = Calls::default();
    calls.go_on(&cluster, [1, 2], 0..40).await;
    let expected = calls.recount();
    for arm in [expected.treatment, expected.control] {
        assert!(arm.customers > 5 && arm.converted > 0 && arm.converted < arm.customers / 2, "{expected:?}");
    }
    for node in &cluster.nodes {
        assert_eq!(result(node).await, whole(expected));
    }
    let none = cluster.node(1).experiment(&tenant(), ExperimentId::of("main"), Slice::default(), soon()).await.unwrap();
    assert_eq!(none, ExperimentReport::default(), "another experiment");

    // Whoever leads most dies; the calls go on at the others.
    let leads = |node: &usize| {
        let report = cluster.node(*node).report();
        report.nodes.iter().find(|of| of.node == report.node).map_or(0, |of| of.leads)
    };
    let dead = (1..=3).max_by_key(leads).unwrap();
    let living: Vec<usize> = (1..=3).filter(|node| *node != dead).collect();
    cluster.crash(dead, false).await;
    calls.go_on(&cluster, [living[0], living[1]], 40..70).await;
    for node in &living {
        assert_eq!(result(cluster.node(*node)).await, whole(calls.recount()));
    }
    cluster.revive(dead).await;
    assert_eq!(result(cluster.node(dead)).await, whole(calls.recount()));

    cluster.restart_all().await;
    calls.go_on(&cluster, [3, 1], 70..80).await;
    for node in &cluster.nodes {
        assert_eq!(result(node).await, whole(calls.recount()));
    }
}

/// Every job beside the log takes so long, and some are under way.
#[derive(Default)]
struct Slow {
    ms: AtomicU64,
    under_way: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Offload for Slow {
    fn run(&self, lane: Lane, steps: Vec<Step>) -> Running {
        let job = InlineOffload.run(lane, steps);
        let ms = self.ms.load(Ordering::SeqCst);
        if lane == Lane::Log || ms == 0 {
            return job;
        }
        let (under_way, most) = (Arc::clone(&self.under_way), Arc::clone(&self.most));
        most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // It goes to its end, whether or not anybody waits for it.
        let job = tokio::spawn(async move {
            sleep(Duration::from_millis(ms)).await;
            job.await;
            under_way.fetch_sub(1, Ordering::SeqCst);
        });
        Box::pin(async move { job.await.unwrap() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_counts_for_too_long_is_named_in_time_and_counts_for_one_at_a_time() {
    let (mut ports, _) = ports(Arc::new(MemoryDisk::new()), 7);
    let offload = Arc::new(Slow::default());
    ports.offload = Arc::clone(&offload) as _;
    let handle = start(Config::founding("slow", 1), ports).await.unwrap();
    change(&handle, command(Op::CreateTenant)).await;
    let ask = async |ms: u64| {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let report = handle.experiment(&tenant(), ExperimentId::of("spring"), Slice::default(), deadline).await;
        assert!(Instant::now() < deadline, "there is time left to answer in");
        report.unwrap().unreachable
    };
    assert_eq!(ask(1_000).await, [], "it is quick");
    offload.ms.store(2_000, Ordering::SeqCst);
    let (one, two, three) = tokio::join!(ask(1_000), ask(1_000), ask(4_000));
    assert_eq!((one, two), (vec![ShardId(0)], vec![ShardId(0)]));
    assert_eq!(three, [ShardId(0)], "it waited for the first, which nobody waits for any more, and had not the time");
    sleep(Duration::from_millis(2_000)).await;
    let (one, two) = tokio::join!(ask(10_000), ask(10_000));
    assert_eq!((one, two), (vec![], vec![]), "each in its turn");
    assert_eq!(offload.most.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_reaches_no_shard_says_so_and_counts_nothing_twice_when_it_does_again() {
    let cluster = Cluster::of("trial-cut", 3).await;
    open(&cluster).await;
    let mut calls = Calls::default();
    calls.go_on(&cluster, [1, 3], 0..12).await;
    [1, 3].into_iter().for_each(|other| cluster.network.cut(&address(2), &address(other)));
    // What it led it leads no more.
    sleep(Duration::from_secs(10)).await;
    let lonely = result(cluster.node(2)).await;
    assert_eq!(lonely.unreachable, (0..3).map(ShardId).collect::<Vec<_>>(), "every shard is named");
    assert_eq!(lonely.tally, ExperimentTally::default());
    calls.go_on(&cluster, [1, 3], 12..24).await;
    assert_eq!(result(cluster.node(3)).await, whole(calls.recount()));
    [1, 3].into_iter().for_each(|other| cluster.network.heal(&address(2), &address(other)));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(result(cluster.node(2)).await, whole(calls.recount()));
}
