//! A call repeated under its key gets the first answer, and its id still means what it meant.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::node::{Node, Reply};

const WINDOW: &str = r#"{"scope": "profile", "limit": 3, "per": "day"}"#;

async fn ask(node: &Node, path: &str, key: &str, body: &Value) -> Reply {
    let request = Request::builder().method("POST").uri(path).header("X-API-Key", "admin-key");
    let request = request.header("Idempotency-Key", key).header("Content-Type", "application/json");
    let reply = node.send(request.body(Body::from(body.to_string())).unwrap()).await;
    assert!(reply.status.is_success(), "{reply:?} {}", String::from_utf8_lossy(&reply.bytes));
    reply
}

/// Two capped offers, best first.
async fn two() -> (Node, [String; 2]) {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    let mut ids = Vec::new();
    for (name, priority) in [("A", 80), ("B", 70)] {
        let body = json!({"name": name, "status": "active", "priority": priority, "budget": {"maxImpressions": 10}});
        ids.push(node.create("offers", &body.to_string()).await);
    }
    (node, ids.try_into().unwrap())
}

async fn units(node: &Node, offer: &str) -> (Value, Value) {
    let budget = node.ok("GET", &format!("/api/v1/offers/{offer}/budget"), "").await;
    (budget["spent"].clone(), budget["reserved"].clone())
}

#[tokio::test]
async fn a_retry_after_an_exclusion_keeps_ranks_and_settles_the_right_unit() {
    let (node, [first, second]) = two().await;
    let body = json!({"customerId": "c", "channel": "web"});
    let before = ask(&node, "/api/v1/recommend", "k", &body).await.json();
    assert_eq!(before["count"], 2);
    node.ok("PUT", &format!("/api/v1/offers/{first}"), r#"{"emergencyExcluded": true}"#).await;
    let after = ask(&node, "/api/v1/recommend", "k", &body).await.json();
    assert_eq!((&after["count"], &after["meta"]["excluded"]), (&json!(1), &json!(true)));
    let left = &after["decisions"][0];
    assert_eq!((&left["offerId"], &left["rank"]), (&json!(second), &json!(2)), "{after}");
    assert_eq!(after["recommendationId"], before["recommendationId"]);
    let shown = json!({"customerId": "c", "recommendationId": after["recommendationId"], "rank": left["rank"],
        "outcome": "impression", "idempotencyKey": "1"});
    node.ok("POST", "/api/v1/respond", &shown.to_string()).await;
    assert_eq!(units(&node, &second).await, (json!(1), json!(0)));
    assert_eq!(units(&node, &first).await, (json!(0), json!(1)), "held until it lapses, never spent");
}

fn flow(key: &str, flow_config: Value, response: &str) -> Value {
    json!({"key": key, "name": key, "draftConfig": {"version": 2, "flowConfig": flow_config, "nodes": [
        {"id": "i", "type": "inventory", "phase": 1, "position": 0, "config": {}},
        {"id": "r", "type": "rank", "phase": 2, "position": 1, "config": {"maxCandidates": 3}},
        {"id": "c", "type": "compute", "phase": 3, "position": 2, "config": {}},
        {"id": "o", "type": "response", "phase": 3, "position": 3, "config": {"responseFormat": response}}]}})
}

/// A category with a computed field, capped offers in it, a fallback offer, slots, and three flows.
async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("placements", r#"{"name": "hero", "channelId": "web"}"#).await;
    let category = r#"{"name": "Cards", "customFields": [{"name": "fee", "type": "number"},
        {"name": "twice", "type": "computed", "outputType": "number", "formula": "fee * 2"}]}"#;
    let category = node.create("categories", category).await;
    let cap: Value = serde_json::from_str(WINDOW).unwrap();
    for (name, kind) in [("A", "general"), ("B", "general"), ("Last", "fallback")] {
        let mut body = json!({"name": name, "kind": kind, "status": "active", "categoryId": category,
            "customFields": {"fee": 2.5}});
        if kind == "general" {
            body["caps"] = json!([cap]);
        }
        node.create("offers", &body.to_string()).await;
        let creative = json!({"name": name, "offerId": name, "channelId": "web", "status": "active",
            "contentType": "json", "content": {"t": name}});
        node.create("creatives", &creative.to_string()).await;
    }
    for (name, all_of) in [("Everything", json!([])), ("Nothing", json!(["no such tag"]))] {
        node.create("collections", &json!({"name": name, "allOf": all_of}).to_string()).await;
        let placement = node.ok("GET", "/api/v1/placements", "").await["items"][0]["id"].clone();
        let activity = json!({"name": name, "collectionId": name, "placementId": placement, "fallbackOfferId": "Last"});
        node.create("activities", &activity.to_string()).await;
    }
    let held_out =
        |action: &str| json!({"experiment": {"enabled": true, "holdoutPercent": 100, "controlGroupAction": action}});
    for flow in [
        flow("plain", json!({}), "standard"),
        flow("short", json!({}), "compact"),
        flow("withheld", held_out("no_offers"), "standard"),
        flow("simple", held_out("priority_only"), "standard"),
    ] {
        let id = node.create("decision-flows", &flow.to_string()).await;
        node.ok("POST", &format!("/api/v1/decision-flows/{id}/publish"), "").await;
    }
    node
}

