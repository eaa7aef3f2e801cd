//! `proffer serve`: runs a node until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};

use proffer_cluster::Timing;
use proffer_cluster::config::{Begin, Reads};
use proffer_cluster::limits::SHARDS_MAX;
use proffer_cluster::log::Durability;

use crate::compose::{Access, Composition, DEFAULT_SHARDS, DEV_KEY, Node, Storage};

/// Arguments of `proffer serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Address of the HTTP interface; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Address for other nodes; by default the port 100 above that of --listen.
    #[arg(long, value_name = "ADDR")]
    pub peer: Option<SocketAddr>,
    /// Name or IP address under which other nodes reach this machine, if it listens on all of its addresses.
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Where other nodes reach this one, if it is not where it listens for them: behind a proxy, a NAT, or in a container.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    pub advertise_peer: Option<String>,
    /// Found a new cluster if there is no data yet; --dev implies it.
    #[arg(long, conflicts_with = "join")]
    pub bootstrap: bool,
    /// Enter the cluster of one of these nodes if there is no data yet: their addresses for other nodes, separated by commas.
    #[arg(long, value_name = "PEER_ADDR", value_delimiter = ',')]
    pub join: Vec<String>,
    /// Shards of a new cluster, fixed for ever [default: 16].
    #[arg(long, value_name = "N", conflicts_with = "join", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    pub shards: Option<u16>,
    /// Zone of this node: those of one zone fail together, and replicas are spread over zones.
    #[arg(long, value_name = "ZONE", default_value = "")]
    pub zone: String,
    /// Directory of this node's log and snapshots; made if missing, used by one node at a time.
    #[arg(long, default_value = "proffer-data", conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// What an acknowledgement promises: that most of a shard's nodes have synced it, or only that they have it in memory; then each start
    /// of a node of a cluster begins with what the others have.
    #[arg(long, value_enum, default_value = "fsync")]
    pub durability: DurabilityArg,
    /// What a read at a shard's leader rests on: a lease that it got from a quorum lately, or a quorum asked for each turn of reads.
    #[arg(long, value_enum, default_value = "lease")]
    pub reads: ReadsArg,
    /// How fast the cluster notices that a node is gone: `fast` for one network, `slow` for nodes tens of milliseconds apart or on machines
    /// that stall. All nodes of a cluster have the same.
    #[arg(long, value_enum, default_value = "fast")]
    pub timing: TimingArg,
    /// Keep everything in memory only: a restart begins empty.
    #[arg(long)]
    pub ephemeral: bool,
    /// Open to everyone who knows the well-known key. Never on a reachable network.
    #[arg(long)]
    pub dev: bool,
    /// File with the secret of tenant `default`'s administrator key, at least 32 characters; needed without --dev or --join.
    #[arg(long, env = "PROFFER_ADMIN_KEY_FILE", value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
}

/// See [`ServeArgs::durability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DurabilityArg {
    /// Synced by a majority.
    Fsync,
    /// In the memory of a majority.
    Memory,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Fsync => Durability::Fsync,
            DurabilityArg::Memory => Durability::Memory,
        }
    }
}

/// See [`ServeArgs::reads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReadsArg {
    /// A lease: no message, and clocks that run evenly.
    Lease,
    /// A quorum: a round trip, and no clock.
    Quorum,
}

impl From<ReadsArg> for Reads {
    fn from(arg: ReadsArg) -> Self {
        match arg {
            ReadsArg::Lease => Reads::Lease,
            ReadsArg::Quorum => Reads::Quorum,
        }
    }
}

/// See [`ServeArgs::timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimingArg {
    /// Heartbeats of 50 ms, elections after 150 to 300.
    Fast,
    /// Heartbeats of 150 ms, elections after 500 to 1,000.
    Slow,
}

impl From<TimingArg> for Timing {
    fn from(arg: TimingArg) -> Self {
        match arg {
            TimingArg::Fast => Timing::Fast,
            TimingArg::Slow => Timing::Slow,
        }
    }
}

/// A node's port for others lies so far above that of its HTTP interface.
const PEER_PORT_OFFSET: u16 = 100;
/// Shortest secret accepted for an administrator key.
const ADMIN_KEY_CHARS_MIN: usize = 32;

