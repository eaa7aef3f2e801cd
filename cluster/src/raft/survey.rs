//! What a replica left on the disk, told without starting it.

use std::collections::BTreeSet;
use std::io;

use super::replica::{ReplicaPorts, shelf};
use super::stored::{Head, decode_entry};
use super::types::{Membership, Payload, position_of};
use crate::identity::{FIRST_REPLICAS, Reach};
use crate::limits::SURVEY_ENTRIES;
use crate::log::GroupId;

/// How far a replica came, as its part of the log says. Reads one entry.
///
/// # Errors
/// If what is there cannot be read.
pub(crate) async fn reach(id: u64, ports: &ReplicaPorts) -> io::Result<Reach> {
    let (log, group) = (&ports.log, GroupId(id));
    let head = log.state(group).map_or(Ok(Head::default()), |bytes| Head::decode(&bytes)).map_err(io::Error::other)?;
    let bounds = log.bounds(group).and_then(|bounds| Some((bounds.first, bounds.next?)));
    let last = match bounds.filter(|(first, next)| first < next) {
        Some((_, next)) => {
            let read = log.read(group, next - 1, next).await.map_err(io::Error::other)?;
            let entry = read.first().ok_or_else(|| io::Error::other("the last entry is not there"))?;
            Some(decode_entry(entry.index, &entry.payload).map_err(io::Error::other)?.log_id)
        }
        None => head.purged,
    };
    let voted = head.vote.map_or(0, |vote| vote.leader_id.term);
    Ok(Reach { term: voted.max(last.map_or(0, |last| last.leader_id.term)), last: last.as_ref().map(position_of) })
}

/// Whether the group can do nothing without this replica, because it is the only voter (of one of two configurations, while the group
/// changes). Then what lies here is all there is. O(log since the last configuration).
///
/// # Errors
/// If what is there cannot be read.
pub(crate) async fn is_indispensable(id: u64, ports: &ReplicaPorts) -> io::Result<bool> {
    let bounds = ports.log.bounds(GroupId(id)).and_then(|bounds| Some((bounds.first, bounds.next?)));
    let (first, next) = bounds.unwrap_or((0, 0));
    if let Some(members) = newest_members(id, ports, first, next).await? {
        return Ok(is_only_voter(id, &members));
    }
    match shelf(id, ports).load().await? {
        Some((snapshot, _)) => Ok(is_only_voter(id, snapshot.last_membership.membership())),
        // Of a group that has not begun only the founder's replica can begin it.
        None => Ok(next == 0 && id <= FIRST_REPLICAS),
    }
}

fn is_only_voter(id: u64, members: &Membership) -> bool {
    members.get_joint_config().iter().any(|voters| *voters == BTreeSet::from([id]))
}

/// The last configuration among these entries.
async fn newest_members(id: u64, ports: &ReplicaPorts, first: u64, next: u64) -> io::Result<Option<Membership>> {
    let mut until = next;
    while until > first {
        let from = until.saturating_sub(SURVEY_ENTRIES).max(first);
        let (mut at, mut newest) = (from, None);
        while at < until {
            for entry in ports.log.read(GroupId(id), at, until).await.map_err(io::Error::other)? {
                at = entry.index + 1;
                if let Payload::Membership(members) =
                    decode_entry(entry.index, &entry.payload).map_err(io::Error::other)?.payload
                {
                    newest = Some(members);
                }
            }
        }
        if newest.is_some() {
            return Ok(newest);
        }
        until = from;
    }
    Ok(None)
}
