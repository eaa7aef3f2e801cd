//! What a profile's history bars, as bitsets over the snapshot.

use super::{Candidate, blocks, is_any_reached, lifts, recent_outcomes, shown_of};
use crate::catalog::CapOrigin;
use crate::decide::candidates::Spotting;
use crate::decide::case::{Case, Scratch, Sheet, Spot};
use crate::decide::qualify::{Track, is_of_spot};
use crate::decide::suppress;
use crate::keys::{CategoryKey, CreativeKey, OfferKey};
use crate::model::policy::OutcomeAction;
use crate::profile::command::Counted;
use crate::snapshot::bitset;
use crate::snapshot::policies::{Counting, Limit, Policy, Restraint, Tally};
use crate::snapshot::rules::{Question, Scopes};
use crate::snapshot::segment::Segment;

/// Whether no policy bars anything in a slot.
pub(crate) fn is_idle(track: &Track<'_>, spot: Spot) -> bool {
    let concerns = |policy: &&Policy| is_of_spot(&policy.scopes, spot) || !policy.scopes.creatives.is_empty();
    track.contact.blocked.is_blank() && !track.contact.by_spot.iter().any(concerns)
}

/// `left &= !(blocked here & !lifted here)`.
pub(crate) fn restrain(
    case: &Case<'_>,
    track: &Track<'_>,
    spotting: &Spotting<'_, '_>,
    left: &mut [u64],
    scratch: &mut Scratch,
) {
    let contact = &track.contact;
    let spot = spotting.spot;
    let concerns = |policy: &&&Policy| is_of_spot(&policy.scopes, spot) || !policy.scopes.creatives.is_empty();
    if !contact.by_spot.iter().any(|policy| concerns(&policy)) {
        return clear(left, &contact.blocked, &contact.lifted);
    }
    let words = left.len();
    let copy = |of: &Sheet, scratch: &mut Scratch| {
        let mut copied = Sheet::new(scratch, words);
        if !of.is_blank() {
            copied.write().copy_from_slice(of.read());
        }
        copied
    };
    let (mut blocked, mut lifted) = (copy(&contact.blocked, scratch), copy(&contact.lifted, scratch));
    let mut set = Sheet::new(scratch, words);
    for policy in contact.by_spot.iter().filter(concerns) {
        bar_in_spot(case, track, policy, spotting, left, (&mut blocked, &mut lifted), &mut set);
    }
    clear(left, &blocked, &lifted);
    [blocked, lifted, set].into_iter().for_each(|sheet| scratch.give(sheet.into_buffer()));
}

/// `left &= !(blocked & !lifted)`.
fn clear(left: &mut [u64], blocked: &Sheet, lifted: &Sheet) {
    if lifted.is_blank() {
        // A blank sheet has no words to clear by.
        return bitset::and_not(left, blocked.read());
    }
    for ((left, blocked), lifted) in left.iter_mut().zip(blocked.read()).zip(lifted.read()) {
        *left &= !(blocked & !lifted);
    }
}

fn bar_in_spot(
    case: &Case<'_>,
    track: &Track<'_>,
    policy: &Policy,
    spotting: &Spotting<'_, '_>,
    left: &[u64],
    (blocked, lifted): (&mut Sheet, &mut Sheet),
    set: &mut Sheet,
) {
    let scopes = &policy.scopes;
    let spot = spotting.spot;
    if let Restraint::Override(_) = &policy.restraint {
        if lifts(track, policy) {
            if is_of_spot(scopes, spot) {
                lifted.write().fill(u64::MAX);
            }
            for (global, _) in shown_here(case, scopes, spotting, left) {
                bitset::set(lifted.write(), global);
            }
        }
        return;
    }
    if is_of_spot(scopes, spot) {
        match limits_by_scope(&policy.restraint) {
            Some(limits) => {
                let reached = |counted| is_any_reached(case, limits, counted);
                if scopes.channels.contains(&spot.channel) && reached(Counted::Channel(spot.channel))
                    || scopes.placements.contains(&spot.placement) && reached(Counted::Placement(spot.placement))
                {
                    blocked.write().fill(u64::MAX);
                }
            }
            None => {
                let everything = Scopes { global: true, ..Scopes::default() };
                bar_bound(case, track, &policy.restraint, &everything, true, blocked, set);
            }
        }
    }
    for (global, creative) in shown_here(case, scopes, spotting, left) {
        let candidate = Candidate { global, offer: case.offer(global), creative, spot };
        if blocks(case, track, policy, &candidate, &[]) {
            bitset::set(blocked.write(), global);
        }
    }
}

