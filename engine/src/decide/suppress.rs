//! Suppression: opt-outs, what the request excludes, and caps: the profile's from its own history, global ones from the
//! shard's escrow.

use smallvec::SmallVec;

use crate::decide::case::{Case, Chosen, Scratch, Sheet, Spot};
use crate::decide::counting::cap_window;
use crate::decide::decision::RemovalReason;
use crate::keys::{CapKey, OfferKey, PlacementKey};
use crate::model::offer::CapScope;
use crate::profile::command::{CountEvent, OptOut};
use crate::snapshot::CapPlan;
use crate::snapshot::bitset;

/// What is suppressed in every slot, and what only in some.
pub(crate) struct Suppression {
    /// By opt-outs from categories or everything.
    everywhere: Sheet,
    /// Single positions, and in which placement if not in all.
    single: SmallVec<[(Option<PlacementKey>, u32); 16]>,
}

impl Suppression {
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        scratch.give(self.everywhere.into_buffer());
    }

    /// `left &= !suppressed here`.
    pub(crate) fn suppress(&self, case: &Case<'_>, spot: Spot, left: &mut [u64]) {
        if is_opted_out_of_channel(case, spot) {
            left.fill(0);
            return;
        }
        bitset::and_not(left, self.everywhere.read());
        for (placement, global) in &self.single {
            if placement.is_none_or(|only| only == spot.placement) {
                bitset::clear(left, *global);
            }
        }
    }

    /// Whether nothing is suppressed here.
    pub(crate) fn is_idle(&self, case: &Case<'_>, spot: Spot, left: &[u64]) -> bool {
        let bars = |(placement, global): &(Option<PlacementKey>, u32)| {
            placement.is_none_or(|only| only == spot.placement) && bitset::has(left, *global)
        };
        self.everywhere.is_blank() && !self.single.iter().any(bars) && !is_opted_out_of_channel(case, spot)
    }
}

fn is_opted_out_of_channel(case: &Case<'_>, spot: Spot) -> bool {
    case.profile.is_some_and(|profile| profile.opt_outs().contains(&OptOut::Channel(spot.channel)))
}

/// Finds what opt-outs, excludes and profile caps suppress.
pub(crate) fn look(case: &Case<'_>, scratch: &mut Scratch) -> Suppression {
    let mut found = Suppression { everywhere: Sheet::new(scratch, case.snapshot.words()), single: SmallVec::new() };
    let single = &mut found.single;
    single.extend(case.request.exclude_offers.iter().filter_map(|offer| Some((None, case.snapshot.global(*offer)?))));
    for part in &case.snapshot.parts {
        for position in &*part.segment.closed {
            let caps = part.segment.caps.of(*position).iter();
            let closed = caps.filter(|cap| cap.scope == CapScope::Profile && cap.limit == 0);
            single.extend(closed.map(|cap| (cap.placement, part.first() + position)));
        }
    }
    let Some(profile) = case.profile else { return found };
    for opt_out in profile.opt_outs() {
        match opt_out {
            OptOut::Offer(offer) => {
                single.extend(case.snapshot.global(*offer).map(|global| (None, global)));
            }
            OptOut::Category(category) => {
                for part in &case.snapshot.parts {
                    if let Some(members) = part.segment.by_category.get(category) {
                        members.or_into(&mut found.everywhere.write()[part.range()]);
                    }
                }
            }
            OptOut::Channel(_) => {}
            OptOut::All => found.everywhere.write().fill(u64::MAX),
        }
    }
    for touched in profile.caps_touched() {
        for part in &case.snapshot.parts {
            let Ok(index) = part.segment.cap_of.binary_search_by_key(&touched, |(cap, _, _)| *cap) else { continue };
            let (_, position, place) = part.segment.cap_of[index];
            let cap = &part.segment.caps.items()[place as usize];
            if used(case, cap) >= cap.limit {
                single.push((cap.placement, part.first() + position));
            }
        }
    }
    found
}

fn used(case: &Case<'_>, cap: &CapPlan) -> u64 {
    let window = cap_window(cap.per, cap.window, &case.at.frame);
    case.profile.map_or(0, |profile| profile.cap_used(cap.cap, window, case.at.now))
}

/// The global cap of the offer at `global` that has no free unit for one more proposition here.
pub(crate) fn exhausted(case: &Case<'_>, global: u32, spot: Spot, chosen: &[Chosen]) -> Option<CapKey> {
    let (part, position) = case.locate(global);
    let segment = &part.segment;
    if !segment.global_caps.as_ref().is_some_and(|capped| capped.has(position)) {
        return None;
    }
    let key = segment.keys[position as usize];
    let caps = segment.caps.of(position).iter();
    let mut counting = caps.filter(|cap| cap.scope == CapScope::Global && cap.counts_in(spot.placement));
    let found = counting.find(|cap| is_short(case, cap, taken(cap, key, chosen)));
    found.map(|cap| cap.cap)
}

/// Whether the shard's account of a strict global cap cannot pay for one more proposition beside those `taken`, or a soft one
/// is known to be used up.
pub(crate) fn is_short(case: &Case<'_>, cap: &CapPlan, taken: u64) -> bool {
    match case.escrow.free(cap.cap, case.at.now) {
        Some(free) => !free.allows(cap.cost.saturating_mul(taken + 1), cap.strict),
        // A soft cap promises nothing: without an account it bars nothing.
        None => cap.strict,
    }
}

/// Units that earlier choices of the same answer take of a cap. A soft cap on outcomes is taken by none: they may never come.
fn taken(cap: &CapPlan, offer: OfferKey, chosen: &[Chosen]) -> u64 {
    let counts = cap.strict || matches!(cap.count_on, Some(CountEvent::Decision | CountEvent::Impression));
    let same = |other: &&Chosen| counts && other.offer == offer && cap.counts_in(other.spot.placement);
    chosen.iter().filter(same).count() as u64
}

/// The profile cap of the offer at `global` that has no unit left for one more proposition here.
pub(crate) fn capped(case: &Case<'_>, global: u32, spot: Spot, chosen: &[Chosen]) -> Option<CapKey> {
    let (part, position) = case.locate(global);
    let key = part.segment.keys[position as usize];
    let caps = part.segment.caps.of(position).iter();
    let mut counting = caps.filter(|cap| cap.scope == CapScope::Profile && cap.counts_in(spot.placement));
    let found = counting.find(|cap| used(case, cap) + taken(cap, key, chosen) >= cap.limit);
    found.map(|cap| cap.cap)
}

/// Whether the customer opted out of the offer at `global` here.
pub(crate) fn is_opted_out(case: &Case<'_>, global: u32, spot: Spot) -> bool {
    case.profile.is_some_and(|profile| {
        profile.opt_outs().iter().any(|opt_out| match opt_out {
            OptOut::Offer(barred) => *barred == case.offer(global),
            OptOut::Category(category) => case.category(global) == Some(*category),
            OptOut::Channel(channel) => *channel == spot.channel,
            OptOut::All => true,
        })
    })
}

/// The first cap that bars the offer at `global` here: the profile's before global ones.
pub(crate) fn cap_reached(case: &Case<'_>, global: u32, spot: Spot, chosen: &[Chosen]) -> Option<RemovalReason> {
    capped(case, global, spot, chosen)
        .map(RemovalReason::ProfileCap)
        .or_else(|| exhausted(case, global, spot, chosen).map(RemovalReason::GlobalCap))
}
