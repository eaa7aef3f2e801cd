//! Every traced decision of a mixed run over three processes comes to the same bytes again, whichever node is asked: after it was made, after all
//! processes were stopped and started again, and after the catalogue was edited. `PROFFER_REPLAY_DECISIONS` says how many.

mod mix;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proffer_node::client::{Client, Problem};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use crate::nodes::{Nodes, PATIENCE, insist};
use mix::{KINDS, catalogue, customer, draw, kinds_of, profile, wish};

const NODES: usize = 3;
const SHARDS: u16 = 4;
const CLIENTS: u64 = 8;
/// Unless the environment says otherwise.
const DECISIONS: u64 = 200;
/// Decisions between two restarts, in longer runs.
const DECISIONS_A_ROUND: u64 = 10_000;
const ROUNDS_MIN: u64 = 2;
/// Traces that are replayed before the next ones are read from the disk.
const REPLAYED_AT_ONCE: usize = 500;
/// Differences that are told.
const TOLD: usize = 3;

/// The run: its clients, and where they put what they got.
struct Run {
    /// How many are to be made, batches apart.
    decisions: u64,
    clients: Vec<Client>,
    /// The number of the next decision.
    next: AtomicU64,
    /// Where `traces` lie.
    path: PathBuf,
    /// A line for each trace of this round, on disk: they are more than memory should hold.
    traces: Mutex<BufWriter<File>>,
    /// How many traces of each kind.
    kinds: Mutex<BTreeMap<String, usize>>,
    /// The ids of offers by name.
    offers: BTreeMap<String, String>,
    /// The flow with the experiment.
    flow: String,
}

impl Run {
    /// A client of any node.
    fn client(&self, number: u64, what: &str) -> &Client {
        &self.clients[draw(number, what, NODES as u64) as usize]
    }

    async fn post(&self, number: u64, path: &str, body: &Value, key: Option<&str>) -> Value {
        let headers: Vec<_> = key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
        let bytes = serde_json::to_vec(body).expect("it is JSON");
        let client = self.client(number, path);
        insist(async || client.send(Method::POST, path, "application/json", bytes.clone(), &headers).await).await
    }

    /// Puts a trace where it will be read again, with what the answer proposed.
    async fn keep(&self, answer: &Value, asked: &Value, more: &[&str]) {
        let record = &answer["meta"]["trace"]["record"];
        assert!(record.is_string(), "a decision without its trace: {answer}");
        let mut kinds = kinds_of(answer, asked);
        kinds.extend(more.iter().map(|kind| (*kind).to_owned()));
        let offers =
            answer["decisions"].as_array().into_iter().flatten().map(|one| &one["offerId"]).collect::<Vec<_>>();
        let line = json!({"customer": answer["customerId"], "record": record, "offers": offers});
        writeln!(self.traces.lock().await, "{line}").expect("the disk has room");
        let mut counts = self.kinds.lock().await;
        kinds.into_iter().for_each(|kind| *counts.entry(kind).or_default() += 1);
    }

    /// What one customer does, by its number.
    async fn step(&self, number: u64) {
        let customer = customer(number, self.decisions);
        let path = format!("/profiles/{customer}");
        let mut more = Vec::new();
        match draw(number, "before", 60) {
            0..3 => {
                let mut body = profile(number);
                body.as_object_mut().expect("it is one").remove("customerId");
                insist(async || self.client(number, "put").put(&path, &body).await).await;
            }
            3 => {
                insist(async || {
                    self.client(number, "delete").send(Method::DELETE, &path, "application/json", Vec::new(), &[]).await
                })
                .await;
                more.push("erased just before");
            }
            4..10 => {
                let offer = format!("O{}", draw(number, "viewed", 8));
                let event = json!({"customerId": customer, "type": "view", "offerId": offer, "idempotencyKey": number.to_string()});
                self.post(number, "/events", &event, None).await;
            }
            _ => {}
        }
        let (path, mut asked) = wish(number, self.decisions);
        let key = (path != "/simulate" && draw(number, "key", 8) == 0).then(|| format!("decide {number}"));
        let mut answer = self.post(number, path, &asked, key.as_deref()).await;
        self.keep(&answer, &asked, &more).await;
        if key.is_some() {
            let again = self.post(number + 1, path, &asked, key.as_deref()).await;
            if again["meta"]["trace"]["record"].is_null() {
                // The answer of before: nothing was decided that could be replayed.
                assert_eq!(again["recommendationId"], answer["recommendationId"]);
                *self.kinds.lock().await.entry("repeated under its key".to_owned()).or_default() += 1;
            } else {
                self.keep(&again, &asked, &[]).await;
                answer = again;
            }
        } else if path != "/simulate" && draw(number, "again", 20) == 0 {
            asked["supersedes"] = answer["recommendationId"].clone();
            answer = self.post(number, path, &asked, None).await;
            self.keep(&answer, &asked, &[]).await;
        }
        let outcome = ["impression", "click", "conversion"][draw(number, "outcome", 3) as usize];
        if path != "/simulate" && answer["count"] != 0 && draw(number, "responds", 3) == 0 {
            let body = json!({"customerId": customer, "recommendationId": answer["recommendationId"],
                "rank": answer["decisions"][0]["rank"], "outcome": outcome, "idempotencyKey": format!("respond {number}")});
            self.post(number, "/respond", &body, None).await;
        }
    }

