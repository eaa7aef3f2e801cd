//! What a node holds follows the roster: replicas that are placed here are begun, those that have left are destroyed, and the ways to
//! the other nodes are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::level::Level;
use proffer_engine::profile::shard::ShardState;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::root::Supervisor;
use crate::directory::Directory;
use crate::groups::{Group, Groups, RaftGroups};
use crate::home::Home;
use crate::identity::{Belonging, Identity};
use crate::limits::{COURIER_MS, GENERATION_GRACE_MS, HOSTING_RETRY_MS, HOSTING_ROUND_MS};
use crate::meta::roster::Roster;
use crate::peers::Peers;
use crate::post::{Answer, Post, ToMeta};

/// See the module.
pub(crate) struct Hosting {
    pub(crate) node: u64,
    pub(crate) home: Arc<Home>,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) supervisor: Supervisor,
    pub(crate) peers: Arc<Peers>,
    pub(crate) post: Post,
    pub(crate) directory: Arc<Directory>,
    /// The highest feature level that this node can.
    pub(crate) can: Level,
    /// Groups that belong here and could not be begun.
    pub(crate) unbegun: BTreeSet<Group>,
}

impl Hosting {
    /// Follows the roster for ever: stop it by dropping its task.
    pub(crate) async fn run(mut self, mut roster: watch::Receiver<Arc<Roster>>) {
        loop {
            let newest = Arc::clone(&roster.borrow_and_update());
            let patience = match self.follow(&newest).await {
                Ok(patience) => patience,
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

    /// Does what the roster wants; after how many milliseconds to look again though nothing has changed.
    async fn follow(&mut self, roster: &Roster) -> Result<u64, String> {
        let identity = self.home.identity().await;
        if !self.groups.holds(Group::Meta) && !self.replace(&identity).await? {
            return Ok(HOSTING_RETRY_MS);
        }
        if !roster.knows_start(identity.disk_id, identity.boots) {
            // It may be older than what this node has done already: what it places here may have been, and have been destroyed; and
            // where it says that others are, they may not be any more.
            return Ok(HOSTING_ROUND_MS);
        }
        self.keep_ways(roster).await?;
        let begun = self.begin_generations(roster).await;
        let mut patience = HOSTING_ROUND_MS;
        if roster.able(self.node) != self.can {
            let ask = ToMeta::Able { disk: identity.disk_id, level: self.can };
            if let Err(error) = self.post.meta(ask, Instant::now() + Duration::from_millis(COURIER_MS)).await {
                tracing::debug!(%error, "nobody has heard yet what this node can");
            }
            patience = HOSTING_RETRY_MS;
        }
        for (group, replica) in self.groups.seats() {
            if roster.has_left(replica) {
                self.leave(group, replica).await?;
            }
        }
        let home = self.home.identity().await.cluster;
        let (leaving, left) = home.map(|home| (home.leaving, home.left)).unwrap_or_default();
        // What was given up and is a member still may be all that is left of its group.
        for replica in leaving.into_iter().filter(|replica| roster.has_left(*replica)) {
            self.groups.destroy(replica).await?;
            self.settle(|home| {
                home.leaving.remove(&replica);
            })
            .await?;
        }
        for group in std::mem::take(&mut self.unbegun) {
            self.begin(group).await?;
        }
        let seats = self.groups.seats();
        for (replica, group) in roster.replicas_of(self.node) {
            let is_new = !seats.contains_key(&group) && left.get(&group).is_none_or(|newest| *newest < replica);
            // Without what the survivor left it would begin empty, and call that the state of the group.
            let is_founder = roster.recovery(group).is_some_and(|recovery| recovery.founder == replica);
            if is_new && !is_founder {
                self.take_in(group, replica).await?;
            }
        }
        self.note_alone(roster).await?;
        if roster.given_up(self.node, &left).next().is_some() && !self.replace(&identity).await? {
            return begun.map(|()| HOSTING_RETRY_MS);
        }
        begun.map(|()| patience)
    }

    /// Asks for new replicas in place of those that were given up. One of the meta group begins at once: without it this node hears
    /// of no other. `false`: nobody has answered yet.
    async fn replace(&mut self, identity: &Identity) -> Result<bool, String> {
        let left = identity.cluster.as_ref().map(|home| home.left.clone()).unwrap_or_default();
        let newest = left.get(&Group::Meta).copied();
        let ask = ToMeta::Replace { disk: identity.disk_id, given_up: left };
        match self.post.meta(ask, Instant::now() + Duration::from_millis(COURIER_MS)).await {
            Ok(Answer::Enrolled { replica, .. }) => {
                if !self.groups.holds(Group::Meta) && newest.is_none_or(|newest| newest < replica) {
                    self.take_in(Group::Meta, replica).await?;
                }
                Ok(true)
            }
            Ok(Answer::Barred(reason)) => Err(format!("the cluster has no other replicas for this node: {reason}")),
            Ok(_) => Err("the cluster did not say which replicas this node is to hold".to_owned()),
            Err(error) => {
                tracing::debug!(%error, "nobody has heard yet what this node holds no more");
                Ok(false)
            }
        }
    }

    /// Which groups have no voter but the one here, for a start that finds its replica damaged.
    async fn note_alone(&self, roster: &Roster) -> Result<(), String> {
        let is_alone = |(group, replica): &(Group, u64)| {
            roster.group(*group).is_some_and(|record| record.now.voters.iter().eq([replica]))
        };
        let alone: BTreeSet<Group> = self.groups.seats().into_iter().filter(is_alone).map(|(group, _)| group).collect();
        let noted = self.home.change(|identity| identity.notes.alone = alone).await;
        noted.map_err(|error| error.to_string())
    }

    /// Groups that are begun anew here, with what is left of them here (docs/adr/0012). Until the disk names the new replica the old one lies
    /// there whole, and nothing else counts; from then on the new one is whole.
    async fn begin_generations(&mut self, roster: &Roster) -> Result<(), String> {
        for (group, recovery) in roster.recoveries() {
            let (Group::Shard(shard), survivor, heir) = (group, recovery.of.survivor, recovery.founder) else {
                continue;
            };
            let held = self.home.identity().await.cluster.and_then(|home| home.seats.get(&group).copied());
            if roster.node_of(heir) != Some(self.node) || held != Some(survivor) {
                continue;
            }
            tracing::warn!(%group, survivor, heir, by = recovery.of.by, "the group begins anew with what is left of it here");
            self.groups.unseat(group).await;
            self.supervisor.unhost(group).await;
            self.unbegun.remove(&group);
            let catalogue = self.supervisor.catalogue().await.ok_or("the catalogue is being recovered here")?;
            if catalogue.roster().recovery(group) != Some(recovery) {
                // What is applied here was read from the disk anew, and is older than what was heard before.
                return Err(format!("the catalogue here does not know that {group} begins anew"));
            }
            let spent_by = catalogue.log_time().max(recovery.at).plus_ms(GENERATION_GRACE_MS);
            let settle = |state: &mut ShardState| {
                let fence = catalogue.fence();
                state.begin_generation(recovery.of.generation, (catalogue.ledger(), shard), fence, spent_by);
            };
            self.groups.bequeath((survivor, heir), recovery.term_floor(), settle).await?;
            self.settle(|home| {
                home.seats.insert(group, heir);
                home.leaving.insert(survivor);
                home.left.insert(group, survivor);
            })
            .await?;
            self.groups.seat(group, heir);
            self.begin(group).await?;
        }
        Ok(())
    }

    /// Where the others are: also on the disk, for a start when nobody can be asked.
    async fn keep_ways(&self, roster: &Roster) -> Result<(), String> {
        let others = roster.nodes().filter(|(node, _)| *node != self.node);
        let ways: BTreeMap<u64, String> = others
            .filter(|(_, record)| !record.info.peer_address.is_empty())
            // One that was started elsewhere since has said so itself.
            .filter(|(node, record)| self.directory.heard_boots(*node) <= record.info.boots)
            .map(|(node, record)| (node, record.info.peer_address.clone()))
            .collect();
        for (node, address) in &ways {
            self.peers.set_route(*node, address);
        }
        for (node, _) in roster.removed() {
            self.peers.forget(node);
        }
        self.settle(|home| {
            home.peers.retain(|node, _| roster.node(*node).is_some());
            home.peers.extend(ways);
        })
        .await
    }

    /// A replica that is of no group any more ends here. That it leaves is durable before anything is destroyed: what is left of it
    /// must never run again.
    async fn leave(&mut self, group: Group, replica: u64) -> Result<(), String> {
        tracing::info!(%group, replica, "a replica leaves this node");
        self.settle(|home| {
            home.seats.remove(&group);
            home.leaving.insert(replica);
            home.left.insert(group, replica);
        })
        .await?;
        self.unbegun.remove(&group);
        self.groups.unseat(group).await;
        self.supervisor.unhost(group).await;
        Ok(())
    }

    async fn take_in(&mut self, group: Group, replica: u64) -> Result<(), String> {
        tracing::info!(%group, replica, "a replica begins on this node");
        self.settle(|home| {
            home.seats.insert(group, replica);
        })
        .await?;
        self.groups.seat(group, replica);
        self.begin(group).await
    }

    async fn begin(&mut self, group: Group) -> Result<(), String> {
        let groups: Arc<dyn Groups> = Arc::clone(&self.groups) as _;
        let begun = self.supervisor.host(group, &*groups).await;
        begun.map_err(|error| {
            self.unbegun.insert(group);
            error.to_string()
        })
    }

    async fn settle(&self, change: impl FnOnce(&mut Belonging)) -> Result<(), String> {
        self.home.settle(change).await.map_err(|error| error.to_string())
    }
}
