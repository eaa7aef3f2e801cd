//! Explanations: the factors of what is answered, and why the rest is not. Exhaustive, offer by offer; what is decided stays
//! the same.

use crate::decide::candidates::{Show, Spotting};
use crate::decide::case::Case;
use crate::decide::contact::{self, Candidate};
use crate::decide::decision::{Factors, RemovalReason, Removed, furthest};
use crate::decide::mandatory;
use crate::decide::qualify::is_of_spot;
use crate::decide::rank::Scorer;
use crate::decide::score::{Modifiers, uplift_base};
use crate::decide::screen;
use crate::decide::suppress;
use crate::keys::{CreativeKey, OfferKey, RuleKey};
use crate::snapshot::bitset;
use crate::snapshot::rules::{Effect, Rule};
use crate::snapshot::world::OfferWorld;
use crate::time::DAY_MS;

/// How far an offer came: rises with the pipeline.
pub(crate) fn depth(reason: &RemovalReason) -> u8 {
    match reason {
        RemovalReason::Status => 0,
        RemovalReason::Schedule => 1,
        RemovalReason::EmergencyExcluded => 2,
        RemovalReason::Inventory => 3,
        RemovalReason::Creative => 4,
        RemovalReason::Rule(_)
        | RemovalReason::Eligibility
        | RemovalReason::Filter { .. }
        | RemovalReason::Guardrail(_) => 5,
        RemovalReason::OptOut => 6,
        RemovalReason::Excluded => 7,
        RemovalReason::ProfileCap(_) => 8,
        RemovalReason::GlobalCap(_) => 9,
        RemovalReason::MandatoryPerDay => 10,
        RemovalReason::Policy(_) => 11,
        RemovalReason::ZeroFactor => 12,
        RemovalReason::Outscored => 13,
        RemovalReason::Coupled => 14,
        RemovalReason::Contended => 15,
    }
}

/// Why each offer is not answered: the reason of the slot in which it came furthest, the first of those.
#[derive(Debug)]
pub(crate) struct Reasons {
    by_position: Vec<Option<RemovalReason>>,
    /// Said while choosing: they come after what bars an offer from the start.
    notes: Vec<(u32, RemovalReason)>,
}

impl Reasons {
    pub(crate) fn new(positions: usize) -> Self {
        Reasons { by_position: vec![None; positions], notes: Vec::new() }
    }

    /// Keeps the furthest reason of an offer.
    pub(crate) fn keep(&mut self, global: u32, reason: RemovalReason) {
        let kept = &mut self.by_position[global as usize];
        if kept.is_none_or(|kept| depth(&reason) > depth(&kept)) {
            *kept = Some(reason);
        }
    }

    /// Notes a reason found while choosing.
    pub(crate) fn note(&mut self, global: u32, reason: RemovalReason) {
        self.notes.push((global, reason));
    }

    /// Up to `limit` offers that are not `answered`, by key.
    pub(crate) fn removed(
        mut self,
        case: &Case<'_>,
        answered: impl Fn(OfferKey) -> bool,
        limit: usize,
    ) -> Vec<Removed> {
        for (global, reason) in std::mem::take(&mut self.notes) {
            self.keep(global, reason);
        }
        let mut removed: Vec<Removed> = self
            .by_position
            .iter()
            .enumerate()
            .filter_map(|(global, reason)| {
                // Positions are padded to whole words: only those with a reason hold an offer.
                let reason = (*reason)?;
                Some(Removed { offer: case.offer(global as u32), reason })
            })
            .filter(|removed| !answered(removed.offer))
            .collect();
        // Where there is no room for all, those that came furthest are asked for.
        furthest(&mut removed, limit);
        removed
    }
}

/// Keeps the reason of every general offer that does not compete in a slot. `left` are those that do.
pub(crate) fn explain_slot(
    spotting: &Spotting<'_, '_>,
    available: &[u64],
    mandatory: &[u32],
    left: &[u64],
    reasons: &mut Reasons,
) {
    for part in &spotting.case.snapshot.parts {
        for position in bitset::ones(&part.present.0) {
            let global = part.first() + position;
            let competes = bitset::has(left, global);
            if part.segment.general.has(position) && !competes && !mandatory.contains(&global) {
                reasons.keep(global, reason(spotting, available, global));
            }
        }
    }
}

/// The first stage that removes an offer which does not compete.
fn reason(spotting: &Spotting<'_, '_>, available: &[u64], global: u32) -> RemovalReason {
    let (case, track, spot) = (spotting.case, spotting.track, spotting.spot);
    if !bitset::has(available, global) {
        return mandatory::unavailable(case, global);
    }
    let (part, position) = case.locate(global);
    if !part.segment.stocks[track.flow.inventory].has(position) || !spotting.admits(global) {
        return RemovalReason::Inventory;
    }
    if spotting.needs_content() && !spotting.has_content(global) {
        return RemovalReason::Creative;
    }
    if let Some(rule) = failing_rule(spotting, global) {
        return RemovalReason::Rule(rule);
    }
    if track.flow.rules.is_some() && !is_eligible(spotting, global) {
        return RemovalReason::Eligibility;
    }
    if let Some(reason) = screen::failing(case, track, global) {
        return reason;
    }
    if suppress::is_opted_out(case, global, spot) {
        return RemovalReason::OptOut;
    }
    let show = spotting.show(global);
    let lost = match show {
        Show::Creative(_) | Show::Nothing => false,
        Show::LostToRule | Show::LostToRequest => true,
    };
    if lost || case.request.exclude_offers.contains(&case.offer(global)) {
        return RemovalReason::Excluded;
    }
    if let Some(reason) = suppress::cap_reached(case, global, spot, &[]) {
        return reason;
    }
    let creative = match show {
        Show::Creative(content) => content.key,
        Show::Nothing | Show::LostToRule | Show::LostToRequest => CreativeKey::NONE,
    };
    let candidate = Candidate { global, offer: case.offer(global), creative, spot };
    contact::blocker(case, track, &candidate, &[], false).map_or(RemovalReason::ZeroFactor, RemovalReason::Policy)
}

