//! Decisions for many customers at once: a line each, caps as exact as ever.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use proffer_engine::catalog::Role;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::node::{Node, key_of};

const PATH: &str = "/api/v1/batch-decisions";

/// Offer A with a global cap, B without; so many customers, each third of them in the segment.
async fn shop(customers: usize, limit: u64) -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "email"}"#).await;
    let cap = json!([{"scope": "global", "limit": limit, "per": "lifetime", "countOn": "decision"}]);
    for (name, priority, caps) in [("A", 80, cap), ("B", 10, json!([]))] {
        let offer = json!({"name": name, "status": "active", "category": "x", "priority": priority, "caps": caps});
        node.create("offers", &offer.to_string()).await;
    }
    for number in 0..customers {
        let segments = if number % 3 == 0 { json!(["third"]) } else { json!([]) };
        let body = json!({"attributes": {"number": number}, "segments": segments}).to_string();
        node.ok("PUT", &format!("/api/v1/profiles/c{number:03}"), &body).await;
    }
    node
}

async fn lines_of(node: &Node, key: Option<&str>, body: &Value) -> Vec<Value> {
    let request = Request::builder().method("POST").uri(PATH).header("X-API-Key", key_of(Role::Channel));
    let request = key.iter().fold(request, |request, key| request.header("Idempotency-Key", *key));
    let reply = node.send(request.body(Body::from(body.to_string())).unwrap()).await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, "application/x-ndjson"), "{reply:?}");
    let text = String::from_utf8(reply.bytes).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Customer, and names of the offers proposed, in order of the customers.
