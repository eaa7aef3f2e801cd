//! Who goes where when slots share offers so that their scores together are highest: an assignment problem.
//!
//! Shared by the kernel and the naive evaluation, like the arithmetic of scores. Solved by augmenting paths of largest gain,
//! each of which leaves a best choice of one more proposition. Worths are whole numbers, so sums are exact and do not depend on
//! the order in which slots or offers come.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::OfferKey;

/// Steps between a score of nothing and the largest score of a request.
const SCORE_STEPS: f64 = (1u64 << 46) as f64;
/// More than the places of all chosen offers in their rankings add up to.
const PLACES: i128 = 1 << 23;
/// What one more proposition is worth beside its score: above, all places together are less.
const FILLED: i128 = 1 << 15;
/// More than the tie breakers of all chosen offers add up to.
const TIES: i128 = 1 << 48;
/// Most candidates of one slot, and most propositions together, so that sums stay apart.
pub(crate) const CHOSEN_MAX: usize = 150;

/// An offer that may go to a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Equal for the same offer in several slots, unless it may go to all of them.
    pub(crate) thing: (OfferKey, u16),
    /// ≥ 0, finite.
    pub(crate) score: f64,
}

/// A slot with its candidates, best first.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The slot's number.
    pub(crate) slot: u16,
    /// Most offers in it.
    pub(crate) room: usize,
    /// Best first. Of each slot as many as offers are chosen in all (`most` of [`assign`]) are enough: there is no choice in which
    /// a slot could not take one of them instead of one that comes after them.
    pub(crate) candidates: Vec<Candidate>,
}

/// Chooses at most `most` candidates, each thing once and for each slot at most its room, so that, in this order, the sum of
/// scores is largest, the number of them is largest, they stand first in their slots. For each slot the chosen ones by index,
/// ascending. O(most · slots · candidates · path).
pub(crate) fn assign(places: &[Place], most: usize) -> Vec<Vec<usize>> {
    let most = most.min(CHOSEN_MAX);
    let mut solving = Solving::new(places, most);
    for _ in 0..most {
        if !solving.augment() {
            break;
        }
    }
    solving.chosen()
}

/// What lies between a slot and a thing.
struct Edge {
    place: usize,
    thing: usize,
    index: usize,
    worth: i128,
    taken: bool,
}

struct Solving {
    edges: Vec<Edge>,
    room: Vec<usize>,
    /// The edge by which each thing is taken.
    taken_by: Vec<Option<usize>>,
}

/// What leads best to a slot or thing: the gain so far, and the edge.
#[derive(Clone, Copy)]
struct Reached {
    gain: i128,
    by: Option<usize>,
}

impl Solving {
    fn new(places: &[Place], most: usize) -> Self {
        let candidates = |place: &Place| place.candidates[..place.candidates.len().min(most)].to_vec();
        let lists: Vec<Vec<Candidate>> = places.iter().map(candidates).collect();
        let largest = lists.iter().flatten().map(|candidate| candidate.score).fold(0.0, f64::max);
        let mut things: Vec<(OfferKey, u16)> = lists.iter().flatten().map(|candidate| candidate.thing).collect();
        things.sort_unstable();
        things.dedup();
        let mut edges = Vec::new();
        for (place, (list, of)) in lists.iter().zip(places).enumerate() {
            for (index, candidate) in list.iter().enumerate() {
                let thing = things.binary_search(&candidate.thing).unwrap_or_else(|place| place);
                let worth = worth(candidate, index, of.slot, largest);
                edges.push(Edge { place, thing, index, worth, taken: false });
            }
        }
        Solving { edges, room: places.iter().map(|place| place.room).collect(), taken_by: vec![None; things.len()] }
    }

