//! The inverted predicate index: which offers fail, found from the value of a fact instead of from each offer.
//!
//! Each distinct test is looked at once per request, whatever number of offers carries it. Numeric comparisons are sorted by
//! threshold: those that fail are a suffix, read from a cumulative bitset and a few single bits. Equalities and segments
//! are a bitset of all that ask, less those that the value answers. What is left is evaluated and its members OR-ed in.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::bitset::{self, Bits, Members};
use super::checks::Check;
use super::world::World;
use crate::expr::compare;
use crate::keys::Slot;
use crate::model::rule::{OnMissing, Operator};
use crate::value::Value;

/// Fewest entries between two cumulative bitsets: below that, setting single bits is as cheap as an OR.
const STRIDE_MIN: usize = 64;
/// Most cumulative bitsets per threshold list: bounds memory to this many bits per offer and list.
const CUMULATIVE_MAX: usize = 64;

/// Numeric lower bounds on one fact, ascending; upper bounds are lower bounds on the negated fact.
#[derive(Clone, Debug)]
struct Thresholds {
    slot: Slot,
    negated: bool,
    missing_passes: bool,
    /// Distinct (bound, strict), ascending, non-strict before strict: those that fail a value are a suffix.
    bounds: Box<[(f64, bool)]>,
    /// Where each bound's positions begin in `positions`.
    starts: Box<[u32]>,
    positions: Box<[u32]>,
    stride: usize,
    /// Number j holds the positions from `j * stride` on, so the first holds all.
    cumulative: Box<[Bits]>,
}

impl Thresholds {
    fn new(key: ThresholdKey, len: usize, mut entries: Vec<(f64, bool, u32)>) -> Self {
        entries.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)).then(left.2.cmp(&right.2)));
        let (mut bounds, mut starts): (Vec<(f64, bool)>, Vec<u32>) = (Vec::new(), Vec::new());
        for (index, (bound, strict, _)) in entries.iter().enumerate() {
            if bounds.last() != Some(&(*bound, *strict)) {
                bounds.push((*bound, *strict));
                starts.push(index as u32);
            }
        }
        let positions: Box<[u32]> = entries.iter().map(|entry| entry.2).collect();
        let stride = STRIDE_MIN.max(positions.len().div_ceil(CUMULATIVE_MAX));
        let mut cumulative: Vec<Bits> = Vec::with_capacity(positions.len().div_ceil(stride));
        let mut bits = Bits::none(len);
        for chunk in positions.chunks(stride).rev() {
            chunk.iter().for_each(|position| bitset::set(&mut bits.0, *position));
            cumulative.push(bits.clone());
        }
        cumulative.reverse();
        Thresholds {
            slot: key.slot,
            negated: key.negated,
            missing_passes: key.missing_passes,
            bounds: bounds.into(),
            starts: starts.into(),
            positions,
            stride,
            cumulative: cumulative.into(),
        }
    }

    #[inline]
    fn fail_into(&self, value: &Value, into: &mut [u64]) {
        let first = match value {
            Value::Number(number) => {
                let value = if self.negated { -number } else { *number };
                let failing = self.bounds.partition_point(
                    |(bound, strict)| {
                        if *strict { *bound < value } else { *bound <= value }
                    },
                );
                match self.starts.get(failing) {
                    Some(first) => *first as usize,
                    None => return,
                }
            }
            Value::Null if self.missing_passes => return,
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => 0,
        };
        let block = first.div_ceil(self.stride);
        if let Some(bits) = self.cumulative.get(block) {
            bitset::or(into, &bits.0);
        }
        let loose = &self.positions[first..(block * self.stride).min(self.positions.len())];
        loose.iter().for_each(|position| bitset::set(into, *position));
    }
}

/// Equalities on one fact; a position is in at most one list of values per layer.
#[derive(Clone, Debug)]
struct Memberships {
    slot: Slot,
    missing_passes: bool,
    asking: Bits,
    texts: HashMap<Box<str>, Members>,
    numbers: HashMap<u64, Members>,
    flags: [Option<Members>; 2],
}

