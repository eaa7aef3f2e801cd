//! Models over HTTP: made, named, asked, and replayed as they drew.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

/// Offers A (the higher priority) and B on `web`, ranked by P of the model of this type and config.
async fn shop(model_type: &str, config: Value) -> (Node, String) {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    for (name, priority) in [("A", 90), ("B", 10)] {
        let offer = json!({"name": name, "status": "active", "priority": priority});
        node.create("offers", &offer.to_string()).await;
    }
    let model = json!({"name": "Likely buyers", "modelType": model_type, "config": config});
    let model = node.create("algorithm-models", &model.to_string()).await;
    let flow = flow("likely-buyers");
    let id = node.create("decision-flows", &flow.to_string()).await;
    node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": id}).to_string()).await;
    node.ok("PUT", "/api/v1/settings", &json!({"defaultFlowKey": "likely"}).to_string()).await;
    (node, model)
}

fn flow(model: &str) -> Value {
    json!({"key": "likely", "name": "likely", "draftConfig": {"version": 2, "nodes": [
        {"id": "a", "type": "inventory", "phase": 1, "position": 0, "config": {}},
        {"id": "b", "type": "qualify", "phase": 1, "position": 1, "config": {}},
        {"id": "c", "type": "score", "phase": 2, "position": 2, "config": {"method": "propensity", "modelKey": model}}]}})
}

fn regression() -> Value {
    json!({"intercept": 1, "features": [
        {"expression": "customer.age", "coefficient": 0.5, "mean": 30, "scale": 10},
        {"expression": "offer.priority", "coefficient": -0.02}]})
}

async fn recommend(node: &Node, customer: &str) -> Value {
    let body = json!({"customerId": customer, "channel": "web", "explain": true, "trace": true});
    node.ok("POST", "/api/v1/recommend", &body.to_string()).await
}

/// Each decision's offer, score, P and what that rests on.
fn told(answer: &Value) -> Vec<Value> {
    let all = answer["decisions"].as_array().unwrap().iter();
    let told = all.map(|one| {
        let scores = &one["explanation"]["rankingScores"];
        json!([one["offerName"], one["score"], scores["propensity"], scores["propensitySource"]])
    });
    told.collect()
}

