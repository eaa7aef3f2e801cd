//! Replicas of a group that stand at the same entry stand at the same one of the same leader, and hold the same state (docs/adr/0010:
//! the same entries in the same order).

use std::collections::BTreeMap;

use proffer_cluster::group::Group;
use proffer_engine::profile::command::Leader;

use crate::check::{Invariant, Seen};

/// See the module.
#[derive(Default)]
pub struct OneHistory {
    known: BTreeMap<(Group, u64), (Leader, u64, usize)>,
}

impl Invariant for OneHistory {
    fn sentence(&self) -> &'static str {
        "replicas at the same entry hold the same state"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let (group, index) = (seen.group, seen.position.index);
        let now = (seen.position.leader, seen.hash, seen.host);
        let known = *self.known.entry((group, index)).or_insert(now);
        if (known.0, known.1) == (now.0, now.1) {
            return Ok(());
        }
        Err(format!(
            "{group} at entry {index}: h{} has it of {:?} with state {:x}, h{} of {:?} with state {:x}",
            known.2, known.0, known.1, now.2, now.0, now.1
        ))
    }
}
