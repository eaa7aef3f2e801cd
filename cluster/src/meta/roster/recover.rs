//! A group whose majority was lost for good begins anew with one replica, in place of all it had.

use std::collections::BTreeSet;

use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;

use super::{Members, NodeStanding, Recover, Recovery, Remnant, ReplicaRecord, Roster};
use crate::group::Group;
use crate::limits::{RECOVERED_BY_BYTES_MAX, REMOVED_NODES_MAX};

impl Roster {
    /// Begins a group anew: a new replica beside the survivor is all it has, and every other has left.
    pub(in crate::meta) fn recover(
        &mut self,
        recover: &Recover,
        at: Timestamp,
        revision: Revision,
    ) -> Result<(), String> {
        if recover.group == Group::Meta {
            return Err("the catalogue is not begun anew by an entry of its own".to_owned());
        }
        let node = self.check_recover(recover)?;
        self.begin_anew(node, recover, at, revision);
        Ok(())
    }

    fn begin_anew(&mut self, node: u64, recover: &Recover, at: Timestamp, revision: Revision) {
        let (group, founder) = (recover.group, self.next_id(revision.0));
        self.replicas.retain(|_, of| of.group != group);
        self.replicas.insert(founder, ReplicaRecord { group, node });
        let record = self.groups.get_mut(&group).expect("checked above");
        record.now = Members { voters: [founder].into(), learners: BTreeSet::new() };
        (record.at, record.target) = (None, None);
        // Who led before knew of fewer.
        record.targets += 1;
        (record.leader, record.pinned) = (Some(node), false);
        self.recovered.insert(group, Recovery { of: recover.clone(), founder, at, revision });
    }

    /// One node is all that is left of the cluster, and begins every group anew. The others' disks never come back.
    pub(in crate::meta) fn begin_alone(
        &mut self,
        remnant: &Remnant,
        at: Timestamp,
        revision: Revision,
    ) -> Result<(), String> {
        let Remnant { node, found, by } = remnant;
        let record = self.nodes.get_mut(node).ok_or_else(|| format!("the catalogue here knows no node {node}"))?;
        record.standing = NodeStanding::Up;
        let groups: Vec<Group> = self.groups.keys().copied().collect();
        let mut anew = Vec::new();
        for group in groups {
            let (survivor, last) = *found.get(&group).ok_or_else(|| format!("nothing of {group} lies here"))?;
            let generation = self.generation(group) + 1;
            let recover = Recover { group, generation, survivor, last, by: by.clone() };
            if self.check_recover(&recover)? != *node {
                return Err(format!("replica {survivor} of {group} is another node's"));
            }
            anew.push(recover);
        }
        for recover in &anew {
            self.begin_anew(*node, recover, at, revision);
        }
        for (other, record) in std::mem::take(&mut self.nodes) {
            if other == *node {
                self.nodes.insert(other, record);
            } else {
                self.removed.insert(other, record.info.disk);
            }
        }
        while self.removed.len() > REMOVED_NODES_MAX {
            self.removed.pop_first();
        }
        Ok(())
    }

    /// The survivor's node, if the group may be begun anew from it.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::meta) fn check_recover(&self, recover: &Recover) -> Result<u64, String> {
        let Recover { group, generation, survivor, by, .. } = recover;
        if !self.groups.contains_key(group) {
            return Err(format!("there is no {group}"));
        }
        if *generation != self.generation(*group) + 1 {
            return Err(format!("{group} was begun anew meanwhile"));
        }
        if by.len() > RECOVERED_BY_BYTES_MAX {
            return Err(format!("who wants it is named by at most {RECOVERED_BY_BYTES_MAX} bytes"));
        }
        let held = self.replica(*survivor).filter(|of| of.group == *group);
        held.map(|of| of.node).ok_or_else(|| format!("replica {survivor} is none of {group}"))
    }
}
