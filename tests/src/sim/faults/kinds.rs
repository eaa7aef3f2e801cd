//! The kinds of faults.

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One node hears and is heard by nobody.
    Isolate,
    /// Two sets of nodes do not hear each other.
    Split,
    /// Each node hears its two neighbours in a ring, and nobody else.
    Ring,
    /// One link works one way only.
    OneWay,
    /// Exactly the link between a shard's leader and the meta group's.
    LeadersLink,
    /// A link has delays with a heavy tail.
    Slow,
    /// A link loses packets.
    Loss,
    /// Connections of a link are reset now and then.
    Reset,
    /// A process is killed; what it wrote is still there.
    Crash,
    /// A machine loses its power; what was not synced is lost.
    PowerCut,
    /// A machine does, as soon as it has written something that is not synced.
    CutUnsynced,
    /// All machines do, at once.
    Blackout,
    /// A process is stopped and continued.
    Pause,
    /// A wall clock is put wrong.
    ClockJump,
    /// A machine's clocks run fast or slow, within what leases allow.
    ClockDrift,
    /// A wall clock stands still.
    ClockFreeze,
    /// A disk is slow.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// A sync fails; the machine loses its power soon after.
    FailedSync,
    /// A disk is replaced by an empty one.
    Wipe,
    /// A disk is put back to an older copy of itself.
    OldCopy,
    /// A bit of a log or snapshot is flipped while the machine is off.
    Rot,
    /// The same, of the one other node that has what was acknowledged while one of three replicas was cut off; back, it hears that one only.
    Amnesia,
    /// Another machine joins.
    Join,
    /// A node's links become slow, and then it is cut off: what it had last came late.
    Fading,
    /// A leader and another node do not hear each other for moments, in which one that hears both is killed and back at once.
    Bystander,
    /// A machine's cores are busy: what is done beside, on other threads, is late.
    Busy,
    /// A node is drained, and then not.
    Drain,
    /// A node is drained and removed for good.
    Remove,
    /// A leadership is transferred.
    Transfer,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 30] = [
        Kind::Isolate,
        Kind::Split,
        Kind::Ring,
        Kind::OneWay,
        Kind::LeadersLink,
        Kind::Slow,
        Kind::Loss,
        Kind::Reset,
        Kind::Crash,
        Kind::PowerCut,
        Kind::CutUnsynced,
        Kind::Blackout,
        Kind::Pause,
        Kind::ClockJump,
        Kind::ClockDrift,
        Kind::ClockFreeze,
        Kind::SlowDisk,
        Kind::FullDisk,
        Kind::FailedSync,
        Kind::Wipe,
        Kind::OldCopy,
        Kind::Rot,
        Kind::Amnesia,
        Kind::Join,
        Kind::Fading,
        Kind::Bystander,
        Kind::Busy,
        Kind::Drain,
        Kind::Remove,
        Kind::Transfer,
    ];
}
