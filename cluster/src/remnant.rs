//! One disk is all that is left of a cluster: the catalogue and every shard begin anew with what lies there (docs/adr/0012). Done
//! while nothing runs on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use proffer_engine::keys::ShardId;
use proffer_engine::profile::shard::ShardState;

use crate::error::StartError;
use crate::groups::{Group, RaftGroups};
use crate::home::Home;
use crate::identity::{self, Belonging, Identity};
use crate::limits::GENERATION_GRACE_MS;
use crate::log::{Log, LogOptions, LogPorts};
use crate::meta::roster::Remnant;
use crate::ports::offload::{self, Lane};
use crate::post::{PeerCarrier, Ways};
use crate::raft::ReplicaPorts;
use crate::snapshots::Snapshots;
use crate::start::Ports;
use crate::timing::Timing;

/// Makes a disk all there is of its cluster: its node is the only one, with the only replica of everything. The other nodes' disks are
/// barred; whoever had them must see to it that they never run again, for they do not know. What only they knew is lost: without
/// `accept_loss` nothing is done. Says in words what it comes to. A try that was cut short is made again.
///
/// # Errors
/// [`StartError::Config`] with words if it is refused, and nothing was done; [`StartError::Recovery`] if what lies there cannot be read.
pub async fn begin_alone(ports: Ports, accept_loss: bool, by: String) -> Result<String, StartError> {
    let disk = Arc::clone(&ports.disk);
    let found = offload::call(&*ports.offload, Lane::Bulk, move || identity::look(&*disk)).await;
    let found = found.map_err(unread)?.map_err(unread)?;
    let home = found.and_then(|identity| identity.cluster).ok_or_else(|| refused("this disk is of no cluster"))?;
    let shards = home.founding.shards;
    let groups = std::iter::once(Group::Meta).chain((0..shards).map(ShardId).map(Group::Shard));
    let missing: Vec<String> =
        groups.filter(|group| !home.seats.contains_key(group)).map(|group| group.to_string()).collect();
    if !missing.is_empty() {
        return Err(refused(&format!(
            "{} of {} groups do not lie on this disk ({}): it cannot be all that is left",
            missing.len(),
            usize::from(shards) + 1,
            missing.join(", ")
        )));
    }
    if !accept_loss {
        return Err(refused(&format!(
            "node n{} would be the only one, with the catalogue and {shards} shards as they lie here; what only other nodes knew is lost, and \
             none of their disks may ever run again. Nothing was done: accept that with --accept-loss",
            home.node
        )));
    }
    Offline::open(ports).await?.begin(home, by).await
}

fn refused(words: &str) -> StartError {
    StartError::Config(words.to_owned())
}

fn unread(reason: impl ToString) -> StartError {
    StartError::Recovery { what: "what lies on the disk".to_owned(), reason: reason.to_string() }
}

/// A node's disk, opened without a node.
struct Offline {
    home: Home,
    replicas: ReplicaPorts,
    ports: Ports,
}

impl Offline {
    async fn open(ports: Ports) -> Result<Self, StartError> {
        let (disk, entropy) = (Arc::clone(&ports.disk), Arc::clone(&ports.entropy));
        let identity = offload::call(&*ports.offload, Lane::Bulk, move || identity::start(&*disk, &*entropy)).await;
        let identity: Identity = identity.map_err(unread)?.map_err(unread)?;
        let options = LogOptions { expected: identity.log, ..LogOptions::default() };
        let log_ports = LogPorts {
            disk: Arc::clone(&ports.disk),
            offload: Arc::clone(&ports.offload),
            fatal: Arc::clone(&ports.fatal),
            entropy: Arc::clone(&ports.entropy),
        };
        let (log, _) = Log::open(options, log_ports).await.map_err(unread)?;
        let (disk, fatal) = (Arc::clone(&ports.disk), Arc::clone(&ports.fatal));
        let snapshots = offload::call(&*ports.offload, Lane::Bulk, move || Snapshots::open(disk, fatal)).await;
        let replicas = ReplicaPorts {
            log,
            snapshots: snapshots.map_err(unread)?.map_err(unread)?,
            offload: Arc::clone(&ports.offload),
            entropy: Arc::clone(&ports.entropy),
            carrier: Arc::new(PeerCarrier(Ways::default())),
            timing: Timing::Fast,
            was_unsynced: identity.notes.unsynced,
            building: Arc::default(),
            pace: Arc::default(),
        };
        let home = Home::new(identity, Arc::clone(&ports.disk), Arc::clone(&ports.offload));
        Ok(Offline { home, replicas, ports })
    }

    /// Until the last write here everything lies as it lay; that names all the new replicas at once.
    async fn begin(self, belonging: Belonging, by: String) -> Result<String, StartError> {
        let Belonging { node, seats, .. } = belonging;
        let groups = RaftGroups::new(node, seats.clone(), self.replicas.clone());
        let mut found = BTreeMap::new();
        for (group, replica) in &seats {
            let last = groups.last_of(*replica, *group).await.map_err(unread)?;
            let last = last.ok_or_else(|| refused(&format!("nothing of {group} lies here but its name")))?;
            found.insert(*group, (*replica, last));
        }
        let now = self.ports.clock.wall();
        let (survivor, last) = found[&Group::Meta];
        let (legacy, mut catalogue) = groups.catalogue_of(survivor).await.map_err(unread)?;
        catalogue.begin_alone(&Remnant { node, found, by }, now, last).map_err(|words| refused(&words))?;
        let roster = Arc::clone(catalogue.roster());
        let spent_by = catalogue.log_time().plus_ms(GENERATION_GRACE_MS);
        for (group, recovery) in roster.recoveries() {
            let Group::Shard(shard) = group else { continue };
            let settle = |state: &mut ShardState| {
                let fence = catalogue.fence();
                state.begin_generation(recovery.of.generation, (catalogue.ledger(), shard), fence, spent_by);
            };
            let (survivor, heir) = (recovery.of.survivor, recovery.founder);
            groups.bequeath((survivor, heir), recovery.term_floor(), settle).await.map_err(unread)?;
        }
        let recovery = roster.recovery(Group::Meta).expect("it was begun anew just now");
        let (heir, term_floor) = (recovery.founder, recovery.term_floor());
        groups.bequeath_catalogue(legacy, heir, term_floor, catalogue).await.map_err(unread)?;
        let heirs: BTreeMap<Group, u64> =
            roster.recoveries().map(|(group, recovery)| (group, recovery.founder)).collect();
        let settled = self.home.settle(|home| {
            home.leaving.extend(seats.values());
            home.left.extend(&seats);
            home.seats = heirs;
            home.peers.clear();
        });
        settled.await.map_err(unread)?;
        self.replicas.log.close().await.map_err(unread)?;
        Ok(format!("node n{node} is all there is of the cluster: start it, and let others join with empty disks"))
    }
}