impl Memberships {
    #[inline]
    fn fail_into(&self, value: &Value, into: &mut [u64], spare: &mut [u64]) {
        let answered = match value {
            Value::Null if self.missing_passes => return,
            Value::Null | Value::List(_) | Value::Map(_) => None,
            Value::Text(text) => self.texts.get(&**text),
            Value::Number(number) => self.numbers.get(&number_key(*number)),
            Value::Bool(flag) => self.flags[usize::from(*flag)].as_ref(),
        };
        fail_asking(&self.asking, answered.into_iter(), into, spare);
    }
}

/// Required segments; layer i holds the i-th one of each position.
#[derive(Clone, Debug)]
struct SegmentLayer {
    asking: Bits,
    members: HashMap<u32, Members>,
}

fn fail_asking<'a>(asking: &Bits, answered: impl Iterator<Item = &'a Members>, into: &mut [u64], spare: &mut [u64]) {
    let spare = &mut spare[..asking.0.len()];
    spare.copy_from_slice(&asking.0);
    answered.for_each(|members| members.clear_from(spare));
    bitset::or(into, spare);
}

/// Equal numbers have equal keys (0 and −0 too).
fn number_key(number: f64) -> u64 {
    if number == 0.0 { 0 } else { number.to_bits() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ThresholdKey {
    slot: Slot,
    negated: bool,
    missing_passes: bool,
}

/// See the module. Built by [`Builder`].
#[derive(Clone, Debug, Default)]
pub struct PredicateIndex {
    thresholds: Box<[Thresholds]>,
    memberships: Box<[Memberships]>,
    segments: Box<[SegmentLayer]>,
    others: Box<[(Check, Members)]>,
}

impl PredicateIndex {
    /// Whether nothing is required of any position.
    pub fn is_empty(&self) -> bool {
        self.thresholds.is_empty() && self.memberships.is_empty() && self.segments.is_empty() && self.others.is_empty()
    }

    /// Sets the bit of every position with a test that fails in `world`. `spare` is scratch of at least the same length.
    pub fn fail_into(&self, world: &World<'_>, into: &mut [u64], spare: &mut [u64]) {
        for thresholds in &self.thresholds {
            thresholds.fail_into(world.value(thresholds.slot), into);
        }
        for memberships in &self.memberships {
            memberships.fail_into(world.value(memberships.slot), into, spare);
        }
        for layer in &self.segments {
            let answered = world.segments().iter().filter_map(|segment| layer.members.get(segment));
            fail_asking(&layer.asking, answered, into, spare);
        }
        for (test, members) in &self.others {
            if !test.holds(world) {
                members.or_into(into);
            }
        }
    }
}

/// Collects tests with the positions that carry them.
#[derive(Debug)]
pub struct Builder {
    len: usize,
    thresholds: BTreeMap<ThresholdKey, Vec<(f64, bool, u32)>>,
    memberships: BTreeMap<(Slot, bool, u32), MembershipDraft>,
    layers: BTreeMap<(Slot, bool), HashMap<u32, u32>>,
    segments: Vec<BTreeMap<u32, Vec<u32>>>,
    segment_layers: HashMap<u32, u32>,
    others: BTreeMap<Vec<u8>, (Check, Vec<u32>)>,
}

#[derive(Debug, Default)]
struct MembershipDraft {
    asking: Vec<u32>,
    texts: BTreeMap<Box<str>, Vec<u32>>,
    numbers: BTreeMap<u64, Vec<u32>>,
    flags: [Vec<u32>; 2],
}

impl Builder {
    /// An index over positions 0 to `len`.
    pub fn new(len: usize) -> Self {
        Builder {
            len,
            thresholds: BTreeMap::new(),
            memberships: BTreeMap::new(),
            layers: BTreeMap::new(),
            segments: Vec::new(),
            segment_layers: HashMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// `position` must pass `test`.
    pub fn require(&mut self, test: &Check, position: u32) {
        match test {
            Check::Condition { slot, operator, expected, on_missing } => {
                self.require_condition(test, *slot, *operator, expected, *on_missing, position);
            }
            Check::Segments(segments) => segments.iter().for_each(|segment| self.require_segment(*segment, position)),
            Check::Constant(true) => {}
            Check::Constant(false) | Check::Program(_) => self.require_other(test, position),
        }
    }

    fn require_condition(
        &mut self,
        test: &Check,
        slot: Slot,
        operator: Operator,
        expected: &Value,
        on_missing: OnMissing,
        position: u32,
    ) {
        let missing_passes = on_missing == OnMissing::Pass;
        match (operator, expected) {
            (Operator::Gt, Value::Number(bound)) => {
                self.require_bound(slot, false, missing_passes, *bound, true, position);
            }
            (Operator::Gte, Value::Number(bound)) => {
                self.require_bound(slot, false, missing_passes, *bound, false, position);
            }
            (Operator::Lt, Value::Number(bound)) => {
                self.require_bound(slot, true, missing_passes, -bound, true, position);
            }
            (Operator::Lte, Value::Number(bound)) => {
                self.require_bound(slot, true, missing_passes, -bound, false, position);
            }
            (Operator::Between, Value::List(range)) if let [Value::Number(low), Value::Number(high)] = **range => {
                self.require_bound(slot, false, missing_passes, low, false, position);
                self.require_bound(slot, true, missing_passes, -high, false, position);
            }
            (Operator::Eq, value) if is_plain(value) => {
                self.require_membership(slot, missing_passes, std::slice::from_ref(value), position);
            }
            (Operator::In, Value::List(values)) if values.iter().all(is_plain) => {
                self.require_membership(slot, missing_passes, values, position);
            }
            _ => self.require_other(test, position),
        }
    }

    fn require_bound(
        &mut self,
        slot: Slot,
        negated: bool,
        missing_passes: bool,
        bound: f64,
        strict: bool,
        position: u32,
    ) {
        // −0 and 0 are one bound.
        let bound = if bound == 0.0 { 0.0 } else { bound };
        let key = ThresholdKey { slot, negated, missing_passes };
        self.thresholds.entry(key).or_default().push((bound, strict, position));
    }

    fn require_membership(&mut self, slot: Slot, missing_passes: bool, values: &[Value], position: u32) {
        let layers = self.layers.entry((slot, missing_passes)).or_default();
        let layer = layers.entry(position).or_insert(0);
        let draft = self.memberships.entry((slot, missing_passes, *layer)).or_default();
        *layer += 1;
        draft.asking.push(position);
        for value in values {
            match value {
                Value::Text(text) => draft.texts.entry(Box::from(&**text)).or_default().push(position),
                Value::Number(number) => draft.numbers.entry(number_key(*number)).or_default().push(position),
                Value::Bool(flag) => draft.flags[usize::from(*flag)].push(position),
                Value::Null | Value::List(_) | Value::Map(_) => {}
            }
        }
    }

    fn require_segment(&mut self, segment: u32, position: u32) {
        let layer = self.segment_layers.entry(position).or_insert(0);
        if self.segments.len() <= *layer as usize {
            self.segments.push(BTreeMap::new());
        }
        self.segments[*layer as usize].entry(segment).or_default().push(position);
        *layer += 1;
    }

    fn require_other(&mut self, test: &Check, position: u32) {
        self.others.entry(test.identity()).or_insert_with(|| (test.clone(), Vec::new())).1.push(position);
    }

    /// The index.
    pub fn build(self) -> PredicateIndex {
        let len = self.len;
        let members = |positions: Vec<u32>| Members::new(len, positions);
        let memberships = self.memberships.into_iter().map(|((slot, missing_passes, _), draft)| Memberships {
            slot,
            missing_passes,
            asking: Bits::of(len, draft.asking),
            texts: draft.texts.into_iter().map(|(text, positions)| (text, members(positions))).collect(),
            numbers: draft.numbers.into_iter().map(|(number, positions)| (number, members(positions))).collect(),
            flags: draft.flags.map(|positions| (!positions.is_empty()).then(|| members(positions))),
        });
        let segments = self.segments.into_iter().map(|layer| SegmentLayer {
            asking: Bits::of(len, layer.values().flatten().copied()),
            members: layer.into_iter().map(|(segment, positions)| (segment, members(positions))).collect(),
        });
        PredicateIndex {
            thresholds: self.thresholds.into_iter().map(|(key, list)| Thresholds::new(key, len, list)).collect(),
            memberships: memberships.collect(),
            segments: segments.collect(),
            others: self.others.into_values().map(|(test, positions)| (test, members(positions))).collect(),
        }
    }
}

/// Values that equal only what is identical: no lists, and no texts that compare as dates.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Number(_) | Value::Bool(_) => true,
        Value::Text(text) => compare::instant(text).is_none(),
        Value::Null | Value::List(_) | Value::Map(_) => false,
    }
}
