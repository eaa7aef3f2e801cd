//! One short run against real processes, as it is made by hand for minutes: nodes are killed, stopped and cut off, and all that their clients saw holds.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The binary of this very source: built by whoever runs all tests, or now.
fn proffer(chaos: &Path) -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "proffer-node", "--bin", "proffer"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success(), "proffer cannot be built");
    let binary = chaos.with_file_name("proffer");
    assert!(binary.exists(), "{} is not there", binary.display());
    binary
}

#[test]
fn killed_stopped_and_cut_off_nodes_lose_nothing_and_sell_no_unit_twice() {
    let chaos = Path::new(env!("CARGO_BIN_EXE_proffer-chaos"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let seed: u64 = std::env::var("PROFFER_CHAOS_SEED").map_or_else(|_| 7, |seed| seed.parse().expect("a number"));
    let mut run = Command::new(chaos);
    run.args(["--minutes", "0.3", "--nodes", "3", "--nemesis", "kill,pause,partition", "--clients", "12"]);
    run.args(["--seed", &seed.to_string(), "--binary"]).arg(proffer(chaos)).arg("--out").arg(out.path());
    let run = run.output().expect("the binary runs");
    let told = String::from_utf8_lossy(&run.stdout);
    if !run.status.success() {
        // The history and the logs are what a failure is understood by.
        let kept = out.keep();
        let said = String::from_utf8_lossy(&run.stderr);
        panic!("seed {seed}: {}\n{said}\n{told}\nkept in {}", run.status, kept.display());
    }
    let report = std::fs::read(out.path().join("report.json")).expect("there is a report");
    let report: Value = serde_json::from_slice(&report).expect("it is JSON");
    assert_eq!(report["passed"], true, "{told}");
    let faults = report["faults"].as_array().expect("a list");
    assert!(faults.iter().any(|fault| fault["hitALeader"] == true), "no leader was hit: {told}");
    assert!(out.path().join("history.jsonl").exists() && out.path().join("throughput.svg").exists());
}
