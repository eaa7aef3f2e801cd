//! What a replica leaves to the one that begins its group anew, because the others are lost for good (docs/adr/0012): all of its log
//! counts, known to be committed or not, for an acknowledged entry may be among what it does not know of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bincode::{Decode, Encode};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_adv::LeaderId;
use proffer_engine::profile::command::Position;

use super::replica::{Found, Replica, ReplicaPorts, shelf};
use super::stored::{Head, decode_entry};
use super::types::{
    Commands, Entry, Kind, LogId, Membership, Payload, Seat, SnapshotMeta, StoredMembership, Vote, position_of,
};
use crate::log::GroupId;
use crate::ports::offload::{self, Lane};
use crate::ports::propose::Pieces;

/// What there is of a group on a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Remains {
    /// The replica that runs there.
    pub(crate) replica: u64,
    /// Where its log ends.
    pub(crate) last: Option<Position>,
    /// The highest term that it has voted in.
    pub(crate) term: u64,
    /// The voters that it knows of: two sets while they change.
    pub(crate) voters: Vec<BTreeSet<u64>>,
    /// It leads.
    pub(crate) leads: bool,
}

/// All that a replica left, which runs no more.
pub(crate) struct Legacy {
    pieces: Option<Vec<Vec<u8>>>,
    ports: ReplicaPorts,
    group: GroupId,
    kind: Kind,
    term: u64,
    /// The last entry read, or the one that the snapshot ends with.
    last: Option<LogId>,
    /// Entries that are read and not handed out.
    ready: VecDeque<Entry>,
    next: u64,
    end: u64,
}

impl Legacy {
    /// Reads what a replica left.
    ///
    /// # Errors
    /// If it cannot be read, or a part of it is missing.
    pub(crate) async fn of(replica: u64, kind: Kind, ports: &ReplicaPorts) -> Result<Legacy, String> {
        let (group, log) = (GroupId(replica), &ports.log);
        let Found { snapshot, pieces, .. } = Replica::find(replica, ports).await.map_err(|error| error.to_string())?;
        let head = log.state(group).map_or(Ok(Head::default()), |bytes| Head::decode(&bytes));
        let head = head.map_err(|error| error.to_string())?;
        let last = snapshot.as_ref().and_then(|meta| meta.last_log_id);
        if head.purged > last {
            return Err("its newest sound snapshot ends before its log begins".to_owned());
        }
        let (first, end) = log.bounds(group).and_then(|bounds| Some((bounds.first, bounds.next?))).unwrap_or((0, 0));
        let next = last.map_or(first, |last| last.index + 1);
        let term = head.vote.map_or(0, |vote| vote.leader_id.term);
        let mut legacy =
            Legacy { pieces, ports: ports.clone(), group, kind, term, last, ready: VecDeque::new(), next, end };
        if let Some(last) = last.filter(|last| (first..end).contains(&last.index)) {
            // A snapshot that was sent overrules entries before and after it, if these are of another log.
            let own = log.read(group, last.index, last.index + 1).await.map_err(|error| error.to_string())?;
            let own = own.first().map(|own| decode_entry(own.index, &own.payload)).transpose();
            if own.map_err(|error| error.to_string())?.is_some_and(|own| own.log_id() != last) {
                legacy.end = legacy.next;
            }
        }
        Ok(legacy)
    }

    /// The pieces of the state that the entries come after; `None`: of one that nothing has happened to.
    pub(crate) fn pieces(&mut self) -> Option<Vec<Vec<u8>>> {
        self.pieces.take()
    }

    /// The commands of the next entry that has some.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) async fn next_commands(&mut self) -> Result<Option<(Position, Commands)>, String> {
        loop {
            if self.ready.is_empty() && self.next < self.end {
                let read = self.ports.log.read(self.group, self.next, self.end).await;
                for entry in read.map_err(|error| error.to_string())? {
                    let decoded = decode_entry(entry.index, &entry.payload).map_err(|error| error.to_string())?;
                    self.ready.push_back(decoded);
                    self.next = entry.index + 1;
                }
            }
            let Some(entry) = self.ready.pop_front() else { return Ok(None) };
            let log_id = entry.log_id();
            self.last = Some(log_id);
            match entry.payload {
                Payload::Blank | Payload::Membership(_) => {}
                Payload::Normal(proposal) => {
                    let commands = proposal.commands(self.kind).map_err(|error| error.to_string())?;
                    return Ok(Some((position_of(&log_id), commands)));
                }
            }
        }
    }

    /// Where the log ends, once all is read.
    pub(crate) fn last(&self) -> Option<Position> {
        self.last.as_ref().map(position_of)
    }

    /// Keeps `state`, which all entries were applied to, as what `heir` begins with, the only voter of its group: its log goes on where this
    /// one ends, in terms higher than `term_floor`. Durable when this returns.
    ///
    /// # Errors
    /// If there is nothing to hand on, or the disk failed: it can be tried again.
    pub(crate) async fn hand_on(
        self,
        heir: u64,
        seat: Seat,
        term_floor: u64,
        state: Pieces,
        ports: &ReplicaPorts,
    ) -> Result<(), String> {
        let last = self.last.ok_or("its log is empty: there is nothing to begin anew with")?;
        let group = GroupId(heir);
        let members = Membership::new(vec![[heir].into()], BTreeMap::from([(heir, seat)]));
        let members = members.map_err(|error| error.to_string())?;
        let meta =
            SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), members) };
        let snapshots = ports.snapshots.clone();
        let removed = offload::call(&*ports.offload, Lane::Bulk, move || snapshots.remove_all(group)).await;
        removed.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())?;
        shelf(heir, ports).write(&meta, state).await.map_err(|error| error.to_string())?;
        // From here on the log says that all is there: see `is_handed_on`.
        let term = term_floor.max(self.term).max(last.leader_id.term);
        let vote = Vote { leader_id: LeaderId { term, node_id: heir }, committed: false };
        let head = Head { vote: Some(vote), purged: Some(last) };
        ports.log.save_state(group, head.encode()).await.map_err(|error| error.to_string())?;
        ports.log.purge(group, last.index).await.map_err(|error| error.to_string())
    }

    /// Whether a replica's beginning was handed on to it whole.
    ///
    /// # Errors
    /// If the disk failed.
    pub(crate) async fn is_handed_on(heir: u64, ports: &ReplicaPorts) -> Result<bool, String> {
        let group = GroupId(heir);
        let Some(next) = ports.log.bounds(group).and_then(|bounds| bounds.next) else { return Ok(false) };
        let snapshots = ports.snapshots.clone();
        let kept = offload::call(&*ports.offload, Lane::Bulk, move || snapshots.kept(group)).await;
        let kept = kept.map_err(|lost| lost.to_string())?.map_err(|error| error.to_string())?;
        Ok(kept.iter().any(|index| index + 1 == next))
    }
}
