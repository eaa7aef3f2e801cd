//! The command line against a running node.

use std::process::{Command, Output};

use serde_json::json;

use crate::process::{BINARY, Node};

fn run(node: &Node, arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).env("PROFFER_URL", &node.url).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn import_takes_json_ndjson_and_csv_and_a_rerun_changes_nothing() {
    let node = Node::start(None);
    let files = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("channels.json"), r#"[{"name": "web"}, {"name": "email"}]"#).expect("written");
    std::fs::write(
        path("offers.ndjson"),
        "{\"name\": \"one\", \"status\": \"active\"}\n\n{\"name\": \"two\", \"status\": \"active\", \"tags\": [\"new\"]}\n",
    )
    .expect("written");
    std::fs::write(path("profiles.csv"), "customerId,age,segments\nann,41,gold|new\nbob,17,\n").expect("written");
    for _ in 0..2 {
        let output = run(&node, &["import", &path("channels.json"), &path("offers.ndjson"), &path("profiles.csv")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let client = node.client();
    assert_eq!(client.get("/offers").await.expect("offers")["items"].as_array().map(Vec::len), Some(2));
    let ann = client.get("/profiles/ann").await.expect("profile");
    assert_eq!((&ann["attributes"]["age"], &ann["segments"]), (&json!(41), &json!(["gold", "new"])));
}

#[tokio::test]
async fn a_file_with_one_bad_line_writes_nothing_and_names_the_line() {
    let node = Node::start(None);
    let files = tempfile::tempdir().expect("a temporary directory");
    let file = files.path().join("offers.ndjson");
    std::fs::write(&file, "{\"name\": \"fine\"}\n{\"name\": \"bad\", \"priority\": 101}\n").expect("written");
    let output = run(&node, &["import", &file.display().to_string()]);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("offers.ndjson:2: ") && said.contains("/priority"), "{said}");
    assert_eq!(node.client().get("/offers").await.expect("offers")["items"], json!([]));
}

#[tokio::test]
async fn decide_prints_a_table_with_what_was_removed_and_why() {
    let node = Node::start(None);
    let client = node.client();
    client.post("/offers", &json!({"name": "for all", "status": "active"})).await.expect("offer");
    let barred = client.post("/offers", &json!({"name": "for gold", "status": "active"})).await.expect("offer");
    client
        .post(
            "/qualification-rules",
            &json!({"name": "gold only", "ruleType": "segment_required", "scope": "offer", "scopeId": barred["id"],
                    "config": {"requiredSegments": ["gold"]}}),
        )
        .await
        .expect("rule");
    let output = run(&node, &["decide", "--customer", "ann"]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.contains("for all") && said.contains("2 candidates → 1 qualified"), "{said}");
    let gold = run(&node, &["decide", "--customer", "ann", "--segment", "gold", "--json"]);
    assert!(text(&gold.stdout).contains("for gold"), "{}", text(&gold.stdout));
}

#[test]
fn a_refused_call_ends_with_an_error_and_its_reason() {
    let node = Node::start(None);
    let output = run(&node, &["decide", "--customer", "ann", "--channel", "nowhere"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("nowhere"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn demo_shows_decisions_and_keeps_serving() {
    let mut command = Command::new(BINARY);
    command.args(["demo", "--listen", "127.0.0.1:0"]);
    let node = Node::spawn(command);
    let client = node.client();
    client.wait_ready(std::time::Duration::from_secs(10)).await.expect("ready");
    let patience = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let answer = client
            .post("/recommend", &json!({"customerId": "member-1", "channel": "web", "decisionFlowKey": "rewards"}))
            .await;
        if answer.is_ok_and(|answer| answer["count"] == 3) {
            break;
        }
        assert!(tokio::time::Instant::now() < patience, "the demo's catalogue did not come up");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