impl ServeArgs {
    fn access(&self) -> anyhow::Result<Access> {
        match (&self.admin_key_file, self.dev) {
            (None, true) => Ok(Access::Dev),
            (Some(_), true) => bail!(
                "--dev opens the node to everyone who knows the well-known key, an administrator key closes it: leave out --dev, or --admin-key-file (and unset PROFFER_ADMIN_KEY_FILE)"
            ),
            (Some(file), false) => {
                let secret =
                    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                let secret = secret.trim();
                if secret.chars().count() < ADMIN_KEY_CHARS_MIN {
                    bail!("the key in {} is shorter than {ADMIN_KEY_CHARS_MIN} characters", file.display());
                }
                Ok(Access::AdminKey(secret.to_owned()))
            }
            (None, false) if !self.join.is_empty() => Ok(Access::Kept),
            (None, false) => bail!(
                "a node does not start open: give --admin-key-file FILE (or PROFFER_ADMIN_KEY_FILE), or --dev to try it out"
            ),
        }
    }

    fn begin(&self) -> anyhow::Result<Begin> {
        if !self.join.is_empty() {
            return Ok(Begin::Join(self.join.clone()));
        }
        if self.bootstrap || self.dev {
            return Ok(Begin::Bootstrap { shards: self.shards.unwrap_or(DEFAULT_SHARDS) });
        }
        if self.shards.is_some() {
            bail!("the number of shards is fixed when a cluster is founded: give --shards with --bootstrap");
        }
        if self.is_empty()? {
            let place = if self.ephemeral { "memory".to_owned() } else { self.data.display().to_string() };
            bail!(
                "there is no data in {place}: give --bootstrap to found a cluster of this node, or --join PEER_ADDR to enter the cluster of that node"
            );
        }
        Ok(Begin::Neither)
    }

    fn is_empty(&self) -> anyhow::Result<bool> {
        if self.ephemeral {
            return Ok(true);
        }
        match std::fs::read_dir(&self.data) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.data.display())),
        }
    }

    /// The port 100 above, on the same address; with port 0 any free one.
    fn peer(&self) -> anyhow::Result<SocketAddr> {
        let port = match (self.peer, self.listen.port()) {
            (Some(peer), _) => return Ok(peer),
            (None, 0) => 0,
            (None, port) => {
                let port = port.checked_add(PEER_PORT_OFFSET);
                port.context("there is no port 100 above that of --listen: give --peer ADDR")?
            }
        };
        Ok(SocketAddr::new(self.listen.ip(), port))
    }

    fn composition(&self) -> anyhow::Result<Composition> {
        Ok(Composition {
            listen: self.listen,
            peer: self.peer()?,
            advertise: self.advertise.clone(),
            advertise_peer: self.advertise_peer.clone(),
            access: self.access()?,
            begin: self.begin()?,
            zone: self.zone.clone(),
            storage: self.storage(),
            durability: self.durability.into(),
            reads: self.reads.into(),
            timing: self.timing.into(),
        })
    }

    fn storage(&self) -> Storage {
        if self.ephemeral { Storage::Ephemeral } else { Storage::Directory(self.data.clone()) }
    }
}

/// An address with a port that can be dialled.
fn host_and_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("must be HOST:PORT")?;
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
    if host.is_empty() || is_bare_ipv6 || !port_is_good {
        return Err("must be HOST:PORT, an IPv6 address in brackets".to_owned());
    }
    Ok(text.to_owned())
}

/// Runs the command.
///
/// # Errors
/// When the configuration is refused, the data directory cannot be recovered or the address is taken.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let composition = args.composition()?;
    let is_told = composition.advertise.is_some() || composition.advertise_peer.is_some();
    let is_local = composition.peer.ip().is_unspecified() && !is_told;
    if is_local && !args.join.is_empty() {
        bail!("the cluster cannot reach a node at {}: give --advertise HOST", composition.peer);
    }
    let node = Node::start(composition).await?;
    announce(&node, args.dev)?;
    stop_signal().await?;
    eprintln!("stopping: no new calls, finishing those under way");
    node.stop().await
}

