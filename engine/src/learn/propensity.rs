//! P of an offer: how often such a proposition has come to something.
//!
//! `P = (k + 10 · prior) / (n + 10)` for n ≥ 1. The prior is that of the offer's category where its n ≥ 20, else that of all offers
//! where their n ≥ 10, else what a model says, else 0.5; each is smoothed with 10 times the next (domain.md §8).

use bincode::{Decode, Encode};

use super::Tallies;
use crate::decide::score::NEUTRAL_PROPENSITY;
use crate::keys::{CategoryKey, OfferKey};
use crate::profile::evidence::Tally;

/// How many propositions' worth a prior counts.
const SMOOTHING: f64 = 10.0;
/// Propositions of a category that make it a prior.
const CATEGORY_LEAST: u64 = 20;
/// Propositions of all offers that make them a prior.
const ALL_LEAST: u64 = 10;

/// Nothing learned: P is 0.5 for every offer.
pub static NOTHING: Learned = Learned::nothing();

/// What a P rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PropensitySource {
    /// The offer's own outcomes.
    Offer,
    /// Those of its category.
    Category,
    /// Those of all offers.
    Global,
    /// Nothing: there are too few.
    Default,
    /// What a model says or draws.
    Model,
}

/// P, and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Propensity {
    /// Above 0, below 1.
    pub value: f64,
    /// See there.
    pub source: PropensitySource,
}

impl Propensity {
    /// That of an offer of which nothing is known.
    pub const NEUTRAL: Propensity = Propensity { value: NEUTRAL_PROPENSITY, source: PropensitySource::Default };

    fn learned(tally: Tally, prior: f64, source: PropensitySource) -> Self {
        // More good news than showings are another release's: no reason for a P above 1.
        let positive = tally.positive.min(tally.shown) as f64;
        Propensity { value: (positive + SMOOTHING * prior) / (tally.shown as f64 + SMOOTHING), source }
    }
}

/// Everything learned about a tenant's offers, prepared for deciding: never changed, but replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    tallies: Tallies,
    offers: Index,
    /// Categories that are priors, ascending, with what was counted of them and their P without a model.
    categories: Vec<(CategoryKey, Tally, Propensity)>,
    all: Propensity,
    /// No P is above these: without a model, and whatever a model says.
    ceilings: (f64, f64),
}

impl Default for Learned {
    fn default() -> Self {
        Learned::nothing()
    }
}

impl Learned {
    const fn nothing() -> Self {
        let none = Tally { shown: 0, positive: 0 };
        Learned {
            tallies: Tallies { all: none, offers: Vec::new(), categories: Vec::new() },
            offers: Index { slots: Vec::new() },
            categories: Vec::new(),
            all: Propensity::NEUTRAL,
            ceilings: (NEUTRAL_PROPENSITY, 1.0),
        }
    }

    /// Of tallies of all shards ([`Tallies::sum`]). O(entries).
    pub fn new(tallies: Tallies) -> Self {
        let all = of_all(tallies.all, Propensity::NEUTRAL);
        let priors = tallies.categories.iter().filter(|(_, tally)| tally.shown >= CATEGORY_LEAST);
        let categories: Vec<_> = priors
            .map(|(key, tally)| (*key, *tally, Propensity::learned(*tally, all.value, PropensitySource::Category)))
            .collect();
        let shown = || tallies.offers.iter().filter(|(_, tally)| tally.shown > 0);
        let ceiling = |all: f64| {
            let category = |tally: Tally| Propensity::learned(tally, all, PropensitySource::Category).value;
            let highest = categories.iter().fold(all, |highest, (_, tally, _)| highest.max(category(*tally)));
            let offer = |tally: Tally| Propensity::learned(tally, highest, PropensitySource::Offer).value;
            shown().fold(highest, |ceiling, (_, tally)| ceiling.max(offer(*tally)))
        };
        let certain = Propensity { value: 1.0, source: PropensitySource::Model };
        let ceilings = (ceiling(all.value), ceiling(of_all(tallies.all, certain).value));
        Learned { offers: Index::new(shown().copied()), categories, all, ceilings, tallies }
    }

    /// What it was made of.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Whether P is 0.5 whatever is asked about.
    pub fn is_neutral(&self) -> bool {
        self.offers.slots.is_empty() && self.categories.is_empty() && self.all.source == PropensitySource::Default
    }

    /// P of an offer that is in `category` now. One look-up by key, and one by category (binary). Allocates nothing.
    pub fn propensity(&self, offer: OfferKey, category: Option<CategoryKey>) -> Propensity {
        let prior = self.prior(category);
        match self.offers.find(offer) {
            Some(tally) => Propensity::learned(tally, prior.value, PropensitySource::Offer),
            None => prior,
        }
    }

