//! Who leads what, as far as this node has heard: each node says what it leads when that changes and a few times a second. A hint and
//! nothing more: whoever is asked and does not lead says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::groups::Group;

/// What a node says it leads: groups, each with the term.
pub(crate) type Claims = BTreeMap<Group, u64>;

/// See the module.
pub(crate) struct Directory {
    own: u64,
    claims: Mutex<BTreeMap<u64, Claims>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Directory {
    /// Of the node `own`.
    pub(crate) fn new(own: u64) -> Self {
        Directory { own, claims: Mutex::default(), changed: watch::Sender::new(0) }
    }

    /// This node.
    pub(crate) fn own(&self) -> u64 {
        self.own
    }

    /// A node says what it leads: all of it. O(groups).
    pub(crate) fn hear(&self, node: u64, claims: Claims) {
        let mut known = self.claims();
        let is_news = known.get(&node) != Some(&claims);
        known.insert(node, claims);
        drop(known);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A node says nothing any more: what it led last is led by nobody, as far as is known.
    pub(crate) fn lose(&self, node: u64) {
        if self.claims().remove(&node).is_some_and(|claims| !claims.is_empty()) {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// The node that leads a group, and the term: of those that say so the one with the latest. O(nodes).
    pub(crate) fn leader(&self, group: Group) -> Option<(u64, u64)> {
        let claims = self.claims();
        let of_group = claims.iter().filter_map(|(node, claims)| Some((*claims.get(&group)?, *node)));
        of_group.max().map(|(term, node)| (node, term))
    }

    /// The node that leads a group, if it is another.
    pub(crate) fn leader_elsewhere(&self, group: Group) -> Option<u64> {
        self.leader(group).map(|(node, _)| node).filter(|node| *node != self.own)
    }

    /// How many groups each node leads.
    pub(crate) fn counts(&self) -> BTreeMap<u64, usize> {
        self.claims().iter().map(|(node, claims)| (*node, claims.len())).collect()
    }

    /// Tells of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<u64, Claims>> {
        self.claims.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::ShardId;

    use super::*;

    const SHARD: Group = Group::Shard(ShardId(3));

    #[test]
    fn the_latest_term_holds_until_its_node_says_otherwise_or_falls_silent() {
        let directory = Directory::new(1);
        let mut changes = directory.watch();
        assert_eq!(directory.leader(SHARD), None);
        directory.hear(2, [(SHARD, 7)].into());
        directory.hear(3, [(SHARD, 9), (Group::Meta, 1)].into());
        assert_eq!(directory.leader(SHARD), Some((3, 9)), "whatever came last");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        directory.hear(3, [(SHARD, 9), (Group::Meta, 1)].into());
        assert!(!changes.has_changed().unwrap(), "the same again is no news");
        directory.lose(3);
        assert_eq!(directory.leader(SHARD), Some((2, 7)));
        assert_eq!(directory.leader(Group::Meta), None);
        directory.hear(1, [(SHARD, 10)].into());
        assert_eq!((directory.leader(SHARD), directory.leader_elsewhere(SHARD)), (Some((1, 10)), None));
        directory.hear(1, Claims::new());
        assert_eq!(directory.leader_elsewhere(SHARD), Some(2));
    }
}
