//! Starting a node: identity, log, recovery, actors, and its place among the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::keys::ShardId;
use proffer_engine::level::Level;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actors::root::{self, RootStart, Supervisor};
use crate::config::{Begin, Config};
use crate::directory::Directory;
use crate::error::StartError;
use crate::groups::{Group, Groups, RaftGroups};
use crate::handle::{Handle, Inner};
use crate::home::Home;
use crate::hosting::Hosting;
use crate::identity::{self, Belonging, FOUNDER};
use crate::learning::Learning;
use crate::lease::Tenure;
use crate::limits::{START_IN_TROUBLE_MS, START_UNLED_MS_MAX};
use crate::log::{Durability, LogOptions, LogPorts};
use crate::meta::command::Founding;
use crate::meta::door::MetaDoor;
use crate::meta::hearing::Hearing;
use crate::meta::keeper::Whereabouts;
use crate::meta::leader::Surroundings as MetaSurroundings;
use crate::meta::roster::NodeInfo;
use crate::peers::{Peers, PeersConfig};
use crate::planted::{Bug, is};
use crate::ports::clock::Clock;
use crate::ports::disk::Disk;
use crate::ports::entropy::Entropy;
use crate::ports::fatal::Fatal;
use crate::ports::network::Network;
use crate::ports::offload::{self, Lane, Offload};
use crate::post::{self, Admission, Local, NearestGrantor, Newcomer, PeerCarrier, PeerService, Porter, Post, Ways};
use crate::raft::{self, ReplicaPorts};
use crate::reconcile::{OwnStart, Reconcile};
use crate::routing::Router;
use crate::salvage;
use crate::shard::door::ShardDoor;
use crate::shard::leader::Surroundings as ShardSurroundings;
use crate::snapshots::Snapshots;
use crate::surrender::Surrender;
use crate::timing::Timing;
use crate::view::Views;
use crate::witness::{Witness, testify};

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

/// As [`launch`], and returns when everything that there is is led by somebody.
///
/// # Errors
/// See [`StartError`]; nothing is running then.
pub async fn start(config: Config, ports: Ports) -> Result<Handle, StartError> {
    let handle = launch(config, ports).await?;
    handle.settled().await;
    Ok(handle)
}

