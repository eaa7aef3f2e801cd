//! The funnel: how many distinct offers each step leaves, over all slots.

use crate::decide::case::Scratch;
use crate::decide::decision::Funnel;
use crate::snapshot::bitset;

/// The steps that are counted: candidates, after qualification, after suppression, after contact policies.
pub(crate) const STEPS: usize = 4;

/// What each step has left so far.
pub(crate) enum Counters {
    /// Nothing is counted.
    Off,
    /// Numbers: one slot needs no union.
    One([u32; STEPS]),
    /// The offers.
    Several([Vec<u64>; STEPS]),
}

impl Counters {
    /// Nothing counted yet, for so many slots over `words` of a bitset.
    pub(crate) fn new(wanted: bool, slots: usize, words: usize, scratch: &mut Scratch) -> Self {
        match (wanted, slots) {
            (false, _) => Counters::Off,
            (true, 0 | 1) => Counters::One([0; STEPS]),
            (true, _) => Counters::Several(std::array::from_fn(|_| scratch.take(words))),
        }
    }

    /// Adds what a step has `left`; how many that is, unless it is `known`, where it must be counted now.
    pub(crate) fn reach(&mut self, step: usize, left: &[u64], known: Option<u32>) -> Option<u32> {
        match self {
            Counters::Off => None,
            Counters::One(counts) => {
                let number = known.unwrap_or_else(|| bitset::count(left));
                counts[step] += number;
                Some(number)
            }
            Counters::Several(reached) => {
                bitset::or(&mut reached[step], left);
                None
            }
        }
    }

    /// Adds one offer to the steps that it `reaches`.
    pub(crate) fn reach_alone(&mut self, global: u32, reaches: [bool; STEPS]) {
        match self {
            Counters::Off => {}
            Counters::One(counts) => {
                counts.iter_mut().zip(reaches).for_each(|(count, reaches)| *count += u32::from(reaches));
            }
            Counters::Several(reached) => {
                let steps = reached.iter_mut().zip(reaches);
                steps.for_each(|(reached, reaches)| bitset::put_if(reached, global, reaches));
            }
        }
    }

    /// The numbers of all slots; zeros if none are wanted.
    pub(crate) fn funnel(&self) -> Funnel {
        let [total_candidates, after_qualification, after_suppression, after_contact_policy] = match self {
            Counters::Off => [0; STEPS],
            Counters::One(counts) => *counts,
            Counters::Several(reached) => std::array::from_fn(|step| bitset::count(&reached[step])),
        };
        Funnel { total_candidates, after_qualification, after_suppression, after_contact_policy }
    }

    /// Gives the buffers back.
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        match self {
            Counters::Off | Counters::One(_) => {}
            Counters::Several(reached) => reached.into_iter().for_each(|buffer| scratch.give(buffer)),
        }
    }
}
