//! The fast evaluation: everything that is the same for all offers is computed once, everything that is the same for all
//! slots once per request, and what is left is bitsets.
//!
//! Gives exactly what [`oracle`](super::oracle) gives.

use smallvec::SmallVec;

use crate::decide::candidates::{Admission, Show, Spotting};
use crate::decide::case::{Case, Chosen, Scratch, Spot, look_back};
use crate::decide::compute::compute;
use crate::decide::contact::{self, Candidate};
use crate::decide::decision::{
    Arm, Decision, EmptyReason, Explanation, Factors, FlowChoice, Funnel, Ghost, Proposition, PropositionKind,
    RemovalReason, SlotOutcome,
};
use crate::decide::effects;
use crate::decide::explain::{self, Reasons, depth};
use crate::decide::holdout::is_held_out;
use crate::decide::mandatory;
use crate::decide::qualify::{self, Track};
use crate::decide::rank::{Ranked, Scorer};
use crate::decide::request::{Explain, Request};
use crate::decide::score;
use crate::decide::slots::{self, Lane};
use crate::decide::suppress::{self, Suppression};
use crate::decide::view::{EscrowView, Instant, Subject};
use crate::keys::{CreativeKey, OfferKey, PolicyKey};
use crate::model::flow::ControlGroupAction;
use crate::snapshot::bitset;
use crate::snapshot::{Binding, Snapshot};

/// Decides `request` for `subject` at `at`. Deterministic: the same arguments give the same bytes. `binding` belongs to the
/// shard and tenant, `scratch` to the thread; both only save work. `_seed` is what random draws of models derive from.
#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing, and a struct for one function would only rename them"
)]
pub fn decide(
    snapshot: &Snapshot,
    subject: Subject<'_>,
    binding: &mut Binding,
    escrow: &dyn EscrowView,
    request: &Request,
    at: &Instant,
    _seed: u64,
    scratch: &mut Scratch,
) -> Decision {
    binding.follow(&snapshot.names, subject.symbols);
    binding.open.follow(snapshot.parts.iter().map(|part| &part.segment.schedules), at);
    let case = Case {
        snapshot,
        shared: &snapshot.shared,
        profile: subject.profile,
        escrow,
        request,
        at,
        history: look_back(snapshot, subject.profile),
    };
    let named = slots::choose_flow(&snapshot.shared, request);
    let flow = named.unwrap_or(&snapshot.shared.flows[snapshot.shared.base_flow]);
    let arm = flow.trial.as_ref().filter(|_| named.is_some()).map(|trial| Arm {
        experiment: trial.key.clone(),
        control: is_held_out(&request.tenant, &trial.key, &request.customer, trial.percent),
    });
    let control = arm.as_ref().filter(|arm| arm.control).and(flow.trial.as_ref()).map(|trial| trial.action);
    let words = snapshot.words();
    let mut track = Track::bare(flow, qualify::look(&case, flow, subject, binding));
    track.fail = scratch.take(words);
    for part in &snapshot.parts {
        track.lost.push(scratch.take(bitset::words_for(part.segment.contents.items().len())));
    }
    qualify::qualify(&case, &mut track, scratch);
    let lanes = slots::open(&case, flow, flow.active && named.is_some());
    contact::look(&case, &mut track, lanes.iter().map(|lane| lane.limit).sum(), scratch);
    recheck_excluded_creatives(&case, &mut track);
    let mut filling =
        Filling::new(&case, &track, control == Some(ControlGroupAction::PriorityOnly), &lanes, binding, scratch);
    let mut outcomes: Vec<Filled> = lanes.iter().map(|_| Filled::default()).collect();
    filling.prepend_mandatory(&lanes, &mut outcomes);
    let pools = filling.pools(&lanes, scratch);
    for (lane, filled) in lanes.iter().zip(&mut outcomes) {
        filling.fill(lane, &pools, filled, scratch);
    }
    pools.into_iter().for_each(|pool| scratch.give(pool.left));
    couple(&lanes, &mut outcomes);
    let ghosts =
        if control == Some(ControlGroupAction::NoOffers) { withhold(&case, &mut outcomes) } else { Vec::new() };
    let funnel = filling.funnel();
    let budget_limited = filling.budget_limited;
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
            Some(flow) => FlowChoice { key: flow.key, version: flow.version, compact: flow.compact },
            // Drafts and deleted flows are not in the snapshot.
            None => FlowChoice { key: request.flow, version: 0, compact: false },
        },
        slots: slots.map(|(_, filled)| filled.outcome()).collect(),
        propositions,
        funnel,
        arm,
        ghosts,
        budget_limited,
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

