//! Room for what goes on: a profile is limited, and what a busy customer does must not be refused for it.
//!
//! What limits are counted by is never dropped. Impressions beyond [`EXPOSURES_PER_PROFILE`] are counted together with a
//! later one of the same thing, and, if there are too many different things, by thing alone: always at a later time than
//! they were, so a policy may see an impression for longer than its window (by a 64th of its age, unless the history is
//! that crowded), and never too few. Units of caps do not depend on any of this: they have their own counters, and a cap for
//! which there is no counter left has no unit. The rest is history, and its oldest goes first.

use std::collections::{BTreeMap, BTreeSet};

use crate::keys::{CapKey, Micros};
use crate::limits::{
    ANSWERS_PER_PROFILE, DEALINGS_PER_PROFILE, EXPOSURES_PER_PROFILE, OLDER_PER_PROFILE, ROLLING_TIMES_PER_PROFILE,
};
use crate::profile::command::{Counted, DecisionId, OptOut, Window};
use crate::profile::state::{Dealings, Exposure, OutcomeRecord, Profile, Used};
use crate::time::Timestamp;

/// Impressions are counted together within a stretch of their age divided by this; by more only if that is not enough.
const GRAINS: [i64; 4] = [64, 16, 4, 1];

/// What is left of a list that was full: the next time comes after a while.
const fn kept(limit: usize) -> usize {
    limit / 4 * 3
}

/// Takes the oldest out of a full list that is in order of time.
fn drop_oldest<T>(list: &mut Vec<T>, limit: usize) {
    if list.len() > limit {
        list.drain(..list.len() - kept(limit));
    }
}

impl Profile {
    /// Brings every list back under its limit. O(1) unless one is over it.
    pub(crate) fn make_room(&mut self, now: Timestamp) {
        if self.exposures.len() > EXPOSURES_PER_PROFILE {
            self.crowd(now);
        }
        let Some(dealings) = self.dealings.as_mut() else { return };
        if dealings.older.len() > OLDER_PER_PROFILE {
            dealings.round_older();
        }
        if dealings.outcomes.len() > DEALINGS_PER_PROFILE {
            dealings.crowd_outcomes();
        }
        if dealings.decisions.len() > DEALINGS_PER_PROFILE {
            dealings.forget_oldest_decisions();
        }
        drop_oldest(&mut dealings.lapsed, ANSWERS_PER_PROFILE);
        if dealings.answers.len() > ANSWERS_PER_PROFILE {
            dealings.forget_oldest_answers();
        }
        if dealings.opt_outs.len() > DEALINGS_PER_PROFILE {
            // Who wants none of so many things wants nothing.
            dealings.opt_outs = vec![OptOut::All];
        }
        drop_oldest(&mut dealings.ghosts, DEALINGS_PER_PROFILE);
        if dealings.answered.len() > DEALINGS_PER_PROFILE {
            self.prune_answered();
        }
    }

    /// Counts impressions of the same thing together, until there is room.
    fn crowd(&mut self, now: Timestamp) {
        let dealings = self.dealings.get_or_insert_default();
        let mut crowds: Vec<(Exposure, u32)> = self.exposures.iter().map(|seen| (*seen, 1)).collect();
        crowds.append(&mut dealings.crowds);
        let thing = |of: &Exposure| (of.offer, of.creative, of.channel, of.placement(), of.category());
        crowds.sort_by_key(|(last, _)| (thing(last), last.at()));
        let room = kept(EXPOSURES_PER_PROFILE);
        for grain in GRAINS.into_iter().map(Some).chain([None]) {
            let mut fewer: Vec<(Exposure, u32)> = Vec::with_capacity(crowds.len());
            for (later, more) in crowds {
                match fewer.last_mut() {
                    Some((last, times))
                        if thing(last) == thing(&later) && are_together(last.at(), later.at(), grain, now) =>
                    {
                        (*last, *times) = (later, times.saturating_add(more));
                    }
                    Some(_) | None => fewer.push((later, more)),
                }
            }
            crowds = fewer;
            if crowds.len() <= room {
                break;
            }
        }
        crowds.sort_by_key(|(last, _)| last.at());
        let too_many = crowds.len().saturating_sub(room);
        for (last, times) in crowds.drain(..too_many) {
            dealings.fold(&last, times);
        }
        self.exposures = crowds.iter().map(|(last, _)| *last).collect();
        dealings.crowds =
            crowds.into_iter().filter(|(_, times)| *times > 1).map(|(last, times)| (last, times - 1)).collect();
    }
}

/// Whether two impressions of one thing may count as one and another at the later time: they lie in one stretch of a
/// fixed division of time, so that what is put together again and again never moves by more than the last stretch.
fn are_together(earlier: Timestamp, later: Timestamp, grain: Option<i64>, now: Timestamp) -> bool {
    let Some(grain) = grain else { return true };
    let longest = now.since_ms(later).max(0) / grain;
    let bits = i64::BITS - 1 - longest.max(1).leading_zeros();
    earlier == later || (longest > 0 && earlier.0 >> bits == later.0 >> bits)
}

