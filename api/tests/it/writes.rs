//! What a write says of itself is what it did.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::node::{Node, Reply};

#[tokio::test]
async fn a_put_that_gives_nothing_succeeds_for_an_unknown_customer() {
    let node = Node::start().await;
    let reply = node.call("PUT", "/api/v1/profiles/nobody", "{}").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.json());
    let body = reply.json();
    assert_eq!(
        (&body["customerId"], &body["attributes"], &body["segments"]),
        (&json!("nobody"), &json!({}), &json!([]))
    );
}

/// Many names of 250 bytes: within every count, beyond what a profile may hold.
fn too_large() -> Value {
    (0..300).map(|index| (format!("{index:0250}"), json!(1))).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn a_profile_beyond_its_size_is_refused_before_anything_is_written() {
    let node = Node::start().await;
    let put = node.call("PUT", "/api/v1/profiles/c", &json!({"attributes": too_large()}).to_string()).await;
    assert_eq!((put.status, put.pointers()), (StatusCode::BAD_REQUEST, vec!["/attributes".to_owned()]));
    let segments: Vec<String> = (0..300).map(|index| format!("{index:0250}")).collect();
    let put = node.call("PUT", "/api/v1/profiles/c", &json!({"segments": segments}).to_string()).await;
    assert_eq!((put.status, put.pointers()), (StatusCode::BAD_REQUEST, vec!["/segments".to_owned()]));

    let lines = [json!({"customerId": "a"}), json!({"customerId": "b", "attributes": too_large()})];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for query in ["?dryRun=true", ""] {
        let reply = node.call("POST", &format!("/api/v1/import/profiles{query}"), &lines).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.json());
        assert_eq!(reply.json()["lines"][0]["line"], 2);
        assert_eq!(reply.json()["lines"][0]["errors"][0]["pointer"], "/attributes");
    }
    assert_eq!(node.call("GET", "/api/v1/profiles/a", "").await.status, StatusCode::NOT_FOUND, "nothing was stored");
}

#[tokio::test]
async fn a_row_beyond_its_size_is_refused_before_anything_is_written() {
    let node = Node::start().await;
    let mut fields = vec![json!({"name": "id", "dataType": "varchar", "isUnique": true})];
    fields.extend((0..10).map(|index| json!({"name": format!("t{index}"), "dataType": "text"})));
    node.create("schemas", &json!({"name": "wide", "fields": fields}).to_string()).await;
    let mut wide = json!({"id": "b"});
    for index in 0..10 {
        wide[format!("t{index}")] = json!("x".repeat(9_000));
    }
    let lines = format!("{}\n{wide}\n", json!({"id": "a"}));
    let reply = node.call("POST", "/api/v1/schemas/wide/rows", &lines).await;
    assert_eq!((reply.status, &reply.json()["lines"][0]["line"]), (StatusCode::BAD_REQUEST, &json!(2)));
    assert_eq!(node.call("GET", "/api/v1/profiles/a", "").await.status, StatusCode::NOT_FOUND, "nothing was stored");
}

#[tokio::test]
async fn a_bulk_write_that_a_shard_refuses_in_part_says_which_lines_and_that_repeating_does_not_help() {
    let node = Node::start().await;
    // A shard knows at most 100,000 names of a tenant: lines with fresh names come to an end, known names go on.
    let line = |customer: usize, first: usize| {
        let names: serde_json::Map<_, _> = (first..first + 900).map(|name| (format!("n{name}"), json!(1))).collect();
        format!("{}\n", json!({"customerId": format!("c{customer}"), "attributes": names}))
    };
    let lines: String = (0..250).map(|number| line(number, number * 900)).chain([line(999, 0)]).collect();
    let reply = node.call("POST", "/api/v1/import/profiles", &lines).await;
    let problem = reply.json();
    assert_eq!((reply.status, &problem["type"]), (StatusCode::BAD_REQUEST, &json!("/problems/partially-applied")));
    assert_eq!((&problem["retryable"], &problem["outcome"]), (&json!(false), &json!("unknown")));
    assert!(!reply.headers.contains_key("retry-after"));
    let mut stored = 0;
    for customer in (0..250).chain([999]) {
        let found = node.call("GET", &format!("/api/v1/profiles/c{customer}"), "").await;
        stored += usize::from(found.status == StatusCode::OK);
    }
    assert_eq!(problem["applied"], json!(stored));
    assert!((200..250).contains(&stored), "{stored}");
    let named = problem["lines"].as_array().unwrap();
    assert_eq!(named.len(), (251 - stored).min(100));
    for bad in named {
        let number = bad["line"].as_u64().unwrap();
        let customer = format!("/api/v1/profiles/c{}", number - 1);
        assert_eq!(node.call("GET", &customer, "").await.status, StatusCode::NOT_FOUND, "line {number}");
        assert!(bad["errors"][0]["detail"].as_str().unwrap().contains("names"), "{bad}");
    }
}

