//! Traces: what was decided is decided again to the same bytes, whatever the catalogue has become.

use axum::http::StatusCode;
use proffer_engine::catalog::Role;
use serde_json::{Value, json};

use crate::node::Node;

/// Offers with caps, a metric, rules, a policy and a flow with a filter: what decisions here read.
async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("channels", r#"{"name": "kiosk", "impressionMode": "implicit"}"#).await;
    node.create(
        "behavioral-metrics",
        r#"{"name": "views", "events": ["view"], "groupBy": ["offer"], "per": {"hours": 24}}"#,
    )
    .await;
    for number in 0..8 {
        let caps = json!([{"scope": "profile", "limit": 2, "per": "day"},
            {"scope": "global", "limit": 4, "per": "lifetime", "countOn": "decision"}]);
        let offer = json!({"name": format!("O{number}"), "status": "active", "category": "x", "priority": 90 - number,
            "caps": if number % 2 == 0 { caps } else { json!([]) }});
        node.create("offers", &offer.to_string()).await;
    }
    let rule = json!({"name": "old", "ruleType": "expression", "scope": "offer", "scopeId": "O3",
        "config": {"expression": "customer.age > 30 && metric.views < 2"}});
    node.create("qualification-rules", &rule.to_string()).await;
    let policy = json!({"name": "often", "ruleType": "frequency_cap", "scope": "offer", "scopeId": "O1", "config": {"maxPerDay": 1}});
    node.create("contact-policies", &policy.to_string()).await;
    node
}

async fn replay(node: &Node, record: &Value) -> Value {
    assert!(record.is_string(), "{record}");
    node.ok("POST", "/api/v1/replay", &json!({"trace": record}).to_string()).await
}

