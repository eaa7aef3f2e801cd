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
async fn every_bad_line_is_told_whoever_finds_it() {
    let node = Node::start(None);
    let files = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    let lines = [
        "{\"name\": \"one\"}",
        "{\"name\": ",
        "{\"name\": \"two\", \"priority\": 101}",
        "no",
        "{\"name\": \"x\", \"name\": \"y\"}",
    ];
    std::fs::write(path("offers.ndjson"), lines.join("\n")).expect("written");
    std::fs::write(path("profiles.csv"), "customerId,age\nann,9007199254740993\nbob\ncid,7\n").expect("written");
    std::fs::write(path("twice.csv"), "customerId,age,age\nann,1,2\n").expect("written");
    let refused = |arguments: &[&str]| {
        let output = run(&node, arguments);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let said = refused(&["import", &path("offers.ndjson")]);
    for line in 2..=5 {
        assert!(said.contains(&format!("offers.ndjson:{line}: ")), "{said}");
    }
    assert!(said.contains("4 faults"), "{said}");
    let said = refused(&["import", &path("profiles.csv")]);
    assert!(said.contains("profiles.csv:2: ") && said.contains("profiles.csv:3: "), "{said}");
    let said = refused(&["import", "--kind", "profiles", &path("twice.csv")]);
    assert!(said.contains("\"age\""), "{said}");
    assert_eq!(node.client().get("/offers").await.expect("offers")["items"], json!([]));
    assert!(node.client().get("/profiles/cid").await.is_err());
}

#[tokio::test]
async fn rows_are_imported_by_the_name_of_their_schema() {
    let node = Node::start(None);
    let client = node.client();
    let fields = json!([{"name": "customer_id", "dataType": "varchar", "isUnique": true}, {"name": "tenure", "dataType": "integer"}]);
    client.post("/schemas", &json!({"name": "core/customer rows", "fields": fields})).await.expect("schema");
    let files = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| files.path().join(name).display().to_string();
    std::fs::write(path("rows.csv"), "customer_id,tenure\n42,36\n").expect("written");
    std::fs::write(path("bad.ndjson"), "{\"customer_id\": \"43\", \"tenure\": 1}\n{\"tenure\": 2}\n").expect("written");
    let import = |file: String, more: &str| {
        let mut arguments = vec!["import", "--kind", "rows:core/customer rows"];
        arguments.extend((!more.is_empty()).then_some(more));
        run(&node, &[arguments.as_slice(), &[file.as_str()]].concat())
    };
    let dry = import(path("rows.csv"), "--dry-run");
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(client.get("/profiles/42").await.is_err(), "a dry run stores nothing");
    for _ in 0..2 {
        let written = import(path("rows.csv"), "");
        assert!(written.status.success(), "{}", text(&written.stderr));
    }
    let profile = client.get("/profiles/42").await.expect("profile");
    assert_eq!(profile["rows"]["core/customer rows"]["tenure"], 36, "{profile}");
    let bad = import(path("bad.ndjson"), "");
    assert!(!bad.status.success() && text(&bad.stderr).contains("bad.ndjson:2: "), "{}", text(&bad.stderr));
    assert!(client.get("/profiles/43").await.is_err(), "nothing of a refused file is written");
}

#[tokio::test]
async fn a_file_of_kinds_that_refer_to_each_other_is_imported_whole_or_not_at_all() {
    let node = Node::start(None);
    let files = tempfile::tempdir().expect("a temporary directory");
    let file = files.path().join("all.json");
    let mut kinds = json!({
        "activities": [{"name": "Top", "collectionId": "All", "placementId": "hero", "fallbackOfferId": "Last"}],
        "channels": [{"name": "web"}],
        "collections": [{"name": "All"}],
        "creatives": [{"name": "L", "offerId": "Last", "channelId": "web", "status": "active", "contentType": "text", "content": {"t": 1}}],
        "offers": [{"name": "Last", "kind": "fallback", "status": "active"}, {"name": "A", "priority": 101}],
        "placements": [{"name": "hero", "channelId": "web"}],
        "profiles": [{"customerId": "ann"}],
    });
    std::fs::write(&file, kinds.to_string()).expect("written");
    let refused = run(&node, &["import", &file.display().to_string()]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("all.json:offers/2: /priority"), "{}", text(&refused.stderr));
    assert_eq!(node.client().get("/channels").await.expect("channels")["items"], json!([]));
    kinds["offers"][1]["priority"] = json!(100);
    std::fs::write(&file, kinds.to_string()).expect("written");
    for _ in 0..2 {
        let output = run(&node, &["import", &file.display().to_string()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(node.client().get("/activities").await.expect("activities")["items"][0]["name"], "Top");
}

#[test]
fn bench_starts_its_own_node_and_ends_with_both_loads_beside_the_ceiling() {
    let arguments = ["bench", "--offers", "50", "--seconds", "1", "--clients", "2"];
    let output = Command::new(BINARY).args(arguments).output().expect("the binary runs");
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let runs: Vec<Vec<&str>> = said
        .lines()
        .filter(|line| (line.contains(": node ") || line.contains(": ceiling ")) && !line.contains('='))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(runs.len(), 4, "{said}");
    for run in runs {
        let [rate, p50, p99, .., errors] = &run[run.len() - 6..] else { panic!("{said}") };
        let number = |text: &str| text.parse::<f64>().expect("a number");
        assert!(number(rate) > 0.0 && number(p50) > 1.0 && number(p99) >= number(p50), "{said}");
        assert_eq!(*errors, "0", "{said}");
    }
    assert!(said.contains("full load: node / ceiling = ") && said.contains("half load: node / ceiling = "), "{said}");
}

#[test]
fn a_node_is_not_started_open_and_closed_at_once() {
    let output = Command::new(BINARY)
        .args(["serve", "--dev", "--ephemeral", "--listen", "127.0.0.1:0"])
        .env("PROFFER_ADMIN_KEY_FILE", "/nonexistent")
        .output()
        .expect("the binary runs");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("--dev"), "{}", text(&output.stderr));
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
