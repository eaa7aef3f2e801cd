//! One step of a group's membership at a time, guarded by the configuration it was decided on.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, Precondition};
use proffer_engine::profile::command::{Leader, Position};

use super::replica::Replica;
use super::stored::log_id_of;
use super::types::{LogId, Seat, leader_id, position_of};

/// A group's configuration as its leader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Where it stands in the log.
    pub at: Option<Position>,
    /// Whether it is committed.
    pub is_committed: bool,
    /// Whether two sets of voters are in force, because it is changing.
    pub is_joint: bool,
    /// All voters.
    pub voters: BTreeSet<u64>,
    /// Those that vote once it has changed.
    pub next_voters: BTreeSet<u64>,
    /// All members, with their nodes.
    pub seats: BTreeMap<u64, Seat>,
    /// How many entries each member lacks that has answered within the longest election timeout, as far as this leader knows.
    pub behind: BTreeMap<u64, u64>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Members that receive everything and do not vote.
    AddLearners(BTreeMap<u64, Seat>),
    /// These are the voters, all of them members already; who voted before becomes a learner. Both configurations are gone through.
    SetVoters(BTreeSet<u64>),
    /// Learners are members no more.
    Remove(BTreeSet<u64>),
}

/// Why a step was not made, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StepError {
    /// Nothing was changed: another leads, or the configuration is not the one the step was decided on.
    #[error("the group has changed meanwhile: {0}")]
    Overtaken(String),
    /// The group does not allow it.
    #[error("{0}")]
    Refused(String),
    /// It may be done, or done later, or never.
    #[error("it is not known whether the members were changed")]
    Unknown,
}

impl Replica {
    /// The configuration in force, if this replica leads.
    pub(crate) fn members(&self) -> Option<Members> {
        let raft = self.raft()?;
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let (replication, answered) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
        let last = metrics.last_log_index.unwrap_or(0);
        let within = self.ports.timing.longest_election();
        let is_there = |replica: &u64| {
            let sent = answered.get(replica).and_then(Option::as_ref);
            *replica == self.id || sent.is_some_and(|sent| sent.elapsed() < within)
        };
        let lacks = |matching: &Option<LogId>| matching.map_or(last + 1, |id| last.saturating_sub(id.index));
        Some(Members {
            at: stored.log_id().as_ref().map(position_of),
            is_committed: metrics.committed_membership_config.log_id() == stored.log_id(),
            is_joint: stored.get_joint_config().len() > 1,
            voters: stored.voter_ids().collect(),
            next_voters: stored.get_joint_config().last().cloned().unwrap_or_default(),
            seats: stored.nodes().map(|(replica, seat)| (*replica, *seat)).collect(),
            behind: replication
                .iter()
                .filter(|(replica, _)| is_there(replica))
                .map(|(replica, matching)| (*replica, lacks(matching)))
                .collect(),
        })
    }

    /// Makes one step, if `leader` leads and the configuration is the one at `expected` still. Returns when it is committed.
    ///
    /// # Errors
    /// See [`StepError`].
    pub(crate) async fn change_members(
        &self,
        step: Step,
        leader: Leader,
        expected: Option<Position>,
    ) -> Result<(), StepError> {
        let raft = self.raft().ok_or_else(|| StepError::Overtaken("the replica is starting".to_owned()))?;
        let (change, retain) = match step {
            Step::AddLearners(seats) => (ChangeMembers::AddNodes(seats), true),
            Step::SetVoters(voters) => (ChangeMembers::ReplaceAllVoters(voters), true),
            Step::Remove(learners) => (ChangeMembers::RemoveNodes(learners), true),
        };
        let guards = [
            Precondition::CommittedLeaderId { committed_leader_id: leader_id(leader) },
            Precondition::LastMembershipLogId { last_membership_log_id: expected.map(log_id_of) },
        ];
        match raft.change_membership_if(change, retain, guards).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::PreconditionFailed(error))) => {
                Err(StepError::Overtaken(error.to_string()))
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(error))) => {
                Err(StepError::Overtaken(error.to_string()))
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                Err(StepError::Refused(error.to_string()))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_)) => {
                Err(StepError::Unknown)
            }
        }
    }
}
