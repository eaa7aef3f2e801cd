//! What the adapters with one replica do alike: under the leader that is expected, one entry at a time gets its place, is
//! written, and is handed to the machine. What the machine may have missed closes the group.

use std::sync::Arc;

use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::ports::propose::{Committed, Machine, Proposed, Reason};

/// The way from a log to its machine.
pub(super) struct Handover<C, R> {
    machine: Arc<dyn Machine<C, R>>,
    leader: watch::Sender<Option<Leader>>,
    // The order of the log is the order of this lock; `None` once what the log and the machine hold may differ.
    next_index: Arc<Mutex<Option<u64>>>,
}

/// Takes a group's log out of an adapter's hands.
#[derive(Clone)]
pub(crate) struct Closer {
    next_index: Arc<Mutex<Option<u64>>>,
    leader: watch::Sender<Option<Leader>>,
}

impl Closer {
    /// Returns once nothing is under way; the adapter writes nothing any more.
    pub(crate) async fn close(&self) {
        *self.next_index.lock().await = None;
        self.leader.send_replace(None);
    }
}

/// The one entry under way. Dropped before the machine has answered it closes the group: what the log holds is not known.
pub(super) struct Turn<'a, C, R> {
    machine: &'a dyn Machine<C, R>,
    next_index: MutexGuard<'a, Option<u64>>,
    position: Position,
}

impl<C, R> Handover<C, R> {
    /// A log led by `leader` from `next_index` on, under a `machine` that has applied everything before.
    pub(super) fn new(leader: Leader, machine: Arc<dyn Machine<C, R>>, next_index: u64) -> Self {
        let next_index = Arc::new(Mutex::new(Some(next_index)));
        Handover { machine, leader: watch::Sender::new(Some(leader)), next_index }
    }

    /// Who leads.
    pub(super) fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.leader.subscribe()
    }

    /// Makes another lead.
    pub(super) fn set_leader(&self, leader: Option<Leader>) {
        self.leader.send_replace(leader);
    }

    /// A way to close it, without its types.
    pub(super) fn closer(&self) -> Closer {
        Closer { next_index: Arc::clone(&self.next_index), leader: self.leader.clone() }
    }

    /// Waits for the entry before, and gives the next one its place.
    ///
    /// # Errors
    /// What to answer a proposer that gets none.
    pub(super) async fn begin(&self, expected: Leader) -> Result<Turn<'_, C, R>, Proposed<R>> {
        let mut next_index = self.next_index.lock().await;
        let Some(index) = *next_index else {
            return Err(Proposed::NotApplied("the group is recovering".to_owned()));
        };
        let current = *self.leader.borrow();
        if current != Some(expected) {
            return Err(Proposed::Refused(Reason::NotLeader(current)));
        }
        *next_index = None;
        Ok(Turn { machine: &*self.machine, next_index, position: Position { leader: expected, index } })
    }
}

impl<C: 'static, R: 'static> Turn<'_, C, R> {
    /// The entry's place.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The log wrote nothing and never will: the next entry gets this place.
    pub(super) fn give_back(mut self) {
        *self.next_index = Some(self.position.index);
    }

    /// Hands the written entry to the machine.
    pub(super) async fn apply(mut self, commands: Vec<C>) -> Proposed<R> {
        match self.machine.apply(self.position, commands).await {
            Ok(results) => {
                *self.next_index = Some(self.position.index + 1);
                Proposed::Applied(Committed { position: self.position, results })
            }
            Err(_) => Proposed::Unknown,
        }
    }
}
