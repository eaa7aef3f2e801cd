//! What flows, guardrails and arbitration do to an answer, and why an offer is not in it.

use axum::http::StatusCode;
use proffer_engine::catalog::Role;
use serde_json::{Value, json};

use crate::node::Node;

/// Two placements on one channel, and two offers with content for both: A is better everywhere, B nearly nothing at the side.
async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    for name in ["Hero", "Side"] {
        node.create("placements", &json!({"name": name, "channelId": "web"}).to_string()).await;
    }
    for (name, priority, weights) in [("A", 80, [100, 100]), ("B", 70, [90, 10])] {
        let offer =
            json!({"name": name, "status": "active", "category": "x", "priority": priority, "margin": priority});
        node.create("offers", &offer.to_string()).await;
        for (placement, weight) in ["Hero", "Side"].iter().zip(weights) {
            let creative = json!({"name": format!("{name} {placement}"), "offerId": name, "channelId": "web",
                "placementId": placement, "contentType": "text", "content": "…", "status": "active", "weight": weight});
            node.create("creatives", &creative.to_string()).await;
        }
    }
    node
}

async fn publish(node: &Node, key: &str, nodes: Value) {
    let mut all = vec![json!({"id": "inv", "type": "inventory", "phase": 1, "position": 0})];
    all.extend(nodes.as_array().unwrap().iter().cloned());
    let flow = json!({"key": key, "name": key, "draftConfig": {"version": 2, "nodes": all}});
    let id = node.create("decision-flows", &flow.to_string()).await;
    node.ok("POST", &format!("/api/v1/decision-flows/{id}/publish"), "").await;
}

