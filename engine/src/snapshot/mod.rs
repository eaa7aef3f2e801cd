//! The catalogue compiled for deciding: immutable, one per tenant, swapped whole (architecture.md §7).
//!
//! A [`Snapshot`] is a large segment of offers, a small one of what changed since, and overlay bits for status and emergency
//! exclusion; beside them what belongs to the tenant and not to an offer ([`shared`]). [`update`] makes the next snapshot
//! from the last one at the cost of the change.
//!
//! Invariant: nothing here changes after it is made. Positions never leave a snapshot; what leaves is keys.

use std::sync::Arc;

use bitset::{Bits, words_for};

use crate::catalog::TenantCatalog;
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, Revision, TenantId};
use crate::model::Entity;
use crate::model::category::Category;
use crate::model::creative::Creative;
use crate::model::offer::Offer;
use crate::time::Calendar;

pub mod bitset;
pub mod checks;
pub mod columns;
mod compile;
mod derive;
pub mod flows;
pub mod guardrails;
pub mod metrics;
pub mod models;
pub mod policies;
pub mod predicates;
pub mod rule_columns;
pub mod rules;
pub mod schedule;
pub mod screens;
pub mod segment;
pub mod shared;
pub mod slots;
#[cfg(test)]
mod tests;
mod update;
pub mod world;

pub(crate) use compile::tie;
pub use segment::CapPlan;
pub use slots::Binding;

use flows::Plan;
use policies::PolicyTable;
use segment::Segment;
use shared::Shared;
use slots::Names;

/// One segment of a snapshot with what an overlay may have changed since it was compiled.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) segment: Arc<Segment>,
    /// First word of its positions in bitsets over the whole snapshot.
    pub(crate) offset: usize,
    /// Words of its bitsets.
    words: usize,
    /// Positions that no later segment replaces and that were not deleted.
    pub(crate) present: Bits,
    /// Present, active, in an active category and sub-category.
    pub(crate) live: Bits,
    /// Emergency-excluded.
    pub(crate) excluded: Bits,
}

impl Part {
    fn new(segment: Arc<Segment>, offset: usize) -> Self {
        let present = Bits::all(segment.len);
        let (live, excluded) = (Bits::clone(&segment.live), Bits::clone(&segment.excluded));
        Part { words: words_for(segment.len), segment, offset, present, live, excluded }
    }

    /// Its words in a bitset over the whole snapshot.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.words
    }

    /// First of its positions in the whole snapshot.
    pub(crate) fn first(&self) -> u32 {
        (self.offset * 64) as u32
    }
}

/// A tenant's catalogue compiled for deciding.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) tenant: TenantId,
    pub(crate) revision: Revision,
    pub(crate) names: Arc<Names>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) policies: Arc<PolicyTable>,
    /// The base, then the delta if there is one.
    pub(crate) parts: Vec<Part>,
    compiled: Arc<Compiled>,
}

/// What held when all of a snapshot was compiled: once too much of it has changed, compiling anew pays.
#[derive(Debug)]
struct Compiled {
    /// How many names there were, of all kinds.
    names: usize,
    /// How many of them were facts.
    facts: usize,
    /// What the base's offers are sorted by.
    order: Plan,
}

/// An offer's place in a snapshot: number of the part and position in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) part: usize,
    pub(crate) position: u32,
}

impl Snapshot {
    /// Compiles a tenant's whole catalogue. O(catalogue).
    pub fn compile(tenant: &TenantId, catalog: &TenantCatalog, revision: Revision) -> Self {
        let mut names = Names::new();
        let shared = Shared::new(catalog, &mut names);
        let policies = PolicyTable::new(catalog, &mut names);
        let rows: Vec<_> = catalog.offers().iter().cloned().collect();
        let base = compile::compile(catalog, &shared, &mut names, &rows);
        let order = shared.default_plan().clone();
        let compiled = Compiled { names: names.count(), facts: names.fact_count(), order };
        Snapshot {
            tenant: tenant.clone(),
            revision,
            names: Arc::new(names),
            policies: Arc::new(policies),
            parts: vec![Part::new(Arc::new(base), 0)],
            compiled: Arc::new(compiled),
            shared: Arc::new(shared),
        }
    }

    /// The catalogue's revision that this is compiled from.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whose catalogue.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The tenant's calendar: [`Calendar::frame`] gives the frame of a decision's instant.
    pub fn calendar(&self) -> &Calendar {
        &self.shared.calendar
    }

    /// An offer as authored. O(1).
    pub fn offer(&self, key: OfferKey) -> Option<&Arc<Entity<OfferKey, Offer>>> {
        let place = self.place(key)?;
        Some(&self.parts[place.part].segment.offers[place.position as usize])
    }

    /// The caps of an offer.
    pub fn caps(&self, key: OfferKey) -> &[CapPlan] {
        self.place(key).map_or(&[], |place| self.parts[place.part].segment.caps.of(place.position))
    }

    /// The category an offer is in now.
    pub fn category_of(&self, key: OfferKey) -> Option<CategoryKey> {
        let place = self.place(key)?;
        self.parts[place.part].segment.categories[place.position as usize]
    }

    /// Whether an offer is emergency-excluded.
    pub fn is_excluded(&self, key: OfferKey) -> bool {
        self.place(key).is_some_and(|place| self.parts[place.part].excluded.has(place.position))
    }

    /// An active creative as authored. O(log n).
    pub fn creative(&self, key: CreativeKey) -> Option<&Arc<Entity<CreativeKey, Creative>>> {
        let found = self.parts.iter().find_map(|part| {
            let (position, content) = part.segment.content(key)?;
            part.present.has(position).then_some(content)
        });
        found.map(|content| &content.entity)
    }

    /// A category as authored.
    pub fn category(&self, key: CategoryKey) -> Option<&Arc<Entity<CategoryKey, Category>>> {
        self.shared.categories.get(&key)
    }

    /// The channel of a placement.
    pub fn channel_of(&self, placement: PlacementKey) -> Option<ChannelKey> {
        self.shared.placements.get(&placement).map(|placement| placement.channel)
    }

    /// How long propositions on `channel` hold their units unless a cap says otherwise, in seconds.
    pub fn reservation_seconds(&self, channel: ChannelKey) -> u32 {
        let own = self.shared.channels.get(&channel).and_then(|channel| channel.reservation_seconds);
        own.unwrap_or(self.shared.reservation_seconds)
    }

    /// Words of a bitset over all positions.
    pub(crate) fn words(&self) -> usize {
        self.parts.last().map_or(0, |part| part.range().end)
    }

    /// Where an offer is.
    pub(crate) fn place(&self, offer: OfferKey) -> Option<Place> {
        self.parts.iter().enumerate().rev().find_map(|(part, of)| {
            let position = of.segment.position(offer)?;
            of.present.has(position).then_some(Place { part, position })
        })
    }

    /// The position of an offer in bitsets over the whole snapshot.
    pub(crate) fn global(&self, offer: OfferKey) -> Option<u32> {
        let place = self.place(offer)?;
        Some(self.parts[place.part].first() + place.position)
    }

    /// The part that a position of the whole snapshot lies in, and the position there.
    #[inline]
    pub(crate) fn locate(&self, global: u32) -> (&Part, u32) {
        let part = match &self.parts[..] {
            [_, delta] if global >= delta.first() => delta,
            [base, ..] => base,
            [] => unreachable!("a snapshot has a base"),
        };
        (part, global - part.first())
    }
}
