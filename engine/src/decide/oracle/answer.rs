//! From standings to the answer: funnel, choice, fallback, coupling, holdout, propositions, explanation.

use std::sync::Arc;

use super::case::{Case, OfferRow, is_computed};
use super::choice::{Choice, Choices};
use super::creatives::CreativeRow;
use super::scoring::Scored;
use super::slots::Slot;
use super::stages::{Standing, depth};
use crate::decide::assignment::{CHOSEN_MAX, Candidate, Place, assign};
use crate::decide::decision::{
    Arm, Decision, EmptyReason, Explanation, Factors, Funnel, Ghost, PROPERTIES, Proposition, PropositionKind, Remarks,
    RemovalReason, Removed, SlotOutcome,
};
use crate::decide::holdout::is_held_out;
use crate::decide::request::{Duplicates, Explain};
use crate::decide::score;
use crate::keys::{CreativeKey, OfferKey};
use crate::model::flow::{Arbitration, ControlGroupAction};
use crate::model::offer::OfferKind;
use crate::value::Value;

/// One offer picked for one slot.
struct Pick {
    offer: Arc<OfferRow>,
    creative: Option<CreativeRow>,
    kind: PropositionKind,
    score: f64,
    factors: Factors,
}

/// A slot being filled.
struct Filling {
    slot: Slot,
    /// Standing of each general offer, in key order.
    standings: Vec<Standing>,
    picks: Vec<Pick>,
    empty: Option<EmptyReason>,
}

/// What an offer's explanation says: the reason of the slot in which it came furthest, the first of those.
type Reasons = Vec<Option<RemovalReason>>;

pub(super) fn answer(case: &Case<'_>) -> Decision {
    let arm = arm(case);
    let control = arm.as_ref().is_some_and(|arm| arm.control);
    let action = case.flow.experiment.as_ref().map(|experiment| experiment.control_group_action);
    let by_priority = control && action == Some(ControlGroupAction::PriorityOnly);
    let withholds = control && action == Some(ControlGroupAction::NoOffers);

    let offers: Vec<Arc<OfferRow>> =
        case.catalog.offers().iter().filter(|offer| offer.body.kind == OfferKind::General).cloned().collect();
    let mut fillings: Vec<Filling> =
        case.slots().into_iter().map(|slot| stand(case, slot, &offers, by_priority)).collect();
    let funnel = if case.request.counters { funnel(&fillings, offers.len()) } else { Funnel::default() };
    let mut reasons = first_reasons(&fillings, offers.len());
    let mut budget_limited = fillings
        .iter()
        .flat_map(|filling| &filling.standings)
        .any(|standing| matches!(standing, Standing::Removed(RemovalReason::GlobalCap(_))));

    fill(case, &offers, &mut fillings, &mut |offer, reason| {
        budget_limited |= matches!(reason, RemovalReason::GlobalCap(_));
        keep_furthest(&mut reasons[offer], reason);
    });
    for lost in couple(&mut fillings) {
        let place = offers.iter().position(|offer| offer.key == lost);
        place.into_iter().for_each(|offer| keep_furthest(&mut reasons[offer], RemovalReason::Coupled));
    }
    let degraded = fillings.iter().any(|filling| {
        let mut regular = filling.picks.iter().filter(|pick| pick.kind == PropositionKind::Regular);
        regular.any(|pick| case.is_degraded(&pick.offer, &filling.slot))
    });
    let ghosts = if withholds { withhold(&mut fillings) } else { Vec::new() };

    let empty = fillings.iter().find(|filling| filling.slot.number.is_none()).and_then(|filling| filling.empty);
    let slots = fillings.iter().filter(|filling| filling.slot.number.is_some()).map(outcome).collect();
    let propositions: Vec<Proposition> = fillings
        .iter()
        .flat_map(|filling| filling.picks.iter().map(|pick| proposition(case, &filling.slot, pick)))
        .collect();
    let explanation = match case.request.explain {
        Explain::Off => None,
        Explain::Full { limit } => {
            let answered = |key: OfferKey| {
                propositions.iter().any(|proposition| proposition.offer == key)
                    || ghosts.iter().any(|ghost| ghost.offer == key)
            };
            let removed = offers.iter().zip(&reasons).filter(|(offer, _)| !answered(offer.key));
            let removed = removed.filter_map(|(offer, reason)| Some(Removed { offer: offer.key, reason: (*reason)? }));
            let mut removed: Vec<Removed> = removed.collect();
            while removed.len() > limit as usize {
                let least = removed.iter().map(|removed| depth(&removed.reason)).min();
                let last = removed.iter().rposition(|removed| Some(depth(&removed.reason)) == least);
                last.map(|place| removed.remove(place));
            }
            Some(Box::new(Explanation {
                factors: fillings.iter().flat_map(|filling| filling.picks.iter().map(|pick| pick.factors)).collect(),
                removed,
            }))
        }
    };
    Decision {
        revision: case.catalog.revision(),
        flow: case.flow.choice,
        propositions,
        slots,
        empty,
        funnel,
        arm,
        ghosts,
        remarks: Remarks { budget_limited, degraded },
        explanation,
    }
}

