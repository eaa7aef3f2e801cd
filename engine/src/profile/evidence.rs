//! What a shard has counted for learning (domain.md §8): propositions shown, and those answered with good news.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::keys::{CategoryKey, OfferKey};

/// n and k.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tally {
    /// Propositions with a first impression.
    pub shown: u64,
    /// Of those, with a first positive outcome.
    pub positive: u64,
}

impl Tally {
    /// How many observations it is made of.
    pub fn count(&self) -> u64 {
        self.shown.saturating_add(self.positive)
    }
}

/// A tenant's counters in one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    offers: BTreeMap<OfferKey, Tally>,
    categories: BTreeMap<CategoryKey, Tally>,
    all: Tally,
}

/// What one proposition adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Of which offer.
    pub offer: OfferKey,
    /// In which category.
    pub category: Option<CategoryKey>,
    /// Its first impression.
    pub shown: bool,
    /// Its first positive outcome.
    pub positive: bool,
}

impl Evidence {
    /// Counts one observation.
    pub fn observe(&mut self, seen: &Observation) {
        let add = |tally: &mut Tally| {
            tally.shown += u64::from(seen.shown);
            tally.positive += u64::from(seen.positive);
        };
        add(self.offers.entry(seen.offer).or_default());
        if let Some(category) = seen.category {
            add(self.categories.entry(category).or_default());
        }
        add(&mut self.all);
    }

    /// An offer's counters.
    pub fn offer(&self, offer: OfferKey) -> Tally {
        self.offers.get(&offer).copied().unwrap_or_default()
    }

    /// A category's counters.
    pub fn category(&self, category: CategoryKey) -> Tally {
        self.categories.get(&category).copied().unwrap_or_default()
    }

    /// All offers' together.
    pub fn all(&self) -> Tally {
        self.all
    }

    /// The counters as they are stored.
    pub(super) fn parts(&self) -> (&BTreeMap<OfferKey, Tally>, &BTreeMap<CategoryKey, Tally>) {
        (&self.offers, &self.categories)
    }

    /// Counters that were stored; `all` is their sum over everything.
    pub(super) fn of_all(all: Tally) -> Self {
        Evidence { all, ..Evidence::default() }
    }

    /// Adds stored counters of offers.
    pub(super) fn add_offers(&mut self, tallies: Vec<(OfferKey, Tally)>) {
        self.offers.extend(tallies);
    }

    /// Adds stored counters of categories.
    pub(super) fn add_categories(&mut self, tallies: Vec<(CategoryKey, Tally)>) {
        self.categories.extend(tallies);
    }

    /// Counters by offer.
    pub fn offers(&self) -> impl Iterator<Item = (OfferKey, Tally)> + '_ {
        self.offers.iter().map(|(offer, tally)| (*offer, *tally))
    }

    /// Counters by category.
    pub fn categories(&self) -> impl Iterator<Item = (CategoryKey, Tally)> + '_ {
        self.categories.iter().map(|(category, tally)| (*category, *tally))
    }
}
