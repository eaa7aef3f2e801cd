//! What survives the stages: once per spot, because nothing but the collection tells slots of one spot apart, and it comes
//! last.

use smallvec::SmallVec;

use crate::decide::candidates::{Admission, Show, Spotting};
use crate::decide::case::{Case, Scratch, Spot};
use crate::decide::contact;
use crate::decide::funnel::Counters;
use crate::decide::qualify::Track;
use crate::decide::screen;
use crate::decide::slots::Lane;
use crate::decide::suppress::{self, Suppression};
use crate::snapshot::Binding;
use crate::snapshot::bitset;

/// Survivors of one spot, for all slots there.
struct Pool {
    spot: Spot,
    /// How many slots they are for.
    slots: usize,
    left: Vec<u64>,
}

/// See the module.
pub(crate) struct Pools<'a, 'b> {
    case: &'b Case<'a>,
    track: &'b Track<'a>,
    /// What status, schedule and emergency exclusion leave.
    pub(crate) available: Vec<u64>,
    pub(crate) counters: Counters,
    /// Whether a global cap has run out.
    pub(crate) budget_limited: bool,
    suppression: Suppression,
    /// Offers evaluated by late rules, and those that failed; empty until one is.
    evaluated: Vec<u64>,
    failed: Vec<u64>,
    pools: SmallVec<[Pool; 2]>,
}

impl<'a, 'b> Pools<'a, 'b> {
    /// No pools yet, for a request of so many slots.
    pub(crate) fn new(
        case: &'b Case<'a>,
        track: &'b Track<'a>,
        slots: usize,
        binding: &Binding,
        scratch: &mut Scratch,
    ) -> Self {
        let mut available = scratch.blank();
        for (number, part) in case.snapshot.parts.iter().enumerate() {
            let columns = part.live.0.iter().zip(&part.excluded.0).zip(binding.open.of(number));
            available.extend(columns.map(|((live, excluded), open)| live & !excluded & open));
        }
        Pools {
            case,
            track,
            available,
            counters: Counters::new(case.request.counters, slots, case.snapshot.words(), scratch),
            budget_limited: false,
            suppression: suppress::look(case, scratch),
            evaluated: scratch.blank(),
            failed: scratch.blank(),
            pools: SmallVec::new(),
        }
    }

    /// Gives the buffers back.
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        let buffers = [self.available, self.evaluated, self.failed];
        buffers.into_iter().for_each(|buffer| scratch.give(buffer));
        self.pools.into_iter().for_each(|pool| scratch.give(pool.left));
        self.counters.recycle(scratch);
        self.suppression.recycle(scratch);
    }

    /// Finds the survivors of each spot that an active slot is for. Mandatory offers are no part of them.
    pub(crate) fn fill(&mut self, lanes: &[Lane], mandatory: &[u32], scratch: &mut Scratch) {
        let mut pools = SmallVec::<[Pool; 2]>::new();
        for lane in lanes.iter().filter(|lane| lane.active) {
            let admitted = |into: &mut Vec<u64>| lane.admission.copy_admitted(self.case, &self.available, into);
            match pools.iter_mut().find(|pool| pool.spot == lane.spot) {
                Some(pool) => {
                    pool.slots += 1;
                    lane.admission.or_admitted(self.case, &self.available, &mut pool.left);
                }
                None => {
                    let mut left = scratch.blank();
                    admitted(&mut left);
                    pools.push(Pool { spot: lane.spot, slots: 1, left });
                }
            }
        }
        for pool in &mut pools {
            mandatory.iter().for_each(|global| bitset::clear(&mut pool.left, *global));
            self.survive(pool, scratch);
        }
        self.pools = pools;
    }

    /// Those that compete for a slot; `None` where none may. To be asked once a slot.
    pub(crate) fn competing(&mut self, lane: &Lane, scratch: &mut Scratch) -> Option<Vec<u64>> {
        let pool = self.pools.iter_mut().find(|pool| lane.active && pool.spot == lane.spot)?;
        if pool.slots == 1 {
            return Some(std::mem::take(&mut pool.left));
        }
        let mut left = scratch.blank();
        lane.admission.copy_admitted(self.case, &pool.left, &mut left);
        Some(left)
    }

    /// Leaves the offers of a pool that compete there: the stages in their order, counting what each leaves.
    fn survive(&mut self, pool: &mut Pool, scratch: &mut Scratch) {
        let (case, track, spot, left) = (self.case, self.track, pool.spot, &mut pool.left[..]);
        let spotting = &Spotting::new(case, track, spot, Admission::All);
        spotting.narrow(left);
        self.counters.reach(0, left, None);
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
        if !track.late_tests.is_empty() {
            screen::screen_late(case, track, left);
        }
        let qualified = self.counters.reach(1, left, None);
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
        let unsuppressed = self.counters.reach(2, left, qualified.filter(|_| idle));
        let idle = contact::is_idle(track, spot);
        if !idle {
            contact::restrain(case, track, spotting, left, scratch);
        }
        self.counters.reach(3, left, unsuppressed.filter(|_| idle));
        let number = track.plan_on(case, spot);
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
            self.evaluated.resize(left.len(), 0);
            self.failed.resize(left.len(), 0);
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
}

/// Marks a position in a list of lost ones: positions stay below it.
const LOST_TO_RULE: u32 = 1 << 31;