fn arm(case: &Case<'_>) -> Option<Arm> {
    let experiment = case.flow.experiment.as_ref()?;
    let name = experiment.key.clone().unwrap_or_else(|| case.flow.name.clone());
    let control = is_held_out(&case.request.tenant, &name, &case.request.customer, experiment.holdout_percent);
    Some(Arm { experiment: name, control })
}

fn stand(case: &Case<'_>, slot: Slot, offers: &[Arc<OfferRow>], by_priority: bool) -> Filling {
    let standings = if slot.is_active {
        offers.iter().map(|offer| case.stand(offer, &slot, by_priority)).collect()
    } else {
        Vec::new()
    };
    Filling { slot, standings, picks: Vec::new(), empty: None }
}

/// Distinct offers that came so far in any slot.
fn funnel(fillings: &[Filling], offers: usize) -> Funnel {
    let reached = |stage: u8| {
        let came = |offer: &usize| {
            fillings.iter().any(|filling| match filling.standings.get(*offer) {
                Some(Standing::Competes(..) | Standing::Admitted) => true,
                Some(Standing::Removed(reason)) => depth(reason) >= stage,
                None => false,
            })
        };
        (0..offers).filter(came).count() as u32
    };
    Funnel {
        total_candidates: reached(depth(&RemovalReason::Eligibility)),
        after_qualification: reached(depth(&RemovalReason::OptOut)),
        after_suppression: reached(depth(&RemovalReason::MandatoryPerDay) + 1),
        after_contact_policy: reached(depth(&RemovalReason::ZeroFactor)),
    }
}

fn first_reasons(fillings: &[Filling], offers: usize) -> Reasons {
    let mut reasons = vec![None; offers];
    for filling in fillings {
        for (standing, reason) in filling.standings.iter().zip(&mut reasons) {
            match standing {
                Standing::Removed(removed) => keep_furthest(reason, *removed),
                Standing::Competes(..) | Standing::Admitted => {}
            }
        }
    }
    reasons
}

fn keep_furthest(reason: &mut Option<RemovalReason>, other: RemovalReason) {
    if reason.is_none_or(|reason| depth(&other) > depth(&reason)) {
        *reason = Some(other);
    }
}

