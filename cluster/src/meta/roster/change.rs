//! What entries do to the roster. Each change is made wholly, or refused with words and not at all: whoever calls keeps the roster as it
//! was then.

use std::collections::{BTreeMap, BTreeSet};

use proffer_engine::level::Level;

use super::{Configured, GroupRecord, Members, NodeInfo, NodeRecord, NodeStanding, ReplicaRecord, Roster};
use crate::group::Group;
use crate::identity::{FIRST_REPLICA, FOUNDER, first_replicas};
use crate::limits::{
    ENTRY_COMMANDS_MAX, NODES_MAX, PEER_ADDRESS_BYTES_MAX, REMOVED_NODES_MAX, SHARDS_MAX, ZONE_BYTES_MAX,
};

/// Ids that one entry may give: more than its commands and what they place.
const IDS_PER_ENTRY: u64 = 65_536;
const _: () = assert!(ENTRY_COMMANDS_MAX <= 4_096 && SHARDS_MAX < 1_024);

impl Roster {
    /// An id that was never given and never will be again.
    pub(super) fn next_id(&mut self, index: u64) -> u64 {
        self.last_id = index.saturating_mul(IDS_PER_ENTRY).max(self.last_id + 1);
        self.last_id
    }

    /// Admits a node, or learns of another start of one. Gives its id and that of its replica of the meta group.
    pub(crate) fn enroll(&mut self, info: &NodeInfo, shards: u16, index: u64) -> Result<(u64, u64), String> {
        if let Some((node, _)) = self.removed.iter().find(|(_, disk)| **disk == info.disk) {
            return Err(format!("this disk was node {node}, which was removed: begin with an empty directory"));
        }
        let Some(node) = self.node_of_disk(info.disk) else {
            return self.admit(info, shards, index);
        };
        check(info, self.nodes.len() == 1)?;
        let replica = self.replica_on(Group::Meta, node);
        let replica = replica.ok_or_else(|| format!("node {node} is being removed"))?;
        let record = self.nodes.get_mut(&node).expect("found by its disk");
        let last = record.info.boots;
        if info.boots < last {
            return Err(format!(
                "this is an older copy of the disk of node {node}: it says start {}, and start {last} is known",
                info.boots
            ));
        }
        if info.boots == last && record.info != *info {
            return Err(format!("start {last} of node {node} is known with other addresses: its disk was copied"));
        }
        record.info = info.clone();
        Ok((node, replica))
    }

