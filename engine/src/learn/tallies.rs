//! What was counted of a tenant, by one shard or by several together.

use bincode::{Decode, Encode};

use crate::keys::{CategoryKey, OfferKey};
use crate::profile::evidence::{Evidence, Tally};

/// Tallies by offer and category, and of all offers. Sums only grow, so of two of one shard the one that counted more is the later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Tallies {
    /// Of all offers together.
    pub all: Tally,
    /// By offer. From one shard, or made by [`Tallies::sum`]: ascending, each once.
    pub offers: Vec<(OfferKey, Tally)>,
    /// By category; likewise.
    pub categories: Vec<(CategoryKey, Tally)>,
}

impl Tallies {
    /// Those of one shard. O(offers).
    pub fn of(evidence: &Evidence) -> Self {
        Tallies {
            all: evidence.all(),
            offers: evidence.offers().collect(),
            categories: evidence.categories().collect(),
        }
    }

    /// The sum over shards. Whatever order they are in, and their entries are, it is the same. O(entries · log shards).
    pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Tallies>) -> Self {
        let mut sum = Tallies::default();
        for shard in shards {
            add(&mut sum.all, &shard.all);
            sum.offers.extend_from_slice(&shard.offers);
            sum.categories.extend_from_slice(&shard.categories);
        }
        unite(&mut sum.offers);
        unite(&mut sum.categories);
        sum
    }

    /// How many observations were counted.
    pub fn count(&self) -> u64 {
        self.all.count()
    }
}

fn add(into: &mut Tally, more: &Tally) {
    into.shown = into.shown.saturating_add(more.shown);
    into.positive = into.positive.saturating_add(more.positive);
}

/// Sorts entries and adds up those of one key.
fn unite<K: Ord + Copy>(entries: &mut Vec<(K, Tally)>) {
    // Each shard's are sorted already: the stable sort merges such runs.
    entries.sort_by_key(|(key, _)| *key);
    entries.dedup_by(|later, kept| {
        let is_same = later.0 == kept.0;
        if is_same {
            add(&mut kept.1, &later.1);
        }
        is_same
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::profile::evidence::Observation;

    fn observations() -> impl Strategy<Value = Vec<(u8, u32, Option<u32>, bool)>> {
        prop::collection::vec((0..4u8, 0..6u32, prop::option::of(0..3u32), any::<bool>()), 0..80)
    }

    proptest! {
        #[test]
        fn what_shards_counted_apart_sums_to_what_one_would_have_counted(seen in observations()) {
            let (mut apart, mut together) = (vec![Evidence::default(); 4], Evidence::default());
            for (shard, offer, category, positive) in seen {
                let category = category.map(CategoryKey);
                let one = Observation { offer: OfferKey(offer), category, shown: !positive, positive };
                apart[usize::from(shard)].observe(&one);
                together.observe(&one);
            }
            let apart: Vec<Tallies> = apart.iter().map(Tallies::of).collect();
            let sum = Tallies::sum(&apart);
            prop_assert_eq!(&sum, &Tallies::of(&together));
            prop_assert_eq!(&sum, &Tallies::sum(apart.iter().rev()));
            prop_assert_eq!(sum.count(), apart.iter().map(Tallies::count).sum::<u64>());
        }
    }

    #[test]
    fn entries_of_any_order_and_size_add_up_without_overflow() {
        let full = Tally { shown: u64::MAX, positive: 1 };
        let offers = vec![(OfferKey(9), full), (OfferKey(1), full), (OfferKey(9), full)];
        let strange = Tallies { all: full, offers, categories: Vec::new() };
        let sum = Tallies::sum([&strange, &strange]);
        let expected = |positive| Tally { shown: u64::MAX, positive };
        assert_eq!(sum.offers, [(OfferKey(1), expected(2)), (OfferKey(9), expected(4))]);
        assert_eq!((sum.all, sum.count()), (expected(2), u64::MAX));
    }
}