async fn with_if_match(node: &Node, method: &str, path: &str, tag: &str, body: &str) -> Reply {
    let request = Request::builder().method(method).uri(path).header("X-API-Key", "admin-key").header("If-Match", tag);
    node.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn if_match_is_honoured_or_refused_but_never_ignored() {
    let node = Node::start().await;
    let channel = node.create("channels", r#"{"name": "web"}"#).await;
    let flow = json!({"key": "f", "name": "f", "draftConfig": {"version": 2, "nodes": [
        {"id": "i", "type": "inventory", "phase": 1, "position": 0, "config": {}}]}});
    let flow = node.create("decision-flows", &flow.to_string()).await;
    for (method, path, body) in [
        ("DELETE", format!("/api/v1/channels/{channel}"), ""),
        ("DELETE", format!("/api/v1/channels?id={channel}"), ""),
        ("PUT", "/api/v1/settings".to_owned(), r#"{"timeZone": "Europe/Berlin"}"#),
        ("POST", format!("/api/v1/decision-flows/{flow}/publish"), ""),
        ("POST", format!("/api/v1/decision-flows/{flow}/rollback"), r#"{"version": 1}"#),
        ("PUT", "/api/v1/profiles/c".to_owned(), "{}"),
        ("POST", "/api/v1/offers".to_owned(), r#"{"name": "A"}"#),
    ] {
        let reply = with_if_match(&node, method, &path, "\"999\"", body).await;
        assert_eq!(
            (reply.status, reply.pointers()),
            (StatusCode::BAD_REQUEST, vec!["/headers/If-Match".to_owned()]),
            "{path}"
        );
    }
    assert_eq!(node.ok("GET", "/api/v1/settings", "").await["timeZone"], "UTC");
    node.ok("GET", &format!("/api/v1/channels/{channel}"), "").await;
}

#[tokio::test]
async fn a_sub_category_has_the_tag_that_guards_its_update() {
    let node = Node::start().await;
    let category = node.create("categories", r#"{"name": "Cards"}"#).await;
    let subs = format!("/api/v1/categories/{category}/sub-categories");
    let id = node.ok("POST", &subs, r#"{"name": "Gold"}"#).await["id"].as_str().unwrap().to_owned();
    let path = format!("{subs}/{id}");
    let read = node.call("GET", &path, "").await;
    let tag = read.header("etag").to_owned();
    assert_eq!(with_if_match(&node, "PUT", &path, &tag, r#"{"ordinal": 2}"#).await.status, StatusCode::OK);
    assert_eq!(with_if_match(&node, "PUT", &path, &tag, "{}").await.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_write_can_be_waited_for_until_every_node_has_it() {
    let node = Node::start().await;
    let created = node.call("POST", "/api/v1/channels?wait=all", r#"{"name": "web"}"#).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        ("PUT", format!("/api/v1/channels/{id}?wait=all"), r#"{"name": "site"}"#),
        ("PUT", "/api/v1/settings?wait=all".to_owned(), "{}"),
        ("POST", "/api/v1/import/channels?dryRun&wait=all".to_owned(), r#"{"name": "email"}"#),
        ("DELETE", format!("/api/v1/channels/{id}?force=true&wait=all"), ""),
    ] {
        node.ok(method, &path, body).await;
    }
    for (method, path, body) in [
        ("POST", "/api/v1/channels?wait=some", r#"{"name": "app"}"#),
        ("GET", "/api/v1/channels?wait=all", ""),
        ("PUT", "/api/v1/profiles/ann?wait=all", "{}"),
    ] {
        assert_eq!(node.call(method, path, body).await.pointers(), ["/query/wait"], "{method} {path}");
    }
}

#[tokio::test]
async fn a_limit_below_what_is_held_already_is_accepted_and_says_by_how_much() {
    let node = Node::start().await;
    let caps = |limit: u32| json!([{"scope": "global", "limit": limit, "reservationSeconds": 3_600}]);
    let body = json!({"name": "Rare", "status": "active", "caps": caps(10)});
    let offer = node.create("offers", &body.to_string()).await;
    for customer in 0..5 {
        let taken =
            node.ok("POST", "/api/v1/recommend", &json!({"customerId": format!("c{customer}")}).to_string()).await;
        assert_eq!(taken["decisions"][0]["offerName"], "Rare", "{taken}");
    }
    let path = format!("/api/v1/offers/{offer}");
    let lowered = node.call("PUT", &path, &json!({"caps": caps(2)}).to_string()).await;
    assert_eq!((lowered.status, &lowered.json()["overBy"]), (StatusCode::ACCEPTED, &json!(3)), "{}", lowered.json());
    let raised = node.call("PUT", &path, &json!({"caps": caps(7)}).to_string()).await;
    assert_eq!((raised.status, raised.json().get("overBy")), (StatusCode::OK, None));
}
