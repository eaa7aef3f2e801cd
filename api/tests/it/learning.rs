//! Learning: what came of propositions ranks the next ones, is shown, explained, and replayed as it was.

use std::time::Duration;

use axum::http::StatusCode;
use proffer_engine::catalog::Role;
use serde_json::{Value, json};

use crate::node::Node;

/// Offers A (the higher priority), B and C in a category, on `web`, ranked by P.
async fn shop() -> (Node, Vec<String>) {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    let mut offers = Vec::new();
    for (name, priority) in [("A", 90), ("B", 50), ("C", 10)] {
        let offer = json!({"name": name, "status": "active", "category": "x", "priority": priority});
        offers.push(node.create("offers", &offer.to_string()).await);
    }
    let flow = json!({"key": "likely", "name": "likely", "draftConfig": {"version": 2, "flowConfig": {}, "nodes": [
        {"id": "a", "type": "inventory", "phase": 1, "position": 0, "config": {}},
        {"id": "b", "type": "qualify", "phase": 1, "position": 1, "config": {}},
        {"id": "c", "type": "score", "phase": 2, "position": 2, "config": {"method": "propensity"}}]}});
    let id = node.create("decision-flows", &flow.to_string()).await;
    node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": id}).to_string()).await;
    node.ok("PUT", "/api/v1/settings", &json!({"defaultFlowKey": "likely"}).to_string()).await;
    (node, offers)
}

