//! Whole catalogues in one call, and rows.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

const SCHEMA: &str = r#"{"name": "customer", "fields": [{"name": "customer_id", "dataType": "varchar", "isUnique": true},
    {"name": "tenure", "dataType": "integer"}]}"#;

#[tokio::test]
async fn a_dry_run_of_rows_validates_and_stores_nothing() {
    let node = Node::start().await;
    node.create("schemas", SCHEMA).await;
    let path = "/api/v1/schemas/customer/rows";
    let good = "{\"customer_id\": \"c\", \"tenure\": 3}\n";
    assert_eq!(node.ok("POST", &format!("{path}?dryRun=true"), good).await, json!({"rows": 1, "dryRun": true}));
    assert_eq!(node.call("GET", "/api/v1/profiles/c", "").await.status, StatusCode::NOT_FOUND);
    let bad = node.call("POST", &format!("{path}?dryRun=true"), "{\"tenure\": 3}\n").await;
    assert_eq!((bad.status, &bad.json()["lines"][0]["line"]), (StatusCode::BAD_REQUEST, &json!(1)));
    assert_eq!(node.ok("POST", &format!("{path}?dryRun=false"), good).await, json!({"rows": 1, "dryRun": false}));
    assert_eq!(node.ok("GET", "/api/v1/profiles/c", "").await["rows"]["customer"]["tenure"], 3);
}

/// Each kind refers to others by name; in alphabetical order none could be written.
fn catalogue() -> Value {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    json!({
        "activities": [{"name": "Top", "collectionId": "All", "placementId": "hero", "fallbackOfferId": "Last"}],
        "categories": [{"name": "Cards"}],
        "channels": [{"name": "web"}],
        "collections": [{"name": "All", "offerIds": ["A"]}],
        "contact-policies": [{"name": "p", "ruleType": "mutual_exclusion", "scope": "category", "scopeId": "Cards",
            "config": {"offerIds": ["A", "B"], "lookbackDays": 3}}],
        "creatives": [{"name": "A", "offerId": "A", "channelId": "web", "placementId": "hero", "status": "active", "contentType": "json", "content": {"t": 1}},
            {"name": "L", "offerId": "Last", "channelId": "web", "placementId": "hero", "status": "active", "contentType": "json", "content": {"t": 1}}],
        "decision-flows": [{"key": "f", "name": "f", "draftConfig": {"version": 2, "nodes": [
            {"id": "i", "type": "inventory", "phase": 1, "position": 0, "config": {}}]}}],
        "offers": [{"name": "A", "status": "active", "categoryId": "Cards"}, {"name": "B", "status": "active", "categoryId": "Cards"},
            {"name": "Last", "kind": "fallback", "status": "active"}],
        "placements": [{"name": "hero", "channelId": "web"}],
        "profiles": [{"customerId": "ann", "attributes": {"age": 41}}],
        "qualification-rules": [{"name": "r", "ruleType": "attribute_condition", "scope": "offer", "scopeId": "A",
            "config": {"attribute": "age", "operator": "gte", "value": 18}}],
        "rows:customer": [{"customer_id": "ann", "tenure": 36}],
        "schemas": [schema],
    })
}

#[tokio::test]
async fn kinds_that_refer_to_each_other_are_validated_and_written_together() {
    let node = Node::start().await;
    let body = catalogue().to_string();
    let dry = node.ok("POST", "/api/v1/import?dryRun=true", &body).await;
    assert_eq!(dry["dryRun"], true);
    assert_eq!(node.ok("GET", "/api/v1/offers", "").await["items"], json!([]), "a dry run stores nothing");
    let counts = |answer: &Value, member: &str| -> u64 {
        answer["kinds"].as_array().unwrap().iter().map(|kind| kind[member].as_u64().unwrap()).sum()
    };
    let first = node.ok("POST", "/api/v1/import", &body).await;
    assert_eq!((counts(&first, "created"), counts(&first, "updated")), (14, 2));
    let again = node.ok("POST", "/api/v1/import", &body).await;
    assert_eq!((counts(&again, "created"), counts(&again, "updated")), (0, 16), "a rerun is harmless");
    assert_eq!(node.ok("GET", "/api/v1/profiles/ann", "").await["rows"]["customer"]["tenure"], 36);
    let answer = node.ok("POST", "/api/v1/decisions", r#"{"customerId": "ann", "activities": ["top"]}"#).await;
    assert_eq!(answer["decisions"][0]["offerName"], "A");
}

#[tokio::test]
async fn a_fault_in_one_kind_keeps_all_from_being_written_and_is_told_by_kind_and_line() {
    let node = Node::start().await;
    let mut body = catalogue();
    body["offers"][1]["priority"] = json!(101);
    body["creatives"][0]["offerId"] = json!("nothing of that name");
    body["rows:customer"][0]["tenure"] = json!("long");
    body["offers"].as_array_mut().unwrap().push(json!({"name": "A"}));
    let reply = node.call("POST", "/api/v1/import", &body.to_string()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let problem = reply.json();
    let mut named: Vec<_> = problem["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bad| (bad["kind"].as_str().unwrap(), bad["line"].as_u64().unwrap()))
        .collect();
    named.sort_unstable();
    assert!(named.contains(&("offers", 2)) && named.contains(&("offers", 4)), "{named:?}");
    assert!(named.contains(&("creatives", 1)) && named.contains(&("rows:customer", 1)), "{named:?}");
    assert_eq!(node.ok("GET", "/api/v1/channels", "").await["items"], json!([]), "nothing was stored");
    assert_eq!(node.call("GET", "/api/v1/profiles/ann", "").await.status, StatusCode::NOT_FOUND);
    let unknown = node.call("POST", "/api/v1/import", r#"{"planets": []}"#).await;
    assert_eq!((unknown.status, unknown.pointers()), (StatusCode::BAD_REQUEST, vec!["/planets".to_owned()]));
    let no_list = node.call("POST", "/api/v1/import", r#"{"offers": {}}"#).await;
    assert_eq!((no_list.status, no_list.pointers()), (StatusCode::BAD_REQUEST, vec!["/offers".to_owned()]));
}
