//! The fast evaluation: everything that is the same for all offers is computed once, everything that is the same for all
//! slots once per request, and what is left is bitsets.
//!
//! Gives exactly what [`oracle`](super::oracle) gives.

use smallvec::SmallVec;

use crate::decide::case::{Case, Scratch, look_back, measures};
use crate::decide::compute::compute;
use crate::decide::contact;
use crate::decide::decision::{
    Arm, Decision, EmptyReason, Explanation, FlowChoice, Ghost, Proposition, PropositionKind, Remarks, RemovalReason,
};
use crate::decide::effects;
use crate::decide::filling::{Filled, Filling, Pick};
use crate::decide::holdout::is_held_out;
use crate::decide::pools::Pools;
use crate::decide::qualify::{self, Track};
use crate::decide::request::{Explain, Request};
use crate::decide::screen;
use crate::decide::slots::{self, Lane};
use crate::decide::view::{EscrowView, Instant, Subject};
use crate::keys::{OfferKey, Slot};
use crate::learn::Learned;
use crate::model::flow::{Arbitration, ControlGroupAction};
use crate::snapshot::world::OfferWorld;
use crate::snapshot::{Binding, Snapshot};
use crate::value::Value;

/// Decides `request` for `subject` at `at`. Deterministic: the same arguments give the same bytes. `binding` belongs to the
/// shard and tenant, `scratch` to the thread; both only save work. `seed` is what random draws of models derive from.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing, and a struct for one function would only rename them"
)]
pub fn decide(
    snapshot: &Snapshot,
    subject: Subject<'_>,
    binding: &mut Binding,
    escrow: &dyn EscrowView,
    learned: &Learned,
    request: &Request,
    at: &Instant,
    seed: u64,
    scratch: &mut Scratch,
) -> Decision {
    binding.follow(&snapshot.names, subject.symbols);
    binding.open.follow(snapshot.parts.iter().map(|part| &part.segment.schedules), at);
    let measures = measures(snapshot, subject.profile, request, at);
    let read = snapshot.names.measured().iter();
    let measured: Vec<(Slot, Value)> = read.map(|(slot, reading)| (*slot, measures.value(reading, None))).collect();
    let case = Case {
        snapshot,
        shared: &snapshot.shared,
        profile: subject.profile,
        escrow,
        request,
        at,
        learned,
        seed,
        history: look_back(snapshot, subject.profile),
        measured: &measured,
    };
    let named = slots::choose_flow(&snapshot.shared, request);
    let flow = named.unwrap_or(&snapshot.shared.flows[snapshot.shared.base_flow]);
    let arm = flow.trial.as_ref().filter(|_| named.is_some()).map(|trial| Arm {
        experiment: trial.key.clone(),
        control: is_held_out(&request.tenant, &trial.key, &request.customer, trial.percent),
    });
    let control = arm.as_ref().filter(|arm| arm.control).and(flow.trial.as_ref()).map(|trial| trial.action);
    let mut world = qualify::look(&case, flow, subject, binding);
    let flow = match flow.fork.as_ref() {
        None => flow,
        Some(fork) => {
            let way = fork.choose(&world);
            if way.enrich != flow.enrich {
                world = qualify::look(&case, way, subject, binding);
            }
            world.plan = Some(&case.shared.parts.plans.values()[way.plan]);
            way
        }
    };
    let mut track = Track::bare(flow, world);
    track.by_priority = control == Some(ControlGroupAction::PriorityOnly);
    qualify::qualify(&case, &mut track, scratch);
    screen::screen(&case, &mut track);
    let lanes = slots::open(&case, flow, flow.active && named.is_some());
    contact::look(&case, &mut track, lanes.iter().map(|lane| lane.limit).sum(), scratch);
    recheck_excluded_creatives(&case, &mut track);
    let pools = Pools::new(&case, &track, lanes.len(), binding, scratch);
    let mut filling = Filling::new(&case, &track, pools, scratch);
    let mut outcomes: SmallVec<[Filled; 1]> = lanes.iter().map(|_| Filled::default()).collect();
    filling.prepend_mandatory(&lanes, &mut outcomes);
    filling.pools.fill(&lanes, &filling.mandatory, scratch);
    let arbitration = request.arbitration.unwrap_or(flow.arbitration);
    if arbitration == Arbitration::Optimal && lanes.len() > 1 {
        filling.share(&lanes, &mut outcomes, scratch);
    } else {
        for (lane, filled) in lanes.iter().zip(&mut outcomes) {
            filling.fill(lane, filled, scratch);
        }
    }
    couple(&lanes, &mut outcomes, |global| filling.note(global, RemovalReason::Coupled));
    let degraded = is_degraded(&case, &track, &lanes, &outcomes);
    let ghosts =
        if control == Some(ControlGroupAction::NoOffers) { withhold(&case, &mut outcomes) } else { Vec::new() };
    let funnel = filling.pools.counters.funnel();
    let budget_limited = filling.budget_limited || filling.pools.budget_limited;
    let propositions = propositions(&case, &track, &lanes, &outcomes);
    let explanation = filling.reasons.take().map(|reasons| {
        let answered = |offer: OfferKey| {
            propositions.iter().any(|proposition| proposition.offer == offer)
                || ghosts.iter().any(|ghost| ghost.offer == offer)
        };
        let limit = match request.explain {
            Explain::Off => 0,
            Explain::Full { limit } => limit as usize,
        };
        Box::new(Explanation {
            factors: outcomes
                .iter()
                .flat_map(|filled| filled.picks.iter().map(|pick| pick.factors.as_deref().copied()))
                .flatten()
                .collect(),
            removed: reasons.removed(&case, answered, limit),
        })
    });
    let slots = lanes.iter().zip(&outcomes).filter(|(lane, _)| lane.number.is_some());
    let decision = Decision {
        revision: snapshot.revision,
        flow: match named {
            Some(_) => FlowChoice { key: flow.key, version: flow.version, compact: flow.compact },
            // Drafts and deleted flows are not in the snapshot.
            None => FlowChoice { key: request.flow, version: 0, compact: false },
        },
        slots: slots.map(|(_, filled)| filled.outcome()).collect(),
        empty: outcomes.first().filter(|_| request.slots.is_empty()).and_then(|filled| filled.empty),
        propositions,
        funnel,
        arm,
        ghosts,
        remarks: Remarks { budget_limited, degraded },
        explanation,
    };
    filling.recycle(scratch);
    track.recycle(scratch);
    decision
}

