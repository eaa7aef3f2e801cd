//! Where each group stands and where its entries lie: rebuilt from the segments at every start.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bincode::{Decode, Encode};
use proffer_engine::codec::{self, DecodeError};

use super::{Corruption, GroupId, LogError};

/// The indices that a group holds: `first..next`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The lowest index not purged.
    pub first: u64,
    /// The index that the next entry must have; `None` while the group has had none: it may begin anywhere.
    pub next: Option<u64>,
}

impl Bounds {
    /// Takes `count` entries from `index` on.
    pub(super) fn append(&mut self, group: GroupId, index: u64, count: u64) -> Result<(), LogError> {
        match self.next {
            Some(expected) if expected != index => return Err(LogError::OutOfOrder { group, expected, got: index }),
            Some(_) => {}
            None => self.first = index,
        }
        self.next = Some(index.checked_add(count).ok_or(LogError::OutOfOrder { group, expected: 0, got: index })?);
        Ok(())
    }

    /// Drops the entries from `from` on.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) -> Result<(), LogError> {
        if from < self.first {
            return Err(LogError::OutOfOrder { group, expected: self.first, got: from });
        }
        self.next = self.next.map(|next| next.min(from));
        Ok(())
    }

    /// Drops the entries below `first`; beyond the last one the group goes on from there.
    pub(super) fn purge(&mut self, first: u64) {
        if first > self.first || self.next.is_none() {
            self.first = first;
            self.next = Some(self.next.map_or(first, |next| next.max(first)));
        }
    }
}

/// Where an entry's frame lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) frame_bytes: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    // The group's frame bytes from its first entry through this one: their differences are sizes of stretches.
    through: u64,
}

/// One group.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) bounds: Bounds,
    // The entries up to `next`, which of a sound log are those from `first` on.
    entries: VecDeque<Entry>,
    through: u64,
    pub(super) state: Option<Vec<u8>>,
    // Entries whose bytes are rotten; purging, truncating or destroying makes up for it.
    rotten: BTreeMap<u64, Corruption>,
    state_rotten: Option<Corruption>,
    checkpoint_rotten: Option<Corruption>,
}

impl Group {
    fn live_from(&self) -> u64 {
        self.bounds.next.unwrap_or(0) - self.entries.len() as u64
    }

    fn push(&mut self, place: Place) {
        self.through += u64::from(place.frame_bytes);
        self.entries.push_back(Entry { place, through: self.through });
    }

    fn settle(&mut self) {
        let next = self.bounds.next.unwrap_or(0);
        while !self.entries.is_empty() && self.live_from() < self.bounds.first {
            self.entries.pop_front();
        }
        self.rotten.retain(|index, _| (self.bounds.first..next).contains(index));
    }

    /// The place of an entry that the group holds.
    pub(super) fn place(&self, index: u64) -> Option<Place> {
        let position = usize::try_from(index.checked_sub(self.live_from())?).ok()?;
        self.entries.get(position).map(|entry| entry.place)
    }

    /// Frame bytes of the entries after `index`; of all for `None`.
    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let start =
            self.entries.front().map_or(self.through, |entry| entry.through - u64::from(entry.place.frame_bytes));
        let Some(index) = index.filter(|&index| index >= self.live_from()) else { return self.through - start };
        let position = usize::try_from(index - self.live_from()).unwrap_or(usize::MAX);
        self.entries.get(position).map_or(0, |entry| self.through - entry.through)
    }

    /// The oldest segment that holds an entry of the group.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.place.segment)
    }

    pub(super) fn is_corrupt(&self) -> bool {
        let rotten = !self.rotten.is_empty() || self.state_rotten.is_some() || self.checkpoint_rotten.is_some();
        rotten || self.misses_entries()
    }

    fn misses_entries(&self) -> bool {
        self.bounds.next.is_some() && self.live_from() > self.bounds.first
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) groups: BTreeMap<GroupId, Group>,
}

