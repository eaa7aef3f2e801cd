//! A group whose log is a list in memory: for tests, and the inside of [`hostile`](super::hostile).

use std::sync::Arc;
use std::sync::Mutex as SyncMutex;

use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::{Mutex, watch};

use crate::ports::propose::{Committed, Machine, Pending, Propose, Proposed, Reason};

/// Entries of a [`MemoryPropose`] with their positions.
pub type Entries<C> = Vec<(Position, Vec<C>)>;

/// One replica, one log in memory, nothing ever lost but by ending the process.
pub struct MemoryPropose<C, R> {
    machine: Arc<dyn Machine<C, R>>,
    leader: watch::Sender<Option<Leader>>,
    // The order of the log is the order of this lock; `None` once the machine is gone.
    next_index: Mutex<Option<u64>>,
    entries: SyncMutex<Entries<C>>,
}

impl<C, R> std::fmt::Debug for MemoryPropose<C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPropose").field("leader", &*self.leader.borrow()).finish_non_exhaustive()
    }
}

impl<C, R> MemoryPropose<C, R> {
    /// An empty log led by `leader`, under `machine`.
    pub fn new(leader: Leader, machine: Arc<dyn Machine<C, R>>) -> Self {
        MemoryPropose {
            machine,
            leader: watch::Sender::new(Some(leader)),
            next_index: Mutex::new(Some(1)),
            entries: SyncMutex::new(Vec::new()),
        }
    }

    /// Makes another lead.
    pub fn set_leader(&self, leader: Option<Leader>) {
        self.leader.send_replace(leader);
    }
}

impl<C: Clone, R> MemoryPropose<C, R> {
    /// What was written, in order.
    pub fn entries(&self) -> Entries<C> {
        self.entries.lock().expect("no holder panics").clone()
    }
}

impl<C, R> Propose<C, R> for MemoryPropose<C, R>
where
    C: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    fn propose(&self, commands: Vec<C>, expected: Leader) -> Pending<'_, Proposed<R>> {
        Box::pin(async move {
            let mut next_index = self.next_index.lock().await;
            let Some(index) = *next_index else { return Proposed::NotApplied("the state machine is gone".to_owned()) };
            let current = *self.leader.borrow();
            if current != Some(expected) {
                return Proposed::Refused(Reason::NotLeader(current));
            }
            let position = Position { leader: expected, index };
            self.entries.lock().expect("no holder panics").push((position, commands.clone()));
            // Gone unless the machine answers: also when this future is dropped while it applies.
            *next_index = None;
            match self.machine.apply(position, commands).await {
                Ok(results) => {
                    *next_index = Some(index + 1);
                    Proposed::Applied(Committed { position, results })
                }
                Err(_) => Proposed::Unknown,
            }
        })
    }

    fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.leader.subscribe()
    }

    fn stuck(&self) -> Option<String> {
        None
    }

    fn may_read(&self) -> bool {
        true
    }

    fn confirm(&self) -> Pending<'_, bool> {
        Box::pin(async { self.leader.borrow().is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::propose_conformance::propose_conformance;

    #[tokio::test(start_paused = true)]
    async fn memory_keeps_the_contract() {
        propose_conformance(|machine| async { Arc::new(MemoryPropose::new(Leader { term: 1, replica: 1 }, machine)) })
            .await;
    }
}
