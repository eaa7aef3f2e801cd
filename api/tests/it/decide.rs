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
        "excludeOffers": ["A", "Z"]}"#;
    let reply = node.call("POST", "/api/v1/recommend", body).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let mut pointers = reply.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/channel", "/decisionFlowKey", "/excludeOffers/1", "/placements/0"]);
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

#[tokio::test]
async fn an_idempotency_key_counts_once_and_serves_one_body() {
    let node = shop().await;
    let (id, _) = decide(&node).await;
    let mut body =
        json!({"customerId": "c", "recommendationId": id, "rank": 1, "outcome": "click", "idempotencyKey": "1"});
    let first = node.ok("POST", "/api/v1/respond", &body.to_string()).await;
    let again = node.ok("POST", "/api/v1/respond", &body.to_string()).await;
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    body["rank"] = json!(2);
    let reply = node.call("POST", "/api/v1/respond", &body.to_string()).await;
    assert_eq!(
        (reply.status, &reply.json()["type"]),
        (StatusCode::CONFLICT, &json!("/problems/idempotency-key-reused"))
    );
}

async fn capped() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    let caps = json!([{"scope": "profile", "limit": 1, "per": "day"}]);
    let offer =
        json!({"name": "Rare", "status": "active", "category": "x", "caps": caps, "budget": {"maxImpressions": 10}});
    node.create("offers", &offer.to_string()).await;
    node
}

#[tokio::test]
async fn a_retried_decision_takes_nothing_twice() {
    let node = capped().await;
    let request = |key: &str| {
        let request =
            axum::http::Request::builder().method("POST").uri("/api/v1/recommend").header("X-API-Key", "admin-key");
        let body = r#"{"customerId": "c", "channel": "web"}"#;
        request.header("Idempotency-Key", key).body(axum::body::Body::from(body)).unwrap()
    };
    let first = node.send(request("a")).await.json();
    let again = node.send(request("a")).await;
    let other = node.send(request("b")).await.json();
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((&first["count"], &again.json(), &other["count"]), (&json!(1), &first, &json!(0)));
    assert!(first["decisions"][0]["expiresAt"].is_string());
}

#[tokio::test]
async fn released_units_can_be_taken_again_and_the_budget_shows_them() {
    let node = capped().await;
    let decide = async || node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c", "channel": "web"}"#).await;
    let first = decide().await;
    assert_eq!(decide().await["count"], 0, "the one unit of the day is held");
    let offer = first["decisions"][0]["offerId"].as_str().unwrap();
    let budget = node.ok("GET", &format!("/api/v1/offers/{offer}/budget"), "").await;
    assert_eq!((&budget["spent"], &budget["reserved"], &budget["limit"]), (&json!(0), &json!(1), &json!(10)));
    let release = json!({"customerId": "c", "recommendationId": first["recommendationId"]}).to_string();
    node.ok("POST", "/api/v1/release", &release).await;
    let second = decide().await;
    assert_eq!(second["count"], 1);
    let superseding =
        json!({"customerId": "c", "channel": "web", "supersedes": second["recommendationId"]}).to_string();
    let third = node.ok("POST", "/api/v1/recommend", &superseding).await;
    assert_eq!(third["count"], 1, "the superseded decision gave its unit back in the same turn");
    let shown = json!({"customerId": "c", "recommendationId": third["recommendationId"], "rank": 1,
        "outcome": "impression", "idempotencyKey": "1"});
    node.ok("POST", "/api/v1/respond", &shown.to_string()).await;
    assert_eq!(node.ok("GET", &format!("/api/v1/offers/{offer}/budget"), "").await["spent"], 1);
    let linearizable = format!("/api/v1/offers/{offer}/budget?consistency=linearizable");
    assert_eq!(node.ok("GET", &linearizable, "").await["spent"], 1);
    let refused = node.call("GET", &format!("/api/v1/offers/{offer}/budget?consistency=perfect"), "").await;
    assert_eq!((refused.status, refused.pointers()), (StatusCode::BAD_REQUEST, vec!["/query/consistency".to_owned()]));
    let delete = node.call("DELETE", &format!("/api/v1/offers/{offer}"), "").await;
    assert_eq!(delete.status, StatusCode::CONFLICT, "it has history");
}

