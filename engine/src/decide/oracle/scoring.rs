//! The score of one proposition.

use super::case::{Case, OfferRow};
use super::creatives::CreativeRow;
use super::slots::Slot;
use crate::decide::decision::Factors;
use crate::decide::score::{self, Aims, LargestValues, Modifiers, Prieu, RelevanceSignals, exponents};
use crate::keys::ModelKey;
use crate::learn::PropensitySource;
use crate::model::Status;
use crate::model::flow::{FormulaWeights, ScoreMethod};
use crate::model::guardrail::GuardrailMode;
use crate::model::offer::OfferKind;
use crate::model::rule::RuleStage;
use crate::time::HOUR_MS;
use crate::value::Value;

/// A score with what it is made of.
#[derive(Clone, Copy)]
pub(super) struct Scored {
    pub(super) log_score: f64,
    /// A factor of 0 with a positive weight.
    pub(super) is_removed: bool,
    pub(super) factors: Factors,
}

/// Exponents that `priority_weighted` implies.
const BY_PRIORITY: [f64; 5] = [0.0, 0.0, 0.0, 1.0, 0.0];
/// Exponents that `propensity` implies.
const BY_PROPENSITY: [f64; 5] = [1.0, 0.0, 0.0, 0.0, 0.0];

impl Case<'_> {
    /// The score of a regular proposition. A control group that is ranked `by_priority` knows neither soft factors nor
    /// creative weights.
    pub(super) fn score(
        &self,
        offer: &OfferRow,
        creative: Option<&CreativeRow>,
        slot: &Slot,
        by_priority: bool,
    ) -> Scored {
        let (method, weights) = self.method(offer, slot);
        let prieu = self.prieu(offer, slot, weights.as_ref().map_or(0.1, |weights| weights.uplift_scale));
        let source = self.resting(offer, slot);
        if by_priority {
            let log_score = Modifiers::NONE.apply(score::log_priority(offer.body.priority.0));
            return Scored {
                log_score,
                is_removed: false,
                factors: factors(&prieu, source, &Modifiers::NONE, BY_PRIORITY, None),
            };
        }
        let modifiers = self.modifiers(offer, creative, slot);
        let creative_weight = creative.map_or(100, |creative| creative.body.weight.0);
        let exponents = match method {
            _ if self.flow.formula.is_some() => [0.0; 5],
            ScoreMethod::PriorityWeighted => BY_PRIORITY,
            ScoreMethod::Propensity => BY_PROPENSITY,
            ScoreMethod::Formula => weights.as_ref().map_or([0.0; 5], exponents),
        };
        let formula =
            self.flow.formula.as_ref().map(|score| self.evaluate_score(&score.formula, offer, prieu.by_name()));
        let (terms, is_removed) = match method {
            _ if formula.is_some() => {
                let value = formula.as_ref().and_then(Value::as_number).unwrap_or(0.0);
                (score::term(1.0, value.max(0.0)), false)
            }
            ScoreMethod::PriorityWeighted => {
                (score::log_priority_weighted(offer.body.priority.0, creative_weight), false)
            }
            ScoreMethod::Propensity => (score::log_propensity(prieu.propensity), false),
            ScoreMethod::Formula => (prieu.log_score(exponents), prieu.is_removed(exponents)),
        };
        let aims = Aims {
            method_terms: terms,
            prieu: &prieu,
            business_value: offer.body.business_value.0,
            margin: offer.body.margin,
            revenue_value: offer.body.revenue_value,
        };
        let objectives = self.flow.objectives.as_ref();
        let optimized = objectives.map(|objectives| score::weigh(objectives, &aims, &self.largest_values()));
        let terms = optimized.map_or(terms, |sum| score::term(1.0, sum));
        let factors = factors(&prieu, source, &modifiers, exponents, optimized);
        Scored { log_score: modifiers.apply(terms), is_removed, factors }
    }

    /// Factors of what is not scored: mandatory and fallback offers.
    pub(super) fn unscored(&self, offer: &OfferRow, slot: &Slot) -> Factors {
        let source = self.resting(offer, slot);
        factors(&self.prieu(offer, slot, 0.1), source, &Modifiers::NONE, [0.0; 5], None)
    }

    /// What is told of where P comes from.
    fn resting(&self, offer: &OfferRow, slot: &Slot) -> Resting {
        let (model, shadow) = self.told_of_models(offer, slot);
        Resting { source: self.propensity(offer, slot).source, model, shadow }
    }

    /// Method and weights: the node's, or those of the first override whose conditions all hold.
    fn method(&self, offer: &OfferRow, slot: &Slot) -> (ScoreMethod, Option<FormulaWeights>) {
        let score = &self.flow.score;
        let applying = score.overrides.iter().find(|other| {
            other.channel.as_ref().is_none_or(|id| self.catalog.channels().key_of(&id.0) == Some(slot.channel))
                && other.category.as_ref().is_none_or(|id| Some(id) == offer.body.category_id.as_ref())
                && other.product_type.as_ref().is_none_or(|product_type| *product_type == offer.body.product_type)
        });
        let method = applying.and_then(|other| other.method).unwrap_or(score.method);
        let weights = applying.and_then(|other| other.formula.clone()).or_else(|| score.formula.clone());
        (method, weights)
    }

    fn prieu(&self, offer: &OfferRow, slot: &Slot, uplift_scale: f64) -> Prieu {
        let body = &offer.body;
        let mut preferred: Vec<&String> = body.preferred_segments.iter().collect();
        preferred.sort_unstable();
        preferred.dedup();
        let shared = preferred.iter().filter(|segment| self.segments.contains(**segment)).count();
        let signals = RelevanceSignals {
            on_channel: !self.creatives_on(offer, slot.channel).is_empty(),
            last_shown: self.profile.last_shown(offer.key),
            segments: (shared, preferred.len()),
        };
        let (relevance, blend) = match &self.flow.formula {
            Some(formula) => (&formula.relevance, formula.impact.as_ref()),
            None => (&self.flow.score.relevance, self.flow.score.impact.as_ref()),
        };
        let impact =
            score::impact(blend, body.business_value.0, body.margin, body.revenue_value, &self.largest_values());
        Prieu {
            propensity: self.propensity(offer, slot).value,
            relevance: score::relevance(relevance, &signals, self.now()),
            impact,
            emphasis: f64::from(body.priority.0) / 100.0,
            uplift: score::uplift_base(0.0, uplift_scale),
        }
    }

    fn largest_values(&self) -> LargestValues {
        let mut largest = LargestValues::default();
        for offer in self.catalog.offers().iter() {
            if offer.body.kind == OfferKind::General && offer.body.status == Status::Active {
                largest.include(offer.body.margin, offer.body.revenue_value);
            }
        }
        largest
    }

    /// Match, fatigue, boost: soft rules see the chosen creative.
    fn modifiers(&self, offer: &OfferRow, creative: Option<&CreativeRow>, slot: &Slot) -> Modifiers {
        let settings = self.catalog.settings();
        let half_life = offer.body.fatigue.half_life_hours.unwrap_or(settings.fatigue_half_life_hours);
        let strength = offer.body.fatigue.strength.unwrap_or(settings.fatigue_strength);
        let value = self.profile.fatigue(offer.key, half_life * HOUR_MS as f64, self.now());
        let mut modifiers = Modifiers { fatigue: score::fatigue_factor(strength, value), ..Modifiers::NONE };
        for rule in self.rules() {
            let scopes = rule.body.all_scopes();
            let binds = self.binds(&scopes, offer, slot)
                || creative.is_some_and(|creative| Self::binds_creative(&scopes, creative));
            if !binds {
                continue;
            }
            let passes = self.passes(&rule, offer);
            match rule.body.effective_stage() {
                RuleStage::Match if !passes => modifiers.matching *= self.config(&rule).multiplier(),
                RuleStage::Ranking if passes => modifiers.boost *= self.config(&rule).boost(),
                RuleStage::Eligibility | RuleStage::Fit | RuleStage::Match | RuleStage::Ranking => {}
            }
        }
        for guardrail in self.guardrails(GuardrailMode::Soft) {
            if !self.meets(&guardrail.body, offer) {
                modifiers.matching *= guardrail.body.multiplier;
            }
        }
        modifiers
    }
}

/// Where a P comes from.
#[derive(Clone, Copy)]
struct Resting {
    source: PropensitySource,
    model: Option<ModelKey>,
    shadow: Option<(ModelKey, f64)>,
}

fn factors(
    prieu: &Prieu,
    Resting { source, model, shadow }: Resting,
    modifiers: &Modifiers,
    weights: [f64; 5],
    optimized: Option<f64>,
) -> Factors {
    Factors {
        propensity: prieu.propensity,
        source,
        model,
        shadow,
        relevance: prieu.relevance,
        impact: prieu.impact,
        emphasis: prieu.emphasis,
        uplift: prieu.uplift,
        matching: modifiers.matching,
        fatigue: modifiers.fatigue,
        boost: modifiers.boost,
        weights,
        optimized,
    }
}
