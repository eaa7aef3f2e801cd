//! What has been chosen so far for one answer: each choice counts as one impression for the choices after it.

use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, SubCategoryKey};

/// One chosen proposition, by what may count it.
pub(super) struct Choice {
    pub(super) offer: OfferKey,
    pub(super) creative: CreativeKey,
    pub(super) channel: ChannelKey,
    pub(super) placement: PlacementKey,
    pub(super) category: Option<CategoryKey>,
    pub(super) sub_category: Option<SubCategoryKey>,
    pub(super) mandatory: bool,
}

/// All of them, in the order they were made. Fallback offers count for nothing.
#[derive(Default)]
pub(super) struct Choices(pub(super) Vec<Choice>);

impl Choices {
    pub(super) fn count(&self, counts: impl Fn(&Choice) -> bool) -> u64 {
        self.0.iter().filter(|choice| counts(choice)).count() as u64
    }
}