async fn names(node: &Node, more: Value) -> Vec<String> {
    let mut body = json!({"customerId": "c", "channel": "web", "placements": ["hero", "side"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
    let decisions = answer["decisions"].as_array().unwrap();
    decisions.iter().map(|decision| decision["offerName"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn arbitration_is_asked_for_by_the_request_else_by_the_flow() {
    let node = shop().await;
    assert_eq!(names(&node, json!({})).await, ["A", "B"]);
    assert_eq!(names(&node, json!({"arbitration": "optimal"})).await, ["B", "A"]);
    let group = json!([{"id": "g", "type": "group", "phase": 2, "position": 1, "config": {"arbitration": "optimal"}}]);
    publish(&node, "shared", group).await;
    assert_eq!(names(&node, json!({"decisionFlowKey": "shared"})).await, ["B", "A"]);
    assert_eq!(names(&node, json!({"decisionFlowKey": "shared", "arbitration": "greedy"})).await, ["A", "B"]);
    assert_eq!(names(&node, json!({"arbitration": "optimal", "limit": 1})).await, ["A"]);
}

#[tokio::test]
async fn flows_set_properties_and_weigh_aims() {
    let node = shop().await;
    let set = json!({"worth": "offer.margin / 3", "dear": "concat('Dear ', coalesce(customer.name, 'customer'))", "no": "1 / 0"});
    let nodes = json!([
        {"id": "o", "type": "optimize", "phase": 2, "position": 1, "config": {"objectives": {"score": 0.5, "margin": 0.5}}},
        {"id": "s", "type": "set_properties", "phase": 3, "position": 2, "config": {"set": set}}]);
    publish(&node, "rich", nodes).await;
    let body = json!({"customerId": "c", "channel": "web", "decisionFlowKey": "rich", "explain": true});
    let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
    let second = &answer["decisions"][1];
    assert_eq!(second["properties"], json!({"worth": 23.3333333333, "dear": "Dear customer", "no": null}), "{answer}");
    // B's creative that is picked weighs 90 or 10; half the score, half 70/80.
    let optimized = second["explanation"]["rankingScores"]["optimized"].as_f64().unwrap();
    let expected = [90.0, 10.0].map(|weight| 0.5 * 0.7 * weight / 100.0 + 0.5 * 70.0 / 80.0);
    assert!(expected.iter().any(|expected| (optimized - expected).abs() < 1e-9), "{optimized}: {answer}");
    assert!((second["score"].as_f64().unwrap() - optimized).abs() < 1e-6);
    let compact = json!([{"id": "r", "type": "response", "phase": 3, "position": 1, "config": {"responseFormat": "compact"}},
        {"id": "s", "type": "set_properties", "phase": 3, "position": 2, "config": {"set": {"a": "1"}}}]);
    publish(&node, "short", compact).await;
    let body = json!({"customerId": "c", "channel": "web", "decisionFlowKey": "short"});
    let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
    assert_eq!(answer["decisions"][0].get("properties"), None);
}

#[tokio::test]
async fn guardrails_bind_whatever_the_flow_and_are_explained() {
    let node = shop().await;
    let soft = json!({"name": "cheap", "expression": "offer.margin < 75", "mode": "soft", "multiplier": 0.1});
    node.create("guardrails", &soft.to_string()).await;
    // B shows the creative that weighs 90.
    let list = json!({"placements": [], "limit": 5, "excludeCreatives": ["B Side"]});
    assert_eq!(names(&node, list.clone()).await, ["B", "A"], "A scores a tenth");
    let hard = json!({"name": "not B", "expression": "offer.name != 'B'"});
    let id = node.create("guardrails", &hard.to_string()).await;
    publish(&node, "bare", json!([])).await;
    for flow in [json!({}), json!({"decisionFlowKey": "bare"})] {
        let mut asked = json!({"placements": [], "explain": true});
        asked.as_object_mut().unwrap().extend(flow.as_object().unwrap().clone());
        assert_eq!(names(&node, asked).await, ["A"]);
    }
    let why = node.ok("GET", "/api/v1/why-not?customerId=c&offerId=B&channel=web", "").await;
    assert_eq!(why["removed"]["stage"], "guardrail");
    assert_eq!((&why["removed"]["ruleId"], &why["removed"]["detail"]), (&json!(id), &json!("not B")));
    node.ok("PUT", &format!("/api/v1/guardrails/{id}"), r#"{"status": "paused"}"#).await;
    assert_eq!(names(&node, list).await, ["B", "A"]);
}

#[tokio::test]
async fn why_not_tells_the_first_thing_that_keeps_an_offer_away() {
    let node = shop().await;
    let why = async |query: &str| node.ok("GET", &format!("/api/v1/why-not?customerId=c&{query}"), "").await;
    let first = why("offerId=A&channel=web&placement=hero").await;
    assert_eq!((&first["proposed"], &first["removed"]), (&json!(true), &Value::Null));
    assert_eq!((&first["decisions"][0]["offerName"], &first["decisions"][0]["rank"]), (&json!("A"), &json!(1)));
    assert!(first["decisions"][0]["explanation"]["rankingScores"]["emphasis"].is_number());
    let second = why("offerId=B&channel=web&placement=hero").await;
    assert_eq!((&second["proposed"], &second["removed"]["stage"]), (&json!(false), &json!("rank")));
    node.ok("PUT", "/api/v1/offers", &json!({"id": second["offerId"], "emergencyExcluded": true}).to_string()).await;
    assert_eq!(why("offerId=B&channel=web").await["removed"]["stage"], "emergency_exclusion");
    let spare = json!({"name": "S", "kind": "fallback", "status": "active"});
    node.create("offers", &spare.to_string()).await;
    assert_eq!(why("offerId=S").await["removed"]["stage"], "fallback");
    node.ok("PUT", "/api/v1/channels", &json!({"id": channel(&node).await, "status": "paused"}).to_string()).await;
    assert_eq!(why("offerId=A&channel=web").await["removed"]["stage"], "inactive");
}

async fn channel(node: &Node) -> Value {
    node.ok("GET", "/api/v1/channels", "").await["items"][0]["id"].clone()
}

#[tokio::test]
async fn why_not_refuses_what_it_does_not_know() {
    let node = shop().await;
    let refused = async |query: &str| {
        let reply = node.call("GET", &format!("/api/v1/why-not?{query}"), "").await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{query}");
        let mut pointers = reply.pointers();
        pointers.sort();
        pointers
    };
    assert_eq!(refused("offerId=A").await, ["/query/customerId"]);
    assert_eq!(refused("customerId=c&offerId=A&colour=red").await, ["/query/colour"]);
    let unknown = "customerId=c&offerId=Z&channel=fax&activity=none&decisionFlowKey=no";
    let expected = ["/query/activity", "/query/channel", "/query/decisionFlowKey", "/query/offerId"];
    assert_eq!(refused(unknown).await, expected);
    let reply = node.call_as(Role::Channel, "GET", "/api/v1/why-not?customerId=c&offerId=A", "").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn versions_of_a_flow_are_compared_node_by_node() {
    let node = shop().await;
    let rank =
        |most: u32| json!([{"id": "r", "type": "rank", "phase": 2, "position": 1, "config": {"maxCandidates": most}}]);
    publish(&node, "f", rank(5)).await;
    let draft = |nodes: Value| {
        let mut all = vec![json!({"id": "inv", "type": "inventory", "phase": 1, "position": 0})];
        all.extend(nodes.as_array().unwrap().iter().cloned());
        json!({"draftConfig": {"version": 2, "nodes": all}}).to_string()
    };
    let id = node.ok("GET", "/api/v1/decision-flows", "").await["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/decision-flows/{id}");
    node.ok("PUT", &path, &draft(rank(7))).await;
    let diff = async |from: &str, to: &str| node.ok("GET", &format!("{path}/diff?from={from}&to={to}"), "").await;
    let changed = diff("1", "draft").await;
    assert_eq!(changed["changes"], json!([{"pointer": "/nodes/r/config/maxCandidates", "before": 5, "after": 7}]));
    node.ok("POST", &format!("{path}/publish"), "").await;
    node.ok("PUT", &path, &draft(json!([]))).await;
    assert_eq!(diff("2", "2").await["changes"], json!([]));
    let gone = diff("2", "draft").await;
    assert_eq!((&gone["changes"][0]["pointer"], gone["changes"][0].get("after")), (&json!("/nodes/r"), None));
    let reply = node.call("GET", &format!("{path}/diff?from=9&to=1"), "").await;
    assert_eq!(reply.pointers(), ["/query/from"]);
    assert_eq!(node.call("GET", &format!("{path}/diff?to=1"), "").await.pointers(), ["/query/from"]);
}

#[tokio::test]
async fn content_is_filled_from_the_fields_that_the_creative_lists_and_escaped_by_its_type() {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    let fields = json!([
        {"name": "rate", "type": "number"},
        {"name": "title", "type": "computed", "formula": "concat('For ', coalesce(customer.name, '<you>'))", "outputType": "text"},
        {"name": "lost", "type": "computed", "formula": "customer.none", "outputType": "number"}]);
    node.create("categories", &json!({"name": "Loans", "customFields": fields}).to_string()).await;
    let offer = json!({"name": "A", "status": "active", "category": "Loans", "customFields": {"rate": 2.5}});
    node.create("offers", &offer.to_string()).await;
    let mut creative = json!({"name": "a", "offerId": "A", "channelId": "web", "contentType": "text/html", "status": "active",
        "personalization": ["rate", "title", "lost"], "content": {"body": "<b>{{title}}</b>: {{ rate }} % {{lost|<i>soon</i>}}"}});
    let id = node.create("creatives", &creative.to_string()).await;
    let body = r#"{"customerId": "c", "channel": "web"}"#;
    let content =
        async || node.ok("POST", "/api/v1/recommend", body).await["decisions"][0]["creative"]["content"].clone();
    assert_eq!(content().await, json!({"body": "<b>For &lt;you&gt;</b>: 2.5 % <i>soon</i>"}));
    let patch = json!({"content": ["{{colour}}", "{{"]}).to_string();
    let reply = node.call("PUT", &format!("/api/v1/creatives/{id}"), &patch).await;
    assert_eq!(reply.pointers(), ["/content/0", "/content/1"]);
    // Without a list nothing is a template.
    creative["personalization"] = json!([]);
    creative["content"] = json!("{{title}}");
    creative.as_object_mut().unwrap().remove("name");
    node.ok("PUT", &format!("/api/v1/creatives/{id}"), &creative.to_string()).await;
    assert_eq!(content().await, json!("{{title}}"));
}
