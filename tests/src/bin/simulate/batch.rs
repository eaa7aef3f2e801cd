//! Many runs, each in a process of its own: what they covered and what they found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proffer_cluster::planted::Bug;
use proffer_tests::run::SOMETIMES;
use serde_json::Value;

/// Below so many seeds, nothing that a batch has to reach is missed.
const SEEDS_TO_REACH_ALL: u64 = 60;

/// One seed in a process of its own: its report, or why there is none.
fn one(seed: u64, seconds: u64, bug: Option<Bug>) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--json", "--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", &format!("{bug:?}")]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    told.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let panic = said.lines().find(|line| line.contains("panicked")).unwrap_or("it said nothing");
        format!("the process ended with {}: {panic}", output.status)
    })
}

/// Calls `each` with every seed, several at a time, until it says that that is enough.
fn in_parallel(seeds: Range<u64>, jobs: usize, each: impl Fn(u64) -> bool + Sync) {
    let (next, is_over) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        break;
                    }
                    if each(seed) {
                        is_over.store(true, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

#[derive(Default)]
struct Sum {
    runs: u64,
    simulated_ms: u64,
    looks: u64,
    calls: [u64; 4],
    struck: BTreeMap<String, u64>,
    sometimes: BTreeMap<String, u64>,
    failed: BTreeMap<u64, Vec<String>>,
}

impl Sum {
    fn add(&mut self, report: &Value) {
        let number = |name: &str| report[name].as_u64().unwrap_or(0);
        self.runs += 1;
        self.simulated_ms += number("simulatedMs");
        self.looks += number("looks");
        for (sum, name) in self.calls.iter_mut().zip(["ok", "failed", "unknown", "repeated"]) {
            *sum += number(name);
        }
        for (kind, count) in report["struck"].as_object().into_iter().flatten() {
            *self.struck.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        for reached in report["sometimes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            *self.sometimes.entry(reached.to_owned()).or_default() += 1;
        }
        let violations: Vec<String> = report["violations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|violation| violation.as_str().map(str::to_owned))
            .collect();
        if !violations.is_empty() {
            self.failed.insert(number("seed"), violations);
        }
    }
}

/// Runs many seeds and tells what they came to.
pub fn many(seeds: Range<u64>, jobs: usize, seconds: u64) -> anyhow::Result<ExitCode> {
    let sum = Mutex::new(Sum::default());
    in_parallel(seeds.clone(), jobs, |seed| {
        let told = one(seed, seconds, None);
        let mut sum = sum.lock().expect("no holder panics");
        match told {
            Ok(report) => sum.add(&report),
            Err(why) => drop(sum.failed.insert(seed, vec![why])),
        }
        if let Some(violations) = sum.failed.get(&seed) {
            eprintln!("seed {seed}: {}", violations.first().map_or("", String::as_str));
        }
        false
    });
    let sum = sum.into_inner().expect("no holder panics");
    println!("| | |\n|---|---|");
    println!("| seeds {}..{} | {} runs |", seeds.start, seeds.end, sum.runs);
    println!("| simulated | {:.2} hours |", sum.simulated_ms as f64 / 3.6e6);
    let [ok, failed, unknown, repeated] = sum.calls;
    println!("| calls | {ok} answered, {failed} refused, {unknown} unknown, {repeated} attempts repeated |");
    println!("| states looked at | {} |", sum.looks);
    println!("\n| fault | times |\n|---|---|");
    sum.struck.iter().for_each(|(kind, count)| println!("| {kind} | {count} |"));
    println!("\n| reached | in runs |\n|---|---|");
    let mut missed = BTreeSet::new();
    for reached in SOMETIMES {
        let times = sum.sometimes.get(reached).copied().unwrap_or(0);
        println!("| {reached} | {times} |");
        if times == 0 && sum.runs >= SEEDS_TO_REACH_ALL {
            missed.insert(reached);
        }
    }
    for (seed, violations) in &sum.failed {
        println!(
            "\nseed {seed} failed: cargo run --release -p proffer-tests --bin simulate -- --seed {seed} --seconds {seconds} --trace -"
        );
        violations.iter().for_each(|violation| println!("  {violation}"));
    }
    missed.iter().for_each(|missed| println!("\nnever reached: {missed}"));
    println!("\n{} of {} seeds failed", sum.failed.len(), sum.runs.max(sum.failed.len() as u64));
    let is_clean = sum.failed.is_empty() && missed.is_empty();
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks for planted faults and tells how many seeds each took.
pub fn planted(only: Option<Bug>, seeds: u64, jobs: usize, seconds: u64) -> anyhow::Result<ExitCode> {
    println!("| planted | seeds until found | by |\n|---|---|---|");
    let mut missed = 0;
    for bug in Bug::ALL.into_iter().filter(|bug| only.is_none_or(|only| only == *bug)) {
        let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
        in_parallel(1..seeds + 1, jobs, |seed| {
            let what = match one(seed, seconds, Some(bug)) {
                Ok(report) => report["violations"][0].as_str().map(str::to_owned),
                Err(why) => Some(why),
            };
            let Some(what) = what else { return false };
            let mut found = found.lock().expect("no holder panics");
            if found.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
                *found = Some((seed, what));
            }
            true
        });
        match found.into_inner().expect("no holder panics") {
            Some((seed, what)) => println!("| {bug:?} | {seed} | {} |", what.chars().take(140).collect::<String>()),
            None => {
                missed += 1;
                println!("| {bug:?} | not in {seeds} | |");
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
