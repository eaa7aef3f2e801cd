//! The command line: one file a command.

use clap::{Parser, Subcommand};

pub mod bench;
mod bench_cluster;
pub mod cluster;
pub mod decide;
pub mod demo;
pub mod demo_cluster;
pub mod import;
mod lines;
pub mod recover_meta;
pub mod replay;
pub mod serve;
pub mod table;

/// Proffer: the best offer for this customer, here, now.
#[derive(Debug, Parser)]
#[command(name = "proffer", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Serve(serve::ServeArgs),
    /// Bring entities or profiles into a running node.
    Import(import::ImportArgs),
    /// Ask a running node for a decision.
    Decide(decide::DecideArgs),
    /// Decide again what a trace holds, and say whether it comes to the same.
    Replay(replay::ReplayArgs),
    /// Start a node with sample data, show decisions, keep serving.
    Demo(demo::DemoArgs),
    /// Start a cluster of processes on this machine with sample data, keep serving.
    DemoCluster(demo_cluster::DemoClusterArgs),
    /// Look at a running cluster and change who is in it.
    Cluster(cluster::ClusterArgs),
    /// Make a stopped node's disk all there is of its cluster, because the majority of the catalogue is lost for good.
    RecoverMeta(recover_meta::RecoverMetaArgs),
    /// Load a running node over HTTP and print latencies.
    Bench(bench::BenchArgs),
    /// Run the HTTP ceiling that `bench` compares with.
    #[command(hide = true)]
    Ceiling(bench::CeilingArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
