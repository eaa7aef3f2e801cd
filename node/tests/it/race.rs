//! A scarce offer, three nodes, and leaders that are killed while everybody wants it: exactly the limit is sold, and nothing that was
//! acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use proffer_node::client::{Client, Problem};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::nodes::Nodes;

const GLOBAL_LIMIT: u64 = 10_000;
const PROFILE_LIMIT: u64 = 3;
const CLIENTS: usize = 64;
const CUSTOMERS: usize = 5_000;
/// Faults end after this; then the rest is sold.
const FAULTS: Duration = Duration::from_secs(25);

/// What the clients know.
#[derive(Default)]
struct Known {
    /// Impressions that were acknowledged and counted.
    confirmed: AtomicU64,
    /// Calls answered with a success.
    answered: AtomicU64,
    /// Calls that were not.
    failed: AtomicU64,
    sold_out: AtomicBool,
}

/// Calls until it is answered: with the same key, at another node each time.
async fn insist(clients: &[Client], turn: usize, path: &str, body: &Value, key: &str, known: &Known) -> Option<Value> {
    for attempt in 0..600 {
        let client = &clients[(turn + attempt) % clients.len()];
        let headers = [("Idempotency-Key", key)];
        let bytes = serde_json::to_vec(body).expect("it is JSON");
        match client.send(Method::POST, path, "application/json", bytes, &headers).await {
            Ok(answer) => {
                known.answered.fetch_add(1, Ordering::Relaxed);
                return Some(answer);
            }
            Err(error) => {
                known.failed.fetch_add(1, Ordering::Relaxed);
                if let Some(problem) = error.downcast_ref::<Problem>()
                    && !problem.status.is_server_error()
                    && problem.status != 429
                {
                    // The reservation has lapsed, or the like: nothing was counted, and the client has its answer.
                    return None;
                }
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    panic!("{path} was not answered for half a minute: {body}");
}

async fn buy(
    clients: Arc<Vec<Client>>,
    worker: usize,
    stop: Arc<AtomicBool>,
    known: Arc<Known>,
) -> Vec<(Value, String)> {
    let mut acknowledged = Vec::new();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) || known.sold_out.load(Ordering::Relaxed) {
            break;
        }
        let customer = format!("c{}", (worker * 7_919 + turn * 104_729) % CUSTOMERS);
        let wish = json!({"customerId": customer, "channel": "web"});
        let key = format!("d-{worker}-{turn}");
        let Some(answer) = insist(&clients, worker + turn, "/recommend", &wish, &key, &known).await else { continue };
        let Some(rank) = answer["decisions"][0]["rank"].as_u64() else { continue };
        let body = json!({"customerId": customer, "recommendationId": answer["recommendationId"], "rank": rank,
            "outcome": "impression"});
        let key = format!("r-{worker}-{turn}");
        let Some(responded) = insist(&clients, worker + turn + 1, "/respond", &body, &key, &known).await else {
            continue;
        };
        if responded["overCap"] == false && responded["late"] == false {
            known.confirmed.fetch_add(1, Ordering::Relaxed);
            acknowledged.push((body, key));
        }
    }
    acknowledged
}

fn sum(budget: &Value, member: &str) -> i64 {
    budget["shards"].as_array().into_iter().flatten().filter_map(|shard| shard[member].as_i64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_limit_is_sold_while_leaders_are_killed_and_nothing_acknowledged_is_lost() {
    let mut nodes = Nodes::start(3, 6).await;
    let first = nodes.client(0);
    first.post("/channels", &json!({"name": "web"})).await.expect("channel");
    let caps = json!([
        {"scope": "global", "limit": GLOBAL_LIMIT, "reservationSeconds": 2},
        {"scope": "profile", "limit": PROFILE_LIMIT, "reservationSeconds": 2}]);
    let offer = json!({"name": "scarce", "status": "active", "caps": caps});
    let offer = first.post("/offers?wait=all", &offer).await.expect("offer")["id"].as_str().expect("id").to_owned();

    let clients = Arc::new((0..3).map(|number| nodes.client(number)).collect::<Vec<_>>());
    let (stop, known) = (Arc::new(AtomicBool::new(false)), Arc::new(Known::default()));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|worker| tokio::spawn(buy(Arc::clone(&clients), worker, Arc::clone(&stop), Arc::clone(&known))))
        .collect();
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < FAULTS {
        sleep(Duration::from_secs(2)).await;
        // Whichever leads most: all of its shards change their leader under the load.
        let status = nodes.cluster(kills % 3, "/cluster/status").await;
        let leads = |node: &Value| node["leads"].as_u64().unwrap_or(0);
        let busiest = status["nodes"].as_array().into_iter().flatten().max_by_key(|node| leads(node));
        let victim = busiest.and_then(|node| nodes.at(&node["httpAddress"])).unwrap_or(kills % 3);
        nodes.kill(victim);
        kills += 1;
        sleep(Duration::from_millis(700)).await;
        nodes.start_again(victim);
    }
    let last_fault = Instant::now();
    let spent = async || first.get(&format!("/offers/{offer}/budget")).await;
    let patience = Instant::now() + Duration::from_secs(120);
    loop {
        if let Ok(budget) = spent().await
            && budget["spent"] == GLOBAL_LIMIT
        {
            known.sold_out.store(true, Ordering::Relaxed);
            break;
        }
        let now = spent().await;
        assert!(Instant::now() < patience, "the last unit was not sold: {now:?}");
        sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for worker in workers {
        acknowledged.extend(worker.await.expect("no panic"));
    }
    println!(
        "{kills} leaders killed; {} calls answered, {} tried again; {} impressions acknowledged, sold out {:?} after the last fault",
        known.answered.load(Ordering::Relaxed),
        known.failed.load(Ordering::Relaxed),
        acknowledged.len(),
        last_fault.elapsed(),
    );
    assert!(kills >= 5, "only {kills} leaders were killed");

    sleep(Duration::from_secs(5).saturating_sub(last_fault.elapsed())).await;
    let budget = spent().await.expect("budget");
    assert_eq!(budget["spent"], GLOBAL_LIMIT, "{budget}");
    assert_eq!(budget["inFlight"], 0, "{budget}");
    let held = sum(&budget, "free") + sum(&budget, "reserved") + sum(&budget, "spent");
    let whole = budget["pool"].as_i64().expect("pool") + budget["inFlight"].as_i64().expect("in flight") + held;
    assert_eq!(whole, GLOBAL_LIMIT as i64, "{budget}");

    for (number, (body, key)) in acknowledged.iter().enumerate().step_by(7) {
        let again = insist(&clients, number, "/respond", body, key, &known).await.expect("it was answered before");
        assert_eq!(again["duplicate"], true, "lost: {body}");
    }
    assert!(acknowledged.len() as u64 <= GLOBAL_LIMIT, "{} were acknowledged", acknowledged.len());
    for customer in 0..CUSTOMERS {
        match clients[customer % 3].get(&format!("/profiles/c{customer}")).await {
            Ok(profile) => {
                let seen = profile["exposures"]["count"].as_u64().unwrap_or(0);
                assert!(seen <= PROFILE_LIMIT, "c{customer} saw it {seen} times");
            }
            Err(error) => {
                let unknown = error.downcast_ref::<Problem>().is_some_and(|problem| problem.status == 404);
                assert!(unknown, "{error}");
            }
        }
    }
}