impl Dealings {
    /// Counts the things that were seen least as seen equally often.
    fn round_older(&mut self) {
        let mut counts: Vec<u32> = self.older.iter().map(|(_, count)| *count).collect();
        counts.sort_unstable_by(|left, right| right.cmp(left));
        let most = counts[kept(OLDER_PER_PROFILE)];
        self.older.retain(|(counted, count)| *count > most || *counted == Counted::All);
        self.older_rest = self.older_rest.max(most);
    }

    /// Keeps the last of outcomes that say the same, with how many there were; then the latest.
    fn crowd_outcomes(&mut self) {
        let mut seen: BTreeMap<_, OutcomeRecord> = BTreeMap::new();
        for outcome in self.outcomes.drain(..) {
            let same = (outcome.offer, outcome.category, outcome.outcome, outcome.over_cap, outcome.repeat);
            seen.entry(same).and_modify(|earlier| *earlier = outcome.after(earlier)).or_insert(outcome);
        }
        self.outcomes = seen.into_values().collect();
        self.outcomes.sort_by_key(|outcome| outcome.at);
        drop_oldest(&mut self.outcomes, kept(DEALINGS_PER_PROFILE));
    }

    /// Adds an outcome. A repeated one says no more than that it came again.
    pub(crate) fn note_outcome(&mut self, outcome: OutcomeRecord) {
        let same = |known: &OutcomeRecord| {
            known.repeat
                && (known.offer, known.category, known.outcome, known.over_cap)
                    == (outcome.offer, outcome.category, outcome.outcome, outcome.over_cap)
        };
        let earlier = self.outcomes.iter().position(same).filter(|_| outcome.repeat);
        let outcome = earlier.map_or(outcome, |index| outcome.after(&self.outcomes.remove(index)));
        self.outcomes.push(outcome);
    }

    /// Unanswered decisions go first, those that hold nothing before the others: an outcome of one that is forgotten is only
    /// not told to be late. Then answered ones: whatever still comes for those is not counted a second time.
    fn forget_oldest_decisions(&mut self) {
        let answered: BTreeSet<DecisionId> = self.answers.iter().map(|answer| answer.decision).collect();
        let holding = self.reservations.iter().map(|held| held.decision);
        let holding: BTreeSet<DecisionId> = holding.chain(self.policy_holds.iter().map(|hold| hold.decision)).collect();
        let rank = |id: &DecisionId| (answered.contains(id), holding.contains(id));
        let mut order: Vec<_> = self.decisions.iter().map(|of| (rank(&of.decision), of.at, of.decision)).collect();
        order.sort_unstable();
        order.truncate(self.decisions.len() - kept(DEALINGS_PER_PROFILE));
        for ((was_answered, _), at, _) in &order {
            if *was_answered {
                self.forgotten_until = self.forgotten_until.max(*at);
            }
        }
        let gone: BTreeSet<DecisionId> = order.into_iter().map(|(_, _, decision)| decision).collect();
        self.forget_decisions(|record| gone.contains(&record.decision));
    }

    fn forget_oldest_answers(&mut self) {
        let too_many = self.answers.len() - kept(ANSWERS_PER_PROFILE);
        let gone: BTreeSet<DecisionId> = self.answers[..too_many].iter().map(|answer| answer.decision).collect();
        for record in self.decisions.iter().filter(|record| gone.contains(&record.decision)) {
            self.forgotten_until = self.forgotten_until.max(record.at);
        }
        self.forget_decisions(|record| gone.contains(&record.decision));
    }

    /// Whether one more use of `cap` could be counted, those held included: each takes the place of its hold.
    pub(crate) fn can_count(&self, cap: CapKey, window: Window) -> bool {
        let held = self.reservations.len();
        let known = self.cap_uses.iter().any(|use_of| use_of.cap == cap);
        let times = || {
            self.cap_uses.iter().map(|use_of| match &use_of.used {
                Used::Rolling(times) => times.len(),
                Used::Lifetime(_) | Used::Calendar(..) => 0,
            })
        };
        (known || self.cap_uses.len() + held < DEALINGS_PER_PROFILE)
            && match window {
                Window::Rolling { .. } => times().sum::<usize>() + held < ROLLING_TIMES_PER_PROFILE,
                Window::Lifetime | Window::Calendar(_) => true,
            }
    }

    /// Whether one more unit can be held.
    pub(crate) fn can_hold(&self) -> bool {
        self.reservations.len() < DEALINGS_PER_PROFILE
    }

    /// Whether one more hold of a policy can be kept.
    pub(crate) fn can_hold_for_policy(&self) -> bool {
        self.policy_holds.len() < DEALINGS_PER_PROFILE
    }
}

impl OutcomeRecord {
    /// This outcome, and one like it that came earlier.
    fn after(mut self, earlier: &OutcomeRecord) -> Self {
        self.times = self.times.saturating_add(earlier.times);
        self.value = match (self.value, earlier.value) {
            (Some(value), Some(before)) => Some(Micros(value.0.saturating_add(before.0))),
            (value, before) => value.or(before),
        };
        self
    }
}
