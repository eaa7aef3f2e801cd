//! The arithmetic of scores (domain.md §4), shared by the kernel and the naive evaluation so that both give the same bits.
//!
//! A score is `exp(Σ w·ln f + ln match + ln fatigue + ln boost)`, summed in exactly that order in `f64`, terms of weight 0
//! left out. Ranking compares the log-sum; only the answer takes its exp. All transcendental functions are `libm`'s:
//! the same on every machine.

use crate::model::flow::{FormulaWeights, ImpactBlend, Relevance};
use crate::model::objective::Objectives;
use crate::time::{DAY_MS, Timestamp};

/// P of every offer until there is evidence or a model.
pub const NEUTRAL_PROPENSITY: f64 = 0.5;

/// Smallest R: one bad signal must not remove an offer.
pub const RELEVANCE_FLOOR: f64 = 0.01;

/// One term `weight · ln factor` of a log-sum; 0 for a weight of 0 (so that 0⁰ = 1), −∞ for a factor of 0.
pub fn term(weight: f64, factor: f64) -> f64 {
    if weight == 0.0 { 0.0 } else { weight * libm::log(factor) }
}

/// The factors of PRIE-U, in the order they are summed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prieu {
    /// P, 0–1.
    pub propensity: f64,
    /// R, 0–1.
    pub relevance: f64,
    /// I, 0–1.
    pub impact: f64,
    /// E, 0–1.
    pub emphasis: f64,
    /// 1 + t, 0–2.
    pub uplift: f64,
}

/// The exponents of PRIE-U as an array: Wp, Wr, Wi, We, Wu.
pub fn exponents(weights: &FormulaWeights) -> [f64; 5] {
    [
        weights.propensity_weight,
        weights.relevance_weight,
        weights.impact_weight,
        weights.emphasis_weight,
        weights.uplift_weight,
    ]
}

impl Prieu {
    fn factors(&self) -> [f64; 5] {
        [self.propensity, self.relevance, self.impact, self.emphasis, self.uplift]
    }

    /// P, R, I, E and τ as a formula reads them; τ is 0 while there is no estimate.
    pub fn by_name(&self) -> [f64; 5] {
        [self.propensity, self.relevance, self.impact, self.emphasis, 0.0]
    }

    /// The method terms of `formula`: `Wp·ln P + Wr·ln R + Wi·ln I + We·ln E + Wu·ln(1 + t)`, left to right.
    pub fn log_score(&self, weights: [f64; 5]) -> f64 {
        self.factors().iter().zip(weights).fold(0.0, |sum, (factor, weight)| sum + term(weight, *factor))
    }

    /// Whether a factor is 0 whose weight is positive: such an offer is removed, not ranked last.
    pub fn is_removed(&self, weights: [f64; 5]) -> bool {
        self.factors().iter().zip(weights).any(|(factor, weight)| *factor <= 0.0 && weight > 0.0)
    }
}

/// The method terms of `priority_weighted`: `ln(priority/100) + ln(weight/100)`.
pub fn log_priority_weighted(priority: u8, creative_weight: u8) -> f64 {
    term(1.0, f64::from(priority) / 100.0) + term(1.0, f64::from(creative_weight) / 100.0)
}

/// The method terms of `propensity`: `ln P`.
pub fn log_propensity(propensity: f64) -> f64 {
    term(1.0, propensity)
}

/// The method terms of a control group that is ranked by priority only: `ln(priority/100)`.
pub fn log_priority(priority: u8) -> f64 {
    term(1.0, f64::from(priority) / 100.0)
}

/// What multiplies every method's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modifiers {
    /// Product of failed match rules' multipliers, in rule order.
    pub matching: f64,
    /// Fatigue factor.
    pub fatigue: f64,
    /// Product of passed ranking rules' boosts, in rule order.
    pub boost: f64,
}

impl Modifiers {
    /// Nothing modified.
    pub const NONE: Modifiers = Modifiers { matching: 1.0, fatigue: 1.0, boost: 1.0 };

    /// The whole log-sum: method terms, then match, fatigue, boost. Factors of 1 add nothing to the bits, so it does not
    /// matter whether they are thought of as present.
    pub fn apply(&self, method_terms: f64) -> f64 {
        let boost = self.boost.min(f64::MAX);
        method_terms + term(1.0, self.matching) + term(1.0, self.fatigue) + term(1.0, boost)
    }
}