/// One offer picked for one slot.
struct Pick {
    global: u32,
    creative: CreativeKey,
    kind: PropositionKind,
    score: f64,
    factors: Option<Box<Factors>>,
}

/// Room made for choices beforehand: more than most requests ask for.
const CHOSEN: usize = 32;

/// A slot being filled.
#[derive(Default)]
struct Filled {
    picks: SmallVec<[Pick; 5]>,
    empty: Option<EmptyReason>,
}

impl Filled {
    fn outcome(&self) -> SlotOutcome {
        SlotOutcome {
            count: self.picks.len() as u32,
            fallback: self.picks.iter().any(|pick| pick.kind == PropositionKind::Fallback),
            empty: self.empty,
        }
    }
}

/// What survives in one spot, for all slots there: nothing but the collection tells them apart, and it comes last.
struct Pool {
    spot: Spot,
    left: Vec<u64>,
}

/// The state of choosing, from slot to slot.
struct Filling<'a, 'b> {
    case: &'b Case<'a>,
    track: &'b Track<'a>,
    by_priority: bool,
    suppression: Suppression,
    /// What status, schedule and emergency exclusion leave.
    available: Vec<u64>,
    /// That less mandatory offers.
    regular: Vec<u64>,
    mandatory: Vec<u32>,
    /// Positions of offers in the history.
    seen: Vec<u64>,
    /// Offers evaluated by late rules, and those that failed.
    evaluated: Vec<u64>,
    failed: Vec<u64>,
    /// Offers that reached each step of the funnel in any slot.
    reached: [Vec<u64>; 4],
    /// Their numbers, where there is one slot: then no union is needed.
    counts: Option<[u32; 4]>,
    chosen: Vec<Chosen>,
    /// Propositions so far, fallback offers included.
    filled: usize,
    most: usize,
    budget_limited: bool,
    reasons: Option<Reasons>,
}

impl<'a, 'b> Filling<'a, 'b> {
    fn new(
        case: &'b Case<'a>,
        track: &'b Track<'a>,
        by_priority: bool,
        lanes: &[Lane],
        binding: &Binding,
        scratch: &mut Scratch,
    ) -> Self {
        let words = case.snapshot.words();
        let mut available = scratch.take(words);
        for (number, part) in case.snapshot.parts.iter().enumerate() {
            let available = &mut available[part.range()];
            available.copy_from_slice(&part.live.0);
            bitset::and_not(available, &part.excluded.0);
            binding.open.and_into(number, available);
        }
        let mandatory = mandatory::now_mandatory(case);
        let mut regular = scratch.take(words);
        regular.copy_from_slice(&available);
        mandatory.iter().for_each(|global| bitset::clear(&mut regular, *global));
        let mut seen = scratch.take(words);
        case.history.seen.iter().filter_map(|seen| seen.global).for_each(|global| bitset::set(&mut seen, global));
        let united = case.request.counters && lanes.len() > 1;
        let reached = std::array::from_fn(|_| scratch.take(if united { words } else { 0 }));
        Filling {
            case,
            track,
            by_priority,
            suppression: suppress::look(case, scratch),
            available,
            regular,
            mandatory,
            seen,
            evaluated: scratch.take(words),
            failed: scratch.take(words),
            reached,
            counts: (!united).then_some([0; 4]),
            chosen: Vec::with_capacity(lanes.iter().map(|lane| lane.limit).sum::<usize>().min(CHOSEN)),
            filled: 0,
            most: case.request.limit.map_or(usize::MAX, |limit| limit as usize),
            budget_limited: false,
            reasons: match case.request.explain {
                Explain::Off => None,
                Explain::Full { .. } => Some(Reasons::new(words * 64)),
            },
        }
    }

