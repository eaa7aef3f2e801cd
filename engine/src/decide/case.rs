//! The case at hand: everything a decision reads, and the buffers it reuses.

use smallvec::SmallVec;

use crate::decide::request::Request;
use crate::decide::view::{EscrowView, Instant};
use crate::keys::{CategoryKey, ChannelKey, CreativeKey, OfferKey, PlacementKey, Slot, SubCategoryKey};
use crate::learn::Learned;
use crate::profile::command::{Counted, Window};
use crate::profile::state::Profile;
use crate::snapshot::bitset;
use crate::snapshot::metrics::Measures;
use crate::snapshot::policies::Limit;
use crate::snapshot::shared::Shared;
use crate::snapshot::{Part, Snapshot};
use crate::time::Timestamp;
use crate::value::Value;

/// Impressions that a history holds without an allocation.
const HISTORY: usize = 16;

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
        let mut buffer = self.blank();
        buffer.resize(words, 0);
        buffer
    }

    /// An empty buffer, to be written.
    pub(crate) fn blank(&mut self) -> Vec<u64> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.clear();
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<u64>) {
        self.free.push(buffer);
    }
}

/// A bitset over the snapshot that is made when first written: most restraints bar nothing.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    words: Vec<u64>,
    len: usize,
}

impl Sheet {
    /// Nothing set, of so many words.
    pub(crate) fn new(scratch: &mut Scratch, len: usize) -> Self {
        Sheet { words: scratch.blank(), len }
    }

    /// The same without a buffer to reuse.
    pub(crate) fn blank(len: usize) -> Self {
        Sheet { words: Vec::new(), len }
    }

    /// Whether nothing was written.
    pub(crate) fn is_blank(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether bit `bit` is set.
    pub(crate) fn has(&self, bit: u32) -> bool {
        !self.is_blank() && bitset::has(&self.words, bit)
    }

    /// For writing.
    pub(crate) fn write(&mut self) -> &mut [u64] {
        if self.words.is_empty() {
            self.words.resize(self.len, 0);
        }
        &mut self.words
    }

    /// Forgets what was written.
    pub(crate) fn wipe(&mut self) {
        self.words.clear();
    }

    /// What was written: nothing, or all words.
    pub(crate) fn read(&self) -> &[u64] {
        &self.words
    }

    /// The buffer, to give back.
    pub(crate) fn into_buffer(self) -> Vec<u64> {
        self.words
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
    /// The category of that impression.
    pub(crate) category: Option<CategoryKey>,
    /// Impressions that are kept.
    pub(crate) times: u32,
}

/// What a decision reads.
pub(crate) struct Case<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) shared: &'a Shared,
    pub(crate) profile: Option<&'a Profile>,
    pub(crate) escrow: &'a dyn EscrowView,
    pub(crate) request: &'a Request,
    pub(crate) at: &'a Instant,
    pub(crate) history: History,
    /// What is known of how offers are received.
    pub(crate) learned: &'a Learned,
    /// What random draws derive from.
    pub(crate) seed: u64,
    /// Metrics that are the same for all offers, as far as anything reads them.
    pub(crate) measured: &'a [(Slot, Value)],
}

/// A profile's impressions as a decision looks at them.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Distinct offers, by key.
    pub(crate) seen: SmallVec<[Seen; HISTORY]>,
    /// How many impressions are kept.
    past: u64,
    /// Whether they are all that counts: no impression has left the history, and no policy holds any.
    complete: bool,
}

impl History {
    /// Whether it may hold `least` impressions of anything together with `choices` of the same answer.
    pub(crate) fn may_hold(&self, least: u64, choices: u64) -> bool {
        !self.complete || self.past + choices >= least
    }

    /// Whether it may hold `least` impressions of an offer in it.
    pub(crate) fn may_hold_of(&self, seen: &Seen, least: u64) -> bool {
        !self.complete || u64::from(seen.times) >= least
    }
}

