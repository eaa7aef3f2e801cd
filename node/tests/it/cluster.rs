//! Three real processes on loopback: whoever is asked answers, and what was acknowledged outlives whoever is killed.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proffer_node::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::nodes::{Nodes, PATIENCE, insist};
use crate::process::BINARY;

const NODES: usize = 3;
const SHARDS: u16 = 16;
/// Longest that a shard may be without a leader. A debug build on a machine that runs other tests is slower than its timers.
const FAILOVER_MAX: Duration = if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_secs(1) };
const FAILOVERS: usize = 9;

async fn keyed(client: &Client, customer: &str) -> Value {
    let body = serde_json::to_vec(&json!({"customerId": customer, "channel": "web"})).expect("it can be written");
    let key = [("Idempotency-Key", customer)];
    let answer = async || client.send(Method::POST, "/recommend", "application/json", body.clone(), &key).await;
    insist(answer).await
}

/// For whom a batch through one node decides two offers each.
async fn batched(client: &Client) -> BTreeSet<String> {
    let target = client.target();
    let asked =
        reqwest::Client::new().post(format!("{}/api/v1/batch-decisions", target.url)).header("X-API-Key", &target.key);
    let body = json!({"request": {"channel": "web"}}).to_string();
    let streamed = asked.body(body).send().await.expect("it is answered").text().await.expect("to its end");
    let lines = streamed.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    let decided = lines.filter(|line| line["answer"]["count"] == 2);
    decided.map(|line| line["customerId"].as_str().expect("it is text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gives_the_same_decision_and_sees_what_another_has_written() {
    let cluster = Nodes::start(NODES, SHARDS).await;
    let first = cluster.client(0);
    let import = json!({
        "channels": [{"name": "web"}],
        "offers": [{"name": "for all", "status": "active", "caps": [{"scope": "profile", "limit": 3}]},
                   {"name": "for adults", "status": "active"}],
        "qualification-rules": [{"name": "adults", "ruleType": "attribute_condition", "scope": "offer", "scopeId": "for adults",
                   "config": {"attribute": "age", "operator": "gte", "value": 18}}],
    });
    insist(async || first.post("/import?wait=all", &import).await).await;
    for number in 0..24 {
        let customer = format!("c{number}");
        let (write, read) = (cluster.client(number % NODES), cluster.client((number + 1) % NODES));
        let profile = json!({"attributes": {"age": 41}});
        insist(async || write.put(&format!("/profiles/{customer}"), &profile).await).await;
        let seen = insist(async || read.get(&format!("/profiles/{customer}")).await).await;
        assert_eq!(seen["attributes"]["age"], 41, "{seen}");
        let decided = keyed(&cluster.client(0), &customer).await;
        assert_eq!(decided["count"], 2, "the profile is seen: {decided}");
        for index in 1..NODES {
            assert_eq!(keyed(&cluster.client(index), &customer).await, decided);
        }
        let shown = json!({"customerId": customer, "recommendationId": decided["recommendationId"], "rank": 1,
            "outcome": "impression", "idempotencyKey": customer});
        let recorded = insist(async || cluster.client(2).post("/respond", &shown).await).await;
        assert_eq!(recorded["recorded"], true, "the id of one node means the same to another: {recorded}");
    }
    assert_eq!(batched(&cluster.client(1)).await, (0..24).map(|number| format!("c{number}")).collect());
    let status = Command::new(BINARY)
        .args(["cluster", "status"])
        .env("PROFFER_URL", &cluster.client(1).target().url)
        .stderr(Stdio::inherit())
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("redundancy: one node"), "{said}");
    let addresses = (0..NODES).map(|number| cluster.client(number).target().url.replace("http://", ""));
    assert!(addresses.into_iter().all(|address| said.contains(&address)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_profiles_of_a_killed_leader_are_served_again_at_once() {
    let mut cluster = Nodes::start(NODES, SHARDS).await;
    let mut times = Vec::new();
    for round in 0..FAILOVERS {
        let customer = format!("c{round}");
        let path = format!("/profiles/{customer}");
        let leader = cluster.leader(&customer).await;
        let client = cluster.client(cluster.other(leader));
        let before = json!({"attributes": {"round": round}});
        insist(async || client.put(&path, &before).await).await;
        let begin = Instant::now();
        cluster.kill(leader);
        let seen = insist(async || client.get(&path).await).await;
        insist(async || client.put(&path, &json!({"segments": ["kept"]})).await).await;
        times.push(begin.elapsed());
        assert_eq!(seen["attributes"]["round"], round, "{seen}");
        cluster.start_all();
        cluster.whole().await;
    }
    times.sort();
    let worst = times[FAILOVERS - 1];
    println!(
        "served again after SIGKILL of the leader: worst of {FAILOVERS} {worst:?}, median {:?}",
        times[FAILOVERS / 2]
    );
    assert!(worst <= FAILOVER_MAX, "{times:?}");
}

/// Writes profiles until told to stop or refused; returns how many were acknowledged.
async fn write(client: Client, worker: usize, stop: Arc<AtomicBool>) -> usize {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"attributes": {"worker": worker, "number": acknowledged}});
        let path = format!("/profiles/w{worker}-{acknowledged}");
        if !matches!(timeout(PATIENCE, client.put(&path, &body)).await, Ok(Ok(_))) {
            break;
        }
        acknowledged += 1;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_the_death_of_all() {
    let mut cluster = Nodes::start(NODES, SHARDS).await;
    let first = cluster.client(0);
    insist(async || first.post("/import", &json!({"offers": [{"name": "kept", "status": "active"}]})).await).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..6).map(|worker| tokio::spawn(write(cluster.client(worker % NODES), worker, Arc::clone(&stop))));
    let writers: Vec<_> = writers.collect();
    sleep(Duration::from_millis(1_500)).await;
    for index in 0..NODES {
        cluster.kill(index);
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.expect("no panic"));
    }
    assert!(acknowledged.iter().all(|count| *count > 0), "the load was none: {acknowledged:?}");
    cluster.start_all();
    cluster.whole().await;
    for (worker, count) in acknowledged.into_iter().enumerate() {
        let client = cluster.client((worker + 1) % NODES);
        for number in 0..count {
            let seen = insist(async || client.get(&format!("/profiles/w{worker}-{number}")).await).await;
            assert_eq!(seen["attributes"], json!({"worker": worker, "number": number}), "lost");
        }
    }
    let offers = insist(async || cluster.client(1).get("/offers").await).await;
    assert_eq!(offers["items"][0]["name"], "kept");
}
