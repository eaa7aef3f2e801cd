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
}
