//! Behavioural metrics over HTTP: events count at once, and once.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    for (name, priority) in [("A", 80), ("B", 70)] {
        let offer = json!({"name": name, "status": "active", "category": name, "priority": priority});
        node.create("offers", &offer.to_string()).await;
    }
    node
}

async fn names(node: &Node) -> Vec<String> {
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    let decisions = answer["decisions"].as_array().unwrap();
    decisions.iter().map(|decision| decision["offerName"].as_str().unwrap().to_owned()).collect()
}

async fn metrics(node: &Node) -> Value {
    node.ok("GET", "/api/v1/profiles/c", "").await["metrics"].clone()
}

#[tokio::test]
async fn an_event_counts_once_under_its_key_and_the_next_decision_knows() {
    let node = shop().await;
    let spent = json!({"name": "spent", "aggregation": "sum", "events": ["buy"], "per": "day"});
    node.create("behavioral-metrics", &spent.to_string()).await;
    let views = json!({"name": "views", "events": ["view"], "groupBy": ["category"], "per": {"hours": 24}});
    node.create("behavioral-metrics", &views.to_string()).await;
    let rule = json!({"name": "rich", "ruleType": "metric_condition", "scope": "offer", "scopeId": "A",
        "config": {"metric": "spent", "operator": "gte", "value": 10}});
    node.create("qualification-rules", &rule.to_string()).await;
    let policy = json!({"name": "tired", "ruleType": "metric_condition",
        "config": {"metric": "views", "operator": "gt", "value": 1}});
    node.create("contact-policies", &policy.to_string()).await;
    assert_eq!(names(&node).await, ["B"]);

    let buy = |key: &str, value: f64| {
        json!({"customerId": "c", "type": "buy", "value": value, "idempotencyKey": key}).to_string()
    };
    let answer = node.ok("POST", "/api/v1/events", &buy("1", 7.25)).await;
    assert_eq!(answer, json!({"recorded": true, "duplicate": false}));
    let answer = node.ok("POST", "/api/v1/events", &buy("1", 7.25)).await;
    assert_eq!(answer, json!({"recorded": true, "duplicate": true}));
    let reply = node.call("POST", "/api/v1/events", &buy("1", 8.0)).await;
    assert_eq!(reply.status, StatusCode::CONFLICT, "{reply:?}");
    assert_eq!(names(&node).await, ["B"]);
    node.ok("POST", "/api/v1/events", &buy("2", 2.75)).await;
    assert_eq!(names(&node).await, ["A", "B"]);

    for key in ["3", "4"] {
        let view = json!({"customerId": "c", "type": "view", "offerId": "B", "channel": "web", "idempotencyKey": key});
        node.ok("POST", "/api/v1/events", &view.to_string()).await;
    }
    assert_eq!(names(&node).await, ["A"]);
    assert_eq!(metrics(&node).await, json!({"spent": 10, "views": [{"categoryId": "cat_b", "value": 2}]}));
    let why = node.ok("GET", "/api/v1/why-not?customerId=c&channel=web&offerId=B", "").await;
    assert_eq!(why["removed"]["stage"], "contact_policy", "{why}");
}

#[tokio::test]
async fn outcomes_and_what_is_shown_are_counted_once_each() {
    let node = shop().await;
    for (name, outcomes) in
        [("shown", json!(["impression"])), ("clicks", json!(["click"])), ("worth", json!(["conversion"]))]
    {
        let aggregation = if name == "worth" { "max" } else { "count" };
        let metric = json!({"name": name, "outcomes": outcomes, "aggregation": aggregation});
        node.create("behavioral-metrics", &metric.to_string()).await;
    }
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    let id = answer["recommendationId"].as_str().unwrap();
    let respond = |rank: u32, outcome: &str, key: &str| {
        json!({"customerId": "c", "recommendationId": id, "rank": rank, "outcome": outcome, "idempotencyKey": key,
            "conversionValue": 19.5})
        .to_string()
    };
    for (rank, outcome, key) in
        [(1, "click", "a"), (1, "click", "a"), (1, "click", "b"), (1, "impression", "c"), (2, "conversion", "d")]
    {
        node.ok("POST", "/api/v1/respond", &respond(rank, outcome, key)).await;
    }
    assert_eq!(metrics(&node).await, json!({"clicks": 1, "shown": 2, "worth": 19.5}));
    node.create("channels", r#"{"name": "kiosk", "impressionMode": "implicit"}"#).await;
    node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "kiosk"}"#).await;
    assert_eq!(metrics(&node).await, json!({"clicks": 1, "shown": 4, "worth": 19.5}));
}

#[tokio::test]
async fn a_bad_event_is_told_with_every_pointer_and_counts_nothing() {
    let node = shop().await;
    node.create("behavioral-metrics", r#"{"name": "all", "events": ["buy"]}"#).await;
    let bad = json!({"customerId": "c", "type": "buy", "value": 1e13, "offerId": "Z", "channel": "tv", "idempotencyKey": "1",
        "timestamp": "yesterday"});
    let reply = node.call("POST", "/api/v1/events", &bad.to_string()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let mut pointers = reply.pointers();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/channel", "/offerId", "/timestamp", "/value"]);
    for body in [r#"{"customerId": "c", "type": "buy"}"#, r#"{"customerId": "c", "idempotencyKey": "1"}"#, "[]", "{"] {
        let reply = node.call("POST", "/api/v1/events", body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(node.call("GET", "/api/v1/profiles/c", "").await.status, StatusCode::NOT_FOUND);
}
