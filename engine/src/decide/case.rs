//! The case at hand: everything a decision reads, and the buffers it reuses.

use crate::decide::request::Request;
use crate::decide::view::{EscrowView, Instant};
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, SubCategoryKey};
use crate::profile::command::{Counted, Window};
use crate::profile::state::Profile;
use crate::snapshot::shared::Shared;
use crate::snapshot::{Part, Snapshot};
use crate::time::Timestamp;

/// Buffers of a deciding thread, reused from one decision to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    free: Vec<Vec<u64>>,
}

impl Scratch {
    /// Empty: grows to what its decisions need.
    pub fn new() -> Self {
        Scratch::default()
    }

    /// A buffer of `words` zeros.
    pub(crate) fn take(&mut self, words: usize) -> Vec<u64> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.clear();
        buffer.resize(words, 0);
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<u64>) {
        self.free.push(buffer);
    }
}

/// An offer in the profile's history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) offer: OfferKey,
    /// Its position in the whole snapshot, if it is still there.
    pub(crate) global: Option<u32>,
    /// The last impression, if there was one (a strict hold alone is none).
    pub(crate) last: Option<Timestamp>,
}

/// What a decision reads.
pub(crate) struct Case<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) shared: &'a Shared,
    pub(crate) profile: Option<&'a Profile>,
    pub(crate) escrow: &'a dyn EscrowView,
    pub(crate) request: &'a Request,
    pub(crate) at: &'a Instant,
    /// Distinct offers of the history, by key.
    pub(crate) seen: Vec<Seen>,
}

impl Case<'_> {
    /// Impressions (and strict holds) of `counted` in `window`.
    pub(crate) fn impressions(&self, counted: Counted, window: Window) -> u64 {
        self.profile.map_or(0, |profile| profile.impressions(counted, window, self.at.now))
    }

    /// Impressions in `window` of offers that are in a sub-category now.
    pub(crate) fn impressions_in_sub_category(&self, sub_category: SubCategoryKey, window: Window) -> u64 {
        let inside = |seen: &&Seen| seen.global.is_some_and(|global| self.sub_category(global) == Some(sub_category));
        self.seen.iter().filter(inside).map(|seen| self.impressions(Counted::Offer(seen.offer), window)).sum()
    }

    /// The last impression of an offer.
    pub(crate) fn last_shown(&self, offer: OfferKey) -> Option<Timestamp> {
        let index = self.seen.binary_search_by_key(&offer, |seen| seen.offer).ok()?;
        self.seen[index].last
    }

    /// Category of a past impression's offer: the one then, else the one now.
    pub(crate) fn category_of_seen(&self, seen: &Seen) -> Option<CategoryKey> {
        let then = self.profile.and_then(|profile| profile.category_of(seen.offer));
        then.or_else(|| seen.global.and_then(|global| self.category(global)))
    }

    pub(crate) fn locate(&self, global: u32) -> (&Part, u32) {
        self.snapshot.locate(global)
    }

    pub(crate) fn offer(&self, global: u32) -> OfferKey {
        let (part, position) = self.locate(global);
        part.segment.keys[position as usize]
    }

    pub(crate) fn category(&self, global: u32) -> Option<CategoryKey> {
        let (part, position) = self.locate(global);
        part.segment.categories[position as usize]
    }

    pub(crate) fn sub_category(&self, global: u32) -> Option<SubCategoryKey> {
        let (part, position) = self.locate(global);
        part.segment.sub_categories[position as usize]
    }
}

/// Where a proposition would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Or NONE.
    pub(crate) channel: ChannelKey,
    /// Or NONE.
    pub(crate) placement: PlacementKey,
}

/// An offer chosen earlier in the same answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    pub(crate) global: u32,
    pub(crate) offer: OfferKey,
    pub(crate) category: Option<CategoryKey>,
    pub(crate) sub_category: Option<SubCategoryKey>,
    pub(crate) creative: CreativeKey,
    pub(crate) spot: Spot,
    pub(crate) mandatory: bool,
}

/// The distinct offers of a profile's history, by key.
pub(crate) fn look_back(snapshot: &Snapshot, profile: Option<&Profile>) -> Vec<Seen> {
    let Some(profile) = profile else { return Vec::new() };
    let mut seen: Vec<(OfferKey, Option<Timestamp>)> =
        profile.exposures.iter().map(|exposure| (exposure.offer, Some(exposure.at()))).collect();
    if let Some(dealings) = &profile.dealings {
        seen.extend(dealings.policy_holds.iter().filter_map(|hold| match hold.counted {
            Counted::Offer(offer) => Some((offer, None)),
            Counted::All
            | Counted::Creative(_)
            | Counted::Category(_)
            | Counted::Channel(_)
            | Counted::Placement(_) => None,
        }));
        seen.extend(dealings.older.iter().filter_map(|(counted, _)| match counted {
            Counted::Offer(offer) => Some((*offer, None)),
            Counted::All
            | Counted::Creative(_)
            | Counted::Category(_)
            | Counted::Channel(_)
            | Counted::Placement(_) => None,
        }));
    }
    // The latest impression of each offer comes first, and stays.
    seen.sort_unstable_by_key(|(offer, last)| (*offer, std::cmp::Reverse(*last)));
    seen.dedup_by_key(|(offer, _)| *offer);
    seen.into_iter().map(|(offer, last)| Seen { offer, global: snapshot.global(offer), last }).collect()
}