/// Says where the node listens, and loudly that it is open if it is.
pub fn announce(node: &Node, dev: bool) -> anyhow::Result<()> {
    if dev {
        eprintln!("!! development mode: anyone who can reach this port has all rights with the API key {DEV_KEY}");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{}", node.address())?;
    Ok(out.flush()?)
}

/// Resolves at SIGINT or SIGTERM.
pub async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(line: &str) -> anyhow::Result<ServeArgs> {
        Ok(Line::try_parse_from(["serve"].into_iter().chain(line.split_whitespace()))?.serve)
    }

    fn access(dev: bool, admin_key_file: Option<PathBuf>) -> anyhow::Result<Access> {
        ServeArgs { dev, admin_key_file, ..parse("--ephemeral").unwrap() }.access()
    }

    fn begin(line: &str) -> Result<Begin, String> {
        parse(line).and_then(|args| args.begin()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cluster_is_founded_or_joined_and_never_by_accident() {
        let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(full.path().join("identity"), "").unwrap();
        let (empty, full) = (empty.path().display(), full.path().display());
        assert_eq!(begin("--bootstrap"), Ok(Begin::Bootstrap { shards: 16 }));
        assert_eq!(begin("--dev --shards 4"), Ok(Begin::Bootstrap { shards: 4 }));
        let join = |addresses: &[&str]| Ok(Begin::Join(addresses.iter().map(ToString::to_string).collect()));
        assert_eq!(begin("--dev --join a:1,b:2 --join c:3"), join(&["a:1", "b:2", "c:3"]));
        assert_eq!(begin(&format!("--data {full}")), Ok(Begin::Neither));
        for line in [format!("--data {empty}"), format!("--data {empty}/not-there"), "--ephemeral".to_owned()] {
            let said = begin(&line).unwrap_err();
            assert!(said.contains("--bootstrap") && said.contains("--join PEER_ADDR"), "{said}");
        }
        assert!(begin(&format!("--data {full} --shards 4")).unwrap_err().contains("--bootstrap"));
        for line in ["--bootstrap --join a:1", "--join a:1 --shards 4", "--bootstrap --shards 0", "--dev --shards 257"]
        {
            assert!(begin(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_port_for_other_nodes_lies_a_hundred_above() {
        let peer = |line: &str| parse(line).and_then(|args| args.peer()).map(|peer| peer.to_string());
        assert_eq!(peer("").unwrap(), "127.0.0.1:7170");
        assert_eq!(peer("--listen 0.0.0.0:80").unwrap(), "0.0.0.0:180");
        assert_eq!(peer("--listen 127.0.0.1:0").unwrap(), "127.0.0.1:0");
        assert_eq!(peer("--peer 10.0.0.1:9").unwrap(), "10.0.0.1:9");
        assert!(peer("--listen 127.0.0.1:65500").unwrap_err().to_string().contains("--peer"));
    }

    #[test]
    fn what_others_are_told_has_a_host_and_a_port() {
        let told = |line: &str| parse(line).map(|args| args.composition().unwrap().advertise_peer);
        assert_eq!(told("--dev").unwrap(), None);
        for good in ["node-1.internal:7170", "10.0.0.1:1", "[fd00::7]:7170"] {
            assert_eq!(told(&format!("--dev --advertise-peer {good}")).unwrap().as_deref(), Some(good));
        }
        for bad in ["node-1", "node-1:", ":7170", "node-1:0", "node-1:70000", "fd00::7:7170"] {
            assert!(told(&format!("--dev --advertise-peer {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_that_joins_needs_no_key_of_its_own() {
        assert!(matches!(parse("--join a:1").unwrap().access(), Ok(Access::Kept)));
        assert!(matches!(parse("--join a:1 --dev").unwrap().access(), Ok(Access::Dev)));
    }

    #[test]
    fn a_node_is_open_or_closed_but_never_said_to_be_what_it_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        let key = Some(file.path().to_owned());
        assert!(matches!(access(true, None), Ok(Access::Dev)));
        assert!(matches!(access(false, key.clone()), Ok(Access::AdminKey(key)) if key.len() == 32));
        assert!(access(true, key).unwrap_err().to_string().contains("PROFFER_ADMIN_KEY_FILE"));
        assert!(access(false, None).is_err());
    }
}