fn decided(lines: &[Value]) -> Vec<(String, Vec<String>)> {
    let decisions = lines.iter().filter(|line| line["type"] == "decision");
    let mut decided: Vec<_> = decisions
        .map(|line| {
            let entries = line["answer"]["decisions"].as_array().unwrap();
            let names = entries.iter().map(|entry| entry["offerName"].as_str().unwrap().to_owned());
            assert_eq!(line["customerId"], line["answer"]["customerId"]);
            (line["customerId"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect();
    decided.sort();
    decided
}

async fn spent(node: &Node) -> u64 {
    let offers = node.ok("GET", "/api/v1/offers", "").await;
    let id = offers["items"].as_array().unwrap().iter().find(|offer| offer["name"] == "A").unwrap()["id"].clone();
    let budget = node.ok("GET", &format!("/api/v1/offers/{}/budget", id.as_str().unwrap()), "").await;
    budget["spent"].as_u64().unwrap() + budget["reserved"].as_u64().unwrap()
}

#[tokio::test]
async fn everybody_is_decided_for_once_and_a_global_cap_is_sold_out_and_no_further() {
    let node = shop(90, 7).await;
    let body = json!({"request": {"channel": "email", "limit": 1}});
    let lines = lines_of(&node, None, &body).await;
    assert_eq!((&lines[0]["type"], lines[0]["batchId"].is_string()), (&json!("begin"), true));
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["type"], &last["profiles"], &last["decided"]),
        (&json!("done"), &json!(90), &json!(90)),
        "{last}"
    );
    assert!(last["profilesPerSecond"].as_f64().unwrap() > 0.0);
    let decided = decided(&lines);
    let customers: BTreeSet<_> = decided.iter().map(|(customer, _)| customer.clone()).collect();
    assert_eq!(customers, (0..90).map(|number| format!("c{number:03}")).collect());
    let count = |name: &str| decided.iter().filter(|(_, names)| names[..] == [name.to_owned()]).count() as u64;
    let mut sold = spent(&node).await;
    assert_eq!((count("A"), count("B")), (sold, 90 - sold), "what an answer has is taken");
    // A unit that is on its way to another shard is sold by the next batch.
    for _ in 0..20 {
        assert!(sold <= 7, "{sold}");
        lines_of(&node, None, &body).await;
        sold = spent(&node).await;
    }
    assert_eq!(sold, 7);
}

#[tokio::test]
async fn a_batch_repeated_under_its_id_gives_the_same_answers_and_takes_nothing_again() {
    let node = shop(30, 100).await;
    let body = json!({"segment": "third", "request": {"channel": "email"}});
    let first = lines_of(&node, Some("march"), &body).await;
    assert_eq!((first[0]["batchId"].clone(), spent(&node).await), (json!("march"), 10));
    let ids = |lines: &[Value]| -> BTreeSet<String> {
        let decisions = lines.iter().filter(|line| line["type"] == "decision");
        decisions.map(|line| line["answer"]["recommendationId"].to_string()).collect()
    };
    let again = lines_of(&node, Some("march"), &body).await;
    assert_eq!((ids(&again), ids(&first).len(), spent(&node).await), (ids(&first), 10, 10));
    assert_eq!(lines_of(&node, Some("april"), &body).await.last().unwrap()["decided"], json!(10));
    assert_eq!(spent(&node).await, 20);
    assert_eq!(lines_of(&node, None, &json!({"segment": "nobody", "request": {"channel": "email"}})).await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_takes_nothing_and_needs_the_roles_of_simulate() {
    let node = shop(12, 5).await;
    let body = json!({"dryRun": true, "request": {"channel": "email"}}).to_string();
    let refused = node.call_as(Role::Channel, "POST", PATH, &body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        node.call_as(Role::Viewer, "POST", PATH, &body).await.status,
        StatusCode::FORBIDDEN,
        "it lists customers"
    );
    let reply = node.call_as(Role::Editor, "POST", PATH, &body).await;
    let text = String::from_utf8(reply.bytes).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(decided(&lines).len(), 12);
    assert!(lines.iter().all(|line| line["answer"]["recommendationId"].is_null()));
    assert_eq!(spent(&node).await, 0);
    let wet = json!({"request": {"channel": "email"}}).to_string();
    assert_eq!(node.call_as(Role::Editor, "POST", PATH, &wet).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn closing_the_connection_stops_a_batch() {
    let node = shop(400, 1_000).await;
    let body = json!({"request": {"channel": "email"}}).to_string();
    let request = Request::builder().method("POST").uri(PATH).header("X-API-Key", key_of(Role::Channel));
    let response = node.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let mut stream = response.into_body();
    for _ in 0..3 {
        stream.frame().await.unwrap().unwrap();
    }
    drop(stream);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let taken = spent(&node).await;
    assert!((1..=120).contains(&taken), "{taken} of 400 after two answers");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(spent(&node).await, taken);
}

#[tokio::test]
async fn progress_is_told() {
    let node = shop(0, 5).await;
    let rows = (0..2_100).map(|number| format!("{{\"customerId\": \"p{number}\", \"attributes\": {{\"a\": 1}}}}\n"));
    node.ok("POST", "/api/v1/import/profiles", &rows.collect::<String>()).await;
    let lines = lines_of(&node, None, &json!({"request": {"channel": "email"}})).await;
    let told: Vec<_> = lines.iter().filter(|line| line["type"] == "progress").collect();
    assert_eq!(told.iter().map(|line| line["profiles"].as_u64().unwrap()).collect::<Vec<_>>(), [1_000, 2_000]);
    let share = |line: &Value| line["share"].as_f64().unwrap();
    assert!(share(told[0]) > 0.0 && share(told[0]) <= share(told[1]) && share(told[1]) <= 1.0, "{told:?}");
}

#[tokio::test]
async fn a_batch_that_nobody_could_answer_is_refused_before_it_begins() {
    let node = shop(3, 5).await;
    for (body, pointers) in [
        (json!({}), vec!["/request"]),
        (json!({"request": []}), vec!["/request"]),
        (json!({"request": {"customerId": "c"}}), vec!["/request/customerId"]),
        (json!({"request": {"supersedes": "x"}}), vec!["/request/supersedes"]),
        (json!({"request": {"channel": "none", "limit": 0}, "colour": 1}), vec!["/colour"]),
        (json!({"request": {"channel": "none", "limit": 0}}), vec!["/request/channel", "/request/limit"]),
        (json!({"request": {"activities": ["none"]}}), vec!["/request/activities/0"]),
    ] {
        let reply = node.call("POST", PATH, &body.to_string()).await;
        let mut found = reply.pointers();
        found.sort();
        assert_eq!(
            (reply.status, found),
            (StatusCode::BAD_REQUEST, pointers.iter().map(|p| (*p).to_owned()).collect())
        );
    }
    assert_eq!(spent(&node).await, 0);
}

#[tokio::test]
async fn who_was_deleted_is_not_decided_for_and_a_key_that_is_gone_ends_its_batch() {
    let node = shop(6, 100).await;
    let shown = json!({"customerId": "c001", "offerId": "A", "outcome": "click", "idempotencyKey": "k"});
    node.ok("POST", "/api/v1/respond", &shown.to_string()).await;
    node.ok("DELETE", "/api/v1/profiles/c001", "").await;
    let body = json!({"request": {"channel": "email"}});
    let decided: Vec<String> = decided(&lines_of(&node, None, &body).await).into_iter().map(|(id, _)| id).collect();
    assert_eq!(decided, ["c000", "c002", "c003", "c004", "c005"]);
    let rows = (0..3_000).map(|number| format!("{{\"customerId\": \"p{number}\", \"attributes\": {{\"a\": 1}}}}\n"));
    node.ok("POST", "/api/v1/import/profiles", &rows.collect::<String>()).await;
    let request = Request::builder().method("POST").uri(PATH).header("X-API-Key", key_of(Role::Channel));
    let response = node.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
    let mut stream = response.into_body();
    stream.frame().await.unwrap().unwrap();
    node.revoke(Role::Channel).await;
    let rest = String::from_utf8(stream.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["problem"]["status"]), (&json!("brokenOff"), &json!(401)), "{last}");
    assert!(rest.lines().count() < 2_500, "{}", rest.lines().count());
}
