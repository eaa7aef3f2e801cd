//! The simulator in short: seeds that are always run and some that never were, one of them twice, and faults that are planted and have to
//! be found. `simulate --seeds` and `simulate --planted` run many (docs/testing.md).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

/// A minute would take a debug build too long.
const SECONDS: u64 = 5;
/// Always the same: each with other nodes, shards and faults.
const FIXED: RangeInclusive<u64> = 1..=50;
/// So many more that nobody has seen before.
const FRESH: u64 = 10;
/// Run twice.
const TWICE: u64 = 3;
/// Found within few seeds, and by which: the others are looked for by `simulate --planted`.
const PLANTED: [(&str, u64); 3] = [("EscrowPerNode", 1), ("KeysForgottenOnFailover", 1), ("ReadsWithoutLease", 1)];

fn simulate(seed: u64, more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.args(["--json", "--seconds", &SECONDS.to_string(), "--seed", &seed.to_string()]).args(more);
    let output = command.stdin(Stdio::null()).output().expect("the binary runs");
    let text = String::from_utf8(output.stdout).expect("it writes text");
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    report.unwrap_or_else(|| panic!("seed {seed}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Calls `each` with all of these, two at a time.
fn two_at_a_time<T: Copy + Send + Sync>(of: &[T], each: impl Fn(T) + Sync) {
    let rest = Mutex::new(of.iter().copied());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = rest.lock().expect("no holder panics").next();
                    match next {
                        Some(next) => each(next),
                        None => break,
                    }
                }
            });
        }
    });
}

#[test]
fn whole_clusters_keep_their_promises_under_faults_and_a_seed_is_one_run_in_every_process() {
    let fresh = RandomState::new().hash_one(FRESH) % 1_000_000_000;
    let seeds: Vec<u64> = FIXED.chain(fresh..fresh + FRESH).chain([TWICE]).collect();
    println!("simulate --seconds {SECONDS} --seed each of {seeds:?}");
    let reports = Mutex::new(Vec::new());
    two_at_a_time(&seeds, |seed| {
        let report = simulate(seed, &[]);
        assert_eq!(report["violations"], json!([]), "simulate --seconds {SECONDS} --seed {seed} --trace -");
        assert!(report["looks"].as_u64().unwrap() > 20, "states were looked at: {report}");
        reports.lock().unwrap().push(report);
    });
    let reports = reports.into_inner().unwrap();
    let sum = |name: &str| reports.iter().filter_map(|report| report[name].as_u64()).sum::<u64>();
    assert!(sum("ok") > 50 * seeds.len() as u64, "clients were answered");
    let of_one: Vec<&Value> = reports.iter().filter(|report| report["seed"] == TWICE).collect();
    assert_eq!(of_one.len(), 2);
    assert_eq!(of_one[0], of_one[1], "with the hash over every byte that crossed the network");
}

#[test]
fn planted_faults_are_found() {
    two_at_a_time(&PLANTED, |(bug, seed)| {
        let report = simulate(seed, &["--bug", bug, "--first"]);
        assert_ne!(report["violations"], json!([]), "{bug} is not found by seed {seed}");
    });
}
