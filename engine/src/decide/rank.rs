//! Ranking: the best of a slot's survivors, found from blocks in the order of their bounds.
//!
//! Exact: a block is skipped only if the best it could hold is strictly worse than the last of the wanted; equal scores are
//! compared to the end (priority, business value, id).

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::decide::candidates::{Show, Spotting};
use crate::decide::score::{self, Modifiers, NEUTRAL_PROPENSITY, RelevanceSignals};
use crate::keys::CreativeKey;
use crate::learn::Propensity;
use crate::model::flow::ScoreMethod;
use crate::model::offer::Offer;
use crate::snapshot::bitset::{self, ones_of};
use crate::snapshot::columns::{BLOCK, BOUND_SLACK, FULL_WEIGHT, PlanColumns};
use crate::snapshot::flows::Plan;
use crate::snapshot::models::is_drawn;
use crate::snapshot::rules::{Effect, Rule};
use crate::snapshot::segment::Segment;
use crate::snapshot::tie;
use crate::snapshot::world::OfferWorld;

/// A survivor with its log-score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    pub(crate) log_score: f64,
    pub(crate) global: u32,
}

/// How a slot's survivors are scored.
pub(crate) struct Scorer<'a, 'b, 'c> {
    pub(crate) spotting: &'c Spotting<'a, 'b>,
    pub(crate) plan_number: usize,
    pub(crate) plan: &'b Plan,
    /// Positions of offers in the history.
    pub(crate) seen: &'c [u64],
}

const WORDS: usize = BLOCK / 64;