/// Fills the slots: mandatory offers first, then slot by slot (or for all slots at once) the best that nothing bars, then fallback
/// offers. Tells `note` why an offer that competed did not come in.
fn fill(
    case: &Case<'_>,
    offers: &[Arc<OfferRow>],
    fillings: &mut [Filling],
    note: &mut dyn FnMut(usize, RemovalReason),
) {
    let most = case.request.limit.map_or(usize::MAX, |limit| limit as usize);
    let mut chosen = Choices::default();
    let mut filled = 0;
    for offer in mandatory(offers, fillings) {
        let row = &offers[offer];
        for filling in fillings.iter_mut() {
            if !matches!(filling.standings.get(offer), Some(Standing::Admitted)) {
                continue;
            }
            if filled == most || filling.picks.len() == filling.slot.limit {
                note(offer, RemovalReason::Outscored);
                continue;
            }
            match case.admit_mandatory(row, &filling.slot, &chosen) {
                Ok(creative) => {
                    chosen.0.push(choice(case, row, creative.as_ref(), &filling.slot, true));
                    let factors = case.unscored(row, &filling.slot);
                    let kind = PropositionKind::Mandatory;
                    filling.picks.push(Pick { offer: Arc::clone(row), creative, kind, score: 1.0, factors });
                    filled += 1;
                    break;
                }
                Err(reason) => note(offer, reason),
            }
        }
    }
    let mut choosing = Choosing { case, offers, chosen, filled, most, note };
    let arbitration = case.request.arbitration.unwrap_or(case.flow.arbitration);
    if arbitration == Arbitration::Optimal && fillings.len() > 1 {
        share(&mut choosing, fillings);
        return;
    }
    for filling in fillings {
        if !filling.slot.is_active {
            filling.empty = Some(EmptyReason::Inactive);
            continue;
        }
        let had_room = choosing.filled < most;
        for competing in ranked(offers, &filling.standings) {
            choosing.consider(filling, competing);
        }
        if filling.picks.is_empty() {
            choosing.filled += fall_back(case, filling, had_room);
        }
    }
}

/// Fills all slots so that the scores of all together are highest, gives up what earlier choices bar, fills what that leaves
/// open slot by slot, and then empty slots with their fallback offers.
fn share(choosing: &mut Choosing<'_, '_>, fillings: &mut [Filling]) {
    let case = choosing.case;
    let competing = |filling: &Filling| -> Vec<Competing> {
        let mut ranked = if filling.slot.is_active { ranked(choosing.offers, &filling.standings) } else { Vec::new() };
        let is_open = |offer: usize| !choosing.bars(filling, &choosing.offers[offer]);
        ranked.retain(|competing| is_open(competing.offer));
        ranked
    };
    let rankings: Vec<Vec<Competing>> = fillings.iter().map(competing).collect();
    let room = |filling: &Filling| filling.slot.limit - filling.picks.len();
    let open: usize = fillings.iter().filter(|filling| filling.slot.is_active).map(room).sum();
    let most = open.min(choosing.most - choosing.filled).min(CHOSEN_MAX);
    let places = fillings.iter().zip(&rankings).zip(0u16..).map(|((filling, ranking), slot)| Place {
        slot,
        room: room(filling),
        candidates: ranking
            .iter()
            .map(|competing| Candidate {
                thing: (
                    choosing.offers[competing.offer].key,
                    if case.request.duplicates == Duplicates::Never { 0 } else { slot },
                ),
                score: score::score(competing.scored.log_score),
            })
            .collect(),
    });
    let places: Vec<Place> = places.collect();
    let assigned = assign(&places, most);
    for ((filling, ranking), assigned) in fillings.iter_mut().zip(&rankings).zip(&assigned) {
        for index in assigned {
            choosing.consider(filling, ranking[*index].clone());
        }
    }
    for ((filling, ranking), assigned) in fillings.iter_mut().zip(rankings).zip(&assigned) {
        for (_, competing) in ranking.into_iter().enumerate().filter(|(index, _)| !assigned.contains(index)) {
            choosing.consider(filling, competing);
        }
    }
    for filling in fillings {
        if !filling.slot.is_active {
            filling.empty = Some(EmptyReason::Inactive);
        } else if filling.picks.is_empty() {
            let has_room = choosing.filled < choosing.most;
            choosing.filled += fall_back(case, filling, has_room);
        }
    }
}

/// An offer that competes in a slot.
#[derive(Clone)]
struct Competing {
    /// Its place among all offers.
    offer: usize,
    creative: Option<CreativeRow>,
    scored: Scored,
}

