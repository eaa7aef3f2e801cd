//! One profile: attributes, history and dealings, and the questions a decision asks of them. Sparse: everything here is
//! what *this* customer has seen or done, so a decision costs what the history costs, not what the catalogue costs.
//!
//! Fatigue, recency and every contact policy read the one [`Profile::exposures`] history (docs/adr/0007): there is no second
//! counter that could disagree with it.

use bincode::{Decode, Encode};

use crate::decide::decision::Ghost;
use crate::keys::{
    CapKey, CategoryKey, ChannelKey, CreativeKey, Micros, OfferKey, OutcomeKey, PlacementKey, SchemaKey, Symbol,
};
use crate::profile::command::{CountEvent, Counted, DecisionId, OptOut, TakeAccount, Window};
use crate::profile::keyed::KeyedCalls;
use crate::profile::lapse::Due;
use crate::profile::metrics::Metrics;
use crate::profile::trials::Trials;
use crate::time::{Span, Timestamp};
use crate::value::Value;

/// Named values, sorted by symbol.
pub type Named = Box<[(Symbol, Value)]>;

/// One person: what the shard owns of them (domain.md §7).
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Profile {
    /// `customer.*`, sorted by symbol.
    pub attributes: Named,
    /// Sorted.
    pub segments: Box<[Symbol]>,
    /// Rows by schema, sorted by schema.
    pub rows: Vec<(SchemaKey, Named)>,
    /// Impressions, oldest first.
    pub exposures: Exposures,
    /// The rest; most profiles have none.
    pub dealings: Option<Box<Dealings>>,
}

/// One confirmed impression, 20 bytes: a profile keeps thousands of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exposure {
    /// Offer.
    pub offer: OfferKey,
    /// Creative, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// 16 bits of category, 22 of placement, 42 of time, lowest first.
    packed: [u16; 5],
}

/// A profile's impressions, oldest first: no byte more than they take, because most profiles rest most of the time.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Exposures(Box<[Exposure]>);

impl Exposures {
    /// Adds one at the end. O(number).
    pub fn push(&mut self, exposure: Exposure) {
        let mut list = std::mem::take(&mut self.0).into_vec();
        list.reserve_exact(1);
        list.push(exposure);
        self.0 = list.into_boxed_slice();
    }

    /// Takes the first `count` out.
    pub(crate) fn drain_first(&mut self, count: usize) -> Vec<Exposure> {
        let mut first = std::mem::take(&mut self.0).into_vec();
        self.0 = first.split_off(count).into_boxed_slice();
        first
    }
}

impl std::ops::Deref for Exposures {
    type Target = [Exposure];

    fn deref(&self) -> &[Exposure] {
        &self.0
    }
}

impl std::ops::DerefMut for Exposures {
    fn deref_mut(&mut self) -> &mut [Exposure] {
        &mut self.0
    }
}

impl FromIterator<Exposure> for Exposures {
    fn from_iter<I: IntoIterator<Item = Exposure>>(exposures: I) -> Self {
        Exposures(exposures.into_iter().collect())
    }
}

const PLACEMENT_BITS: u32 = 22;
const PLACEMENT_NONE: u128 = (1 << PLACEMENT_BITS) - 1;
const CATEGORY_NONE: u128 = u16::MAX as u128;
const TIME_MAX: i64 = (1 << 42) - 1;

impl Exposure {
    /// An impression at `at` (1970 to 2109). Only the first 4,194,303 placements that a tenant ever made are told apart in
    /// its history; later ones count as NONE.
    pub fn new(
        at: Timestamp,
        offer: OfferKey,
        creative: CreativeKey,
        channel: ChannelKey,
        placement: PlacementKey,
    ) -> Self {
        let at = at.0.clamp(0, TIME_MAX) as u128;
        let placement = u128::from(placement.0).min(PLACEMENT_NONE);
        Exposure { offer, creative, channel, packed: [0; 5] }
            .pack(at << (16 + PLACEMENT_BITS) | placement << 16 | CATEGORY_NONE)
    }

    /// The same impression of an offer that was in `category` (one of the first 65,535 its tenant ever made).
    #[must_use]
    pub fn in_category(self, category: Option<CategoryKey>) -> Self {
        let category = category.map_or(CATEGORY_NONE, |category| u128::from(category.0).min(CATEGORY_NONE));
        self.pack(self.unpack() & !CATEGORY_NONE | category)
    }

