//! A compiled question about customer and request, the same for every offer.

use std::sync::Arc;

use super::world::{World, is_true};
use crate::expr::Program;
use crate::expr::compare;
use crate::keys::Slot;
use crate::model::rule::{OnMissing, Operator};
use crate::value::Value;

/// A question that one request answers once for all offers.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// `fact operator expected`.
    Condition {
        /// The fact.
        slot: Slot,
        /// How it is compared.
        operator: Operator,
        /// With what.
        expected: Value,
        /// What a missing fact does.
        on_missing: OnMissing,
    },
    /// The customer is in all of these segments.
    Segments(Box<[u32]>),
    /// An expression that reads no offer is true.
    Program(Arc<Program>),
    /// Known already.
    Constant(bool),
}

impl Check {
    /// The answer.
    pub fn holds(&self, world: &World<'_>) -> bool {
        match self {
            Check::Condition { slot, operator, expected, on_missing } => {
                compare::condition_holds(world.value(*slot), *operator, expected, *on_missing)
            }
            Check::Segments(segments) => segments.iter().all(|segment| world.is_in(*segment)),
            Check::Program(program) => is_true(&program.eval(world)),
            Check::Constant(answer) => *answer,
        }
    }

    /// Bytes that are equal exactly for checks that always answer alike by construction.
    pub(crate) fn identity(&self) -> Vec<u8> {
        match self {
            Check::Condition { slot, operator, expected, on_missing } => {
                format!("c{} {operator:?} {on_missing:?} {expected:?}", slot.0).into_bytes()
            }
            Check::Segments(segments) => format!("s{segments:?}").into_bytes(),
            Check::Program(program) => format!("p{program:?}").into_bytes(),
            Check::Constant(answer) => format!("k{answer}").into_bytes(),
        }
    }
}
