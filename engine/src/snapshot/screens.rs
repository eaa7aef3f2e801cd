//! What filters ask of each offer, compiled to tests, and over a segment to bits: what stored fields alone decide is decided
//! once, what no offer decides once per request, and only the rest is evaluated offer by offer.

use std::sync::Arc;

use super::bitset::{Bits, put};
use super::checks::Check;
use super::rules::{Question, compare_name};
use super::segment::Segment;
use super::shared::Shared;
use super::slots::Names;
use super::world::{OfferWorld, World};
use crate::decide::decision::RemovalReason;
use crate::expr::{Environment, Pattern, Resolver, Source};
use crate::model::filter::{Combinator, FilterCondition, FilterGroup, FilterTerm};
use crate::model::rule::OnMissing;

/// One test of one filter, or a hard guardrail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Number of the test.
    pub test: usize,
    /// What an offer that fails it is told.
    pub reason: RemovalReason,
}

/// A question about offer, customer and request together.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// One question.
    Ask(Question),
    /// A pattern is in a value.
    Matches {
        /// Where the value is found.
        source: Source,
        /// What must be in it.
        pattern: Pattern,
    },
    /// All of these hold.
    All(Vec<Test>),
    /// One of these holds.
    Any(Vec<Test>),
}

impl Test {
    /// The tests of a filter, all of which must hold: apart, so that each is evaluated no more often than it must be.
    pub(crate) fn conjuncts(names: &mut Names, filter: &FilterGroup) -> Vec<Test> {
        match filter.combinator {
            Combinator::And => filter.conditions.iter().map(|term| Test::of_term(names, term)).collect(),
            Combinator::Or => vec![Test::of_group(names, filter)],
        }
    }

    fn of_group(names: &mut Names, group: &FilterGroup) -> Test {
        let parts = group.conditions.iter().map(|term| Test::of_term(names, term)).collect();
        match group.combinator {
            Combinator::And => Test::All(parts),
            Combinator::Or => Test::Any(parts),
        }
    }

    fn of_term(names: &mut Names, term: &FilterTerm) -> Test {
        match term {
            FilterTerm::Condition(condition) => Test::of_condition(names, condition),
            FilterTerm::Group(group) => Test::of_group(names, group),
        }
    }

    fn of_condition(names: &mut Names, condition: &FilterCondition) -> Test {
        if let Some(operator) = condition.operator.as_rule_operator() {
            return Test::Ask(compare_name(names, condition.name(), operator, &condition.value, OnMissing::Fail));
        }
        let source = names.resolve(&condition.name());
        match Pattern::new(condition.value.as_text().unwrap_or_default()) {
            Ok(pattern) => Test::Matches { source, pattern },
            // None is stored that does not compile.
            Err(_) => Test::Ask(Question::Request(Check::Constant(false))),
        }
    }

    /// The answer for one offer.
    pub(crate) fn holds(&self, at: &OfferWorld<'_, '_>) -> bool {
        match self {
            Test::Ask(question) => question.holds(at, None),
            Test::Matches { source, pattern } => match source {
                Source::Fact(slot) => pattern.is_in(at.world.value(*slot)),
                Source::Offer(field) => pattern.is_in(&at.offer(*field)),
                Source::Constant(value) => pattern.is_in(value),
            },
            Test::All(parts) => parts.iter().all(|part| part.holds(at)),
            Test::Any(parts) => parts.iter().any(|part| part.holds(at)),
        }
    }

    /// Whether the answer can differ from offer to offer.
    pub(crate) fn looks_at_offers(&self) -> bool {
        match self {
            Test::Ask(question) => question.looks_at_offers(),
            Test::Matches { source, .. } => matches!(source, Source::Offer(_)),
            Test::All(parts) | Test::Any(parts) => parts.iter().any(Test::looks_at_offers),
        }
    }

