//! A group whose replicas move between nodes (docs/adr/0012): what was committed stays, and who votes is there.
//!
//! The roster is the real one, changed by a real [`MetaState`](proffer_cluster::meta::state::MetaState); a leader does what the real
//! [`next_step`](proffer_cluster::reconcile::next_step) says, by a roster that may be old; reports are lost, doubled and late. Raft is modelled
//! as its paper has it: a vote is one step, configurations are in force from when they are appended, an entry counts once a majority of each set
//! of voters has it in the leader's term.
//!
//! What a shard's escrow is follows from its committed entries alone. So a shard that loses none of them, whoever leads and wherever its
//! replicas are, is one shard to the [`escrow`](crate::escrow) model.

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
    /// The group's voters at the beginning, by the number of their node: the first alone, or what it was moved to without any fault.
    pub begins: Vec<usize>,
    /// What the group's members should be then, one after the other: voters and learners by the number of their node, from 0.
    pub targets: Vec<(Vec<usize>, Vec<usize>)>,
    /// Nodes.
    pub nodes: usize,
    /// Leaders that there are, one after the other.
    pub terms: u64,
    /// Commands that are proposed.
    pub commands: u64,
    /// Configurations that are entered, those of the beginning among them.
    pub configurations: usize,
}

/// The protocol within bounds.
#[derive(Clone, Debug)]
pub struct Moves {
    /// How far is searched.
    pub bounds: Bounds,
    /// What is left out of the protocol.
    pub left_out: Option<Rule>,
}

impl Model for Moves {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
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

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was committed stays", |_, state: &State| state.is_committed_kept()),
            Property::always("who votes is there", |_, state: &State| state.are_voters_there()),
            Property::always("the group can be led", |_, state: &State| state.can_be_led()),
            Property::sometimes("the last target is reached", |model: &Self, state: &State| {
                state.is_at_last_target(&model.bounds)
            }),
            Property::sometimes("a replica that left is destroyed", |_, state: &State| state.is_any_destroyed()),
            Property::sometimes("a leader acts by an old roster", |_, state: &State| state.is_led_by_old_roster()),
        ]
    }
}