#[tokio::test]
async fn every_decision_of_a_mixed_run_replays_to_the_same_bytes_also_after_the_catalogue_changed() {
    let node = shop().await;
    let mut records = Vec::new();
    for turn in 0..60_u32 {
        let customer = format!("c{}", turn % 7);
        match turn % 5 {
            0 => {
                let body = json!({"attributes": {"age": 20 + turn, "name": "n"}, "segments": ["s", "vip"]});
                node.ok("PUT", &format!("/api/v1/profiles/{customer}"), &body.to_string()).await;
            }
            1 => {
                let event = json!({"customerId": customer, "type": "view", "offerId": format!("O{}", turn % 8), "idempotencyKey": turn.to_string()});
                node.ok("POST", "/api/v1/events", &event.to_string()).await;
            }
            _ => {}
        }
        let channel = if turn % 3 == 0 { "kiosk" } else { "web" };
        let body = json!({"customerId": customer, "channel": channel, "trace": true, "explain": turn % 4 == 0,
            "segments": ["young"], "context": {"turn": turn}, "limit": 1 + turn % 4});
        let path = if turn % 6 == 5 { "/api/v1/simulate" } else { "/api/v1/recommend" };
        let answer = node.ok("POST", path, &body.to_string()).await;
        let offers: Vec<String> = answer["decisions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["offerId"].as_str().unwrap().to_owned())
            .collect();
        records.push((answer["meta"]["trace"]["record"].clone(), offers));
        if let Some(first) = answer["decisions"].get(0).filter(|_| path.ends_with("recommend")) {
            let respond = json!({"customerId": customer, "recommendationId": answer["recommendationId"], "rank": first["rank"],
                "outcome": if turn % 2 == 0 { "impression" } else { "click" }, "idempotencyKey": format!("r{turn}")});
            node.ok("POST", "/api/v1/respond", &respond.to_string()).await;
        }
    }
    for change in 0..3 {
        for (record, offers) in &records {
            let again = replay(&node, record).await;
            assert_eq!(again["same"], json!(true), "{again}");
            assert_eq!(again["recorded"], again["replayed"]);
            assert_eq!(again["offers"], json!(offers));
        }
        let offer = json!({"name": format!("New{change}"), "status": "active", "category": "x", "priority": 100});
        node.create("offers", &offer.to_string()).await;
        node.ok("DELETE", "/api/v1/profiles/c1", "").await;
    }
    // In the end the catalogue of then is no longer kept.
    for change in 0..20 {
        node.ok("PUT", "/api/v1/settings", &json!({"mandatoryPerDay": change}).to_string()).await;
    }
    let reply = node.call("POST", "/api/v1/replay", &json!({"trace": records[0].0}).to_string()).await;
    assert_eq!(reply.status, StatusCode::CONFLICT, "{reply:?}");
}

#[tokio::test]
async fn what_if_tells_how_decisions_would_move_and_nothing_is_counted_or_written() {
    let node = shop().await;
    let mut records = Vec::new();
    for turn in 0..12 {
        let customer = format!("c{}", turn % 4);
        let body = json!({"customerId": customer, "channel": "web", "limit": 2, "trace": true});
        let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
        records.push(answer["meta"]["trace"]["record"].clone());
        let event =
            json!({"customerId": customer, "type": "view", "offerId": "O3", "idempotencyKey": turn.to_string()});
        node.ok("POST", "/api/v1/events", &event.to_string()).await;
    }
    let before = node.stored().await;
    let ask = async |changes: Value| {
        let body = json!({"traces": records, "changes": changes});
        node.ok("POST", "/api/v1/what-if", &body.to_string()).await
    };
    let same = ask(json!([])).await;
    assert_eq!((&same["decisions"], &same["changed"]), (&json!(12), &json!(0)), "{same}");
    assert_eq!(same["before"], same["after"]);
    let offers = node.ok("GET", "/api/v1/offers", "").await;
    let id = |name: &str| {
        let found = offers["items"].as_array().unwrap().iter().find(|offer| offer["name"] == name);
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    // The best two are O0, which has caps, and O1.
    let paused = ask(json!([{"kind": "offers", "id": id("O1"), "set": {"status": "paused"}}])).await;
    assert_eq!(paused["changed"], json!(12), "{paused}");
    let times = |answer: &Value, name: &str| {
        let found = answer["offers"].as_array().unwrap().iter().find(|moved| moved["offerId"] == id(name)).cloned();
        found.map_or((0, 0), |moved| (moved["before"].as_u64().unwrap(), moved["after"].as_u64().unwrap()))
    };
    assert_eq!(times(&paused, "O1"), (12, 0));
    assert_eq!(paused["after"]["propositions"], paused["before"]["propositions"]);
    let better = json!({"name": "Best", "status": "active", "category": "x", "priority": 100, "revenueValue": 5});
    let created = ask(json!([{"kind": "offers", "set": better}])).await;
    assert_eq!((&created["before"]["revenue"], &created["after"]["revenue"]), (&json!(0), &json!(60)), "{created}");
    let policy = json!({"name": "none", "ruleType": "metric_condition", "config": {"metric": "views", "operator": "gte", "value": 0}});
    let barred = ask(json!([{"kind": "contact-policies", "set": policy}])).await;
    assert_eq!(
        (&barred["after"]["filled"], &barred["after"]["afterContactPolicy"]),
        (&json!(0), &json!(0)),
        "{barred}"
    );
    let flow = json!({"key": "few", "name": "few", "draftConfig": {"version": 2, "nodes": [
        {"id": "i", "type": "inventory", "phase": 1, "position": 0, "config": {"scope": "manual", "offerIds": [id("O7")]}}]}});
    let drafted = ask(json!([{"kind": "decision-flows", "set": flow, "publish": true}])).await;
    assert_eq!(drafted["changed"], json!(0), "nobody is sent to it: {drafted}");

    for (body, pointer) in [
        (json!({"changes": [{"kind": "ghosts", "set": {}}]}), "/changes/0/kind"),
        (json!({"changes": [{"kind": "offers"}]}), "/changes/0/id"),
        (json!({"changes": [{"kind": "offers", "id": "x"}]}), "/changes/0/set"),
        (json!({"changes": [], "traces": ["x"]}), "/traces/0"),
        (json!({"changes": [{"kind": "offers", "set": {"name": "B", "priority": 101}}]}), "/priority"),
    ] {
        let reply = node.call("POST", "/api/v1/what-if", &body.to_string()).await;
        assert_eq!((reply.status, reply.pointers()), (StatusCode::BAD_REQUEST, vec![pointer.to_owned()]), "{body}");
    }
    for record in &records {
        assert_eq!(replay(&node, record).await["same"], json!(true));
    }
    for customer in ["c0", "c1", "new"] {
        let body = json!({"customerId": customer, "channel": "kiosk", "trace": true, "explain": true});
        node.ok("POST", "/api/v1/simulate", &body.to_string()).await;
        node.ok("GET", &format!("/api/v1/why-not?customerId={customer}&channel=web&offerId=O1"), "").await;
    }
    assert!(node.stored().await == before, "a counter moved");
}

#[tokio::test]
async fn a_trace_that_was_altered_or_made_up_is_refused() {
    let node = shop().await;
    let answer = node.ok("POST", "/api/v1/recommend?trace=true", r#"{"customerId": "c", "channel": "web"}"#).await;
    let record = answer["meta"]["trace"]["record"].as_str().unwrap().to_owned();
    let mut altered = record.clone().into_bytes();
    altered[40] = if altered[40] == b'A' { b'B' } else { b'A' };
    for text in
        [String::from_utf8(altered).unwrap(), record[..record.len() - 4].to_owned(), String::new(), "?".to_owned()]
    {
        let reply = node.call("POST", "/api/v1/replay", &json!({"trace": text}).to_string()).await;
        assert_eq!((reply.status, reply.pointers()), (StatusCode::BAD_REQUEST, vec!["/trace".to_owned()]), "{text}");
    }
    assert_eq!(replay(&node, &json!(record)).await["same"], json!(true));
    let channel = node.call_as(Role::Channel, "POST", "/api/v1/replay", &json!({"trace": record}).to_string()).await;
    assert_eq!(channel.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn sampled_decisions_are_kept_on_the_node_and_answers_do_not_show_it() {
    let node = shop().await;
    node.ok("PUT", "/api/v1/settings", r#"{"tracePercent": 100}"#).await;
    let faulty = node.call("PUT", "/api/v1/settings", r#"{"tracePercent": 101}"#).await;
    assert_eq!(faulty.pointers(), ["/tracePercent"]);
    for customer in ["a", "b"] {
        let body = json!({"customerId": customer, "channel": "web"});
        let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
        assert_eq!(answer["meta"].get("trace").filter(|trace| !trace.is_null()), None);
    }
    let list = node.ok("GET", "/api/v1/traces", "").await;
    let customers: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|one| one["customerId"].as_str().unwrap()).collect();
    assert_eq!(customers, ["b", "a"], "newest first");
    let id = list["items"][1]["id"].as_str().unwrap();
    let kept = node.ok("GET", &format!("/api/v1/traces/{id}"), "").await;
    let again = replay(&node, &kept["trace"]).await;
    assert_eq!((&again["same"], &again["customerId"]), (&json!(true), &json!("a")));
    assert_eq!(node.call("GET", "/api/v1/traces/none", "").await.status, StatusCode::NOT_FOUND);
}
