//! What a node holds follows the roster: replicas that are placed here are begun, those that have left are destroyed, and the ways to
//! the other nodes are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::actors::root::Supervisor;
use crate::error::StartError;
use crate::groups::{Group, Groups, RaftGroups};
use crate::home::Home;
use crate::limits::{HOSTING_RETRY_MS, HOSTING_ROUND_MS};
use crate::meta::roster::Roster;
use crate::peers::Peers;

/// See the module.
pub(crate) struct Hosting {
    pub(crate) node: u64,
    pub(crate) home: Arc<Home>,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) supervisor: Supervisor,
    pub(crate) peers: Arc<Peers>,
}

impl Hosting {
    /// Follows the roster for ever: stop it by dropping its task.
    pub(crate) async fn run(self, mut roster: watch::Receiver<Arc<Roster>>) {
        loop {
            let newest = Arc::clone(&roster.borrow_and_update());
            self.keep_ways(&newest);
            let patience = match self.follow(&newest).await {
                Ok(()) => HOSTING_ROUND_MS,
                Err(reason) => {
                    tracing::error!(%reason, "what this node holds is not what it should; it is tried again");
                    HOSTING_RETRY_MS
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(Duration::from_millis(patience), roster.changed()).await {
                return;
            }
        }
    }

    fn keep_ways(&self, roster: &Roster) {
        for (node, record) in roster.nodes().filter(|(node, _)| *node != self.node) {
            if !record.info.peer_address.is_empty() {
                self.peers.set_route(node, &record.info.peer_address);
            }
        }
        for (node, _) in roster.removed() {
            self.peers.forget(node);
        }
    }

    async fn follow(&self, roster: &Roster) -> Result<(), String> {
        let others = roster.nodes().filter(|(node, _)| *node != self.node);
        let peers: BTreeMap<u64, String> =
            others.map(|(node, record)| (node, record.info.peer_address.clone())).collect();
        if roster.node(self.node).is_some() {
            self.home.settle(|home| home.peers = peers).await.map_err(|error| error.to_string())?;
        }
        for (group, replica) in self.groups.seats() {
            if roster.has_left(replica) {
                self.leave(group, replica).await?;
            }
        }
        for replica in self.home.identity().await.cluster.map(|home| home.leaving).unwrap_or_default() {
            self.groups.destroy(replica).await?;
            let gone = self.home.settle(|home| {
                home.leaving.remove(&replica);
            });
            gone.await.map_err(|error| error.to_string())?;
        }
        let seats = self.groups.seats();
        let identity = self.home.identity().await;
        if !roster.knows_start(identity.disk_id, identity.boots) {
            // It may be older than what this node has done already: what it places here may have been, and have been destroyed.
            return Ok(());
        }
        for (replica, group) in roster.replicas_of(self.node) {
            if !seats.contains_key(&group) {
                self.take_in(group, replica).await?;
            }
        }
        Ok(())
    }

    /// A replica that is of no group any more ends here. That it leaves is durable before anything is destroyed: what is left of it
    /// must never run again.
    async fn leave(&self, group: Group, replica: u64) -> Result<(), String> {
        tracing::info!(%group, replica, "a replica leaves this node");
        let left = self.home.settle(|home| {
            home.seats.remove(&group);
            home.leaving.insert(replica);
        });
        left.await.map_err(|error| error.to_string())?;
        self.groups.unseat(group).await;
        self.supervisor.unhost(group).await;
        Ok(())
    }

    async fn take_in(&self, group: Group, replica: u64) -> Result<(), String> {
        tracing::info!(%group, replica, "a replica begins on this node");
        let taken = self.home.settle(|home| {
            home.seats.insert(group, replica);
        });
        taken.await.map_err(|error| error.to_string())?;
        self.groups.seat(group, replica);
        self.begin(group).await.map_err(|error| error.to_string())
    }

    async fn begin(&self, group: Group) -> Result<(), StartError> {
        let groups: Arc<dyn Groups> = Arc::clone(&self.groups) as _;
        self.supervisor.host(group, &*groups).await
    }
}
