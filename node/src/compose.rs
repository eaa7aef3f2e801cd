//! The composition root: real adapters under the cluster, the HTTP interface on top.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use proffer_api as api;
use proffer_api::recommendation::{TokenKey, TokenKeys};
use proffer_api::starting::Starting;
use proffer_cluster as cluster;
use proffer_cluster::Handle;
use proffer_cluster::Timing;
use proffer_cluster::calls::Changed;
use proffer_cluster::config::{Begin, Reads};
use proffer_cluster::log::Durability;
use proffer_cluster::ports::clock::Clock;
use proffer_cluster::ports::disk::Disk;
use proffer_cluster::ports::memory_disk::MemoryDisk;
use proffer_cluster::ports::memory_network::MemoryNetwork;
use proffer_engine::catalog::{Actor, Command, CommandV1, Op, Refusal, Role};
use proffer_engine::keys::TenantId;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tower::Service;

use crate::adapters::clock::SystemClock;
use crate::adapters::disk::FileDisk;
use crate::adapters::entropy::SystemEntropy;
use crate::adapters::fatal::AbortProcess;
use crate::adapters::network::TcpNetwork;
use crate::adapters::offload::Threads;
use crate::limits::{ADMIT_MAX, ADMIT_PAUSE, DRAIN_MAX, SETTLE_MAX};
use crate::listen::{Server, serve};

/// The key that `--dev` sets.
pub const DEV_KEY: &str = "proffer-dev-key";
/// The tenant that a new node starts with.
pub const DEV_TENANT: &str = "default";
/// Shards of a new cluster, unless asked for otherwise.
pub const DEFAULT_SHARDS: u16 = 16;

/// What a node is made of.
#[derive(Debug)]
pub struct Composition {
    /// Address of the HTTP interface.
    pub listen: SocketAddr,
    /// Address for other nodes.
    pub peer: SocketAddr,
    /// Name or IP address under which others reach this machine; without one, the addresses above.
    pub advertise: Option<String>,
    /// Where others reach this node, if that is not where it listens for them.
    pub advertise_peer: Option<String>,
    /// How an empty store begins.
    pub begin: Begin,
    /// Nodes of one zone fail together.
    pub zone: String,
    /// Where state is kept.
    pub storage: Storage,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// What a read at a shard's leader rests on.
    pub reads: Reads,
    /// How fast the cluster notices that a node is gone.
    pub timing: Timing,
    /// Who is let in at first.
    pub access: Access,
}

impl Composition {
    /// A node of its own on `listen`, for whoever tries it out: it founds a cluster in memory that nobody is told of.
    pub fn alone(listen: SocketAddr) -> Self {
        Composition {
            listen,
            peer: SocketAddr::new(listen.ip(), 0),
            advertise: None,
            advertise_peer: None,
            begin: Begin::Bootstrap { shards: DEFAULT_SHARDS },
            zone: String::new(),
            storage: Storage::Ephemeral,
            durability: Durability::Fsync,
            reads: Reads::Lease,
            timing: Timing::Fast,
            access: Access::Dev,
        }
    }
}

/// Where state is kept.
#[derive(Debug)]
pub enum Storage {
    /// In this directory.
    Directory(PathBuf),
    /// In memory.
    Ephemeral,
}

/// Who is let in at first.
#[derive(Debug)]
pub enum Access {
    /// Everyone who knows [`DEV_KEY`].
    Dev,
    /// Who knows this secret.
    AdminKey(String),
    /// Whoever the cluster that is joined lets in.
    Kept,
}

/// Makes the disk in a directory all there is of its cluster; says in words what that comes to.
///
/// # Errors
/// When it is refused, or the disk cannot be read.
pub async fn begin_alone(directory: PathBuf, accept_loss: bool) -> anyhow::Result<String> {
    anyhow::ensure!(directory.is_dir(), "{} is no directory", directory.display());
    let disk = FileDisk::open(&directory).with_context(|| format!("cannot use {}", directory.display()))?;
    let ports = cluster::Ports {
        disk: Arc::new(disk),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        offload: Arc::new(Threads::start(tokio::runtime::Handle::current())?),
        // Nobody is talked to.
        network: Arc::new(MemoryNetwork::new().host("alone")),
        fatal: Arc::new(AbortProcess),
    };
    Ok(cluster::begin_alone(ports, accept_loss, "recover-meta".to_owned()).await?)
}

/// What answers at a node's address: first that it is recovering, then the node.
#[derive(Clone)]
struct Front {
    starting: Arc<Starting>,
    router: Arc<OnceLock<Router>>,
}

