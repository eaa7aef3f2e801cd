//! Adobe's shape: a client that was written for its decisioning API changes URL and key.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proffer_engine::catalog::Role;
use serde_json::{Value, json};

use crate::node::{NOON, Node, Reply, key_of};

const PATH: &str = "/api/v1/adobe/decisions";

/// Offers A and B for a hero and a side placement, a fallback for both; activities `top` and `next` show the hero, `edge` the side.
async fn shop() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    for name in ["Hero", "Side"] {
        node.create("placements", &json!({"name": name, "channelId": "web"}).to_string()).await;
    }
    let fields = json!({"name": "x", "customFields": [{"name": "colour", "type": "text"}]});
    node.create("categories", &fields.to_string()).await;
    let offers = [("A", "general", 80), ("B", "general", 70), ("F", "fallback", 0)];
    for (name, kind, priority) in offers {
        let mut offer = json!({"name": name, "kind": kind, "status": "active", "priority": priority});
        if kind == "general" {
            offer["category"] = json!("x");
            offer["customFields"] = json!({"colour": "red"});
        }
        node.create("offers", &offer.to_string()).await;
        for placement in ["Hero", "Side"] {
            let creative = json!({"name": format!("{name} {placement}"), "offerId": name, "channelId": "web",
                "placementId": placement, "contentType": "text/html", "content": format!("<b>{name}</b>"), "status": "active"});
            node.create("creatives", &creative.to_string()).await;
        }
    }
    node.create("collections", r#"{"name": "All"}"#).await;
    for (name, placement) in [("Top", "Hero"), ("Next", "Hero"), ("Edge", "Side")] {
        let activity = json!({"name": name, "collectionId": "All", "placementId": placement, "fallbackOfferId": "F"});
        node.create("activities", &activity.to_string()).await;
    }
    node
}

