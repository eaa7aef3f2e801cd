//! Experiments through the router: who is enrolled, what counts, and what the result says of it.

use std::time::Duration;

use axum::http::StatusCode;
use proffer_engine::catalog::Role;
use serde_json::{Value, json};

use crate::node::Node;

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn flow(key: &str, experiment: &Value) -> Value {
    json!({"key": key, "name": key, "draftConfig": {"version": 2, "flowConfig": {"experiment": experiment}, "nodes": [
        {"id": "a", "type": "inventory", "phase": 1, "position": 0, "config": {}}]}})
}

async fn publish(node: &Node, key: &str, experiment: Value) -> String {
    let id = node.create("decision-flows", &flow(key, &experiment).to_string()).await;
    node.ok("POST", &format!("/api/v1/decision-flows/{id}/publish"), "").await;
    id
}

async fn edit(node: &Node, id: &str, key: &str, experiment: Value) {
    let draft = &flow(key, &experiment)["draftConfig"];
    node.ok("PUT", &format!("/api/v1/decision-flows/{id}"), &json!({"draftConfig": draft}).to_string()).await;
    node.ok("POST", &format!("/api/v1/decision-flows/{id}/publish"), "").await;
}

/// Offers A and B on `web`, and a flow that holds a quarter of the customers out.
async fn shop() -> (Node, String) {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    for (name, priority) in [("A", 90), ("B", 50)] {
        node.create("offers", &json!({"name": name, "status": "active", "priority": priority}).to_string()).await;
    }
    let flow = publish(&node, "spring", json!({"enabled": true, "holdoutPercent": 25, "windowDays": 7})).await;
    (node, flow)
}

async fn recommend(node: &Node, flow: &str, customer: &str) -> Value {
    let body = json!({"customerId": customer, "channel": "web", "decisionFlowKey": flow, "limit": 1});
    node.ok("POST", "/api/v1/recommend", &body.to_string()).await
}

fn is_control(answer: &Value) -> bool {
    answer["meta"]["experiment"]["arm"] == "control"
}

async fn respond(node: &Node, customer: &str, key: &str, more: Value) -> Value {
    let mut body = json!({"customerId": customer, "idempotencyKey": key});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.ok("POST", "/api/v1/respond", &body.to_string()).await
}

async fn results(node: &Node, key: &str) -> Value {
    node.ok("GET", &format!("/api/v1/experiments/{key}/results"), "").await
}

fn arm(results: &Value, arm: &str) -> [u64; 3] {
    ["customers", "converted", "moved"].map(|member| results["arms"][arm][member].as_u64().unwrap())
}