/// The candidates whose creative here is one that the scopes name.
fn shown_here<'b>(
    case: &'b Case<'_>,
    scopes: &'b Scopes,
    spotting: &'b Spotting<'_, '_>,
    left: &'b [u64],
) -> impl Iterator<Item = (u32, CreativeKey)> + 'b {
    scopes.creatives.iter().filter_map(move |creative| {
        let (part, (position, _)) = case
            .snapshot
            .parts
            .iter()
            .filter_map(|part| Some((part, part.segment.content(*creative)?)))
            .find(|(part, (position, _))| part.present.has(*position))?;
        let global = part.first() + position;
        (bitset::has(left, global) && spotting.creative(global) == *creative).then_some((global, *creative))
    })
}

/// The limits of a policy that counts, for each of its scopes, that scope's own kind of thing.
fn limits_by_scope(restraint: &Restraint) -> Option<&[Limit]> {
    let Restraint::Impressions(Counting { limits, tally: Tally::ByScope, choices: _ }) = restraint else { return None };
    Some(limits)
}

/// Adds what `policy` bars by the scopes that no slot changes.
pub(super) fn bar(
    case: &Case<'_>,
    track: &Track<'_>,
    policy: &Policy,
    everywhere: bool,
    into: &mut Sheet,
    set: &mut Sheet,
) {
    let scopes = &policy.scopes;
    match limits_by_scope(&policy.restraint) {
        Some(limits) => bar_by_count(case, limits, scopes, everywhere, into),
        None => bar_bound(case, track, &policy.restraint, scopes, everywhere, into, set),
    }
}

/// Frequency: each scope counts its own kind of thing.
fn bar_by_count(case: &Case<'_>, limits: &[Limit], scopes: &Scopes, everywhere: bool, into: &mut Sheet) {
    if everywhere && is_any_reached(case, limits, Counted::All) {
        return into.write().fill(u64::MAX);
    }
    for category in &scopes.categories {
        if is_any_reached(case, limits, Counted::Category(*category)) {
            or_members(case, into, |segment| segment.by_category.get(category));
        }
    }
    for sub_category in &scopes.sub_categories {
        let reached = limits
            .iter()
            .any(|limit| case.impressions_in_sub_category(*sub_category, limit.stretch.at(case.at)) >= limit.most);
        if reached {
            or_members(case, into, |segment| segment.by_sub_category.get(sub_category));
        }
    }
    if scopes.offers.is_empty() {
        return;
    }
    if limits.iter().any(|limit| limit.most == 0) {
        return set_offers(case, into, &scopes.offers);
    }
    for seen in &case.history.seen {
        let Some(global) = seen.global else { continue };
        if scopes.offers.binary_search(&seen.offer).is_ok() && is_any_reached(case, limits, Counted::Offer(seen.offer))
        {
            bitset::set(into.write(), global);
        }
    }
}

fn set_offers<'b>(case: &Case<'_>, into: &mut Sheet, offers: impl IntoIterator<Item = &'b OfferKey>) {
    for global in offers.into_iter().filter_map(|offer| case.snapshot.global(*offer)) {
        bitset::set(into.write(), global);
    }
}

/// All other restraints: what they bar, as far as it is bound.
fn bar_bound(
    case: &Case<'_>,
    track: &Track<'_>,
    restraint: &Restraint,
    scopes: &Scopes,
    everywhere: bool,
    into: &mut Sheet,
    set: &mut Sheet,
) {
    set.wipe();
    if gather(case, track, restraint, set) == Gathered::All {
        return bind(case, scopes, everywhere, into);
    }
    if set.is_blank() {
        return;
    }
    if !everywhere {
        let mut bound = Sheet::blank(set.read().len());
        bind(case, scopes, everywhere, &mut bound);
        bitset::and(set.write(), bound.write());
    }
    bitset::or(into.write(), set.read());
}

/// What a restraint bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gathered {
    /// Whatever it binds.
    All,
    /// What was added to the set, bound or not.
    Set,
}

impl Gathered {
    fn all_if(all: bool) -> Self {
        if all { Gathered::All } else { Gathered::Set }
    }
}