    fn admit(&mut self, info: &NodeInfo, shards: u16, index: u64) -> Result<(u64, u64), String> {
        check(info, self.nodes.is_empty())?;
        let record = NodeRecord { info: info.clone(), standing: NodeStanding::Up };
        if self.nodes.is_empty() && self.last_id == 0 {
            if shards == 0 {
                return Err("the cluster is not founded yet".to_owned());
            }
            self.nodes.insert(FOUNDER, record);
            for (group, replica) in first_replicas(shards) {
                self.last_id = replica;
                self.replicas.insert(replica, ReplicaRecord { group, node: FOUNDER });
                let now = Members { voters: [replica].into(), learners: BTreeSet::new() };
                let leader = (group != Group::Meta).then_some(FOUNDER);
                self.groups.insert(group, GroupRecord { now, leader, ..GroupRecord::default() });
            }
            return Ok((FOUNDER, FIRST_REPLICA));
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("there are {NODES_MAX} nodes, which is the most"));
        }
        let (node, replica) = (self.next_id(index), self.next_id(index));
        self.nodes.insert(node, record);
        self.replicas.insert(replica, ReplicaRecord { group: Group::Meta, node });
        let meta = self.groups.entry(Group::Meta).or_default();
        let mut target = meta.meant().clone();
        target.learners.insert(replica);
        meta.aim(target);
        Ok((node, replica))
    }

    /// Sets what a group's members should be, by nodes; those that hold none of it get a new replica.
    pub(crate) fn retarget(
        &mut self,
        group: Group,
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
        (leader, pinned): (Option<u64>, bool),
        index: u64,
    ) -> Result<(), String> {
        if !self.groups.contains_key(&group) {
            return Err(format!("there is no {group}"));
        }
        if let Some(unknown) = voters.iter().chain(learners).find(|node| !self.nodes.contains_key(node)) {
            return Err(format!("there is no node {unknown}"));
        }
        if voters.is_empty() || !voters.is_disjoint(learners) {
            return Err(format!("{group} cannot have voters on {voters:?} and learners on {learners:?}"));
        }
        if let Some(leader) = leader.filter(|leader| !voters.contains(leader)) {
            return Err(format!("node {leader} has no voter of {group}"));
        }
        let mut replicas = |nodes: &BTreeSet<u64>| nodes.iter().map(|node| self.place(group, *node, index)).collect();
        let target = Members { voters: replicas(voters), learners: replicas(learners) };
        let record = self.groups.get_mut(&group).expect("looked up above");
        (record.leader, record.pinned) = (leader, pinned && leader.is_some());
        record.aim(target);
        Ok(())
    }

    /// A group's replica on a node: the one there is, or a new one.
    fn place(&mut self, group: Group, node: u64, index: u64) -> u64 {
        self.replica_on(group, node).unwrap_or_else(|| {
            let replica = self.next_id(index);
            self.replicas.insert(replica, ReplicaRecord { group, node });
            replica
        })
    }

    /// Gives the node of a disk a new replica in place of each that it has given up and is still meant to hold: `given_up` says of each
    /// group through which one. They leave as all do, once the group's leader reports a configuration without them. Gives the node's id
    /// and its replica of the meta group. Said again, nothing more comes of it.
    ///
    /// # Errors
    /// If nothing could be replaced, because the groups had no other voter: without their data they cannot go on.
    pub(crate) fn replace(
        &mut self,
        disk: u128,
        given_up: &BTreeMap<Group, u64>,
        index: u64,
    ) -> Result<(u64, u64), String> {
        let node = self.node_of_disk(disk).ok_or("no node of the cluster has this disk")?;
        let (mut replaced, mut alone) = (0, None);
        for (old, group) in self.given_up(node, given_up).collect::<Vec<_>>() {
            let record = &self.groups[&group];
            let is_alone = |members: &Members| members.voters.iter().eq([&old]);
            if is_alone(&record.now) || is_alone(record.meant()) {
                alone = Some((group, old));
                continue;
            }
            let new = self.next_id(index);
            self.replicas.insert(new, ReplicaRecord { group, node });
            let record = self.groups.get_mut(&group).expect("looked up above");
            let in_place = |replicas: &BTreeSet<u64>| {
                replicas.iter().map(|replica| if *replica == old { new } else { *replica }).collect()
            };
            let meant = record.meant();
            let target = Members { voters: in_place(&meant.voters), learners: in_place(&meant.learners) };
            record.aim(target);
            replaced += 1;
        }
        match (replaced, alone) {
            (0, Some((group, old))) => Err(format!("{group} has no voter but replica {old}, which was given up")),
            (_, _) => {
                let replica = self.replica_on(Group::Meta, node);
                Ok((node, replica.ok_or_else(|| format!("node {node} is being removed"))?))
            }
        }
    }

    /// Books what a group's leader reports. Replicas that are neither in that configuration nor wanted leave, if the leader knew of
    /// the newest target: it will not take them in again.
    pub(crate) fn configure(&mut self, report: &Configured) -> Result<(), String> {
        let Configured { group, members, at, targets } = report;
        let founder = self.recovery(*group).map_or(0, |recovery| recovery.founder);
        if let Some(lost) = members.all().find(|replica| *replica < founder) {
            return Err(format!("replica {lost} is of {group} before it was begun anew"));
        }
        let Some(record) = self.groups.get_mut(group) else { return Err(format!("there is no {group}")) };
        let is_later = record.at < Some(*at) || (record.at == Some(*at) && record.heard < *targets);
        if !is_later || *targets > record.targets {
            return Err(format!("{group} is known at {:?} already", record.at));
        }
        if members.voters.is_empty() || members.all().count() > 2 * NODES_MAX {
            return Err(format!("{group} cannot have these members"));
        }
        (record.now, record.at) = (members.clone(), Some(*at));
        record.heard = record.heard.max(*targets);
        if record.target.as_ref() == Some(&record.now) {
            record.target = None;
        }
        if *targets == record.targets {
            let record = record.clone();
            let is_kept = |replica| record.now.contains(replica) || record.meant().contains(replica);
            self.replicas.retain(|replica, of| of.group != *group || is_kept(*replica));
        }
        self.configure_out(*group);
        Ok(())
    }

    /// A leader that knew of an older target only may have taken a replica in that has left meanwhile. It lives nowhere any more: the
    /// group is to be without it.
    fn configure_out(&mut self, group: Group) {
        let Some(record) = self.groups.get_mut(&group) else { return };
        let is_there = |replica: &u64| self.replicas.contains_key(replica);
        let there = |replicas: &BTreeSet<u64>| replicas.iter().copied().filter(is_there).collect();
        let meant = record.meant();
        let target = Members { voters: there(&meant.voters), learners: there(&meant.learners) };
        if target != *meant && !target.voters.is_empty() {
            record.aim(target);
        }
    }

    /// Books the highest feature level that the node of a disk can.
    ///
    /// # Errors
    /// If the cluster is beyond that already.
    pub(in crate::meta) fn enable(&mut self, disk: u128, level: Level) -> Result<(), String> {
        let node = self.node_of_disk(disk).ok_or("no node of the cluster has this disk")?;
        if level < self.level {
            return Err(too_old(level, self.level));
        }
        if level > Level::FIRST {
            self.able.insert(node, level)
        } else {
            self.able.remove(&node)
        };
        Ok(())
    }

    /// Raises the cluster's feature level.
    ///
    /// # Errors
    /// If a node cannot it.
    pub(in crate::meta) fn raise(&mut self, level: Level) -> Result<(), String> {
        if let Some(node) = self.nodes.keys().find(|node| self.able(**node) < level) {
            return Err(format!("node {node}: {}", too_old(self.able(*node), level)));
        }
        self.level = self.level.max(level);
        Ok(())
    }

    /// Lets every group be led as is even.
    pub(in crate::meta) fn unpin(&mut self) {
        self.groups.values_mut().for_each(|record| record.pinned = false);
    }

    /// Sets what is meant to become of a node. One that is being removed goes.
    pub(in crate::meta) fn set_standing(&mut self, node: u64, standing: NodeStanding) -> Result<(), String> {
        let Some(record) = self.nodes.get_mut(&node) else { return Err(format!("there is no node {node}")) };
        if record.standing == NodeStanding::Removing && standing != NodeStanding::Removing {
            return Err(format!("node {node} is being removed"));
        }
        record.standing = standing;
        Ok(())
    }

    /// Forgets a node that is being removed and holds nothing any more. Its disk never comes back.
    pub(in crate::meta) fn forget(&mut self, node: u64) -> Result<(), String> {
        let Some(record) = self.nodes.get(&node) else { return Err(format!("there is no node {node}")) };
        if record.standing != NodeStanding::Removing {
            return Err(format!("node {node} is not being removed"));
        }
        if let Some((replica, group)) = self.replicas_of(node).next() {
            return Err(format!("node {node} holds replica {replica} of {group}"));
        }
        self.removed.insert(node, record.info.disk);
        self.nodes.remove(&node);
        self.able.remove(&node);
        while self.removed.len() > REMOVED_NODES_MAX {
            self.removed.pop_first();
        }
        Ok(())
    }
}

