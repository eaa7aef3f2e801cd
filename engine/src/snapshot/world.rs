//! What checks and programs read at decision time: facts by slot, segments, and the offer at hand.

use super::segment::Segment;
use super::shared::Shared;
use crate::expr::Environment;
use crate::expr::compare;
use crate::keys::Slot;
use crate::model::category::OutputType;
use crate::time::Timestamp;
use crate::value::Value;

/// Stands for every missing value.
pub static NULL: Value = Value::Null;

/// The facts of one request under one flow.
#[derive(Debug)]
pub struct World<'a> {
    /// By slot.
    pub(crate) facts: Vec<&'a Value>,
    /// Numbers of the segments the customer is in, ascending.
    pub(crate) segments: Vec<u32>,
    /// The decision's instant.
    pub(crate) now: Timestamp,
}

impl World<'_> {
    /// The fact in `slot`.
    #[inline]
    pub fn value(&self, slot: Slot) -> &Value {
        self.facts[usize::from(slot.0)]
    }

    /// The customer's segments, ascending.
    #[inline]
    pub fn segments(&self) -> &[u32] {
        &self.segments
    }

    /// Whether the customer is in `segment`.
    #[inline]
    pub fn is_in(&self, segment: u32) -> bool {
        self.segments.binary_search(&segment).is_ok()
    }
}

impl Environment for World<'_> {
    fn fact(&self, slot: Slot) -> &Value {
        self.value(slot)
    }

    fn offer(&self, _: u16) -> Value {
        Value::Null
    }

    fn expression(&self, _: u16) -> Value {
        Value::Null
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// A request's facts together with one offer's fields.
#[derive(Clone, Copy, Debug)]
pub struct OfferWorld<'a, 'b> {
    pub(crate) world: &'b World<'a>,
    pub(crate) shared: &'b Shared,
    pub(crate) segment: &'b Segment,
    pub(crate) position: u32,
}

impl OfferWorld<'_, '_> {
    /// The value of computed field number `index` of the offer's category; one of another type than declared is null.
    pub(crate) fn computed(&self, index: u32) -> Value {
        let field = &self.shared.computed[index as usize];
        let value = field.program.eval(self);
        match (&value, field.output) {
            (_, None) | (Value::Number(_), Some(OutputType::Number)) | (Value::Text(_), Some(OutputType::Text)) => {
                value
            }
            (_, Some(_)) => Value::Null,
        }
    }
}

impl Environment for OfferWorld<'_, '_> {
    fn fact(&self, slot: Slot) -> &Value {
        self.world.value(slot)
    }

    fn offer(&self, field: u16) -> Value {
        match &self.segment.fields[usize::from(field)].cells[self.position as usize] {
            super::segment::Cell::Stored(value) => value.clone(),
            super::segment::Cell::Computed(index) => self.computed(*index),
        }
    }

    fn expression(&self, _: u16) -> Value {
        Value::Null
    }

    fn now(&self) -> Timestamp {
        self.world.now
    }
}

/// Whether `value` is true and nothing else.
pub(crate) fn is_true(value: &Value) -> bool {
    compare::equal(value, &Value::Bool(true))
}