    fn recycle(self, scratch: &mut Scratch) {
        let [total, qualified, unsuppressed, contactable] = self.reached;
        let buffers = [self.available, self.regular, self.seen, self.evaluated, self.failed];
        buffers
            .into_iter()
            .chain([total, qualified, unsuppressed, contactable])
            .for_each(|buffer| scratch.give(buffer));
        self.suppression.recycle(scratch);
    }

    fn spotting(&self, lane: &Lane) -> Spotting<'a, 'b> {
        Spotting { case: self.case, track: self.track, spot: lane.spot, collection: lane.admission }
    }

    fn funnel(&self) -> Funnel {
        if !self.case.request.counters {
            return Funnel::default();
        }
        let [total_candidates, after_qualification, after_suppression, after_contact_policy] =
            self.counts.unwrap_or_else(|| std::array::from_fn(|step| bitset::count(&self.reached[step])));
        Funnel { total_candidates, after_qualification, after_suppression, after_contact_policy }
    }

    /// Adds what is left after a step of the funnel; how many that is, unless it is `known`, where it must be counted now.
    fn reach(&mut self, step: usize, left: &[u64], known: Option<u32>) -> Option<u32> {
        match &mut self.counts {
            _ if !self.case.request.counters => None,
            Some(counts) => {
                let number = known.unwrap_or_else(|| bitset::count(left));
                counts[step] += number;
                Some(number)
            }
            None => {
                bitset::or(&mut self.reached[step], left);
                None
            }
        }
    }

    fn note(&mut self, global: u32, reason: RemovalReason) {
        self.budget_limited |= matches!(reason, RemovalReason::GlobalCap(_));
        if let Some(reasons) = &mut self.reasons {
            reasons.note(global, reason);
        }
    }

    /// Puts mandatory offers into the first slots that admit them.
    fn prepend_mandatory(&mut self, lanes: &[Lane], outcomes: &mut [Filled]) {
        let mandatory = std::mem::take(&mut self.mandatory);
        let mut admitted = Vec::with_capacity(mandatory.len() * lanes.len());
        for lane in lanes {
            let spotting = self.spotting(lane);
            for global in &mandatory {
                let standing = lane.active.then(|| mandatory::admit(&spotting, &self.available, *global, &[]));
                admitted.push(matches!(standing, Some(Ok(_))));
                let Some(standing) = standing else { continue };
                let came = standing.map_or_else(|reason| depth(&reason), |_| u8::MAX);
                let steps =
                    [RemovalReason::Eligibility, RemovalReason::OptOut, FIRST_POLICY, RemovalReason::ZeroFactor];
                for (step, first) in steps.iter().enumerate().filter(|_| self.case.request.counters) {
                    match &mut self.counts {
                        Some(counts) => counts[step] += u32::from(came >= depth(first)),
                        None => bitset::put_if(&mut self.reached[step], *global, came >= depth(first)),
                    }
                }
                if let Err(reason) = standing {
                    self.budget_limited |= matches!(reason, RemovalReason::GlobalCap(_));
                    if let Some(reasons) = &mut self.reasons {
                        reasons.keep(*global, reason);
                    }
                }
            }
        }
        for (index, global) in mandatory.iter().enumerate() {
            for (number, (lane, filled)) in lanes.iter().zip(outcomes.iter_mut()).enumerate() {
                if !admitted[number * mandatory.len() + index] {
                    continue;
                }
                if self.filled == self.most || filled.picks.len() == lane.limit {
                    self.note(*global, RemovalReason::Outscored);
                    continue;
                }
                let spotting = self.spotting(lane);
                match mandatory::admit(&spotting, &self.available, *global, &self.chosen) {
                    Ok(creative) => {
                        self.choose(lane, *global, creative, true);
                        let factors = self.unscored(&spotting, *global);
                        let kind = PropositionKind::Mandatory;
                        filled.picks.push(Pick { global: *global, creative, kind, score: 1.0, factors });
                        break;
                    }
                    Err(reason) => self.note(*global, reason),
                }
            }
        }
        self.mandatory = mandatory;
    }