    /// Chooses one more along the way that gains most, unless all of them lose.
    fn augment(&mut self) -> bool {
        let start = |room: &usize| (*room > 0).then_some(Reached { gain: 0, by: None });
        let mut places: Vec<Option<Reached>> = self.room.iter().map(start).collect();
        let mut things: Vec<Option<Reached>> = vec![None; self.taken_by.len()];
        // No way gains by going in circles: what is chosen is best for its number.
        loop {
            let mut better = false;
            for (number, edge) in self.edges.iter().enumerate() {
                let (from, to, gain) = if edge.taken {
                    (things[edge.thing], &mut places[edge.place], -edge.worth)
                } else {
                    (places[edge.place], &mut things[edge.thing], edge.worth)
                };
                let Some(from) = from else { continue };
                let gain = from.gain + gain;
                if to.is_none_or(|to| gain > to.gain) {
                    *to = Some(Reached { gain, by: Some(number) });
                    better = true;
                }
            }
            if !better {
                break;
            }
        }
        let free = self.taken_by.iter().zip(&things).enumerate().filter(|(_, (taken, _))| taken.is_none());
        let ends = free.filter_map(|(thing, (_, reached))| Some((thing, (*reached)?.gain)));
        let Some((end, gain)) = ends.max_by_key(|(_, gain)| *gain) else { return false };
        if gain < 0 {
            return false;
        }
        let mut thing = end;
        loop {
            // Into a thing by an edge that is not taken, out of its slot by one that is, until a slot has room.
            let Some(into) = things[thing].and_then(|reached| reached.by) else { return false };
            let place = self.edges[into].place;
            self.edges[into].taken = true;
            self.taken_by[thing] = Some(into);
            match places[place].and_then(|reached| reached.by) {
                None => {
                    self.room[place] -= 1;
                    return true;
                }
                Some(out) => {
                    self.edges[out].taken = false;
                    thing = self.edges[out].thing;
                }
            }
        }
    }

    fn chosen(&self) -> Vec<Vec<usize>> {
        let mut chosen = vec![Vec::new(); self.room.len()];
        for edge in self.edges.iter().filter(|edge| edge.taken) {
            chosen[edge.place].push(edge.index);
        }
        chosen
    }
}

