//! Two of five nodes are killed, and their disks are gone: what had its majority there is begun anew from what is left, and no unit of a
//! cap is sold twice.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, PATIENCE, insist};
use crate::process::BINARY;

const LIMIT: u64 = 300;
const SHARDS: u16 = 5;

/// Runs `proffer cluster …` against a node until it succeeds, or fails with these words.
async fn cluster(url: &str, arguments: &[&str], refused: Option<&str>) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new(BINARY);
        command.arg("cluster").args(arguments).env("PROFFER_URL", url);
        let output = tokio::task::block_in_place(|| command.output()).expect("the binary runs");
        let said =
            String::from_utf8_lossy(if refused.is_some() { &output.stderr } else { &output.stdout }).into_owned();
        let is_done = match refused {
            Some(words) => !output.status.success() && said.contains(words),
            None => output.status.success(),
        };
        if is_done {
            return said;
        }
        assert!(Instant::now() < deadline, "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        sleep(Duration::from_millis(300)).await;
    }
}

/// How many of so many customers are given the offer.
async fn sell(nodes: &Nodes, customers: std::ops::Range<usize>) -> u64 {
    let mut sold = 0;
    for (customer, turn) in customers.zip(0..) {
        let client = nodes.client(nodes.running()[turn % nodes.running().len()]);
        let wish = json!({"customerId": format!("c{customer}")});
        let answer = insist(async || client.call(Method::POST, "/api/v1/recommend", &wish).await).await;
        sold += answer["decisions"].as_array().map_or(0, Vec::len) as u64;
    }
    sold
}

fn names(shard: &Value) -> Vec<String> {
    shard["voters"].as_array().into_iter().flatten().filter_map(|node| Some(node.as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_whose_majority_is_gone_with_its_disks_go_on_from_what_is_left_and_sell_nothing_twice() {
    let mut nodes = Nodes::start(5, SHARDS).await;
    let first = nodes.client(0);
    let caps = json!([{"scope": "global", "limit": LIMIT}]);
    let offer = json!({"name": "scarce", "status": "active", "caps": caps});
    let offer = first.post("/offers?wait=all", &offer).await.expect("offer")["id"].as_str().expect("id").to_owned();
    let mut sold = sell(&nodes, 0..60).await;
    assert!(sold > 30, "{sold}");

    // The leader of a shard and another that holds it; never the founder, which the others are told to join.
    let status = nodes.cluster(0, "/cluster/status").await;
    let shards = nodes.cluster(0, "/cluster/shards").await;
    let founder =
        status["nodes"].as_array().into_iter().flatten().find(|node| nodes.at(&node["httpAddress"]) == Some(0));
    let founder = founder.expect("it is listed")["node"].as_str().expect("a name").to_owned();
    let all = || shards["shards"].as_array().into_iter().flatten().filter(|shard| shard["shard"].is_number());
    let lost: Vec<String> = all()
        .map(|shard| names(shard).into_iter().filter(|node| *node != founder).take(2).collect::<Vec<_>>())
        .find(|lost| lost.len() == 2)
        .expect("a shard lies on two others");
    let is_lost = |shard: &&Value| lost.iter().all(|node| names(shard).contains(node));
    let gone: Vec<String> = all().filter(is_lost).map(|shard| shard["shard"].to_string()).collect();
    let numbers: Vec<usize> =
        lost.iter().map(|node| nodes.named(&status, &json!(node)).expect("it is listed")).collect();
    for number in &numbers {
        nodes.kill(*number);
        nodes.wipe(*number);
    }
    let entry = nodes.client(0).target().url.clone();
    for shard in &gone {
        let said = cluster(&entry, &["recover", "--shard", shard], Some("--accept-loss")).await;
        assert!(said.contains("is lost"), "{said}");
        let said = cluster(&entry, &["recover", "--shard", shard, "--accept-loss", "--output", "json"], None).await;
        let said: Value = serde_json::from_str(&said).expect("it is JSON");
        assert!(said["message"].as_str().is_some_and(|words| words.contains("begins anew")), "{said}");
    }
    let said = cluster(&entry, &["shards"], None).await;
    assert!(said.contains("was begun anew by"), "{said}");
    for node in &lost {
        cluster(&entry, &["remove", node, "--reduce-redundancy"], None).await;
    }
    nodes.whole().await;

    let mut customers = 60;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let more = sell(&nodes, customers..customers + 40).await;
        (sold, customers) = (sold + more, customers + 40);
        assert!(sold <= LIMIT, "{sold} of {LIMIT} were sold");
        let budget = nodes.client(0).get(&format!("/offers/{offer}/budget")).await;
        if let Ok(budget) = budget
            && budget["pool"] == 0
            && budget["free"] == 0
            && budget["inFlight"] == 0
        {
            assert_eq!(
                budget["reserved"].as_u64().expect("reserved") + budget["spent"].as_u64().expect("spent"),
                LIMIT,
                "{budget}"
            );
            break;
        }
        assert!(Instant::now() < deadline, "what is left is not sold");
    }
    assert!(sold > LIMIT / 3, "{sold}: no more than what the lost shards had been given is written off");
    // Those that are gone come back with empty disks, as others.
    nodes.start_all();
    nodes.whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_disk_of_three_is_made_all_there_is_and_others_join_it_with_empty_ones() {
    let mut nodes = Nodes::start(3, 4).await;
    let caps = json!([{"scope": "global", "limit": LIMIT}]);
    let offer = json!({"name": "scarce", "status": "active", "caps": caps});
    nodes.client(0).post("/offers?wait=all", &offer).await.expect("offer");
    let mut sold = sell(&nodes, 0..40).await;
    for number in [1, 2] {
        nodes.kill(number);
        nodes.wipe(number);
    }
    nodes.kill(0);
    let recover = |accept: &[&str]| {
        let mut command = Command::new(BINARY);
        command.arg("recover-meta").arg("--data").arg(nodes.data(0)).args(accept);
        command.output().expect("the binary runs")
    };
    let refused = recover(&[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--accept-loss"), "{said}");
    let done = recover(&["--accept-loss"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    nodes.start_all();
    nodes.whole().await;
    for customers in (40..).step_by(40).take(12) {
        sold += sell(&nodes, customers..customers + 40).await;
    }
    assert!((LIMIT / 3..=LIMIT).contains(&sold), "{sold} of {LIMIT}");
}