/// The score of a log-sum, finite whatever the boosts.
pub fn score(log_score: f64) -> f64 {
    libm::exp(log_score).min(f64::MAX)
}

/// The fatigue factor `1 / (1 + strength · value)` (domain.md §6).
pub fn fatigue_factor(strength: f64, value: f64) -> f64 {
    1.0 / (1.0 + strength * value)
}

/// The uplift base `1 + t`, `t = clamp(τ / scale, −1, 1)`.
pub fn uplift_base(tau: f64, scale: f64) -> f64 {
    1.0 + (tau / scale).clamp(-1.0, 1.0)
}

/// What R looks at for one offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelevanceSignals {
    /// The offer has an active creative on the channel.
    pub on_channel: bool,
    /// When the profile last saw the offer.
    pub last_shown: Option<Timestamp>,
    /// How many of the offer's preferred segments the customer is in, of how many (0 of 0: no preference).
    pub segments: (usize, usize),
}

/// R: the weighted mean of the signals that are on, at least [`RELEVANCE_FLOOR`]; 1 if none is on (or those that are have
/// nothing to say).
pub fn relevance(weights: &Relevance, signals: &RelevanceSignals, now: Timestamp) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    let mut add = |weight: f64, signal: f64| {
        sum += weight * signal;
        total += weight;
    };
    if let Some(weight) = weights.channel_match {
        add(weight, if signals.on_channel { 1.0 } else { 0.0 });
    }
    if let Some(weight) = weights.freshness {
        add(weight, freshness(signals.last_shown, weights.half_life_days, now));
    }
    if let (Some(weight), (shared, preferred @ 1..)) = (weights.segment_match, signals.segments) {
        add(weight, shared as f64 / preferred as f64);
    }
    if total > 0.0 { (sum / total).max(RELEVANCE_FLOOR) } else { 1.0 }
}

/// 1 if never shown, else `1 − 2^(−days/halfLife)`.
pub fn freshness(last_shown: Option<Timestamp>, half_life_days: f64, now: Timestamp) -> f64 {
    let Some(shown) = last_shown else { return 1.0 };
    let days = now.since_ms(shown).max(0) as f64 / DAY_MS as f64;
    1.0 - libm::exp2(-days / half_life_days)
}

/// The largest margin and revenue value among the tenant's active general offers, 0 if none is positive.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LargestValues {
    /// Of `margin`.
    pub margin: f64,
    /// Of `revenueValue`.
    pub revenue_value: f64,
}

impl LargestValues {
    /// Takes one more active general offer into account.
    pub fn include(&mut self, margin: f64, revenue_value: f64) {
        self.margin = self.margin.max(margin);
        self.revenue_value = self.revenue_value.max(revenue_value);
    }
}

/// I: `businessValue/100`, or the blend of it with margin and revenue over the largest, clamped to [0, 1].
pub fn impact(
    blend: Option<&ImpactBlend>,
    business_value: u8,
    margin: f64,
    revenue_value: f64,
    largest: &LargestValues,
) -> f64 {
    let business_value = f64::from(business_value) / 100.0;
    let Some(blend) = blend else { return business_value };
    let sum = blend.business_value * business_value
        + blend.margin * share(margin, largest.margin)
        + blend.revenue_value * share(revenue_value, largest.revenue_value);
    sum.clamp(0.0, 1.0)
}

/// A value over the largest, 0 for negative ones and where there is no largest.
fn share(value: f64, largest: f64) -> f64 {
    if largest > 0.0 { value.max(0.0) / largest } else { 0.0 }
}

/// What objectives weigh of one offer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aims<'a> {
    /// The method's log-sum.
    pub method_terms: f64,
    /// P, R, I, E.
    pub prieu: &'a Prieu,
    /// 0–100.
    pub business_value: u8,
    /// As authored.
    pub margin: f64,
    /// As authored.
    pub revenue_value: f64,
}