/// Recovers the node from its disk and starts it; an empty disk founds a cluster or joins one, as the configuration says. Returns when
/// everything that it holds is recovered; who leads it is still to be found out.
///
/// # Errors
/// See [`StartError`]; nothing is running then.
pub async fn launch(config: Config, ports: Ports) -> Result<Handle, StartError> {
    config.check()?;
    let failed = |what: &str, reason: String| StartError::Recovery { what: what.to_owned(), reason };
    let (disk, entropy) = (Arc::clone(&ports.disk), Arc::clone(&ports.entropy));
    let identity = offload::call(&*ports.offload, Lane::Bulk, move || identity::start(&*disk, &*entropy))
        .await
        .map_err(|error| failed("the disk's identity", error.to_string()))?
        .map_err(|error| failed("the disk's identity", error.to_string()))?;
    let info = NodeInfo {
        disk: identity.disk_id,
        boots: identity.boots,
        peer_address: config.peer_address.clone(),
        http_address: config.http_address.clone(),
        zone: config.zone.clone(),
    };
    let belonging = match identity.cluster.clone() {
        Some(belonging) => belonging,
        None => begin(&config, &info, &ports).await?,
    };
    let log_ports = LogPorts {
        disk: Arc::clone(&ports.disk),
        offload: Arc::clone(&ports.offload),
        fatal: Arc::clone(&ports.fatal),
        entropy: Arc::clone(&ports.entropy),
    };
    let home = Arc::new(Home::new(identity.clone(), Arc::clone(&ports.disk), Arc::clone(&ports.offload)));
    let options = LogOptions { durability: config.durability, ..LogOptions::default() };
    let (log, recovery, mut given_up) = salvage::open_log(&home, options, log_ports).await?;
    let settled = home.change(|identity| {
        identity.log = Some(log.id());
        if identity.cluster.is_none() {
            let is_founder = belonging.node == FOUNDER;
            identity.notes.alone = belonging.seats.keys().copied().filter(|_| is_founder).collect();
            identity.cluster = Some(belonging);
        }
    });
    settled.await.map_err(|error| failed("the disk's identity", error.to_string()))?;
    if let Some(dropped) = recovery.dropped {
        tracing::warn!(?dropped, "the log ended in the middle of a write that was never acknowledged");
    }
    let (disk, fatal) = (Arc::clone(&ports.disk), Arc::clone(&ports.fatal));
    let snapshots = offload::call(&*ports.offload, Lane::Bulk, move || Snapshots::open(disk, fatal))
        .await
        .map_err(|error| failed("the snapshots", error.to_string()))?
        .map_err(|error| failed("the snapshots", error.to_string()))?;
    let ways = Ways::default();
    let replica_ports = ReplicaPorts {
        log,
        snapshots,
        offload: Arc::clone(&ports.offload),
        entropy: Arc::clone(&ports.entropy),
        carrier: Arc::new(PeerCarrier(Arc::clone(&ways))),
        timing: config.timing,
        was_unsynced: identity.notes.unsynced,
        building: Arc::default(),
        pace: Arc::default(),
    };
    given_up.extend(salvage::give_up_unsynced(&home, &replica_ports).await?);
    // Whoever starts next has to know before anything is acknowledged.
    let is_unsynced = config.durability == Durability::Memory;
    let noted = home.change(|identity| identity.notes.unsynced = is_unsynced);
    noted.await.map_err(|error| failed("the disk's identity", error.to_string()))?;
    let belonging = home.identity().await.cluster.expect("settled above");
    let witness = Arc::new(Witness::new(identity.notes.seen.clone()));
    let mut reaches = BTreeMap::new();
    for replica in belonging.seats.values() {
        // What cannot be read shows when it is recovered.
        reaches.extend(raft::reach(*replica, &replica_ports).await.ok().map(|reach| (*replica, reach)));
    }
    let groups = RaftGroups::new(belonging.node, belonging.seats.clone(), replica_ports);
    let groups = Arc::new(groups.renewed_by(Arc::clone(&home), given_up).begun_at(reaches));
    let whereabouts = Whereabouts::of(info.clone());
    let hearing = Arc::clone(&whereabouts.hearing);
    let place = Place { founding: belonging.founding, node: belonging.node, whereabouts, ways };
    let mut node = build(&config, &ports, Arc::clone(&groups) as _, place).await?;
    meet(
        &mut node,
        &ports,
        Standing { groups, home, belonging, info, hearing, witness, can: config.level, timing: config.timing },
    );
    Ok(Handle::new(node.inner))
}

/// What an empty disk becomes.
async fn begin(config: &Config, info: &NodeInfo, ports: &Ports) -> Result<Belonging, StartError> {
    match &config.begin {
        Begin::Bootstrap { shards } => {
            let mut secret = [0; 16];
            ports.entropy.fill(&mut secret);
            Ok(Belonging::founder(Founding { secret, shards: *shards }))
        }
        Begin::Join(addresses) => {
            let newcomer = Newcomer { info: info.clone(), can: config.level, timing: config.timing };
            post::join(addresses, newcomer, Arc::clone(&ports.network), Arc::clone(&ports.entropy)).await
        }
        Begin::Neither => Err(StartError::Config(
            "the data directory is empty, and nothing says what to begin with: found a cluster, or join one".to_owned(),
        )),
    }
}

/// Where a node stands in its cluster.
pub(crate) struct Place {
    pub(crate) founding: Founding,
    pub(crate) node: u64,
    pub(crate) whereabouts: Whereabouts,
    pub(crate) ways: Ways,
}

impl Place {
    /// Of the node that founds a cluster, and knows no others.
    #[cfg(test)]
    pub(crate) fn alone(founding: Founding, whereabouts: Whereabouts) -> Self {
        Place { founding, node: crate::identity::FOUNDER, whereabouts, ways: Ways::default() }
    }
}

/// A node whose actors run, though nobody may lead yet.
struct Built {
    inner: Inner,
    supervisor: Supervisor,
}

/// Starts a node over its groups, alone.
#[cfg(test)]
pub(crate) async fn assemble(
    config: Config,
    ports: Ports,
    groups: Arc<dyn Groups>,
    founding: Founding,
    whereabouts: Whereabouts,
) -> Result<Handle, StartError> {
    let handle = Handle::new(build(&config, &ports, groups, Place::alone(founding, whereabouts)).await?.inner);
    handle.settled().await;
    Ok(handle)
}

