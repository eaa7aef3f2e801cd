//! Who leads what, as far as this node has heard: each node says what it leads when that changes and a few times a second, and what it
//! hears of others itself, for those that have no way to each other. A hint and nothing more: whoever is asked and does not lead says so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bincode::{Decode, Encode};
use proffer_engine::keys::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::groups::Group;
use crate::limits::{CLAIMS_SILENT_MS, CLAIMS_UNLINKED_MS, RUMOURS_UNLINKED_MS};

/// What a node says it leads: groups, each with the term.
pub(crate) type Claims = BTreeMap<Group, u64>;

/// What a node says of itself, as it goes from node to node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Claim {
    /// Who says it.
    pub(crate) node: u64,
    /// Which start of that node, and the how-manieth of its words: of two the later one holds, whatever came last.
    pub(crate) word: (u64, u64),
    /// The groups that it leads, each with the term, and no others.
    pub(crate) leads: Vec<(Group, u64)>,
    /// Whether it takes more.
    pub(crate) takes_leads: bool,
    /// The newest catalogue revision in force there.
    pub(crate) in_force: Revision,
    /// How long ago it said so, in milliseconds, what the way took aside.
    pub(crate) age_ms: u64,
}

struct Heard {
    word: (u64, u64),
    claims: Claims,
    takes_leads: bool,
    in_force: Revision,
    /// When it said so.
    at: Instant,
    /// Who brought that, if it did not come itself.
    via: Option<u64>,
    /// When something came from itself.
    itself_at: Option<Instant>,
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

    /// The node `from` tells what a node says it leads: all of it. `true`: that is later than what was known. O(groups).
    pub(crate) fn hear(&self, from: u64, claim: Claim) -> bool {
        let Claim { node, word, leads, takes_leads, in_force, age_ms } = claim;
        let now = Instant::now();
        let is_itself = from == node;
        if (node == self.own && !is_itself) || age_ms >= CLAIMS_SILENT_MS {
            return false;
        }
        let mut known = self.claims();
        let before = known.get_mut(&node);
        if let Some(heard) = before.filter(|heard| heard.word >= word) {
            if is_itself && heard.word == word {
                (heard.via, heard.itself_at) = (None, Some(now));
            }
            return false;
        }
        let claims: Claims = leads.into_iter().collect();
        let before = known.get(&node);
        let is_news = before.is_none_or(|heard| heard.claims != claims);
        let itself_at = if is_itself { Some(now) } else { before.and_then(|heard| heard.itself_at) };
        let at = now.checked_sub(Duration::from_millis(age_ms)).unwrap_or(now);
        let via = (!is_itself).then_some(from);
        known.insert(node, Heard { word, claims, takes_leads, in_force, at, via, itself_at });
        drop(known);
        if is_news {
            self.changed.send_modify(|count| *count += 1);
        }
        true
    }