async fn recommend(node: &Node, path: &str, customer: &str, more: Value) -> Value {
    let mut body = json!({"customerId": customer, "channel": "web"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.ok("POST", path, &body.to_string()).await
}

fn names(answer: &Value) -> Vec<&str> {
    answer["decisions"].as_array().unwrap().iter().map(|chosen| chosen["offerName"].as_str().unwrap()).collect()
}

/// A customer is proposed A and B, sees the one and clicks on the other; both ranks in one decision.
async fn go_by(node: &Node, customer: &str) {
    let answer = recommend(node, "/api/v1/recommend", customer, json!({"excludeOffers": ["C"]})).await;
    for (name, outcome) in [("A", "impression"), ("B", "click"), ("B", "conversion"), ("B", "impression")] {
        let body = json!({"customerId": customer, "recommendationId": answer["recommendationId"], "offerId": name,
            "outcome": outcome, "idempotencyKey": format!("{name} {outcome}")});
        node.ok("POST", "/api/v1/respond", &body.to_string()).await;
    }
}

async fn propensity(node: &Node, offer: &str) -> Value {
    node.ok("GET", &format!("/api/v1/offers/{offer}/propensity"), "").await
}

/// Waits until decisions know of so many propositions.
async fn learned(node: &Node, offer: &str, shown: u64) {
    for _ in 0..250 {
        if propensity(node, offer).await["global"]["shown"] == json!(shown) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not known within five seconds: {}", propensity(node, offer).await);
}

#[tokio::test]
async fn what_came_of_propositions_ranks_the_next_is_shown_and_explained_and_replays_as_it_was() {
    let (node, offers) = shop().await;
    let before = recommend(&node, "/api/v1/recommend", "new", json!({"trace": true, "explain": true})).await;
    assert_eq!(names(&before), ["A", "B", "C"], "nothing is known: by priority");
    let scores = |answer: &Value| -> Vec<Value> {
        let all = answer["decisions"].as_array().unwrap().iter();
        all.map(|one| {
            let scores = &one["explanation"]["rankingScores"];
            json!([one["score"], scores["propensity"], scores["propensitySource"]])
        })
        .collect()
    };
    assert_eq!(scores(&before), vec![json!([0.5, 0.5, "default"]); 3]);
    let nobody = json!({"shown": 0, "positive": 0});
    let expected = json!({"offerId": offers[0], "propensity": 0.5, "propensitySource": "default", "offer": nobody,
        "category": nobody, "global": nobody});
    assert_eq!(propensity(&node, &offers[0]).await, expected);

    for customer in 0..12 {
        go_by(&node, &format!("c{customer}")).await;
    }
    learned(&node, &offers[0], 24).await;
    // All: (12 + 5) / 34, the category: (12 + 5) / 34, A: (0 + 5) / 22, B: (12 + 5) / 22: clicks imply impressions, which count once.
    let counted = |shown, positive| json!({"shown": shown, "positive": positive});
    let expected = json!({"offerId": offers[1], "propensity": 0.772_727_272_727, "propensitySource": "offer",
        "offer": counted(12, 12), "category": counted(24, 12), "global": counted(24, 12)});
    assert_eq!(propensity(&node, &offers[1]).await, expected);
    for path in ["/api/v1/recommend", "/api/v1/simulate"] {
        let after = recommend(&node, path, "newer", json!({"explain": true})).await;
        assert_eq!(names(&after), ["B", "C", "A"], "{path}");
        let expected = [
            json!([0.772_727, 0.772_727_272_727, "offer"]),
            json!([0.5, 0.5, "category"]),
            json!([0.227_273, 0.227_272_727_273, "offer"]),
        ];
        assert_eq!(scores(&after), expected, "{path}");
    }

    // A rule and an offer's own threshold compare with it.
    let update = json!({"eligibility": {"propensityThreshold": 0.6}}).to_string();
    node.ok("PUT", &format!("/api/v1/offers/{}", offers[2]), &update).await;
    let rule = json!({"name": "likely", "ruleType": "propensity_threshold", "scope": "global", "stage": "eligibility",
        "config": {"minPropensity": 0.3}});
    let rule = node.create("qualification-rules", &rule.to_string()).await;
    let choosy = recommend(&node, "/api/v1/recommend", "newest", json!({"trace": true})).await;
    assert_eq!(names(&choosy), ["B"]);

    // More is learned; what was decided is decided again as it was.
    let mut proposed = Vec::new();
    for customer in 12..40 {
        proposed.push((customer, recommend(&node, "/api/v1/recommend", &format!("c{customer}"), json!({})).await));
    }
    for (customer, answer) in proposed {
        let body = json!({"customerId": format!("c{customer}"), "recommendationId": answer["recommendationId"],
            "rank": 1, "outcome": "impression", "idempotencyKey": "1"});
        node.ok("POST", "/api/v1/respond", &body.to_string()).await;
    }
    learned(&node, &offers[0], 52).await;
    // All: 17 / 62, the category: (12 + 10 · that) / 62, B: (12 + 10 · that) / 50, which is less than 0.3.
    assert_eq!(names(&recommend(&node, "/api/v1/recommend", "last", json!({})).await), Vec::<&str>::new());
    for (answer, offers) in [(&before, ["A", "B", "C"].as_slice()), (&choosy, &["B"])] {
        let body = json!({"trace": answer["meta"]["trace"]["record"]}).to_string();
        let again = node.ok("POST", "/api/v1/replay", &body).await;
        assert_eq!((&again["same"], &again["recorded"]), (&json!(true), &again["replayed"]), "{again}");
        assert_eq!(again["offers"].as_array().unwrap().len(), offers.len());
    }
    // What if that rule had not been: by what was known then.
    let body = json!({"traces": [choosy["meta"]["trace"]["record"]],
        "changes": [{"kind": "qualification-rules", "id": rule, "set": {"status": "paused"}}]});
    let moved = node.ok("POST", "/api/v1/what-if", &body.to_string()).await;
    assert_eq!((&moved["before"]["propositions"], &moved["after"]["propositions"]), (&json!(1), &json!(2)), "{moved}");
}

#[tokio::test]
async fn mandatory_propositions_dry_runs_and_outcomes_of_no_proposition_are_no_evidence() {
    let (node, offers) = shop().await;
    let governed = json!({"name": "M", "status": "active", "mandatory": true, "mandatoryReason": "law",
        "mandatoryApprovedBy": "jane", "mandatoryExpiresAt": "2030-01-01"});
    node.create("offers", &governed.to_string()).await;
    let simulated = recommend(&node, "/api/v1/simulate", "c", json!({"limit": 1})).await;
    assert_eq!(names(&simulated), ["M"]);
    let answer = recommend(&node, "/api/v1/recommend", "c", json!({"limit": 2})).await;
    assert_eq!(names(&answer), ["M", "A"]);
    let respond = async |body: Value| node.ok("POST", "/api/v1/respond", &body.to_string()).await;
    respond(json!({"customerId": "c", "recommendationId": answer["recommendationId"], "rank": 1, "outcome": "click",
        "idempotencyKey": "1"}))
    .await;
    respond(json!({"customerId": "c", "offerId": "B", "outcome": "click", "idempotencyKey": "2"})).await;
    respond(json!({"customerId": "c", "recommendationId": answer["recommendationId"], "rank": 2, "outcome": "click",
        "idempotencyKey": "3"}))
    .await;
    learned(&node, &offers[0], 1).await;
    let found = propensity(&node, &offers[0]).await;
    assert_eq!(
        (&found["global"], &found["offer"]),
        (&json!({"shown": 1, "positive": 1}), &json!({"shown": 1, "positive": 1}))
    );
}

#[tokio::test]
async fn the_propensity_of_an_offer_is_shown_to_who_may_read_and_of_nothing_else() {
    let (node, offers) = shop().await;
    let path = format!("/api/v1/offers/{}/propensity", offers[0]);
    assert_eq!(node.call_as(Role::Viewer, "GET", &path, "").await.status, StatusCode::OK);
    assert_eq!(node.call_as(Role::Channel, "GET", &path, "").await.status, StatusCode::FORBIDDEN);
    assert_eq!(node.call("GET", "/api/v1/offers/nothing/propensity", "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.call("GET", &format!("{path}?at=1"), "").await.status, StatusCode::BAD_REQUEST);
}