fn body(slots: &[(&str, &str)], more: Value) -> Value {
    let slots =
        slots.iter().map(|(activity, placement)| json!({"xdm:activityId": activity, "xdm:placementId": placement}));
    let mut body = json!({
        "xdm:propositionRequests": slots.collect::<Vec<_>>(),
        "xdm:profiles": [{"xdm:identityMap": {"Email": [{"xdm:id": "ann@example.org"}]}}],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn ask(node: &Node, body: &Value) -> Reply {
    let kind = r#"application/vnd.adobe.xdm+json; schema="https://ns.adobe.com/experience/offer-management/decision-request;version=1.0""#;
    let request = Request::builder().method("POST").uri(PATH).header("Content-Type", kind);
    let request = request.header("X-API-Key", key_of(Role::Channel)).header("X-GW-IMS-Org-Id", "org");
    node.send(request.body(Body::from(body.to_string())).unwrap()).await
}

async fn answer(node: &Node, body: &Value) -> Value {
    let reply = ask(node, body).await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    reply.json()
}

/// Contents of the options of each slot.
fn contents(answer: &Value) -> Vec<Vec<String>> {
    let options = |slot: &Value| -> Vec<String> {
        let options = slot["xdm:options"].as_array().cloned().unwrap_or_default();
        options
            .iter()
            .map(|option| option["xdm:content"].as_str().unwrap().replace("<b>", "").replace("</b>", ""))
            .collect()
    };
    answer["xdm:propositions"].as_array().unwrap().iter().map(options).collect()
}

#[tokio::test]
async fn an_answer_names_activity_placement_and_options_and_can_be_responded_to() {
    let node = shop().await;
    let metadata = json!({"xdm:activity": ["name"], "xdm:option": ["name", "characteristics"], "xdm:placement": ["name", "channel"]});
    let asked =
        body(&[("top", "hero"), ("edge", "side")], json!({"xdm:responseFormat": {"xdm:includeMetadata": metadata}}));
    let said = answer(&node, &asked).await;
    assert_eq!(said["ode:createDate"], json!(NOON.0));
    let [top, edge] = &said["xdm:propositions"].as_array().unwrap()[..] else { panic!("{said}") };
    let etag = |value: &Value| value["repo:etag"].as_u64().is_some_and(|etag| etag > 0);
    assert!(etag(&top["xdm:activity"]) && etag(&top["xdm:placement"]), "{said}");
    assert_eq!((&top["xdm:activity"]["xdm:name"], &edge["xdm:activity"]["xdm:name"]), (&json!("Top"), &json!("Edge")));
    assert_eq!(
        (&top["xdm:placement"]["xdm:name"], &top["xdm:placement"]["xdm:channel"]),
        (&json!("Hero"), &json!("web"))
    );
    let [option] = &top["xdm:options"].as_array().unwrap()[..] else { panic!("{said}") };
    assert!(etag(option) && option["xdm:id"].is_string() && top.get("xdm:fallback").is_none(), "{said}");
    assert_eq!((&option["@type"], &option["xdm:content"]), (&json!("text/html"), &json!("<b>A</b>")));
    assert_eq!((&option["xdm:score"], &option["xdm:name"]), (&json!(0.8), &json!("A")));
    assert_eq!((&option["proffer:rank"], &edge["xdm:options"][0]["proffer:rank"]), (&json!(1), &json!(2)));
    assert_eq!(option["xdm:characteristics"], json!({"colour": "red"}));
    assert_eq!(contents(&said), [["A"], ["B"]], "an offer stands once");
    let respond = json!({"customerId": "ann@example.org", "recommendationId": said["xdm:propositionId"], "rank": 2,
        "outcome": "click", "idempotencyKey": "k"});
    let recorded = node.ok("POST", "/api/v1/respond", &respond.to_string()).await;
    assert_eq!(recorded["recorded"], json!(true));
    let bare = body(&[("top", "hero")], json!({"xdm:responseFormat": {"xdm:includeContent": false}}));
    let option = &answer(&node, &bare).await["xdm:propositions"][0]["xdm:options"][0];
    assert!(option.get("xdm:content").is_none() && option.get("xdm:name").is_none(), "{option}");
}

#[tokio::test]
async fn the_flags_for_duplicates_are_separate() {
    let node = shop().await;
    let slots = [("top", "hero"), ("next", "hero"), ("edge", "side")];
    let flags = async |activities: bool, placements: bool| {
        let flags = json!({"xdm:acrossActivities": activities, "xdm:acrossPlacements": placements});
        contents(&answer(&node, &body(&slots, json!({"xdm:allowDuplicatePropositions": flags}))).await)
    };
    let none: [&str; 0] = [];
    assert_eq!(flags(false, false).await, [&["A"][..], &["B"], &none]);
    assert_eq!(flags(false, true).await, [&["A"][..], &["B"], &none]);
    assert_eq!(flags(true, false).await, [["A"], ["A"], ["B"]]);
    assert_eq!(flags(true, true).await, [["A"], ["A"], ["A"]]);
}

#[tokio::test]
async fn a_slot_that_nobody_qualifies_for_has_its_fallback_and_no_options() {
    let node = shop().await;
    let said = answer(&node, &body(&[("top", "hero"), ("next", "hero"), ("edge", "side")], json!({}))).await;
    let last = &said["xdm:propositions"][2];
    assert_eq!(last["xdm:fallback"]["xdm:content"], json!("<b>F</b>"), "{said}");
    assert!(last.get("xdm:options").is_none() && last["xdm:fallback"].get("xdm:score").is_none(), "{said}");
    // Not even that may be shown: one of both it is.
    let fallback = last["xdm:fallback"]["xdm:id"].as_str().unwrap();
    node.ok("PUT", "/api/v1/offers", &json!({"id": fallback, "emergencyExcluded": true}).to_string()).await;
    let said = answer(&node, &body(&[("top", "hero"), ("next", "hero"), ("edge", "side")], json!({}))).await;
    let last = &said["xdm:propositions"][2];
    assert_eq!((&last["xdm:options"], last.get("xdm:fallback")), (&json!([]), None), "{said}");
}

#[tokio::test]
async fn the_decision_request_id_is_an_idempotency_key_and_a_dry_run_takes_nothing() {
    let node = shop().await;
    let capped = json!({"name": "C", "status": "active", "category": "x", "priority": 90,
        "caps": [{"scope": "profile", "limit": 1, "per": "lifetime", "countOn": "decision"}]});
    node.create("offers", &capped.to_string()).await;
    let creative = json!({"name": "C Hero", "offerId": "C", "channelId": "web", "placementId": "Hero",
        "contentType": "text/html", "content": "<b>C</b>", "status": "active"});
    node.create("creatives", &creative.to_string()).await;
    let dry = body(&[("top", "hero")], json!({"xdm:dryRun": true}));
    for _ in 0..2 {
        let said = answer(&node, &dry).await;
        assert_eq!((&said["xdm:propositionId"], contents(&said)), (&Value::Null, vec![vec!["C".to_owned()]]));
    }
    let mut keyed = body(&[("top", "hero")], json!({}));
    keyed["xdm:profiles"][0]["xdm:decisionRequestId"] = json!("r-1");
    let first = answer(&node, &keyed).await;
    assert_eq!(contents(&first), [["C"]]);
    let again = ask(&node, &keyed).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.json(), first, "the same answer, and the one unit is not taken again");
    assert_eq!(contents(&answer(&node, &body(&[("top", "hero")], json!({}))).await), [["A"]], "it is used up");
    keyed["xdm:propositionRequests"][0]["xdm:itemCount"] = json!(2);
    assert_eq!(ask(&node, &keyed).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn context_data_is_what_rules_read() {
    let node = shop().await;
    let rule = json!({"name": "rain", "scope": "offer", "scopeId": "A", "ruleType": "expression",
        "config": {"expression": "context.weather == 'rain'"}});
    node.create("qualification-rules", &rule.to_string()).await;
    let mut asked = body(&[("top", "hero")], json!({}));
    assert_eq!(contents(&answer(&node, &asked).await), [["B"]]);
    asked["xdm:profiles"][0]["xdm:contextData"] =
        json!([{"@type": "_xdm.context.additionalParameters;version=1", "xdm:data": {"xdm:weather": "rain"}}]);
    assert_eq!(contents(&answer(&node, &asked).await), [["A"]]);
}

#[tokio::test]
async fn every_wrong_name_is_told_at_once() {
    let node = shop().await;
    let slots = [("top", "side"), ("bottom", "hero"), ("edge", "side")];
    let reply = ask(&node, &body(&slots, json!({}))).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        reply.pointers(),
        ["/xdm:propositionRequests/0/xdm:placementId", "/xdm:propositionRequests/1/xdm:activityId"]
    );
    let mut many = body(&[("top", "hero"); 6], json!({}));
    for slot in many["xdm:propositionRequests"].as_array_mut().unwrap() {
        slot["xdm:itemCount"] = json!(30);
    }
    assert_eq!(ask(&node, &many).await.pointers(), ["/xdm:propositionRequests"]);
}