    /// What is told to other nodes of those that are heard here themselves.
    pub(crate) fn rumours(&self) -> Vec<Claim> {
        let claims = self.claims();
        let heard = claims.iter().filter(|(node, heard)| **node != self.own && heard.via.is_none());
        heard
            .map(|(node, heard)| Claim {
                node: *node,
                word: heard.word,
                leads: heard.claims.iter().map(|(group, term)| (*group, *term)).collect(),
                takes_leads: heard.takes_leads,
                in_force: heard.in_force,
                age_ms: u64::try_from(heard.at.elapsed().as_millis()).unwrap_or(u64::MAX),
            })
            .collect()
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

    /// Whether another node can be handed something: it was heard lately, itself, and takes leaderships.
    pub(crate) fn can_lead(&self, node: u64) -> bool {
        let lately = Duration::from_millis(CLAIMS_SILENT_MS);
        let is_heard = |heard: &Heard| heard.itself_at.is_some_and(|at| at.elapsed() < lately);
        self.claims().get(&node).is_some_and(|heard| heard.takes_leads && is_heard(heard))
    }

    /// Who tells of a node that is not heard itself, and so may have a way to it.
    pub(crate) fn way_to(&self, node: u64) -> Option<u64> {
        self.claims().get(&node).and_then(|heard| heard.via)
    }

    /// Whether a node's word counts though there is no link to it: it is quite new, for the way that it took.
    pub(crate) fn is_fresh(&self, node: u64) -> bool {
        let within = |heard: &Heard| if heard.via.is_some() { RUMOURS_UNLINKED_MS } else { CLAIMS_UNLINKED_MS };
        let is_new = |heard: &Heard| heard.at.elapsed() < Duration::from_millis(within(heard));
        self.claims().get(&node).is_some_and(is_new)
    }

    /// Whether another node has a revision in force.
    pub(crate) fn is_in_force_elsewhere(&self, revision: Revision) -> bool {
        self.claims().iter().any(|(node, heard)| *node != self.own && heard.in_force >= revision)
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
    #[cfg(test)]
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

    fn says(node: u64, count: u64, leads: &[(Group, u64)]) -> Claim {
        let leads = leads.to_vec();
        Claim { node, word: (1, count), leads, takes_leads: true, in_force: Revision(0), age_ms: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_term_holds_until_its_node_says_otherwise_or_falls_silent() {
        let directory = Directory::new(1);
        let mut changes = directory.watch();
        assert_eq!(directory.leader(SHARD), None);
        directory.hear(2, says(2, 1, &[(SHARD, 7)]));
        directory.hear(3, says(3, 1, &[(SHARD, 9), (Group::Meta, 1)]));
        assert_eq!(directory.leader(SHARD), Some((3, 9)), "whatever came last");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        directory.hear(3, says(3, 2, &[(SHARD, 9), (Group::Meta, 1)]));
        assert!(!changes.has_changed().unwrap(), "the same again is no news");
        tokio::time::advance(Duration::from_millis(CLAIMS_SILENT_MS / 2)).await;
        directory.hear(2, says(2, 2, &[(SHARD, 7)]));
        tokio::time::advance(Duration::from_millis(CLAIMS_SILENT_MS / 2)).await;
        directory.lose_silent();
        assert_eq!(directory.leader(SHARD), Some((2, 7)), "the third has been silent for too long");
        assert_eq!(directory.leader(Group::Meta), None);
        directory.hear(1, says(1, 1, &[(SHARD, 10)]));
        assert_eq!((directory.leader(SHARD), directory.leader_elsewhere(SHARD)), (Some((1, 10)), None));
        directory.hear(1, says(1, 2, &[]));
        assert_eq!(directory.leader_elsewhere(SHARD), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_words_of_a_node_the_later_one_holds_whichever_comes_last() {
        let directory = Directory::new(1);
        assert!(directory.hear(2, says(2, 5, &[])));
        assert!(!directory.hear(2, says(2, 4, &[(SHARD, 7)])), "it gave that up since");
        assert_eq!(directory.leader(SHARD), None);
        let restarted = Claim { word: (2, 1), ..says(2, 0, &[(SHARD, 8)]) };
        assert!(directory.hear(2, restarted), "a later start begins to count anew");
        assert!(!directory.hear(2, says(2, 6, &[])));
        assert_eq!(directory.leader(SHARD), Some((2, 8)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_tell_of_a_node_counts_until_it_is_too_old_and_says_by_whom_it_is_reached() {
        let (directory, between) = (Directory::new(1), Directory::new(2));
        between.hear(3, says(3, 1, &[(SHARD, 7)]));
        tokio::time::advance(Duration::from_millis(200)).await;
        let told = between.rumours();
        assert_eq!(told[0].age_ms, 200);
        assert!(directory.hear(2, told[0].clone()));
        assert_eq!((directory.leader(SHARD), directory.way_to(3)), (Some((3, 7)), Some(2)));
        assert!(!directory.can_lead(3), "there is no telling whether it would hear of it");
        assert!(directory.rumours().is_empty(), "what was heard of others is not passed on");
        assert!(!directory.hear(2, Claim { node: 1, word: (9, 9), ..told[0].clone() }), "it knows better");
        tokio::time::advance(Duration::from_millis(RUMOURS_UNLINKED_MS - 201)).await;
        assert!(directory.is_fresh(3));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!directory.is_fresh(3));
        assert!(!directory.hear(2, told[0].clone()), "the same again makes it no newer");
        tokio::time::advance(Duration::from_millis(CLAIMS_SILENT_MS)).await;
        directory.lose_silent();
        assert_eq!(directory.leader(SHARD), None);
        assert!(!directory.hear(2, Claim { age_ms: CLAIMS_SILENT_MS, ..says(3, 2, &[(SHARD, 7)]) }), "too old");
        // It comes itself, and by another way.
        directory.hear(2, says(3, 3, &[(SHARD, 7)]));
        assert_eq!(directory.way_to(3), Some(2));
        directory.hear(3, says(3, 3, &[(SHARD, 7)]));
        assert_eq!((directory.way_to(3), directory.can_lead(3)), (None, true));
    }
}