    fn choose(&mut self, lane: &Lane, global: u32, creative: CreativeKey, mandatory: bool) {
        let case = self.case;
        self.chosen.push(Chosen {
            global,
            offer: case.offer(global),
            category: case.category(global),
            sub_category: case.sub_category(global),
            creative,
            spot: lane.spot,
            mandatory,
        });
        self.filled += 1;
    }

    fn unscored(&self, spotting: &Spotting<'a, 'b>, global: u32) -> Option<Box<Factors>> {
        self.reasons.as_ref().map(|_| Box::new(explain::unscored(&self.scorer(spotting), global)))
    }

    fn scorer<'c>(&'c self, spotting: &'c Spotting<'a, 'b>) -> Scorer<'a, 'b, 'c> {
        let shared = self.case.shared;
        let plan_number =
            if self.by_priority { shared.priority_plan } else { self.track.flow.plan_on(spotting.spot.channel) };
        Scorer { spotting, plan_number, plan: &shared.parts.plans.values()[plan_number], seen: &self.seen }
    }

    /// The survivors of each spot that an active slot is for.
    fn pools(&mut self, lanes: &[Lane], scratch: &mut Scratch) -> SmallVec<[Pool; 4]> {
        let mut pools = SmallVec::<[Pool; 4]>::new();
        for lane in lanes.iter().filter(|lane| lane.active) {
            let index = pools.iter().position(|pool| pool.spot == lane.spot).unwrap_or_else(|| {
                pools.push(Pool { spot: lane.spot, left: scratch.take(self.case.snapshot.words()) });
                pools.len() - 1
            });
            self.spotting(lane).admit_into(&mut pools[index].left);
        }
        for pool in &mut pools {
            self.survive(pool, scratch);
        }
        pools
    }

    /// Fills one slot with the best that nothing bars, else with its fallback offer.
    fn fill(&mut self, lane: &Lane, pools: &[Pool], filled: &mut Filled, scratch: &mut Scratch) {
        let Some(pool) = pools.iter().find(|pool| lane.active && pool.spot == lane.spot) else {
            filled.empty = Some(EmptyReason::Inactive);
            return;
        };
        let had_room = self.filled < self.most;
        let spotting = self.spotting(lane);
        let mut left = scratch.copy(&pool.left);
        spotting.narrow_to_collection(&mut left);
        if let Some(mut reasons) = self.reasons.take() {
            explain::explain_slot(&spotting, &self.available, &self.mandatory, &left, &mut reasons);
            self.reasons = Some(reasons);
        }
        if !bitset::is_empty(&left) {
            self.pick(lane, &spotting, &mut left, filled);
        }
        scratch.give(left);
        if filled.picks.is_empty() {
            self.fall_back(lane, &spotting, filled, had_room);
        }
    }

