//! How much a profile can be: what its limits add up to has to be readable as one piece.
//!
//! The weight of a thing is no less than what [`codec::decode`](crate::codec::decode) counts for it at any moment: for each
//! item of a list its size in memory (room is made for it, and it is no less than the item's own numbers claim) and the
//! weight of what hangs on it.

use crate::codec::MAX_ENCODED_BYTES;
use crate::decide::decision::Ghost;
use crate::keys::{OfferKey, Symbol};
use crate::limits::{
    ANSWERS_PER_PROFILE, DEALINGS_PER_PROFILE, EXPERIMENTS_PER_PROFILE, EXPOSURES_PER_PROFILE, KEYED_BYTES_PER_PROFILE,
    MANDATORY_PER_PROFILE, METRIC_BUCKETS_PER_SERIES, METRIC_GROUP_BYTES, METRIC_SERIES_PER_PROFILE, OLDER_PER_PROFILE,
    OUTCOMES_PER_EXPERIMENT, PIECE_BYTES, REACTIONS_PER_EXPERIMENT, ROLLING_TIMES_PER_PROFILE, VALUE_BYTES_PER_PROFILE,
};
use crate::profile::command::{Counted, OptOut};
use crate::profile::metrics::{Series, Tally};
use crate::profile::state::{
    Answer, CapUse, Dealings, DecisionRecord, Exposure, Lapsed, Named, OutcomeRecord, PolicyHold, Profile, Reservation,
    Used,
};
use crate::profile::trials::{Opened, Participation, Reaction};
use crate::time::Timestamp;
use crate::value::Value;

/// Most that dealings within their limits weigh.
const DEALING_BYTES_MAX: usize = size_of::<Dealings>()
    + EXPOSURES_PER_PROFILE * size_of::<(Exposure, u32)>()
    + OLDER_PER_PROFILE * size_of::<(Counted, u32)>()
    + DEALINGS_PER_PROFILE
        * (size_of::<OutcomeRecord>()
            + size_of::<CapUse>()
            + size_of::<Reservation>()
            + size_of::<PolicyHold>()
            + size_of::<OptOut>()
            + size_of::<(OfferKey, Timestamp)>()
            + size_of::<(Ghost, Timestamp)>()
            + size_of::<DecisionRecord>())
    + ROLLING_TIMES_PER_PROFILE * size_of::<Timestamp>()
    + MANDATORY_PER_PROFILE as usize * size_of::<OfferKey>()
    + ANSWERS_PER_PROFILE * (size_of::<Answer>() + size_of::<Lapsed>())
    + KEYED_BYTES_PER_PROFILE as usize;

// Every profile can be read again, with room to spare for what is in a piece beside it.
const _: () = assert!(
    size_of::<Profile>()
        + VALUE_BYTES_PER_PROFILE
        + EXPOSURES_PER_PROFILE * size_of::<Exposure>()
        + DEALING_BYTES_MAX
        + PIECE_BYTES
        < MAX_ENCODED_BYTES
);

// And what its metrics counted, which is a piece of its own.
const _: () = assert!(
    METRIC_SERIES_PER_PROFILE
        * (size_of::<Series>() + METRIC_GROUP_BYTES + METRIC_BUCKETS_PER_SERIES * size_of::<(Timestamp, Tally)>())
        + PIECE_BYTES
        < MAX_ENCODED_BYTES
);

// And its part in experiments.
const _: () = assert!(
    EXPERIMENTS_PER_PROFILE
        * (size_of::<Participation>() + (REACTIONS_PER_EXPERIMENT + OUTCOMES_PER_EXPERIMENT) * size_of::<Reaction>())
        + DEALINGS_PER_PROFILE * size_of::<Opened>()
        + PIECE_BYTES
        < MAX_ENCODED_BYTES
);

impl Profile {
    /// What the customer brings: attributes, segments and rows. O(values).
    pub(crate) fn value_weight(&self) -> usize {
        let rows = self.rows.iter().map(|row| size_of_val(row) + of_named(&row.1)).sum::<usize>();
        of_named(&self.attributes) + size_of_val(&*self.segments) + rows
    }

    /// All of it. O(values and caps).
    pub(crate) fn weight(&self) -> usize {
        let dealings = self.dealings.as_ref().map_or(0, |dealings| dealings.weight());
        size_of::<Profile>() + self.value_weight() + size_of_val(&*self.exposures) + dealings
    }
}

impl Dealings {
    fn weight(&self) -> usize {
        let times = self.cap_uses.iter().map(|use_of| match &use_of.used {
            Used::Rolling(times) => size_of_val(times.as_slice()),
            Used::Lifetime(_) | Used::Calendar(..) => 0,
        });
        let mandatory = self.mandatory.as_ref().map_or(0, |(_, offers)| size_of_val(offers.as_slice()));
        size_of::<Dealings>()
            + size_of_val(self.crowds.as_slice())
            + size_of_val(self.older.as_slice())
            + size_of_val(self.outcomes.as_slice())
            + size_of_val(self.cap_uses.as_slice())
            + times.sum::<usize>()
            + size_of_val(self.reservations.as_slice())
            + size_of_val(self.policy_holds.as_slice())
            + size_of_val(self.opt_outs.as_slice())
            + mandatory
            + size_of_val(self.answered.as_slice())
            + size_of_val(self.ghosts.as_slice())
            + size_of_val(self.decisions.as_slice())
            + size_of_val(self.answers.as_slice())
            + size_of_val(self.lapsed.as_slice())
            + self.keyed.bytes() as usize
    }
}

fn of_named(named: &Named) -> usize {
    named.iter().map(|(_, value)| size_of::<(Symbol, Value)>() + beyond(value)).sum()
}

/// What a value takes beside its own place.
fn beyond(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::Text(text) => text.len(),
        Value::List(items) => items.iter().map(|item| size_of::<Value>() + beyond(item)).sum(),
        Value::Map(members) => {
            let place = size_of::<(std::sync::Arc<str>, Value)>();
            members.iter().map(|(name, value)| place + name.len() + beyond(value)).sum()
        }
    }
}
