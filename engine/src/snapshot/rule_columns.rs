//! What rules ask of each offer, over a segment: once for a selection's own rules, once for each wide rule that looks at the
//! offer, then put together.

use std::sync::Arc;

use super::bitset::{self, Bits, put};
use super::checks::Check;
use super::columns::BOUND_SLACK;
use super::predicates::{Builder, PredicateIndex};
use super::rules::{Effect, Question, Rule, Scopes, Selector};
use super::segment::Segment;
use super::shared::Shared;
use super::world::{OfferWorld, World};
use crate::keys::RuleKey;

/// Rules of one selection over a segment.
#[derive(Clone, Debug)]
pub struct RuleColumns {
    /// Hard tests that read no offer, by position, and what is known to fail.
    pub index: PredicateIndex,
    /// The same by creative.
    pub creative_index: PredicateIndex,
    /// Positions with a hard rule that must be evaluated for them (slots do not matter), if there are any.
    pub late: Option<Arc<Bits>>,
    /// Positions with a creative that has such a rule.
    pub late_creatives: Arc<[u32]>,
    /// Positions with a soft rule of their own or of a creative.
    pub soft: Arc<Bits>,
    /// Logarithm of the largest product of boosts of any offer.
    pub boost_bound: f64,
    own: OwnRules,
}

/// What the rules that name offers make, without the wide ones.
#[derive(Clone, Debug)]
struct OwnRules {
    index: PredicateIndex,
    late: Option<Arc<Bits>>,
    boost: f64,
}

/// A wide hard rule that looks at the offer, over a segment.
#[derive(Clone, Debug)]
pub struct WideColumn {
    /// Positions whose stored fields alone fail it, if there are any.
    failing: Option<Bits>,
    /// Positions it must be evaluated for, if there are any.
    late: Option<Bits>,
}

/// The wide rules of a selection, as far as they are part of its columns.
struct WideRules<'a> {
    columns: Vec<&'a Arc<WideColumn>>,
    boost: f64,
}

impl<'a> WideRules<'a> {
    fn new(shared: &Shared, columns: &'a [Option<Arc<WideColumn>>], selector: &Selector<RuleKey>) -> Self {
        let selected = || shared.wide_rules.iter().zip(columns).filter(|((rule, _), _)| selector.selects(&rule.key));
        let boosts = selected().map(|((rule, _), _)| match rule.effect {
            Effect::Ranking { boost } => raise(boost),
            Effect::Hard | Effect::Match { .. } => 0.0,
        });
        WideRules { boost: boosts.sum(), columns: selected().filter_map(|(_, column)| column.as_ref()).collect() }
    }
}

impl PartialEq for WideRules<'_> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(left, right): (&&Arc<WideColumn>, &&Arc<WideColumn>)| Arc::ptr_eq(left, right);
        self.boost == other.boost
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(same)
    }
}

/// The columns of all wide rules of `shared`. Those of `was` are kept whose rule is the same and reads none of the fields
/// `changed`.
pub(crate) fn wide_columns(
    segment: &Segment,
    shared: &Shared,
    was: Option<&Shared>,
    changed: &[u16],
) -> Box<[Option<Arc<WideColumn>>]> {
    let columns = shared.wide_rules.iter().enumerate().map(|(number, (rule, scopes))| {
        if rule.effect != Effect::Hard || !rule.question.looks_at_offers() {
            return None;
        }
        let known = was.and_then(|was| was.same_wide_rule(shared, number));
        match known.and_then(|known| segment.wide[known].as_ref()) {
            Some(known) if !rule.question.reads_any(changed) => Some(Arc::clone(known)),
            Some(_) | None => Some(Arc::new(WideColumn::new(segment, shared, rule, scopes))),
        }
    });
    columns.collect()
}

/// The columns of all selections of `shared`, given the columns of its wide rules. Those of `was` are kept where nothing
/// they are made of differs.
pub(crate) fn rule_columns(
    segment: &Segment,
    shared: &Shared,
    wide: &[Option<Arc<WideColumn>>],
    was: Option<&Shared>,
    changed: &[u16],
) -> Box<[Arc<RuleColumns>]> {
    let own_is_stale = !changed.is_empty() && segment.rules.iter().any(|rule| rule.question.reads_any(changed));
    let columns = shared.parts.rules.values().iter().map(|selector| {
        let now = WideRules::new(shared, wide, selector);
        let known = was.filter(|_| !own_is_stale).and_then(|was| {
            let number = was.parts.rules.values().iter().position(|known| known == selector)?;
            Some((&segment.rule_columns[number], WideRules::new(was, &segment.wide, selector)))
        });
        match known {
            Some((columns, before)) if before == now => Arc::clone(columns),
            Some((columns, _)) => Arc::new(columns.under(&now)),
            None => Arc::new(RuleColumns::new(segment, shared, selector).under(&now)),
        }
    });
    columns.collect()
}