    /// When.
    pub fn at(&self) -> Timestamp {
        Timestamp((self.unpack() >> (16 + PLACEMENT_BITS)) as i64)
    }

    /// Placement, or NONE.
    pub fn placement(&self) -> PlacementKey {
        match self.unpack() >> 16 & PLACEMENT_NONE {
            PLACEMENT_NONE => PlacementKey::NONE,
            placement => PlacementKey(placement as u32),
        }
    }

    /// The offer's category when this profile last saw it: a later impression under another one moves the earlier ones.
    pub fn category(&self) -> Option<CategoryKey> {
        match self.unpack() & CATEGORY_NONE {
            CATEGORY_NONE => None,
            category => Some(CategoryKey(category as u32)),
        }
    }

    fn unpack(&self) -> u128 {
        self.packed.iter().rev().fold(0, |bits, part| bits << 16 | u128::from(*part))
    }

    fn pack(mut self, bits: u128) -> Self {
        for (index, part) in self.packed.iter_mut().enumerate() {
            *part = (bits >> (16 * index)) as u16;
        }
        self
    }
}

/// What a profile has beside attributes and exposures.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Dealings {
    /// Impressions counted together with a later one of the same thing: that one, which is in the history, and how many.
    /// They count at its time, so that no limit is ever exceeded by them.
    pub crowds: Vec<(Exposure, u32)>,
    /// Impressions that left the history, by what they count for, sorted.
    pub older: Vec<(Counted, u32)>,
    /// When the last of them was: they all count at this time.
    pub older_until: Timestamp,
    /// What each thing counts that `older` has no place for.
    pub older_rest: u32,
    /// Outcomes other than impressions, oldest first.
    pub outcomes: Vec<OutcomeRecord>,
    /// Confirmed use of profile caps, by cap.
    pub cap_uses: Vec<CapUse>,
    /// Units held for propositions not yet shown.
    pub reservations: Vec<Reservation>,
    /// Holds of strict contact policies.
    pub policy_holds: Vec<PolicyHold>,
    /// What the customer opted out of, sorted.
    pub opt_outs: Vec<OptOut>,
    /// Distinct mandatory offers proposed on a day.
    pub mandatory: Option<(Span, Vec<OfferKey>)>,
    /// Last positive outcome per offer, sorted: earlier exposures no longer fatigue.
    pub answered: Vec<(OfferKey, Timestamp)>,
    /// First time each ghost was withheld.
    pub ghosts: Vec<(Ghost, Timestamp)>,
    /// Recent decisions with an open proposition, for outcomes and retries.
    pub decisions: Vec<DecisionRecord>,
    /// Outcomes of their propositions, oldest first: each key counts once.
    pub answers: Vec<Answer>,
    /// Units given back before they were used, oldest first: an outcome that needs one comes late.
    pub lapsed: Vec<Lapsed>,
    /// Answers to decisions up to here have been forgotten: what is no longer known of them counts as answered.
    pub forgotten_until: Timestamp,
    /// Keys of calls that must count once.
    pub keyed: KeyedCalls,
    /// What behavioural metrics counted.
    pub metrics: Metrics,
    /// What the customer is and did in experiments.
    pub trials: Trials,
    /// When something falls due, as of the last command.
    pub(crate) due: Due,
}

/// An outcome that is not an impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutcomeRecord {
    /// When.
    pub at: Timestamp,
    /// Of which offer.
    pub offer: OfferKey,
    /// Its category then.
    pub category: Option<CategoryKey>,
    /// What.
    pub outcome: OutcomeKey,
    /// Money or value.
    pub value: Option<Micros>,
    /// Past a limit: stored, uncounted.
    pub over_cap: bool,
    /// The same outcome key again for the same proposition.
    pub repeat: bool,
    /// How many such outcomes this stands for: itself, and earlier ones like it that were not kept one by one.
    pub times: u32,
}

/// Confirmed use of one profile cap.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct CapUse {
    /// Which.
    pub cap: CapKey,
    /// How much, in the shape its window needs.
    pub used: Used,
}