/// What a candidate is worth in a slot: its score, then that there is one, then its place, then what tells equal ones apart.
fn worth(candidate: &Candidate, index: usize, slot: u16, largest: f64) -> i128 {
    let share = if largest > 0.0 { candidate.score / largest } else { 0.0 };
    let steps = libm::floor(share * SCORE_STEPS) as i128;
    let (OfferKey(offer), copy) = candidate.thing;
    let named: SmallVec<[u8; 8]> =
        offer.to_le_bytes().into_iter().chain(slot.to_le_bytes()).chain(copy.to_le_bytes()).collect();
    let tie = i128::from(xxh3_64(&named) >> 24);
    (steps * PLACES + FILLED - index as i128) * TIES + tie
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(slot: u16, room: usize, candidates: &[(u32, f64)]) -> Place {
        let mut candidates: Vec<Candidate> =
            candidates.iter().map(|(offer, score)| Candidate { thing: (OfferKey(*offer), 0), score: *score }).collect();
        candidates.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.thing.cmp(&right.thing)));
        Place { slot, room, candidates }
    }

    fn offers(places: &[Place], chosen: &[Vec<usize>]) -> Vec<Vec<u32>> {
        let named = |(place, chosen): (&Place, &Vec<usize>)| {
            chosen.iter().map(|index| place.candidates[*index].thing.0.0).collect()
        };
        places.iter().zip(chosen).map(named).collect()
    }

    fn total(places: &[Place], chosen: &[Vec<usize>]) -> f64 {
        let scores =
            places.iter().zip(chosen).flat_map(|(place, chosen)| chosen.iter().map(|i| place.candidates[*i].score));
        scores.sum()
    }

    #[test]
    fn the_first_slot_yields_its_best_where_all_gain_by_it() {
        let places = [place(0, 1, &[(1, 0.9), (2, 0.8)]), place(1, 1, &[(1, 0.85), (2, 0.1)])];
        assert_eq!(offers(&places, &assign(&places, 2)), [vec![2], vec![1]]);
        // One proposition only: the best of all.
        assert_eq!(offers(&places, &assign(&places, 1)), [vec![1], vec![]]);
    }

    #[test]
    fn no_slot_is_filled_at_the_cost_of_the_sum_but_at_no_cost_it_is() {
        let costly = [place(0, 1, &[(1, 0.9), (2, 0.01)]), place(1, 1, &[(1, 0.2)])];
        assert_eq!(offers(&costly, &assign(&costly, 2)), [vec![1], vec![]]);
        let free = [place(0, 1, &[(1, 0.0), (2, 0.0)]), place(1, 1, &[(1, 0.0)])];
        assert_eq!(offers(&free, &assign(&free, 2)), [vec![2], vec![1]]);
    }

    #[test]
    fn of_equal_ones_those_that_stand_first_are_chosen() {
        let alike = [(1, 0.5), (2, 0.5), (3, 0.5)];
        let places = [place(0, 1, &alike), place(1, 1, &alike)];
        let mut chosen = offers(&places, &assign(&places, 2)).concat();
        chosen.sort_unstable();
        assert_eq!(chosen, [1, 2]);
    }

    #[test]
    fn sums_of_the_most_there_can_be_do_not_overflow() {
        let candidates: Vec<(u32, f64)> = (0..CHOSEN_MAX as u32).map(|offer| (offer, f64::MAX)).collect();
        let places: Vec<Place> = (0..5).map(|slot| place(slot, 30, &candidates)).collect();
        let chosen = assign(&places, CHOSEN_MAX);
        assert_eq!(chosen.iter().map(Vec::len).sum::<usize>(), CHOSEN_MAX);
    }

    /// The largest sum of scores by trying everything.
    fn best(places: &[Place], slot: usize, room: usize, from: usize, used: &mut Vec<u32>, most: usize) -> f64 {
        if slot == places.len() || most == 0 {
            return 0.0;
        }
        let next_room = places.get(slot + 1).map_or(0, |place| place.room);
        let mut largest = best(places, slot + 1, next_room, 0, used, most);
        if room == 0 {
            return largest;
        }
        for index in from..places[slot].candidates.len() {
            let Candidate { thing: (OfferKey(offer), _), score } = places[slot].candidates[index];
            if used.contains(&offer) {
                continue;
            }
            used.push(offer);
            largest = largest.max(score + best(places, slot, room - 1, index + 1, used, most - 1));
            used.pop();
        }
        largest
    }

    proptest! {
        #[test]
        fn no_choice_has_a_larger_sum(
            slots in prop::collection::vec((0usize..3, prop::collection::vec((0u32..5, 0u32..8), 0..5)), 1..4),
            most in 1usize..5,
        ) {
            let slots = slots.iter().enumerate().map(|(number, (room, candidates))| {
                let mut candidates: Vec<(u32, f64)> =
                    candidates.iter().map(|(offer, score)| (*offer, f64::from(*score) / 8.0)).collect();
                candidates.sort_by_key(|(offer, _)| *offer);
                candidates.dedup_by_key(|(offer, _)| *offer);
                place(number as u16, *room, &candidates)
            });
            let places: Vec<Place> = slots.collect();
            let chosen = assign(&places, most);
            let expected = best(&places, 0, places[0].room, 0, &mut Vec::new(), most);
            prop_assert!((total(&places, &chosen) - expected).abs() < 1e-9, "{places:?}: {chosen:?}, not {expected}");
            let mut all = offers(&places, &chosen).concat();
            prop_assert!(all.len() <= most);
            prop_assert!(places.iter().zip(&chosen).all(|(place, chosen)| chosen.len() <= place.room));
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), chosen.iter().map(Vec::len).sum::<usize>());
        }

        #[test]
        fn candidates_beyond_the_number_chosen_and_the_order_of_slots_change_nothing(
            scores in prop::collection::vec(prop::collection::vec(0u32..4, 6), 2..4),
            most in 1usize..4,
            turned in any::<bool>(),
        ) {
            let slots = scores.iter().enumerate().map(|(number, scores)| {
                let candidates: Vec<(u32, f64)> =
                    (0u32..).zip(scores).map(|(offer, score)| (offer, f64::from(*score))).collect();
                place(number as u16, 2, &candidates)
            });
            let mut places: Vec<Place> = slots.collect();
            let whole = offers(&places, &assign(&places, most));
            places.iter_mut().for_each(|place| place.candidates.truncate(most));
            prop_assert_eq!(&offers(&places, &assign(&places, most)), &whole);
            if turned {
                places.reverse();
                let mut found = offers(&places, &assign(&places, most));
                found.reverse();
                prop_assert_eq!(found, whole);
            }
        }
    }
}
