//! `proffer`: one binary, the whole system.

use std::process::ExitCode;

use clap::Parser;
use proffer_node::cli::{
    Cli, Command, bench, cluster, decide, demo, demo_cluster, import, recover_meta, replay, serve,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("PROFFER_LOG")
                .unwrap_or_else(|_| proffer_cluster::LOG_FILTER.into()),
        )
        .init();
    match cli.command {
        Command::Serve(args) => serve::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Decide(args) => decide::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::DemoCluster(args) => demo_cluster::run(args).await,
        Command::Cluster(args) => cluster::run(args).await,
        Command::RecoverMeta(args) => recover_meta::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Ceiling(args) => bench::serve_ceiling(args).await,
    }
}
