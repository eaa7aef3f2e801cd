//! How far the models are searched: as far as a test run has time for, and further.

use clap::ValueEnum;

use crate::{escrow, moves};

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Depth {
    /// Seconds, without optimisation: what `cargo test` does.
    Short,
    /// Minutes, in a release build.
    Further,
}

/// The bounds of the escrow model.
pub fn escrow(depth: Depth) -> Vec<escrow::Bounds> {
    match depth {
        Depth::Short => vec![
            escrow::Bounds { mail: 1, ..of_one_unit(2, 1, 0) },
            escrow::Bounds { mail: 1, heals: true, ..of_one_unit(2, 0, 0) },
        ],
        Depth::Further => vec![
            of_one_unit(2, 1, 0),
            escrow::Bounds { reservations: true, mail: 1, ..of_one_unit(2, 1, 0) },
            escrow::Bounds { limits: vec![1, 0, 1], mail: 1, ..of_one_unit(2, 1, 0) },
            of_one_unit(1, 2, 1),
            escrow::Bounds { limits: vec![2], granted: 3, mail: 1, ..of_one_unit(2, 2, 0) },
        ],
    }
}

/// One unit, granted at most twice.
fn of_one_unit(shards: u16, takes: u64, losses: u64) -> escrow::Bounds {
    let limits = vec![1];
    escrow::Bounds { shards, limits, takes, reservations: false, granted: 2, losses, mail: 2, heals: false }
}

/// The smallest bounds known within which it is missed that a rule of the escrow is left out.
pub fn escrow_without(rule: escrow::Rule) -> escrow::Bounds {
    match rule {
        escrow::Rule::GrantsAreTotals | escrow::Rule::LedgerCommitsFirst => of_one_unit(1, 0, 0),
        escrow::Rule::ReturnsAreTotals => escrow::Bounds { granted: 3, ..of_one_unit(2, 0, 0) },
        escrow::Rule::ShardCommitsFirst => of_one_unit(2, 0, 0),
        escrow::Rule::EscrowIsReplicated => of_one_unit(1, 2, 0),
        escrow::Rule::LostUnitsAreSpent | escrow::Rule::BookedBeforeBegun | escrow::Rule::TotalsNameTheirGeneration => {
            escrow::Bounds { mail: 1, ..of_one_unit(1, 2, 1) }
        }
        escrow::Rule::ReportsNameTheirGeneration => {
            escrow::Bounds { limits: vec![1, 0], mail: 1, ..of_one_unit(1, 0, 1) }
        }
    }
}

/// The bounds of the model of moves.
pub fn moves(depth: Depth) -> Vec<moves::Bounds> {
    match depth {
        Depth::Short => vec![one_moves(2)],
        Depth::Further => vec![
            moves::Bounds { targets: vec![(vec![1], vec![]), (vec![0], vec![])], configurations: 9, ..one_moves(3) },
            grow(3),
            shrink(3),
        ],
    }
}

/// The one voter moves to the other node.
fn one_moves(terms: u64) -> moves::Bounds {
    let targets = vec![(vec![1], vec![])];
    moves::Bounds { begins: vec![0], targets, nodes: 2, terms, commands: 1, configurations: 8 }
}

/// Of one voter become three.
fn grow(terms: u64) -> moves::Bounds {
    moves::Bounds { targets: vec![(vec![0, 1, 2], vec![])], nodes: 3, ..one_moves(terms) }
}

/// Of three voters becomes one.
fn shrink(terms: u64) -> moves::Bounds {
    moves::Bounds { begins: vec![0, 1, 2], targets: vec![(vec![0], vec![])], ..grow(terms) }
}

/// The smallest bounds known within which it is missed that a rule of the moves is left out.
pub fn moves_without(rule: moves::Rule) -> moves::Bounds {
    match rule {
        moves::Rule::LeftBeforeDestroyed => one_moves(1),
        moves::Rule::ReportsNameTheirTarget => {
            moves::Bounds { targets: vec![(vec![0, 1], vec![]), (vec![0], vec![])], ..one_moves(1) }
        }
        moves::Rule::CommittedBeforeChanged | moves::Rule::VotersChangeJointly => shrink(2),
    }
}
