//! The next step of a group's leader towards the members that the roster means the group to have: a pure function.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::CAUGHT_UP_ENTRIES;
use crate::meta::roster::{GroupRecord, Members, Roster};
use crate::raft;
use crate::raft::{Seat, Step};

/// What the leader of a group does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Everything is as it should be.
    Nothing,
    /// Something has to come about by itself first.
    Wait,
    /// Change the members. `catching_up`: only if it is still right a moment later.
    Change { step: Step, twice: bool },
    /// Hand the leadership to this replica.
    HandOver(u64),
    /// Tell the meta group who the members are.
    Report(Members),
}

/// What to do next in a group that replica `own` leads. `can_lead`: whether a node can be handed a leadership now.
pub(crate) fn next_step(
    own: u64,
    members: &raft::Members,
    record: &GroupRecord,
    roster: &Roster,
    can_lead: impl Fn(u64) -> bool,
) -> Doing {
    let meant = record.meant();
    if !members.is_committed || meant.voters.is_empty() {
        return Doing::Wait;
    }
    let is_near = |replica: u64| members.behind.get(&replica).is_some_and(|behind| *behind <= CAUGHT_UP_ENTRIES);
    let missing: BTreeMap<u64, Seat> = meant
        .all()
        .filter(|replica| !members.seats.contains_key(replica))
        .filter_map(|replica| Some((replica, Seat { node: roster.node_of(replica)? })))
        .collect();
    if !missing.is_empty() {
        return Doing::Change { step: Step::AddLearners(missing), twice: false };
    }
    let stays = meant.voters.contains(&own);
    let heirs = || meant.voters.intersection(&members.voters).copied().filter(|replica| *replica != own);
    if !stays
        && !members.is_joint
        && let Some(heir) = heirs().filter(|heir| members.behind.get(heir) == Some(&0)).min()
    {
        return Doing::HandOver(heir);
    }
    // A leader that is to go votes until another has taken its place.
    let mut voters: BTreeSet<u64> = meant.voters.clone();
    if !stays {
        voters.insert(own);
    }
    if members.is_joint || members.voters != voters {
        let mut newcomers = voters.difference(&members.voters);
        if !newcomers.all(|replica| is_near(*replica)) {
            return Doing::Wait;
        }
        let twice = !voters.is_subset(&members.voters);
        return Doing::Change { step: Step::SetVoters(voters), twice };
    }
    if !stays {
        return Doing::Wait;
    }
    let gone: BTreeSet<u64> = members.seats.keys().copied().filter(|replica| !meant.contains(*replica)).collect();
    if !gone.is_empty() {
        return Doing::Change { step: Step::Remove(gone), twice: false };
    }
    if record.target.is_some() || record.at != members.at {
        let learners = members.seats.keys().copied().filter(|replica| !members.voters.contains(replica)).collect();
        return Doing::Report(Members { voters: members.voters.clone(), learners });
    }
    let wanted = record.leader.filter(|node| can_lead(*node));
    let heir = heirs().find(|heir| roster.node_of(*heir).is_some() && roster.node_of(*heir) == wanted);
    match heir {
        Some(heir) if members.behind.get(&heir) == Some(&0) => Doing::HandOver(heir),
        Some(_) => Doing::Wait,
        None => Doing::Nothing,
    }
}