async fn build(config: &Config, ports: &Ports, groups: Arc<dyn Groups>, place: Place) -> Result<Built, StartError> {
    let Place { founding, node, whereabouts, ways } = place;
    if let Begin::Bootstrap { shards } = config.begin
        && founding.shards != shards
    {
        tracing::warn!(asked = shards, shards = founding.shards, "the number of shards is fixed for ever");
    }
    let router = Router::new(founding.secret, founding.shards);
    let (views, meta) = (Arc::new(Views::new()), Arc::new(MetaDoor::default()));
    let tenure = Arc::new(Tenure::new(Arc::clone(&ports.clock), Arc::clone(&views)));
    let learning = Arc::new(Learning::new(founding.shards));
    let doors: Vec<_> = (0..founding.shards).map(|_| Arc::new(ShardDoor::new())).collect();
    let around = doors.iter().zip((0..).map(ShardId)).map(|(door, shard)| ShardSurroundings {
        shard,
        door: Arc::clone(door),
        views: Arc::clone(&views),
        learning: Arc::clone(&learning),
        meta: Arc::clone(&meta),
        clock: if is(Bug::TimeFromLocalClock) { Arc::clone(&ports.clock) } else { Arc::clone(tenure.clock()) as _ },
        entropy: Arc::clone(&ports.entropy),
        reads: config.reads,
        timing: config.timing,
        can: config.level,
    });
    let around: Vec<_> = around.collect();
    let mut recovered = Vec::new();
    for group in std::iter::once(Group::Meta).chain(router.all().map(Group::Shard)) {
        if !groups.holds(group) {
            continue;
        }
        match root::recover(group, &*groups, &around).await {
            Ok(state) => recovered.push(state),
            Err(error) if groups.give_up(group, error.to_string()).await => {}
            Err(error) => return Err(error),
        }
    }
    let (drained_sender, drained) = watch::channel(false);
    let roster = whereabouts.roster.subscribe();
    let boots = whereabouts.info.boots;
    let start = RootStart {
        node: config.node.clone(),
        groups: Arc::clone(&groups),
        offload: Arc::clone(&ports.offload),
        fatal: Arc::clone(&ports.fatal),
        meta: MetaSurroundings {
            door: Arc::clone(&meta),
            shards: doors.clone(),
            views: Arc::clone(&views),
            clock: Arc::clone(&ports.clock),
            tenure: Arc::clone(&tenure),
            founding,
            whereabouts,
            can: config.level,
        },
        shards: around,
        drained: drained_sender,
    };
    let supervisor = root::spawn(start, recovered).await?;
    let (drain, mut draining) = watch::channel(false);
    let drained_by = supervisor.clone();
    tokio::spawn(async move {
        // An error means that every handle is gone: then nobody can ask for anything any more.
        let _ = draining.wait_for(|draining| *draining).await;
        drained_by.drain();
    });
    let local = Local {
        shards: doors.clone(),
        meta: Arc::clone(&meta),
        offload: Arc::clone(&ports.offload),
        groups: Arc::clone(&groups),
        roster: roster.clone(),
    };
    let post = Post::new(Arc::new(local), Arc::new(Directory::new(node)), ways);
    let (kept, grantor) = (Arc::clone(&tenure), Arc::new(NearestGrantor::new(post.clone())));
    let mut over = drained.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            // An error means that the supervisor is gone, and so is the node.
            _ = over.wait_for(|drained| *drained) => {}
            () = kept.keep(node, boots, grantor) => {}
        }
    });
    let (merging, offload, mut over) = (Arc::clone(&learning), Arc::clone(&ports.offload), drained.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = over.wait_for(|drained| *drained) => {}
            () = merging.run(offload) => {}
        }
    });
    let closing = AtomicBool::new(false);
    let tasks = Mutex::new(JoinSet::new());
    let inner = Inner {
        router,
        views,
        learning,
        shards: doors,
        meta,
        groups: Arc::clone(&groups),
        tenure,
        post,
        founding,
        roster,
        surrender: None,
        tasks,
        closing,
        drain,
        drained,
    };
    Ok(Built { inner, supervisor })
}

