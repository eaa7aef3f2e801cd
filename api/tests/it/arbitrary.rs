//! Whatever is sent to whatever route: an answer below 500, a problem document where it is no success, and no panic.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::Request;
use proffer_api::access::{ROUTES, Route};
use proffer_engine::catalog::Role;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::node::{Node, key_of};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static NODE: LazyLock<Node> = LazyLock::new(|| {
    RUNTIME.block_on(async {
        let node = Node::start().await;
        node.create("channels", r#"{"name": "web"}"#).await;
        node.create("placements", r#"{"name": "hero", "channelId": "web"}"#).await;
        node.create("offers", r#"{"name": "A", "status": "active", "category": "x"}"#).await;
        for (_, path, template) in TEMPLATES {
            node.ok("POST", path, template).await;
        }
        node.ok("POST", "/api/v1/decision-flows/flow/publish", "").await;
        node
    })
});

/// Names that the readers know, so that values reach deep into them.
const MEMBERS: &[&str] = &[
    "name",
    "status",
    "key",
    "id",
    "customerId",
    "channel",
    "channelId",
    "placement",
    "placements",
    "activities",
    "limit",
    "attributes",
    "context",
    "segments",
    "excludeOffers",
    "recommendationId",
    "rank",
    "offerId",
    "creativeId",
    "outcome",
    "idempotencyKey",
    "timestamp",
    "conversionValue",
    "outcomeDetails",
    "scope",
    "ranks",
    "fields",
    "dataType",
    "isUnique",
    "caps",
    "per",
    "hours",
    "schedule",
    "startDate",
    "endDate",
    "timeWindow",
    "start",
    "end",
    "budget",
    "customFields",
    "type",
    "formula",
    "ruleType",
    "config",
    "attribute",
    "operator",
    "value",
    "expression",
    "draftConfig",
    "version",
    "nodes",
    "phase",
    "position",
    "flowConfig",
    "experiment",
    "holdoutPercent",
    "category",
    "categoryId",
    "tags",
    "allOf",
    "offerIds",
    "collectionId",
    "placementId",
    "fallbackOfferId",
    "timeZone",
    "routes",
    "content",
    "split",
    "weight",
    "decisionFlowKey",
    "explain",
    "debug",
    "supersedes",
    "mandatory",
    "mandatoryExpiresAt",
    "kind",
    "metadata",
];

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "",
    "web",
    "hero",
    "A",
    "x",
    "active",
    "draft",
    "archived",
    "none",
    "c1",
    "impression",
    "opt_out",
    "2026-01-01",
    "2026-01-01T00:00:00Z",
    "25:00",
    "08:00",
    "UTC",
    "day",
    "profile",
    "global",
    "offer",
    "eq",
    "in",
    "inventory",
    "score",
    "attribute_condition",
    "expression",
    "customer.x > 1 ? (",
    "frequency_cap",
    "conversion",
    "fallback",
    "\u{0}",
    "💥",
];

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![0.0, -1.0, 1.0, 5.0, 50.0, 100.5, 1e300, -1e300, 9e15]).prop_map(|n| json!(n)),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 8, |inner| {
        let name = prop_oneof![9 => prop::sample::select(MEMBERS).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::btree_map(name, inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => documents().prop_map(|value| value.to_string().into_bytes()),
        2 => prop::collection::vec(documents(), 0..4).prop_map(|values| {
            values.iter().map(|value| format!("{value}\n")).collect::<String>().into_bytes()
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

const SEGMENTS: &[&str] =
    &["offers", "profiles", "c1", "cat_x", "none", "publish", "%00", "%F0%9F%92%A5", "..", "a%2Fb"];

fn segments() -> impl Strategy<Value = String> {
    prop_oneof![prop::sample::select(SEGMENTS).prop_map(str::to_owned), "[a-zA-Z0-9_-]{1,12}"]
}

const QUERIES: &[&str] = &[
    "",
    "",
    "",
    "?explain=true",
    "?debug=1",
    "?trace",
    "?force=true",
    "?id=x",
    "?limit=1",
    "?dryRun=true",
    "?%FF=1",
    "?a&a",
];

fn check(route: Route, segment: &str, query: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let mut path = route.path.to_owned();
    while let (Some(start), Some(end)) = (path.find('{'), path.find('}')) {
        path.replace_range(start..=end, segment);
    }
    let request = Request::builder()
        .method(route.method)
        .uri(format!("{path}{query}"))
        .header("X-API-Key", key_of(Role::Admin))
        .header("X-Tenant-Id", "default")
        .header("Idempotency-Key", "k")
        .body(Body::from(body))
        .unwrap();
    let reply = RUNTIME.block_on(NODE.send(request));
    let status = reply.status;
    prop_assert!(
        status.as_u16() < 500,
        "{} {path}{query}: {status} {}",
        route.method,
        String::from_utf8_lossy(&reply.bytes)
    );
    if !status.is_success() {
        prop_assert_eq!(reply.header("content-type"), "application/problem+json");
        prop_assert_eq!(reply.json()["status"].as_u64(), Some(u64::from(status.as_u16())));
    }
    Ok(())
}

/// Requests that are answered: what is sent differs from one of them in one place.
const TEMPLATES: &[(&str, &str, &str)] = &[
    (
        "POST",
        "/api/v1/categories",
        r#"{"name": "T", "customFields": [{"name": "rate", "type": "number"},
        {"name": "own", "type": "computed", "formula": "max(rate * 2, customer.age)", "outputType": "number"}]}"#,
    ),
    (
        "POST",
        "/api/v1/offers",
        r#"{"name": "T", "status": "active", "categoryId": "cat_t", "priority": 70, "tags": ["a"],
        "customFields": {"rate": 1.5}, "eligibility": {"recency": 1, "requiredSegments": ["vip"]},
        "budget": {"maxImpressions": 5, "maxDailyBudget": 9.5, "costPerAction": 0.5},
        "caps": [{"key": "k", "scope": "profile", "limit": 2, "per": {"hours": 4}, "countOn": "click"}],
        "schedule": {"startDate": "2026-01-01", "endDate": "2030-01-01T00:00:00Z", "daysOfWeek": [0, 1, 2, 3, 4, 5, 6],
        "timeWindow": {"start": "00:00", "end": "23:59"}}, "fatigue": {"halfLifeHours": 1, "strength": 2}}"#,
    ),
    (
        "POST",
        "/api/v1/creatives",
        r#"{"name": "T", "offerId": "A", "channelId": "web", "placementId": "hero",
        "status": "active", "content": {"a": [1, null]}, "contentType": "json", "weight": 50, "split": 0.5}"#,
    ),
    ("POST", "/api/v1/collections", r#"{"name": "T", "allOf": ["a"], "anyOf": ["b"], "offerIds": ["A"]}"#),
    (
        "POST",
        "/api/v1/qualification-rules",
        r#"{"name": "T", "ruleType": "attribute_condition", "scope": "offer",
        "scopeId": "T", "stage": "match", "config": {"attribute": "customer.age", "operator": "between", "value": [1, 9],
        "multiplier": 0.5}}"#,
    ),
    (
        "POST",
        "/api/v1/qualification-rules",
        r#"{"name": "U", "ruleType": "expression", "scope": "global",
        "config": {"expression": "attributes.x != 1 || size(context.y) > 2 || true"}}"#,
    ),
    (
        "POST",
        "/api/v1/contact-policies",
        r#"{"name": "T", "ruleType": "frequency_cap", "scope": "global", "priority": 90,
        "config": {"maxPerDay": 3, "maxPerWeek": 5, "window": "rolling"}}"#,
    ),
    (
        "POST",
        "/api/v1/contact-policies",
        r#"{"name": "U", "ruleType": "mutual_exclusion", "scope": "global",
        "config": {"offerIds": ["A", "T"], "lookbackDays": 3}}"#,
    ),
    (
        "POST",
        "/api/v1/schemas",
        r#"{"name": "T", "fields": [{"name": "id", "dataType": "varchar", "isUnique": true},
        {"name": "age", "dataType": "integer"}]}"#,
    ),
    (
        "POST",
        "/api/v1/decision-flows",
        r#"{"key": "flow", "name": "T", "draftConfig": {"version": 2,
        "flowConfig": {"experiment": {"enabled": true, "holdoutPercent": 50}}, "nodes": [
        {"id": "i", "type": "inventory", "phase": 1, "position": 0, "config": {}},
        {"id": "e", "type": "enrich", "phase": 1, "position": 1, "config": {"sources": [{"schemaId": "T", "lookupKey": "id"}]}},
        {"id": "q", "type": "qualify", "phase": 1, "position": 2, "config": {}},
        {"id": "c", "type": "contact_policy", "phase": 1, "position": 3, "config": {}},
        {"id": "s", "type": "score", "phase": 2, "position": 4, "config": {"method": "formula", "formula": {
        "propensityWeight": 0.4, "relevanceWeight": 0.2, "impactWeight": 0.3, "emphasisWeight": 0.1}}},
        {"id": "r", "type": "rank", "phase": 2, "position": 5, "config": {"maxCandidates": 3}},
        {"id": "o", "type": "response", "phase": 3, "position": 6, "config": {}}]}}"#,
    ),
    (
        "POST",
        "/api/v1/recommend",
        r#"{"customerId": "c1", "channel": "web", "placements": ["hero", {"placement": "hero",
        "limit": 2}], "decisionFlowKey": "flow", "limit": 3, "attributes": {"x": 1, "y": [true]}, "context": {"y": "abc"},
        "segments": ["vip"], "excludeOffers": ["T"], "allowDuplicates": true, "explain": true, "debug": true, "trace": true}"#,
    ),
    (
        "POST",
        "/api/v1/behavioral-metrics",
        r#"{"name": "bought", "aggregation": "avg", "outcomes": ["conversion"], "events": ["buy"], "field": "properties.price",
        "per": "week", "window": "rolling", "groupBy": ["category", "properties.brand"], "filters": {"combinator": "or",
        "conditions": [{"field": "value", "operator": "gt", "value": 1}, {"field": "channel", "operator": "is_null"}]}}"#,
    ),
    (
        "POST",
        "/api/v1/qualification-rules",
        r#"{"name": "V", "ruleType": "metric_condition", "scope": "global", "stage": "ranking",
        "config": {"metric": "bought", "group": "acme", "operator": "gte", "value": 2, "boost": 2}}"#,
    ),
    (
        "POST",
        "/api/v1/events",
        r#"{"customerId": "c1", "type": "buy", "value": 2.5, "offerId": "A", "channel": "web", "idempotencyKey": "e",
        "properties": {"brand": "acme", "price": 12.5}, "timestamp": "2026-06-01T11:59:00Z"}"#,
    ),
    ("POST", "/api/v1/simulate", r#"{"customerId": "c2", "channel": "web", "segments": ["vip"], "explain": true}"#),
    (
        "POST",
        "/api/v1/respond",
        r#"{"customerId": "c1", "offerId": "A", "outcome": "opt_out", "idempotencyKey": "k",
        "conversionValue": 1.5, "timestamp": "2026-06-01T11:59:00Z", "outcomeDetails": {"scope": "category"}}"#,
    ),
];

