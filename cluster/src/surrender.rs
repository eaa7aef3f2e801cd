//! A node that may not decide, or whose clock is wrong, hands over what it leads to nodes that do better (docs/adr/0013); and so does
//! one that is about to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::actors::root::Supervisor;
use crate::directory::Directory;
use crate::groups::{Group, RaftGroups};
use crate::lease::Tenure;
use crate::limits::{HAND_OVER_PAUSE_MS, SURRENDER_AFTER_MS, SURRENDER_LOOK_MS, SURRENDER_MS_MAX};
use crate::raft::{HandOver, Replica};

/// See the module.
#[derive(Clone)]
pub(crate) struct Surrender {
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) supervisor: Supervisor,
}

impl Surrender {
    /// Looks again and again: stop it by dropping its task.
    pub(crate) async fn run(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(SURRENDER_LOOK_MS)).await;
            let lost = self.tenure.lost_for();
            let is_unfit = lost.is_some_and(|lost| lost >= Duration::from_millis(SURRENDER_AFTER_MS));
            self.directory.is_unfit(is_unfit);
            for group in self.groups.led().into_keys() {
                let is_wrong = group == Group::Meta && self.tenure.clock().off_by().is_some();
                if is_unfit || is_wrong {
                    tracing::warn!(%group, is_unfit, is_wrong, "this node has no catalogue lease, or its clock is wrong");
                    self.hand_over(group).await;
                }
            }
        }
    }

    /// Hands over everything, as far as somebody else can lead it, for a while: this node is about to end.
    pub(crate) async fn everything(&self) {
        self.directory.take_leads(false);
        let until = Instant::now() + Duration::from_millis(SURRENDER_MS_MAX);
        while Instant::now() < until {
            let mut is_left = false;
            for group in self.groups.led().into_keys() {
                is_left |= self.hand_over(group).await;
            }
            if !is_left {
                return;
            }
            tokio::time::sleep(Duration::from_millis(HAND_OVER_PAUSE_MS)).await;
        }
    }

    /// To a voter on a node that says it takes leaderships. `false`: there is none, and nothing would be gained.
    async fn hand_over(&self, group: Group) -> bool {
        let Some(replica) = self.groups.replica(group) else { return false };
        let Some(heir) = self.heir(&replica) else { return false };
        tracing::info!(%group, heir, "this node hands over what it leads");
        match replica.hand_over(heir).await {
            Ok(()) | Err(HandOver::NotLeading | HandOver::Behind) => {}
            Err(HandOver::Stuck) => self.supervisor.restart(group),
        }
        true
    }

    fn heir(&self, replica: &Replica) -> Option<u64> {
        let members = replica.members()?;
        let takes = |voter: &u64| {
            let node = members.seats.get(voter).map(|seat| seat.node);
            *voter != replica.id() && node.is_some_and(|node| self.directory.can_lead(node))
        };
        let candidates = members.voters.iter().copied().filter(takes);
        candidates.min_by_key(|voter| members.behind.get(voter).copied().unwrap_or(u64::MAX))
    }
}