/// What has been chosen, and what limits it.
struct Choosing<'a, 'c> {
    case: &'a Case<'a>,
    offers: &'a [Arc<OfferRow>],
    chosen: Choices,
    filled: usize,
    most: usize,
    note: &'c mut dyn FnMut(usize, RemovalReason),
}

impl Choosing<'_, '_> {
    /// Whether the offer was chosen where it may not be beside this slot.
    fn bars(&self, filling: &Filling, offer: &OfferRow) -> bool {
        let duplicates = self.case.request.duplicates;
        let mut choices = self.chosen.0.iter().filter(|choice| choice.offer == offer.key);
        choices.any(|choice| match duplicates {
            Duplicates::Never => true,
            Duplicates::WithinPlacement => choice.placement != filling.slot.placement,
            Duplicates::Anywhere => false,
        })
    }

    /// Chooses an offer for a slot unless there is no room or earlier choices bar it.
    fn consider(&mut self, filling: &mut Filling, competing: Competing) {
        let Competing { offer, creative, scored } = competing;
        let (case, row) = (self.case, &self.offers[offer]);
        if self.filled == self.most || filling.picks.len() == filling.slot.limit {
            return (self.note)(offer, RemovalReason::Outscored);
        }
        if self.bars(filling, row) {
            return;
        }
        if let Err(reason) = case.contact(row, creative.as_ref(), &filling.slot, &self.chosen) {
            return (self.note)(offer, reason);
        }
        self.chosen.0.push(choice(case, row, creative.as_ref(), &filling.slot, false));
        let (score, kind) = (score::score(scored.log_score), PropositionKind::Regular);
        filling.picks.push(Pick { offer: Arc::clone(row), creative, kind, score, factors: scored.factors });
        self.filled += 1;
    }
}

/// Puts the fallback offer of an empty slot in, if it may be shown; says how many that are.
fn fall_back(case: &Case<'_>, filling: &mut Filling, has_room: bool) -> usize {
    if !has_room {
        filling.empty = Some(EmptyReason::Limit);
        return 0;
    }
    let Some(fallback) = &filling.slot.fallback else {
        filling.empty = Some(EmptyReason::NoCandidate);
        return 0;
    };
    let offer = case.catalog.offers().by_id(&fallback.0);
    let shown = offer.and_then(|offer| Some((offer, case.admit_fallback(offer, &filling.slot)?)));
    let Some((offer, creative)) = shown else {
        filling.empty = Some(EmptyReason::FallbackUnavailable);
        return 0;
    };
    filling.picks.push(Pick {
        offer: Arc::clone(offer),
        creative: Some(creative),
        kind: PropositionKind::Fallback,
        score: 0.0,
        factors: case.unscored(offer, &filling.slot),
    });
    1
}

/// Mandatory offers admitted to any slot, by priority, then business value, then id.
fn mandatory(offers: &[Arc<OfferRow>], fillings: &[Filling]) -> Vec<usize> {
    let is_admitted = |offer: &usize| {
        fillings.iter().any(|filling| matches!(filling.standings.get(*offer), Some(Standing::Admitted)))
    };
    let mut admitted: Vec<usize> = (0..offers.len()).filter(is_admitted).collect();
    admitted.sort_by(|left, right| tie(&offers[*left], &offers[*right]));
    admitted
}

/// Those that compete, best first.
fn ranked(offers: &[Arc<OfferRow>], standings: &[Standing]) -> Vec<Competing> {
    let mut competing: Vec<Competing> = standings
        .iter()
        .enumerate()
        .filter_map(|(offer, standing)| match standing {
            Standing::Competes(creative, scored) => {
                Some(Competing { offer, creative: creative.clone(), scored: *scored })
            }
            Standing::Admitted | Standing::Removed(_) => None,
        })
        .collect();
    competing.sort_by(|left, right| {
        let by_score = right.scored.log_score.total_cmp(&left.scored.log_score);
        by_score.then_with(|| tie(&offers[left.offer], &offers[right.offer]))
    });
    competing
}

