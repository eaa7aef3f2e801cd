//! The newest entries of a replica, decoded: what is not durable yet can be read nowhere else, and what was just written is read
//! again at once, by `apply` and once for each follower.

use std::collections::VecDeque;

use openraft::entry::RaftEntry;

use super::types::{Entry, LogId};

/// A run of entries that ends with the last one. Memory: the entries that are not durable, and beside them at most so many bytes.
#[derive(Debug)]
pub(super) struct Recent {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    bytes_max: usize,
    /// Index after the last entry that is durable.
    durable: u64,
}

impl Recent {
    /// Empty; entries go when they are durable and together take more than `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        Recent { entries: VecDeque::new(), bytes: 0, bytes_max, durable: 0 }
    }

    /// Takes the next entry, whose encoding has so many bytes.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) {
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// Everything before `index` is durable.
    pub(super) fn durable(&mut self, index: u64) {
        self.durable = self.durable.max(index);
        while self.bytes > self.bytes_max
            && let Some((_, bytes)) = self.entries.pop_front_if(|(entry, _)| entry.index() < self.durable)
        {
            self.bytes -= bytes;
        }
    }

    /// Drops the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while let Some((_, bytes)) = self.entries.pop_back_if(|(entry, _)| entry.index() >= index) {
            self.bytes -= bytes;
        }
        self.durable = self.durable.min(index);
    }

    /// Drops the entries before `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while let Some((_, bytes)) = self.entries.pop_front_if(|(entry, _)| entry.index() < index) {
            self.bytes -= bytes;
        }
    }

    /// Index of the first entry here.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.index())
    }

    /// Where the last entry here stands.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|(entry, _)| entry.log_id())
    }

    /// The entries of `from..until` that are here, with the bytes of each.
    pub(super) fn range(&self, from: u64, until: u64) -> impl Iterator<Item = (&Entry, usize)> {
        let first = self.first().unwrap_or(until);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let entries = self.entries.iter().skip(skip);
        entries.take_while(move |(entry, _)| entry.index() < until).map(|(entry, bytes)| (entry, *bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{LogId, Payload, leader_id};
    use super::*;
    use proffer_engine::profile::command::Leader;

    fn entry(index: u64) -> Entry {
        Entry::new(LogId::new(leader_id(Leader { term: 1, replica: 1 }), index), Payload::Blank)
    }

    fn indices(recent: &Recent, from: u64, until: u64) -> Vec<u64> {
        recent.range(from, until).map(|(entry, _)| entry.index()).collect()
    }

    #[test]
    fn what_is_not_durable_stays_however_much_it_is() {
        let mut recent = Recent::new(25);
        for index in 5..15 {
            recent.push(entry(index), 10);
        }
        assert_eq!(recent.first(), Some(5));
        recent.durable(9);
        assert_eq!(recent.first(), Some(9));
        recent.durable(15);
        assert_eq!(indices(&recent, 0, 100), [13, 14]);
        assert_eq!(indices(&recent, 14, 15), [14]);
        assert_eq!(indices(&recent, 0, 14), [13]);
        assert_eq!(indices(&recent, 15, 20), [0_u64; 0]);
    }

    #[test]
    fn what_is_cut_off_is_written_again() {
        let mut recent = Recent::new(0);
        for index in 0..4 {
            recent.push(entry(index), 1);
        }
        recent.durable(3);
        assert_eq!(recent.first(), Some(3));
        recent.truncate(2);
        assert_eq!((recent.first(), recent.last()), (None, None));
        recent.push(entry(2), 1);
        recent.durable(2);
        assert_eq!(recent.first(), Some(2), "it is another entry than the durable one before");
        recent.purge(3);
        assert_eq!(recent.first(), None);
    }
}
