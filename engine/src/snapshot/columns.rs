//! Scores as columns: per scoring plan the log-sum that no customer changes, and per block of offers an upper bound.

use super::bitset::Bits;
use super::flows::{Plan, WeightSet};
use super::segment::Segment;
use super::slots::FACTORS_FROM;
use super::world::OfferWorld;
use crate::decide::score::{
    Aims, LargestValues, NEUTRAL_PROPENSITY, Prieu, exponents, impact, log_priority, log_priority_weighted,
    log_propensity, term, uplift_base, weigh,
};
use crate::expr::{Environment, Program};
use crate::keys::{CategoryKey, ModelKey, Slot};
use crate::model::flow::{Relevance, ScoreMethod};
use crate::model::objective::Objectives;
use crate::model::offer::Offer;
use crate::time::Timestamp;
use crate::value::Value;

/// Offers per block: eight words of a bitset.
pub const BLOCK: usize = 512;

/// More than logarithms and sums can be off by.
pub(crate) const BOUND_SLACK: f64 = 1e-9;

/// Creative weight that leaves a score as it is.
pub const FULL_WEIGHT: u8 = 100;

impl Plan {
    /// The weights of an offer: the first override that matches it, else the plan's.
    pub fn weights(&self, offer: &Offer, category: Option<CategoryKey>) -> &WeightSet {
        let matching = self.overrides.iter().find(|(of_category, of_type, _)| {
            of_category.is_none_or(|of| of.is_some() && of == category)
                && of_type.as_ref().is_none_or(|of| *of == offer.product_type)
        });
        matching.map_or(&self.base, |(_, _, set)| set)
    }

    /// Whether scores depend on the largest margin or revenue value.
    pub fn is_relative(&self) -> bool {
        self.impact.as_ref().is_some_and(|blend| blend.margin != 0.0 || blend.revenue_value != 0.0)
            || self.objectives.as_ref().is_some_and(Objectives::is_relative)
    }

    /// Whether R differs from customer to customer.
    pub fn is_relevance_on(&self) -> bool {
        let Relevance { channel_match, freshness, segment_match, half_life_days: _ } = &self.relevance;
        channel_match.is_some() || freshness.is_some() || segment_match.is_some()
    }

    /// The models that it scores by.
    pub fn models(&self) -> impl Iterator<Item = ModelKey> {
        let sets = std::iter::once(&self.base).chain(self.overrides.iter().map(|(_, _, set)| set));
        sets.filter_map(|set| set.model)
    }

    /// By how much a P of at most `ceiling`, in place of 0.5, can raise a log-score; negative if it lowers all of them.
    pub fn lift(&self, ceiling: f64) -> f64 {
        if self.priority_only || self.formula.is_some() {
            return 0.0;
        }
        let ratio = term(1.0, ceiling) - term(1.0, NEUTRAL_PROPENSITY);
        let sets = std::iter::once(&self.base).chain(self.overrides.iter().map(|(_, _, set)| set));
        let weights = sets.map(WeightSet::propensity_weight);
        if self.objectives.is_some() {
            // A sum of scores rises no more than the term of it that rises most, and one that does not look at P stays.
            return weights.fold(1.0, f64::max) * ratio.max(0.0) + BOUND_SLACK;
        }
        weights.map(|weight| weight * ratio).fold(f64::NEG_INFINITY, f64::max) + BOUND_SLACK
    }

    /// Whether P is among what an offer is scored by.
    fn reads_propensity(&self, set: &WeightSet) -> bool {
        let aims = self.objectives.as_ref();
        let method_counts = aims.is_none_or(|objectives| objectives.score != 0.0);
        !self.priority_only
            && (method_counts && set.propensity_weight() != 0.0
                || aims.is_some_and(|objectives| objectives.propensity != 0.0))
    }

    /// The factors of an offer whose P and R are these.
    pub fn factors(
        &self,
        offer: &Offer,
        set: &WeightSet,
        propensity: f64,
        relevance: f64,
        largest: &LargestValues,
    ) -> Prieu {
        Prieu {
            propensity,
            relevance,
            impact: impact(self.impact.as_ref(), offer.business_value.0, offer.margin, offer.revenue_value, largest),
            emphasis: f64::from(offer.priority.0) / 100.0,
            uplift: uplift_base(0.0, set.weights.uplift_scale),
        }
    }

    /// What objectives make of an offer whose method gives `terms`, if there are any.
    pub fn optimized(
        &self,
        offer: &Offer,
        set: &WeightSet,
        terms: f64,
        propensity: f64,
        relevance: f64,
        largest: &LargestValues,
    ) -> Option<f64> {
        let objectives = self.objectives.as_ref().filter(|_| !self.priority_only)?;
        let aims = Aims {
            method_terms: terms,
            prieu: &self.factors(offer, set, propensity, relevance, largest),
            business_value: offer.business_value.0,
            margin: offer.margin,
            revenue_value: offer.revenue_value,
        };
        Some(weigh(objectives, &aims, largest))
    }

