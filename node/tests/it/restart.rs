//! What was acknowledged survives kill −9, and caps are still right after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proffer_node::client::{Client, Problem};
use serde_json::{Value, json};

use crate::process::Node;

const GLOBAL_LIMIT: u64 = 300;
const PROFILE_LIMIT: u64 = 3;
const CLIENTS: usize = 8;
const CUSTOMERS: usize = 150;

/// An outcome that the node has acknowledged: the body to ask with again.
type Acknowledged = Vec<Value>;

/// Recommends and confirms until told to stop or the node is gone; returns what was acknowledged.
async fn press(client: Client, worker: usize, round: usize, stop: Arc<AtomicBool>) -> Acknowledged {
    let mut acknowledged = Vec::new();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let customer = format!("c{}", (worker * 31 + turn * 7) % CUSTOMERS);
        let Ok(answer) = client.post("/recommend", &json!({"customerId": customer, "channel": "web"})).await else {
            break;
        };
        for decision in answer["decisions"].as_array().into_iter().flatten() {
            let body = json!({
                "customerId": customer, "recommendationId": answer["recommendationId"], "rank": decision["rank"],
                "outcome": "impression", "idempotencyKey": format!("{round}-{worker}-{turn}-{}", decision["rank"]),
            });
            match client.post("/respond", &body).await {
                Ok(answer) if answer["overCap"] == false => acknowledged.push(body),
                Ok(_) => {}
                Err(_) => return acknowledged,
            }
        }
    }
    acknowledged
}

async fn spent(client: &Client, offer: &str) -> Value {
    client.get(&format!("/offers/{offer}/budget")).await.expect("budget is answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_impressions_survive_kill_nine_and_no_cap_is_exceeded() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(Some(data.path()));
    let client = node.client();
    client.post("/channels", &json!({"name": "web"})).await.expect("channel");
    let offer = client
        .post(
            "/offers",
            &json!({"name": "scarce", "status": "active", "caps": [
                {"scope": "global", "limit": GLOBAL_LIMIT, "reservationSeconds": 1},
                {"scope": "profile", "limit": PROFILE_LIMIT, "reservationSeconds": 1}]}),
        )
        .await
        .expect("offer");
    let offer = offer["id"].as_str().expect("id").to_owned();

    let mut acknowledged = Acknowledged::new();
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> =
            (0..CLIENTS).map(|worker| tokio::spawn(press(node.client(), worker, round, Arc::clone(&stop)))).collect();
        tokio::time::sleep(Duration::from_millis(400)).await;
        node.kill();
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            acknowledged.extend(worker.await.expect("no panic"));
        }
        node = Node::start(Some(data.path()));
        let client = node.client();
        for body in &acknowledged {
            let again = client.post("/respond", body).await.expect("an acknowledged outcome is answered again");
            assert_eq!(again["duplicate"], true, "lost: {body}");
        }
        let budget = spent(&client, &offer).await;
        let confirmed = budget["spent"].as_u64().expect("spent is a count");
        assert!(confirmed >= acknowledged.len() as u64, "{} acknowledged, budget {budget}", acknowledged.len());
        assert!(confirmed <= GLOBAL_LIMIT, "{budget}");
    }
    assert!(!acknowledged.is_empty(), "the load acknowledged nothing: the test saw no work");

    // Sell the rest: exactly the limit, and no customer above theirs.
    let client = node.client();
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut round = 100;
    loop {
        let stop = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> =
            (0..CLIENTS).map(|worker| tokio::spawn(press(node.client(), worker, round, Arc::clone(&stop)))).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.expect("no panic");
        }
        let budget = spent(&client, &offer).await;
        assert!(budget["spent"].as_u64() <= Some(GLOBAL_LIMIT), "{budget}");
        if budget["spent"] == GLOBAL_LIMIT {
            break;
        }
        assert!(tokio::time::Instant::now() < patience, "the last unit was not sold: {budget}");
        round += 1;
    }
    for customer in 0..CUSTOMERS {
        let profile = match client.get(&format!("/profiles/c{customer}")).await {
            Ok(profile) => profile,
            Err(error) if error.downcast_ref::<Problem>().is_some_and(|problem| problem.status == 404) => continue,
            Err(error) => panic!("{error}"),
        };
        let seen = profile["exposures"]["count"].as_u64().unwrap_or(0);
        assert!(seen <= PROFILE_LIMIT, "c{customer} saw it {seen} times");
    }
}

#[tokio::test]
async fn a_terminated_node_ends_well_and_comes_back_with_its_catalogue_and_profiles() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(Some(data.path()));
    let client = node.client();
    client.post("/offers", &json!({"name": "kept", "status": "active"})).await.expect("offer");
    client.put("/profiles/ann", &json!({"attributes": {"age": 41}, "segments": ["gold"]})).await.expect("profile");
    assert!(node.terminate(), "SIGTERM ends with success");

    let node = Node::start(Some(data.path()));
    let answer = node.client().post("/recommend", &json!({"customerId": "ann"})).await.expect("decided");
    assert_eq!(answer["decisions"][0]["offerName"], "kept", "{answer}");
    let profile = node.client().get("/profiles/ann").await.expect("profile");
    assert_eq!(profile["attributes"]["age"], 41, "{profile}");
}

#[tokio::test]
async fn a_data_directory_serves_one_node_at_a_time() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let _first = Node::start(Some(data.path()));
    let second = std::process::Command::new(crate::process::BINARY)
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(data.path())
        .output()
        .expect("runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).to_lowercase();
    assert!(said.contains("lock") || said.contains("in use"), "{said}");
}