    /// Leaves the offers of a pool that compete there: the stages in their order, counting what each leaves.
    fn survive(&mut self, pool: &mut Pool, scratch: &mut Scratch) {
        let (case, track, spot, left) = (self.case, self.track, pool.spot, &mut pool.left[..]);
        let spotting = &Spotting { case, track, spot, collection: Admission::All };
        bitset::and(left, &self.regular);
        spotting.narrow(left);
        self.reach(0, left, None);
        if track.is_barred(spot) {
            left.fill(0);
        }
        bitset::and_not(left, &track.fail);
        let mut lost_to_request = SmallVec::<[u32; 8]>::new();
        for global in track.recheck.iter().filter(|global| bitset::has(left, **global)) {
            match spotting.show(*global) {
                Show::Creative(_) | Show::Nothing => {}
                Show::LostToRule => lost_to_request.push(*global | LOST_TO_RULE),
                Show::LostToRequest => lost_to_request.push(*global),
            }
        }
        for global in &lost_to_request {
            if global & LOST_TO_RULE != 0 {
                bitset::clear(left, global & !LOST_TO_RULE);
            }
        }
        self.qualify_late(spotting, left);
        let qualified = self.reach(1, left, None);
        let mut idle = lost_to_request.is_empty() && self.suppression.is_idle(case, spot, left);
        if !idle {
            self.suppression.suppress(case, spot, left);
            lost_to_request.iter().for_each(|global| bitset::clear(left, global & !LOST_TO_RULE));
        }
        for part in &case.snapshot.parts {
            let Some(capped) = &part.segment.global_caps else { continue };
            for (word, mask) in part.range().zip(&capped.0) {
                for global in bitset::ones_of(left[word] & mask, word as u32 * 64) {
                    if suppress::exhausted(case, global, spot, &[]).is_some() {
                        bitset::clear(left, global);
                        self.budget_limited = true;
                        idle = false;
                    }
                }
            }
        }
        let unsuppressed = self.reach(2, left, qualified.filter(|_| idle));
        let idle = contact::is_idle(track, spot);
        if !idle {
            contact::restrain(case, track, spotting, left, scratch);
        }
        self.reach(3, left, unsuppressed.filter(|_| idle));
        let number = self.scorer(spotting).plan_number;
        for part in &case.snapshot.parts {
            if let Some(zero) = &part.segment.plans[number].zero {
                bitset::and_not(&mut left[part.range()], &zero.0);
            }
        }
    }

    /// Clears what fails rules that are evaluated offer by offer.
    fn qualify_late(&mut self, spotting: &Spotting<'a, 'b>, left: &mut [u64]) {
        let (case, track, spot) = (self.case, self.track, spotting.spot);
        let Some(rules) = track.flow.rules else { return };
        let everywhere = !track.late_everywhere.is_empty();
        for part in &case.snapshot.parts {
            let late = part.segment.rule_columns[rules].late.as_ref();
            if late.is_none() && !everywhere {
                continue;
            }
            for (index, word) in part.range().enumerate() {
                let asked = if everywhere { left[word] } else { left[word] & late.map_or(0, |late| late.0[index]) };
                for global in bitset::ones_of(asked & !self.evaluated[word], word as u32 * 64) {
                    bitset::set(&mut self.evaluated, global);
                    bitset::put(&mut self.failed, global, track.fails_late(case, global));
                }
                left[word] &= !(asked & self.failed[word]);
            }
        }
        if track.is_late_in(case, spot) {
            for word in 0..left.len() {
                for global in bitset::ones_of(left[word], word as u32 * 64) {
                    if track.fails_in_spot(case, global, spot) {
                        bitset::clear(left, global);
                    }
                }
            }
        }
    }

    /// Chooses from `left`, best first, each choice counting for the next.
    fn pick(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, left: &mut [u64], filled: &mut Filled) {
        let case = self.case;
        let explained = self.reasons.is_some();
        let room = |filling: &Self, filled: &Filled| {
            (lane.limit.saturating_sub(filled.picks.len())).min(filling.most.saturating_sub(filling.filled))
        };
        if !case.request.allow_duplicates && !explained {
            self.chosen.iter().for_each(|chosen| bitset::clear(left, chosen.global));
        }
        let mut want = if explained { usize::MAX } else { room(self, filled) };
        let mut examined = 0;
        while want > 0 {
            // An offer that may be chosen again can also run out of a global cap, which the answer must say.
            if !explained && !case.request.allow_duplicates && contact::is_exhausted(case, self.track, &self.chosen) {
                return;
            }
            let ranked = self.scorer(spotting).best(left, want, |_| true);
            for candidate in &ranked[examined..] {
                if room(self, filled) == 0 {
                    if !explained {
                        return;
                    }
                    self.note(candidate.global, RemovalReason::Outscored);
                } else {
                    self.consider(lane, spotting, *candidate, filled);
                }
            }
            if ranked.len() < want || room(self, filled) == 0 {
                return;
            }
            examined = ranked.len();
            want = want.saturating_mul(4);
        }
    }

