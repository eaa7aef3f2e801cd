//! What checks and programs read at decision time: facts by slot, segments, and the offer at hand.

use std::cell::RefCell;

use smallvec::SmallVec;

use super::flows::Plan;
use super::metrics::Measures;
use super::models::Models;
use super::segment::Segment;
use super::shared::{ComputedField, Shared};
use crate::expr::Environment;
use crate::expr::compare;
use crate::keys::{CategoryKey, OfferKey, Slot};
use crate::learn::{Learned, NOTHING, Propensity};
use crate::model::category::OutputType;
use crate::time::Timestamp;
use crate::value::Value;

/// Stands for every missing value.
pub static NULL: Value = Value::Null;

/// The facts of one request under one flow.
#[derive(Debug)]
pub struct World<'a> {
    /// By slot.
    pub(crate) facts: SmallVec<[&'a Value; 32]>,
    /// Numbers of the segments the customer is in, ascending.
    pub(crate) segments: Vec<u32>,
    /// The decision's instant.
    pub(crate) now: Timestamp,
    /// What the customer's metrics are worth.
    pub(crate) measures: Measures<'a>,
    /// What is known of how offers are received.
    pub(crate) learned: &'a Learned,
    /// What is known of customers before that.
    pub(crate) models: Models<'a>,
    /// What the flow scores by where no channel overrides it: rules look at P by its model.
    pub(crate) plan: Option<&'a Plan>,
}

impl World<'_> {
    /// A world without facts: what is settled there is settled for everybody.
    pub(crate) fn of_nothing() -> Self {
        World {
            facts: SmallVec::new(),
            segments: Vec::new(),
            now: Timestamp(0),
            measures: Measures::default(),
            learned: &NOTHING,
            models: Models::default(),
            plan: None,
        }
    }

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

    fn now(&self) -> Timestamp {
        self.now
    }
}

/// A request's facts together with one offer's fields.
#[derive(Debug)]
pub struct OfferWorld<'a, 'b> {
    pub(crate) world: &'b World<'a>,
    pub(crate) shared: &'b Shared,
    pub(crate) segment: &'b Segment,
    pub(crate) position: u32,
    /// Values of computed fields that others read, by number: without them a chain of fields, each reading the one before
    /// twice, costs two to the power of its length.
    known: RefCell<Vec<(u32, Value)>>,
}

impl<'a, 'b> OfferWorld<'a, 'b> {
    /// The offer at `position` of `segment`. Allocates nothing until a computed field is read that others build on.
    pub(crate) fn new(world: &'b World<'a>, shared: &'b Shared, segment: &'b Segment, position: u32) -> Self {
        OfferWorld { world, shared, segment, position, known: RefCell::default() }
    }

    /// The value of computed field number `index` of the offer's category; one of another type than declared is null. A
    /// field that others read is evaluated once.
    pub(crate) fn computed(&self, index: u32) -> Value {
        let field = &self.shared.computed[index as usize];
        if !field.is_built_on {
            return self.evaluate(field);
        }
        if let Some(known) = self.recall(index) {
            return known;
        }
        let value = self.evaluate(field);
        let mut known = self.known.borrow_mut();
        if let Err(place) = known.binary_search_by_key(&index, |(number, _)| *number) {
            known.insert(place, (index, value.clone()));
        }
        value
    }

    /// The offer and its category.
    pub(crate) fn who(&self) -> (OfferKey, Option<CategoryKey>) {
        let position = self.position as usize;
        (self.segment.keys[position], self.segment.categories[position])
    }

    /// P of the offer, as rules look at it.
    pub(crate) fn propensity(&self) -> Propensity {
        let model = self.world.plan.and_then(|plan| {
            let position = self.position as usize;
            plan.weights(&self.segment.offers[position].body, self.segment.categories[position]).model
        });
        self.expected_by(model)
    }

    fn recall(&self, index: u32) -> Option<Value> {
        let known = self.known.borrow();
        let place = known.binary_search_by_key(&index, |(number, _)| *number).ok()?;
        Some(known[place].1.clone())
    }

    fn evaluate(&self, field: &ComputedField) -> Value {
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
            super::segment::Cell::Metric(reading) => {
                let position = self.position as usize;
                let candidate = (self.segment.keys[position], self.segment.categories[position]);
                self.world.measures.value(reading, Some(candidate))
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.world.now
    }
}

/// Whether `value` is true and nothing else.
pub(crate) fn is_true(value: &Value) -> bool {
    compare::equal(value, &Value::Bool(true))
}
