//! Starting a node: identity, log, recovery, actors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proffer_engine::keys::ShardId;
use tokio::sync::watch;

use crate::actors::root::{self, Recovered, RootMsg, RootStart};
use crate::config::{Begin, Config};
use crate::directory::Directory;
use crate::error::StartError;
use crate::groups::{Groups, NoPeers, RaftGroups};
use crate::handle::{Handle, Inner};
use crate::identity::{self, Identity};
use crate::lease::{LocalGrantor, Tenure};
use crate::limits::START_IN_TROUBLE_MS;
use crate::log::{Log, LogOptions, LogPorts};
use crate::meta::command::Founding;
use crate::meta::door::MetaDoor;
use crate::meta::keeper::Whereabouts;
use crate::meta::leader::Surroundings as MetaSurroundings;
use crate::meta::roster::NodeInfo;
use crate::ports::clock::Clock;
use crate::ports::disk::Disk;
use crate::ports::entropy::Entropy;
use crate::ports::fatal::Fatal;
use crate::ports::network::Network;
use crate::ports::offload::{self, Lane, Offload};
use crate::post::Post;
use crate::raft::{ReplicaPorts, Timing};
use crate::routing::Router;
use crate::shard::door::ShardDoor;
use crate::shard::leader::Surroundings as ShardSurroundings;
use crate::snapshots::Snapshots;
use crate::view::Views;

