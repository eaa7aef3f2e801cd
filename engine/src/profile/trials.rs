//! What a customer is and did in experiments (domain.md §4): arm, first proposition or ghost of each offer, and what came of them
//! within the window that it opened.
//!
//! Everything here is said by commands: an [`Enrolment`] opens windows, an outcome is heard in those that are open. Results are
//! added up from it when somebody asks ([`ShardState::experiment`]); there is no second counter that could disagree.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::{Micros, OfferKey, OutcomeKey, TenantId};
use crate::learn::ExperimentTally;
use crate::limits::{
    DEALINGS_PER_PROFILE, EXPERIMENTS_PER_PROFILE, OUTCOMES_PER_EXPERIMENT, REACTIONS_PER_EXPERIMENT, RETENTION_MS,
};
use crate::profile::cells::Look;
use crate::profile::shard::ShardState;
use crate::time::{DAY_MS, Timestamp};

/// Names an experiment within its tenant: XXH3-64 of its key, so that a profile holds 8 bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ExperimentId(pub u64);

impl ExperimentId {
    /// Of a key. Flows that share a key share the experiment.
    pub fn of(key: &str) -> Self {
        ExperimentId(xxh3_64(key.as_bytes()))
    }
}

/// What a decision says of its customer's place in an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Enrolment {
    /// Which experiment.
    pub experiment: ExperimentId,
    /// Held out.
    pub control: bool,
    /// Days in which outcomes of these offers count from now on.
    pub window_days: u16,
    /// What was proposed or withheld, without mandatory and fallback offers; ascending.
    pub offers: Vec<OfferKey>,
}

/// A customer's part in one experiment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Participation {
    /// Which experiment.
    pub experiment: ExperimentId,
    /// The arm of the first enrolment, which stays.
    pub control: bool,
    /// Was found in the other arm later: the share held out was changed, or flows that share the experiment differ in it.
    pub moved: bool,
    /// First proposition or ghost of each offer, by offer.
    pub windows: Vec<Opened>,
    /// What was heard in the windows, by offer and outcome.
    pub reactions: Vec<Reaction>,
}

/// The window of one offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Opened {
    /// Which offer.
    pub offer: OfferKey,
    /// For so many days.
    pub days: u16,
    /// By the decision that enrolled the customer: that does not follow from anything that the experiment did.
    pub first: bool,
    /// When it was first proposed or withheld.
    pub at: Timestamp,
}

/// All outcomes of one kind for one offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reaction {
    /// Of which offer; `None`: of any, there were too many.
    pub offer: Option<OfferKey>,
    /// Which outcome.
    pub outcome: OutcomeKey,
    /// It was good news when it came, at least once.
    pub positive: bool,
    /// How often.
    pub times: u32,
    /// What they brought together.
    pub value: Micros,
}

/// What of an experiment is asked about; of nothing in particular: all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Slice {
    /// Only who was proposed this offer, or had it withheld, when they were enrolled; and what came of it.
    pub offer: Option<OfferKey>,
    /// Only this outcome, good or not, in the place of any good one.
    pub outcome: Option<OutcomeKey>,
}

/// A profile's experiments, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trials(Vec<Participation>);

impl Opened {
    /// Whether an outcome at `now` counts.
    fn is_open(&self, now: Timestamp) -> bool {
        now.since_ms(self.at) < i64::from(self.days) * DAY_MS
    }

    /// Whether it is still known that the offer was proposed.
    fn is_kept(&self, now: Timestamp) -> bool {
        now.since_ms(self.at) < RETENTION_MS
    }
}

impl Participation {
    fn is_sound(&self) -> bool {
        !self.windows.is_empty()
            && self.windows.windows(2).all(|pair| pair[0].offer < pair[1].offer)
            && self.reactions.len() <= REACTIONS_PER_EXPERIMENT + OUTCOMES_PER_EXPERIMENT
            && self.reactions.windows(2).all(|pair| key(&pair[0]) < key(&pair[1]))
    }