    /// Chooses a candidate unless earlier choices bar it.
    fn consider(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, ranked: Ranked, filled: &mut Filled) {
        let (case, global) = (self.case, ranked.global);
        let again = self.chosen.iter().any(|chosen| chosen.global == global);
        if again && !case.request.allow_duplicates {
            return;
        }
        if again && let Some(reason) = suppress::cap_reached(case, global, lane.spot, &self.chosen) {
            return self.note(global, reason);
        }
        let creative = spotting.creative(global);
        if self.track.contact.counts_choices() {
            let candidate = Candidate { global, offer: case.offer(global), creative, spot: lane.spot };
            if contact::is_barred_by_choices(case, self.track, &candidate, &self.chosen) {
                let policy = contact::blocker(case, self.track, &candidate, &self.chosen, false);
                return policy.map_or((), |policy| self.note(global, RemovalReason::Policy(policy)));
            }
        }
        let factors =
            self.reasons.as_ref().map(|_| Box::new(explain::factors(&self.scorer(spotting), global, creative)));
        self.choose(lane, global, creative, false);
        let (score, kind) = (score::score(ranked.log_score), PropositionKind::Regular);
        filled.picks.push(Pick { global, creative, kind, score, factors });
    }

    /// Puts the fallback offer of an empty slot in, if it may be shown: it obeys status, exclusion and what the request
    /// excludes, nothing else.
    fn fall_back(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, filled: &mut Filled, had_room: bool) {
        if !had_room {
            filled.empty = Some(EmptyReason::Limit);
            return;
        }
        let Some(fallback) = lane.fallback else {
            filled.empty = Some(EmptyReason::NoCandidate);
            return;
        };
        let case = self.case;
        let shown = case.snapshot.global(fallback).and_then(|global| {
            let (part, position) = case.locate(global);
            let barred = !part.live.has(position)
                || part.excluded.has(position)
                || case.request.exclude_offers.contains(&fallback);
            match spotting.show_fallback(global) {
                Show::Creative(content) if !barred => Some((global, content.key)),
                Show::Creative(_) | Show::Nothing | Show::LostToRule | Show::LostToRequest => None,
            }
        });
        let Some((global, creative)) = shown else {
            filled.empty = Some(EmptyReason::FallbackUnavailable);
            return;
        };
        let factors = self.unscored(spotting, global);
        filled.picks.push(Pick { global, creative, kind: PropositionKind::Fallback, score: 0.0, factors });
        self.filled += 1;
    }
}

/// A reason of the step after suppression.
const FIRST_POLICY: RemovalReason = RemovalReason::Policy(PolicyKey(0));

/// Marks a position in a list of lost ones: positions stay below it.
const LOST_TO_RULE: u32 = 1 << 31;

/// On an atomic channel one empty slot empties all.
fn couple(lanes: &[Lane], outcomes: &mut [Filled]) {
    let broken: Vec<_> = lanes
        .iter()
        .zip(outcomes.iter())
        .filter(|(lane, filled)| lane.atomic && filled.picks.is_empty())
        .map(|(lane, _)| lane.spot.channel)
        .collect();
    for (lane, filled) in lanes.iter().zip(outcomes) {
        if broken.contains(&lane.spot.channel) && !filled.picks.is_empty() {
            filled.picks.clear();
            filled.empty = Some(EmptyReason::Coupling);
        }
    }
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