/// Which of two offers with equal scores comes first.
fn tie(left: &OfferRow, right: &OfferRow) -> std::cmp::Ordering {
    let by_priority = right.body.priority.cmp(&left.body.priority);
    let by_value = || right.body.business_value.cmp(&left.body.business_value);
    by_priority.then_with(by_value).then_with(|| left.id.cmp(&right.id))
}

fn choice(case: &Case<'_>, offer: &OfferRow, creative: Option<&CreativeRow>, slot: &Slot, mandatory: bool) -> Choice {
    Choice {
        offer: offer.key,
        creative: key_of(creative),
        channel: slot.channel,
        placement: slot.placement,
        category: case.category_of(&offer.body),
        sub_category: case.sub_category_of(&offer.body),
        mandatory,
    }
}

fn key_of(creative: Option<&CreativeRow>) -> CreativeKey {
    creative.map_or(CreativeKey::NONE, |creative| creative.key)
}

/// On an atomic channel one empty slot empties all. The offers that go.
fn couple(fillings: &mut [Filling]) -> Vec<OfferKey> {
    let mut lost = Vec::new();
    let broken: Vec<_> = fillings
        .iter()
        .filter(|filling| filling.slot.is_atomic && filling.picks.is_empty())
        .map(|filling| filling.slot.channel)
        .collect();
    for filling in fillings.iter_mut().filter(|filling| broken.contains(&filling.slot.channel)) {
        if !filling.picks.is_empty() {
            lost.extend(filling.picks.drain(..).map(|pick| pick.offer.key));
            filling.empty = Some(EmptyReason::Coupling);
        }
    }
    lost
}

/// Turns regular picks into ghosts.
fn withhold(fillings: &mut [Filling]) -> Vec<Ghost> {
    let mut ghosts = Vec::new();
    for filling in fillings {
        let (withheld, kept): (Vec<Pick>, Vec<Pick>) =
            filling.picks.drain(..).partition(|pick| pick.kind == PropositionKind::Regular);
        if kept.is_empty() && !withheld.is_empty() {
            filling.empty = Some(EmptyReason::Holdout);
        }
        filling.picks = kept;
        ghosts.extend(
            withheld.iter().map(|pick| Ghost { offer: pick.offer.key, creative: key_of(pick.creative.as_ref()) }),
        );
    }
    ghosts
}

fn outcome(filling: &Filling) -> SlotOutcome {
    SlotOutcome {
        count: filling.picks.len() as u32,
        fallback: filling.picks.iter().any(|pick| pick.kind == PropositionKind::Fallback),
        empty: filling.empty,
    }
}

fn proposition(case: &Case<'_>, slot: &Slot, pick: &Pick) -> Proposition {
    let takes = match pick.kind {
        PropositionKind::Regular | PropositionKind::Mandatory => case.takes(&pick.offer, slot),
        PropositionKind::Fallback => Vec::new(),
    };
    Proposition {
        offer: pick.offer.key,
        creative: key_of(pick.creative.as_ref()),
        channel: slot.channel,
        placement: slot.placement,
        activity: slot.activity,
        slot: slot.number,
        score: pick.score,
        kind: pick.kind,
        takes,
        computed: computed(case, &pick.offer),
    }
}

/// The computed fields of the offer's category that the flow asks for, by their index in the schema, and the properties that
/// the flow sets.
fn computed(case: &Case<'_>, offer: &OfferRow) -> Vec<(u16, Value)> {
    let wanted = &case.flow.computed;
    let fields = case.custom_fields(offer).iter().zip(0..);
    let mut computed: Vec<(u16, Value)> = fields
        .filter(|(field, _)| is_computed(field) && (wanted.is_empty() || wanted.contains(&field.name)))
        .map(|(field, index)| (index, case.compute(field, offer)))
        .collect();
    let properties: Vec<(&String, Value)> =
        case.flow.properties.iter().map(|(name, text)| (name, case.evaluate(text, offer))).collect();
    if !properties.is_empty() {
        computed.push((PROPERTIES, Value::map(properties)));
    }
    computed
}