#[tokio::test]
async fn a_model_scores_is_explained_and_says_where_it_could_not() {
    let (node, id) = shop("logistic_regression", regression()).await;
    let shown = node.ok("GET", &format!("/api/v1/algorithm-models/{id}"), "").await;
    assert_eq!((&shown["key"], &shown["status"]), (&json!("likely-buyers"), &json!("active")));
    let second = json!({"expression": "offer.priority", "coefficient": -0.02, "mean": 0, "scale": 1, "missing": null});
    assert_eq!(shown["config"]["features"][1], second, "with every default");

    node.ok("PUT", "/api/v1/profiles/ann", r#"{"attributes": {"age": 40}}"#).await;
    let answer = recommend(&node, "ann").await;
    // 1 + 0.5 · 1 − 0.02 · 10, and − 0.02 · 90.
    let p = |z: f64| 1.0 / (1.0 + (-z).exp());
    let scores: Vec<f64> = told(&answer).iter().map(|one| one[2].as_f64().unwrap()).collect();
    assert!((scores[0] - p(1.3)).abs() < 1e-9 && (scores[1] - p(-0.3)).abs() < 1e-9, "{answer}");
    assert_eq!(told(&answer)[0], json!(["B", 0.785835, scores[0], "model"]));
    assert_eq!(answer["meta"]["degradedScoring"], json!(false));

    let answer = recommend(&node, "nobody").await;
    assert_eq!(told(&answer), [json!(["A", 0.5, 0.5, "default"]), json!(["B", 0.5, 0.5, "default"])]);
    assert_eq!(answer["meta"]["degradedScoring"], json!(true), "nobody's age is known");
    let replayed = json!({"trace": answer["meta"]["trace"]["record"]}).to_string();
    assert_eq!(node.ok("POST", "/api/v1/replay", &replayed).await["same"], json!(true));

    node.ok("PUT", &format!("/api/v1/algorithm-models/{id}"), r#"{"status": "paused"}"#).await;
    assert_eq!(recommend(&node, "ann").await["meta"]["degradedScoring"], json!(true), "it is not in force");
    let listed = node.ok("GET", "/api/v1/algorithm-models?status=paused", "").await;
    assert_eq!(listed["items"][0]["id"], json!(id));
}

#[tokio::test]
async fn what_a_bandit_drew_is_drawn_again_in_a_replay_and_anew_in_the_next_decision() {
    let (node, _) = shop("thompson_bandit", json!({})).await;
    let (mut first, mut scores) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..40 {
        let answer = recommend(&node, "ann").await;
        assert!(told(&answer).iter().all(|one| one[3] == json!("model")), "{answer}");
        first.insert(told(&answer)[0][0].to_string());
        scores.extend(told(&answer).iter().map(|one| one[1].to_string()));
        let replayed = json!({"trace": answer["meta"]["trace"]["record"]}).to_string();
        let replayed = node.ok("POST", "/api/v1/replay", &replayed).await;
        assert_eq!((&replayed["same"], &replayed["difference"]), (&json!(true), &Value::Null), "{replayed}");
    }
    assert_eq!(first.len(), 2, "either comes first at times");
    assert!(scores.len() > 70, "80 draws: {}", scores.len());
}

#[tokio::test]
async fn a_challenger_is_told_of_before_it_scores() {
    let (node, _) = shop("epsilon_greedy", json!({"epsilon": 0})).await;
    let constant = json!({"intercept": 0, "features": [{"expression": "1", "coefficient": 0}]});
    let new = json!({"name": "new", "modelType": "logistic_regression", "config": constant});
    node.create("algorithm-models", &new.to_string()).await;
    let both = json!({"name": "both", "modelType": "champion_challenger",
        "config": {"champion": "likely-buyers", "challenger": "new"}});
    let both = node.create("algorithm-models", &both.to_string()).await;
    let id = node.ok("GET", "/api/v1/decision-flows", "").await["items"][0]["id"].clone();
    let draft = json!({"draftConfig": flow("both")["draftConfig"]}).to_string();
    node.ok("PUT", &format!("/api/v1/decision-flows/{}", id.as_str().unwrap()), &draft).await;
    node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": id}).to_string()).await;
    let told = async || {
        let answer = recommend(&node, "ann").await;
        let scores = &answer["decisions"][0]["explanation"]["rankingScores"];
        json!([scores["model"], scores["propensitySource"], scores["shadow"]])
    };
    assert_eq!(told().await, json!(["likely-buyers", "default", {"model": "new", "propensity": 0.5}]));
    let all = json!({"config": {"champion": "likely-buyers", "challenger": "new", "percent": 100}});
    node.ok("PUT", &format!("/api/v1/algorithm-models/{both}"), &all.to_string()).await;
    assert_eq!(told().await, json!(["new", "model", {"model": "likely-buyers", "propensity": 0.5}]));
    let pause = r#"{"status": "paused"}"#;
    node.ok("PUT", &format!("/api/v1/algorithm-models/{both}"), pause).await;
    assert_eq!(told().await, json!(["both", "default", null]));
}

#[tokio::test]
async fn what_does_not_exist_or_is_named_is_refused_with_where_and_why() {
    let (node, model) = shop("logistic_regression", regression()).await;
    let refused = async |method: &str, path: &str, body: Value, status: StatusCode, pointer: &str| {
        let reply = node.call(method, &format!("/api/v1/{path}"), &body.to_string()).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.json()["errors"][0]["pointer"], json!(pointer), "{reply:?}");
        reply.json()["errors"][0]["detail"].to_string()
    };
    let online = json!({"name": "o", "modelType": "online_learner", "config": {}});
    let why = refused("POST", "algorithm-models", online, StatusCode::BAD_REQUEST, "/modelType").await;
    assert!(why.contains("not supported yet"), "{why}");
    let wrong = json!({"config": {"features": [{"expression": "customer.age + 'x'", "coefficient": 1}]}});
    let path = format!("algorithm-models/{model}");
    refused("PUT", &path, wrong, StatusCode::BAD_REQUEST, "/config/features/0/expression").await;
    let named = json!({"name": "C", "eligibility": {"modelReference": "nobody"}});
    refused("POST", "offers", named, StatusCode::BAD_REQUEST, "/eligibility/modelReference").await;
    let mut draft = flow("nobody");
    draft["key"] = json!("other");
    let id = node.create("decision-flows", &draft.to_string()).await;
    let publish = json!({"id": id});
    let pointer = "/draftConfig/nodes/2/config/modelKey";
    refused("POST", "decision-flows/publish", publish, StatusCode::BAD_REQUEST, pointer).await;
    let why = refused("DELETE", &path, Value::Null, StatusCode::CONFLICT, "").await;
    assert!(why.contains("scores by it"), "{why}");
}

#[tokio::test]
async fn models_are_imported_before_what_names_them() {
    let node = Node::start().await;
    let body = json!({
        "offers": [{"name": "A", "status": "active", "eligibility": {"propensityThreshold": 0.5, "modelReference": "m"}}],
        "algorithm-models": [{"name": "m", "modelType": "epsilon_greedy", "config": {"epsilon": 0}}],
    });
    node.ok("POST", "/api/v1/import", &body.to_string()).await;
    let answer = node.ok("POST", "/api/v1/recommend", r#"{"customerId": "c"}"#).await;
    assert_eq!(answer["decisions"][0]["offerName"], json!("A"));
}