    /// The answer for every offer, of a test that looks at none.
    pub(crate) fn holds_for_all(&self, world: &World<'_>) -> bool {
        match self {
            Test::Ask(Question::Request(check)) => check.holds(world),
            Test::Ask(
                Question::Program(_) | Question::Field { .. } | Question::Recency { .. } | Question::Propensity { .. },
            ) => false,
            Test::Matches { source, pattern } => match source {
                Source::Fact(slot) => pattern.is_in(world.value(*slot)),
                Source::Offer(_) => false,
                Source::Constant(value) => pattern.is_in(value),
            },
            Test::All(parts) => parts.iter().all(|part| part.holds_for_all(world)),
            Test::Any(parts) => parts.iter().any(|part| part.holds_for_all(world)),
        }
    }

    /// Whether any of these fields of the offer is read, except by computed ones.
    fn reads_any(&self, fields: &[u16]) -> bool {
        match self {
            Test::Ask(question) => question.reads_any(fields),
            Test::Matches { source: Source::Offer(field), .. } => fields.contains(field),
            Test::Matches { source: Source::Fact(_) | Source::Constant(_), .. } => false,
            Test::All(parts) | Test::Any(parts) => parts.iter().any(|part| part.reads_any(fields)),
        }
    }

    /// The answer, if offer `at` alone decides it.
    fn settled(&self, at: &OfferWorld<'_, '_>) -> Option<bool> {
        match self {
            Test::Ask(question) => question.settled(at),
            Test::Matches { source, pattern } => match source {
                Source::Fact(_) => None,
                Source::Offer(field) => {
                    let column = &at.segment.fields[usize::from(*field)];
                    column.is_stored(at.position).then(|| pattern.is_in(&at.offer(*field)))
                }
                Source::Constant(value) => Some(pattern.is_in(value)),
            },
            Test::All(parts) => settle(parts.iter().map(|part| part.settled(at)), false),
            Test::Any(parts) => settle(parts.iter().map(|part| part.settled(at)), true),
        }
    }
}

/// What parts come to of which one that is `decisive` decides.
fn settle(parts: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut answer = Some(!decisive);
    for part in parts {
        match part {
            Some(part) if part == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

/// A test that looks at offers, over a segment.
#[derive(Clone, Debug)]
pub struct TestColumn {
    /// Positions whose stored fields alone fail it, if there are any.
    pub(crate) failing: Option<Bits>,
    /// Positions it must be evaluated for, if there are any.
    pub(crate) late: Option<Bits>,
}

impl TestColumn {
    fn new(segment: &Segment, shared: &Shared, test: &Test) -> Self {
        let world = World::of_nothing();
        let (mut failing, mut late) = (Bits::none(segment.len), Bits::none(segment.len));
        for position in 0..segment.len as u32 {
            match test.settled(&OfferWorld::new(&world, shared, segment, position)) {
                Some(true) => {}
                Some(false) => put(&mut failing.0, position, true),
                None => put(&mut late.0, position, true),
            }
        }
        TestColumn { failing: failing.if_any(), late: late.if_any() }
    }
}

/// The columns of all tests of `shared`; of those that look at no offer there is none. Those of `was` are kept whose test is
/// the same and reads none of the fields `changed`.
pub(crate) fn test_columns(
    segment: &Segment,
    shared: &Shared,
    was: Option<&Shared>,
    changed: &[u16],
) -> Box<[Option<Arc<TestColumn>>]> {
    let columns = shared.parts.tests.values().iter().map(|test| {
        if !test.looks_at_offers() {
            return None;
        }
        let known = was.and_then(|was| was.parts.tests.values().iter().position(|known| known == test));
        match known.and_then(|known| segment.tests[known].as_ref()) {
            Some(known) if !test.reads_any(changed) => Some(Arc::clone(known)),
            Some(_) | None => Some(Arc::new(TestColumn::new(segment, shared, test))),
        }
    });
    columns.collect()
}
