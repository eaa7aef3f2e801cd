//! The cross-sell tutorial, its curl commands unchanged but for host and key.

use std::process::Command;

use crate::process::Node;

#[test]
fn the_tutorial_script_gets_exactly_the_offers_its_rules_leave() {
    let node = Node::start(None);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/scripts/cross_sell.sh");
    let output = Command::new("bash").args([script, &node.url]).output().expect("bash, curl and jq are installed");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
