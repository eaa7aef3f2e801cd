//! Nodes whose replicas may not go on, over real processes: in memory none does after a start, and a rotten log costs its node what is
//! hurt. The others bring them back, and nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proffer_node::client::Client;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, PATIENCE, insist};

const NODES: usize = 3;
const SHARDS: u16 = 4;
const WRITERS: usize = 4;

/// Clients that write without a break, each to its own profiles, at one node after the other.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn begin(cluster: &Nodes) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..WRITERS).map(|writer| {
            let clients: Vec<Client> = (0..NODES).map(|number| cluster.client(number)).collect();
            tokio::spawn(write(clients, writer, Arc::clone(&stop)))
        });
        Load { writers: writers.collect(), stop }
    }

    /// How many profiles each has written, the last of which were acknowledged.
    async fn end(self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in self.writers {
            written.push(writer.await.expect("no panic"));
        }
        assert!(written.iter().all(|count| *count > 20), "the load was none: {written:?}");
        written
    }
}

async fn write(clients: Vec<Client>, writer: usize, stop: Arc<AtomicBool>) -> usize {
    let (mut number, mut turn) = (0, writer);
    while !stop.load(Ordering::Relaxed) {
        let body = json!({"attributes": {"number": number}});
        // A write of the same again changes nothing: whatever became of the one before, this one counts.
        while clients[turn % NODES].put(&format!("/profiles/w{writer}-{number}"), &body).await.is_err() {
            turn += 1;
            sleep(Duration::from_millis(10)).await;
        }
        number += 1;
    }
    number
}

async fn all_there(cluster: &Nodes, written: &[usize]) {
    for (writer, count) in written.iter().enumerate() {
        let client = cluster.client(cluster.running()[writer % cluster.running().len()]);
        for number in 0..*count {
            let seen = insist(async || client.get(&format!("/profiles/w{writer}-{number}")).await).await;
            assert_eq!(seen["attributes"], json!({"number": number}), "lost");
        }
    }
}

/// Waits until all replicas of all nodes are voters that go on.
async fn renewed(cluster: &Nodes) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut remarks = BTreeMap::new();
        for number in cluster.running() {
            remarks.insert(number, cluster.remarks(number).await);
        }
        let is_renewing = remarks.values().flatten().any(|remark| remark.contains("being renewed"));
        let groups = cluster.cluster(0, "/cluster/shards").await;
        let rows = groups["shards"].as_array().expect("rows").clone();
        let is_whole = |row: &Value| row["voters"].as_array().map(Vec::len) == Some(NODES) && row["target"].is_null();
        if !is_renewing && !rows.is_empty() && rows.iter().all(is_whole) {
            break;
        }
        assert!(Instant::now() < deadline, "{remarks:?} {groups:#}");
        sleep(Duration::from_millis(100)).await;
    }
    cluster.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_nodes_that_are_killed_one_after_the_other_lose_nothing_that_was_acknowledged() {
    let mut cluster = Nodes::with(NODES, SHARDS, &["--durability", "memory"]).await;
    assert!(cluster.remarks(0).await.iter().any(|remark| remark.starts_with("durability memory")));
    let client = cluster.client(0);
    insist(async || client.post("/import?wait=all", &json!({"channels": [{"name": "web"}]})).await).await;
    let load = Load::begin(&cluster);
    for number in [1, 2, 0] {
        sleep(Duration::from_millis(500)).await;
        cluster.kill(number);
        sleep(Duration::from_millis(700)).await;
        cluster.start_again(number);
        renewed(&cluster).await;
    }
    let written = load.end().await;
    all_there(&cluster, &written).await;
    cluster.kill(1);
    all_there(&cluster, &written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_flipped_bytes_in_its_log_comes_back_and_gets_what_it_lacks_from_the_others() {
    let mut cluster = Nodes::start(NODES, SHARDS).await;
    let client = cluster.client(0);
    insist(async || client.post("/import?wait=all", &json!({"channels": [{"name": "web"}]})).await).await;
    let load = Load::begin(&cluster);
    for (round, number) in [2, 0].into_iter().enumerate() {
        sleep(Duration::from_secs(1)).await;
        cluster.kill(number);
        let logs = std::fs::read_dir(cluster.data(number)).expect("its directory").filter_map(Result::ok);
        let log = logs.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "log"));
        let log = log.expect("a log");
        let mut bytes = std::fs::read(&log).expect("it can be read");
        for part in 1..6 {
            let at = bytes.len() * part / (6 + round);
            bytes[at] ^= 0x10;
        }
        std::fs::write(&log, bytes).expect("it can be written");
        cluster.start_again(number);
        renewed(&cluster).await;
    }
    let written = load.end().await;
    all_there(&cluster, &written).await;
    cluster.kill(1);
    all_there(&cluster, &written).await;
    let customer = json!({"customerId": "w0-0", "channel": "web"});
    let body = serde_json::to_vec(&customer).expect("JSON");
    let asked = cluster.client(0);
    insist(async || asked.send(Method::POST, "/recommend", "application/json", body.clone(), &[]).await).await;
}
