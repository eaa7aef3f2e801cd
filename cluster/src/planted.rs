//! Faults that are put in on purpose, so that the simulator can show that it finds them (docs/testing.md): one line at each site, and
//! nothing at all without the feature `planted`.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Nothing in a shard's log is refused for having been decided under an older catalogue.
    FenceSkipped = 1,
    /// A shard answers when it proposes.
    AcknowledgedBeforeCommit,
    /// A decision that read what is still under way is answered at once.
    AnsweredFromOverlay,
    /// Another leader of a shard does not know the keys of the one before.
    KeysForgottenOnFailover,
    /// A failed sync is tried again.
    SyncRetried,
    /// A sync is taken for done that is not.
    SyncSkipped,
    /// A vote is cast before it is durable.
    VoteNotKept,
    /// A catalogue lease counts from when it came.
    LeaseFromReceipt,
    /// An exclusion is acknowledged before all nodes know of it or have no lease any more.
    ExclusionNotAwaited,
    /// A replica votes and campaigns at once after a start.
    VotesAfterRestart,
    /// A shard takes the time from its own node's clock.
    TimeFromLocalClock,
    /// A leader that has not heard from the others for long goes on reading.
    ReadsWithoutLease,
    /// A replica whose log is rotten begins anew under the id that it had, and nobody asks how far it had come. (Planted in two places: each
    /// makes up for the other.)
    ReplicaIdReused,
    /// Only the node that leads a shard keeps what the ledger gave it.
    EscrowPerNode,
    /// Shards are told of units before the ledger has given them away.
    AddBeforeSubtract,
    /// What shards and ledger tell each other is said once, and never again.
    SaidOnce,
}

impl Bug {
    /// Every one.
    pub const ALL: [Bug; 16] = [
        Bug::FenceSkipped,
        Bug::AcknowledgedBeforeCommit,
        Bug::AnsweredFromOverlay,
        Bug::KeysForgottenOnFailover,
        Bug::SyncRetried,
        Bug::SyncSkipped,
        Bug::VoteNotKept,
        Bug::LeaseFromReceipt,
        Bug::ExclusionNotAwaited,
        Bug::VotesAfterRestart,
        Bug::TimeFromLocalClock,
        Bug::ReadsWithoutLease,
        Bug::ReplicaIdReused,
        Bug::EscrowPerNode,
        Bug::AddBeforeSubtract,
        Bug::SaidOnce,
    ];
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this program can be given a fault.
pub const CAN_PLANT: bool = cfg!(feature = "planted");

/// From now on this process has this fault, if it can have one.
pub fn plant(bug: Bug) {
    #[cfg(feature = "planted")]
    PLANTED.store(bug as u8, std::sync::atomic::Ordering::SeqCst);
    #[cfg(not(feature = "planted"))]
    let _ = bug;
}

/// Whether this process has this fault.
#[cfg(feature = "planted")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::SeqCst) == bug as u8
}

/// No process has any fault.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
