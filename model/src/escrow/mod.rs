//! Units of a global cap between the ledger and the shards (architecture of the protocol: docs/adr/0002, 0012).
//!
//! The ledger is a real [`MetaState`](proffer_cluster::meta::state::MetaState) and each shard a real
//! [`ShardState`](proffer_engine::profile::shard::ShardState): what is committed is applied by them and by nothing else. An entry that was
//! proposed and lost with its leader does nothing that anybody sees, so entries are applied as they are committed. A message that was sent
//! is delivered any number of times, in any order, until it is lost; and what a leader says that was deposed without knowing it is what it
//! could have said before. What the ledger answers it can say again at any time, so it is one message more that may be sent.
//!
//! `state` is the state and what can be asked of it, `step` what can happen, `rules` what may be left out of the protocol.

mod rules;
mod state;
mod step;

use stateright::{Model, Property};

pub use rules::Rule;
pub use state::State;
pub use step::Step;

/// How far is searched.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Shards.
    pub shards: u16,
    /// The cap's limit, and then what it is changed to, one after the other.
    pub limits: Vec<u64>,
    /// Decisions that are acknowledged.
    pub takes: u64,
    /// Whether they may reserve, and what they reserved be let go; else they use a unit at once.
    pub reservations: bool,
    /// Units that the ledger grants in all: more than the limit, and some went forth and back.
    pub granted: u64,
    /// How often the majority of a shard is lost for good.
    pub losses: u64,
    /// Messages that are on their way at a time.
    pub mail: usize,
    /// Whether every state is healed, to see that all units are found again. That is most of the work.
    pub heals: bool,
}

/// The protocol within bounds.
#[derive(Clone, Debug)]
pub struct Escrow {
    /// How far is searched.
    pub bounds: Bounds,
    /// What is left out of the protocol.
    pub left_out: Option<Rule>,
}

impl Model for Escrow {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(&self.bounds)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.steps(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.take_step(&mut next, step);
        next.seal();
        (next != *state).then_some(next)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.granted() <= self.bounds.granted
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no more is taken than the limit allows", |_, state: &State| state.is_within_limit()),
            Property::always("every unit is in exactly one place", |_, state: &State| state.is_identity_kept()),
            Property::always("no unit is had before it was given", |_, state: &State| {
                state.is_nothing_had_before_given()
            }),
            Property::always(
                "once messages arrive nothing is in flight and the last unit is sold",
                |model, state: &State| !model.bounds.heals || state.is_settled_after_healing(model),
            ),
            Property::sometimes("as many are taken as may be", |model: &Self, state: &State| {
                state.taken == model.bounds.takes.min(state.highest_limit())
            }),
            // What a lost majority held is spent and does not come back.
            Property::sometimes("a unit went back and was granted again", |model: &Self, state: &State| {
                model.bounds.losses > 0 || state.was_granted_again()
            }),
        ]
    }
}
