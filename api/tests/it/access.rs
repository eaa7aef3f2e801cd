//! The table of roles, as callers meet it.

use axum::http::{Method, StatusCode};
use proffer_api::access::{Access, ROUTES, allows, find};
use proffer_engine::catalog::Role;

use crate::node::Node;

#[tokio::test]
async fn every_route_answers_each_role_as_the_table_says() {
    let node = Node::start().await;
    for route in ROUTES.iter().filter(|route| route.access != Access::Open) {
        let path = route.path.replace("{id}", "none").replace("{subId}", "none").replace("{customerId}", "c");
        let path = path.replace("{kind}", "offers").replace("{node}", "n9").replace("{shard}", "99");
        for role in Role::ALL {
            let status = node.call_as(*role, route.method, &path, "{}").await.status;
            let import_of_entities = route.path.ends_with("{kind}") && *role == Role::Channel;
            let expected = !allows(route.access, &[*role]) || import_of_entities;
            assert_eq!(status == StatusCode::FORBIDDEN, expected, "{role:?} {} {path}: {status}", route.method);
        }
    }
}

#[tokio::test]
async fn probes_need_no_key() {
    let node = Node::start().await;
    for path in ["/livez", "/readyz", "/readyz?verbose"] {
        let request = axum::http::Request::builder().uri(path).body(axum::body::Body::empty()).unwrap();
        assert_eq!(node.send(request).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_mandatory_offer_needs_an_admin() {
    let node = Node::start().await;
    let body = r#"{"name": "Notice", "mandatory": true, "mandatoryReason": "law", "mandatoryApprovedBy": "jane",
        "mandatoryExpiresAt": "2027-01-01T00:00:00Z"}"#;
    assert_eq!(node.call_as(Role::Editor, "POST", "/api/v1/offers", body).await.status, StatusCode::FORBIDDEN);
    assert_eq!(node.call_as(Role::Admin, "POST", "/api/v1/offers", body).await.status, StatusCode::CREATED);
}

#[test]
fn an_undeclared_route_is_not_in_the_table() {
    assert_eq!(find(&Method::POST, "/api/v1/secrets"), None);
    assert!(find(&Method::POST, "/api/v1/recommend").is_some());
}
