//! One short run against real processes, as it is made by hand for minutes: nodes are killed, stopped and cut off, and all that their clients saw holds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

/// The binary beside ours. `cargo test --workspace` builds it; one that is older than what it was built of would say nothing of that.
fn proffer(chaos: &Path) -> PathBuf {
    let binary = chaos.with_file_name("proffer");
    let again = "build it with `cargo build -p proffer-node`, in the same profile";
    let built = modified(&binary).unwrap_or_else(|| panic!("there is no {}: {again}", binary.display()));
    // Cargo leaves beside it what it was built of: files that only tests are built of are not among them.
    let sources = std::fs::read_to_string(binary.with_extension("d")).expect("cargo says what the binary is built of");
    let (_, sources) = sources.split_once(": ").expect("a target and what it is built of");
    // A space in a path is escaped.
    for source in sources.trim_end().replace("\\ ", "\0").split(' ').map(|source| source.replace('\0', " ")) {
        let is_older = modified(Path::new(&source)).is_none_or(|changed| changed > built);
        assert!(!is_older, "{} is older than {source}: {again}", binary.display());
    }
    binary
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
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
