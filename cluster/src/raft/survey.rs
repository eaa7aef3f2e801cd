//! What a replica left on the disk, told without starting it.

use std::collections::BTreeSet;
use std::io;

use super::replica::{ReplicaPorts, shelf};
use super::stored::decode_entry;
use super::types::{Membership, Payload};
use crate::identity::FIRST_REPLICAS;
use crate::limits::SURVEY_ENTRIES;
use crate::log::GroupId;

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