/// The first hard rule, by priority, then key, that removes the offer: it fails and binds it, or it takes its last creative.
fn failing_rule(spotting: &Spotting<'_, '_>, global: u32) -> Option<RuleKey> {
    let (case, track) = (spotting.case, spotting.track);
    let (part, position) = case.locate(global);
    let segment = &part.segment;
    let numbered = |number: &u32| &segment.rules[*number as usize];
    let own = segment.rules_of.of(position).iter().map(numbered);
    let wide =
        case.shared.wide_rules.iter().filter(|(_, scopes)| {
            track.binds(case, scopes, global, spotting.spot) || is_of_spot(scopes, spotting.spot)
        });
    let is_failing = |rule: &&Rule| {
        rule.effect == Effect::Hard && track.selects(case, rule.key) && !track.holds(case, &rule.question, global)
    };
    let binding = own.chain(wide.map(|(rule, _)| rule)).filter(is_failing).min_by_key(|rule| rule.order());
    // Creatives fall in rule order until none is left that fits.
    let mut of_contents: Vec<&Rule> = segment
        .contents
        .range(position)
        .flat_map(|place| segment.rules_of_content.of(place as u32))
        .map(numbered)
        .filter(is_failing)
        .collect();
    of_contents.sort_by_key(|rule| rule.order());
    of_contents.dedup_by_key(|rule| rule.key);
    let emptying = (1..=of_contents.len()).find_map(|count| {
        let fallen = &of_contents[..count];
        spotting.is_emptied_by(global, fallen).then(|| of_contents[count - 1])
    });
    [binding, emptying].into_iter().flatten().min_by_key(|rule| rule.order()).map(|rule| rule.key)
}

fn is_eligible(spotting: &Spotting<'_, '_>, global: u32) -> bool {
    let (case, track) = (spotting.case, spotting.track);
    let (part, position) = case.locate(global);
    let eligibility = &part.segment.offers[position as usize].body.eligibility;
    let recent_enough = |days: f64| {
        let last = case.last_shown(case.offer(global));
        last.is_none_or(|last| case.at.now.since_ms(last) as f64 >= days * DAY_MS as f64)
    };
    track.is_likely_enough(case, global)
        && eligibility.recency.is_none_or(recent_enough)
        && part.segment.required.of(position).iter().all(|segment| track.world.is_in(*segment))
}

/// The factors of a regular proposition.
pub(crate) fn factors(scorer: &Scorer<'_, '_, '_>, global: u32, creative: CreativeKey) -> Factors {
    let (part, position) = scorer.spotting.case.locate(global);
    let segment = &part.segment;
    let (weights, scale) = scorer.exponents(&segment.offers[position as usize].body, segment, position);
    let modifiers = if scorer.plan.priority_only {
        Modifiers::NONE
    } else {
        scorer.modifiers(segment, global, position, Some(creative))
    };
    let optimized = scorer.optimized(segment, global, position);
    Factors { optimized, ..assemble(scorer, global, modifiers, weights, scale) }
}

/// The factors of what is not scored: mandatory and fallback offers.
pub(crate) fn unscored(scorer: &Scorer<'_, '_, '_>, global: u32) -> Factors {
    assemble(scorer, global, Modifiers::NONE, [0.0; 5], 0.1)
}

fn assemble(
    scorer: &Scorer<'_, '_, '_>,
    global: u32,
    modifiers: Modifiers,
    weights: [f64; 5],
    uplift_scale: f64,
) -> Factors {
    let (part, position) = scorer.spotting.case.locate(global);
    let segment = &part.segment;
    let offer = &segment.offers[position as usize].body;
    let track = scorer.spotting.track;
    // A control group ranked by priority is still told what the flow's own plan would see.
    let own = &scorer.spotting.case.shared.parts.plans.values()[track.flow.plan_on(scorer.spotting.spot.channel)];
    let set = own.weights(offer, segment.categories[position as usize]);
    let seen = Scorer { plan: own, ..*scorer };
    let relevance = seen.relevance(segment, global, position);
    let case = scorer.spotting.case;
    let propensity = seen.propensity(segment, position);
    let models = &track.world.models;
    let shadow = set.model.and_then(|model| models.shadow(model)).map(|shadow| {
        let at = OfferWorld::new(&track.world, case.shared, segment, position);
        (shadow, at.propensity_by(Some(shadow)).value)
    });
    let prieu = own.factors(offer, set, propensity.value, relevance, &case.shared.largest);
    Factors {
        propensity: prieu.propensity,
        source: propensity.source,
        model: set.model.map(|model| models.scoring(model)),
        shadow,
        relevance: prieu.relevance,
        impact: prieu.impact,
        emphasis: prieu.emphasis,
        uplift: uplift_base(0.0, uplift_scale),
        matching: modifiers.matching,
        fatigue: modifiers.fatigue,
        boost: modifiers.boost,
        weights,
        optimized: None,
    }
}
