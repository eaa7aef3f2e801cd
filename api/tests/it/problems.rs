//! Every way to fail yields a problem document.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proffer_engine::catalog::Role;

use crate::node::{Node, Reply, key_of};

fn assert_problem(reply: &Reply, status: StatusCode, kind: &str) {
    let document = reply.json();
    assert_eq!(reply.status, status, "{document}");
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert_eq!(document["type"], format!("/problems/{kind}"), "{document}");
    assert_eq!(document["status"], status.as_u16());
    for member in ["title", "detail", "retryable", "outcome"] {
        assert!(!document[member].is_null(), "{member}: {document}");
    }
    assert!(!reply.header("x-request-id").is_empty());
    assert!(reply.header("x-catalog-revision").parse::<u64>().is_ok());
}

#[tokio::test]
async fn a_route_that_is_none_is_not_found() {
    let node = Node::start().await;
    for path in ["/", "/api/v1/nothing", "/api/v2/offers", "/api/v1/offers/x/y/z"] {
        assert_problem(&node.call("GET", path, "").await, StatusCode::NOT_FOUND, "not-found");
    }
}

#[tokio::test]
async fn a_method_that_a_route_does_not_take_is_told_what_it_takes() {
    let node = Node::start().await;
    let reply = node.call("PATCH", "/api/v1/offers", "").await;
    assert_problem(&reply, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");
    assert!(reply.header("allow").contains("POST"));
}

#[tokio::test]
async fn a_missing_or_unknown_key_is_unauthenticated() {
    let node = Node::start().await;
    let request = |key: Option<&str>| {
        let builder = Request::builder().uri("/api/v1/offers");
        let builder = if let Some(key) = key { builder.header("X-API-Key", key) } else { builder };
        builder.body(Body::empty()).unwrap()
    };
    for key in [None, Some(""), Some("wrong")] {
        let reply = node.send(request(key)).await;
        assert_problem(&reply, StatusCode::UNAUTHORIZED, "unauthenticated");
        assert!(reply.header("www-authenticate").starts_with("ApiKey"));
    }
}

#[tokio::test]
async fn without_a_catalogue_lease_nobody_is_let_in_nor_sent_away_for_good() {
    let node = Node::start().await;
    node.stop().await;
    // Nobody renews it any more, and it runs out.
    node.clock.advance(Duration::from_secs(10));
    for key in [key_of(Role::Admin), "wrong".to_owned()] {
        let request = Request::builder().uri("/api/v1/offers").header("X-API-Key", key);
        let reply = node.send(request.body(Body::empty()).unwrap()).await;
        assert_problem(&reply, StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        assert!(reply.json()["detail"].as_str().unwrap().contains("no catalogue lease"), "{reply:?}");
        assert_eq!(reply.json()["outcome"], "notApplied");
        assert_eq!(reply.header("retry-after"), "1");
    }
}

#[tokio::test]
async fn a_foreign_tenant_is_forbidden() {
    let node = Node::start().await;
    let request = Request::builder().uri("/api/v1/offers").header("X-API-Key", key_of(Role::Admin));
    let reply = node.send(request.header("X-Tenant-Id", "other").body(Body::empty()).unwrap()).await;
    assert_problem(&reply, StatusCode::FORBIDDEN, "forbidden");
}

#[tokio::test]
async fn malformed_json_is_told_line_and_column() {
    let node = Node::start().await;
    let reply = node.call("POST", "/api/v1/offers", "{\n \"name\": }").await;
    assert_problem(&reply, StatusCode::BAD_REQUEST, "malformed-json");
    assert_eq!((reply.json()["line"].as_u64(), reply.json()["column"].as_u64()), (Some(2), Some(10)));
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large_whether_it_says_so_or_not() {
    let node = Node::start().await;
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1024 * 1024));
    assert_problem(&node.call("POST", "/api/v1/offers", &large).await, StatusCode::PAYLOAD_TOO_LARGE, "too-large");
    let request = Request::builder().method("POST").uri("/api/v1/offers").header("X-API-Key", key_of(Role::Admin));
    let request = request.header("Content-Length", "9999999").body(Body::from("{}")).unwrap();
    assert_problem(&node.send(request).await, StatusCode::PAYLOAD_TOO_LARGE, "too-large");
}

#[tokio::test]
async fn a_form_is_no_supported_media_type() {
    let node = Node::start().await;
    let request = Request::builder().method("POST").uri("/api/v1/offers").header("X-API-Key", key_of(Role::Admin));
    let request =
        request.header("Content-Type", "application/x-www-form-urlencoded").body(Body::from("name=x")).unwrap();
    assert_problem(&node.send(request).await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type");
}

#[tokio::test]
async fn faults_of_a_write_come_all_at_once_with_pointers() {
    let node = Node::start().await;
    let body =
        r#"{"name": "", "priority": 101, "status": "gone", "colour": "red", "caps": [{"scope": "all", "limit": 1}]}"#;
    let reply = node.call("POST", "/api/v1/offers", body).await;
    assert_problem(&reply, StatusCode::BAD_REQUEST, "invalid");
    let pointers = reply.pointers();
    for pointer in ["/priority", "/status", "/colour", "/caps/0/scope"] {
        assert!(pointers.iter().any(|found| found == pointer), "{pointer} in {pointers:?}");
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_refused() {
    let node = Node::start().await;
    let reply = node.call("GET", "/api/v1/offers?staus=active", "").await;
    assert_problem(&reply, StatusCode::BAD_REQUEST, "invalid");
    assert_eq!(reply.pointers(), ["/query/staus"]);
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_unavailable() {
    let node = Node::start().await;
    let request = |revision: &str| {
        let request = Request::builder().uri("/api/v1/offers").header("X-API-Key", key_of(Role::Admin));
        request.header("X-Min-Catalog-Revision", revision).body(Body::empty()).unwrap()
    };
    assert_eq!(node.send(request("1")).await.status, StatusCode::OK);
    assert_problem(&node.send(request("soon")).await, StatusCode::BAD_REQUEST, "invalid");
    let reply = node.send(request("999999999")).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn a_sane_request_id_comes_back() {
    let node = Node::start().await;
    let request = |id: &str| Request::builder().uri("/livez").header("X-Request-Id", id).body(Body::empty()).unwrap();
    assert_eq!(node.send(request("abc-123")).await.header("x-request-id"), "abc-123");
    assert_ne!(node.send(request("with space")).await.header("x-request-id"), "with space");
}

#[tokio::test]
async fn the_document_of_a_bad_write_is_golden() {
    let node = Node::start().await;
    let reply = node.call("POST", "/api/v1/channels", r#"{"status": "gone", "x": 1}"#).await;
    insta::assert_json_snapshot!(reply.json());
}

#[tokio::test]
async fn what_cannot_be_read_of_a_request_hides_no_name_that_does_not_exist() {
    let node = Node::start().await;
    let body = r#"{"customerId": 7, "channel": "nowhere", "placements": [1, "hero", {"placement": "side", "limit": 0}, "top"],
        "segments": ["a", 2], "excludeOffers": ["unknown"], "decisionFlowKey": "no flow"}"#;
    let reply = node.call("POST", "/api/v1/recommend", body).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    let mut pointers = reply.pointers();
    pointers.sort();
    pointers.retain(|pointer| pointer != "/excludeOffers/0");
    assert_eq!(
        pointers,
        [
            "/channel",
            "/customerId",
            "/decisionFlowKey",
            "/placements/0",
            "/placements/1",
            "/placements/2/limit",
            "/placements/3",
            "/segments/1"
        ]
    );
}
