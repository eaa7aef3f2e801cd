//! Who is where (docs/adr/0012): the nodes of the cluster, the replicas on them, and for each group which of these are its members
//! and which should be. A pure part of the meta group's state; only its entries change it.
//!
//! `change` and `recover` are what they do to it, `stored` its bytes.

pub(crate) mod change;
mod recover;
mod stored;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use proffer_engine::keys::Revision;
use proffer_engine::level::Level;
use proffer_engine::profile::command::Position;
use proffer_engine::time::Timestamp;

use crate::group::Group;
use crate::limits::TERMS_PER_GENERATION;

/// What a node says of itself when it joins and at each start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct NodeInfo {
    /// Its disk: no two disks have the same id.
    pub disk: u128,
    /// Starts of the disk so far.
    pub boots: u64,
    /// Where other nodes reach it, as `host:port`; empty while it is alone and nobody needs to.
    pub peer_address: String,
    /// Where channels reach it, as `host:port`; empty as above.
    pub http_address: String,
    /// Nodes of one zone fail together. May be empty.
    pub zone: String,
}

/// What is meant to become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeStanding {
    /// It holds replicas and leads.
    Up,
    /// What it holds goes elsewhere, if there is an elsewhere.
    Draining,
    /// It goes for good.
    Removing,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// What it said at its last start.
    pub info: NodeInfo,
    /// What is meant to become of it.
    pub standing: NodeStanding,
}

/// One placing of a group on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ReplicaRecord {
    /// Of which group.
    pub group: Group,
    /// On which node.
    pub node: u64,
}

/// Replicas of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Members {
    /// Those that vote.
    pub voters: BTreeSet<u64>,
    /// Those that are sent everything and do not vote.
    pub learners: BTreeSet<u64>,
}

impl Members {
    /// Whether a replica is one of them.
    pub fn contains(&self, replica: u64) -> bool {
        self.voters.contains(&replica) || self.learners.contains(&replica)
    }

    /// All of them, voters first.
    pub fn all(&self) -> impl Iterator<Item = u64> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }
}

/// A group's members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct GroupRecord {
    /// As its leader last reported them.
    pub now: Members,
    /// Where that configuration stands in the group's log; `None` while none was reported.
    pub at: Option<Position>,
    /// As they should be, where that differs.
    pub target: Option<Members>,
    /// How often the target was changed.
    pub targets: u64,
    /// Of which of these the leader knew that last reported.
    pub heard: u64,
    /// The node that should lead.
    pub leader: Option<u64>,
    /// An operator chose that node: it is not levelled away.
    pub pinned: bool,
}

impl GroupRecord {
    /// What the members are meant to be.
    pub fn meant(&self) -> &Members {
        self.target.as_ref().unwrap_or(&self.now)
    }
}

/// What a group's leader reports: a committed configuration with one set of voters.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Configured {
    /// Of which group.
    pub group: Group,
    /// Its members.
    pub members: Members,
    /// Where the configuration stands in the group's log.
    pub at: Position,
    /// Which target the leader knew before it read the configuration: [`GroupRecord::targets`].
    pub targets: u64,
}

/// What is left of a group whose majority was lost for good, as it was found: what it begins anew with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recover {
    /// Which group.
    pub group: Group,
    /// Which generation begins: one more than there was. The one that the cluster was founded with is 0.
    pub generation: u64,
    /// The replica whose log goes furthest of those that were found.
    pub survivor: u64,
    /// Where its log ends.
    pub last: Position,
    /// Who wants it: an API key's id, and its tenant.
    pub by: String,
}

/// One node with what lies on its disk: all that is left of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remnant {
    /// Which node.
    pub(crate) node: u64,
    /// Of each group the replica that lies there, and where its log ends.
    pub(crate) found: BTreeMap<Group, (u64, Position)>,
    /// Who wants it.
    pub(crate) by: String,
}

/// How a group came to its generation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recovery {
    /// What was found, and who wanted it.
    pub of: Recover,
    /// The replica that began it, beside the survivor. All replicas of this generation have ids from this one up, all earlier ones lower ids.
    pub founder: u64,
    /// When, in cluster time.
    pub at: Timestamp,
    /// The revision of the entry. It is a fence: who decides has applied it.
    pub revision: Revision,
}

impl Recovery {
    /// Terms of this generation are higher than this: no earlier one's come so far.
    pub fn term_floor(&self) -> u64 {
        self.of.generation.saturating_mul(TERMS_PER_GENERATION)
    }
}

/// Nodes, replicas and groups. Equal rosters have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    nodes: BTreeMap<u64, NodeRecord>,
    replicas: BTreeMap<u64, ReplicaRecord>,
    groups: BTreeMap<Group, GroupRecord>,
    /// Nodes that were removed, with their disks: these never come back.
    removed: BTreeMap<u64, u128>,
    /// Groups that are not of the generation that the cluster was founded with.
    recovered: BTreeMap<Group, Recovery>,
    /// The feature level that the cluster is at.
    level: Level,
    /// What nodes can beyond the first level.
    able: BTreeMap<u64, Level>,
    last_id: u64,
}