impl Index {
    pub(super) fn append(&mut self, group: GroupId, index: u64, place: Place) -> Result<(), LogError> {
        let entry = self.groups.entry(group).or_default();
        entry.bounds.append(group, index, 1)?;
        entry.push(place);
        Ok(())
    }

    pub(super) fn set_state(&mut self, group: GroupId, state: Vec<u8>) {
        let entry = self.groups.entry(group).or_default();
        entry.state = Some(state);
        entry.state_rotten = None;
    }

    pub(super) fn truncate(&mut self, group: GroupId, from: u64) -> Result<(), LogError> {
        let entry = self.groups.entry(group).or_default();
        let before = entry.bounds.next.unwrap_or(0);
        entry.bounds.truncate(group, from)?;
        let dropped = before - entry.bounds.next.unwrap_or(0);
        let kept = entry.entries.len().saturating_sub(usize::try_from(dropped).unwrap_or(usize::MAX));
        for cut in entry.entries.drain(kept..) {
            entry.through -= u64::from(cut.place.frame_bytes);
        }
        entry.settle();
        Ok(())
    }

    pub(super) fn purge(&mut self, group: GroupId, first: u64) {
        let entry = self.groups.entry(group).or_default();
        if entry.bounds.next.is_none_or(|next| first > next) {
            entry.entries.clear();
        }
        entry.bounds.purge(first);
        entry.settle();
    }

    pub(super) fn destroy(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    /// Notes that an entry's payload is rotten.
    pub(super) fn note_rotten_entry(
        &mut self,
        group: GroupId,
        index: u64,
        place: Place,
        corruption: Corruption,
    ) -> Result<(), LogError> {
        self.append(group, index, place)?;
        self.groups.entry(group).or_default().rotten.insert(index, corruption);
        Ok(())
    }

    pub(super) fn note_rotten_state(&mut self, group: GroupId, corruption: Corruption) {
        self.groups.entry(group).or_default().state_rotten = Some(corruption);
    }

    /// Notes that where the group stands cannot be told.
    pub(super) fn note_rotten_checkpoint(&mut self, group: GroupId, corruption: Corruption) {
        self.groups.entry(group).or_default().checkpoint_rotten = Some(corruption);
    }

    /// Every corruption that still matters, and every entry that should be there and is not.
    pub(super) fn corruptions(&self) -> Vec<Corruption> {
        let mut all = Vec::new();
        for (id, group) in &self.groups {
            all.extend(group.rotten.values().cloned());
            all.extend(group.state_rotten.iter().chain(&group.checkpoint_rotten).cloned());
            if group.misses_entries() {
                let what = format!("entries {} to {} are missing", group.bounds.first, group.live_from() - 1);
                let segment = group.oldest_segment().unwrap_or(0);
                all.push(Corruption { segment, offset: 0, group: Some(*id), what });
            }
        }
        all
    }

    /// The oldest segment that holds an entry of any group.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.groups.values().filter_map(Group::oldest_segment).min()
    }

    pub(super) fn corrupt_groups(&self) -> BTreeSet<GroupId> {
        self.groups.iter().filter(|(_, group)| group.is_corrupt()).map(|(id, _)| *id).collect()
    }

    /// Takes over where a segment's head says that a group stands. False if the log tells otherwise.
    pub(super) fn check_in(&mut self, id: GroupId, first: u64, checkpoint: Checkpoint) -> bool {
        let Checkpoint::V1 { next, state } = checkpoint;
        match self.groups.get(&id) {
            Some(known) if known.is_corrupt() => known.bounds.next == next,
            Some(known) => known.bounds == Bounds { first, next } && known.state == state,
            None => {
                let bounds = Bounds { first, next };
                self.groups.insert(id, Group { bounds, state, ..Group::default() });
                next.is_none_or(|next| next >= first)
            }
        }
    }
}

/// Payload of a checkpoint record: with it, older segments are not needed to know where a group stands.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(super) enum Checkpoint {
    V1 { next: Option<u64>, state: Option<Vec<u8>> },
}