    /// The same where a model says `modelled` in the place of 0.5.
    pub fn propensity_over(&self, modelled: f64, offer: OfferKey, category: Option<CategoryKey>) -> Propensity {
        let base = Propensity { value: modelled, source: PropensitySource::Model };
        if self.is_neutral() {
            return base;
        }
        let all = of_all(self.tallies.all, base);
        let prior = match self.place(category) {
            Some(place) => Propensity::learned(self.categories[place].1, all.value, PropensitySource::Category),
            None => all,
        };
        match self.offers.find(offer) {
            Some(tally) => Propensity::learned(tally, prior.value, PropensitySource::Offer),
            None => prior,
        }
    }

    /// What was counted of the offer itself, and what is known of it without that.
    pub fn evidence(&self, offer: OfferKey, category: Option<CategoryKey>) -> (Tally, Propensity) {
        (self.offers.find(offer).unwrap_or_default(), self.prior(category))
    }

    /// What is known of an offer without looking at its own outcomes.
    fn prior(&self, category: Option<CategoryKey>) -> Propensity {
        self.place(category).map_or(self.all, |place| self.categories[place].2)
    }

    fn place(&self, category: Option<CategoryKey>) -> Option<usize> {
        self.categories.binary_search_by_key(&category?, |(key, _, _)| *key).ok()
    }

    /// No offer's P is above this.
    pub fn ceiling(&self) -> f64 {
        self.ceilings.0
    }

    /// No offer's P is above this, whatever a model says of it.
    pub fn modelled_ceiling(&self) -> f64 {
        self.ceilings.1
    }
}

/// What all offers make of a level below them.
fn of_all(tally: Tally, below: Propensity) -> Propensity {
    match tally.shown {
        ALL_LEAST.. => Propensity::learned(tally, below.value, PropensitySource::Global),
        0..ALL_LEAST => below,
    }
}

/// Tallies by offer, in a table of which at least half is free.
#[derive(Clone, Debug, Default, PartialEq)]
struct Index {
    /// A power of two of them, or none. One whose tally was never shown is free.
    slots: Vec<(OfferKey, Tally)>,
}

impl Index {
    fn new(entries: impl Iterator<Item = (OfferKey, Tally)> + Clone) -> Self {
        let len = entries.clone().count();
        if len == 0 {
            return Index::default();
        }
        let mut index = Index { slots: vec![Default::default(); (2 * len).next_power_of_two()] };
        for (offer, tally) in entries {
            let place = index.place(offer);
            index.slots[place] = (offer, tally);
        }
        index
    }

    /// The offer's slot, or the free one where it belongs. The table is never full, so there is one.
    fn place(&self, offer: OfferKey) -> usize {
        let mask = self.slots.len() - 1;
        // Keys are given one after the other: an odd factor spreads them evenly.
        let mut place = offer.0.wrapping_mul(0x9E37_79B1) as usize & mask;
        while self.slots[place].1.shown > 0 && self.slots[place].0 != offer {
            place = (place + 1) & mask;
        }
        place
    }

