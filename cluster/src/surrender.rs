//! A node that may not decide, or whose clock is wrong, hands over what it leads to nodes that do better (docs/adr/0013).

use std::sync::Arc;
use std::time::Duration;

use crate::actors::root::Supervisor;
use crate::directory::Directory;
use crate::groups::{Group, RaftGroups};
use crate::lease::Tenure;
use crate::limits::{SURRENDER_AFTER_MS, SURRENDER_LOOK_MS};
use crate::raft::{HandOver, Replica};

/// See the module.
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
                    self.hand_over(group).await;
                }
            }
        }
    }

    /// To a voter that has everything, on a node that says it takes leaderships; if there is none, nothing is gained.
    async fn hand_over(&self, group: Group) {
        let Some(replica) = self.groups.replica(group) else { return };
        let Some(heir) = self.heir(&replica) else { return };
        tracing::warn!(%group, heir, "this node hands over what it leads: it has no catalogue lease, or its clock is wrong");
        match replica.hand_over(heir).await {
            Ok(()) | Err(HandOver::NotLeading | HandOver::Behind) => {}
            Err(HandOver::Stuck) => self.supervisor.restart(group),
        }
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