    /// The window of an offer, while it is kept.
    fn window(&self, offer: OfferKey, now: Timestamp) -> Option<&Opened> {
        let place = self.windows.binary_search_by_key(&offer, |window| window.offer).ok()?;
        Some(&self.windows[place]).filter(|window| window.is_kept(now))
    }

    /// Whether it is still known that an offer was proposed or withheld when the customer was enrolled.
    pub(crate) fn began_with(&self, offer: OfferKey, now: Timestamp) -> bool {
        self.window(offer, now).is_some_and(|window| window.first)
    }

    fn hear(&mut self, offer: OfferKey, outcome: OutcomeKey, positive: bool, value: Micros) {
        let find = |reactions: &[Reaction], offer| reactions.binary_search_by_key(&(offer, outcome), key);
        let (offer, place) = match find(&self.reactions, Some(offer)) {
            Err(_) if self.reactions.len() >= REACTIONS_PER_EXPERIMENT => (None, find(&self.reactions, None)),
            place => (Some(offer), place),
        };
        match place {
            Ok(place) => {
                let known = &mut self.reactions[place];
                known.positive |= positive;
                known.times = known.times.saturating_add(1);
                known.value = Micros(known.value.0.saturating_add(value.0));
            }
            Err(place) if self.reactions.len() < REACTIONS_PER_EXPERIMENT + OUTCOMES_PER_EXPERIMENT => {
                self.reactions.insert(place, Reaction { offer, outcome, positive, times: 1, value });
            }
            // More kinds than a tenant can have.
            Err(_) => {}
        }
    }
}

fn key(reaction: &Reaction) -> (Option<OfferKey>, OutcomeKey) {
    (reaction.offer, reaction.outcome)
}

impl Trials {
    /// Those that were stored; `None` if they contradict themselves.
    pub(crate) fn restored(participations: Vec<Participation>) -> Option<Self> {
        let windows: usize = participations.iter().map(|of| of.windows.len()).sum();
        let is_sound = !participations.is_empty()
            && participations.len() <= EXPERIMENTS_PER_PROFILE
            && windows <= DEALINGS_PER_PROFILE
            && participations.iter().all(Participation::is_sound)
            && participations.windows(2).all(|pair| pair[0].experiment < pair[1].experiment);
        is_sound.then_some(Trials(participations))
    }

    /// By experiment.
    pub fn participations(&self) -> &[Participation] {
        &self.0
    }

    /// The customer's part in an experiment, while it is kept. O(log experiments + windows).
    pub fn participation(&self, experiment: ExperimentId, now: Timestamp) -> Option<&Participation> {
        let place = self.0.binary_search_by_key(&experiment, |of| of.experiment).ok()?;
        Some(&self.0[place]).filter(|of| of.windows.iter().any(|window| window.is_kept(now)))
    }

    /// What of an enrolment is new at `now`; `None`: nothing. What is forgotten by then counts as gone. Copies nothing:
    /// O(offers · log windows + windows), and O(windows of all experiments) more where an offer is new.
    pub fn news(&self, mut enrolment: Enrolment, now: Timestamp) -> Option<Enrolment> {
        let part = self.participation(enrolment.experiment, now);
        let is_known = |offer: OfferKey| part.is_some_and(|part| part.window(offer, now).is_some());
        enrolment.offers.retain(|offer| !is_known(*offer));
        if !enrolment.offers.is_empty() {
            enrolment.offers.truncate(self.room(part.is_some(), now));
        }
        let moves = part.is_some_and(|part| !part.moved && part.control != enrolment.control);
        (moves || !enrolment.offers.is_empty()).then_some(enrolment)
    }

    /// For how many windows there is room in an experiment that the customer takes part in, or does not yet.
    fn room(&self, takes_part: bool, now: Timestamp) -> usize {
        let kept = self.0.iter().map(|part| part.windows.iter().filter(|window| window.is_kept(now)).count());
        let (experiments, windows) =
            kept.filter(|count| *count > 0).fold((0, 0), |(parts, windows), count| (parts + 1, windows + count));
        if !takes_part && experiments >= EXPERIMENTS_PER_PROFILE {
            return 0;
        }
        DEALINGS_PER_PROFILE.saturating_sub(windows)
    }

