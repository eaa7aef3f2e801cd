//! A group whose log is a list in memory: for tests, and the inside of [`hostile`](super::hostile).

use std::sync::{Arc, Mutex};

use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::watch;

use crate::ports::propose::{Machine, Pending, Propose, Proposed};
use crate::propose::handover::Handover;

/// Entries of a [`MemoryPropose`] with their positions.
pub type Entries<C> = Vec<(Position, Vec<C>)>;

/// One replica, one log in memory, nothing ever lost but by ending the process.
pub struct MemoryPropose<C, R> {
    handover: Handover<C, R>,
    entries: Mutex<Entries<C>>,
}

impl<C, R> std::fmt::Debug for MemoryPropose<C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryPropose").field("leader", &*self.handover.leader().borrow()).finish_non_exhaustive()
    }
}

impl<C, R> MemoryPropose<C, R> {
    /// An empty log led by `leader`, under `machine`.
    pub fn new(leader: Leader, machine: Arc<dyn Machine<C, R>>) -> Self {
        Self::continuing(leader, machine, 1)
    }

    /// A log whose next entry is `next_index`.
    pub fn continuing(leader: Leader, machine: Arc<dyn Machine<C, R>>, next_index: u64) -> Self {
        MemoryPropose { handover: Handover::new(leader, machine, next_index), entries: Mutex::new(Vec::new()) }
    }

    /// Makes another lead.
    pub fn set_leader(&self, leader: Option<Leader>) {
        self.handover.set_leader(leader);
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
            let turn = match self.handover.begin(expected).await {
                Ok(turn) => turn,
                Err(refused) => return refused,
            };
            self.entries.lock().expect("no holder panics").push((turn.position(), commands.clone()));
            turn.apply(commands).await
        })
    }

    fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.handover.leader()
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