impl RuleColumns {
    /// Without the wide rules.
    fn new(segment: &Segment, shared: &Shared, selector: &Selector<RuleKey>) -> Self {
        let mut index = Builder::new(segment.len);
        let mut late = Bits::none(segment.len);
        let mut soft = Bits::none(segment.len);
        let mut boosts = vec![0.0f64; segment.len];
        for (position, offer) in segment.by_key() {
            for number in segment.rules_of.of(position) {
                let rule = &segment.rules[*number as usize];
                match (rule.effect, &rule.question) {
                    _ if !selector.selects(&rule.key) => {}
                    (Effect::Hard, Question::Request(check)) => index.require(check, position),
                    (Effect::Hard, Question::Recency { .. }) => {}
                    (Effect::Hard, Question::Program(_) | Question::Field { .. } | Question::Propensity { .. }) => {
                        match settle(segment, shared, &rule.question, position) {
                            Some(passes) => index.require(&Check::Constant(passes), position),
                            None => put(&mut late.0, position, true),
                        }
                    }
                    (Effect::Match { .. }, _) => put(&mut soft.0, position, true),
                    (Effect::Ranking { boost }, _) => {
                        put(&mut soft.0, position, true);
                        boosts[position as usize] += raise(boost);
                    }
                }
            }
            let required = segment.required.of(position);
            if !required.is_empty() {
                index.require(&Check::Segments(required.into()), position);
            }
            if offer.body.eligibility.propensity_threshold.is_some_and(|least| least > 0.0) {
                put(&mut late.0, position, true);
            }
        }
        let (creative_index, late_creatives) = index_creatives(segment, selector, &mut soft, &mut boosts);
        let (index, late) = (index.build(), late.if_any().map(Arc::new));
        RuleColumns {
            own: OwnRules {
                index: index.clone(),
                late: late.clone(),
                boost: boosts.iter().copied().fold(0.0, f64::max),
            },
            index,
            creative_index,
            late,
            late_creatives,
            soft: Arc::new(soft),
            boost_bound: 0.0,
        }
    }

    /// The same own rules beside these wide ones. O(positions · wide rules), whatever the number of own rules.
    fn under(&self, wide: &WideRules<'_>) -> Self {
        let mut failing = Bits::default();
        let mut late = self.own.late.clone();
        for column in &wide.columns {
            if let Some(more) = &column.failing {
                unite(&mut failing, more);
            }
            if let Some(more) = &column.late {
                unite(Arc::make_mut(late.get_or_insert_default()), more);
            }
        }
        let boost = self.own.boost + wide.boost;
        RuleColumns {
            index: if failing.0.is_empty() { self.own.index.clone() } else { self.own.index.with_failing(&failing) },
            late,
            boost_bound: if boost > 0.0 { boost + BOUND_SLACK } else { 0.0 },
            ..self.clone()
        }
    }
}

fn unite(into: &mut Bits, more: &Bits) {
    if into.0.is_empty() {
        into.clone_from(more);
    } else {
        bitset::or(&mut into.0, &more.0);
    }
}

impl WideColumn {
    fn new(segment: &Segment, shared: &Shared, rule: &Rule, scopes: &Scopes) -> Self {
        let mut members = if scopes.global { Bits::all(segment.len) } else { Bits::none(segment.len) };
        let (categories, sub_categories) = (&segment.by_category, &segment.by_sub_category);
        scopes.categories.iter().filter_map(|key| categories.get(key)).for_each(|m| m.or_into(&mut members.0));
        scopes.sub_categories.iter().filter_map(|key| sub_categories.get(key)).for_each(|m| m.or_into(&mut members.0));
        let (mut failing, mut late) = (Bits::none(segment.len), Bits::none(segment.len));
        for position in bitset::ones(&members.0) {
            match settle(segment, shared, &rule.question, position) {
                Some(true) => {}
                Some(false) => put(&mut failing.0, position, true),
                None => put(&mut late.0, position, true),
            }
        }
        WideColumn { failing: failing.if_any(), late: late.if_any() }
    }
}

/// The answer for an offer, if its stored fields alone decide it.
fn settle(segment: &Segment, shared: &Shared, question: &Question, position: u32) -> Option<bool> {
    let world = World::of_nothing();
    question.settled(&OfferWorld::new(&world, shared, segment, position))
}

fn raise(boost: f64) -> f64 {
    libm::log(boost.max(1.0))
}

fn index_creatives(
    segment: &Segment,
    selector: &Selector<RuleKey>,
    soft: &mut Bits,
    boosts: &mut [f64],
) -> (PredicateIndex, Arc<[u32]>) {
    if segment.rules_of_content.items().is_empty() {
        return (PredicateIndex::default(), Arc::default());
    }
    let mut index = Builder::new(segment.contents.items().len());
    let mut late = Vec::new();
    for position in 0..segment.len as u32 {
        let mut best = 0.0f64;
        for place in segment.contents.range(position) {
            let mut raised = 0.0;
            for number in segment.rules_of_content.of(place as u32) {
                let rule = &segment.rules[*number as usize];
                match (&rule.question, rule.effect) {
                    _ if !selector.selects(&rule.key) => {}
                    (Question::Request(check), Effect::Hard) => index.require(check, place as u32),
                    (
                        Question::Program(_)
                        | Question::Field { .. }
                        | Question::Recency { .. }
                        | Question::Propensity { .. },
                        Effect::Hard,
                    ) => late.push(position),
                    (_, Effect::Match { .. }) => put(&mut soft.0, position, true),
                    (_, Effect::Ranking { boost }) => {
                        put(&mut soft.0, position, true);
                        raised += raise(boost);
                    }
                }
            }
            best = best.max(raised);
        }
        boosts[position as usize] += best;
    }
    late.dedup();
    (index.build(), late.into())
}
