//! The rules of the protocol, each of which can be left out.

use clap::ValueEnum;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// A node destroys a replica once the roster says that it has left; else as soon as it is not meant to be.
    LeftBeforeDestroyed,
    /// A report names the target that its leader knew; else it is taken for one that knew the newest.
    ReportsNameTheirTarget,
    /// A configuration is changed once it is committed; else at once.
    CommittedBeforeChanged,
    /// Voters change by way of both sets; else from one to the other.
    VotersChangeJointly,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 4] = [
        Rule::LeftBeforeDestroyed,
        Rule::ReportsNameTheirTarget,
        Rule::CommittedBeforeChanged,
        Rule::VotersChangeJointly,
    ];
}