/// The weighted sum that takes the place of the method's score: aims in the order of [`Objectives::weights`], those of weight 0
/// left out.
pub fn weigh(objectives: &Objectives, aims: &Aims<'_>, largest: &LargestValues) -> f64 {
    let values = [
        score(aims.method_terms),
        aims.prieu.propensity,
        aims.prieu.relevance,
        aims.prieu.impact,
        aims.prieu.emphasis,
        f64::from(aims.business_value) / 100.0,
        share(aims.margin, largest.margin).min(1.0),
        share(aims.revenue_value, largest.revenue_value).min(1.0),
    ];
    let weighed = objectives.weights().into_iter().zip(values).filter(|((_, weight), _)| *weight != 0.0);
    weighed.fold(0.0, |sum, ((_, weight), value)| sum + weight * value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prieu(propensity: f64, relevance: f64, impact: f64, emphasis: f64, tau: f64) -> Prieu {
        Prieu { propensity, relevance, impact, emphasis, uplift: uplift_base(tau, 0.1) }
    }

    /// The definition as the documents write it.
    fn power_form(factors: &Prieu, weights: [f64; 5]) -> f64 {
        factors.factors().iter().zip(weights).map(|(factor, weight)| libm::pow(*factor, weight)).product()
    }

    #[test]
    fn reference_values_hold_to_six_decimals() {
        let with_uplift = [0.4, 0.15, 0.35, 0.1, 0.5];
        let table = [
            (prieu(0.5, 0.5, 0.5, 0.5, 0.0), [0.25, 0.25, 0.25, 0.25, 0.0], 0.5),
            (prieu(0.8, 0.6, 0.8, 0.7, 0.0), [0.4, 0.2, 0.3, 0.1, 0.0], 0.745252),
            (prieu(0.6, 0.8, 0.8, 0.8, 0.0), [0.4, 0.15, 0.35, 0.1, 0.0], 0.713041),
            (prieu(0.6, 0.8, 0.4, 0.7, 0.0), [0.4, 0.15, 0.35, 0.1, 0.0], 0.552020),
            (prieu(0.5, 1.0, 0.8, 0.8, 0.0), with_uplift, 0.685454),
            (prieu(0.5, 1.0, 0.8, 0.8, 0.05), with_uplift, 0.839507),
        ];
        for (factors, weights, expected) in table {
            let found = score(factors.log_score(weights));
            assert!((found - expected).abs() < 5e-7, "{factors:?}: {found}, expected {expected}");
            assert!(!factors.is_removed(weights));
        }
        assert!(prieu(0.5, 1.0, 0.8, 0.8, -0.1).is_removed(with_uplift));
    }

    #[test]
    fn a_zero_factor_removes_only_with_a_positive_weight() {
        let factors = prieu(0.0, 1.0, 0.5, 0.5, 0.0);
        assert!(factors.is_removed([0.4, 0.2, 0.2, 0.2, 0.0]));
        assert!(!factors.is_removed([0.0, 0.4, 0.3, 0.3, 0.0]));
        assert_eq!(score(factors.log_score([0.0, 1.0, 0.0, 0.0, 0.0])), 1.0);
    }

    #[test]
    fn factors_of_one_leave_every_bit_alone() {
        let terms = log_priority_weighted(37, 91);
        assert_eq!(Modifiers::NONE.apply(terms).to_bits(), terms.to_bits());
    }

    #[test]
    fn a_boost_of_zero_scores_zero_and_many_boosts_stay_finite() {
        let boosted = |boost| score(Modifiers { boost, ..Modifiers::NONE }.apply(log_priority(50)));
        assert_eq!(boosted(0.0), 0.0);
        assert!(boosted(f64::INFINITY).is_finite());
    }

    #[test]
    fn priority_weighted_multiplies_priority_and_creative_weight() {
        assert!((score(log_priority_weighted(80, 50)) - 0.4).abs() < 1e-15);
        assert_eq!(score(log_priority_weighted(0, 50)), 0.0);
        assert_eq!(score(log_priority(100)), 1.0);
        assert_eq!(score(log_propensity(NEUTRAL_PROPENSITY)), 0.5);
    }

    #[test]
    fn fatigue_halves_with_value() {
        assert_eq!(fatigue_factor(0.3, 0.0), 1.0);
        assert_eq!(fatigue_factor(0.5, 2.0), 0.5);
        assert_eq!(fatigue_factor(0.0, 9.0), 1.0);
    }

    fn weights(channel: Option<f64>, freshness: Option<f64>, segments: Option<f64>) -> Relevance {
        Relevance { channel_match: channel, freshness, segment_match: segments, half_life_days: 7.0 }
    }

    const NOW: Timestamp = Timestamp(100 * DAY_MS);

    fn signals(on_channel: bool, days_ago: Option<i64>, segments: (usize, usize)) -> RelevanceSignals {
        RelevanceSignals { on_channel, last_shown: days_ago.map(|days| NOW.plus_ms(-days * DAY_MS)), segments }
    }

    #[test]
    fn relevance_is_1_when_no_signal_is_on_or_has_anything_to_say() {
        assert_eq!(relevance(&weights(None, None, None), &signals(false, Some(0), (0, 3)), NOW), 1.0);
        assert_eq!(relevance(&weights(None, None, Some(1.0)), &signals(false, None, (0, 0)), NOW), 1.0);
        assert_eq!(relevance(&weights(Some(0.0), None, None), &signals(false, None, (0, 0)), NOW), 1.0);
    }

    #[test]
    fn relevance_is_the_weighted_mean_with_a_floor() {
        let all = weights(Some(1.0), Some(2.0), Some(1.0));
        // (1·1 + 2·0.5 + 1·(1/4)) / 4
        assert!((relevance(&all, &signals(true, Some(7), (1, 4)), NOW) - 0.5625).abs() < 1e-15);
        // Without preferred segments their weight does not count.
        assert!((relevance(&all, &signals(false, None, (0, 0)), NOW) - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(relevance(&all, &signals(false, Some(0), (0, 4)), NOW), RELEVANCE_FLOOR);
    }

    #[test]
    fn impact_blends_over_the_largest() {
        let mut largest = LargestValues::default();
        for (margin, revenue) in [(-5.0, 10.0), (20.0, 40.0)] {
            largest.include(margin, revenue);
        }
        let blend = ImpactBlend { business_value: 0.5, margin: 0.25, revenue_value: 0.25 };
        assert_eq!(impact(None, 80, 5.0, 5.0, &largest), 0.8);
        // 0.5·0.8 + 0.25·(5/20) + 0.25·(10/40)
        assert!((impact(Some(&blend), 80, 5.0, 10.0, &largest) - 0.525).abs() < 1e-15);
        assert!((impact(Some(&blend), 80, -5.0, 10.0, &largest) - 0.4625).abs() < 1e-15);
        assert_eq!(impact(Some(&blend), 0, -1.0, -1.0, &LargestValues::default()), 0.0);
    }

    #[test]
    fn objectives_are_a_weighted_sum_without_those_of_weight_0() {
        let read = |members: &[(&str, f64)]| {
            use crate::model::record::Field;
            use crate::value::Value;
            let members = members.iter().map(|(name, weight)| (*name, Value::Number(*weight)));
            Objectives::read(&Value::map(members), &mut crate::model::fault::Faults::new()).unwrap()
        };
        let mut largest = LargestValues::default();
        largest.include(20.0, 40.0);
        let factors = prieu(0.5, 0.8, 0.6, 0.9, 0.0);
        let aims = Aims {
            method_terms: libm::log(0.3),
            prieu: &factors,
            business_value: 70,
            margin: 5.0,
            revenue_value: -1.0,
        };
        let close = |members: &[(&str, f64)], expected: f64| {
            let found = weigh(&read(members), &aims, &largest);
            assert!((found - expected).abs() < 1e-12, "{members:?}: {found}");
        };
        close(&[("score", 0.5), ("margin", 0.5)], 0.5 * 0.3 + 0.5 * 0.25);
        close(&[("propensity", 0.25), ("relevance", 0.25), ("impact", 0.25), ("priority", 0.25)], 0.25 * 2.8);
        close(&[("businessValue", 0.4), ("revenueValue", 0.6)], 0.4 * 0.7);
    }

    proptest! {
        #[test]
        fn log_sum_is_the_power_form_within_1e_12(
            factors in prop::array::uniform4(0.01f64..=1.0),
            tau in -0.09f64..0.2,
            weights in prop::array::uniform4(0u32..10),
            uplift in 0.0f64..=2.0,
        ) {
            let total = f64::from(weights.iter().sum::<u32>().max(1));
            let [p, r, i, e] = weights.map(|weight| f64::from(weight) / total);
            let factors = prieu(factors[0], factors[1], factors[2], factors[3], tau);
            let weights = [p, r, i, e, uplift];
            let (found, expected) = (score(factors.log_score(weights)), power_form(&factors, weights));
            prop_assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}