impl Checkpoint {
    pub(super) fn of(group: &Group) -> Vec<u8> {
        codec::encode(&Checkpoint::V1 { next: group.bounds.next, state: group.state.clone() })
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Checkpoint, DecodeError> {
        codec::decode("checkpoint of a log group", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G: GroupId = GroupId(7);

    fn place(segment: u64) -> Place {
        Place { segment, offset: 0, frame_bytes: 10 }
    }

    fn filled(indices: std::ops::Range<u64>) -> Index {
        let mut index = Index::default();
        for at in indices {
            index.append(G, at, place(at / 10)).unwrap();
        }
        index
    }

    #[test]
    fn golden_bytes_of_a_checkpoint() {
        let group = Group { bounds: Bounds { first: 1, next: Some(300) }, state: Some(vec![7, 8]), ..Group::default() };
        let bytes = Checkpoint::of(&group);
        assert_eq!(bytes, [0, 1, 251, 44, 1, 1, 2, 7, 8]);
        assert_eq!(Checkpoint::read(&bytes).unwrap(), Checkpoint::V1 { next: Some(300), state: Some(vec![7, 8]) });
    }

    #[test]
    fn entries_are_contiguous() {
        let mut index = filled(5..8);
        assert_eq!(index.append(G, 9, place(0)), Err(LogError::OutOfOrder { group: G, expected: 8, got: 9 }));
        assert_eq!(index.append(G, 7, place(0)), Err(LogError::OutOfOrder { group: G, expected: 8, got: 7 }));
        assert_eq!(index.groups[&G].bounds, Bounds { first: 5, next: Some(8) });
    }

    #[test]
    fn purging_and_truncating_move_the_bounds() {
        let mut index = filled(0..30);
        index.purge(G, 12);
        index.truncate(G, 20).unwrap();
        let group = &index.groups[&G];
        assert_eq!(group.bounds, Bounds { first: 12, next: Some(20) });
        assert_eq!((group.place(11), group.place(12), group.place(20)), (None, Some(place(1)), None));
        assert_eq!(group.bytes_after(None), 80);
        assert_eq!(group.bytes_after(Some(14)), 50);
        assert_eq!(group.bytes_after(Some(19)), 0);
        assert_eq!(group.oldest_segment(), Some(1));
        index.truncate(G, 3).unwrap_err();
        index.purge(G, 5);
        assert_eq!(index.groups[&G].bounds, Bounds { first: 12, next: Some(20) }, "a late purge changes nothing");
        index.purge(G, 100);
        assert_eq!(
            index.groups[&G].bounds,
            Bounds { first: 100, next: Some(100) },
            "a snapshot from elsewhere leads on"
        );
        assert_eq!(index.groups[&G].oldest_segment(), None);
        assert_eq!(index.corruptions(), []);
    }

    #[test]
    fn rot_matters_until_the_entry_is_gone() {
        let rot = Corruption { segment: 1, offset: 2, group: Some(G), what: "rot".to_owned() };
        let mut index = filled(0..3);
        index.note_rotten_entry(G, 3, place(0), rot.clone()).unwrap();
        index.append(G, 4, place(0)).unwrap();
        assert_eq!(index.corruptions(), std::slice::from_ref(&rot));
        index.purge(G, 3);
        assert!(index.groups[&G].is_corrupt());
        index.purge(G, 4);
        assert!(!index.groups[&G].is_corrupt());
    }

    #[test]
    fn entries_that_a_checkpoint_names_and_no_segment_holds_are_missing() {
        let mut index = Index::default();
        assert!(index.check_in(G, 4, Checkpoint::V1 { next: Some(9), state: None }));
        index.append(G, 9, place(3)).unwrap();
        assert_eq!(index.corruptions()[0].what, "entries 4 to 8 are missing");
        index.purge(G, 9);
        assert_eq!(index.corruptions(), []);
    }
}
