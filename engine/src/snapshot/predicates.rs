//! The inverted predicate index: which offers fail, found from the value of a fact instead of from each offer.
//!
//! Each distinct test is looked at once per request, whatever number of offers carries it. Numeric comparisons are sorted by
//! threshold: those that fail are a suffix, read from a cumulative bitset and a few single bits. Equalities and segments
//! are a bitset of all that ask, less those that the value answers. What is left is evaluated and its members OR-ed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::bitset::{self, Bits, Members};
use super::checks::Check;
use super::world::World;
use crate::expr::compare;
use crate::keys::Slot;
use crate::model::rule::{OnMissing, Operator};
use crate::value::Value;

/// Bounds that are compared at once.
const GROUP: usize = 16;
/// Most blocks of a threshold list: bounds memory to about this many bits per offer and list.
const BLOCKS_MAX: usize = 128;

/// Numeric bounds on one fact, lower and upper ones together.
///
/// Walking up the axis, each bound changes sides once: `>= t` begins to pass and `< t` begins to fail where the value reaches
/// t; `> t` and `<= t` do so at the next number after it. That number is the bound's key. A lower bound fails before its
/// key, an upper one from it on. So what fails at a value are the lower bounds with later keys and the upper ones with keys
/// up to it: one row has all but those of the value's own block, whose bounds are looked at one by one.
#[derive(Clone, Debug)]
struct Thresholds {
    slot: Slot,
    missing_passes: bool,
    all: Bits,
    /// The bounds by key.
    groups: Box<[Group]>,
    /// Groups of a block.
    block: usize,
    /// Last key of each block.
    last_keys: Box<[f64]>,
    /// Words of a row.
    words: usize,
    /// One row a block: the lower bounds of later blocks and the upper ones of earlier blocks. One more for values past all.
    rows: Box<[u64]>,
}

/// One bound of one position.
#[derive(Clone, Copy, Debug)]
struct Bound {
    key: f64,
    position: u32,
    is_lower: bool,
}

/// Bounds that follow each other by key.
#[derive(Clone, Copy, Debug)]
struct Group {
    keys: [f64; GROUP],
    positions: [u32; GROUP],
    /// Which are lower bounds, a bit each.
    lower: u32,
}

impl Group {
    fn new(bounds: &[Bound]) -> Self {
        // What fills up the last group is an upper bound that no number reaches: it never fails.
        let mut group = Group { keys: [f64::NAN; GROUP], positions: [0; GROUP], lower: 0 };
        for (index, bound) in bounds.iter().enumerate() {
            group.keys[index] = bound.key;
            group.positions[index] = bound.position;
            group.lower |= u32::from(bound.is_lower) << index;
        }
        group
    }

    /// Sets the bits of the bounds that fail at `value`.
    #[inline]
    fn fail_into(&self, value: f64, into: &mut [u64]) {
        let reached: u32 = self.keys.iter().map(|key| u32::from(*key <= value)).sum();
        let failing = self.lower ^ ((1 << reached) - 1);
        bitset::ones_of(failing.into(), 0).for_each(|index| bitset::set(into, self.positions[index as usize % GROUP]));
    }
}

impl Thresholds {
    fn new(key: ThresholdKey, len: usize, mut bounds: Vec<Bound>) -> Self {
        bounds.sort_unstable_by(|left, right| {
            let order = |bound: &Bound| (bound.is_lower, bound.position);
            left.key.total_cmp(&right.key).then_with(|| order(left).cmp(&order(right)))
        });
        let block = bounds.len().div_ceil(BLOCKS_MAX).next_multiple_of(GROUP);
        let words = bitset::words_for(len);
        let count = bounds.len().div_ceil(block) + 1;
        let mut rows = vec![0; count * words];
        let row = |number: usize| number * words..(number + 1) * words;
        let mut earlier = vec![0; words];
        for (number, block) in bounds.chunks(block).enumerate() {
            let upper = block.iter().filter(|bound| !bound.is_lower);
            upper.for_each(|bound| bitset::set(&mut earlier, bound.position));
            rows[row(number + 1)].copy_from_slice(&earlier);
        }
        let mut later = vec![0; words];
        for (number, block) in bounds.chunks(block).enumerate().rev() {
            bitset::or(&mut rows[row(number)], &later);
            let lower = block.iter().filter(|bound| bound.is_lower);
            lower.for_each(|bound| bitset::set(&mut later, bound.position));
        }
        Thresholds {
            slot: key.slot,
            missing_passes: key.missing_passes,
            all: Bits::of(len, bounds.iter().map(|bound| bound.position)),
            groups: bounds.chunks(GROUP).map(Group::new).collect(),
            block: block / GROUP,
            last_keys: bounds.chunks(block).map(|block| block[block.len() - 1].key).collect(),
            words,
            rows: rows.into(),
        }
    }