#[tokio::test]
async fn a_repeated_answer_has_the_bytes_of_the_first() {
    let node = shop().await;
    let list = |flow: &str| json!({"customerId": flow, "channel": "web", "decisionFlowKey": flow, "trace": true});
    let slots =
        json!({"customerId": "slots", "channel": "web", "placements": ["hero", {"placement": "hero", "limit": 2}]});
    let activities = json!({"customerId": "activities", "activities": ["nothing", "everything"]});
    for (path, body) in [
        ("/api/v1/recommend", json!({"customerId": "base", "channel": "web"})),
        ("/api/v1/recommend", list("plain")),
        ("/api/v1/recommend", list("short")),
        ("/api/v1/recommend", list("withheld")),
        ("/api/v1/recommend", list("simple")),
        ("/api/v1/recommend", slots),
        ("/api/v1/decisions", activities),
    ] {
        let first = ask(&node, path, "k", &body).await;
        assert!(!first.headers.contains_key("idempotent-replayed"));
        node.clock.advance(std::time::Duration::from_secs(60));
        let again = ask(&node, path, "k", &body).await;
        // A repeated answer was not decided: of what a decision read there is no record.
        let (mut again_said, mut first_said) = (again.json(), first.json());
        if let Some(record) = first_said.pointer_mut("/meta/trace/record") {
            assert!(record.is_string(), "{body}");
            *record = again_said["meta"]["trace"]["record"].take();
            assert!(record.is_null(), "{body}");
        } else {
            assert_eq!(again.bytes, first.bytes, "{body}");
        }
        assert_eq!(again_said, first_said);
        assert_eq!(again.header("idempotent-replayed"), "true");
    }
}

#[tokio::test]
async fn a_held_out_customer_stays_held_out_in_a_retry() {
    let node = shop().await;
    let body = json!({"customerId": "c", "channel": "web", "decisionFlowKey": "withheld"});
    let first = ask(&node, "/api/v1/recommend", "k", &body).await.json();
    let again = ask(&node, "/api/v1/recommend", "k", &body).await.json();
    for answer in [&first, &again] {
        assert_eq!((&answer["count"], &answer["meta"]["controlGroup"]), (&json!(0), &json!(true)), "{answer}");
    }
    let ghost = json!({"customerId": "c", "recommendationId": again["recommendationId"], "offerId": "A",
        "outcome": "conversion", "idempotencyKey": "1"});
    assert_eq!(node.ok("POST", "/api/v1/respond", &ghost.to_string()).await["recorded"], true);
}
