//! The rules of the protocol, each of which can be left out.

use clap::ValueEnum;

/// A rule of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// What the ledger tells a shard is a total; else how much more it grants.
    GrantsAreTotals,
    /// What a shard tells the ledger is a total; else how much more it returned since it last said so.
    ReturnsAreTotals,
    /// The ledger tells a shard of a grant once that is committed; else before, and its entry may be lost.
    LedgerCommitsFirst,
    /// A shard tells the ledger of a return once that is committed; else before, and its entry may be lost.
    ShardCommitsFirst,
    /// Escrow is a part of the shard's replicated state; else a new leader knows of what was granted, and not of what was used of it.
    EscrowIsReplicated,
    /// A shard that is begun anew counts as spent what it was granted and the ledger does not know to have come back; else it goes on with what
    /// the survivor knows.
    LostUnitsAreSpent,
    /// The ledger books a new generation before it begins; else that begins by the ledger as it was before.
    BookedBeforeBegun,
    /// Reports name the generation that they are of, and another's are not booked.
    ReportsNameTheirGeneration,
    /// Totals name the generation that they are for, and are nothing to another.
    TotalsNameTheirGeneration,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 9] = [
        Rule::GrantsAreTotals,
        Rule::ReturnsAreTotals,
        Rule::LedgerCommitsFirst,
        Rule::ShardCommitsFirst,
        Rule::EscrowIsReplicated,
        Rule::LostUnitsAreSpent,
        Rule::BookedBeforeBegun,
        Rule::ReportsNameTheirGeneration,
        Rule::TotalsNameTheirGeneration,
    ];
}
