//! Who leads what, as far as this node has heard: each node says what it leads when that changes and a few times a second. A hint and
//! nothing more: whoever is asked and does not lead says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::groups::Group;
use crate::limits::CLAIMS_SILENT_MS;

/// What a node says it leads: groups, each with the term.
pub(crate) type Claims = BTreeMap<Group, u64>;

struct Heard {
    claims: Claims,
    takes_leads: bool,
    at: Instant,
}

/// See the module.
pub(crate) struct Directory {
    own: u64,
    claims: Mutex<BTreeMap<u64, Heard>>,
    /// How often each node had been started when it was heard last.
    boots: Mutex<BTreeMap<u64, u64>>,
    /// This node takes nothing: it is not ready yet, or about to end.
    leaving: AtomicBool,
    /// It has no catalogue lease: what it leads is better led elsewhere.
    unfit: AtomicBool,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Directory {
    /// Of the node `own`.
    pub(crate) fn new(own: u64) -> Self {
        Directory {
            own,
            claims: Mutex::default(),
            boots: Mutex::default(),
            leaving: AtomicBool::new(true),
            unfit: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        }
    }

    /// This node.
    pub(crate) fn own(&self) -> u64 {
        self.own
    }

    /// A node says what it leads: all of it. O(groups).
    pub(crate) fn hear(&self, node: u64, claims: Claims, takes_leads: bool) {
        let mut known = self.claims();
        let is_news = known.get(&node).is_none_or(|heard| heard.claims != claims);
        known.insert(node, Heard { claims, takes_leads, at: Instant::now() });
        drop(known);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// A node was heard that has been started so often. Whether that is news: it may be elsewhere now.
    pub(crate) fn hear_start(&self, node: u64, boots: u64) -> bool {
        let mut known = self.boots.lock().expect("no holder panics");
        known.insert(node, boots) != Some(boots)
    }

    /// How often a node had been started when it was heard last; 0 if it never was.
    pub(crate) fn heard_boots(&self, node: u64) -> u64 {
        self.boots.lock().expect("no holder panics").get(&node).copied().unwrap_or(0)
    }

    /// Of nodes that have said nothing for long, nothing is known any more.
    pub(crate) fn lose_silent(&self) {
        let mut known = self.claims();
        let before = known.len();
        known.retain(|_, heard| heard.at.elapsed() < Duration::from_millis(CLAIMS_SILENT_MS));
        let is_news = known.len() != before;
        drop(known);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Whether this node takes leaderships: from when it is ready until it is about to end.
    pub(crate) fn take_leads(&self, takes: bool) {
        self.leaving.store(!takes, Ordering::Relaxed);
    }

    /// Whether this node takes leaderships.
    pub(crate) fn takes_leads(&self) -> bool {
        !self.leaving.load(Ordering::Relaxed) && !self.unfit.load(Ordering::Relaxed)
    }

    /// Whether this node has been without a catalogue lease for too long to lead anything.
    pub(crate) fn is_unfit(&self, is_unfit: bool) {
        self.unfit.store(is_unfit, Ordering::Relaxed);
    }

    /// Whether another node can be handed something: it was heard of lately, and takes leaderships.
    pub(crate) fn can_lead(&self, node: u64) -> bool {
        self.claims().get(&node).is_some_and(|heard| heard.takes_leads)
    }

    /// The nodes that were heard of lately.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.claims().keys().copied().collect()
    }

    /// The node that leads a group, and the term: of those that say so the one with the latest. O(nodes).
    pub(crate) fn leader(&self, group: Group) -> Option<(u64, u64)> {
        let claims = self.claims();
        let of_group = claims.iter().filter_map(|(node, heard)| Some((*heard.claims.get(&group)?, *node)));
        of_group.max().map(|(term, node)| (node, term))
    }

    /// The node that leads a group, if it is another.
    pub(crate) fn leader_elsewhere(&self, group: Group) -> Option<u64> {
        self.leader(group).map(|(node, _)| node).filter(|node| *node != self.own)
    }

    /// How many groups each node leads.
    pub(crate) fn counts(&self) -> BTreeMap<u64, usize> {
        self.claims().iter().map(|(node, heard)| (*node, heard.claims.len())).collect()
    }

    /// Tells of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<u64, Heard>> {
        self.claims.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::ShardId;

    use super::*;

    const SHARD: Group = Group::Shard(ShardId(3));

    #[tokio::test(start_paused = true)]
    async fn the_latest_term_holds_until_its_node_says_otherwise_or_falls_silent() {
        let directory = Directory::new(1);
        let mut changes = directory.watch();
        assert_eq!(directory.leader(SHARD), None);
        directory.hear(2, [(SHARD, 7)].into(), true);
        directory.hear(3, [(SHARD, 9), (Group::Meta, 1)].into(), true);
        assert_eq!(directory.leader(SHARD), Some((3, 9)), "whatever came last");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        directory.hear(3, [(SHARD, 9), (Group::Meta, 1)].into(), true);
        assert!(!changes.has_changed().unwrap(), "the same again is no news");
        tokio::time::advance(Duration::from_millis(CLAIMS_SILENT_MS / 2)).await;
        directory.hear(2, [(SHARD, 7)].into(), true);
        tokio::time::advance(Duration::from_millis(CLAIMS_SILENT_MS / 2)).await;
        directory.lose_silent();
        assert_eq!(directory.leader(SHARD), Some((2, 7)), "the third has been silent for too long");
        assert_eq!(directory.leader(Group::Meta), None);
        directory.hear(1, [(SHARD, 10)].into(), true);
        assert_eq!((directory.leader(SHARD), directory.leader_elsewhere(SHARD)), (Some((1, 10)), None));
        directory.hear(1, Claims::new(), true);
        assert_eq!(directory.leader_elsewhere(SHARD), Some(2));
    }
}