/// What a node meets the others with.
struct Standing {
    groups: Arc<RaftGroups>,
    home: Arc<Home>,
    belonging: Belonging,
    info: NodeInfo,
    hearing: Arc<Hearing>,
    witness: Arc<Witness>,
    can: Level,
    timing: Timing,
}

/// Takes the node's place among the others.
fn meet(node: &mut Built, ports: &Ports, standing: Standing) {
    let Standing { groups, home, belonging, info, hearing, witness, can, timing } = standing;
    let own = belonging.node;
    let post = &node.inner.post;
    let cluster = belonging.founding.cluster_id();
    let config = PeersConfig::new(Some(cluster), own, info.disk, info.boots, &info.peer_address).with(timing);
    let roster = node.inner.roster.clone();
    let gatekeeper = Arc::new(Porter {
        roster: roster.clone(),
        groups: Arc::clone(&groups),
        witness: Arc::clone(&witness),
        can,
        timing,
    });
    let admission =
        Arc::new(Admission { post: post.clone(), founding: belonging.founding, roster: roster.clone(), timing });
    let service = Arc::new(PeerService {
        post: post.clone(),
        groups: Arc::clone(&groups),
        admission,
        hearing,
        witness: Arc::clone(&witness),
        learning: Arc::clone(&node.inner.learning),
    });
    let peers = Peers::start(config, Arc::clone(&ports.network), Arc::clone(&ports.entropy), gatekeeper, service);
    for (node, address) in &belonging.peers {
        peers.set_route(*node, address);
    }
    let peers = Arc::new(peers);
    post.ways.store(Some(Arc::clone(&peers)));
    let hosting = Hosting {
        node: own,
        home: Arc::clone(&home),
        groups: Arc::clone(&groups),
        supervisor: node.supervisor.clone(),
        peers,
        post: post.clone(),
        directory: Arc::clone(&post.directory),
        unbegun: BTreeSet::new(),
        can,
    };
    let surrender = Surrender {
        tenure: Arc::clone(&node.inner.tenure),
        directory: Arc::clone(&post.directory),
        groups: Arc::clone(&groups),
        supervisor: node.supervisor.clone(),
    };
    let post = post.clone();
    node.inner.surrender = Some(surrender.clone());
    let mut tasks = node.inner.tasks.lock().expect("no holder panics");
    let reconcile = Reconcile {
        own: OwnStart { disk: info.disk, boots: info.boots },
        groups: Arc::clone(&groups),
        roster: roster.clone(),
        post: post.clone(),
        supervisor: node.supervisor.clone(),
    };
    tasks.spawn(reconcile.run());
    tasks.spawn(surrender.run());
    tasks.spawn(testify(post.clone(), Arc::clone(&groups), witness, home, roster.clone()));
    tasks.spawn(hosting.run(roster));
    tasks.spawn(post::run_courier(post.clone()));
    tasks.spawn(post::learn_from_others(post.clone(), Arc::clone(&node.inner.learning)));
    tasks.spawn(post::tell_claims(post.clone(), groups, Arc::clone(&node.inner.views), info.boots));
    tasks.spawn(post::enroll(post.clone(), info));
}

impl Handle {
    /// Returns when this node's catalogue is as new as it has to be, and everything that is in the cluster is led by somebody or has
    /// not been for a while: from then on the node takes leads. A disk without room is no reason to wait for ever either: what is
    /// missing is told to whoever asks.
    pub async fn settled(&self) {
        let inner = &self.inner;
        let all_led = async {
            inner.views.settled().await;
            // What cannot be led while others are away must not keep this node from answering for what can.
            let until = Instant::now() + Duration::from_millis(START_UNLED_MS_MAX);
            while !inner.unled().is_empty() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_trouble = async {
            let mut patience = START_IN_TROUBLE_MS;
            while patience > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                patience =
                    if inner.groups.trouble().is_some() { patience.saturating_sub(10) } else { START_IN_TROUBLE_MS };
            }
        };
        tokio::select! {
            biased;
            () = all_led => {}
            () = in_trouble => tracing::error!("the node starts, and cannot write: not everything is led"),
        }
        inner.post.directory.take_leads(true);
    }
}