    /// The log-sum, but for modifiers, of an offer whose P and R are these, shown with a creative of `weight` percent: the
    /// method's, or of what the objectives make of it.
    pub fn terms(
        &self,
        offer: &Offer,
        category: Option<CategoryKey>,
        propensity: f64,
        relevance: f64,
        weight: u8,
        largest: &LargestValues,
    ) -> f64 {
        let terms = self.method_terms(offer, category, propensity, relevance, weight, largest);
        if self.objectives.is_none() {
            return terms;
        }
        let set = self.weights(offer, category);
        self.optimized(offer, set, terms, propensity, relevance, largest).map_or(terms, |sum| term(1.0, sum))
    }

    /// The log-sum of a formula's value: what is no positive number scores 0.
    pub fn formula_terms(&self, program: &Program, at: &OfferWorld<'_, '_>, factors: &Prieu) -> f64 {
        let scored = Scored { at, factors: factors.by_name().map(Value::Number) };
        term(1.0, program.eval(&scored).as_number().unwrap_or(0.0).max(0.0))
    }

    /// The method's log-sum of an offer whose P and R are these, shown with a creative of `weight` percent.
    pub fn method_terms(
        &self,
        offer: &Offer,
        category: Option<CategoryKey>,
        propensity: f64,
        relevance: f64,
        weight: u8,
        largest: &LargestValues,
    ) -> f64 {
        if self.priority_only {
            return log_priority(offer.priority.0);
        }
        let set = self.weights(offer, category);
        match set.method {
            ScoreMethod::PriorityWeighted => log_priority_weighted(offer.priority.0, weight),
            ScoreMethod::Propensity => log_propensity(propensity),
            ScoreMethod::Formula => {
                self.factors(offer, set, propensity, relevance, largest).log_score(exponents(&set.weights))
            }
        }
    }
}

/// An offer with the factors of its score.
struct Scored<'x, 'a, 'b> {
    at: &'x OfferWorld<'a, 'b>,
    factors: [Value; 5],
}

impl Environment for Scored<'_, '_, '_> {
    fn fact(&self, slot: Slot) -> &Value {
        self.at.fact(slot)
    }

    fn offer(&self, field: u16) -> Value {
        match field.checked_sub(FACTORS_FROM) {
            Some(factor) => self.factors.get(usize::from(factor)).cloned().unwrap_or_default(),
            None => self.at.offer(field),
        }
    }

    fn now(&self) -> Timestamp {
        self.at.now()
    }
}

/// One scoring plan over a segment.
#[derive(Clone, Debug)]
pub struct PlanColumns {
    /// Log-sum with R = 1, full creative weight and P = 0.5: exact where none of them matters or differs, else an upper bound
    /// (but for P: [`Plan::lift`]); infinite where a formula scores.
    pub scores: Box<[f64]>,
    /// Offers with a factor 0 that removes them, if there are any.
    pub zero: Option<Bits>,
    /// Offers whose score depends on the creative's weight.
    pub weighted: bool,
    /// Offers whose score depends on R.
    pub relevant: bool,
    /// Offers whose score depends on P.
    pub adaptive: bool,
    /// P may come of a model.
    pub modelled: bool,
    /// Upper bound by block, in `order`.
    pub bounds: Box<[f64]>,
    /// Blocks by descending bound.
    pub order: Box<[u32]>,
}

impl PlanColumns {
    /// The columns of `plan` over a segment.
    pub(crate) fn new(plan: &Plan, segment: &Segment, largest: &LargestValues) -> Self {
        let len = segment.len;
        let (mut weighted, mut relevant, mut adaptive) = (false, false, false);
        let mut zero = Vec::new();
        let mut scores = vec![0.0; len];
        for (position, offer) in segment.by_key() {
            let (offer, category) = (&offer.body, segment.categories[position as usize]);
            if plan.formula.is_some() {
                scores[position as usize] = f64::INFINITY;
                continue;
            }
            let set = plan.weights(offer, category);
            adaptive |= plan.reads_propensity(set);
            let method_counts = plan.objectives.as_ref().is_none_or(|objectives| objectives.score != 0.0);
            let relevance_counts = plan.objectives.as_ref().is_some_and(|objectives| objectives.relevance != 0.0);
            relevant |= relevance_counts && plan.is_relevance_on() && !plan.priority_only;
            match set.method {
                _ if plan.priority_only => {}
                ScoreMethod::PriorityWeighted => weighted |= method_counts,
                ScoreMethod::Propensity => {}
                ScoreMethod::Formula => {
                    relevant |= method_counts && plan.is_relevance_on();
                    if plan.factors(offer, set, NEUTRAL_PROPENSITY, 1.0, largest).is_removed(exponents(&set.weights)) {
                        zero.push(position);
                    }
                }
            }
            scores[position as usize] = plan.terms(offer, category, NEUTRAL_PROPENSITY, 1.0, FULL_WEIGHT, largest);
        }
        let best = |block: &[f64]| block.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut blocks: Vec<(f64, u32)> = scores.chunks(BLOCK).map(best).zip(0..).collect();
        blocks.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
        PlanColumns {
            zero: Bits::of(len, zero).if_any(),
            weighted,
            relevant,
            adaptive,
            modelled: plan.models().next().is_some(),
            bounds: blocks.iter().map(|block| block.0).collect(),
            order: blocks.iter().map(|block| block.1).collect(),
            scores: scores.into(),
        }
    }
}