impl<'a> Case<'a> {
    /// What the customer's metrics are worth.
    pub(crate) fn measures(&self) -> Measures<'a> {
        measures(self.snapshot, self.profile, self.request, self.at)
    }
}

/// What the metrics of a request's customer are worth.
pub(crate) fn measures<'a>(
    snapshot: &'a Snapshot,
    profile: Option<&'a Profile>,
    request: &Request,
    at: &Instant,
) -> Measures<'a> {
    Measures { metrics: &snapshot.shared.metrics, profile, channel: request.channel, now: at.now }
}

impl Case<'_> {
    /// Whether a limit may be reached once `choices` of the same answer count too: no window holds more than the whole
    /// history, so most limits are out of reach before anything is counted.
    pub(crate) fn could_reach(&self, limit: &Limit, counted: Counted, choices: u64) -> bool {
        let History { seen, past, complete } = &self.history;
        let most = match counted {
            Counted::Offer(offer) => match seen.binary_search_by_key(&offer, |seen| seen.offer) {
                Ok(index) => u64::from(seen[index].times),
                Err(_) => 0,
            },
            Counted::All
            | Counted::Creative(_)
            | Counted::Category(_)
            | Counted::Channel(_)
            | Counted::Placement(_) => *past,
        };
        !complete || most + choices >= limit.most
    }

    /// Impressions (and strict holds) of `counted` in `window`.
    pub(crate) fn impressions(&self, counted: Counted, window: Window) -> u64 {
        self.profile.map_or(0, |profile| profile.impressions(counted, window, self.at.now))
    }

    /// Impressions in `window` of offers that are in a sub-category now.
    pub(crate) fn impressions_in_sub_category(&self, sub_category: SubCategoryKey, window: Window) -> u64 {
        let inside = |seen: &&Seen| seen.global.is_some_and(|global| self.sub_category(global) == Some(sub_category));
        self.history.seen.iter().filter(inside).map(|seen| self.impressions(Counted::Offer(seen.offer), window)).sum()
    }

    /// The last impression of an offer.
    pub(crate) fn last_shown(&self, offer: OfferKey) -> Option<Timestamp> {
        let index = self.history.seen.binary_search_by_key(&offer, |seen| seen.offer).ok()?;
        self.history.seen[index].last
    }

    /// Category of a past impression's offer: the one then, else the one now.
    pub(crate) fn category_of_seen(&self, seen: &Seen) -> Option<CategoryKey> {
        seen.category.or_else(|| seen.global.and_then(|global| self.category(global)))
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

/// The history of a profile.
pub(crate) fn look_back(snapshot: &Snapshot, profile: Option<&Profile>) -> History {
    let Some(profile) = profile else { return History { complete: true, ..History::default() } };
    // The latest impression of each offer comes first, and stays.
    let latest = profile.exposures.iter().rev();
    let mut seen: SmallVec<[Seen; HISTORY]> = latest
        .map(|past| Seen {
            offer: past.offer,
            global: None,
            last: Some(past.at()),
            category: past.category(),
            times: 1,
        })
        .collect();
    let mut complete = true;
    if let Some(dealings) = &profile.dealings {
        complete = profile.is_history_whole();
        let held = dealings.policy_holds.iter().map(|hold| hold.counted);
        for counted in held.chain(dealings.older.iter().map(|(counted, _)| *counted)) {
            match counted {
                Counted::Offer(offer) => {
                    seen.push(Seen { offer, global: None, last: None, category: None, times: 0 });
                }
                Counted::All
                | Counted::Creative(_)
                | Counted::Category(_)
                | Counted::Channel(_)
                | Counted::Placement(_) => {}
            }
        }
    }
    seen.sort_by_key(|seen| seen.offer);
    seen.dedup_by(|later, kept| {
        let same = later.offer == kept.offer;
        kept.times += if same { later.times } else { 0 };
        same
    });
    seen.iter_mut().for_each(|seen| seen.global = snapshot.global(seen.offer));
    History { seen, past: profile.exposures.len() as u64, complete }
}
