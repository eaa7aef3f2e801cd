//! Filling slots: the best that nothing bars, each choice counting for the next; mandatory offers before, fallback offers
//! where nothing is left.

use smallvec::SmallVec;

use crate::decide::candidates::{Show, Spotting};
use crate::decide::case::{Case, Chosen, Scratch};
use crate::decide::contact::{self, Candidate};
use crate::decide::decision::{EmptyReason, Factors, PropositionKind, RemovalReason, SlotOutcome};
use crate::decide::explain::{self, Reasons, depth};
use crate::decide::funnel::STEPS;
use crate::decide::mandatory;
use crate::decide::pools::Pools;
use crate::decide::qualify::Track;
use crate::decide::rank::{Ranked, Scorer};
use crate::decide::request::{Duplicates, Explain};
use crate::decide::score;
use crate::decide::slots::Lane;
use crate::decide::suppress;
use crate::keys::{CreativeKey, PolicyKey};
use crate::snapshot::bitset;

/// One offer picked for one slot.
pub(crate) struct Pick {
    pub(crate) global: u32,
    pub(crate) creative: CreativeKey,
    pub(crate) kind: PropositionKind,
    pub(crate) score: f64,
    pub(crate) factors: Option<Box<Factors>>,
}

/// A slot being filled.
#[derive(Default)]
pub(crate) struct Filled {
    pub(crate) picks: SmallVec<[Pick; 5]>,
    pub(crate) empty: Option<EmptyReason>,
}

impl Filled {
    pub(crate) fn outcome(&self) -> SlotOutcome {
        SlotOutcome {
            count: self.picks.len() as u32,
            fallback: self.picks.iter().any(|pick| pick.kind == PropositionKind::Fallback),
            empty: self.empty,
        }
    }
}

/// The state of choosing, from slot to slot.
pub(crate) struct Filling<'a, 'b> {
    pub(super) case: &'b Case<'a>,
    track: &'b Track<'a>,
    pub(crate) pools: Pools<'a, 'b>,
    pub(crate) mandatory: Vec<u32>,
    /// Positions of offers in the history.
    seen: Vec<u64>,
    pub(super) chosen: SmallVec<[Chosen; 8]>,
    /// Propositions so far, fallback offers included.
    pub(super) filled: usize,
    pub(super) most: usize,
    pub(crate) budget_limited: bool,
    pub(crate) reasons: Option<Reasons>,
}

impl<'a, 'b> Filling<'a, 'b> {
    /// Nothing chosen yet.
    pub(crate) fn new(case: &'b Case<'a>, track: &'b Track<'a>, pools: Pools<'a, 'b>, scratch: &mut Scratch) -> Self {
        let words = case.snapshot.words();
        let mut seen = scratch.take(words);
        case.history.seen.iter().filter_map(|seen| seen.global).for_each(|global| bitset::set(&mut seen, global));
        Filling {
            case,
            track,
            pools,
            mandatory: mandatory::now_mandatory(case),
            seen,
            chosen: SmallVec::new(),
            filled: 0,
            most: case.request.limit.map_or(usize::MAX, |limit| limit as usize),
            budget_limited: false,
            reasons: match case.request.explain {
                Explain::Off => None,
                Explain::Full { .. } => Some(Reasons::new(words * 64)),
            },
        }
    }

