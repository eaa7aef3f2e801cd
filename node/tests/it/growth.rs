//! From three nodes to five and back under load: nobody is refused for longer than their deadline, the shards are spread evenly each
//! time, and nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proffer_node::client::{Client, Problem};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout_at};

use crate::nodes::{Nodes, PATIENCE, insist};

const SHARDS: u16 = 8;
const CLIENTS: usize = 16;
/// Customers of each client.
const CUSTOMERS: usize = 12;
/// What a call has to be answered within, all its repetitions included. A debug build on a machine that runs other tests is slower
/// than its timers.
const DEADLINE: Duration = if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_secs(2) };
/// Between two calls of a client, and before a call is made again.
const PAUSE: Duration = Duration::from_millis(20);
/// More than can be sold.
const LIMIT: u64 = 10_000_000;

/// A node as its clients see it.
struct Door {
    client: Client,
    /// It was told to stop: connections to it may break.
    is_leaving: AtomicBool,
}

/// The nodes that run, as far as clients have heard.
type Doors = Arc<RwLock<BTreeMap<usize, Arc<Door>>>>;

/// What a client has seen.
#[derive(Default)]
struct Seen {
    calls: usize,
    /// Why calls were made again: refused with 503 or 429, or by a node that was stopping.
    again: BTreeMap<String, usize>,
    longest: Duration,
    /// What must not happen.
    failures: Vec<String>,
}

/// One who calls through all nodes in turn.
struct Caller {
    doors: Doors,
    turn: usize,
    seen: Seen,
}

impl Caller {
    /// The answer, after as many repetitions as the deadline has room for; the last one that was none is a failure.
    async fn call(&mut self, method: &Method, path: &str, body: &Value, key: Option<&str>) -> Option<Value> {
        let begun = Instant::now();
        let mut refused = String::from("no answer");
        self.seen.calls += 1;
        while begun.elapsed() < DEADLINE {
            let door = self.next().await;
            let headers: Vec<_> = key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
            let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).expect("it is JSON") };
            let answer = door.client.send(method.clone(), path, "application/json", bytes, &headers);
            match timeout_at(begun + DEADLINE, answer).await {
                Ok(Ok(answer)) => {
                    self.seen.longest = self.seen.longest.max(begun.elapsed());
                    return Some(answer);
                }
                Ok(Err(error)) => {
                    refused = format!("{error:#}");
                    let (may_be_repeated, why) = match error.downcast_ref::<Problem>() {
                        Some(Problem { status, .. }) => {
                            let later = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
                            (later.contains(status), refused.clone())
                        }
                        None => (door.is_leaving.load(Ordering::SeqCst), "its node was stopped".to_owned()),
                    };
                    if !may_be_repeated {
                        break;
                    }
                    *self.seen.again.entry(why).or_default() += 1;
                    sleep(PAUSE).await;
                }
                Err(_) => refused = format!("{} did not answer in time", door.client.target().url),
            }
        }
        self.seen.failures.push(format!("{method} {path} {body}, after {:?}: {refused}", begun.elapsed()));
        None
    }

    async fn next(&mut self) -> Arc<Door> {
        self.turn += 1;
        let doors = self.doors.read().await;
        let door = doors.values().nth(self.turn % doors.len()).expect("a node runs");
        Arc::clone(door)
    }
}

/// What was acknowledged to one client.
#[derive(Default)]
struct Acknowledged {
    /// Wishes with their keys, and the ids of the answers.
    decided: Vec<(Value, String, Value)>,
    /// Outcomes with their keys.
    recorded: Vec<(Value, String)>,
    /// The number last written to the profile of each customer.
    written: BTreeMap<String, usize>,
}

/// Writes a profile, asks for a decision, records that it was shown, reads the profile, until told to stop.
async fn shop(mut caller: Caller, worker: usize, stop: Arc<AtomicBool>) -> (Caller, Acknowledged) {
    let mut acknowledged = Acknowledged::default();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let customer = format!("w{worker}-{}", turn % CUSTOMERS);
        let path = format!("/profiles/{customer}");
        let profile = json!({"attributes": {"turn": turn}});
        let is_written = caller.call(&Method::PUT, &path, &profile, None).await.is_some();
        if is_written {
            acknowledged.written.insert(customer.clone(), turn);
        }
        let (wish, key) = (json!({"customerId": customer, "channel": "web"}), format!("d-{worker}-{turn}"));
        if let Some(answer) = caller.call(&Method::POST, "/recommend", &wish, Some(&key)).await {
            let id = answer["recommendationId"].clone();
            let shown = json!({"customerId": customer, "recommendationId": id, "rank": 1, "outcome": "impression"});
            acknowledged.decided.push((wish, key, id));
            let key = format!("r-{worker}-{turn}");
            if caller.call(&Method::POST, "/respond", &shown, Some(&key)).await.is_some() {
                acknowledged.recorded.push((shown, key));
            }
        }
        if let Some(seen) = caller.call(&Method::GET, &path, &Value::Null, None).await
            && is_written
            && seen["attributes"]["turn"] != turn
        {
            caller.seen.failures.push(format!("{turn} was written to {customer}, and then read: {seen}"));
        }
        sleep(PAUSE).await;
    }
    (caller, acknowledged)
}

