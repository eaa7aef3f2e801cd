//! What points at what: derived from the tables, kept beside them, never stored.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::command::EntityKind;
use crate::catalog::table::TableKey;
use crate::catalog::validate::condition::Kind;
use crate::decide::score::LargestValues;
use crate::keys::{
    ActivityKey, CategoryKey, ChannelKey, CreativeKey, FlowKey, ModelKey, OfferKey, PlacementKey, RuleKey,
    SubCategoryKey,
};

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

/// Looking up a thing costs about as much as walking over so many.
const WALK_FACTOR: usize = 16;

/// All pairs of which the referenced one is of `kind`, with a key from `first` to `last`.
fn all_of<K: TableKey>(kind: EntityKind, first: K, last: K) -> std::ops::RangeInclusive<(Thing, Thing)> {
    let lowest = Thing { kind: EntityKind::ALL[0], index: 0 };
    let highest = Thing { kind: EntityKind::ALL[EntityKind::ALL.len() - 1], index: u32::MAX };
    (Thing::new(kind, first), lowest)..=(Thing::new(kind, last), highest)
}

/// Margins and revenue values of active general offers, so that the largest of what is left is known at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Worths {
    margins: Counted,
    revenues: Counted,
}

impl Worths {
    /// Counts an offer in.
    pub(crate) fn add(&mut self, margin: f64, revenue: f64) {
        self.margins.add(margin);
        self.revenues.add(revenue);
    }

    /// Counts it out.
    pub(crate) fn remove(&mut self, margin: f64, revenue: f64) {
        self.margins.remove(margin);
        self.revenues.remove(revenue);
    }

    /// The largest of each; none is below 0.
    pub(crate) fn largest(&self) -> LargestValues {
        LargestValues { margin: self.margins.largest(), revenue_value: self.revenues.largest() }
    }
}

/// Positive numbers, each with how often it is there, by their bits: these sort as the numbers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counted(BTreeMap<u64, u32>);

impl Counted {
    fn add(&mut self, number: f64) {
        if number > 0.0 {
            *self.0.entry(number.to_bits()).or_insert(0) += 1;
        }
    }

    fn remove(&mut self, number: f64) {
        if number > 0.0
            && let Some(count) = self.0.get_mut(&number.to_bits())
        {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&number.to_bits());
            }
        }
    }

    fn largest(&self) -> f64 {
        self.0.last_key_value().map_or(0.0, |(bits, _)| f64::from_bits(*bits))
    }
}

/// Reverse references, tags and keys of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// (referenced, referencing).
    uses: BTreeSet<(Thing, Thing)>,
    pub(crate) tags: BTreeMap<String, usize>,
    /// Rules with a scope that is no offer and no creative.
    pub(crate) wide_rules: BTreeSet<RuleKey>,
    pub(crate) worths: Worths,
    pub(crate) placement_keys: BTreeMap<(ChannelKey, String), PlacementKey>,
    pub(crate) activity_keys: BTreeMap<String, ActivityKey>,
    pub(crate) flow_keys: BTreeMap<String, FlowKey>,
    pub(crate) model_keys: BTreeMap<String, ModelKey>,
    pub(crate) sub_category_names: BTreeMap<(CategoryKey, String), SubCategoryKey>,
    /// Custom fields by name and kind of value, with the number of categories that have one.
    field_kinds: BTreeMap<(String, Kind), usize>,
    /// Names that rules and formulas read, with the number of rules and categories that do.
    reads: BTreeMap<String, usize>,
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

    /// Everything that references one of `targets` (ascending, all of `kind`): its place in `targets`, and the user.
    pub(crate) fn visit_users<K: TableKey>(
        &self,
        kind: EntityKind,
        targets: &[K],
        mut visit: impl FnMut(usize, Thing),
    ) {
        let (Some(first), Some(last)) = (targets.first(), targets.last()) else { return };
        // Walking over what lies between costs less than looking up, unless most of it is not wanted.
        if ((last.index() - first.index()) as usize) < targets.len() * WALK_FACTOR {
            let mut wanted = targets.iter().enumerate().peekable();
            for (target, user) in self.uses.range(all_of(kind, *first, *last)) {
                while wanted.next_if(|(_, wanted)| wanted.index() < target.index).is_some() {}
                if let Some((place, _)) = wanted.peek().filter(|(_, wanted)| wanted.index() == target.index) {
                    visit(*place, *user);
                }
            }
        } else {
            for (place, target) in targets.iter().enumerate() {
                self.uses.range(all_of(kind, *target, *target)).for_each(|(_, user)| visit(place, *user));
            }
        }
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
        add(&mut self.tags, tags.iter().cloned());
    }

    pub(crate) fn remove_tags(&mut self, tags: &[String]) {
        remove(&mut self.tags, tags);
    }

    /// Replaces the names that one rule or category reads.
    pub(crate) fn reread(&mut self, before: &BTreeSet<String>, after: BTreeSet<String>) {
        remove(&mut self.reads, before);
        add(&mut self.reads, after);
    }

    /// Whether rules or formulas read a name that is wanted. O(names).
    pub(crate) fn is_any_read(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.reads.keys().any(|name| wanted(name))
    }

    /// How many different names would be read if these were too.
    pub(crate) fn reads_with(&self, names: &BTreeSet<String>) -> usize {
        self.reads.len() + names.iter().filter(|name| !self.reads.contains_key(*name)).count()
    }

    /// Replaces the custom fields of one category.
    pub(crate) fn reschema(&mut self, before: &BTreeSet<(String, Kind)>, after: BTreeSet<(String, Kind)>) {
        remove(&mut self.field_kinds, before);
        add(&mut self.field_kinds, after);
    }

    /// The kinds of value that custom fields of this name have. O(log n + result).
    pub(crate) fn kinds_of_field<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Kind> + 'a {
        let first = (name.to_owned(), Kind::FIRST);
        self.field_kinds
            .range(first..)
            .map(|((of, kind), _)| (of, *kind))
            .take_while(move |(of, _)| *of == name)
            .map(|(_, kind)| kind)
    }
}

fn add<T: Ord>(counts: &mut BTreeMap<T, usize>, items: impl IntoIterator<Item = T>) {
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
}

fn remove<'a, T: Ord + 'a>(counts: &mut BTreeMap<T, usize>, items: impl IntoIterator<Item = &'a T>) {
    for item in items {
        if let Some(count) = counts.get_mut(item) {
            *count -= 1;
            if *count == 0 {
                counts.remove(item);
            }
        }
    }
}
