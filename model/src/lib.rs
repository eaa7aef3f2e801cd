//! # proffer-model
//!
//! The protocols as models that `stateright` searches exhaustively within small bounds. What they are made of is the product's own code: the
//! state machines that replicas apply entries with, and the functions that decide what is done next. Only what lies between is modelled:
//! messages that are lost, doubled and overtake each other, leaders that change, majorities that are gone.
//!
//! Map: [`escrow`] is how units of a limit move between ledger and shards; [`moves`] how a group's replicas move between nodes.
//!
//! Each model can be run with one of its protocol's rules left out: then it has to find what goes wrong. A model that cannot fail proves
//! nothing.

pub mod bounds;
pub mod escrow;
pub mod moves;
