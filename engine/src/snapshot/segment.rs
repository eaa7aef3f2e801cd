//! A set of offers compiled: positions in descending score, columns by position, bitsets over positions. A snapshot has a
//! large one and a small one of what changed since (architecture.md §7).

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bitset::{Bits, Members};
use super::columns::PlanColumns;
use super::metrics::Reading;
use super::models::Tails;
use super::rule_columns::{RuleColumns, WideColumn};
use super::rules::Rule;
use super::schedule::Schedules;
use super::screens::TestColumn;
use crate::catalog::CapOrigin;
use crate::decide::schedule::OpenHours;
use crate::keys::{CapKey, CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, SubCategoryKey};
use crate::model::Entity;
use crate::model::creative::Creative;
use crate::model::offer::{CapPer, CapScope, CapWindow, Offer};
use crate::profile::command::CountEvent;
use crate::time::Timestamp;
use crate::value::Value;

/// Variable-length lists by position, in one allocation.
#[derive(Clone, Debug)]
pub struct Lists<T> {
    starts: Arc<[u32]>,
    items: Arc<[T]>,
}

impl<T> Lists<T> {
    /// The list of `position`.
    #[inline]
    pub fn of(&self, position: u32) -> &[T] {
        &self.items[self.range(position)]
    }

    /// Where the list of `position` lies in [`Lists::items`].
    #[inline]
    pub fn range(&self, position: u32) -> std::ops::Range<usize> {
        self.starts[position as usize] as usize..self.starts[position as usize + 1] as usize
    }

    /// All items, position by position.
    pub fn items(&self) -> &[T] {
        &self.items
    }
}

/// Lists being collected, list by list in ascending order of their row.
#[derive(Debug)]
pub(crate) struct Collected<T> {
    /// Where each row begins that something was added to or after.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T> Collected<T> {
    pub(crate) fn new() -> Self {
        Collected { starts: Vec::new(), items: Vec::new() }
    }

    /// Adds to the list of `row`, which no later row was added to.
    pub(crate) fn push(&mut self, row: usize, item: T) {
        self.starts.resize(self.starts.len().max(row + 1), self.items.len() as u32);
        self.items.push(item);
    }

    /// The lists of rows 0 to `rows`, each put in order.
    pub(crate) fn sort_each<K: Ord>(&mut self, rows: usize, key: impl Fn(&T) -> K) {
        self.starts.resize(rows + 1, self.items.len() as u32);
        for range in self.starts.windows(2) {
            self.items[range[0] as usize..range[1] as usize].sort_by_key(&key);
        }
    }

    /// The list of position i is that of row `order[i]`; each row comes once.
    pub(crate) fn arrange(mut self, order: &[u32]) -> Lists<T> {
        self.starts.resize(order.len() + 1, self.items.len() as u32);
        let mut items: Vec<Option<T>> = self.items.into_iter().map(Some).collect();
        let mut starts = Vec::with_capacity(order.len() + 1);
        let mut arranged = Vec::with_capacity(items.len());
        starts.push(0);
        for row in order {
            let range = self.starts[*row as usize] as usize..self.starts[*row as usize + 1] as usize;
            arranged.extend(items[range].iter_mut().filter_map(Option::take));
            starts.push(arranged.len() as u32);
        }
        Lists { starts: starts.into(), items: arranged.into() }
    }
}

/// Positions by offer key.
#[derive(Clone, Debug)]
pub enum Positions {
    /// By key, `u32::MAX` for none: a large segment has most keys.
    Dense(Arc<[u32]>),
    /// Sorted by key: a small one has few.
    Sparse(Arc<[(OfferKey, u32)]>),
}

impl Positions {
    /// From (key, position), sorted by key.
    pub(crate) fn new(sorted: Vec<(OfferKey, u32)>) -> Self {
        let most = sorted.last().map_or(0, |(key, _)| key.0 as usize + 1);
        if most > 4 * sorted.len() {
            return Positions::Sparse(sorted.into());
        }
        let mut positions = vec![u32::MAX; most];
        for (key, position) in sorted {
            positions[key.0 as usize] = position;
        }
        Positions::Dense(positions.into())
    }

