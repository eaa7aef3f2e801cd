//! `proffer-chaos`: faults against real processes. Ends with 1 if anything did not hold, with 2 if it could not be run.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use proffer_chaos::nemesis::Kind;
use proffer_chaos::run::{Settings, run};
use tokio::signal::unix::{SignalKind, signal};

/// Starts a cluster of `proffer` processes with a proxy on every link, loads it, injects faults, heals it, and checks what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "proffer-chaos", version)]
struct Args {
    /// For how many minutes there are faults.
    #[arg(long, default_value_t = 3.0)]
    minutes: f64,
    /// All draws come from it [default: a fresh one].
    #[arg(long)]
    seed: Option<u64>,
    /// Which faults.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "kill,pause,partition,restart,wipe,corrupt,membership"
    )]
    nemesis: Vec<Kind>,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// How many shards.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// How many clients at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256))]
    clients: u64,
    /// The `proffer` binary [default: the one beside this].
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Where history, report, and the nodes' data and logs go.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
}

impl Args {
    fn settings(self) -> anyhow::Result<Settings> {
        let binary = match self.binary {
            Some(binary) => binary,
            None => std::env::current_exe()?.with_file_name("proffer"),
        };
        if !binary.exists() {
            bail!(
                "there is no {}: build it (cargo build -p proffer-node, with the same profile), or give --binary",
                binary.display()
            );
        }
        let faults = Duration::try_from_secs_f64(self.minutes * 60.0).context("--minutes cannot be waited for")?;
        let mut kinds = self.nemesis;
        kinds.sort_unstable();
        kinds.dedup();
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        let (nodes, shards, clients) = (usize::from(self.nodes), self.shards, self.clients);
        Ok(Settings { binary, out: self.out, seed, faults, kinds, nodes, shards, clients })
    }
}

fn main() -> ExitCode {
    match try_main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("proffer-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn try_main() -> anyhow::Result<bool> {
    let settings = Args::parse().settings()?;
    eprintln!("seed {}", settings.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // The nodes end with what holds them.
        tokio::select! {
            biased;
            report = run(&settings) => report,
            stopped = tokio::signal::ctrl_c() => stopped.map_err(anyhow::Error::from).and_then(|()| bail!("told to stop")),
            _ = terminate.recv() => bail!("told to stop"),
        }
    })?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", report.markdown())?;
    writeln!(out, "\n{}", settings.out.join("report.md").display())?;
    Ok(report.passed)
}
