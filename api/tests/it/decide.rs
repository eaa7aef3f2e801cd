//! Deciding and answering over HTTP.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("placements", r#"{"name": "Hero", "channelId": "web"}"#).await;
    for (name, priority) in [("A", 80), ("B", 70)] {
        let body = json!({"name": name, "status": "active", "category": "x", "priority": priority, "shortDesc": "s"});
        node.create("offers", &body.to_string()).await;
    }
    node
}

#[tokio::test]
async fn an_answer_has_every_field() {
    let node = shop().await;
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    assert_eq!(answer["interactionId"], answer["recommendationId"]);
    assert_eq!((&answer["customerId"], &answer["channel"], &answer["count"]), (&json!("c"), &json!("web"), &json!(2)));
    for member in ["decisionFlowKey", "decisionFlowVersion", "decisions", "meta"] {
        assert!(answer.get(member).is_some(), "{member}: {answer}");
    }
    let first = &answer["decisions"][0];
    for member in ["offerId", "offerName", "score", "rank", "priority", "personalization", "creativeId", "shortDesc"] {
        assert!(first.get(member).is_some(), "{member}: {first}");
    }
    for member in ["totalCandidates", "afterQualification", "afterSuppression", "afterContactPolicy", "degradedScoring"]
    {
        assert!(answer["meta"].get(member).is_some(), "{member}: {answer}");
    }
    assert_eq!(answer.get("slots"), None);
}

#[tokio::test]
async fn unknown_names_are_pointed_at() {
    let node = shop().await;
    let body = r#"{"customerId": "c", "channel": "fax", "placements": ["nowhere"], "decisionFlowKey": "none",
        "excludeOffers": ["A", "Z"], "arbitration": "optimal"}"#;
    let reply = node.call("POST", "/api/v1/recommend", body).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let mut pointers = reply.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/arbitration", "/channel", "/decisionFlowKey", "/excludeOffers/1", "/placements/0"]);
    assert_eq!(node.call("POST", "/api/v1/decisions", r#"{"customerId": "c"}"#).await.pointers(), ["/activities"]);
    let activities = r#"{"customerId": "c", "activities": ["x"]}"#;
    assert_eq!(node.call("POST", "/api/v1/recommend", activities).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn slots_are_answered_in_order_and_limited() {
    let node = shop().await;
    let body = r#"{"customerId": "c", "channel": "web", "placements": ["hero", {"placement": "hero", "limit": 2}]}"#;
    let answer = node.ok("POST", "/api/v1/recommend", body).await;
    let slots: Vec<_> = answer["slots"].as_array().unwrap().iter().map(|slot| slot["placement"].clone()).collect();
    assert_eq!(slots, [json!("hero"), json!("hero")]);
    let many = json!({"customerId": "c", "channel": "web", "placements": vec!["hero"; 31]}).to_string();
    assert_eq!(node.call("POST", "/api/v1/recommend", &many).await.pointers(), ["/placements"]);
}

async fn decide(node: &Node) -> (String, Value) {
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    (answer["recommendationId"].as_str().unwrap().to_owned(), answer)
}

#[tokio::test]
async fn an_outcome_is_recorded_by_rank_or_offer() {
    let node = shop().await;
    let (id, answer) = decide(&node).await;
    let by_rank =
        json!({"customerId": "c", "recommendationId": id, "rank": 1, "outcome": "impression", "idempotencyKey": "1"});
    assert_eq!(node.ok("POST", "/api/v1/respond", &by_rank.to_string()).await["recorded"], true);
    let offer = &answer["decisions"][1]["offerId"];
    let by_offer =
        json!({"customerId": "c", "recommendationId": id, "offerId": offer, "outcome": "click", "idempotencyKey": "2"});
    let recorded = node.ok("POST", "/api/v1/respond", &by_offer.to_string()).await;
    let expected = json!({"recorded": true, "duplicate": false, "late": false, "repeat": false, "overCap": false});
    assert_eq!(recorded, expected);
    let alone = json!({"customerId": "c", "offerId": "A", "outcome": "impression", "idempotencyKey": "3"});
    assert_eq!(node.ok("POST", "/api/v1/respond", &alone.to_string()).await["recorded"], true);
}

#[tokio::test]
async fn bad_outcomes_are_pointed_at() {
    let node = shop().await;
    let (id, _) = decide(&node).await;
    let respond = async |body: Value| node.call("POST", "/api/v1/respond", &body.to_string()).await;
    let base = json!({"customerId": "c", "recommendationId": id, "rank": 1, "outcome": "click", "idempotencyKey": "1"});
    let with = |changes: Value| {
        let mut body = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    for (changes, pointer) in [
        (json!({"idempotencyKey": null}), "/idempotencyKey"),
        (json!({"customerId": "d"}), "/recommendationId"),
        (json!({"recommendationId": "x"}), "/recommendationId"),
        (json!({"rank": 9}), "/rank"),
        (json!({"rank": 0}), "/rank"),
        (json!({"rank": null}), "/rank"),
        (json!({"offerId": "B"}), "/offerId"),
        (json!({"outcome": "nope"}), "/outcome"),
        (json!({"timestamp": "2099-01-01T00:00:00Z"}), "/timestamp"),
        (json!({"timestamp": "2001-01-01T00:00:00Z"}), "/timestamp"),
        (json!({"conversionValue": 1e10}), "/conversionValue"),
        (json!({"outcome": "opt_out", "outcomeDetails": {"scope": "world"}}), "/outcomeDetails/scope"),
    ] {
        let reply = respond(with(changes.clone())).await;
        assert_eq!((reply.status, reply.pointers()), (StatusCode::BAD_REQUEST, vec![pointer.to_owned()]), "{changes}");
    }
}

#[tokio::test]
async fn an_expired_recommendation_is_gone() {
    let node = shop().await;
    let (id, _) = decide(&node).await;
    node.clock.advance(std::time::Duration::from_secs(91 * 24 * 3_600));
    let body = json!({"customerId": "c", "recommendationId": id, "rank": 1, "outcome": "click", "idempotencyKey": "1"});
    let reply = node.call("POST", "/api/v1/respond", &body.to_string()).await;
    assert_eq!((reply.status, &reply.json()["type"]), (StatusCode::GONE, &json!("/problems/expired")));
}

#[tokio::test]
async fn unshown_units_are_given_back() {
    let node = shop().await;
    let (id, _) = decide(&node).await;
    let body = json!({"customerId": "c", "recommendationId": id, "ranks": [1]}).to_string();
    node.ok("POST", "/api/v1/release", &body).await;
    let wrong = json!({"customerId": "c", "recommendationId": id, "ranks": [1, 7]}).to_string();
    assert_eq!(node.call("POST", "/api/v1/release", &wrong).await.pointers(), ["/ranks/1"]);
}

#[tokio::test]
async fn a_simulation_cannot_be_responded_to() {
    let node = shop().await;
    let answer = node.ok("POST", "/api/v1/simulate", r#"{"customerId": "c", "channel": "web"}"#).await;
    assert_eq!((&answer["recommendationId"], &answer["count"]), (&Value::Null, &json!(2)));
}