    /// Changes what later decisions come to.
    async fn edit(&self, which: u64) {
        let client = &self.clients[which as usize % NODES];
        let update = async |path: String, body: Value| {
            insist(async || client.put(&format!("{path}?wait=all"), &body).await).await;
        };
        match which % 3 {
            0 => update(format!("/offers/{}", self.offers["O3"]), json!({"priority": 40 + which})).await,
            1 => update("/settings".to_owned(), json!({"mandatoryPerDay": which})).await,
            _ => {
                let flow = insist(async || client.get(&format!("/decision-flows/{}", self.flow)).await).await;
                let mut draft = flow["draftConfig"].clone();
                draft["flowConfig"]["experiment"]["holdoutPercent"] = json!(20 + which);
                update(format!("/decision-flows/{}", self.flow), json!({"draftConfig": draft})).await;
                self.publish(&self.flow).await;
            }
        }
    }

    async fn publish(&self, flow: &str) {
        let path = format!("/decision-flows/{flow}/publish?wait=all");
        insist(async || self.clients[0].post(&path, &json!({})).await).await;
    }

    fn first_trace(&self) -> Value {
        let file = BufReader::new(File::open(&self.path).expect("it was written"));
        let line = file.lines().next().expect("there are traces").expect("it is text");
        serde_json::from_str(&line).expect("it is JSON")
    }

    /// A segment at once.
    async fn batch(&self) {
        let asked = json!({"channel": "web", "decisionFlowKey": "spring", "trace": true, "limit": 2});
        let target = self.clients[0].target();
        let call = reqwest::Client::new().post(format!("{}/api/v1/batch-decisions", target.url));
        let call = call.header("X-API-Key", &target.key).body(json!({"segment": "vip", "request": asked}).to_string());
        let streamed = call.send().await.expect("it is answered").text().await.expect("to its end");
        let lines = streamed.lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
        for line in lines.filter(|line| line["type"] == "decision") {
            self.keep(&line["answer"], &asked, &["of a batch"]).await;
        }
    }
}

/// Lists what has an id by what it is called.
async fn ids(client: &Client, path: &str, called: &str) -> BTreeMap<String, String> {
    let list = insist(async || client.get(path).await).await;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let text = |item: &Value, member: &str| item[member].as_str().expect("it is text").to_owned();
    items.iter().map(|item| (text(item, called), text(item, "id"))).collect()
}

/// Waits until each node leads some shards: all three are to decide.
async fn all_lead(nodes: &Nodes) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = nodes.cluster(0, "/cluster/status").await;
        let leads = status["nodes"].as_array().into_iter().flatten().map(|node| node["leads"].as_u64().unwrap_or(0));
        if leads.filter(|leads| *leads > 0).count() == NODES {
            return;
        }
        assert!(Instant::now() < deadline, "one leads all: {status}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// All decisions up to that number, by some clients at once, then a batch.
async fn decide(run: &Arc<Run>, until: u64) {
    *run.traces.lock().await = BufWriter::new(File::create(&run.path).expect("the directory is ours"));
    let begin = |_| {
        let run = Arc::clone(run);
        spawn_local(async move {
            while let Ok(number) =
                run.next.try_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < until).then_some(next + 1))
            {
                run.step(number).await;
            }
        })
    };
    for working in (0..CLIENTS).map(begin).collect::<Vec<_>>() {
        working.await.expect("no panic");
    }
    run.batch().await;
    run.traces.lock().await.flush().expect("the disk has room");
}

/// Replays one trace; the hash of its bytes, or how it differs.
async fn replay(client: &Client, line: &Value) -> Result<String, String> {
    let again = insist(async || client.post("/replay", &json!({"trace": line["record"]})).await).await;
    let is_same = again["same"] == true && again["recorded"] == again["replayed"] && again["offers"] == line["offers"];
    match again["replayed"].as_str() {
        Some(hash) if is_same => Ok(hash.to_owned()),
        _ => Err(format!("{}: {again}, answered {}", line["customer"], line["offers"])),
    }
}