/// Confirmed use in the shape a window needs.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Used {
    /// Ever.
    Lifetime(u64),
    /// In one calendar period; another period starts at 0.
    Calendar(Span, u64),
    /// The last `limit` times, oldest first.
    Rolling(Vec<Timestamp>),
}

/// A unit held for a proposition.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct Reservation {
    /// For which decision.
    pub decision: DecisionId,
    /// And which of its propositions, from 1.
    pub rank: u16,
    /// Which cap.
    pub cap: CapKey,
    /// Whose unit.
    pub account: TakeAccount,
    /// What turns it into use.
    pub count_on: CountEvent,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// A strict contact policy's hold: counts as an impression of what it counts until shown or lapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PolicyHold {
    /// For which decision.
    pub decision: DecisionId,
    /// And which of its propositions, from 1.
    pub rank: u16,
    /// What it counts as.
    pub counted: Counted,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// What is remembered of a decision while its propositions may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DecisionRecord {
    /// Which.
    pub decision: DecisionId,
    /// When.
    pub at: Timestamp,
    /// When it may be forgotten: its propositions can no longer be answered.
    pub until: Timestamp,
}

/// An outcome recorded for one proposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// To which decision.
    pub decision: DecisionId,
    /// Of which proposition, from 1.
    pub rank: u16,
    /// What.
    pub outcome: OutcomeKey,
    /// Whether it is good news: only the first of those is evidence.
    pub positive: bool,
}

/// A unit that was held for a proposition and given back before it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Lapsed {
    /// Of which decision.
    pub decision: DecisionId,
    /// And which of its propositions, from 1.
    pub rank: u16,
    /// Of which cap.
    pub cap: CapKey,
}

impl Dealings {
    /// Impressions of `counted` that have left the history.
    fn older(&self, counted: Counted) -> u32 {
        let known = self.older.iter().find(|(what, _)| *what == counted).map(|(_, count)| *count);
        known.unwrap_or(if counted == Counted::All { 0 } else { self.older_rest })
    }
}

impl Profile {
    /// Impressions that `counted` counts in `window` at `now`, plus live holds of strict policies. O(history).
    pub fn impressions(&self, counted: Counted, window: Window, now: Timestamp) -> u64 {
        let inside = |at: Timestamp| match window {
            Window::Lifetime => true,
            Window::Calendar(span) => span.contains(at),
            Window::Rolling { ms } => now.since_ms(at) < ms,
        };
        let shown = self.exposures.iter().filter(|seen| self.counts(counted, seen) && inside(seen.at())).count() as u64;
        let Some(dealings) = &self.dealings else { return shown };
        let crowds = dealings.crowds.iter().filter(|(last, _)| inside(last.at()) && self.counts(counted, last));
        let crowded = crowds.map(|(_, times)| u64::from(*times)).sum::<u64>();
        let older = if inside(dealings.older_until) { u64::from(dealings.older(counted)) } else { 0 };
        let held = dealings.policy_holds.iter().filter(|hold| hold.counted == counted && now < hold.expires_at).count();
        shown + crowded + older + held as u64
    }

    /// Whether `counted` counts this impression.
    pub fn counts(&self, counted: Counted, seen: &Exposure) -> bool {
        match counted {
            Counted::All => true,
            Counted::Offer(offer) => seen.offer == offer,
            Counted::Creative(creative) => seen.creative == creative,
            Counted::Channel(channel) => seen.channel == channel,
            Counted::Placement(placement) => seen.placement() == placement,
            Counted::Category(category) => seen.category() == Some(category),
        }
    }

    /// The category an exposed offer had when it was last shown.
    pub fn category_of(&self, offer: OfferKey) -> Option<CategoryKey> {
        self.exposures.iter().rev().find(|seen| seen.offer == offer)?.category()
    }

    /// The last impression of `offer`.
    pub fn last_shown(&self, offer: OfferKey) -> Option<Timestamp> {
        self.exposures.iter().rev().find(|seen| seen.offer == offer).map(Exposure::at)
    }