    fn find(&self, offer: OfferKey) -> Option<Tally> {
        if self.slots.is_empty() {
            return None;
        }
        let (_, tally) = self.slots[self.place(offer)];
        (tally.shown > 0).then_some(tally)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(positive: u64, shown: u64) -> Tally {
        Tally { shown, positive }
    }

    fn learned(all: Tally, offers: &[(u32, Tally)], categories: &[(u32, Tally)]) -> Learned {
        let offers = offers.iter().map(|(key, tally)| (OfferKey(*key), *tally)).collect();
        let categories = categories.iter().map(|(key, tally)| (CategoryKey(*key), *tally)).collect();
        Learned::new(Tallies { all, offers, categories })
    }

    fn of(learned: &Learned, offer: u32, category: Option<u32>) -> (f64, PropensitySource) {
        let Propensity { value, source } = learned.propensity(OfferKey(offer), category.map(CategoryKey));
        (value, source)
    }

    #[test]
    fn each_level_takes_over_where_it_has_seen_enough_and_is_smoothed_by_the_next() {
        use PropensitySource::{Category, Default, Global, Offer};
        assert_eq!(of(&NOTHING, 1, Some(1)), (0.5, Default));
        assert!(NOTHING.is_neutral());

        let few = learned(tally(9, 9), &[], &[(1, tally(9, 9))]);
        assert_eq!(of(&few, 1, Some(1)), (0.5, Default), "nine of all are too few");
        assert!(few.is_neutral());

        // Its one proposition counts, smoothed by 0.5: (0 + 5) / 11.
        let first = learned(tally(0, 1), &[(1, tally(0, 1))], &[]);
        assert_eq!(of(&first, 1, None), (5.0 / 11.0, Offer));
        assert_eq!(of(&first, 2, None), (0.5, Default));
        assert!(!first.is_neutral());

        // All: (1 + 5) / 20.
        let ten = learned(tally(1, 10), &[(1, tally(0, 1))], &[(1, tally(1, 19))]);
        assert_eq!(of(&ten, 2, Some(1)), (0.3, Global), "19 of a category are too few");
        assert_eq!(of(&ten, 1, Some(1)), (3.0 / 11.0, Offer));

        // All: (0 + 5) / 40 = 0.125. Category: (9 + 1.25) / 30. Offer: (9 + 10 · that) / 30.
        let category = 10.25 / 30.0;
        let twenty = learned(tally(0, 30), &[(1, tally(9, 20))], &[(1, tally(9, 20))]);
        assert_eq!(of(&twenty, 2, Some(1)), (category, Category));
        assert_eq!(of(&twenty, 2, Some(2)), (0.125, Global), "of another category");
        assert_eq!(of(&twenty, 2, None), (0.125, Global));
        assert_eq!(of(&twenty, 1, Some(1)), ((9.0 + 10.0 * category) / 30.0, Offer));
    }

    #[test]
    fn a_model_is_the_last_prior() {
        use PropensitySource::{Category, Global, Model, Offer};
        let over = |learned: &Learned, offer, category: Option<u32>| {
            let Propensity { value, source } = learned.propensity_over(0.9, OfferKey(offer), category.map(CategoryKey));
            (value, source)
        };
        assert_eq!(over(&NOTHING, 1, Some(1)), (0.9, Model));
        // One proposition of the offer: (0 + 9) / 11. Others have what the model says.
        let first = learned(tally(0, 1), &[(1, tally(0, 1))], &[]);
        assert_eq!(over(&first, 1, None), (9.0 / 11.0, Offer));
        assert_eq!(over(&first, 2, None), (0.9, Model));
        // All: (0 + 9) / 40. Category: (9 + 10 · that) / 30. Offer: (9 + 10 · that) / 30.
        let all = 9.0 / 40.0;
        let category = (9.0 + 10.0 * all) / 30.0;
        let twenty = learned(tally(0, 30), &[(1, tally(9, 20))], &[(1, tally(9, 20))]);
        assert_eq!(over(&twenty, 2, None), (all, Global));
        assert_eq!(over(&twenty, 2, Some(1)), (category, Category));
        assert_eq!(over(&twenty, 1, Some(1)), ((9.0 + 10.0 * category) / 30.0, Offer));
    }

    #[test]
    fn more_good_news_than_showings_are_no_certainty() {
        let strange = learned(tally(90, 10), &[(1, tally(u64::MAX, 5)), (2, tally(1, 0))], &[]);
        let (value, _) = of(&strange, 1, None);
        assert!(value < 1.0 && value <= strange.ceiling());
        assert_eq!(of(&strange, 2, None).1, PropensitySource::Global, "it was never shown");
    }

    proptest! {
        #[test]
        fn every_tally_is_found_and_the_ceiling_is_above_all(
            offers in prop::collection::btree_map(any::<u32>(), (0..50u64, 0..60u64), 0..300),
            categories in prop::collection::btree_map(0..4u32, (0..50u64, 0..60u64), 0..4),
            all in (0..50u64, 0..60u64),
            others in prop::collection::vec((any::<u32>(), 0..5u32), 50),
        ) {
            let each = |entries: &std::collections::BTreeMap<u32, (u64, u64)>| -> Vec<(u32, Tally)> {
                entries.iter().map(|(key, (positive, shown))| (*key, tally(*positive, *shown))).collect()
            };
            let learned = learned(tally(all.0, all.1), &each(&offers), &each(&categories));
            let asked = offers.keys().map(|key| (*key, *key % 5)).chain(others);
            for (offer, category) in asked {
                let (value, source) = of(&learned, offer, Some(category));
                prop_assert!(value > 0.0 && value < 1.0 && value <= learned.ceiling());
                let is_shown = offers.get(&offer).is_some_and(|(_, shown)| *shown > 0);
                prop_assert_eq!(source == PropensitySource::Offer, is_shown);
                prop_assert!(!learned.is_neutral() || value == NEUTRAL_PROPENSITY);
                // 0.5 of a model is what 0.5 of none is; more of it makes no P less, and 1 none more than the ceiling.
                let over = |modelled| learned.propensity_over(modelled, OfferKey(offer), Some(CategoryKey(category)));
                let ceiling = learned.modelled_ceiling();
                prop_assert_eq!(over(NEUTRAL_PROPENSITY).value, value);
                prop_assert_eq!(over(0.9).source == PropensitySource::Model, source == PropensitySource::Default);
                prop_assert!(over(0.1).value <= value && value <= over(0.9).value && over(1.0).value <= ceiling);
            }
        }
    }
}
