//! Create, read, update, delete, list, import (domain.md §1).

use axum::http::StatusCode;
use serde_json::json;

use crate::node::Node;

#[tokio::test]
async fn a_created_object_reads_back_whole() {
    let node = Node::start().await;
    let reply =
        node.call("POST", "/api/v1/offers", r#"{"name": "Savings", "priority": 70, "category": "cross-sell"}"#).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let created = reply.json();
    for member in ["id", "createdAt", "updatedAt", "revision"] {
        assert!(!created[member].is_null(), "{member}: {created}");
    }
    assert_eq!(reply.header("x-catalog-revision"), created["revision"].to_string());
    assert_eq!((&created["status"], &created["businessValue"]), (&json!("draft"), &json!(50)));
    assert_eq!(created["categoryId"], "cat_cross_sell");
    let path = format!("/api/v1/offers/{}", created["id"].as_str().unwrap());
    assert_eq!(node.ok("GET", &path, "").await, created);
}

#[tokio::test]
async fn an_update_replaces_given_members_and_null_resets() {
    let node = Node::start().await;
    let id = node.create("offers", r#"{"name": "A", "priority": 70, "tags": ["x"]}"#).await;
    let by_body = node.ok("PUT", "/api/v1/offers", &json!({"id": id, "tags": ["y"]}).to_string()).await;
    assert_eq!((&by_body["priority"], &by_body["tags"]), (&json!(70), &json!(["y"])));
    let by_path = node.ok("PUT", &format!("/api/v1/offers/{id}"), r#"{"priority": null, "createdAt": "x"}"#).await;
    assert_eq!((&by_path["priority"], &by_path["tags"]), (&json!(50), &json!(["y"])));
    assert_eq!(by_path["createdAt"], by_body["createdAt"]);
    let neither = node.call("PUT", "/api/v1/offers", "{}").await;
    assert_eq!((neither.status, neither.pointers()), (StatusCode::BAD_REQUEST, vec!["/id".to_owned()]));
    let both = node.call("PUT", &format!("/api/v1/offers/{id}"), r#"{"id": "other"}"#).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
    assert_eq!(node.call("PUT", "/api/v1/offers/none", "{}").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn if_match_guards_an_update() {
    let node = Node::start().await;
    let reply = node.call("POST", "/api/v1/channels", r#"{"name": "email"}"#).await;
    let (id, tag) = (reply.json()["id"].as_str().unwrap().to_owned(), reply.header("etag").to_owned());
    let put = |tag: String| {
        let request = axum::http::Request::builder().method("PUT").uri(format!("/api/v1/channels/{id}"));
        let request = request.header("X-API-Key", "admin-key").header("If-Match", tag);
        request.body(axum::body::Body::from(r#"{"description": "x"}"#)).unwrap()
    };
    assert_eq!(node.send(put(tag.clone())).await.status, StatusCode::OK);
    assert_eq!(node.send(put(tag)).await.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn duplicate_names_conflict() {
    let node = Node::start().await;
    node.create("offers", r#"{"name": "A"}"#).await;
    let reply = node.call("POST", "/api/v1/offers", r#"{"name": "A"}"#).await;
    assert_eq!((reply.status, reply.pointers()), (StatusCode::CONFLICT, vec!["/name".to_owned()]));
}

#[tokio::test]
async fn deletes_by_path_and_by_query() {
    let node = Node::start().await;
    for by_path in [true, false] {
        let id = node.create("collections", r#"{"name": "All"}"#).await;
        let path = if by_path { format!("/api/v1/collections/{id}") } else { format!("/api/v1/collections?id={id}") };
        assert_eq!(node.call("DELETE", &path, "").await.status, StatusCode::NO_CONTENT);
        assert_eq!(node.call("GET", &format!("/api/v1/collections/{id}"), "").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn an_offer_with_creatives_goes_only_by_force() {
    let node = Node::start().await;
    let offer = node.create("offers", r#"{"name": "A"}"#).await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node.create("creatives", r#"{"name": "A web", "offerId": "A", "channelId": "web", "content": {"title": "Hi"}}"#)
        .await;
    let path = format!("/api/v1/offers?id={offer}");
    assert_eq!(node.call("DELETE", &path, "").await.status, StatusCode::CONFLICT);
    assert_eq!(node.call("DELETE", &format!("{path}&force=true"), "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.ok("GET", "/api/v1/creatives", "").await["items"], json!([]));
}

#[tokio::test]
async fn lists_filter_and_page() {
    let node = Node::start().await;
    for (name, status, tag) in [("A", "active", "x"), ("B", "draft", "y"), ("C", "active", "z")] {
        node.create("offers", &json!({"name": name, "status": status, "tags": [tag]}).to_string()).await;
    }
    let names = |list: &serde_json::Value| {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&node.ok("GET", "/api/v1/offers?status=active", "").await), ["A", "C"]);
    assert_eq!(names(&node.ok("GET", "/api/v1/offers?tags=x,y", "").await), ["A", "B"]);
    let first = node.ok("GET", "/api/v1/offers?limit=2", "").await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let rest = node.ok("GET", &format!("/api/v1/offers?limit=2&cursor={cursor}"), "").await;
    assert_eq!(
        (names(&first), names(&rest), &rest["nextCursor"]),
        (vec!["A".into(), "B".into()], vec!["C".into()], &json!(null))
    );
    for bad in ["limit=0", "limit=x", "status=gone", "cursor=x"] {
        assert_eq!(
            node.call("GET", &format!("/api/v1/offers?{bad}"), "").await.status,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn sub_categories_live_below_their_parent() {
    let node = Node::start().await;
    let category = node.create("categories", r#"{"name": "Personal Loans"}"#).await;
    let other = node.create("categories", r#"{"name": "Cards"}"#).await;
    assert_eq!(category, "cat_personal_loans");
    let subs = format!("/api/v1/categories/{category}/sub-categories");
    let sub = node.ok("POST", &subs, r#"{"name": "Debt Consolidation", "ordinal": 1}"#).await;
    assert_eq!(sub["categoryId"], json!(category));
    let id = sub["id"].as_str().unwrap();
    let listed = node.ok("GET", "/api/v1/categories", "").await;
    assert_eq!(listed["items"][0]["subCategories"][0]["id"], json!(id));
    let elsewhere = format!("/api/v1/categories/{other}/sub-categories");
    assert_eq!(node.ok("GET", &elsewhere, "").await["items"], json!([]));
    assert_eq!(node.call("GET", &format!("{elsewhere}/{id}"), "").await.status, StatusCode::NOT_FOUND);
    let moved = json!({"categoryId": other}).to_string();
    assert_eq!(node.call("PUT", &format!("{subs}/{id}"), &moved).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(node.ok("PUT", &format!("{subs}/{id}"), r#"{"ordinal": 3}"#).await["ordinal"], 3);
    assert_eq!(node.call("DELETE", &format!("{subs}/{id}"), "").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn settings_are_patched_and_tags_listed() {
    let node = Node::start().await;
    assert_eq!(node.ok("GET", "/api/v1/settings", "").await["timeZone"], "UTC");
    let put = node.ok("PUT", "/api/v1/settings", r#"{"timeZone": "Europe/Berlin"}"#).await;
    assert_eq!((&put["timeZone"], &put["maxSlots"]), (&json!("Europe/Berlin"), &json!(30)));
    assert_eq!(node.call("PUT", "/api/v1/settings", r#"{"timeZone": "Mars"}"#).await.pointers(), ["/timeZone"]);
    node.create("offers", r#"{"name": "A", "tags": ["bogo"]}"#).await;
    assert_eq!(node.ok("GET", "/api/v1/tags", "").await["items"], json!([{"name": "bogo", "offers": 1}]));
}

#[tokio::test]
async fn an_import_is_checked_whole_and_may_be_repeated() {
    let node = Node::start().await;
    let bad = "{\"name\": \"A\"}\n{\"name\": \"B\", \"priority\": 101}\n{\"name\": }\n";
    let reply = node.call("POST", "/api/v1/import/offers", bad).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json()["type"], "/problems/invalid-lines");
    assert_eq!(node.ok("GET", "/api/v1/offers", "").await["items"], json!([]), "nothing was stored");
    let good = "{\"name\": \"A\"}\n\n{\"name\": \"B\", \"priority\": 10}\n";
    let dry = node.ok("POST", "/api/v1/import/offers?dryRun=true", good).await;
    assert_eq!((&dry["created"], &dry["dryRun"]), (&json!(2), &json!(true)));
    assert_eq!(node.ok("GET", "/api/v1/offers", "").await["items"], json!([]), "a dry run stores nothing");
    let first = node.ok("POST", "/api/v1/import/offers", good).await;
    let again = node.ok("POST", "/api/v1/import/offers", good).await;
    assert_eq!((&first["created"], &again["created"], &again["updated"]), (&json!(2), &json!(0), &json!(2)));
    assert_eq!(node.ok("GET", "/api/v1/offers", "").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(node.call("POST", "/api/v1/import/planets", good).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn profiles_are_put_by_part_and_imported() {
    let node = Node::start().await;
    let path = "/api/v1/profiles/cust%2F42";
    assert_eq!(node.call("GET", path, "").await.status, StatusCode::NOT_FOUND);
    node.ok("PUT", path, r#"{"attributes": {"tier": "premium"}, "segments": ["vip"]}"#).await;
    let put = node.ok("PUT", path, r#"{"attributes": {"tier": "basic", "age": 40}}"#).await;
    assert_eq!(put["customerId"], "cust/42");
    assert_eq!((&put["attributes"], &put["segments"]), (&json!({"age": 40, "tier": "basic"}), &json!(["vip"])));
    assert_eq!(node.call("PUT", path, r#"{"attributes": [], "x": 1}"#).await.pointers(), ["/x", "/attributes"]);
    let lines = "{\"customerId\": \"c1\", \"attributes\": {\"a\": 1}}\n{\"customerId\": \"c2\"}\n";
    assert_eq!(node.ok("POST", "/api/v1/import/profiles", lines).await["updated"], 2);
    assert_eq!(node.ok("GET", "/api/v1/profiles/c1", "").await["attributes"], json!({"a": 1}));
    assert_eq!(node.call("DELETE", path, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.call("GET", path, "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn rows_are_checked_whole_against_their_schema() {
    let node = Node::start().await;
    let schema = node
        .create(
            "schemas",
            r#"{"name": "customer", "fields": [{"name": "customer_id", "dataType": "varchar", "isUnique": true},
            {"name": "tenureMonths", "dataType": "integer"}]}"#,
        )
        .await;
    let path = format!("/api/v1/schemas/{schema}/rows");
    let bad =
        "{\"customer_id\": \"c\", \"tenureMonths\": 1.5}\n{\"tenureMonths\": 1}\n{\"customer_id\": \"d\", \"x\": 1}\n";
    let reply = node.call("POST", &path, bad).await;
    let lines: Vec<_> = reply.json()["lines"].as_array().unwrap().iter().map(|line| line["line"].clone()).collect();
    assert_eq!((reply.status, lines), (StatusCode::BAD_REQUEST, vec![json!(1), json!(2), json!(3)]));
    assert_eq!(node.ok("POST", &path, "{\"customer_id\": \"c\", \"tenureMonths\": 36}\n").await["rows"], 1);
    assert_eq!(node.call("POST", "/api/v1/schemas/none/rows", "").await.status, StatusCode::NOT_FOUND);
}
