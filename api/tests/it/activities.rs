//! Collections, activities and constraints, along the other vendor's domain model; and what the tutorial names as next steps.

use std::time::Duration;

use serde_json::{Value, json};

use crate::node::Node;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A channel with a placement, and active offers by name, tags and priority, each with content for the placement.
async fn shop(offers: &[(&str, &[&str], u32)]) -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("placements", r#"{"name": "Tile", "channelId": "web"}"#).await;
    for (name, tags, priority) in offers {
        let body = json!({"name": name, "status": "active", "tags": tags, "priority": priority});
        node.create("offers", &body.to_string()).await;
        show(&node, name).await;
    }
    node
}

/// Content of an offer for the placement.
async fn show(node: &Node, offer: &str) {
    let creative = json!({"name": offer, "offerId": offer, "channelId": "web", "placementId": "Tile", "status": "active", "content": "…"});
    node.create("creatives", &creative.to_string()).await;
}

async fn fallback(node: &Node) {
    node.create("offers", r#"{"name": "Fallback", "kind": "fallback", "status": "active"}"#).await;
    show(node, "Fallback").await;
}

async fn activity(node: &Node, key: &str, collection: &str) {
    let body = json!({"name": key, "key": key, "collectionId": collection, "placementId": "Tile",
        "fallbackOfferId": "Fallback"});
    node.create("activities", &body.to_string()).await;
}

fn offers(answer: &Value) -> Vec<&str> {
    answer["decisions"].as_array().unwrap().iter().map(|decision| decision["offerName"].as_str().unwrap()).collect()
}

async fn recommended(node: &Node, more: Value) -> Vec<String> {
    let mut body = json!({"customerId": "c", "channel": "web"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = node.ok("POST", "/api/v1/recommend", &body.to_string()).await;
    offers(&answer).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_collection_is_all_of_its_tags_any_of_them_or_a_list() {
    let node = shop(&[("both", &["A", "B"], 90), ("a", &["A"], 80), ("b", &["B"], 70), ("none", &[], 60)]).await;
    fallback(&node).await;
    for (key, filter, expected) in [
        ("s", json!({"allOf": ["A"]}), vec!["both", "a"]),
        ("r", json!({"allOf": ["A", "B"]}), vec!["both"]),
        ("any", json!({"anyOf": ["A", "B"]}), vec!["both", "a", "b"]),
        ("mixed", json!({"allOf": ["B"], "anyOf": ["A", "C"]}), vec!["both"]),
        ("listed", json!({"offerIds": ["none", "b"], "allOf": ["A"]}), vec!["b", "none"]),
        ("everything", json!({}), vec!["both", "a", "b", "none"]),
        ("nothing", json!({"anyOf": ["C"]}), vec!["Fallback"]),
    ] {
        let mut collection = filter;
        collection["name"] = json!(key);
        node.create("collections", &collection.to_string()).await;
        activity(&node, key, key).await;
        let body = json!({"customerId": "c", "activities": [{"activity": key, "limit": 9}]}).to_string();
        assert_eq!(offers(&node.ok("POST", "/api/v1/decisions", &body).await), expected, "{key}");
    }
}

#[tokio::test]
async fn thirty_activities_share_no_offer_unless_they_may_and_always_have_an_answer() {
    const NONE: &[&str] = &[];
    let named: Vec<String> = (0..28).map(|number| format!("o{number}")).collect();
    let all: Vec<(&str, &[&str], u32)> =
        named.iter().zip(60..).map(|(name, priority)| (&**name, NONE, priority)).collect();
    let node = shop(&all).await;
    fallback(&node).await;
    node.create("collections", r#"{"name": "All"}"#).await;
    let keys: Vec<String> = (0..30).map(|number| format!("tile-{number}")).collect();
    for key in &keys {
        activity(&node, key, "All").await;
    }
    let decide = async |more: Value| {
        let mut body = json!({"customerId": "c", "activities": keys});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node.ok("POST", "/api/v1/decisions", &body.to_string()).await
    };
    let answer = decide(json!({})).await;
    let mut expected: Vec<&str> = named.iter().rev().map(String::as_str).collect();
    expected.extend(["Fallback", "Fallback"]);
    assert_eq!(offers(&answer), expected);
    assert_eq!(offers(&decide(json!({"allowDuplicates": true})).await), ["o27"; 30]);
}

#[tokio::test]
async fn eligibility_sees_the_profile_and_what_the_channel_tells_of_the_world() {
    let node = shop(&[("umbrella", &[], 50)]).await;
    let rule = json!({"name": "rain", "ruleType": "expression", "scope": "offer", "scopeId": "umbrella", "config":
        {"expression": "context.weather == 'rain' && context.stock > 0 && !contains(customer.bought, offer.name)"}});
    node.create("qualification-rules", &rule.to_string()).await;
    for (context, customer, passes) in [
        (json!({"weather": "rain", "stock": 3}), "ann", true),
        (json!({"weather": "rain", "stock": 0}), "ann", false),
        (json!({"weather": "sun", "stock": 3}), "ann", false),
        (json!({}), "ann", false),
        (json!({"weather": "rain", "stock": 3}), "ben", false),
    ] {
        let bought = if customer == "ben" { json!(["umbrella"]) } else { json!([]) };
        let profile = json!({"attributes": {"bought": bought}}).to_string();
        node.ok("PUT", &format!("/api/v1/profiles/{customer}"), &profile).await;
        let found = recommended(&node, json!({"customerId": customer, "context": context})).await;
        assert_eq!(!found.is_empty(), passes, "{context} {customer}");
    }
}

#[tokio::test]
async fn a_profile_cap_on_decisions_counts_each_proposition() {
    let node = shop(&[]).await;
    let caps = json!([{"scope": "profile", "limit": 2, "countOn": "decision"}]);
    let offer = json!({"name": "A", "status": "active", "caps": caps});
    node.create("offers", &offer.to_string()).await;
    for expected in [1, 1, 0] {
        assert_eq!(recommended(&node, json!({})).await.len(), expected);
    }
    assert_eq!(recommended(&node, json!({"customerId": "d"})).await.len(), 1, "another profile has its own");
    node.clock.advance(400 * DAY);
    assert_eq!(recommended(&node, json!({})).await.len(), 0, "a lifetime does not end");
}

#[tokio::test]
async fn channels_categories_and_product_types_have_weights_of_their_own() {
    let node = shop(&[]).await;
    node.create("channels", r#"{"name": "in_app"}"#).await;
    for (name, priority, value, category, product) in
        [("A", 90, 10, "x", "loan"), ("B", 10, 90, "y", "loan"), ("C", 50, 50, "x", "credit_card")]
    {
        let offer = json!({"name": name, "status": "active", "priority": priority, "businessValue": value,
            "category": category, "productType": product});
        node.create("offers", &offer.to_string()).await;
    }
    let formula = |emphasis: f64, impact: f64| json!({"emphasisWeight": emphasis, "impactWeight": impact});
    let by_value = |mut of: Value| {
        of["formula"] = formula(0.0, 1.0);
        json!([of])
    };
    for (key, overrides, expected) in [
        ("plain", json!([]), [("web", ["A", "C", "B"]), ("in_app", ["A", "C", "B"])]),
        ("channel", by_value(json!({"channel": "in_app"})), [("web", ["A", "C", "B"]), ("in_app", ["B", "C", "A"])]),
        // B counts for 90 as well: then the higher priority goes first.
        ("category", by_value(json!({"category": "y"})), [("web", ["A", "B", "C"]), ("in_app", ["A", "B", "C"])]),
        // A counts for 10, as B does for 90.
        ("product", by_value(json!({"productType": "loan"})), [("web", ["B", "C", "A"]), ("in_app", ["B", "C", "A"])]),
    ] {
        let score = json!({"method": "formula", "formula": formula(1.0, 0.0), "overrides": overrides});
        let nodes = json!([{"id": "inv", "type": "inventory", "phase": 1, "position": 0},
            {"id": "score", "type": "score", "phase": 2, "position": 1, "config": score}]);
        let flow = json!({"key": key, "name": key, "draftConfig": {"version": 2, "nodes": nodes}});
        let flow = node.create("decision-flows", &flow.to_string()).await;
        node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": flow}).to_string()).await;
        for (channel, expected) in expected {
            let asked = json!({"channel": channel, "decisionFlowKey": key});
            assert_eq!(recommended(&node, asked).await, expected, "{key} {channel}");
        }
    }
    let cards = json!({"name": "cards", "ruleType": "offer_attribute",
        "config": {"field": "productType", "operator": "eq", "value": "credit_card"}});
    node.create("qualification-rules", &cards.to_string()).await;
    assert_eq!(recommended(&node, json!({})).await, ["C"]);
}

#[tokio::test]
async fn an_activity_is_a_collection_a_placement_and_a_fallback() {
    let node = shop(&[("A", &[], 50)]).await;
    let reply = node.call("POST", "/api/v1/activities", r#"{"name": "n"}"#).await;
    let mut pointers = reply.pointers();
    pointers.sort();
    assert_eq!(pointers, ["/collectionId", "/fallbackOfferId", "/placementId"]);
    node.create("collections", r#"{"name": "All"}"#).await;
    let bare =
        json!({"name": "n", "collectionId": "All", "placementId": "Tile", "fallbackOfferId": "Bare"}).to_string();
    node.create("offers", r#"{"name": "Bare", "kind": "fallback", "status": "active"}"#).await;
    assert_eq!(
        node.call("POST", "/api/v1/activities", &bare).await.pointers(),
        ["/fallbackOfferId"],
        "it has no content"
    );
    show(&node, "Bare").await;
    node.ok("POST", "/api/v1/activities", &bare).await;
}

#[tokio::test]
async fn four_contacts_a_month_leave_room_for_other_messages() {
    let node = shop(&[("A", &[], 50)]).await;
    let policy = json!({"name": "cross-sell pressure", "ruleType": "customer_total_cap",
        "config": {"maxTotal": 4, "periodType": "monthly"}});
    node.create("contact-policies", &policy.to_string()).await;
    for number in 0..4 {
        assert_eq!(recommended(&node, json!({})).await, ["A"], "after {number}");
        let shown =
            json!({"customerId": "c", "offerId": "A", "outcome": "impression", "idempotencyKey": format!("{number}")});
        node.ok("POST", "/api/v1/respond", &shown.to_string()).await;
    }
    assert!(recommended(&node, json!({})).await.is_empty());
    node.clock.advance(29 * DAY);
    assert!(recommended(&node, json!({})).await.is_empty(), "it is June still");
    node.clock.advance(DAY);
    assert_eq!(recommended(&node, json!({})).await, ["A"]);
}
