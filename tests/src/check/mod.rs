//! What must hold of the states that replicas hold, at every look at them. What clients saw is checked by `proffer_chaos::checker`.

pub mod at_rest;
pub mod claims;
pub mod invariants;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use proffer_cluster::calls::Examined;
use proffer_cluster::group::Group;
use proffer_cluster::meta::state::MetaState;
use proffer_engine::profile::command::Position;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// One replica's state at one moment.
pub struct Seen {
    /// On which host.
    pub host: usize,
    /// In which of its starts.
    pub start: u64,
    /// Of which group.
    pub group: Group,
    /// Which replica.
    pub replica: u64,
    /// What time it truly was.
    pub at: Timestamp,
    /// When it was started on what the host's disk held.
    pub began: Instant,
    /// Where it stands.
    pub position: Position,
    /// Where its log ends.
    pub log_end: u64,
    /// The term in which it leads, if it does.
    pub leads_in_term: Option<u64>,
    /// Of its stored form.
    pub hash: u64,
    /// It.
    pub state: Rc<State>,
}

/// The last states of each group that were read: replicas that hold the same, or have not gone on, show the same pieces.
#[derive(Default)]
pub struct Known(BTreeMap<Group, VecDeque<(u64, Rc<State>)>>);

/// States that are kept of a group.
const KNOWN_MAX: usize = 8;

/// A state.
pub enum State {
    /// Of a shard.
    Shard(Box<ShardState>),
    /// Of the meta group.
    Meta(Box<MetaState>),
}

impl Seen {
    /// Reads what a replica showed.
    ///
    /// # Errors
    /// If its pieces are no state.
    pub fn read(
        known: &mut Known,
        at: Timestamp,
        host: usize,
        start: u64,
        group: Group,
        examined: Examined,
    ) -> Result<Self, String> {
        let mut hasher = Xxh3::new();
        examined.pieces.iter().for_each(|piece| hasher.update(piece));
        let hash = hasher.digest();
        let Examined { replica, began, position, log_end, leads_in_term, pieces } = examined;
        let state = known.state(group, hash, pieces)?;
        Ok(Seen { host, start, group, replica, at, began, position, log_end, leads_in_term, hash, state })
    }
}

impl Known {
    fn state(&mut self, group: Group, hash: u64, pieces: Vec<Vec<u8>>) -> Result<Rc<State>, String> {
        let known = self.0.entry(group).or_default();
        if let Some((_, state)) = known.iter().find(|(of, _)| *of == hash) {
            return Ok(Rc::clone(state));
        }
        let state = match group {
            Group::Meta => MetaState::decode_chunks(pieces.into_iter())
                .map(|state| State::Meta(Box::new(state)))
                .map_err(|error| error.to_string()),
            Group::Shard(_) => ShardState::decode_chunks(pieces)
                .map(|state| State::Shard(Box::new(state)))
                .map_err(|error| error.to_string()),
        }?;
        let state = Rc::new(state);
        known.push_back((hash, Rc::clone(&state)));
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
        Ok(state)
    }
}

/// What must hold of all states that are seen. It draws nothing, and knows of no fault.
pub trait Invariant {
    /// As a sentence.
    fn sentence(&self) -> &'static str;

    /// Holds it against another state.
    ///
    /// # Errors
    /// If it does not hold, in words.
    fn look(&mut self, seen: &Seen) -> Result<(), String>;
}

/// All invariants of states.
pub fn all() -> Vec<Box<dyn Invariant>> {
    use invariants::*;
    vec![
        Box::new(one_history::OneHistory::default()),
        Box::new(nothing_forgotten::NothingForgotten::default()),
        Box::new(on_time::OnTime),
        Box::new(terms_rise::TermsRise::default()),
        Box::new(never_back::NeverBack::default()),
        Box::new(caps_hold::CapsHold::default()),
        Box::new(none_made::NoneMade::default()),
        Box::new(nothing_taken::NothingTaken::default()),
    ]
}
