//! A node that may not decide, lacks what others have of the catalogue, or whose clock is wrong, hands over what it leads to nodes that do better (docs/adr/0013); and so does
//! one that is about to end.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::keys::Revision;
use tokio::time::Instant;

use crate::actors::root::Supervisor;
use crate::directory::Directory;
use crate::groups::{Group, RaftGroups};
use crate::lease::Tenure;
use crate::limits::{
    FENCE_LACKING_MS, HAND_OVER_RETRY_MS, REVISION_LACKING_MS, SURRENDER_AFTER_MS, SURRENDER_LOOK_MS, SURRENDER_MS_MAX,
};
use crate::raft::{HandOver, Replica};

/// What was named to this node and has not come into force here, since then: it may be cut off from the catalogue's leader, and have its
/// lease through another.
#[derive(Default)]
struct Lacking(Option<(Revision, Instant)>);

impl Lacking {
    /// What has been lacking for so long.
    fn look(&mut self, named: Revision, in_force: Revision, patience: Duration) -> Option<Revision> {
        let known = self.0.take().filter(|(lacked, _)| *lacked > in_force);
        self.0 = known.or_else(|| (named > in_force).then(|| (named, Instant::now())));
        self.0.filter(|(_, since)| since.elapsed() >= patience).map(|(lacked, _)| lacked)
    }
}

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
        let (mut fence, mut newest) = (Lacking::default(), Lacking::default());
        loop {
            tokio::time::sleep(Duration::from_millis(SURRENDER_LOOK_MS)).await;
            let lost = self.tenure.lost_for();
            let (fenced, named, in_force) = self.tenure.named();
            let lacks = [(&mut fence, fenced, FENCE_LACKING_MS), (&mut newest, named, REVISION_LACKING_MS)].map(
                |(lacking, named, ms)| {
                    let lacked = lacking.look(named, in_force, Duration::from_millis(ms));
                    // What nobody else has, nobody else is better for.
                    lacked.is_some_and(|revision| self.directory.is_in_force_elsewhere(revision))
                },
            );
            let is_unleased = lost.is_some_and(|lost| lost >= Duration::from_millis(SURRENDER_AFTER_MS));
            let is_unfit = is_unleased || lacks.contains(&true);
            self.directory.is_unfit(is_unfit);
            for group in self.groups.led().into_keys() {
                let is_wrong = group == Group::Meta && self.tenure.clock().off_by().is_some();
                if is_unfit || is_wrong {
                    tracing::warn!(%group, is_unfit, is_wrong, "this node has no catalogue lease, or too old a catalogue, or its clock is wrong");
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
            tokio::time::sleep(Duration::from_millis(HAND_OVER_RETRY_MS)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_revision_is_lacking_from_when_it_was_named_and_not_from_the_next_one() {
        let ms = Duration::from_millis;
        let mut lacking = Lacking::default();
        assert_eq!(lacking.look(Revision(3), Revision(3), ms(500)), None);
        assert_eq!(lacking.look(Revision(4), Revision(3), ms(500)), None);
        tokio::time::advance(ms(300)).await;
        assert_eq!(lacking.look(Revision(5), Revision(3), ms(500)), None);
        tokio::time::advance(ms(200)).await;
        assert_eq!(lacking.look(Revision(6), Revision(3), ms(500)), Some(Revision(4)));
        assert_eq!(lacking.look(Revision(6), Revision(4), ms(500)), None, "it goes on, if always a little behind");
        tokio::time::advance(ms(499)).await;
        assert_eq!(lacking.look(Revision(6), Revision(6), ms(500)), None);
    }
}
