//! Handing leadership over. Openraft stays silent once it has begun, and takes the lease from everybody: so the replica withdraws
//! what it says of itself first, and begins only when the other has everything
//! that was proposed before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::replica::Replica;
use super::types::Types;
use crate::limits::HAND_OVER_ENTRIES_MAX;

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandOver {
    /// There is nothing to hand over.
    #[error("this replica does not lead")]
    NotLeading,
    /// The other is no voter, or has not everything yet.
    #[error("the other replica has not everything yet")]
    Behind,
    /// It was begun and did not end: the replica must be started anew.
    #[error("leadership was neither taken nor kept")]
    Stuck,
}

/// How many entries a member lacks, as far as this leader knows.
fn lacks(metrics: &RaftMetrics<Types>, member: u64) -> Option<u64> {
    let matching = metrics.replication.as_ref()?.get(&member)?.as_ref()?;
    Some(metrics.last_log_index.unwrap_or(0).saturating_sub(matching.index))
}

impl Replica {
    /// Hands the leadership over to another voter, if this replica leads and the other has everything. Returns when another term has
    /// begun, or when it is clear that none will: then this replica must be started anew, since openraft stays silent.
    ///
    /// # Errors
    /// Why it was not begun; [`HandOver::Stuck`] if the replica must be started anew.
    pub(crate) async fn hand_over(&self, to: u64) -> Result<(), HandOver> {
        let raft = self.raft().ok_or(HandOver::NotLeading)?;
        let mut metrics = raft.metrics();
        // One that has not answered lately is in nobody's way, and takes nothing over.
        let members = self.members().ok_or(HandOver::NotLeading)?;
        let is_near = members.behind.get(&to).is_some_and(|behind| *behind <= HAND_OVER_ENTRIES_MAX);
        if to == self.id || !members.voters.contains(&to) || !is_near {
            return Err(HandOver::Behind);
        }
        let term = metrics.borrow_watched().current_term;
        if self.is_leaving.swap(true, Ordering::SeqCst) {
            // Somebody else hands it over already.
            return Err(HandOver::NotLeading);
        }
        self.leader.send_replace(None);
        // Nothing is proposed any more: what is under way still gets to the other, unless that has fallen silent.
        let until = Instant::now() + Duration::from_millis(self.ports.timing.election_min_ms());
        while lacks(&metrics.borrow_watched(), to) != Some(0) {
            if !matches!(tokio::time::timeout_at(until, metrics.changed()).await, Ok(Ok(()))) {
                // Nothing was begun: this replica leads on.
                self.is_leaving.store(false, Ordering::SeqCst);
                return Err(HandOver::Behind);
            }
        }
        raft.trigger().transfer_leader(to).await.map_err(|_| HandOver::Stuck)?;
        let until = Instant::now() + Duration::from_millis(2 * self.ports.timing.election_max_ms());
        while metrics.borrow_watched().current_term == term {
            match tokio::time::timeout_at(until, metrics.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(HandOver::Stuck),
            }
        }
        self.is_leaving.store(false, Ordering::SeqCst);
        Ok(())
    }
}
