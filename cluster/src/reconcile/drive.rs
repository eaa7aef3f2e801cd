//! The loop of one replica: while it leads, it does what the next step is.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::profile::command::{Leader, Position};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::step::{CaughtUp, Doing, next_step};
use crate::group::Group;
use crate::limits::{
    CATCH_UP_MS_MAX, HAND_OVER_RETRY_MS, HAND_OVER_TRIES, RECONCILE_IDLE_MS, RECONCILE_MS, REPORT_AGAIN_MS,
};
use crate::meta::roster::{Configured, Roster};
use crate::raft::{HandOver, Replica, Step, StepError};

/// This start of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnStart {
    pub(crate) disk: u128,
    pub(crate) boots: u64,
}

/// What the loop needs of its node.
#[derive(Clone)]
pub(crate) struct Around {
    /// Nothing is done on the word of a roster that does not know of this start: it may be one that the node was past before.
    pub(crate) own: OwnStart,
    /// The roster as it is applied here.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// Takes what was reached to the meta group's leader. What is lost is told again.
    pub(crate) report: Arc<dyn Fn(Configured) + Send + Sync>,
    /// Whether a node may lead, as far as is known here.
    pub(crate) is_fit: Arc<dyn Fn(u64) -> bool + Send + Sync>,
    /// The replica began to hand over and was left hanging: it has to be started anew.
    pub(crate) is_stuck: Arc<dyn Fn(Group) + Send + Sync>,
    /// How many groups of this node bring new replicas up to date at a time.
    pub(crate) bulk: Arc<Semaphore>,
}

/// Brings a group to what it should be while this replica leads it. Ends when the replica does, and when it is stuck.
pub(crate) async fn run(replica: Arc<Replica>, group: Group, mut around: Around) {
    let mut leads = replica.leads();
    let weak = Arc::downgrade(&replica);
    drop(replica);
    let mut drive = Drive { group, caught_up: CaughtUp::default(), filling: None, reported: None };
    loop {
        let Some(replica) = weak.upgrade().filter(|replica| !replica.is_over()) else { return };
        let leader = *leads.borrow_and_update();
        let roster = Arc::clone(&around.roster.borrow_and_update());
        let pause = match leader {
            Some(leader) if roster.knows_start(around.own.disk, around.own.boots) => {
                match drive.turn(&replica, leader, &roster, &around).await {
                    Ok(pause) => pause,
                    Err(Stuck) => {
                        (around.is_stuck)(group);
                        return;
                    }
                }
            }
            Some(_) | None => {
                drive.filling = None;
                RECONCILE_IDLE_MS
            }
        };
        drop(replica);
        tokio::select! {
            biased;
            changed = leads.changed() => if changed.is_err() { return },
            changed = around.roster.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_millis(pause)) => {}
        }
    }
}

struct Stuck;

/// What one loop remembers from turn to turn.
struct Drive {
    group: Group,
    caught_up: CaughtUp,
    /// New replicas are being sent what there is, since then.
    filling: Option<(OwnedSemaphorePermit, Instant)>,
    /// What was told last, and when.
    reported: Option<(Position, u64, Instant)>,
}

impl Drive {
    /// One look and what comes of it; after how many milliseconds to look again.
    async fn turn(
        &mut self,
        replica: &Replica,
        leader: Leader,
        roster: &Roster,
        around: &Around,
    ) -> Result<u64, Stuck> {
        let Some(members) = replica.members() else { return Ok(RECONCILE_MS) };
        self.caught_up.look(&members);
        let patience = Duration::from_millis(CATCH_UP_MS_MAX);
        let doing = next_step(leader.replica, self.group, &members, roster, &self.caught_up, &*around.is_fit);
        if doing != Doing::Wait || self.filling.as_ref().is_some_and(|(_, since)| since.elapsed() > patience) {
            // They have it, or somebody else shall have a turn.
            self.filling = None;
        }
        match doing {
            Doing::Nothing => Ok(RECONCILE_IDLE_MS),
            Doing::Wait => Ok(RECONCILE_MS),
            Doing::Step(step) => {
                // Without its replica of the meta group a node does not hear of any other: that one waits for nobody.
                if let Step::AddLearners(_) = step
                    && self.group != Group::Meta
                {
                    let Ok(permit) = Arc::clone(&around.bulk).try_acquire_owned() else { return Ok(RECONCILE_MS) };
                    self.filling = Some((permit, Instant::now()));
                }
                tracing::info!(group = %self.group, ?step, "the group's members change");
                match replica.change_members(step, leader, members.at).await {
                    Ok(()) => Ok(0),
                    Err(error @ (StepError::Overtaken(_) | StepError::Refused(_) | StepError::Unknown)) => {
                        tracing::debug!(group = %self.group, %error, "the group's members were not changed");
                        Ok(RECONCILE_MS)
                    }
                }
            }
            Doing::HandOver(to) => hand_over(replica, self.group, to).await,
            Doing::Report(report) => {
                let is_told = self.reported.is_some_and(|(at, targets, when)| {
                    (at, targets) == (report.at, report.targets)
                        && when.elapsed() < Duration::from_millis(REPORT_AGAIN_MS)
                });
                if !is_told {
                    self.reported = Some((report.at, report.targets, Instant::now()));
                    (around.report)(report);
                }
                Ok(RECONCILE_MS)
            }
        }
    }
}

/// Tries for a while: under load the other seldom has everything at the very moment.
async fn hand_over(replica: &Replica, group: Group, to: u64) -> Result<u64, Stuck> {
    for _ in 0..HAND_OVER_TRIES {
        match replica.hand_over(to).await {
            Ok(()) => {
                tracing::info!(%group, to, "another replica leads");
                return Ok(RECONCILE_MS);
            }
            Err(HandOver::NotLeading) => return Ok(RECONCILE_MS),
            Err(HandOver::Behind) => tokio::time::sleep(Duration::from_millis(HAND_OVER_RETRY_MS)).await,
            Err(HandOver::Stuck) => {
                tracing::warn!(%group, to, "a handing over came to nothing");
                return Err(Stuck);
            }
        }
    }
    Ok(RECONCILE_IDLE_MS)
}
