//! Filling all slots at once: offers go where the scores of all slots together are highest. What earlier choices of the answer
//! then bar is given up, and what that leaves open is filled slot by slot.

use crate::decide::assignment::{self, CHOSEN_MAX, Candidate, Place};
use crate::decide::case::Scratch;
use crate::decide::decision::EmptyReason;
use crate::decide::explain;
use crate::decide::filling::{Filled, Filling};
use crate::decide::request::Duplicates;
use crate::decide::score;
use crate::decide::slots::Lane;
use crate::snapshot::bitset;

impl Filling<'_, '_> {
    /// Fills all slots, then empty ones with their fallback offers.
    pub(crate) fn share(&mut self, lanes: &[Lane], outcomes: &mut [Filled], scratch: &mut Scratch) {
        let case = self.case;
        let mut lefts: Vec<Option<Vec<u64>>> = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let mut left = self.pools.competing(lane, scratch);
            if let Some(left) = &mut left {
                if let Some(mut reasons) = self.reasons.take() {
                    let spotting = self.spotting(lane);
                    explain::explain_slot(&spotting, &self.pools.available, &self.mandatory, left, &mut reasons);
                    self.reasons = Some(reasons);
                }
                self.clear_barred(lane, left);
            }
            lefts.push(left);
        }
        let room = |filled: &Filled, lane: &Lane| lane.limit.saturating_sub(filled.picks.len());
        let open = lanes.iter().zip(&*outcomes).zip(&lefts).filter(|(_, left)| left.is_some());
        let most: usize = open.map(|((lane, filled), _)| room(filled, lane)).sum();
        let most = most.min(self.most.saturating_sub(self.filled)).min(CHOSEN_MAX);

        let (mut ranked, mut places) = (Vec::with_capacity(lanes.len()), Vec::with_capacity(lanes.len()));
        for ((lane, left), (filled, slot)) in lanes.iter().zip(&lefts).zip(outcomes.iter().zip(0u16..)) {
            let best = left.as_ref().map(|left| self.scorer(&self.spotting(lane)).best(left, most)).unwrap_or_default();
            let copy = if case.request.duplicates == Duplicates::Never { 0 } else { slot };
            let candidates = best.iter().map(|ranked| Candidate {
                thing: (case.offer(ranked.global), copy),
                score: score::score(ranked.log_score),
            });
            places.push(Place { slot, room: room(filled, lane), candidates: candidates.collect() });
            ranked.push(best);
        }
        let assigned = assignment::assign(&places, most);

        for (number, lane) in lanes.iter().enumerate() {
            let Some(left) = &mut lefts[number] else { continue };
            let spotting = self.spotting(lane);
            for index in &assigned[number] {
                let candidate = ranked[number][*index];
                self.consider(lane, &spotting, candidate, &mut outcomes[number]);
                bitset::clear(left, candidate.global);
            }
        }
        for ((lane, left), filled) in lanes.iter().zip(&mut lefts).zip(outcomes.iter_mut()) {
            if let Some(left) = left.as_mut().filter(|left| !bitset::is_empty(left)) {
                self.pick(lane, &self.spotting(lane), left, filled);
            }
        }
        for ((lane, left), filled) in lanes.iter().zip(lefts).zip(outcomes) {
            match left {
                None => filled.empty = Some(EmptyReason::Inactive),
                Some(left) => {
                    scratch.give(left);
                    if filled.picks.is_empty() {
                        let has_room = self.filled < self.most;
                        self.fall_back(lane, &self.spotting(lane), filled, has_room);
                    }
                }
            }
        }
    }
}
