//! The catalogue lease (docs/adr/0013): a node decides and authenticates only while the meta group's leader has told it, lately, how
//! new its catalogue has to be.
//!
//! `holder` is every node's side, `granter` the leader's; both are pure, time comes in. `cluster_clock` tells the time that grants
//! carry. `tenure` keeps a node's lease renewed; `local` is the way to a granter on the same node.

mod cluster_clock;
mod granter;
mod holder;
mod local;
#[cfg(test)]
mod schedules;
mod tenure;

use bincode::{Decode, Encode};
use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;

use crate::ports::propose::Pending;

pub(crate) use cluster_clock::ClusterClock;
pub(crate) use granter::{Clocks, Granter};
pub(crate) use holder::Lease;
pub(crate) use local::LocalGrantor;
pub(crate) use tenure::Tenure;

/// A node asks for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Renew {
    /// Who asks, and what it decides under.
    pub(crate) report: Report,
    /// What its own clock shows: the leader learns from it whether its own is wrong.
    pub(crate) wall: Timestamp,
}

/// What is in force on a node. It never falls while the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Report {
    /// Which node.
    pub(crate) node: u64,
    /// Which of its starts: what an earlier one reported says nothing of this one.
    pub(crate) boots: u64,
    /// The newest catalogue revision that is wholly in force there.
    pub(crate) in_force: Revision,
}

/// The meta group's leader grants a lease, counted from before it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Grant {
    /// Nobody decides under an older revision.
    pub(crate) fence: Revision,
    /// The newest revision that was committed.
    pub(crate) revision: Revision,
    /// Cluster time: what the leader's clock showed.
    pub(crate) wall: Timestamp,
    /// For how long, in milliseconds, on a clock that is right.
    pub(crate) lease_ms: u32,
}

/// The way to whoever grants leases.
pub(crate) trait Grantor: Send + Sync + 'static {
    /// Asks for a lease; `None` if none was granted, or the answer was lost. May take as long as it likes: the lease counts from
    /// before it was asked for.
    fn renew(&self, renew: Renew) -> Pending<'_, Option<Grant>>;

    /// Says what came into force. What is lost is said again with the next renewal.
    fn report(&self, report: Report);
}

#[cfg(test)]
mod tests {
    use proffer_engine::codec;

    use super::*;

    #[test]
    fn messages_keep_their_bytes() {
        let report = Report { node: 3, boots: 2, in_force: Revision(7) };
        assert_eq!(codec::encode(&report), [3, 2, 7]);
        let renew = Renew { report, wall: Timestamp(5) };
        assert_eq!(codec::encode(&renew), [3, 2, 7, 10]);
        assert_eq!(codec::decode::<Renew>("renewal", &[3, 2, 7, 10]).unwrap(), renew);
        let grant = Grant { fence: Revision(1), revision: Revision(2), wall: Timestamp(-1), lease_ms: 250 };
        assert_eq!(codec::encode(&grant), [1, 2, 1, 250]);
        assert_eq!(codec::decode::<Grant>("grant", &[1, 2, 1, 250]).unwrap(), grant);
    }
}