/// How the notes begin.
fn begins(results: &Value) -> Vec<&str> {
    let notes = results["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
    notes.map(|note| &note[..note.len().min(34)]).collect()
}

#[tokio::test]
async fn a_result_says_what_came_of_both_arms_and_how_sure_that_is() {
    let (node, _) = shop().await;
    let mut sums = [[0_u64, 0, 0]; 2];
    for number in 0..60_u64 {
        let customer = format!("c{number}");
        let answer = recommend(&node, "spring", &customer).await;
        let control = is_control(&answer);
        let sum = &mut sums[usize::from(control)];
        sum[0] += 1;
        // Asked again, nothing is new.
        assert_eq!(is_control(&recommend(&node, "spring", &customer).await), control);
        if number % 3 == 0 {
            // With the id of the decision, or without it; twice under one key, and once more under another.
            let about = if number % 2 == 0 {
                json!({"recommendationId": answer["recommendationId"], "offerId": "A", "outcome": "conversion", "conversionValue": 10})
            } else {
                json!({"offerId": "A", "outcome": "conversion", "conversionValue": 10})
            };
            respond(&node, &customer, "1", about.clone()).await;
            assert_eq!(respond(&node, &customer, "1", about.clone()).await["duplicate"], true);
            respond(&node, &customer, "2", about).await;
            sum[1] += 1;
            sum[2] += 20;
        }
        // What was not proposed counts for nothing, bad news for no conversion, and what an impression is said to have brought for nothing.
        respond(&node, &customer, "3", json!({"offerId": "B", "outcome": "conversion", "conversionValue": 999})).await;
        respond(&node, &customer, "4", json!({"offerId": "A", "outcome": "dismiss"})).await;
    }
    let [treated, held] = sums;
    assert!(treated[0] > 30 && held[0] > 5 && held[1] > 0, "{sums:?}");
    let found = results(&node, "spring").await;
    for (name, [customers, converted, revenue]) in [("treatment", treated), ("control", held)] {
        let arm = &found["arms"][name];
        assert_eq!(arm["customers"], json!(customers), "{found}");
        assert_eq!(
            (&arm["converted"], &arm["revenue"], &arm["moved"]),
            (&json!(converted), &json!(revenue), &json!(0))
        );
        let rate = converted as f64 / customers as f64;
        assert!((arm["rate"].as_f64().unwrap() - rate).abs() < 1e-11);
        let ends = ["lower", "upper"].map(|end| arm["rateInterval"][end].as_f64().unwrap());
        assert!(ends[0] < rate && rate < ends[1]);
    }
    let rate = |sum: [u64; 3]| sum[1] as f64 / sum[0] as f64;
    let lift = rate(treated) - rate(held);
    assert!((found["lift"]["absolute"].as_f64().unwrap() - lift).abs() < 1e-11);
    assert!((found["lift"]["relative"].as_f64().unwrap() - lift / rate(held)).abs() < 1e-10);
    let (test, sequential) = (&found["test"], &found["sequential"]);
    assert_eq!((&test["sequentialSafe"], &sequential["sequentialSafe"]), (&json!(false), &json!(true)));
    assert!(test["p"].as_f64().unwrap() > 0.0 && sequential["p"].as_f64().unwrap() >= test["p"].as_f64().unwrap());
    let revenue = &found["incrementalRevenuePerCustomer"];
    let value = treated[2] as f64 / treated[0] as f64 - held[2] as f64 / held[0] as f64;
    assert!((revenue["value"].as_f64().unwrap() - value).abs() < 1e-10);
    let ends = ["lower", "upper"].map(|end| revenue["interval"][end].as_f64().unwrap());
    assert!(((ends[0] + ends[1]) / 2.0 - value).abs() < 1e-9 && revenue["degreesOfFreedom"].as_f64().unwrap() >= 1.0);
    assert_eq!(
        (&found["complete"], &found["unreachableShards"], begins(&found)),
        (&json!(true), &json!([]), vec!["no_offers shows nothing to control", "outcomes of offers that were first"])
    );
    assert_eq!(
        found["flows"],
        json!([{"decisionFlowKey": "spring", "decisionFlowVersion": 1, "status": "active", "enabled": true,
            "holdoutPercent": 25, "controlGroupAction": "no_offers", "windowDays": 7}])
    );

    // By one outcome: also one that is not good.
    let dismissed = node.ok("GET", "/api/v1/experiments/spring/results?outcome=dismiss", "").await;
    assert_eq!((&dismissed["arms"]["control"]["rate"], &dismissed["outcome"]), (&json!(1), &json!("dismiss")));
    assert_eq!((&dismissed["test"], &dismissed["arms"]["control"]["revenue"]), (&Value::Null, &json!(0)), "all did");

    // All began with A; one who is proposed B later counts for A still.
    let begun = json!({"customerId": "c3", "channel": "web", "decisionFlowKey": "spring", "excludeOffers": ["A"]});
    node.ok("POST", "/api/v1/recommend", &begun.to_string()).await;
    let with_a = node.ok("GET", "/api/v1/experiments/spring/results?offerId=A", "").await;
    assert_eq!((&with_a["arms"], &with_a["lift"]), (&found["arms"], &found["lift"]));
    let a = node.ok("GET", "/api/v1/offers", "").await["items"][0]["id"].clone();
    assert_eq!((&with_a["offerId"], &found["offerId"]), (&a, &Value::Null));
    let with_b = node.ok("GET", "/api/v1/experiments/spring/results?offerId=B", "").await;
    assert_eq!((arm(&with_b, "treatment"), arm(&with_b, "control")), ([0; 3], [0; 3]));
}

#[tokio::test]
async fn outcomes_count_within_the_window_of_the_first_proposition_only() {
    let (node, _) = shop().await;
    for number in 0..40 {
        recommend(&node, "spring", &format!("c{number}")).await;
    }
    node.clock.advance(6 * DAY);
    respond(&node, "c1", "1", json!({"offerId": "A", "outcome": "click"})).await;
    for number in 0..40 {
        recommend(&node, "spring", &format!("c{number}")).await;
    }
    node.clock.advance(DAY);
    for number in 0..40 {
        respond(&node, &format!("c{number}"), "2", json!({"offerId": "A", "outcome": "click"})).await;
    }
    let found = results(&node, "spring").await;
    assert_eq!(arm(&found, "treatment")[1] + arm(&found, "control")[1], 1, "{found}");
}

#[tokio::test]
async fn what_takes_no_part_is_not_enrolled_and_a_deleted_profile_is_not_counted() {
    let (node, _) = shop().await;
    let simulated = json!({"customerId": "dry", "channel": "web", "decisionFlowKey": "spring"}).to_string();
    node.ok("POST", "/api/v1/simulate", &simulated).await;
    node.ok("GET", "/api/v1/why-not?customerId=dry&offerId=A&channel=web&decisionFlowKey=spring", "").await;
    // Nothing to propose: nobody would have been treated.
    let nothing =
        json!({"customerId": "none", "channel": "web", "decisionFlowKey": "spring", "excludeOffers": ["A", "B"]});
    node.ok("POST", "/api/v1/recommend", &nothing.to_string()).await;
    respond(&node, "alone", "1", json!({"offerId": "A", "outcome": "click"})).await;
    let empty = results(&node, "spring").await;
    assert_eq!((arm(&empty, "treatment"), arm(&empty, "control")), ([0; 3], [0; 3]));
    for member in ["test", "sequential", "incrementalRevenuePerCustomer"] {
        assert_eq!(empty[member], Value::Null, "{member}");
    }
    assert_eq!(
        (&empty["lift"], &empty["arms"]["control"]["rate"]),
        (&json!({"absolute": null, "relative": null}), &Value::Null)
    );
    assert_eq!(empty["notes"].as_array().unwrap().len(), 2, "{empty}");
    let treated = loop_until(&node, false).await;
    assert_eq!(results(&node, "spring").await["arms"]["treatment"]["customers"], json!(1));
    node.ok("DELETE", &format!("/api/v1/profiles/{treated}"), "").await;
    assert_eq!(results(&node, "spring").await["arms"]["treatment"]["customers"], json!(0));
}

/// A customer of that arm who was proposed something, and nobody of the other one: others are deleted.
async fn loop_until(node: &Node, control: bool) -> String {
    for number in 0..200 {
        let customer = format!("d{number}");
        if is_control(&recommend(node, "spring", &customer).await) == control {
            return customer;
        }
        node.ok("DELETE", &format!("/api/v1/profiles/{customer}"), "").await;
    }
    panic!("both arms have customers");
}

#[tokio::test]
async fn editing_a_flow_keeps_the_experiment_while_its_key_stays_and_flows_may_share_it() {
    let (node, id) = shop().await;
    for number in 0..60 {
        recommend(&node, "spring", &format!("c{number}")).await;
    }
    let before = results(&node, "spring").await;
    let (treated, held) = (arm(&before, "treatment")[0], arm(&before, "control")[0]);
    // A larger share is held out: who was treated and is not any more counts where they began.
    edit(&node, &id, "spring", json!({"enabled": true, "holdoutPercent": 60, "windowDays": 7})).await;
    let mut moved = 0;
    for number in 0..60 {
        moved += u64::from(is_control(&recommend(&node, "spring", &format!("c{number}")).await));
    }
    let found = results(&node, "spring").await;
    assert_eq!((arm(&found, "treatment"), arm(&found, "control")), ([treated, 0, moved - held], [held, 0, 0]));
    assert!(begins(&found)[0].starts_with("some customers were found"), "{found}");

    // Another flow with the key is the same experiment.
    publish(&node, "other", json!({"enabled": true, "key": "spring", "holdoutPercent": 60, "windowDays": 7})).await;
    recommend(&node, "other", "c1").await;
    recommend(&node, "other", "new").await;
    let shared = results(&node, "spring").await;
    assert_eq!(arm(&shared, "treatment")[0] + arm(&shared, "control")[0], 61);
    assert_eq!(shared["flows"].as_array().unwrap().len(), 2);
    assert_eq!(node.call("GET", "/api/v1/experiments/other/results", "").await.status, StatusCode::NOT_FOUND);

    // Turned off nobody joins, outcomes of open windows go on counting, and the result stays.
    edit(&node, &id, "spring", json!({"enabled": false, "holdoutPercent": 60, "windowDays": 7})).await;
    assert_eq!(recommend(&node, "spring", "later").await["meta"]["experiment"], Value::Null);
    respond(&node, "c1", "1", json!({"offerId": "A", "outcome": "share"})).await;
    let off = results(&node, "spring").await;
    let sum = |index: usize| arm(&off, "treatment")[index] + arm(&off, "control")[index];
    assert_eq!((sum(0), sum(1)), (61, 1));

    // With another key it is another experiment; of the old one only what was counted is left.
    edit(&node, &id, "spring", json!({"enabled": true, "key": "autumn", "holdoutPercent": 10})).await;
    assert_eq!(arm(&results(&node, "autumn").await, "treatment"), [0; 3]);
    assert_eq!(results(&node, "spring").await["arms"], off["arms"]);
}

#[tokio::test]
async fn by_priority_alone_both_arms_are_proposed_something_and_enrolled() {
    let (node, _) = shop().await;
    let experiment = json!({"enabled": true, "holdoutPercent": 50, "controlGroupAction": "priority_only"});
    publish(&node, "simple", experiment).await;
    let mut held = 0;
    for number in 0..30 {
        let answer = recommend(&node, "simple", &format!("c{number}")).await;
        assert_eq!(answer["count"], 1);
        held += u64::from(is_control(&answer));
        respond(
            &node,
            &format!("c{number}"),
            "1",
            json!({"recommendationId": answer["recommendationId"], "rank": 1, "outcome": "click"}),
        )
        .await;
    }
    let found = results(&node, "simple").await;
    assert_eq!((arm(&found, "treatment"), arm(&found, "control")), ([30 - held, 30 - held, 0], [held, held, 0]));
    assert_eq!(begins(&found), ["outcomes of offers that were first"], "both arms are shown something");
    let by_offer = node.ok("GET", "/api/v1/experiments/simple/results?offerId=A", "").await;
    assert_eq!(by_offer["notes"].as_array().unwrap().len(), 1, "the arms choose differently: {by_offer}");
    assert_eq!(arm(&results(&node, "spring").await, "control"), [0; 3]);
}

#[tokio::test]
async fn who_may_read_gets_the_result_and_what_does_not_exist_is_told() {
    let (node, _) = shop().await;
    let path = "/api/v1/experiments/spring/results";
    assert_eq!(node.call_as(Role::Viewer, "GET", path, "").await.status, StatusCode::OK);
    assert_eq!(node.call_as(Role::Channel, "GET", path, "").await.status, StatusCode::FORBIDDEN);
    assert_eq!(node.call("GET", "/api/v1/experiments/nothing/results", "").await.status, StatusCode::NOT_FOUND);
    for (query, pointer) in [
        ("outcome=bought", "/query/outcome"),
        ("outcome=impression", "/query/outcome"),
        ("offerId=none", "/query/offerId"),
        ("arm=1", "/query/arm"),
    ] {
        let reply = node.call("GET", &format!("{path}?{query}"), "").await;
        assert_eq!((reply.status, reply.pointers()), (StatusCode::BAD_REQUEST, vec![pointer.to_owned()]));
    }
}