/// Asks for everything again that was acknowledged.
async fn ask_again(mut caller: Caller, acknowledged: Acknowledged) -> (Seen, usize) {
    let count = acknowledged.recorded.len();
    for (wish, key, id) in acknowledged.decided {
        let again = caller.call(&Method::POST, "/recommend", &wish, Some(&key)).await;
        if again.as_ref().is_none_or(|again| again["recommendationId"] != id) {
            caller.seen.failures.push(format!("lost: the decision {key}: {again:?}"));
        }
    }
    for (shown, key) in acknowledged.recorded {
        let again = caller.call(&Method::POST, "/respond", &shown, Some(&key)).await;
        if again.as_ref().is_none_or(|again| again["duplicate"] != true) {
            caller.seen.failures.push(format!("lost: the outcome {key}: {again:?}"));
        }
    }
    for (customer, turn) in acknowledged.written {
        let seen = caller.call(&Method::GET, &format!("/profiles/{customer}"), &Value::Null, None).await;
        if seen.as_ref().is_none_or(|seen| seen["attributes"]["turn"] != turn) {
            caller.seen.failures.push(format!("lost: {turn} in the profile of {customer}: {seen:?}"));
        }
    }
    (caller.seen, count)
}

/// Replicas of shards and leaderships of shards by node.
fn spread(status: &Value, shards: &Value) -> BTreeMap<String, [usize; 2]> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let mut spread: BTreeMap<_, _> =
        nodes.filter_map(|node| Some((node["node"].as_str()?.to_owned(), [0; 2]))).collect();
    let mut count = |node: &Value, which: usize| {
        if let Some(counts) = node.as_str().and_then(|node| spread.get_mut(node)) {
            counts[which] += 1;
        }
    };
    for shard in shards["shards"].as_array().into_iter().flatten().filter(|shard| shard["shard"] != "meta") {
        let members = [&shard["voters"], &shard["learners"]];
        members.into_iter().flat_map(|members| members.as_array()).flatten().for_each(|node| count(node, 0));
        count(&shard["leader"], 1);
    }
    spread
}

fn is_even(spread: &BTreeMap<String, [usize; 2]>) -> bool {
    [0, 1].into_iter().all(|which| {
        let counts = || spread.values().map(|counts| counts[which]);
        counts().max().unwrap_or(0) - counts().min().unwrap_or(0) <= 1
    })
}