    /// When the first experiment is over whose windows are all forgotten then. O(windows).
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let last = |part: &Participation| part.windows.iter().map(|window| window.at).max();
        self.0.iter().filter_map(last).min().map(|last| last.plus_ms(RETENTION_MS))
    }

    /// Opens a window for each offer that has none, as far as there is room. O(offers · (log windows + experiments)).
    pub(crate) fn enrol(&mut self, enrolment: &Enrolment, now: Timestamp) {
        let Enrolment { experiment, control, window_days: days, ref offers } = *enrolment;
        let mut room = DEALINGS_PER_PROFILE.saturating_sub(self.0.iter().map(|of| of.windows.len()).sum());
        let place = match self.0.binary_search_by_key(&experiment, |of| of.experiment) {
            Ok(place) => {
                self.0[place].moved |= self.0[place].control != control;
                place
            }
            Err(_) if self.0.len() >= EXPERIMENTS_PER_PROFILE || room == 0 || offers.is_empty() => return,
            Err(place) => {
                let (windows, reactions) = (Vec::new(), Vec::new());
                let new = Participation { experiment, control, moved: false, windows, reactions };
                self.0.insert(place, new);
                place
            }
        };
        let windows = &mut self.0[place].windows;
        let first = windows.is_empty();
        for offer in offers {
            match windows.binary_search_by_key(offer, |window| window.offer) {
                Err(place) if room > 0 => {
                    windows.insert(place, Opened { offer: *offer, days, first, at: now });
                    room -= 1;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Counts an outcome of an offer in every experiment that has a window open for it. O(experiments · log windows).
    pub(crate) fn hear(
        &mut self,
        offer: OfferKey,
        (outcome, positive): (OutcomeKey, bool),
        value: Option<Micros>,
        now: Timestamp,
    ) {
        for part in &mut self.0 {
            let window = part.windows.binary_search_by_key(&offer, |window| window.offer);
            if window.is_ok_and(|place| part.windows[place].is_open(now)) {
                part.hear(offer, outcome, positive, value.unwrap_or_default());
            }
        }
    }

    /// Forgets windows that opened too long ago, and experiments with the last of theirs.
    pub(crate) fn lapse(&mut self, now: Timestamp) {
        self.0.retain_mut(|part| {
            part.windows.retain(|window| window.is_kept(now));
            !part.windows.is_empty()
        });
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        for part in &mut self.0 {
            part.windows.shrink_to_fit();
            part.reactions.shrink_to_fit();
        }
        self.0.shrink_to_fit();
    }

    /// Bytes that reading them claims, no less.
    pub(crate) fn weight(&self) -> usize {
        let lists = |part: &Participation| size_of_val(&*part.windows) + size_of_val(&*part.reactions);
        size_of_val(&*self.0) + self.0.iter().map(lists).sum::<usize>()
    }
}

impl ShardState {
    /// What came of an experiment, or of a slice of it, among the customers of this shard, as of log time. The sums are exact, so that
    /// no order matters. O(profiles).
    pub fn experiment(&self, tenant: &TenantId, experiment: ExperimentId, slice: Slice) -> ExperimentTally {
        let mut tally = ExperimentTally::default();
        let Some(number) = self.numbers.get(tenant) else { return tally };
        let now = self.log_time();
        for entry in self.unsorted().filter(|entry| entry.tenant == *number) {
            let dealings = entry.profile.dealings.as_ref();
            if let Some(part) = dealings.and_then(|dealings| dealings.trials.participation(experiment, now)) {
                tally.count(part, slice, now);
            }
        }
        tally
    }
}

// Kept out of the bytes of dealings, which are as they were before there were results.
impl Encode for Trials {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for Trials {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Trials::default())
    }
}
bincode::impl_borrow_decode!(Trials);
