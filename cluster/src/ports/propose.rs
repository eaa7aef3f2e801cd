//! How a command becomes part of a group's log: the one door through which replicated state changes.

use std::future::Future;
use std::pin::Pin;

use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::watch;

/// An answer under way.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed<R> {
    /// It is durable and applied: the results, one per command, in order.
    Applied(Committed<R>),
    /// Nothing was written and nothing ever will be: the proposer is not (or no longer) the leader it believes to be.
    Refused(Reason),
    /// Nothing was written and nothing ever will be; the leader is right (the disk is full, the node is closing).
    NotApplied(String),
    /// It may have been applied, may be applied later, or never.
    Unknown,
}

/// An applied entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    /// Where it stands in the log.
    pub position: Position,
    /// What applying each command gave.
    pub results: Vec<R>,
}

/// Why a proposal was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This replica does not lead under the expected leader; under which it does, if it does.
    NotLeader(Option<Leader>),
}

/// A group's log, as its leader sees it.
///
/// Contract, held by every adapter and checked by [`propose_conformance`](super::propose_conformance):
/// * the commands of one call become one entry: applied wholly, in order, or not at all, and at most once;
/// * entries are applied one at a time, at positions that rise strictly, on every replica the same;
/// * `Applied` is answered after the entry is durable (as the configuration understands it) *and* applied here; the position's
///   leader is the `expected` one;
/// * `Refused` and `NotApplied` prove that nothing was or will be written; everything that cannot prove it is `Unknown`;
/// * a call whose future is dropped counts as `Unknown`;
/// * [`Propose::leader`] names this replica while it leads, and nobody otherwise: who leads elsewhere is not for the state machine
///   to know. A proposal under another leader than the current one is never `Applied`, though an entry written before the leader
///   changed may still be applied under its own;
/// * [`Propose::may_read`] is looked at before the state is read for an answer that takes nothing;
/// * [`Propose::confirm`] says `true` only if no other replica was elected before it was called.
///
/// Adapters: `raft` (replicas on several nodes, or on one), `propose::memory`, `propose::hostile` (seeded faults).
pub trait Propose<C, R>: Send + Sync + 'static {
    /// Proposes `commands` as one entry, provided `expected` leads.
    fn propose(&self, commands: Vec<C>, expected: Leader) -> Pending<'_, Proposed<R>>;

    /// Under which leader this replica leads, if it does.
    fn leader(&self) -> watch::Receiver<Option<Leader>>;

    /// Why the log takes nothing for the moment, though what is under way may still come to an end.
    fn stuck(&self) -> Option<String>;

    /// Whether this replica's state, while it leads, is certain to be the newest.
    fn may_read(&self) -> bool;

    /// Whether this replica leads, and was still the leader after this was called: a quorum is asked, and no clock. May say `false`
    /// of one that leads.
    fn confirm(&self) -> Pending<'_, bool>;
}

/// The state machine under a group's log, as an adapter sees it.
///
/// Contract: called for one entry at a time, in log order, each entry once. [`Gone`] means that the machine did not (or may not)
/// apply it: the adapter calls it no more, answers `Unknown` for what was under way and `NotApplied` from then on; whoever
/// owns the machine recovers it from snapshot and log, and makes a new adapter.
pub trait Machine<C, R>: Send + Sync + 'static {
    /// Applies an entry.
    fn apply(&self, position: Position, commands: Vec<C>) -> Pending<'_, Result<Vec<R>, Gone>>;
}

/// The state machine does not exist any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state machine is gone")]
pub struct Gone;

/// A state encoded piece by piece, off the deciding threads.
pub type Pieces = Box<dyn FnOnce() -> Vec<Vec<u8>> + Send>;

/// A state machine that can hand its state out and take another's in: what a replica among several needs.
///
/// Contract: as [`Machine`]; all calls come one at a time, and between two entries.
pub trait Replicated<C, R>: Machine<C, R> {
    /// The state as it stands.
    fn share(&self) -> Pending<'_, Result<Pieces, Gone>>;

    /// Takes the state of these pieces, which has applied everything up to `position`, in place of its own.
    fn install(&self, position: Position, pieces: Vec<Vec<u8>>) -> Pending<'_, Result<(), InstallError>>;

    /// Nothing will ever come out of the log again: whoever owns the machine recovers it.
    fn abandon(&self, reason: &str);
}

/// Why a state was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The state machine does not exist any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The pieces are no state.
    #[error("{0}")]
    Unreadable(String),
}