/// Waits until all shards have three voters and nothing else, nothing moves, and all is spread evenly.
async fn even(nodes: &Nodes) -> BTreeMap<String, [usize; 2]> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = nodes.whole().await;
        let shards = nodes.cluster(nodes.running()[0], "/cluster/shards").await;
        let is_settled = |shard: &Value| {
            let is_meta = shard["shard"] == "meta";
            shard["target"].is_null() && (is_meta || shard["voters"].as_array().is_some_and(|voters| voters.len() == 3))
        };
        let spread = spread(&status, &shards);
        if shards["shards"].as_array().is_some_and(|shards| shards.iter().all(is_settled)) && is_even(&spread) {
            return spread;
        }
        assert!(Instant::now() < deadline, "not even: {spread:?} {shards}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for what a node says of the cluster.
async fn until(nodes: &Nodes, number: usize, what: &str, is_so: impl Fn(&Value, &Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = nodes.cluster(number, "/cluster/status").await;
        let shards = nodes.cluster(number, "/cluster/shards").await;
        if is_so(&status, &shards) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {status} {shards}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn id_of(nodes: &Nodes, number: usize) -> String {
    let status = nodes.cluster(number, "/cluster/status").await;
    status["node"].as_str().expect("a node has an id").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_three_to_five_and_shrinks_again_and_no_call_fails() {
    let mut nodes = Nodes::start(3, SHARDS).await;
    let import = json!({
        "channels": [{"name": "web"}],
        "offers": [{"name": "for all", "status": "active", "caps": [{"scope": "global", "limit": LIMIT}]}],
    });
    let first = nodes.client(0);
    insist(async || first.post("/import?wait=all", &import).await).await;
    let offers = insist(async || first.get("/offers").await).await;
    let offer = offers["items"][0]["id"].as_str().expect("an offer has an id").to_owned();

    let door = |client| Arc::new(Door { client, is_leaving: AtomicBool::new(false) });
    let doors: Doors = Arc::default();
    for number in nodes.running() {
        doors.write().await.insert(number, door(nodes.client(number)));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let caller = |worker| Caller { doors: Arc::clone(&doors), turn: worker, seen: Seen::default() };
    let shoppers: Vec<_> =
        (0..CLIENTS).map(|worker| tokio::spawn(shop(caller(worker), worker, Arc::clone(&stop)))).collect();
    sleep(Duration::from_secs(1)).await;

    let begun = Instant::now();
    for _ in 0..2 {
        let number = tokio::task::block_in_place(|| nodes.add());
        doors.write().await.insert(number, door(nodes.client(number)));
    }
    let evenly = even(&nodes).await;
    println!("3 to 5 nodes after {:?}: replicas and leaderships {evenly:?}", begun.elapsed());
    assert_eq!(evenly.len(), 5, "{evenly:?}");
    sleep(Duration::from_secs(1)).await;

    // The founder, and one that has just come.
    let begun = Instant::now();
    let (leaving, stays) = ([0, 3], 1);
    let mut ids = Vec::new();
    for number in leaving {
        let id = id_of(&nodes, number).await;
        let client = nodes.client(stays);
        let path = format!("/cluster/nodes/{id}/drain");
        insist(async || client.call(Method::POST, &path, &Value::Null).await).await;
        ids.push(id);
    }
    until(&nodes, stays, "not drained", |status, shards| {
        let spread = spread(status, shards);
        ids.iter().all(|id| spread[id] == [0, 0])
    })
    .await;
    println!("two nodes are drained after {:?}", begun.elapsed());
    for (number, id) in leaving.into_iter().zip(&ids) {
        let client = nodes.client(stays);
        let path = format!("/cluster/nodes/{id}/remove");
        insist(async || client.call(Method::POST, &path, &Value::Null).await).await;
        until(&nodes, stays, "not removed", |status, _| {
            status["nodes"].as_array().is_some_and(|nodes| nodes.iter().all(|node| node["node"] != **id))
        })
        .await;
        // Clients hear of it only once it has gone.
        doors.read().await[&number].is_leaving.store(true, Ordering::SeqCst);
        assert!(tokio::task::block_in_place(|| nodes.terminate(number)), "{id} ends well");
        sleep(Duration::from_millis(300)).await;
        doors.write().await.remove(&number);
    }
    let evenly = even(&nodes).await;
    println!("5 to 3 nodes after {:?}: replicas and leaderships {evenly:?}", begun.elapsed());
    assert_eq!(evenly.len(), 3, "{evenly:?}");
    sleep(Duration::from_secs(1)).await;

    stop.store(true, Ordering::Relaxed);
    let mut done = Vec::new();
    for shopper in shoppers {
        done.push(shopper.await.expect("no panic"));
    }
    let (mut calls, mut longest, mut failures) = (0, Duration::ZERO, Vec::new());
    let mut again: BTreeMap<String, usize> = BTreeMap::new();
    let mut checks = Vec::new();
    for (mut caller, acknowledged) in done {
        let seen = std::mem::take(&mut caller.seen);
        calls += seen.calls;
        for (refused, times) in seen.again {
            *again.entry(refused).or_default() += times;
        }
        longest = longest.max(seen.longest);
        failures.extend(seen.failures);
        checks.push(tokio::spawn(ask_again(caller, acknowledged)));
    }
    println!("{calls} calls under load, the longest took {longest:?}; made again: {again:?}");
    assert_eq!(failures, Vec::<String>::new());
    let mut recorded = 0;
    for check in checks {
        let (seen, count) = check.await.expect("no panic");
        assert_eq!(seen.failures, Vec::<String>::new());
        recorded += count;
    }
    assert!(recorded > 100, "the load was small: {recorded}");

    // Every outcome was acknowledged, so exactly these were counted; the budget hears of it in a moment.
    let (client, deadline) = (nodes.client(stays), Instant::now() + PATIENCE);
    loop {
        let budget = insist(async || client.get(&format!("/offers/{offer}/budget")).await).await;
        let spent = budget["spent"].as_u64().expect("a number");
        assert!(spent <= recorded as u64, "{recorded} were acknowledged: {budget}");
        if spent == recorded as u64 {
            break;
        }
        assert!(Instant::now() < deadline, "{recorded} were acknowledged: {budget}");
        sleep(Duration::from_millis(100)).await;
    }
    println!("{recorded} outcomes acknowledged, counted once each");
}
