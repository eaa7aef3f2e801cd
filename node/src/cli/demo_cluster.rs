//! `proffer demo-cluster`: a cluster of real processes with sample data, and then still there to be asked, and to lose nodes.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::time::sleep;

use crate::cli::{cluster, serve};
use crate::compose::DEV_KEY;
use crate::demo::coffee;
use crate::limits::{CLUSTER_LOOK_PAUSE, CLUSTER_NODES_MAX, CLUSTER_READY_MAX};
use crate::processes::{NodeProcess, addresses, wait_whole};

/// Arguments of `proffer demo-cluster`.
#[derive(Debug, clap::Args)]
pub struct DemoClusterArgs {
    /// Nodes, 1 to 9.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(CLUSTER_NODES_MAX)))]
    nodes: u16,
    /// Port of the first node; the others follow, and those for nodes among themselves lie 100 above. 0 picks free ones.
    #[arg(long, default_value_t = 7070)]
    port: u16,
}

/// Seed of the generated members.
const SEED: u64 = 7;

/// Runs the command.
///
/// # Errors
/// When a node does not start, the cluster does not become whole, or it refuses the sample data.
pub async fn run(args: DemoClusterArgs) -> anyhow::Result<()> {
    let directory = Directory::new()?;
    let mut nodes = Vec::new();
    let shown = tokio::select! {
        biased;
        stopped = serve::stop_signal() => stopped,
        shown = show(&args, directory.path(), &mut nodes) => match shown {
            Ok(()) => tokio::select! {
                biased;
                stopped = serve::stop_signal() => stopped,
                watched = watch(&mut nodes) => watched,
            },
            Err(error) => Err(error),
        },
    };
    for node in &nodes {
        node.terminate();
    }
    for node in nodes {
        node.wait().await?;
    }
    shown
}

/// Starts the nodes, loads the sample data through the last of them, and says how to go on.
async fn show(args: &DemoClusterArgs, directory: &Path, nodes: &mut Vec<NodeProcess>) -> anyhow::Result<()> {
    let addresses = addresses(args.port, args.nodes).await?;
    let first_peer = addresses.first().map(|[_, peer]| *peer);
    for (number, pair) in (1..).zip(&addresses) {
        let join = first_peer.filter(|_| number > 1);
        nodes.push(NodeProcess::start(number, *pair, join, directory).await?);
    }
    let last = nodes.last().context("there is at least one node")?;
    let client = last.client()?;
    wait_whole(&client, nodes.len(), CLUSTER_READY_MAX).await?;
    let members: Vec<_> = (0..coffee::DEMO_MEMBERS).map(|number| coffee::member(SEED, number)).collect();
    coffee::load(&client, &members).await?;
    let status = client.call(reqwest::Method::GET, "/cluster/status", &serde_json::Value::Null).await?;
    let customer = members.first().and_then(|member| member["customerId"].as_str()).context("there are members")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", cluster::status(&status))?;
    writeln!(
        out,
        "10 offers, {} members, loaded through {}. The same answer from every node:\n",
        members.len(),
        last.url()
    )?;
    for node in &*nodes {
        writeln!(
            out,
            "  curl -s {}/api/v1/recommend -H 'X-API-Key: {DEV_KEY}' -H 'Content-Type: application/json' -d '{}'",
            node.url(),
            coffee::request(customer, "web")
        )?;
    }
    writeln!(
        out,
        "\nWatch it with `proffer cluster status --url {}`. Kill a node and ask another. Data and logs: {}. Ctrl-C ends it.",
        last.url(),
        directory.display()
    )?;
    Ok(out.flush()?)
}

/// Says of each node that ends; returns when none is left.
async fn watch(nodes: &mut Vec<NodeProcess>) -> anyhow::Result<()> {
    while !nodes.is_empty() {
        let mut left = Vec::new();
        for mut node in nodes.drain(..) {
            match node.ended()? {
                Some(status) => eprintln!("the node at {} has ended: {status}\n{}", node.url(), node.last_words()),
                None => left.push(node),
            }
        }
        *nodes = left;
        sleep(CLUSTER_LOOK_PAUSE).await;
    }
    anyhow::bail!("no node is left")
}

/// A temporary directory, removed when dropped.
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("proffer-demo-cluster-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Directory(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the data of the demo");
        }
    }
}