impl Scorer<'_, '_, '_> {
    /// The best `want` of `left` (`usize::MAX`: all), best first.
    pub(crate) fn best(&self, left: &[u64], want: usize) -> SmallVec<[Ranked; 8]> {
        let case = self.spotting.case;
        let mut best = SmallVec::new();
        if want == 0 {
            return best;
        }
        let all = want == usize::MAX;
        // The last of the wanted, once there are so many: what is worse is passed by.
        let mut least = f64::NEG_INFINITY;
        for part in &case.snapshot.parts {
            let segment = &part.segment;
            let columns = &segment.plans[self.plan_number];
            let lift = self.lift(segment, columns);
            let words = &left[part.range()];
            for (block, bound) in columns.order.iter().zip(&columns.bounds) {
                if bound + lift < least {
                    break;
                }
                let first = *block as usize * WORDS;
                let block_words = &words[first..(first + WORDS).min(words.len())];
                for (index, word) in block_words.iter().enumerate() {
                    for position in ones_of(*word, ((first + index) * 64) as u32) {
                        if columns.scores[position as usize] + lift < least {
                            continue;
                        }
                        let global = part.first() + position;
                        let log_score = self.log_score(segment, columns, global, position);
                        if all {
                            best.push(Ranked { log_score, global });
                            continue;
                        }
                        self.insert(&mut best, want, Ranked { log_score, global });
                        if best.len() == want {
                            least = best[want - 1].log_score;
                        }
                    }
                }
            }
        }
        if all {
            best.sort_by(|left, right| self.compare(left, right));
        }
        best
    }

    fn insert(&self, best: &mut SmallVec<[Ranked; 8]>, want: usize, ranked: Ranked) {
        let full = best.len() == want;
        if full && self.compare(&ranked, &best[want - 1]).is_gt() {
            return;
        }
        let place = best.partition_point(|other| self.compare(other, &ranked).is_lt());
        if full {
            best.pop();
        }
        best.insert(place, ranked);
    }

    /// Which comes first.
    fn compare(&self, left: &Ranked, right: &Ranked) -> Ordering {
        right.log_score.total_cmp(&left.log_score).then_with(|| {
            let offer = |ranked: &Ranked| {
                let (part, position) = self.spotting.case.locate(ranked.global);
                &part.segment.offers[position as usize]
            };
            tie(offer(left), offer(right))
        })
    }

    /// By how much boosts and P can raise a log-score above what the columns say.
    fn lift(&self, segment: &Segment, columns: &PlanColumns) -> f64 {
        let boosts = match self.spotting.track.flow.rules {
            Some(rules) if !self.plan.priority_only => segment.rule_columns[rules].boost_bound,
            Some(_) | None => 0.0,
        };
        // A sum of scores is a logarithm again, and not every rounding keeps their order.
        let lift = if self.plan.objectives.is_some() { boosts + BOUND_SLACK } else { boosts };
        if self.is_adapted(columns) { lift + self.plan.lift(self.ceiling()) } else { lift }
    }

    /// No P is above this.
    fn ceiling(&self) -> f64 {
        let case = self.spotting.case;
        match self.plan.models().map(|model| is_drawn(case.shared, model)).max() {
            None => case.learned.ceiling(),
            Some(false) => case.learned.modelled_ceiling(),
            Some(true) => 1.0,
        }
    }

    /// Whether scores are other than with P = 0.5.
    fn is_adapted(&self, columns: &PlanColumns) -> bool {
        columns.adaptive && (columns.modelled || !self.spotting.case.learned.is_neutral())
    }

    fn log_score(&self, segment: &Segment, columns: &PlanColumns, global: u32, position: u32) -> f64 {
        if self.plan.priority_only {
            return columns.scores[position as usize];
        }
        let mut terms = columns.scores[position as usize];
        if self.plan.formula.is_some() {
            terms = self.formula_terms(segment, global, position);
            let optimized = self.optimized(segment, global, position);
            terms = optimized.map_or(terms, |sum| score::term(1.0, sum));
        } else {
            let is_weighted = columns.weighted && segment.has_weights;
            let is_adapted = self.is_adapted(columns);
            if columns.relevant || is_weighted || is_adapted {
                let case = self.spotting.case;
                let offer = &segment.offers[position as usize].body;
                let category = segment.categories[position as usize];
                // What does not matter is not looked up.
                let propensity = if is_adapted { self.propensity(segment, position).value } else { NEUTRAL_PROPENSITY };
                let relevance = if columns.relevant { self.relevance(segment, global, position) } else { 1.0 };
                let weight = if is_weighted { self.weight(global) } else { FULL_WEIGHT };
                terms = self.plan.terms(offer, category, propensity, relevance, weight, &case.shared.largest);
            }
        }
        if self.is_plain(segment, global, position) {
            return terms;
        }
        self.modifiers(segment, global, position, None).apply(terms)
    }

    /// Whether nothing modifies the score.
    fn is_plain(&self, segment: &Segment, global: u32, position: u32) -> bool {
        let soft = match self.spotting.track.flow.rules {
            Some(rules) => segment.rule_columns[rules].soft.has(position) || !self.spotting.track.soft.is_empty(),
            None => false,
        };
        !soft && self.spotting.case.shared.guardrails.soft.is_empty() && !bitset::has(self.seen, global)
    }

    fn weight(&self, global: u32) -> u8 {
        match self.spotting.show(global) {
            Show::Creative(content) => content.weight,
            Show::Nothing | Show::LostToRule | Show::LostToRequest => FULL_WEIGHT,
        }
    }

    /// P for this customer, by the model that scores the offer.
    pub(crate) fn propensity(&self, segment: &Segment, position: u32) -> Propensity {
        let (case, track) = (self.spotting.case, self.spotting.track);
        let set = self.plan.weights(&segment.offers[position as usize].body, segment.categories[position as usize]);
        OfferWorld::new(&track.world, case.shared, segment, position).propensity_by(set.model)
    }

    /// R for this customer.
    pub(crate) fn relevance(&self, segment: &Segment, global: u32, position: u32) -> f64 {
        let case = self.spotting.case;
        let preferred = segment.preferred.of(position);
        let signals = RelevanceSignals {
            on_channel: segment.is_on_channel(position, self.spotting.spot.channel),
            last_shown: bitset::has(self.seen, global)
                .then(|| case.last_shown(segment.keys[position as usize]))
                .flatten(),
            segments: (
                preferred.iter().filter(|segment| self.spotting.track.world.is_in(**segment)).count(),
                preferred.len(),
            ),
        };
        score::relevance(&self.plan.relevance, &signals, case.at.now)
    }

    /// Match, fatigue, boost. The creative shown is looked up unless given.
    pub(crate) fn modifiers(
        &self,
        segment: &Segment,
        global: u32,
        position: u32,
        creative: Option<CreativeKey>,
    ) -> Modifiers {
        let case = self.spotting.case;
        let mut modifiers = Modifiers::NONE;
        if bitset::has(self.seen, global)
            && let Some(profile) = case.profile
        {
            let (half_life, strength) = segment.fatigue[position as usize];
            let value = profile.fatigue(segment.keys[position as usize], half_life, case.at.now);
            modifiers.fatigue = score::fatigue_factor(strength, value);
        }
        for rule in self.soft_rules(segment, global, position, creative) {
            match rule.effect {
                Effect::Hard => {}
                Effect::Match { multiplier } => {
                    if !self.spotting.track.holds(case, &rule.question, global) {
                        modifiers.matching *= multiplier;
                    }
                }
                Effect::Ranking { boost } => {
                    if self.spotting.track.holds(case, &rule.question, global) {
                        modifiers.boost *= boost;
                    }
                }
            }
        }
        for (question, multiplier) in &case.shared.guardrails.soft {
            if !self.spotting.track.holds(case, question, global) {
                modifiers.matching *= multiplier;
            }
        }
        modifiers
    }

    /// The soft rules that bind the offer at `global` here, each once, in order of application.
    fn soft_rules<'s>(
        &'s self,
        segment: &'s Segment,
        global: u32,
        position: u32,
        creative: Option<CreativeKey>,
    ) -> SmallVec<[&'s Rule; 8]> {
        let (case, track) = (self.spotting.case, self.spotting.track);
        let mut rules = SmallVec::<[&Rule; 8]>::new();
        let Some(selection) = track.flow.rules else { return rules };
        if segment.rule_columns[selection].soft.has(position) {
            let is_soft = |rule: &&Rule| rule.effect != Effect::Hard && track.selects(case, rule.key);
            let numbered = |number: &u32| &segment.rules[*number as usize];
            rules.extend(segment.rules_of.of(position).iter().map(numbered).filter(is_soft));
            let range = segment.contents.range(position);
            if range.clone().any(|place| !segment.rules_of_content.of(place as u32).is_empty()) {
                let creative = creative.unwrap_or_else(|| self.spotting.creative(global));
                let shown = range.into_iter().find(|place| segment.contents.items()[*place].key == creative);
                let numbers = shown.map_or(&[][..], |place| segment.rules_of_content.of(place as u32));
                rules.extend(numbers.iter().map(numbered).filter(is_soft));
            }
        }
        for number in &track.soft {
            let (rule, scopes) = &case.shared.wide_rules[*number];
            if track.binds(case, scopes, global, self.spotting.spot) {
                rules.push(rule);
            }
        }
        rules.sort_by_key(|rule| rule.order());
        rules.dedup_by_key(|rule| rule.key);
        rules
    }

    /// The log-sum of the plan's formula for the offer at `global`; of nothing without one.
    fn formula_terms(&self, segment: &Segment, global: u32, position: u32) -> f64 {
        let Some(program) = &self.plan.formula else { return f64::NEG_INFINITY };
        let (case, track) = (self.spotting.case, self.spotting.track);
        let offer = &segment.offers[position as usize].body;
        let set = self.plan.weights(offer, segment.categories[position as usize]);
        let (propensity, relevance) =
            (self.propensity(segment, position).value, self.relevance(segment, global, position));
        let factors = self.plan.factors(offer, set, propensity, relevance, &case.shared.largest);
        self.plan.formula_terms(program, &OfferWorld::new(&track.world, case.shared, segment, position), &factors)
    }

    /// What objectives make of the offer at `global`, if there are any.
    pub(crate) fn optimized(&self, segment: &Segment, global: u32, position: u32) -> Option<f64> {
        self.plan.objectives.as_ref()?;
        let offer = &segment.offers[position as usize].body;
        let category = segment.categories[position as usize];
        let largest = &self.spotting.case.shared.largest;
        let propensity = self.propensity(segment, position).value;
        let relevance = self.relevance(segment, global, position);
        let terms = match &self.plan.formula {
            Some(_) => self.formula_terms(segment, global, position),
            None => self.plan.method_terms(offer, category, propensity, relevance, self.weight(global), largest),
        };
        self.plan.optimized(offer, self.plan.weights(offer, category), terms, propensity, relevance, largest)
    }

    /// Method and exponents that an offer is scored by.
    pub(crate) fn exponents(&self, offer: &Offer, segment: &Segment, position: u32) -> ([f64; 5], f64) {
        let set = self.plan.weights(offer, segment.categories[position as usize]);
        let exponents = match set.method {
            _ if self.plan.priority_only => BY_PRIORITY,
            _ if self.plan.formula.is_some() => [0.0; 5],
            ScoreMethod::PriorityWeighted => BY_PRIORITY,
            ScoreMethod::Propensity => BY_PROPENSITY,
            ScoreMethod::Formula => score::exponents(&set.weights),
        };
        (exponents, set.weights.uplift_scale)
    }
}

/// Exponents that `priority_weighted` implies.
const BY_PRIORITY: [f64; 5] = [0.0, 0.0, 0.0, 1.0, 0.0];
/// Exponents that `propensity` implies.
const BY_PROPENSITY: [f64; 5] = [1.0, 0.0, 0.0, 0.0, 0.0];