impl Front {
    fn new(starting: Starting) -> Self {
        Front { starting: Arc::new(starting), router: Arc::new(OnceLock::new()) }
    }

    /// From now on the node answers.
    fn open(&self, router: Router) {
        // There is one node behind it, and it opens once.
        let _ = self.router.set(router);
    }

    fn into_router(self) -> Router {
        Router::new().fallback(move |request: Request| {
            let front = self.clone();
            async move {
                match front.router.get() {
                    // Routers are infallible services that are always ready.
                    Some(router) => router.clone().call(request).await.unwrap_or_else(|never| match never {}),
                    None => front.starting.answer(&request),
                }
            }
        })
    }
}

/// A running node.
pub struct Node {
    address: SocketAddr,
    handle: Handle,
    server: Server,
}

/// Secrets of tokens and of routing come from the cluster's founding entry; this separates the one from the other.
const TOKEN_KEY_CONTEXT: &[u8] = b"proffer recommendation id v1";

impl Node {
    /// Starts a node and returns once it decides, or has waited for its cluster for long. Its probes answer from the first.
    ///
    /// # Errors
    /// When the address is taken, the directory is in use or cannot be recovered, or a part does not start.
    pub async fn start(composition: Composition) -> anyhow::Result<Node> {
        let listen = composition.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let address = listener.local_addr()?;
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let front = Front::new(Starting::new(&*entropy));
        let server = serve(listener, front.clone().into_router());
        match recover(composition, address, &front, clock, entropy).await {
            Ok((handle, router)) => {
                front.open(router);
                Ok(Node { address, handle, server })
            }
            Err(error) => {
                server.ended.abort();
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands over what it leads, takes no new connections, finishes the calls under way, then closes the log.
    ///
    /// # Errors
    /// When the server or the log did not end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.handle.step_down().await;
        // The server may have ended already.
        let _ = self.server.drain.send(());
        match tokio::time::timeout(DRAIN_MAX, self.server.ended).await {
            Ok(ended) => ended?,
            Err(_) => tracing::warn!("calls were still under way after {DRAIN_MAX:?}"),
        }
        self.handle.shutdown().await;
        Ok(())
    }
}

/// Brings the cluster's part of this node up, and what answers for it.
async fn recover(
    composition: Composition,
    address: SocketAddr,
    front: &Front,
    clock: Arc<SystemClock>,
    entropy: Arc<SystemEntropy>,
) -> anyhow::Result<(Handle, Router)> {
    let Composition {
        peer, advertise, advertise_peer, begin, zone, storage, durability, reads, timing, access, ..
    } = composition;
    let disk: Arc<dyn Disk> = match storage {
        Storage::Directory(path) => {
            Arc::new(FileDisk::open(&path).with_context(|| format!("cannot use {}", path.display()))?)
        }
        Storage::Ephemeral => Arc::new(MemoryDisk::default()),
    };
    let told = peer.to_string();
    let network = TcpNetwork::listen(&told).await;
    let network = network.with_context(|| format!("cannot listen for other nodes on {told}: give --peer ADDR"))?;
    let peer = SocketAddr::new(peer.ip(), network.port()?);
    let offload = Arc::new(Threads::start(tokio::runtime::Handle::current())?);
    let ports = cluster::Ports {
        disk,
        clock: clock.clone(),
        entropy: entropy.clone(),
        offload: offload.clone(),
        network: Arc::new(network),
        fatal: Arc::new(AbortProcess),
    };
    let config = cluster::Config {
        begin,
        durability,
        reads,
        timing,
        peer_address: advertise_peer.unwrap_or_else(|| advertised(peer, advertise.as_deref())),
        http_address: advertised(address, advertise.as_deref()),
        zone,
        ..cluster::Config::default()
    };
    let handle = cluster::launch(config, ports).await?;
    front.starting.know(handle.clone());
    let signing = Sha256::new().chain_update(TOKEN_KEY_CONTEXT).chain_update(handle.secret()).finalize().into();
    let token_keys = TokenKeys::new(TokenKey::new(1, &signing), Vec::new());
    // From here on the node answers what others forward: it may lead something that they wait for.
    let router = api::router(handle.clone(), api::Config::new(clock.clone(), entropy, offload, token_keys));
    let settling = handle.clone();
    let settled = tokio::spawn(async move { settling.settled().await });
    if timeout(SETTLE_MAX, settled).await.is_err() {
        tracing::warn!(reasons = ?handle.status().reasons, "the node serves what can be served");
    }
    admit(&handle, clock.as_ref(), &access).await?;
    Ok((handle, router))
}

/// Where others reach what listens at `bound`.
fn advertised(bound: SocketAddr, advertise: Option<&str>) -> String {
    match advertise {
        Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{}", bound.port()),
        Some(host) => format!("{host}:{}", bound.port()),
        None if bound.ip().is_unspecified() => {
            let local: IpAddr = if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            SocketAddr::new(local, bound.port()).to_string()
        }
        None => bound.to_string(),
    }
}

/// Makes the first tenant, and the first key what `access` says. A node of a cluster that cannot be written to now goes on
/// without: then no key is new.
async fn admit(handle: &Handle, clock: &dyn Clock, access: &Access) -> anyhow::Result<()> {
    let deadline = Instant::now() + ADMIT_MAX;
    loop {
        match try_to_admit(handle, clock, access, deadline).await {
            Ok(()) => return Ok(()),
            Err(error) if !error.retryable() => return Err(error.into()),
            Err(error) if Instant::now() + ADMIT_PAUSE >= deadline => {
                tracing::warn!(%error, "the catalogue cannot be written now: who is let in stays as it is");
                return Ok(());
            }
            Err(_) => tokio::time::sleep(ADMIT_PAUSE).await,
        }
    }
}

async fn try_to_admit(
    handle: &Handle,
    clock: &dyn Clock,
    access: &Access,
    deadline: Instant,
) -> Result<(), cluster::Error> {
    let tenant = TenantId::new(DEV_TENANT);
    let (id, secret, roles) = match access {
        Access::Dev => ("dev", DEV_KEY, Role::ALL.to_vec()),
        Access::AdminKey(secret) => ("admin", secret.as_str(), Role::ALL.to_vec()),
        Access::Kept => return Ok(()),
    };
    let actor = Actor { name: "start".to_owned(), admin: true };
    let command = |op| Command::V1(CommandV1 { tenant: tenant.clone(), actor: actor.clone(), at: clock.wall(), op });
    if handle.tenant(&tenant).is_none() {
        accept_known(handle.change(command(Op::CreateTenant), deadline).await)?;
    }
    let hash: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
    handle.leased(deadline).await?;
    if handle.verify_api_key(&hash)?.is_none() {
        let name = id.to_owned();
        handle.change(command(Op::PutApiKey { id: id.to_owned(), hash, roles, name }), deadline).await?;
    }
    // A key of an earlier mode lets nobody in any more.
    let other = if id == "dev" { "admin" } else { "dev" };
    let known = |view: Arc<cluster::TenantView>| view.catalog.api_keys().any(|key| key.id == other);
    if handle.tenant(&tenant).is_some_and(known) {
        accept_known(handle.change(command(Op::RevokeApiKey { id: other.to_owned() }), deadline).await)?;
    }
    Ok(())
}

/// Another node may have done the same in the meantime.
fn accept_known(changed: Result<Changed, cluster::Error>) -> Result<(), cluster::Error> {
    match changed {
        Ok(_) | Err(cluster::Error::Refused(Refusal::NotFound(_) | Refusal::Conflict { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::get;

    use super::*;

    #[test]
    fn others_are_told_an_address_that_leads_here() {
        for (bound, advertise, told) in [
            ("10.0.0.7:7070", None, "10.0.0.7:7070"),
            ("0.0.0.0:7070", None, "127.0.0.1:7070"),
            ("[::]:7070", None, "[::1]:7070"),
            ("0.0.0.0:7070", Some("node-1.internal"), "node-1.internal:7070"),
            ("[::]:7070", Some("fd00::7"), "[fd00::7]:7070"),
        ] {
            assert_eq!(advertised(bound.parse().unwrap(), advertise), told, "{bound} {advertise:?}");
        }
    }

    #[tokio::test]
    async fn probes_answer_before_the_node_and_the_node_from_then_on() {
        let front = Front::new(Starting::new(&SystemEntropy));
        let ask = async |path: &str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            front.clone().into_router().call(request).await.unwrap().status()
        };
        assert_eq!((ask("/livez").await, ask("/readyz").await), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(ask("/api/v1/offers").await, StatusCode::SERVICE_UNAVAILABLE);
        front.open(Router::new().route("/api/v1/offers", get(|| async { "all of them" })));
        assert_eq!((ask("/api/v1/offers").await, ask("/elsewhere").await), (StatusCode::OK, StatusCode::NOT_FOUND));
    }
}