    /// Unanswered exposures of `offer`, each weighing `2^(-age / half_life)`, summed oldest first (domain.md §6).
    pub fn fatigue(&self, offer: OfferKey, half_life_ms: f64, now: Timestamp) -> f64 {
        let answered = self.answered_at(offer);
        let weighs = |seen: &Exposure| seen.offer == offer && answered.is_none_or(|at| seen.at() > at);
        let weight = |seen: &Exposure| libm::exp2(-(now.since_ms(seen.at()).max(0) as f64) / half_life_ms);
        let single: f64 = self.exposures.iter().filter(|seen| weighs(seen)).map(weight).sum();
        let crowds = self.dealings.iter().flat_map(|dealings| &dealings.crowds);
        crowds
            .filter(|(last, _)| weighs(last))
            .fold(single, |sum, (last, times)| sum + f64::from(*times) * weight(last))
    }

    /// Whether [`Profile::exposures`] are all that count as impressions: none is counted otherwise, and no policy holds any.
    pub fn is_history_whole(&self) -> bool {
        self.dealings.as_ref().is_none_or(|dealings| {
            dealings.policy_holds.is_empty() && dealings.older.is_empty() && dealings.crowds.is_empty()
        })
    }

    fn answered_at(&self, offer: OfferKey) -> Option<Timestamp> {
        let answered = &self.dealings.as_ref()?.answered;
        let index = answered.binary_search_by_key(&offer, |(offer, _)| *offer).ok()?;
        Some(answered[index].1)
    }

    /// Confirmed use of profile cap `cap` in `window` at `now` plus its live reservations. A reservation belongs to the
    /// calendar period of its decision.
    pub fn cap_used(&self, cap: CapKey, window: Window, now: Timestamp) -> u64 {
        let Some(dealings) = &self.dealings else { return 0 };
        let confirmed = dealings.cap_uses.iter().find(|use_of| use_of.cap == cap).map_or(0, |use_of| {
            match (&use_of.used, window) {
                (Used::Lifetime(count), Window::Lifetime) => *count,
                (Used::Calendar(span, count), Window::Calendar(asked)) if span.overlaps(&asked) => *count,
                (Used::Rolling(times), Window::Rolling { ms }) => {
                    times.iter().filter(|at| now.since_ms(**at) < ms).count() as u64
                }
                (Used::Lifetime(_) | Used::Calendar(..) | Used::Rolling(_), _) => 0,
            }
        });
        let binds = |held: &Reservation| match (held.account, window) {
            (TakeAccount::Global { .. }, _) => false,
            (TakeAccount::Profile { window: Window::Calendar(span), .. }, Window::Calendar(asked)) => {
                span.overlaps(&asked)
            }
            (TakeAccount::Profile { .. }, _) => true,
        };
        let reserved =
            dealings.reservations.iter().filter(|held| held.cap == cap && now < held.expires_at && binds(held)).count();
        confirmed + reserved as u64
    }

    /// Caps that this profile has used or holds units of (may repeat): the only ones that can bar anything.
    pub fn caps_touched(&self) -> impl Iterator<Item = CapKey> + '_ {
        self.dealings.iter().flat_map(|dealings| {
            dealings.cap_uses.iter().map(|use_of| use_of.cap).chain(dealings.reservations.iter().map(|held| held.cap))
        })
    }

    /// Mandatory offers already proposed in the calendar day around `now`.
    pub fn mandatory_today(&self, now: Timestamp) -> &[OfferKey] {
        match self.dealings.as_ref().and_then(|dealings| dealings.mandatory.as_ref()) {
            Some((day, offers)) if day.contains(now) => offers,
            _ => &[],
        }
    }

    /// What behavioural metrics counted.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.dealings.as_ref().map(|dealings| &dealings.metrics)
    }

    /// What the customer is and did in experiments.
    pub fn trials(&self) -> Option<&Trials> {
        self.dealings.as_ref().map(|dealings| &dealings.trials)
    }

    /// What the customer opted out of.
    pub fn opt_outs(&self) -> &[OptOut] {
        self.dealings.as_ref().map_or(&[], |dealings| &dealings.opt_outs)
    }

    /// Outcomes other than impressions, oldest first.
    pub fn outcomes(&self) -> &[OutcomeRecord] {
        self.dealings.as_ref().map_or(&[], |dealings| &dealings.outcomes)
    }

    /// The customer's row of `schema`.
    pub fn row(&self, schema: SchemaKey) -> Option<&Named> {
        self.rows.iter().find(|(key, _)| *key == schema).map(|(_, row)| row)
    }
}
