//! What operators see of the cluster, and do to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use proffer_engine::keys::ShardId;
use tokio::time::Instant;

use crate::calls::{ClusterReport, GroupReport, NodeReport, Operation, RecoveryReport};
use crate::error::Error;
use crate::groups::Group;
use crate::handle::Handle;
use crate::meta::roster::{Members, Roster};
use crate::post::{Answer, ToMeta, ToRecover};

impl Handle {
    /// Who is where, as far as this node has applied it.
    pub fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.inner.roster.borrow())
    }

    /// Nodes, groups, and who leads, as far as this node has heard. O(nodes × groups).
    pub fn report(&self) -> ClusterReport {
        let inner = &self.inner;
        let (roster, directory) = (self.roster(), &inner.post.directory);
        let own = directory.own();
        let (leads, peers) = (directory.counts(), inner.post.ways.load_full());
        let nodes = roster.nodes().map(|(node, record)| NodeReport {
            node,
            peer_address: record.info.peer_address.clone(),
            http_address: record.info.http_address.clone(),
            zone: record.info.zone.clone(),
            standing: record.standing,
            is_up: node == own || peers.as_ref().is_some_and(|peers| peers.is_up(node)),
            leads: leads.get(&node).copied().unwrap_or(0),
            replicas: roster.replicas_of(node).count(),
        });
        let groups = roster.groups().map(|(group, record)| {
            let leader = inner.post.leader(group);
            let old: BTreeSet<u64> = record.now.voters.difference(&record.meant().voters).copied().collect();
            let kept = roster.nodes_of(&record.meant().voters);
            GroupReport {
                shard: match group {
                    Group::Meta => None,
                    Group::Shard(shard) => Some(shard),
                },
                leader: leader.map(|(node, _)| node),
                term: leader.map_or(0, |(_, term)| term),
                voters: roster.nodes_of(&record.now.voters).into_iter().collect(),
                learners: roster.nodes_of(&record.now.learners).into_iter().collect(),
                renewing: roster.nodes_of(&old).intersection(&kept).copied().collect(),
                target: record.target.as_ref().map(|target| by_node(&roster, target)),
                recovery: roster.recovery(group).map(|recovery| RecoveryReport {
                    generation: recovery.of.generation,
                    by: recovery.of.by.clone(),
                    at: recovery.at,
                }),
            }
        });
        ClusterReport {
            cluster: inner.founding.cluster_id(),
            node: own,
            meta_leader: directory.leader(Group::Meta).map(|(node, _)| node),
            nodes: nodes.collect(),
            groups: groups.collect(),
        }
    }

    /// Does what an operator wants. What it comes to is told in words, and so is why it is refused. What takes long goes on after the
    /// answer: [`Handle::report`] shows how far it is.
    ///
    /// # Errors
    /// If it was not done, or is not known to be.
    pub async fn operate(&self, operation: Operation, deadline: Instant) -> Result<Result<String, String>, Error> {
        let answer = self.inner.post.meta(ToMeta::Operate(operation), deadline).await?;
        if let Answer::Barred(reason) = answer {
            return Ok(Err(reason));
        }
        let Answer::Operated(words) = answer else { return Err(Error::Unknown) };
        Ok(Ok(words))
    }

    /// Begins a shard anew whose majority is lost for good, with the freshest of what is left of it. What the lost replicas alone knew is
    /// lost: without `accept_loss` nothing is done, and the refusal says what that may be. `by`: who wants it, for the record.
    ///
    /// # Errors
    /// If it was not done, or is not known to be; [`Error::NotLed`] if the catalogue's majority is lost too.
    pub async fn recover(
        &self,
        shard: ShardId,
        accept_loss: bool,
        by: String,
        deadline: Instant,
    ) -> Result<Result<String, String>, Error> {
        let answer = self.inner.post.recover(ToRecover { shard, accept_loss, by }, deadline).await?;
        if let Answer::Barred(reason) = answer {
            return Ok(Err(reason));
        }
        let Answer::Operated(words) = answer else { return Err(Error::Unknown) };
        Ok(Ok(words))
    }

    /// Hands over everything that this node leads to those that have everything, as far as there are any. Calls go on being answered.
    pub async fn step_down(&self) {
        if let Some(surrender) = &self.inner.surrender {
            surrender.everything().await;
        }
    }
}

fn by_node(roster: &Roster, members: &Members) -> (Vec<u64>, Vec<u64>) {
    let nodes = |replicas| roster.nodes_of(replicas).into_iter().collect();
    (nodes(&members.voters), nodes(&members.learners))
}
