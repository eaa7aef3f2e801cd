//! Many runs, each in a process of its own: what they covered and what they found.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proffer_cluster::planted::Bug;
use proffer_tests::run::SOMETIMES;
use serde_json::{Value, json};

/// SIGHUP, SIGINT, SIGKILL and SIGTERM: no process does this to itself.
const ENDED_FROM_OUTSIDE: [i32; 4] = [1, 2, 9, 15];
/// Below so many seeds, nothing that a batch has to reach is missed.
const SEEDS_TO_REACH_ALL: u64 = 60;

/// One seed in a process of its own: its report, or why there is none. Ended from outside it tells nothing of the seed: so does this program
/// then.
fn one(seed: u64, seconds: u64, bug: Option<Bug>) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--json", "--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    if let Some(bug) = bug {
        command.args(["--bug", &format!("{bug:?}"), "--first"]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(signal) = output.status.signal().filter(|signal| ENDED_FROM_OUTSIDE.contains(signal)) {
        eprintln!("seed {seed} was ended by signal {signal}");
        std::process::exit(128 + signal);
    }
    let told = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
    told.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let panic = said.lines().find(|line| line.contains("panicked")).unwrap_or("it said nothing");
        format!("the process ended with {}: {panic}", output.status)
    })
}

/// What runs came to, a line each, where a batch that is begun again finds it.
struct Kept {
    path: Option<PathBuf>,
    lines: Vec<Value>,
}

impl Kept {
    fn open(path: Option<PathBuf>) -> anyhow::Result<Self> {
        let text = match &path {
            Some(path) if path.exists() => std::fs::read_to_string(path)?,
            Some(_) | None => String::new(),
        };
        // The last line may be torn.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Kept { path, lines })
    }

    fn add(&mut self, line: Value) {
        if let Some(path) = &self.path {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| writeln!(file, "{line}")) {
                eprintln!("{}: {error}", path.display());
            }
        }
        self.lines.push(line);
    }
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

/// Runs many seeds and tells what they came to. Those that `kept` has are not run again.
pub fn many(seeds: Range<u64>, jobs: usize, seconds: u64, kept: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let kept = Kept::open(kept)?;
    let known: BTreeSet<u64> = kept.lines.iter().filter_map(|line| line["seed"].as_u64()).collect();
    let kept = Mutex::new(kept);
    in_parallel(seeds.clone(), jobs, |seed| {
        if !known.contains(&seed) {
            let line = one(seed, seconds, None).unwrap_or_else(|why| json!({"seed": seed, "violations": [why]}));
            if let Some(what) = line["violations"][0].as_str() {
                eprintln!("seed {seed}: {what}");
            }
            kept.lock().expect("no holder panics").add(line);
        }
        false
    });
    let kept = kept.into_inner().expect("no holder panics");
    let mut sum = Sum::default();
    let is_meant = |line: &&Value| line["seed"].as_u64().is_some_and(|seed| seeds.contains(&seed));
    kept.lines.iter().filter(is_meant).for_each(|line| sum.add(line));
    Ok(tell(&sum, seeds, seconds))
}

fn tell(sum: &Sum, seeds: Range<u64>, seconds: u64) -> ExitCode {
    println!("| | |\n|---|---|");
    println!("| seeds {}..{}, {seconds} s of faults each | {} runs |", seeds.start, seeds.end, sum.runs);
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
    println!("\n{} of {} seeds failed", sum.failed.len(), sum.runs);
    if sum.failed.is_empty() && missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Looks for planted faults and tells how many seeds each took: for all of them in a few seeds, then for those that are left in more, so
/// that what is found easily is told first. What `kept` has is not looked for again.
pub fn planted(
    only: Option<Bug>,
    seeds: u64,
    jobs: usize,
    seconds: u64,
    kept: Option<PathBuf>,
) -> anyhow::Result<ExitCode> {
    let bugs = || Bug::ALL.into_iter().filter(|bug| only.is_none_or(|only| only == *bug));
    let mut kept = Kept::open(kept)?;
    let mut tried: BTreeMap<String, u64> = BTreeMap::new();
    let mut found: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for line in &kept.lines {
        let Some(name) = line["bug"].as_str() else { continue };
        match (line["seed"].as_u64(), line["by"].as_str(), line["tried"].as_u64()) {
            (Some(seed), Some(by), _) => drop(found.insert(name.to_owned(), (seed, by.to_owned()))),
            (.., Some(through)) => drop(tried.insert(name.to_owned(), through)),
            (..) => {}
        }
    }
    let mut budget = 4;
    while budget < 2 * seeds {
        for bug in bugs() {
            let name = format!("{bug:?}");
            let begin = tried.get(&name).copied().unwrap_or(0) + 1;
            let end = budget.min(seeds) + 1;
            if found.contains_key(&name) || begin >= end {
                continue;
            }
            match first_of(bug, begin..end, jobs, seconds) {
                Some((seed, what)) => {
                    eprintln!("{name}: seed {seed}: {what}");
                    kept.add(json!({"bug": name, "seed": seed, "by": what}));
                    found.insert(name, (seed, what));
                }
                None => {
                    kept.add(json!({"bug": name, "tried": end - 1}));
                    tried.insert(name, end - 1);
                }
            }
        }
        budget *= 2;
    }
    println!("| planted | seeds until found | by |\n|---|---|---|");
    let mut missed = 0;
    for name in bugs().map(|bug| format!("{bug:?}")) {
        match found.get(&name) {
            Some((seed, what)) => println!("| {name} | {seed} | {} |", what.chars().take(140).collect::<String>()),
            None => {
                missed += 1;
                println!("| {name} | not in {} | |", tried.get(&name).copied().unwrap_or(0));
            }
        }
    }
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first of these seeds that finds the fault, and by what. One that finds something without it does not count.
fn first_of(bug: Bug, seeds: Range<u64>, jobs: usize, seconds: u64) -> Option<(u64, String)> {
    let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
    in_parallel(seeds, jobs, |seed| {
        let what = match one(seed, seconds, Some(bug)) {
            Ok(report) => report["violations"][0].as_str().map(str::to_owned),
            Err(why) => Some(why),
        };
        let Some(what) = what else { return false };
        let is_clean = one(seed, seconds, None).is_ok_and(|report| report["violations"][0].is_null());
        if !is_clean {
            eprintln!("seed {seed} fails without {bug:?}, too");
            return false;
        }
        let mut found = found.lock().expect("no holder panics");
        if found.as_ref().is_none_or(|(earlier, _)| seed < *earlier) {
            *found = Some((seed, what));
        }
        true
    });
    found.into_inner().expect("no holder panics")
}
