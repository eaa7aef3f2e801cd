//! A set of offers compiled: positions in descending score, columns by position, bitsets over positions. A snapshot has a
//! large one and a small one of what changed since (architecture.md §7).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bitset::{Bits, Members};
use super::columns::PlanColumns;
use super::predicates::PredicateIndex;
use super::rules::Rule;
use super::schedule::Schedules;
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
    starts: Box<[u32]>,
    items: Box<[T]>,
}

impl<T> Lists<T> {
    /// From one list per position.
    pub fn new(lists: impl IntoIterator<Item = Vec<T>>) -> Self {
        let (mut starts, mut items) = (vec![0], Vec::new());
        for list in lists {
            items.extend(list);
            starts.push(items.len() as u32);
        }
        Lists { starts: starts.into(), items: items.into() }
    }

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

/// A value of one offer's field.
#[derive(Clone, Debug)]
pub enum Cell {
    /// As authored.
    Stored(Value),
    /// Number of the computed field.
    Computed(u32),
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
}

/// Rules of one selection over a segment.
#[derive(Clone, Debug)]
pub struct RuleColumns {
    /// Hard tests that read no offer, by position.
    pub index: PredicateIndex,
    /// The same by creative.
    pub creative_index: PredicateIndex,
    /// Positions with a hard rule that must be evaluated for them (slots do not matter), if there are any.
    pub late: Option<Bits>,
    /// Positions with a creative that has such a rule.
    pub late_creatives: Box<[u32]>,
    /// Positions with a soft rule of their own or of a creative.
    pub soft: Bits,
    /// Logarithm of the largest product of boosts of any offer.
    pub boost_bound: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Segment {
    pub(crate) len: usize,
    pub(crate) offers: Box<[Arc<Entity<OfferKey, Offer>>]>,
    pub(crate) keys: Box<[OfferKey]>,
    /// Position by offer key, or `u32::MAX`.
    pub(crate) positions: Box<[u32]>,
    pub(crate) categories: Box<[Option<CategoryKey>]>,
    pub(crate) sub_categories: Box<[Option<SubCategoryKey>]>,
    pub(crate) by_category: BTreeMap<CategoryKey, Members>,
    pub(crate) by_sub_category: BTreeMap<SubCategoryKey, Members>,
    pub(crate) general: Bits,
    /// Active, in an active category and sub-category, when compiled.
    pub(crate) live: Bits,
    /// Emergency-excluded when compiled.
    pub(crate) excluded: Bits,
    pub(crate) schedules: Arc<Schedules>,
    /// The same by position.
    pub(crate) hours: Box<[OpenHours]>,
    /// Mandatory offers and until when.
    pub(crate) mandatory: Box<[(u32, Timestamp)]>,
    /// Active creatives by position, by key.
    pub(crate) contents: Lists<Content>,
    /// Position by place in `contents`.
    pub(crate) content_positions: Box<[u32]>,
    /// Position and place in `contents` by creative key, sorted.
    pub(crate) content_of: Box<[(CreativeKey, u32, u32)]>,
    /// Whether any creative's weight is not full.
    pub(crate) has_weights: bool,
    pub(crate) on_channel: BTreeMap<ChannelKey, ChannelContent>,
    pub(crate) at_placement: BTreeMap<PlacementKey, Bits>,
    /// By number of the collection.
    pub(crate) collections: Box<[Bits]>,
    /// By number of the inventory.
    pub(crate) stocks: Box<[Bits]>,
    /// Compiled rules that name offers or creatives.
    pub(crate) rules: Box<[Rule]>,
    /// Their numbers by position, in order of application.
    pub(crate) rules_of: Lists<u32>,
    /// Their numbers by place in `contents`, in order of application.
    pub(crate) rules_of_content: Lists<u32>,
    /// Positions that a recency rule of their own, or their eligibility, may bar, if there are any.
    pub(crate) recency: Option<Bits>,
    /// By number of the selection.
    pub(crate) rule_columns: Box<[RuleColumns]>,
    /// Segments that `segmentMatch` looks at.
    pub(crate) preferred: Lists<u32>,
    /// Segments that the offer itself requires.
    pub(crate) required: Lists<u32>,
    pub(crate) fields: Box<[Column]>,
    pub(crate) caps: Lists<CapPlan>,
    /// Position and place in `caps` of profile caps, sorted by cap.
    pub(crate) cap_of: Box<[(CapKey, u32, u32)]>,
    /// Positions with a profile cap of limit 0.
    pub(crate) closed: Box<[u32]>,
    /// Positions with a global cap, if there are any.
    pub(crate) global_caps: Option<Bits>,
    /// Half-life in milliseconds and strength.
    pub(crate) fatigue: Box<[(f64, f64)]>,
    /// By number of the scoring plan.
    pub(crate) plans: Box<[PlanColumns]>,
}

impl Segment {
    /// The position of an offer.
    #[inline]
    pub fn position(&self, offer: OfferKey) -> Option<u32> {
        self.positions.get(offer.0 as usize).copied().filter(|position| *position != u32::MAX)
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