    /// Gives the buffers back.
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        scratch.give(self.seen);
        self.pools.recycle(scratch);
    }

    pub(super) fn spotting(&self, lane: &Lane) -> Spotting<'a, 'b> {
        Spotting::new(self.case, self.track, lane.spot, lane.admission)
    }

    pub(crate) fn note(&mut self, global: u32, reason: RemovalReason) {
        self.budget_limited |= matches!(reason, RemovalReason::GlobalCap(_));
        if let Some(reasons) = &mut self.reasons {
            reasons.note(global, reason);
        }
    }

    /// Puts mandatory offers into the first slots that admit them.
    pub(crate) fn prepend_mandatory(&mut self, lanes: &[Lane], outcomes: &mut [Filled]) {
        let mandatory = std::mem::take(&mut self.mandatory);
        let mut admitted = Vec::with_capacity(mandatory.len() * lanes.len());
        for lane in lanes {
            let spotting = self.spotting(lane);
            for global in &mandatory {
                let standing = lane.active.then(|| mandatory::admit(&spotting, &self.pools.available, *global, &[]));
                admitted.push(matches!(standing, Some(Ok(_))));
                let Some(standing) = standing else { continue };
                let came = standing.map_or_else(|reason| depth(&reason), |_| u8::MAX);
                self.pools.counters.reach_alone(*global, FIRST_AFTER.map(|first| came >= depth(&first)));
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
                match mandatory::admit(&spotting, &self.pools.available, *global, &self.chosen) {
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

    pub(super) fn scorer<'c>(&'c self, spotting: &'c Spotting<'a, 'b>) -> Scorer<'a, 'b, 'c> {
        let plan_number = self.track.plan_on(self.case, spotting.spot);
        let plan = &self.case.shared.parts.plans.values()[plan_number];
        Scorer { spotting, plan_number, plan, seen: &self.seen }
    }

    /// Fills one slot with the best that nothing bars, else with its fallback offer.
    pub(crate) fn fill(&mut self, lane: &Lane, filled: &mut Filled, scratch: &mut Scratch) {
        let Some(mut left) = self.pools.competing(lane, scratch) else {
            filled.empty = Some(EmptyReason::Inactive);
            return;
        };
        let had_room = self.filled < self.most;
        let spotting = self.spotting(lane);
        if let Some(mut reasons) = self.reasons.take() {
            explain::explain_slot(&spotting, &self.pools.available, &self.mandatory, &left, &mut reasons);
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

    /// Chooses from `left`, best first, each choice counting for the next.
    pub(super) fn pick(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, left: &mut [u64], filled: &mut Filled) {
        let case = self.case;
        let explained = self.reasons.is_some();
        let room = |filling: &Self, filled: &Filled| {
            (lane.limit.saturating_sub(filled.picks.len())).min(filling.most.saturating_sub(filling.filled))
        };
        if !explained {
            self.clear_barred(lane, left);
        }
        let mut want = if explained { usize::MAX } else { room(self, filled) };
        let mut examined = 0;
        while want > 0 {
            // An offer that may be chosen again can also run out of a global cap, which the answer must say.
            if !explained
                && case.request.duplicates == Duplicates::Never
                && contact::is_exhausted(case, self.track, &self.chosen)
            {
                return;
            }
            let ranked = self.scorer(spotting).best(left, want);
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

    /// Whether an offer that was chosen may not be chosen for this slot as well.
    fn bars(&self, chosen: &Chosen, lane: &Lane) -> bool {
        self.case.request.duplicates.bar(chosen.spot.placement, lane.spot.placement)
    }

    /// Leaves of the offers for a slot those that may be chosen beside earlier choices, caps and policies aside.
    pub(super) fn clear_barred(&self, lane: &Lane, left: &mut [u64]) {
        let barred = self.chosen.iter().filter(|chosen| self.bars(chosen, lane));
        barred.for_each(|chosen| bitset::clear(left, chosen.global));
    }

    /// Chooses a candidate unless earlier choices bar it.
    pub(super) fn consider(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, ranked: Ranked, filled: &mut Filled) {
        let (case, global) = (self.case, ranked.global);
        if self.chosen.iter().any(|chosen| chosen.global == global && self.bars(chosen, lane)) {
            return;
        }
        let again = self.chosen.iter().any(|chosen| chosen.global == global);
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
    pub(super) fn fall_back(&mut self, lane: &Lane, spotting: &Spotting<'a, 'b>, filled: &mut Filled, had_room: bool) {
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

/// The first reason after each step of the funnel.
const FIRST_AFTER: [RemovalReason; STEPS] =
    [RemovalReason::Eligibility, RemovalReason::OptOut, RemovalReason::Policy(PolicyKey(0)), RemovalReason::ZeroFactor];