    /// The position of an offer.
    #[inline]
    pub fn get(&self, offer: OfferKey) -> Option<u32> {
        match self {
            Positions::Dense(positions) => {
                positions.get(offer.0 as usize).copied().filter(|position| *position != u32::MAX)
            }
            Positions::Sparse(sorted) => {
                sorted.binary_search_by_key(&offer, |(key, _)| *key).ok().map(|index| sorted[index].1)
            }
        }
    }

    /// All positions by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let (dense, sparse) = match self {
            Positions::Dense(positions) => (&positions[..], &[][..]),
            Positions::Sparse(sorted) => (&[][..], &sorted[..]),
        };
        let dense = dense.iter().copied().filter(|position| *position != u32::MAX);
        dense.chain(sparse.iter().map(|(_, position)| *position))
    }
}

/// A value of one offer's field.
#[derive(Clone, Debug)]
pub enum Cell {
    /// As authored.
    Stored(Value),
    /// Number of the computed field.
    Computed(u32),
    /// A metric, for this offer.
    Metric(Arc<Reading>),
}

/// One field of all offers.
#[derive(Clone, Debug)]
pub struct Column {
    pub(crate) cells: Box<[Cell]>,
}

impl Column {
    /// Whether the field of `position` needs no computing.
    pub fn is_stored(&self, position: u32) -> bool {
        matches!(self.cells[position as usize], Cell::Stored(_))
    }
}

/// An active creative.
#[derive(Clone, Debug)]
pub struct Content {
    /// Which.
    pub key: CreativeKey,
    /// Where it goes.
    pub channel: ChannelKey,
    /// Or NONE for any placement of the channel.
    pub placement: PlacementKey,
    /// Score multiplier, percent.
    pub weight: u8,
    /// Share among variants.
    pub split: f64,
    /// As authored.
    pub entity: Arc<Entity<CreativeKey, Creative>>,
}

/// A cap of an offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CapPlan {
    /// Which.
    pub cap: CapKey,
    /// Whose propositions it counts.
    pub scope: CapScope,
    /// At most.
    pub limit: u64,
    /// Units one event takes.
    pub cost: u64,
    /// Stretch of time.
    pub per: CapPer,
    /// How it moves.
    pub window: CapWindow,
    /// What is counted; `None` for an outcome that no longer exists.
    pub count_on: Option<CountEvent>,
    /// Only propositions in this placement.
    pub placement: Option<PlacementKey>,
    /// Reserves at the decision.
    pub strict: bool,
    /// How long.
    pub reservation_seconds: Option<u32>,
    /// Where it is written.
    pub origin: CapOrigin,
}

impl CapPlan {
    /// Whether it counts propositions in `placement`.
    pub fn counts_in(&self, placement: PlacementKey) -> bool {
        self.placement.is_none_or(|only| only == placement)
    }
}

/// Creatives on a channel.
#[derive(Clone, Debug)]
pub struct ChannelContent {
    /// Offers with any.
    pub any: Bits,
    /// Offers with one for any placement.
    pub open: Bits,
    /// The same, by content type.
    pub by_type: BTreeMap<Box<str>, TypedContent>,
}

/// Creatives of one content type on a channel.
#[derive(Clone, Debug)]
pub struct TypedContent {
    /// Offers with any.
    pub any: Members,
    /// Offers with one for any placement.
    pub open: Members,
}

