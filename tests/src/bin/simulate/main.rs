//! Runs simulated clusters: one seed with its story, or many with what they covered, or one planted fault after the other.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it finds is for whoever runs it")]

mod batch;
mod chance;
mod told;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use proffer_cluster::planted::{Bug, CAN_PLANT, plant};
use proffer_tests::run::{Plan, run};
use proffer_tests::sim::trace::{Keep, Trace};

/// A run asks for memory all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A whole cluster in one process, under a seed: the same seed is the same run.
#[derive(Debug, Parser)]
struct Arguments {
    /// Runs one seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs many, each in a process of its own: A..B, without B.
    #[arg(long, value_parser = range)]
    seeds: Option<Range<u64>>,
    /// Simulated seconds in which things go wrong.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Nodes at the beginning, in place of a drawn number.
    #[arg(long)]
    nodes: Option<usize>,
    /// Where the story is written to; - is standard output.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// The story tells of each piece that crossed the network, too.
    #[arg(long)]
    bytes: bool,
    /// Processes at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Looks for each planted fault until a seed finds it, in so many seeds at most. Takes a build with the feature `planted`.
    #[arg(long, num_args = 0..=1, default_missing_value = "500")]
    planted: Option<u64>,
    /// This fault only, or in the run of one seed.
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Where what each seed of a batch came to is kept as it comes, and found again by the same batch, begun anew.
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Ends with the first violation.
    #[arg(long)]
    first: bool,
    /// One line of JSON in place of words.
    #[arg(long, hide = true)]
    json: bool,
}

const UNPLANTABLE: &str = "nothing can be planted in this build: it takes --features proffer-cluster/planted";

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("it looks like 1..100")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(number(from)?..number(to)?)
}

fn bug(text: &str) -> Result<Bug, String> {
    let known = Bug::ALL.into_iter().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(text));
    known.ok_or_else(|| format!("one of {:?}", Bug::ALL))
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(seeds) = arguments.planted {
        // Each run would end at once, and that looks as if it had found something.
        anyhow::ensure!(CAN_PLANT, UNPLANTABLE);
        return batch::planted(arguments.bug, seeds, arguments.jobs, arguments.seconds, arguments.kept);
    }
    if let Some(seeds) = arguments.seeds {
        return batch::many(seeds, arguments.jobs, arguments.seconds, arguments.kept);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    if let Some(bug) = arguments.bug {
        anyhow::ensure!(CAN_PLANT, UNPLANTABLE);
        plant(bug);
    }
    let keep = match (&arguments.trace, arguments.bytes) {
        (None, _) => Keep::Hash,
        (Some(_), false) => Keep::Story,
        (Some(_), true) => Keep::Bytes,
    };
    let trace = Trace::new(keep);
    let plan = Plan {
        seed: arguments.seed,
        faults_ms: arguments.seconds * 1_000,
        nodes: arguments.nodes,
        ends_at_first: arguments.first,
    };
    let report = run(plan, trace.clone());
    if let Some(path) = arguments.trace {
        let story = trace.lines().join("\n");
        if path.as_os_str() == "-" {
            println!("{story}");
        } else {
            std::fs::write(&path, story).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("{}", if arguments.json { told::as_json(&report).to_string() } else { told::in_words(&report) });
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
