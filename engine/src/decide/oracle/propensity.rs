//! P, written out: from the tallies as they were counted, without any table.

use super::case::{Case, OfferRow};
use crate::learn::{Propensity, PropensitySource};
use crate::profile::evidence::Tally;

impl Case<'_> {
    /// P of an offer, and what it rests on.
    pub(super) fn propensity(&self, offer: &OfferRow) -> Propensity {
        let mut found = Propensity { value: 0.5, source: PropensitySource::Default };
        let mut look = |tally: Option<Tally>, least: u64, source: PropensitySource| {
            let Some(Tally { shown, positive }) = tally.filter(|tally| tally.shown >= least) else { return };
            let value = (positive.min(shown) as f64 + 10.0 * found.value) / (shown as f64 + 10.0);
            found = Propensity { value, source };
        };
        look(Some(self.tallies.all), 10, PropensitySource::Global);
        let category = self.category_of(&offer.body);
        let of_category = self.tallies.categories.iter().find(|(key, _)| Some(*key) == category);
        look(of_category.map(|(_, tally)| *tally), 20, PropensitySource::Category);
        let of_offer = self.tallies.offers.iter().find(|(key, _)| *key == offer.key);
        look(of_offer.map(|(_, tally)| *tally), 1, PropensitySource::Offer);
        found
    }
}