impl GroupRecord {
    /// Sets the target, or takes it away where it is what is.
    fn aim(&mut self, target: Members) {
        let target = (target != self.now).then_some(target);
        if target != self.target {
            self.target = target;
            self.targets += 1;
        }
    }
}

/// Why a node that can one feature level is not of a cluster that is at another.
pub(crate) fn too_old(can: Level, at: Level) -> String {
    format!("the cluster is at feature level {at}, and this release can {can}: upgrade it")
}

/// Whether a node can be reached as it says. One that is alone need not be.
fn check(info: &NodeInfo, is_alone: bool) -> Result<(), String> {
    for (what, address) in [("peer", &info.peer_address), ("http", &info.http_address)] {
        if address.len() > PEER_ADDRESS_BYTES_MAX {
            return Err(format!("the {what} address is longer than {PEER_ADDRESS_BYTES_MAX} bytes"));
        }
        if is_alone && address.is_empty() {
            continue;
        }
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        let is_address = address.chars().all(|char| char.is_ascii_graphic()) && matches!(port, Some(Ok(1..)));
        if !is_address {
            return Err(format!("the {what} address {address:?} is not one: host:port is"));
        }
    }
    if info.zone.len() > ZONE_BYTES_MAX || info.zone.chars().any(char::is_control) {
        return Err(format!("a zone is named by at most {ZONE_BYTES_MAX} bytes of text"));
    }
    Ok(())
}