/// Creatives that the request excludes leave their offers with fewer.
fn recheck_excluded_creatives(case: &Case<'_>, track: &mut Track<'_>) {
    for creative in &case.request.exclude_creatives {
        for part in &case.snapshot.parts {
            if let Some((position, _)) = part.segment.content(*creative) {
                track.recheck.push(part.first() + position);
            }
        }
    }
    track.recheck.sort_unstable();
    track.recheck.dedup();
}

/// On an atomic channel one empty slot empties all. Tells `note` what goes.
fn couple(lanes: &[Lane], outcomes: &mut [Filled], mut note: impl FnMut(u32)) {
    let broken: Vec<_> = lanes
        .iter()
        .zip(outcomes.iter())
        .filter(|(lane, filled)| lane.atomic && filled.picks.is_empty())
        .map(|(lane, _)| lane.spot.channel)
        .collect();
    for (lane, filled) in lanes.iter().zip(outcomes) {
        if broken.contains(&lane.spot.channel) && !filled.picks.is_empty() {
            let competed = |pick: &Pick| pick.kind != PropositionKind::Fallback;
            filled.picks.drain(..).filter(competed).for_each(|pick| note(pick.global));
            filled.empty = Some(EmptyReason::Coupling);
        }
    }
}

/// Whether a model that a regular pick goes by could not score it.
fn is_degraded(case: &Case<'_>, track: &Track<'_>, lanes: &[Lane], outcomes: &[Filled]) -> bool {
    !case.shared.models.is_empty()
        && lanes.iter().zip(outcomes).any(|(lane, filled)| {
            let plan = &case.shared.parts.plans.values()[track.flow.plan_on(lane.spot.channel)];
            let mut regular = filled.picks.iter().filter(|pick| pick.kind == PropositionKind::Regular);
            regular.any(|pick| {
                let (part, position) = case.locate(pick.global);
                let segment = &part.segment;
                let offer = &segment.offers[position as usize].body;
                let model = plan.weights(offer, segment.categories[position as usize]).model;
                let at = OfferWorld::new(&track.world, case.shared, segment, position);
                at.is_degraded(model, track.flow.rules.is_some())
            })
        })
}

/// Turns regular picks into ghosts.
fn withhold(case: &Case<'_>, outcomes: &mut [Filled]) -> Vec<Ghost> {
    let mut ghosts = Vec::new();
    for filled in outcomes {
        let before = ghosts.len();
        filled.picks.retain(|pick| {
            let regular = pick.kind == PropositionKind::Regular;
            if regular {
                ghosts.push(Ghost { offer: case.offer(pick.global), creative: pick.creative });
            }
            !regular
        });
        if filled.picks.is_empty() && ghosts.len() > before {
            filled.empty = Some(EmptyReason::Holdout);
        }
    }
    ghosts
}

fn propositions(case: &Case<'_>, track: &Track<'_>, lanes: &[Lane], outcomes: &[Filled]) -> Vec<Proposition> {
    let mut propositions = Vec::with_capacity(outcomes.iter().map(|filled| filled.picks.len()).sum());
    for (lane, filled) in lanes.iter().zip(outcomes) {
        propositions.extend(filled.picks.iter().map(|pick| Proposition {
            offer: case.offer(pick.global),
            creative: pick.creative,
            channel: lane.spot.channel,
            placement: lane.spot.placement,
            activity: lane.activity,
            slot: lane.number,
            score: pick.score,
            kind: pick.kind,
            takes: match pick.kind {
                PropositionKind::Regular | PropositionKind::Mandatory => effects::takes(case, pick.global, lane.spot),
                PropositionKind::Fallback => Vec::new(),
            },
            computed: compute(case, track, pick.global),
        }));
    }
    propositions
}