/// Adds the offers that `restraint` bars one by one, unless it bars all.
fn gather(case: &Case<'_>, track: &Track<'_>, restraint: &Restraint, set: &mut Sheet) -> Gathered {
    match restraint {
        Restraint::Impressions(Counting { limits, tally, choices: _ }) => match tally {
            // Each scope has its own answer.
            Tally::ByScope => return Gathered::Set,
            Tally::All => return Gathered::all_if(is_any_reached(case, limits, Counted::All)),
            Tally::Own if limits.iter().any(|limit| limit.most == 0) => return Gathered::All,
            Tally::Own => {
                for seen in &case.history.seen {
                    if let Some(global) = seen.global
                        && limits.iter().any(|limit| case.history.may_hold_of(seen, limit.most))
                        && is_any_reached(case, limits, Counted::Offer(seen.offer))
                    {
                        bitset::set(set.write(), global);
                    }
                }
            }
        },
        Restraint::Outcomes { outcomes, lookback_ms, action } => {
            for record in recent_outcomes(case, outcomes, *lookback_ms) {
                match (action, record.category) {
                    (OutcomeAction::SuppressAll, _) => return Gathered::All,
                    (OutcomeAction::SuppressOffer, _) => set_offers(case, set, [&record.offer]),
                    (OutcomeAction::SuppressCategory, Some(category)) => {
                        or_members(case, set, |segment| segment.by_category.get(&category));
                    }
                    (OutcomeAction::SuppressCategory, None) => {}
                }
            }
        }
        Restraint::Segments(segments) => {
            return Gathered::all_if(segments.iter().any(|segment| track.world.is_in(*segment)));
        }
        Restraint::Hours(hours) => return Gathered::all_if(!hours.are_open(&case.at.frame)),
        Restraint::Asked(Question::Request(check)) => return Gathered::all_if(check.holds(&track.world)),
        Restraint::Asked(question) => {
            for part in &case.snapshot.parts {
                for position in bitset::ones(&part.present.0) {
                    let global = part.first() + position;
                    if track.holds(case, question, global) {
                        bitset::set(set.write(), global);
                    }
                }
            }
        }
        Restraint::Mutual { offers, lookback_ms } => {
            let (first, second) = shown_of(case, *lookback_ms, |seen| offers.binary_search(&seen.offer).is_ok());
            if let Some(first) = first {
                set_offers(case, set, offers.iter().filter(|offer| second || **offer != first));
            }
        }
        Restraint::Category { lookback_ms } => gather_categories(case, *lookback_ms, set),
        Restraint::Budget { .. } => {
            for part in &case.snapshot.parts {
                for position in part.segment.global_caps.iter().flat_map(|capped| bitset::ones(&capped.0)) {
                    let global = part.first() + position;
                    if part.present.has(position) && is_budget_exhausted(case, restraint, global) {
                        bitset::set(set.write(), global);
                    }
                }
            }
        }
        Restraint::Override(_) => {}
    }
    Gathered::Set
}

/// Adds all offers of each category that was shown lately, but the only one that was.
fn gather_categories(case: &Case<'_>, lookback_ms: i64, set: &mut Sheet) {
    let mut done: Vec<CategoryKey> = Vec::new();
    for seen in &case.history.seen {
        let Some(category) = case.category_of_seen(seen).filter(|category| !done.contains(category)) else { continue };
        done.push(category);
        let (first, second) = shown_of(case, lookback_ms, |seen| case.category_of_seen(seen) == Some(category));
        let Some(first) = first else { continue };
        let spared = case.snapshot.global(first).filter(|global| !second && !bitset::has(set.write(), *global));
        or_members(case, set, |segment| segment.by_category.get(&category));
        if let Some(spared) = spared {
            bitset::clear(set.write(), spared);
        }
    }
}

pub(super) fn is_budget_exhausted(case: &Case<'_>, restraint: &Restraint, global: u32) -> bool {
    let Restraint::Budget { impressions, daily } = restraint else { return false };
    let (part, position) = case.locate(global);
    part.segment.caps.of(position).iter().any(|cap| {
        let looked_at = match cap.origin {
            CapOrigin::BudgetImpressions => *impressions,
            CapOrigin::BudgetDaily => *daily,
            CapOrigin::Caps(_)
            | CapOrigin::FrequencyDaily
            | CapOrigin::FrequencyWeekly
            | CapOrigin::FrequencyMonthly => false,
        };
        looked_at && suppress::is_short(case, cap, 0)
    })
}

/// Adds the offers that scopes bind whatever the slot.
pub(super) fn bind(case: &Case<'_>, scopes: &Scopes, everywhere: bool, into: &mut Sheet) {
    if everywhere {
        return into.write().fill(u64::MAX);
    }
    for category in &scopes.categories {
        or_members(case, into, |segment| segment.by_category.get(category));
    }
    for sub_category in &scopes.sub_categories {
        or_members(case, into, |segment| segment.by_sub_category.get(sub_category));
    }
    set_offers(case, into, &scopes.offers);
}

fn or_members<'b>(case: &'b Case<'_>, into: &mut Sheet, members: impl Fn(&'b Segment) -> Option<&'b bitset::Members>) {
    for part in &case.snapshot.parts {
        if let Some(members) = members(&part.segment) {
            members.or_into(&mut into.write()[part.range()]);
        }
    }
}