    /// What fails at `value`.
    #[inline]
    fn failing(&self, value: &Value) -> Failing<'_> {
        let value = match value {
            Value::Number(number) => *number,
            Value::Null if self.missing_passes => return Failing::default(),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                return Failing { row: &self.all.0, ..Failing::default() };
            }
        };
        let number = self.last_keys.partition_point(|key| *key <= value);
        let row = &self.rows[number * self.words..(number + 1) * self.words];
        let (first, end) = (number * self.block, (number + 1) * self.block);
        let groups = self.groups.get(first..end.min(self.groups.len())).unwrap_or(&[]);
        Failing { row, groups, value }
    }
}

/// What fails the thresholds of one fact: a row, and what fails at the value of some groups.
#[derive(Clone, Copy, Debug, Default)]
struct Failing<'a> {
    row: &'a [u64],
    groups: &'a [Group],
    value: f64,
}

/// Facts whose thresholds are looked up before any is applied.
const AT_ONCE: usize = 24;

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
    fn fail_into(&self, value: &Value, into: &mut [u64], spare: &mut Vec<u64>) {
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

fn fail_asking<'a>(asking: &Bits, answered: impl Iterator<Item = &'a Members>, into: &mut [u64], spare: &mut Vec<u64>) {
    spare.clear();
    spare.extend_from_slice(&asking.0);
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
    missing_passes: bool,
}

/// See the module. Built by [`Builder`].
#[derive(Clone, Debug, Default)]
pub struct PredicateIndex {
    thresholds: Arc<[Thresholds]>,
    memberships: Arc<[Memberships]>,
    segments: Arc<[SegmentLayer]>,
    others: Arc<[(Check, Members)]>,
    /// What fails whatever the world, if there is anything.
    failing: Option<Arc<Bits>>,
}

impl PredicateIndex {
    /// Whether nothing is required of any position.
    pub fn is_empty(&self) -> bool {
        self.thresholds.is_empty()
            && self.memberships.is_empty()
            && self.segments.is_empty()
            && self.others.is_empty()
            && self.failing.is_none()
    }

    /// The same index, by which `positions` fail too. O(positions), whatever the size of the index.
    #[must_use]
    pub fn with_failing(&self, positions: &Bits) -> Self {
        let mut failing = positions.clone();
        if let Some(known) = &self.failing {
            bitset::or(&mut failing.0, &known.0);
        }
        PredicateIndex { failing: failing.if_any().map(Arc::new), ..self.clone() }
    }

