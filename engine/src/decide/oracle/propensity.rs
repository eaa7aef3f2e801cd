//! P, written out: from the tallies as they were counted, without any table.

use super::case::{Case, OfferRow};
use crate::learn::{Propensity, PropensitySource};
use crate::profile::evidence::Tally;

impl Case<'_> {
    /// P of an offer, and what it rests on. Where a model says something, that takes the place of 0.5.
    pub(super) fn learned(&self, offer: &OfferRow, modelled: Option<f64>) -> Propensity {
        let mut found = self.without_own(offer, modelled);
        let of_offer = self.tallies.offers.iter().find(|(key, _)| *key == offer.key);
        look(&mut found, of_offer.map(|(_, tally)| *tally), 1, PropensitySource::Offer);
        found
    }

    /// The same without the offer's own outcomes.
    pub(super) fn without_own(&self, offer: &OfferRow, modelled: Option<f64>) -> Propensity {
        let mut found = match modelled {
            Some(value) => Propensity { value, source: PropensitySource::Model },
            None => Propensity { value: 0.5, source: PropensitySource::Default },
        };
        look(&mut found, Some(self.tallies.all), 10, PropensitySource::Global);
        let category = self.category_of(&offer.body);
        let of_category = self.tallies.categories.iter().find(|(key, _)| Some(*key) == category);
        look(&mut found, of_category.map(|(_, tally)| *tally), 20, PropensitySource::Category);
        found
    }
}

/// Smooths one level by the next, where enough was seen of it.
fn look(found: &mut Propensity, tally: Option<Tally>, least: u64, source: PropensitySource) {
    let Some(Tally { shown, positive }) = tally.filter(|tally| tally.shown >= least) else { return };
    let value = (positive.min(shown) as f64 + 10.0 * found.value) / (shown as f64 + 10.0);
    *found = Propensity { value, source };
}
