//! What a batch may hold: every request is checked against what the groups will be once the requests before it are durable.

use std::collections::{BTreeMap, BTreeSet};

use super::index::{Bounds, Index};
use super::writer::Op;
use super::{GroupId, LogError};
use crate::limits::LOG_GROUPS_MAX;

/// What the groups will be once the batch so far is durable.
pub(super) struct Plan<'a> {
    index: &'a Index,
    locked: BTreeSet<GroupId>,
    groups: BTreeMap<GroupId, Option<Bounds>>,
    count: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(index: &'a Index) -> Plan<'a> {
        Plan { index, locked: index.corrupt_groups(), groups: BTreeMap::new(), count: index.groups.len() }
    }

    fn bounds(&self, group: GroupId) -> Option<Bounds> {
        let known = || self.index.groups.get(&group).map(|known| known.bounds);
        self.groups.get(&group).copied().unwrap_or_else(known)
    }

    /// Takes a request into the plan, or says why it cannot be carried out.
    pub(super) fn admit(&mut self, op: &Op) -> Result<(), LogError> {
        let group = match op {
            Op::Barrier | Op::Close => return Ok(()),
            Op::Destroy { group } => {
                self.locked.remove(group);
                self.count -= usize::from(self.bounds(*group).is_some());
                self.groups.insert(*group, None);
                return Ok(());
            }
            Op::Append { group, .. }
            | Op::State { group, .. }
            | Op::Truncate { group, .. }
            | Op::Purge { group, .. } => *group,
        };
        if self.locked.contains(&group) {
            return Err(LogError::Locked(group));
        }
        let known = self.bounds(group);
        if known.is_none() && self.count >= LOG_GROUPS_MAX {
            return Err(LogError::TooManyGroups(LOG_GROUPS_MAX));
        }
        let mut bounds = known.unwrap_or_default();
        match op {
            Op::Append { first, payloads, .. } => {
                // None at all says nothing about where the group begins.
                if !payloads.is_empty() {
                    bounds.append(group, *first, payloads.len() as u64)?;
                }
            }
            Op::Truncate { from, .. } => bounds.truncate(group, *from)?,
            Op::Purge { first, .. } => bounds.purge(*first),
            Op::State { .. } | Op::Destroy { .. } | Op::Barrier | Op::Close => {}
        }
        self.count += usize::from(known.is_none());
        self.groups.insert(group, Some(bounds));
        Ok(())
    }
}