    /// Sets the bit of every position with a test that fails in `world`. `spare` is scratch.
    pub fn fail_into(&self, world: &World<'_>, into: &mut [u64], spare: &mut Vec<u64>) {
        if let Some(failing) = &self.failing {
            bitset::or(into, &failing.0);
        }
        // Looking up waits for memory, and many lookups can wait at once: they come before the work on what they find.
        for thresholds in self.thresholds.chunks(AT_ONCE) {
            let failing: SmallVec<[Failing<'_>; AT_ONCE]> =
                thresholds.iter().map(|thresholds| thresholds.failing(world.value(thresholds.slot))).collect();
            bitset::or_all(into, failing.iter().map(|failing| failing.row).filter(|row| !row.is_empty()));
            for Failing { row: _, groups, value } in &failing {
                groups.iter().for_each(|group| group.fail_into(*value, into));
            }
        }
        for memberships in &*self.memberships {
            memberships.fail_into(world.value(memberships.slot), into, spare);
        }
        for layer in &*self.segments {
            let answered = world.segments().iter().filter_map(|segment| layer.members.get(segment));
            fail_asking(&layer.asking, answered, into, spare);
        }
        for (test, members) in &*self.others {
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
    thresholds: BTreeMap<ThresholdKey, Vec<Bound>>,
    memberships: BTreeMap<(Slot, bool, u32), MembershipDraft>,
    layers: BTreeMap<(Slot, bool), HashMap<u32, u32>>,
    segments: Vec<BTreeMap<u32, Vec<u32>>>,
    segment_layers: HashMap<u32, u32>,
    others: BTreeMap<Vec<u8>, (Check, Vec<u32>)>,
    failing: Option<Bits>,
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
            failing: None,
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
            Check::Constant(false) => {
                let failing = self.failing.get_or_insert_with(|| Bits::none(self.len));
                bitset::set(&mut failing.0, position);
            }
            Check::Program(_) => self.require_other(test, position),
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
        let mut bound = |threshold: f64, past: bool, is_lower: bool| {
            // −0 and 0 are one bound.
            let threshold = if threshold == 0.0 { 0.0 } else { threshold };
            let key = if past { threshold.next_up() } else { threshold };
            let list = self.thresholds.entry(ThresholdKey { slot, missing_passes }).or_default();
            list.push(Bound { key, position, is_lower });
        };
        match (operator, expected) {
            (Operator::Gt, Value::Number(threshold)) => bound(*threshold, true, true),
            (Operator::Gte, Value::Number(threshold)) => bound(*threshold, false, true),
            (Operator::Lt, Value::Number(threshold)) => bound(*threshold, false, false),
            (Operator::Lte, Value::Number(threshold)) => bound(*threshold, true, false),
            (Operator::Between, Value::List(range)) if let [Value::Number(low), Value::Number(high)] = **range => {
                bound(low, false, true);
                bound(high, true, false);
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
            failing: self.failing.map(Arc::new),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOTS: u16 = 3;
    const SEGMENTS: u32 = 4;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-3i8..4).prop_map(|number| Value::Number(f64::from(number) / 2.0)),
            Just(Value::Number(-0.0)),
            prop::sample::select(vec!["a", "b", "ab", "2026-01-31", "2026-01-31T00:00:00Z"]).prop_map(Value::text),
            Just(Value::list([Value::Number(1.0), Value::text("a")])),
        ]
    }

    fn check() -> impl Strategy<Value = Check> {
        let expected = prop_oneof![value(), prop::collection::vec(value(), 0..4).prop_map(Value::list)];
        let operator = prop::sample::select(Operator::ALL);
        let on_missing = prop::sample::select(OnMissing::ALL);
        let condition = (0..SLOTS, operator, expected, on_missing);
        prop_oneof![
            12 => condition.prop_map(|(slot, operator, expected, on_missing)| Check::Condition {
                slot: Slot(slot),
                operator,
                expected,
                on_missing,
            }),
            2 => prop::collection::vec(0..SEGMENTS, 1..3).prop_map(|segments| Check::Segments(segments.into())),
            1 => any::<bool>().prop_map(Check::Constant),
        ]
    }

    proptest! {
        #[test]
        fn index_fails_exactly_what_fails_a_check(
            len in 1u32..300,
            required in prop::collection::vec((any::<u32>(), check()), 0..400),
            worlds in prop::collection::vec(
                (prop::collection::vec(value(), SLOTS as usize), prop::collection::btree_set(0..SEGMENTS, 0..3)), 1..8,
            ),
        ) {
            let mut builder = Builder::new(len as usize);
            for (raw, check) in &required {
                builder.require(check, raw % len);
            }
            let index = builder.build();
            let words = bitset::words_for(len as usize);
            let mut spare = vec![0; words];
            for (facts, segments) in worlds {
                let world = World {
                    facts: facts.iter().collect(),
                    segments: segments.into_iter().collect(),
                    ..World::of_nothing()
                };
                let mut failing = vec![0; words];
                index.fail_into(&world, &mut failing, &mut spare);
                let mut expected = Bits::none(len as usize);
                for (raw, check) in &required {
                    if !check.holds(&world) {
                        bitset::set(&mut expected.0, raw % len);
                    }
                }
                prop_assert_eq!(
                    bitset::ones(&failing).collect::<Vec<_>>(),
                    bitset::ones(&expected.0).collect::<Vec<_>>()
                );
            }
        }
    }

    #[test]
    fn thresholds_beyond_one_stride_are_found_from_cumulative_bitsets() {
        let len = 5_000;
        let mut builder = Builder::new(len);
        let check = |bound: u32| Check::Condition {
            slot: Slot(0),
            operator: Operator::Gte,
            expected: Value::Number(f64::from(bound)),
            on_missing: OnMissing::Fail,
        };
        (0..len as u32).for_each(|position| builder.require(&check(position), position));
        let index = builder.build();
        let mut spare = vec![0; bitset::words_for(len)];
        for value in [-1, 0, 63, 64, 777, 4_998, 4_999, 6_000] {
            let fact = Value::Number(f64::from(value));
            let world = World { facts: smallvec::smallvec![&fact], segments: Vec::new(), ..World::of_nothing() };
            let mut failing = vec![0; bitset::words_for(len)];
            index.fail_into(&world, &mut failing, &mut spare);
            let passing = (0..len as u32).filter(|position| !bitset::has(&failing, *position)).count() as i32;
            assert_eq!(passing, (value + 1).clamp(0, len as i32));
        }
    }
}
