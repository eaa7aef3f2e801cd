//! The simulator in short: a seed is one run, whichever process runs it, and everything holds in it. `simulate --seeds` runs many
//! (docs/testing.md).

use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A minute would take a debug build too long.
const SECONDS: &str = "5";
const SEED: &str = "3";

fn begin() -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.args(["--json", "--nodes", "3", "--seconds", SECONDS, "--seed", SEED]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

fn end(process: Child) -> Value {
    let output = process.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("it writes text");
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    report.unwrap_or_else(|| panic!("seed {SEED}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_seed_is_the_same_run_in_every_process_and_everything_holds_in_it() {
    let (one, other) = (begin(), begin());
    let (one, other) = (end(one), end(other));
    assert_eq!(one, other);
    assert_eq!(one["violations"], serde_json::json!([]), "simulate --nodes 3 --seconds {SECONDS} --seed {SEED}");
    assert!(one["ok"].as_u64().unwrap() > 50, "clients were answered: {one}");
    assert!(one["looks"].as_u64().unwrap() > 50, "states were looked at: {one}");
}