/// A catalogue that was replaced before the last restart is known to nobody: that is said, and nothing else is decided in its place.
async fn refused(run: &Run, line: &Value) {
    let asked = json!({"trace": line["record"]});
    for client in &run.clients {
        let refused = client.post("/replay", &asked).await.expect_err("its catalogue is gone");
        let problem = refused.downcast_ref::<Problem>().expect("the node answers");
        assert_eq!(problem.status, StatusCode::CONFLICT, "{problem}");
    }
}

/// Replays all traces, the first on the node `from`, the next on the one after it, and so on; the hashes of their bytes.
async fn replay_all(run: &Run, from: usize) -> Vec<String> {
    let mut lines = BufReader::new(File::open(&run.path).expect("it was written")).lines();
    let (mut hashes, mut differ) = (Vec::new(), Vec::new());
    loop {
        let chunk: Vec<String> = lines.by_ref().take(REPLAYED_AT_ONCE).map(|line| line.expect("it is text")).collect();
        if chunk.is_empty() {
            break;
        }
        let share = chunk.len().div_ceil(CLIENTS as usize);
        let replaying = chunk.chunks(share).map(|share| {
            let traces: Vec<Value> = share.iter().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
            let clients = run.clients.clone();
            spawn_local(async move {
                let mut found = Vec::new();
                for (index, line) in traces.iter().enumerate() {
                    found.push(replay(&clients[(index + from) % NODES], line).await);
                }
                found
            })
        });
        for replaying in replaying.collect::<Vec<_>>() {
            for found in replaying.await.expect("no panic") {
                let found = found.unwrap_or_else(|difference| {
                    differ.push(difference);
                    String::new()
                });
                hashes.push(found);
            }
        }
    }
    let told = differ.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
    assert!(differ.is_empty(), "{} of {} decisions do not replay:\n{told}", differ.len(), hashes.len());
    hashes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_traced_decision_replays_to_the_same_bytes_on_every_node_and_after_a_restart() {
    let decisions = std::env::var("PROFFER_REPLAY_DECISIONS").map_or(DECISIONS, |many| many.parse().expect("a number"));
    let rounds = decisions.div_ceil(DECISIONS_A_ROUND).max(ROUNDS_MIN);
    let mut nodes = Nodes::start(NODES, SHARDS).await;
    all_lead(&nodes).await;
    let begun = Instant::now();
    let clients: Vec<_> = (0..NODES).map(|number| nodes.client(number)).collect();
    let first = &clients[0];
    insist(async || first.post("/import?wait=all", &catalogue(decisions)).await).await;
    let flows = ids(first, "/decision-flows", "key").await;
    let offers = ids(first, "/offers", "name").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("traces");
    let traces = Mutex::new(BufWriter::new(File::create(&path).expect("the directory is ours")));
    let (next, kinds, flow) = (AtomicU64::new(0), Mutex::default(), flows["spring"].clone());
    let run = Arc::new(Run { decisions, clients, next, path, traces, kinds, offers, flow });
    for flow in flows.values() {
        run.publish(flow).await;
    }

    let (mut replayed, mut distinct, mut older) = (0, 0, None);
    for round in 1..=rounds {
        LocalSet::new().run_until(decide(&run, decisions * round / rounds)).await;
        println!("round {round} of {rounds}: decided after {:?}", begun.elapsed());
        let at_once = LocalSet::new().run_until(replay_all(&run, 0)).await;
        tokio::task::block_in_place(|| (0..NODES).for_each(|number| assert!(nodes.terminate(number), "it ends well")));
        nodes.start_all();
        nodes.whole().await;
        // Each trace is now asked of the next node, and, once the catalogue is another, of the third.
        let restarted = LocalSet::new().run_until(replay_all(&run, 1)).await;
        run.edit(round).await;
        let edited = LocalSet::new().run_until(replay_all(&run, 2)).await;
        assert!(at_once == restarted && restarted == edited, "other nodes come to other bytes");
        println!("replayed {} decisions on three nodes after {:?}", edited.len(), begun.elapsed());
        replayed += edited.len();
        distinct += edited.iter().collect::<BTreeSet<_>>().len();
        if let Some(older) = older.replace(run.first_trace()) {
            refused(&run, &older).await;
        }
    }
    let kinds = run.kinds.lock().await;
    println!("{replayed} decisions, of which {distinct} differ: {kinds:#?}");
    assert!(replayed as u64 >= decisions, "some were not traced");
    assert!(distinct * 2 > replayed, "they are all alike");
    let missing: Vec<_> = KINDS.iter().filter(|kind| !kinds.contains_key(**kind)).collect();
    assert!(missing.is_empty(), "the mix lacks {missing:?}");
}
