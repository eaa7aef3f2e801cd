//! A group whose majority was lost for good begins anew with one replica, in place of all it had.

use std::collections::BTreeSet;

use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;

use super::{Members, Recover, Recovery, ReplicaRecord, Roster};
use crate::group::Group;
use crate::limits::RECOVERED_BY_BYTES_MAX;

impl Roster {
    /// Begins a group anew: a new replica beside the survivor is all it has, and every other has left.
    pub(in crate::meta) fn recover(
        &mut self,
        recover: &Recover,
        at: Timestamp,
        revision: Revision,
    ) -> Result<(), String> {
        let founder = self.check_recover(recover).map(|node| (node, self.next_id(revision.0)));
        let (node, founder) = founder?;
        let group = recover.group;
        self.replicas.retain(|_, of| of.group != group);
        self.replicas.insert(founder, ReplicaRecord { group, node });
        let record = self.groups.get_mut(&group).expect("checked above");
        record.now = Members { voters: [founder].into(), learners: BTreeSet::new() };
        (record.at, record.target) = (None, None);
        // Who led before knew of fewer.
        record.targets += 1;
        (record.leader, record.pinned) = (Some(node), false);
        self.recovered.insert(group, Recovery { of: recover.clone(), founder, at, revision });
        Ok(())
    }

    /// The survivor's node, if the group may be begun anew from it.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::meta) fn check_recover(&self, recover: &Recover) -> Result<u64, String> {
        let Recover { group, generation, survivor, by, .. } = recover;
        if *group == Group::Meta {
            return Err("the catalogue is not begun anew by an entry of its own".to_owned());
        }
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