/// See the module. Columns are shared: a clone copies pointers, and a snapshot that differs in some columns has the others
/// in common with the last one.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(crate) len: usize,
    pub(crate) offers: Arc<[Arc<Entity<OfferKey, Offer>>]>,
    pub(crate) keys: Arc<[OfferKey]>,
    pub(crate) positions: Positions,
    pub(crate) categories: Arc<[Option<CategoryKey>]>,
    pub(crate) sub_categories: Arc<[Option<SubCategoryKey>]>,
    pub(crate) by_category: Arc<BTreeMap<CategoryKey, Members>>,
    pub(crate) by_sub_category: Arc<BTreeMap<SubCategoryKey, Members>>,
    pub(crate) general: Arc<Bits>,
    /// Active, in an active category and sub-category, when compiled.
    pub(crate) live: Arc<Bits>,
    /// Emergency-excluded when compiled.
    pub(crate) excluded: Arc<Bits>,
    /// Who carries a tag.
    pub(crate) tagged: Arc<HashMap<Box<str>, Members>>,
    pub(crate) schedules: Arc<Schedules>,
    /// The same by position.
    pub(crate) hours: Arc<[OpenHours]>,
    /// Mandatory offers and until when.
    pub(crate) mandatory: Arc<[(u32, Timestamp)]>,
    /// Active creatives by position, by key.
    pub(crate) contents: Lists<Content>,
    /// Position by place in `contents`.
    pub(crate) content_positions: Arc<[u32]>,
    /// Position and place in `contents` by creative key, sorted.
    pub(crate) content_of: Arc<[(CreativeKey, u32, u32)]>,
    /// Whether any creative's weight is not full.
    pub(crate) has_weights: bool,
    pub(crate) on_channel: Arc<BTreeMap<ChannelKey, ChannelContent>>,
    pub(crate) at_placement: Arc<BTreeMap<PlacementKey, Bits>>,
    /// By number of the collection.
    pub(crate) collections: Box<[Arc<Bits>]>,
    /// By number of the inventory.
    pub(crate) stocks: Box<[Arc<Bits>]>,
    /// Compiled rules that name offers or creatives.
    pub(crate) rules: Arc<[Rule]>,
    /// Their numbers by position, in order of application.
    pub(crate) rules_of: Lists<u32>,
    /// Their numbers by place in `contents`, in order of application.
    pub(crate) rules_of_content: Lists<u32>,
    /// Positions that a recency rule of their own, or their eligibility, may bar, if there are any.
    pub(crate) recency: Option<Arc<Bits>>,
    /// By number of the wide rule: what it removes, where that takes a look at the offer.
    pub(crate) wide: Box<[Option<Arc<WideColumn>>]>,
    /// By number of the selection.
    pub(crate) rule_columns: Box<[Arc<RuleColumns>]>,
    /// By number of the test: what it removes, where that takes a look at the offer.
    pub(crate) tests: Box<[Option<Arc<TestColumn>>]>,
    /// By number of the model.
    pub(crate) tails: Box<[Option<Arc<Tails>>]>,
    /// Segments that `segmentMatch` looks at.
    pub(crate) preferred: Lists<u32>,
    /// Segments that the offer itself requires.
    pub(crate) required: Lists<u32>,
    /// By number of the field; a field that only later segments read may be missing.
    pub(crate) fields: Box<[Arc<Column>]>,
    pub(crate) caps: Lists<CapPlan>,
    /// Position and place in `caps` of profile caps, sorted by cap.
    pub(crate) cap_of: Arc<[(CapKey, u32, u32)]>,
    /// Positions with a profile cap of limit 0.
    pub(crate) closed: Arc<[u32]>,
    /// Positions with a global cap, if there are any.
    pub(crate) global_caps: Option<Arc<Bits>>,
    /// Half-life in milliseconds and strength.
    pub(crate) fatigue: Arc<[(f64, f64)]>,
    /// By number of the scoring plan.
    pub(crate) plans: Box<[Arc<PlanColumns>]>,
}

impl Segment {
    /// The position of an offer.
    #[inline]
    pub fn position(&self, offer: OfferKey) -> Option<u32> {
        self.positions.get(offer)
    }

    /// Positions with their offers, by key: the order in which offers lie in memory.
    pub(crate) fn by_key(&self) -> impl Iterator<Item = (u32, &Arc<Entity<OfferKey, Offer>>)> {
        self.positions.iter().map(|position| (position, &self.offers[position as usize]))
    }

    /// Position and content of a creative.
    pub fn content(&self, creative: CreativeKey) -> Option<(u32, &Content)> {
        let index = self.content_of.binary_search_by_key(&creative, |entry| entry.0).ok()?;
        let (_, position, place) = self.content_of[index];
        Some((position, &self.contents.items()[place as usize]))
    }

    /// Whether the offer at `position` has an active creative on `channel`.
    pub(crate) fn is_on_channel(&self, position: u32, channel: ChannelKey) -> bool {
        self.on_channel.get(&channel).is_some_and(|content| content.any.has(position))
    }
}