#[tokio::test]
async fn an_activity_falls_back_and_says_so() {
    let node = shop().await;
    node.create("offers", r#"{"name": "Last", "kind": "fallback", "status": "active", "category": "x"}"#).await;
    let creative = r#"{"name": "L", "offerId": "Last", "channelId": "web", "status": "active", "content": {"t": 1}, "contentType": "json"}"#;
    node.create("creatives", creative).await;
    node.create("collections", r#"{"name": "None", "allOf": ["nothing"]}"#).await;
    let placement = node.ok("GET", "/api/v1/placements", "").await["items"][0]["id"].clone();
    let activity = json!({"name": "Top", "collectionId": "None", "placementId": placement, "fallbackOfferId": "Last"});
    node.create("activities", &activity.to_string()).await;
    let body = r#"{"customerId": "c", "activities": ["top"], "debug": true}"#;
    let answer = node.ok("POST", "/api/v1/decisions", body).await;
    let chosen = &answer["decisions"][0];
    assert_eq!(
        (&chosen["offerName"], &chosen["fallback"], &chosen["score"]),
        (&json!("Last"), &json!(true), &json!(0))
    );
    assert_eq!((&chosen["activity"], &chosen["placement"]), (&json!("top"), &json!("hero")));
    assert_eq!(chosen["creative"], json!({"contentType": "json", "content": {"t": 1}}));
    let slot = &answer["slots"][0];
    assert_eq!((&slot["activity"], &slot["fallback"], &slot["empty"]), (&json!("top"), &json!(true), &json!(null)));
    assert_eq!(slot["funnel"]["totalCandidates"], 0);
}

#[tokio::test]
async fn an_excluded_offer_is_gone_with_the_next_answer() {
    let node = shop().await;
    let (_, before) = decide(&node).await;
    let offer = before["decisions"][0]["offerId"].clone();
    let reply = node.call("PUT", "/api/v1/offers", &json!({"id": offer, "emergencyExcluded": true}).to_string()).await;
    assert_eq!(reply.status, StatusCode::OK);
    let (_, after) = decide(&node).await;
    assert_eq!(after["count"], 1);
    assert_ne!(after["decisions"][0]["offerId"], offer);
}

#[tokio::test]
async fn an_empty_list_says_why() {
    let node = shop().await;
    let body = r#"{"customerId": "c", "channel": "web"}"#;
    assert_eq!(node.ok("POST", "/api/v1/recommend", body).await["meta"].get("empty"), None);
    let channels = node.ok("GET", "/api/v1/channels", "").await;
    let path = format!("/api/v1/channels/{}", channels["items"][0]["id"].as_str().unwrap());
    node.ok("PUT", &path, r#"{"status": "paused"}"#).await;
    let answer = node.ok("POST", "/api/v1/recommend", body).await;
    assert_eq!((&answer["count"], &answer["meta"]["empty"]), (&json!(0), &json!("inactive")));
}

#[tokio::test]
async fn an_edit_names_caps_that_count_from_0_and_an_outcome_counts_once_though_its_profile_is_deleted() {
    let node = shop().await;
    let offers = node.ok("GET", "/api/v1/offers", "").await;
    let path = format!("/api/v1/offers/{}", offers["items"][0]["id"].as_str().unwrap());
    let caps = r#"{"caps": [{"key": "total", "scope": "global", "limit": 3, "enforcement": "soft"}]}"#;
    assert_eq!(node.ok("PUT", &path, caps).await["newCaps"], json!(["total"]));
    assert_eq!(node.ok("PUT", &path, caps).await.get("newCaps"), None);

    let offer = offers["items"][0]["id"].as_str().unwrap();
    let told = json!({"customerId": "c", "offerId": offer, "outcome": "impression", "idempotencyKey": "k"}).to_string();
    assert_eq!(node.ok("POST", "/api/v1/respond", &told).await["duplicate"], json!(false));
    assert_eq!(node.call("DELETE", "/api/v1/profiles/c", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.call("GET", "/api/v1/profiles/c", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.ok("POST", "/api/v1/respond", &told).await["duplicate"], json!(true));
    let budget = node.ok("GET", &format!("{path}/budget"), "").await;
    assert_eq!((&budget["spent"], &budget["pool"]), (&json!(1), &json!(2)), "{budget}");
}