impl Roster {
    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (u64, &NodeRecord)> {
        self.nodes.iter().map(|(node, record)| (*node, record))
    }

    /// A node.
    pub fn node(&self, node: u64) -> Option<&NodeRecord> {
        self.nodes.get(&node)
    }

    /// The node that a disk is. O(nodes).
    pub fn node_of_disk(&self, disk: u128) -> Option<u64> {
        self.nodes.iter().find(|(_, record)| record.info.disk == disk).map(|(node, _)| *node)
    }

    /// Whether this start of a disk is known: a roster that does not know of it may be older than what the node has acted on before
    /// it was started. O(nodes).
    pub fn knows_start(&self, disk: u128, boots: u64) -> bool {
        self.nodes.values().any(|record| (record.info.disk, record.info.boots) == (disk, boots))
    }

    /// All replicas, by id.
    pub fn replicas(&self) -> impl Iterator<Item = (u64, ReplicaRecord)> {
        self.replicas.iter().map(|(replica, record)| (*replica, *record))
    }

    /// A replica.
    pub fn replica(&self, replica: u64) -> Option<ReplicaRecord> {
        self.replicas.get(&replica).copied()
    }

    /// The replicas that a node holds, or should. O(replicas).
    pub fn replicas_of(&self, node: u64) -> impl Iterator<Item = (u64, Group)> {
        let on_node = move |(_, record): &(&u64, &ReplicaRecord)| record.node == node;
        self.replicas.iter().filter(on_node).map(|(replica, record)| (*replica, record.group))
    }

    /// A group's replica on a node: the newest, while one that was given up has not left yet. O(replicas).
    pub fn replica_on(&self, group: Group, node: u64) -> Option<u64> {
        self.replicas_of(node).filter(|(_, of)| *of == group).last().map(|(replica, _)| replica)
    }

    /// The replicas that are meant to be on a node and that it has given up: `given_up` says of each group through which one. O(replicas).
    pub fn given_up(&self, node: u64, given_up: &BTreeMap<Group, u64>) -> impl Iterator<Item = (u64, Group)> {
        self.replicas_of(node).filter(|(replica, group)| {
            let is_meant = self.groups.get(group).is_some_and(|record| record.meant().contains(*replica));
            is_meant && given_up.get(group).is_some_and(|newest| replica <= newest)
        })
    }

    /// Where a replica lives.
    pub fn node_of(&self, replica: u64) -> Option<u64> {
        self.replicas.get(&replica).map(|record| record.node)
    }

    /// Where replicas live; one that has left is nowhere.
    pub fn nodes_of(&self, replicas: &BTreeSet<u64>) -> BTreeSet<u64> {
        replicas.iter().filter_map(|replica| self.node_of(*replica)).collect()
    }

    /// Whether a replica is in no group any more, and never will be: its node destroys what it holds of it. `false` for one that was
    /// placed by an entry later than this roster.
    pub fn has_left(&self, replica: u64) -> bool {
        replica <= self.last_id && !self.replicas.contains_key(&replica)
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = (Group, &GroupRecord)> {
        self.groups.iter().map(|(group, record)| (*group, record))
    }

    /// A group.
    pub fn group(&self, group: Group) -> Option<&GroupRecord> {
        self.groups.get(&group)
    }

    /// Groups that were begun anew, each with how it came to the generation that it is of.
    pub fn recoveries(&self) -> impl Iterator<Item = (Group, &Recovery)> {
        self.recovered.iter().map(|(group, recovery)| (*group, recovery))
    }

    /// How a group came to its generation; `None` while it is of the first.
    pub fn recovery(&self, group: Group) -> Option<&Recovery> {
        self.recovered.get(&group)
    }

    /// Which generation a group is of.
    pub fn generation(&self, group: Group) -> u64 {
        self.recovery(group).map_or(0, |recovery| recovery.of.generation)
    }

    /// Whether a group was begun anew, and nobody has led it since.
    pub fn is_unborn(&self, group: Group) -> bool {
        self.recovered.contains_key(&group) && self.group(group).is_some_and(|record| record.at.is_none())
    }

    /// Nodes that were removed, with their disks; the oldest are forgotten.
    pub fn removed(&self) -> impl Iterator<Item = (u64, u128)> {
        self.removed.iter().map(|(node, disk)| (*node, *disk))
    }

    /// The feature level that the cluster is at: every node can it, and none is let in that cannot.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The highest feature level that a node can, as far as it has said.
    pub fn able(&self, node: u64) -> Level {
        self.able.get(&node).copied().unwrap_or_default()
    }

    /// The highest feature level that all nodes can. O(nodes).
    pub fn able_all(&self) -> Level {
        self.nodes.keys().map(|node| self.able(*node)).min().unwrap_or_default()
    }

    /// The highest id of a node or replica that was ever given.
    pub fn last_id(&self) -> u64 {
        self.last_id
    }
}
