//! A group that does everything the contract allows: delays, refuses, loses, answers *Unknown* after applying and after not
//! applying, and changes its leader, all drawn from a seed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proffer_engine::profile::command::Leader;
use tokio::sync::watch;

use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::propose::{Machine, Pending, Propose, Proposed, Reason};
use crate::propose::memory::MemoryPropose;

/// How often each fault strikes, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Refused although the leader was right.
    pub refused: u64,
    /// Not applied, and said so.
    pub not_applied: u64,
    /// Not applied, and not known.
    pub lost: u64,
    /// Applied, and not known.
    pub unheard: u64,
    /// The leader changes before the proposal.
    pub leader_changes: u64,
    /// Longest delay of a proposal, before and after it is written, in milliseconds.
    pub delay_ms_max: u64,
}

impl Faults {
    /// Every fault now and then.
    pub const SOME: Faults =
        Faults { refused: 40, not_applied: 40, lost: 40, unheard: 40, leader_changes: 40, delay_ms_max: 20 };
}

/// A [`MemoryPropose`] in bad company.
pub struct HostilePropose<C, R> {
    inner: Arc<MemoryPropose<C, R>>,
    draws: Arc<dyn Entropy>,
    faults: Mutex<Faults>,
}

impl<C, R> std::fmt::Debug for HostilePropose<C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostilePropose").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<C, R> HostilePropose<C, R> {
    /// A group under `machine` whose faults are drawn from `seed`.
    pub fn new(seed: u64, faults: Faults, machine: Arc<dyn Machine<C, R>>) -> Self {
        HostilePropose {
            inner: Arc::new(MemoryPropose::new(Leader { term: 1, replica: 1 }, machine)),
            draws: Arc::new(SeededEntropy::new(seed)),
            faults: Mutex::new(faults),
        }
    }

    /// From now on nothing strikes (nor delays).
    pub fn heal(&self) {
        *self.faults.lock().expect("no holder panics") =
            Faults { refused: 0, not_applied: 0, lost: 0, unheard: 0, leader_changes: 0, delay_ms_max: 0 };
    }

    /// The group inside.
    pub fn inner(&self) -> &MemoryPropose<C, R> {
        &self.inner
    }

    fn strikes(&self, thousandths: u64) -> bool {
        self.draws.u64() % 1_000 < thousandths
    }

    async fn delay(&self, ms_max: u64) {
        if ms_max > 0 {
            tokio::time::sleep(Duration::from_millis(self.draws.u64() % (ms_max + 1))).await;
        }
    }
}

impl<C, R> Propose<C, R> for HostilePropose<C, R>
where
    C: Clone + Send + Sync + 'static,
    R: Send + 'static,
{
    fn propose(&self, commands: Vec<C>, expected: Leader) -> Pending<'_, Proposed<R>> {
        Box::pin(async move {
            let faults = *self.faults.lock().expect("no holder panics");
            if self.strikes(faults.leader_changes) {
                let term = self.inner.leader().borrow().map_or(0, |leader| leader.term) + 1;
                // Two leaders in one term are legal, so now and then only the replica changes.
                let next = Leader { term: term - self.draws.u64() % 2, replica: 1 + self.draws.u64() % 3 };
                self.inner.set_leader(Some(next));
            }
            self.delay(faults.delay_ms_max).await;
            let current = *self.inner.leader().borrow();
            if current != Some(expected) || self.strikes(faults.refused) {
                return Proposed::Refused(Reason::NotLeader(current));
            }
            if self.strikes(faults.not_applied) {
                return Proposed::NotApplied("the disk is full".to_owned());
            }
            if self.strikes(faults.lost) {
                return Proposed::Unknown;
            }
            if self.strikes(faults.unheard) {
                // The entry goes its way alone, later than the answer.
                let inner = Arc::clone(&self.inner);
                let late = Duration::from_millis(self.draws.u64() % (faults.delay_ms_max + 1));
                tokio::spawn(async move {
                    tokio::time::sleep(late).await;
                    let _ = inner.propose(commands, expected).await;
                });
                self.delay(2 * faults.delay_ms_max).await;
                return Proposed::Unknown;
            }
            let proposed = self.inner.propose(commands, expected).await;
            self.delay(faults.delay_ms_max).await;
            proposed
        })
    }

    fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.inner.leader()
    }

    fn stuck(&self) -> Option<String> {
        None
    }

    fn may_read(&self) -> bool {
        true
    }

    fn confirm(&self) -> Pending<'_, bool> {
        Box::pin(async {
            let faults = *self.faults.lock().expect("no holder panics");
            let is_heard = !self.strikes(faults.refused);
            self.delay(faults.delay_ms_max).await;
            is_heard && self.inner.confirm().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::propose_conformance::propose_conformance;

    #[tokio::test(start_paused = true)]
    async fn hostile_keeps_the_contract() {
        for seed in 0..20 {
            propose_conformance(|machine| async move { Arc::new(HostilePropose::new(seed, Faults::SOME, machine)) })
                .await;
        }
    }
}
