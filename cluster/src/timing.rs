//! How fast a cluster notices that one of its nodes is gone.

use std::fmt;
use std::time::Duration;

use bincode::{Decode, Encode};

/// Timing profile of a cluster (architecture.md §3). All its nodes have the same, and refuse a node that has another: what a leader may
/// answer without asking rests on how long the others wait before they elect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Timing {
    /// For nodes on one network: a leader that is lost is replaced within a second.
    #[default]
    Fast,
    /// For nodes with tens of milliseconds between them, or on machines that stall: fewer elections for nothing, a longer pause for a
    /// reason.
    Slow,
}

impl Timing {
    /// How often a leader that has nothing to say shows that it is there, in milliseconds.
    pub const fn heartbeat_ms(self) -> u64 {
        match self {
            Timing::Fast => 50,
            Timing::Slow => 150,
        }
    }

    /// For how long at least a replica hears nothing of a leader before it stands for election, in milliseconds.
    pub const fn election_min_ms(self) -> u64 {
        match self {
            Timing::Fast => 150,
            Timing::Slow => 500,
        }
    }

    /// For how long at most, in milliseconds.
    pub const fn election_max_ms(self) -> u64 {
        match self {
            Timing::Fast => 300,
            Timing::Slow => 1_000,
        }
    }

    /// See [`Timing::election_max_ms`]: after that another may lead.
    pub(crate) const fn longest_election(self) -> Duration {
        Duration::from_millis(self.election_max_ms())
    }

    /// For how long a leader that a quorum has acknowledged answers reads without asking again: nobody else leads before that.
    pub(crate) const fn read_lease(self) -> Duration {
        Duration::from_millis(self.election_min_ms() * 9 / 10)
    }

    /// For how long a replica that has just started neither votes nor campaigns: until the leader that it may have acknowledged before does
    /// not count on that any more, whatever profile it runs with.
    pub(crate) fn silence(self) -> Duration {
        self.longest_election().max(Timing::Fast.read_lease()).max(Timing::Slow.read_lease())
    }

    /// Why a node that runs with `other` is not one of those that run with this profile.
    pub(crate) fn unlike(self, other: Timing) -> String {
        format!(
            "it runs with timing profile {other}, this cluster's nodes with {self}: start all with the same --timing"
        )
    }
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Timing::Fast => "fast",
            Timing::Slow => "slow",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_heard_three_times_before_it_is_given_up() {
        for timing in [Timing::Fast, Timing::Slow] {
            assert!(timing.election_min_ms() >= 3 * timing.heartbeat_ms());
            assert!(timing.election_max_ms() > timing.election_min_ms());
        }
    }
}