/// What a node needs of the world.
#[derive(Clone)]
pub struct Ports {
    /// Log and snapshots lie here.
    pub disk: Arc<dyn Disk>,
    /// Runs blocking and long work.
    pub offload: Arc<dyn Offload>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Draws ids, secrets and seeds.
    pub entropy: Arc<dyn Entropy>,
    /// Reaches other nodes.
    pub network: Arc<dyn Network>,
    /// Ends the node.
    pub fatal: Arc<dyn Fatal>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Recovers the node from its disk (an empty one founds a cluster) and starts it. Returns when everything recovered decides.
///
/// # Errors
/// See [`StartError`]; nothing is running then.
pub async fn start(config: Config, ports: Ports) -> Result<Handle, StartError> {
    config.check()?;
    let failed = |what: &str, reason: String| StartError::Recovery { what: what.to_owned(), reason };
    let (disk, entropy) = (Arc::clone(&ports.disk), Arc::clone(&ports.entropy));
    let identity = offload::call(&*ports.offload, Lane::Bulk, move || identity::start(&*disk, &*entropy))
        .await
        .map_err(|error| failed("the disk's identity", error.to_string()))?
        .map_err(|error| failed("the disk's identity", error.to_string()))?;
    let options = LogOptions { durability: config.durability, expected: identity.log, ..LogOptions::default() };
    let log_ports = LogPorts {
        disk: Arc::clone(&ports.disk),
        offload: Arc::clone(&ports.offload),
        fatal: Arc::clone(&ports.fatal),
        entropy: Arc::clone(&ports.entropy),
    };
    let (log, recovery) =
        Log::open(options, log_ports).await.map_err(|error| failed("the write-ahead log", error.to_string()))?;
    let Begin::Bootstrap { shards } = config.begin else {
        return Err(StartError::Config("this node is of no cluster".to_owned()));
    };
    let founding = identity.cluster.unwrap_or_else(|| {
        let mut secret = [0; 16];
        ports.entropy.fill(&mut secret);
        Founding { secret, shards }
    });
    if (identity.log, identity.cluster) != (Some(log.id()), Some(founding)) {
        let known = Identity { log: Some(log.id()), cluster: Some(founding), ..identity };
        let disk = Arc::clone(&ports.disk);
        offload::call(&*ports.offload, Lane::Bulk, move || identity::remember(&*disk, known))
            .await
            .map_err(|error| failed("the disk's identity", error.to_string()))?
            .map_err(|error| failed("the disk's identity", error.to_string()))?;
    }
    if let Some(dropped) = recovery.dropped {
        tracing::warn!(?dropped, "the log ended in the middle of a write that was never acknowledged");
    }
    let (disk, fatal) = (Arc::clone(&ports.disk), Arc::clone(&ports.fatal));
    let snapshots = offload::call(&*ports.offload, Lane::Bulk, move || Snapshots::open(disk, fatal))
        .await
        .map_err(|error| failed("the snapshots", error.to_string()))?
        .map_err(|error| failed("the snapshots", error.to_string()))?;
    let groups = RaftGroups::new(ReplicaPorts {
        log,
        snapshots,
        offload: Arc::clone(&ports.offload),
        entropy: Arc::clone(&ports.entropy),
        carrier: Arc::new(NoPeers),
        timing: Timing::FAST,
        building: Arc::default(),
    });
    let info = NodeInfo {
        disk: identity.disk_id,
        boots: identity.boots,
        peer_address: config.peer_address.clone(),
        http_address: config.http_address.clone(),
        zone: config.zone.clone(),
    };
    assemble(config, ports, Arc::new(groups), founding, Whereabouts::of(info)).await
}

/// The node that founds a cluster.
const FOUNDER: u64 = 1;

/// Starts a node over its groups.
pub(crate) async fn assemble(
    config: Config,
    ports: Ports,
    groups: Arc<dyn Groups>,
    founding: Founding,
    whereabouts: Whereabouts,
) -> Result<Handle, StartError> {
    if let Begin::Bootstrap { shards } = config.begin
        && founding.shards != shards
    {
        tracing::warn!(asked = shards, shards = founding.shards, "the number of shards is fixed for ever");
    }
    let (state, applied) = groups.recover_meta().await?;
    let trouble = Arc::clone(&groups);
    let offload = Arc::clone(&ports.offload);
    let router = Router::new(founding.secret, founding.shards);
    let (views, meta) = (Arc::new(Views::new()), Arc::new(MetaDoor::default()));
    let tenure = Arc::new(Tenure::new(Arc::clone(&ports.clock), Arc::clone(&views)));
    let doors: Vec<_> = (0..founding.shards).map(|_| Arc::new(ShardDoor::new())).collect();
    let around = doors.iter().enumerate().map(|(index, door)| ShardSurroundings {
        shard: ShardId(u16::try_from(index).expect("counted by a u16")),
        door: Arc::clone(door),
        views: Arc::clone(&views),
        meta: Arc::clone(&meta),
        clock: Arc::clone(tenure.clock()) as _,
        entropy: Arc::clone(&ports.entropy),
    });
    let around: Vec<_> = around.collect();
    let mut recovered = vec![Recovered::Meta(state, applied)];
    for shard in &around {
        let (state, applied) = groups.recover_shard(shard.shard).await?;
        recovered.push(Recovered::Shard(shard.clone(), state, applied));
    }
    let (drained_sender, drained) = watch::channel(false);
    let roster = whereabouts.roster.subscribe();
    let boots = whereabouts.info.boots;
    let start = RootStart {
        node: config.node,
        groups,
        offload: ports.offload,
        fatal: ports.fatal,
        meta: MetaSurroundings {
            door: Arc::clone(&meta),
            shards: doors.clone(),
            views: Arc::clone(&views),
            clock: ports.clock,
            tenure: Arc::clone(&tenure),
            founding,
            whereabouts,
        },
        shards: around,
        drained: drained_sender,
    };
    let supervisor = root::spawn(start, recovered).await?;
    let (drain, mut draining) = watch::channel(false);
    tokio::spawn(async move {
        // An error means that every handle is gone: then nobody can ask for anything any more.
        let _ = draining.wait_for(|draining| *draining).await;
        let _ = supervisor.cast(RootMsg::Drain);
    });
    let (kept, grantor) = (Arc::clone(&tenure), Arc::new(LocalGrantor(Arc::clone(&meta))));
    let mut over = drained.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            // An error means that the supervisor is gone, and so is the node.
            _ = over.wait_for(|drained| *drained) => {}
            () = kept.keep(FOUNDER, boots, grantor) => {}
        }
    });
    let closing = AtomicBool::new(false);
    // What was acknowledged decides before anybody is let in, however long that takes: an actor that cannot be recovered ends the
    // process. Only a disk without room is no reason to wait for ever: what is missing is told to whoever asks.
    let all_lead = async {
        views.settled().await;
        while !(meta.is_up() && doors.iter().all(|door| door.is_up())) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let in_trouble = async {
        let mut patience = START_IN_TROUBLE_MS;
        while patience > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            patience = if trouble.trouble().is_some() { patience.saturating_sub(10) } else { START_IN_TROUBLE_MS };
        }
    };
    tokio::select! {
        () = all_lead => {}
        () = in_trouble => tracing::error!("the node starts, and cannot write: not everything is led"),
    }
    let (directory, post) = (Arc::new(Directory::new(1)), Post::default());
    let inner = Inner {
        router,
        views,
        shards: doors,
        meta,
        groups: trouble,
        offload,
        tenure,
        directory,
        roster,
        post,
        closing,
        drain,
        drained,
    };
    Ok(Handle::new(inner))
}
