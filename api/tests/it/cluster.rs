//! `/cluster/…` of a cluster of one.

use axum::http::StatusCode;
use proffer_engine::catalog::Role;
use serde_json::json;

use crate::node::Node;

#[tokio::test]
async fn a_node_alone_says_that_nothing_may_be_lost() {
    let node = Node::start().await;
    let status = node.ok("GET", "/cluster/status", "").await;
    assert_eq!(
        (&status["redundancy"], &status["isReady"], &status["shards"]),
        (&json!("none"), &json!(true), &json!(2))
    );
    assert_eq!((&status["node"], &status["metaLeader"]), (&json!("n1"), &json!("n1")));
    let listed = status["nodes"].as_array().unwrap();
    assert_eq!(listed.len(), 1, "{status}");
    assert_eq!(
        (&listed[0]["node"], &listed[0]["standing"], &listed[0]["isUp"]),
        (&json!("n1"), &json!("up"), &json!(true))
    );
    assert_eq!((&listed[0]["leads"], &listed[0]["replicas"]), (&json!(3), &json!(3)), "the catalogue and two shards");
    let shards = node.ok("GET", "/cluster/shards", "").await;
    let names: Vec<_> = shards["shards"].as_array().unwrap().iter().map(|shard| shard["shard"].clone()).collect();
    assert_eq!(names, [json!("meta"), json!(0), json!(1)]);
    for shard in shards["shards"].as_array().unwrap() {
        assert_eq!(
            (&shard["leader"], &shard["voters"], &shard["target"]),
            (&json!("n1"), &json!(["n1"]), &json!(null))
        );
    }
}

#[tokio::test]
async fn a_customer_is_located_without_being_known() {
    let node = Node::start().await;
    let there = node.ok("GET", "/cluster/locate?customerId=ann%20b", "").await;
    assert_eq!((&there["customerId"], &there["leader"]), (&json!("ann b"), &json!("n1")));
    assert!(there["shard"].as_u64() < Some(2) && there["httpAddress"].is_string(), "{there}");
    let reply = node.call("GET", "/cluster/locate", "").await;
    assert_eq!(reply.pointers(), ["/query/customerId"]);
}

#[tokio::test]
async fn what_an_operator_cannot_have_is_refused_with_a_reason() {
    let node = Node::start().await;
    for (path, body) in [
        ("/cluster/nodes/n9/drain", ""),
        ("/cluster/nodes/n9/undrain", ""),
        ("/cluster/nodes/n9/remove", ""),
        ("/cluster/nodes/n1/remove", r#"{"reduceRedundancy": true}"#),
        ("/cluster/shards/99/transfer", r#"{"node": "n1"}"#),
        ("/cluster/shards/0/transfer", r#"{"node": "n9"}"#),
    ] {
        let reply = node.call("POST", path, body).await;
        assert_eq!(reply.status, StatusCode::CONFLICT, "{path}: {reply:?}");
        assert!(!reply.json()["detail"].as_str().unwrap().is_empty());
    }
    for (path, body, pointer) in [
        ("/cluster/nodes/web/drain", "", "/path/node"),
        ("/cluster/shards/x/transfer", r#"{"node": "n1"}"#, "/path/shard"),
        ("/cluster/shards/0/transfer", r#"{"node": 1}"#, "/node"),
        ("/cluster/shards/0/transfer", "{}", "/node"),
        ("/cluster/nodes/n1/remove", r#"{"force": true}"#, "/force"),
        ("/cluster/nodes/n1/remove?force=1", "", "/query/force"),
    ] {
        let reply = node.call("POST", path, body).await;
        assert_eq!(
            (reply.status, reply.pointers()),
            (StatusCode::BAD_REQUEST, vec![pointer.to_owned()]),
            "{path} {body}"
        );
    }
}

#[tokio::test]
async fn an_operator_is_told_what_comes_of_it() {
    let node = Node::start().await;
    for (path, body) in [("/cluster/rebalance", ""), ("/cluster/shards/0/transfer", r#"{"node": "n1"}"#)] {
        let done = node.ok("POST", path, body).await;
        assert!(!done["message"].as_str().unwrap().is_empty(), "{done}");
    }
    let refused = node.call_as(Role::Editor, "POST", "/cluster/rebalance", "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(node.call_as(Role::Viewer, "GET", "/cluster/shards", "").await.status, StatusCode::OK);
}
