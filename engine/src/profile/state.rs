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
    pub exposures: Vec<Exposure>,
    /// The rest; most profiles have none.
    pub dealings: Option<Box<Dealings>>,
}

/// One confirmed impression, 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Exposure {
    at_low: u32,
    at_high: u16,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Offer.
    pub offer: OfferKey,
    /// Creative, or NONE.
    pub creative: CreativeKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
}

impl Exposure {
    /// An impression at `at` (1970 to 10889).
    pub fn new(
        at: Timestamp,
        offer: OfferKey,
        creative: CreativeKey,
        channel: ChannelKey,
        placement: PlacementKey,
    ) -> Self {
        let ms = at.0.clamp(0, (1 << 48) - 1) as u64;
        Exposure { at_low: ms as u32, at_high: (ms >> 32) as u16, channel, offer, creative, placement }
    }

    /// When.
    pub fn at(&self) -> Timestamp {
        Timestamp((u64::from(self.at_high) << 32 | u64::from(self.at_low)) as i64)
    }
}

/// What a profile has beside attributes and exposures.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Dealings {
    /// Impressions that left the history by age, by what they count for.
    pub older: Vec<(Counted, u32)>,
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
    /// Categories of exposed offers at the time, by offer (an offer may move category later).
    pub categories: Vec<(OfferKey, CategoryKey)>,
    /// Last positive outcome per offer, sorted: earlier exposures no longer fatigue.
    pub answered: Vec<(OfferKey, Timestamp)>,
    /// First time each ghost was withheld.
    pub ghosts: Vec<(Ghost, Timestamp)>,
    /// Recent decisions with an open proposition, for outcomes and retries.
    pub decisions: Vec<DecisionRecord>,
    /// Keys of calls that must count once.
    pub keyed: Vec<Keyed>,
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

/// A decision that took something: its propositions, for outcomes by rank and for idempotent retries.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DecisionRecord {
    /// Which.
    pub decision: DecisionId,
    /// When.
    pub at: Timestamp,
    /// Outcome keys seen per rank (index 0 = rank 1): each counts once.
    pub seen: Vec<Vec<OutcomeKey>>,
    /// When it may be forgotten.
    pub until: Timestamp,
}

/// A keyed call that has been answered.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Keyed {
    /// Hash of the key.
    pub key: u128,
    /// Hash of the body.
    pub body: u64,
    /// When it is forgotten.
    pub until: Timestamp,
    /// The first answer.
    pub answer: KeyedAnswer,
}

/// What is answered again.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum KeyedAnswer {
    /// Of a `respond`.
    Responded {
        /// See domain.md §5.
        late: bool,
        /// See domain.md §5.
        repeat: bool,
        /// See domain.md §5.
        over_cap: bool,
    },
    /// Of a decision that took something.
    Took {
        /// Which decision.
        decision: DecisionId,
        /// When.
        at: Timestamp,
        /// Its propositions with their scores.
        propositions: Vec<crate::profile::command::TakenProposition>,
    },
}

impl Profile {
    /// Impressions that `counted` counts in `window` at `now`, plus live holds of strict policies. O(history).
    pub fn impressions(&self, counted: Counted, window: Window, now: Timestamp) -> u64 {
        let inside = |at: Timestamp| match window {
            Window::Lifetime => true,
            Window::Calendar(span) => span.contains(at),
            Window::Rolling { ms } => now.since_ms(at) < ms,
        };
        let shown = self.exposures.iter().filter(|seen| inside(seen.at()) && self.counts(counted, seen)).count() as u64;
        let Some(dealings) = &self.dealings else { return shown };
        let older = match window {
            Window::Lifetime => {
                dealings.older.iter().find(|(what, _)| *what == counted).map_or(0, |(_, count)| u64::from(*count))
            }
            Window::Calendar(_) | Window::Rolling { .. } => 0,
        };
        let held = dealings.policy_holds.iter().filter(|hold| hold.counted == counted && now < hold.expires_at).count();
        shown + older + held as u64
    }

    /// Whether `counted` counts this impression.
    pub fn counts(&self, counted: Counted, seen: &Exposure) -> bool {
        match counted {
            Counted::All => true,
            Counted::Offer(offer) => seen.offer == offer,
            Counted::Creative(creative) => seen.creative == creative,
            Counted::Channel(channel) => seen.channel == channel,
            Counted::Placement(placement) => seen.placement == placement,
            Counted::Category(category) => self.category_of(seen.offer) == Some(category),
        }
    }

    /// The category an exposed offer had when it was last shown.
    pub fn category_of(&self, offer: OfferKey) -> Option<CategoryKey> {
        let categories = &self.dealings.as_ref()?.categories;
        let index = categories.binary_search_by_key(&offer, |(offer, _)| *offer).ok()?;
        Some(categories[index].1)
    }

    /// The last impression of `offer`.
    pub fn last_shown(&self, offer: OfferKey) -> Option<Timestamp> {
        self.exposures.iter().rev().find(|seen| seen.offer == offer).map(Exposure::at)
    }

    /// Unanswered exposures of `offer`, each weighing `2^(-age / half_life)`, summed oldest first (domain.md §6).
    pub fn fatigue(&self, offer: OfferKey, half_life_ms: f64, now: Timestamp) -> f64 {
        let answered = self.answered_at(offer);
        self.exposures
            .iter()
            .filter(|seen| seen.offer == offer && answered.is_none_or(|at| seen.at() > at))
            .map(|seen| libm::exp2(-(now.since_ms(seen.at()).max(0) as f64) / half_life_ms))
            .sum()
    }

    fn answered_at(&self, offer: OfferKey) -> Option<Timestamp> {
        let answered = &self.dealings.as_ref()?.answered;
        let index = answered.binary_search_by_key(&offer, |(offer, _)| *offer).ok()?;
        Some(answered[index].1)
    }

    /// Confirmed use of profile cap `cap` in `window` at `now` plus its live reservations.
    pub fn cap_used(&self, cap: CapKey, window: Window, now: Timestamp) -> u64 {
        let Some(dealings) = &self.dealings else { return 0 };
        let confirmed = dealings.cap_uses.iter().find(|use_of| use_of.cap == cap).map_or(0, |use_of| {
            match (&use_of.used, window) {
                (Used::Lifetime(count), Window::Lifetime) => *count,
                (Used::Calendar(span, count), Window::Calendar(asked)) if *span == asked => *count,
                (Used::Rolling(times), Window::Rolling { ms }) => {
                    times.iter().filter(|at| now.since_ms(**at) < ms).count() as u64
                }
                _ => 0,
            }
        });
        let reserved = dealings
            .reservations
            .iter()
            .filter(|held| {
                held.cap == cap && now < held.expires_at && matches!(held.account, TakeAccount::Profile { .. })
            })
            .count() as u64;
        confirmed + reserved
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