/// Every place in a document.
fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_owned());
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| {
            let name = name.replace('~', "~0").replace('/', "~1");
            places(member, &format!("{pointer}/{name}"), found);
        }),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{pointer}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn changed(template: &str, place: prop::sample::Index, by: Value) -> Value {
    let mut document: Value = serde_json::from_str(template).unwrap();
    let mut found = Vec::new();
    places(&document, "", &mut found);
    let place: &String = place.get(&found);
    *document.pointer_mut(place).unwrap() = by;
    document
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn no_input_breaks_a_route(
        route in prop::sample::select(ROUTES),
        segment in segments(),
        query in prop::sample::select(QUERIES),
        body in bodies(),
    ) {
        check(route, &segment, query, body)?;
    }

    #[test]
    fn no_change_of_a_good_request_breaks_a_route(
        (method, path, template) in prop::sample::select(TEMPLATES),
        places in prop::collection::vec((any::<prop::sample::Index>(), documents()), 1..3),
    ) {
        let mut document = template.to_owned();
        for (place, by) in places {
            document = changed(&document, place, by).to_string();
        }
        let route = ROUTES.iter().find(|route| (route.method, route.path) == (method, path)).unwrap();
        check(*route, "none", "", document.into_bytes())?;
        // What it may have left behind is decided with.
        let decide = ROUTES.iter().find(|route| route.path == "/api/v1/simulate").unwrap();
        check(*decide, "", "?explain=true&debug=true", br#"{"customerId": "c1", "channel": "web", "placement": "hero"}"#.to_vec())?;
    }
}
