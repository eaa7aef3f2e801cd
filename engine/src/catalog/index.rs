//! What points at what: derived from the tables, kept beside them, never stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::command::EntityKind;
use crate::catalog::table::TableKey;
use crate::keys::{ActivityKey, ChannelKey, CreativeKey, FlowKey, OfferKey, PlacementKey, RuleKey};

/// Any entity of a tenant: its kind and the number of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Thing {
    pub(crate) kind: EntityKind,
    pub(crate) index: u32,
}

impl Thing {
    pub(crate) fn new<K: TableKey>(kind: EntityKind, key: K) -> Self {
        Thing { kind, index: key.index() }
    }

    /// The key, for a thing whose kind the caller has looked at.
    pub(crate) fn key<K: TableKey>(self) -> K {
        K::from_index(self.index).expect("a thing was made from a key of its kind")
    }
}

/// Reverse references, tags and keys of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// (referenced, referencing).
    uses: BTreeSet<(Thing, Thing)>,
    pub(crate) tags: BTreeMap<String, usize>,
    pub(crate) placement_keys: BTreeMap<(ChannelKey, String), PlacementKey>,
    pub(crate) activity_keys: BTreeMap<String, ActivityKey>,
    pub(crate) flow_keys: BTreeMap<String, FlowKey>,
}

impl Index {
    /// Replaces what `user` references.
    pub(crate) fn repoint(&mut self, user: Thing, before: &[Thing], after: &[Thing]) {
        for target in before {
            self.uses.remove(&(*target, user));
        }
        for target in after {
            self.uses.insert((*target, user));
        }
    }

    /// Everything that references `target`, by kind and key. O(log n + result).
    pub(crate) fn users(&self, target: Thing) -> impl Iterator<Item = Thing> {
        let first = Thing { kind: EntityKind::ALL[0], index: 0 };
        let last = Thing { kind: EntityKind::ALL[EntityKind::ALL.len() - 1], index: u32::MAX };
        self.uses.range((target, first)..=(target, last)).map(|(_, user)| *user)
    }

    /// The users of `target` of one kind.
    pub(crate) fn users_of_kind(&self, target: Thing, kind: EntityKind) -> impl Iterator<Item = Thing> {
        let (first, last) = (Thing { kind, index: 0 }, Thing { kind, index: u32::MAX });
        self.uses.range((target, first)..=(target, last)).map(|(_, user)| *user)
    }

    pub(crate) fn creatives_of(&self, offer: OfferKey) -> impl Iterator<Item = CreativeKey> {
        self.users_of_kind(Thing::new(EntityKind::Offer, offer), EntityKind::Creative).map(Thing::key)
    }

    pub(crate) fn rules_of(&self, offer: OfferKey) -> impl Iterator<Item = RuleKey> {
        self.users_of_kind(Thing::new(EntityKind::Offer, offer), EntityKind::Rule).map(Thing::key)
    }

    pub(crate) fn rules_of_creative(&self, creative: CreativeKey) -> impl Iterator<Item = RuleKey> {
        self.users_of_kind(Thing::new(EntityKind::Creative, creative), EntityKind::Rule).map(Thing::key)
    }

    pub(crate) fn add_tags(&mut self, tags: &[String]) {
        for tag in tags {
            *self.tags.entry(tag.clone()).or_insert(0) += 1;
        }
    }

    pub(crate) fn remove_tags(&mut self, tags: &[String]) {
        for tag in tags {
            if let Some(count) = self.tags.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    self.tags.remove(tag);
                }
            }
        }
    }
}
