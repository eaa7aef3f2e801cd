//! Contact policies: whom the profile's own history bars. A policy can only bar what its scope binds, and most of them only
//! what the history holds, so this costs what the history costs.

use smallvec::SmallVec;

use crate::catalog::CapOrigin;
use crate::decide::candidates::Spotting;
use crate::decide::case::{Case, Chosen, Scratch, Seen, Sheet, Spot};
use crate::decide::qualify::{Track, is_of_spot};
use crate::decide::suppress;
use crate::keys::{CategoryKey, CreativeKey, OfferKey};
use crate::model::policy::OutcomeAction;
use crate::profile::command::Counted;
use crate::snapshot::bitset;
use crate::snapshot::policies::{Limit, Policy, Restraint};
use crate::snapshot::rules::Scopes;
use crate::time::Timestamp;

/// The policies of a request's flow, and what they bar wherever it would go.
#[derive(Default)]
pub(crate) struct Contact<'a> {
    /// Those the flow selects, by priority, then key.
    pub(crate) policies: SmallVec<[&'a Policy; 16]>,
    blocked: Sheet,
    lifted: Sheet,
    /// Those with a scope that depends on the slot.
    by_spot: SmallVec<[&'a Policy; 8]>,
    /// Those that look at earlier choices of the same answer.
    counting: SmallVec<[&'a Policy; 8]>,
    /// Whether anything lifts.
    overrides: bool,
}

/// A candidate as a policy sees it.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) global: u32,
    pub(crate) offer: OfferKey,
    pub(crate) creative: CreativeKey,
    pub(crate) spot: Spot,
}

impl Contact<'_> {
    pub(crate) fn recycle(self, scratch: &mut Scratch) {
        scratch.give(self.blocked.into_buffer());
        scratch.give(self.lifted.into_buffer());
    }

    /// Whether later choices of an answer depend on earlier ones.
    pub(crate) fn counts_choices(&self) -> bool {
        !self.counting.is_empty()
    }
}

/// Finds what the policies of the track's flow bar in every slot.
pub(crate) fn look<'a>(case: &Case<'a>, track: &mut Track<'a>, scratch: &mut Scratch) {
    let Some(number) = track.flow.policies else { return };
    let words = case.snapshot.words();
    let selector = &case.shared.parts.policies.values()[number];
    let sheet = |scratch: &mut Scratch| Sheet::new(scratch, words);
    let mut contact = Contact { blocked: sheet(scratch), lifted: sheet(scratch), ..Contact::default() };
    let mut set = sheet(scratch);
    for policy in case.snapshot.policies.policies.iter().filter(|policy| selector.selects(&policy.key)) {
        contact.policies.push(policy);
        let scopes = &policy.scopes;
        if !scopes.channels.is_empty() || !scopes.placements.is_empty() || !scopes.creatives.is_empty() {
            contact.by_spot.push(policy);
        }
        if policy.counts_choices() {
            contact.counting.push(policy);
        }
        let everywhere = track.binds_everything(scopes);
        if let Restraint::Override(segments) = &policy.restraint {
            contact.overrides = true;
            if segments.iter().all(|segment| track.world.is_in(*segment)) {
                bind(case, scopes, everywhere, &mut contact.lifted);
            }
        } else {
            bar(case, track, policy, everywhere, &mut contact.blocked, &mut set);
        }
    }
    scratch.give(set.into_buffer());
    track.contact = contact;
}

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
    if let Restraint::Override(segments) = &policy.restraint {
        if segments.iter().all(|segment| track.world.is_in(*segment)) {
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
        match policy.restraint.limits_by_scope() {
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

/// Adds what `policy` bars by the scopes that no slot changes.
fn bar(case: &Case<'_>, track: &Track<'_>, policy: &Policy, everywhere: bool, into: &mut Sheet, set: &mut Sheet) {
    let scopes = &policy.scopes;
    match policy.restraint.limits_by_scope() {
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
    let whole = match restraint {
        Restraint::Total(limit) => is_reached(case, limit, Counted::All),
        Restraint::CrossChannel(limit) => limit.most == 0,
        Restraint::Segments(segments) => segments.iter().any(|segment| track.world.is_in(*segment)),
        Restraint::Hours(hours) => !hours.are_open(&case.at.frame),
        Restraint::Outcomes { outcomes, lookback_ms, action: OutcomeAction::SuppressAll } => {
            recent_outcomes(case, outcomes, *lookback_ms).next().is_some()
        }
        Restraint::Constant(blocks) => *blocks,
        Restraint::Frequency(_)
        | Restraint::Cooldown(_)
        | Restraint::Budget { .. }
        | Restraint::Outcomes { .. }
        | Restraint::Mutual { .. }
        | Restraint::Category { .. }
        | Restraint::Override(_) => false,
    };
    if whole {
        return bind(case, scopes, everywhere, into);
    }
    set.wipe();
    gather(case, restraint, set);
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

/// Adds the offers that `restraint` bars one by one, bound or not.
fn gather(case: &Case<'_>, restraint: &Restraint, set: &mut Sheet) {
    match restraint {
        Restraint::CrossChannel(limit) => {
            for seen in &case.history.seen {
                if let Some(global) = seen.global
                    && is_reached(case, limit, Counted::Offer(seen.offer))
                {
                    bitset::set(set.write(), global);
                }
            }
        }
        Restraint::Outcomes { outcomes, lookback_ms, action } => {
            for record in recent_outcomes(case, outcomes, *lookback_ms) {
                match (action, record.category) {
                    (OutcomeAction::SuppressOffer, _) => set_offers(case, set, [&record.offer]),
                    (OutcomeAction::SuppressCategory, Some(category)) => {
                        or_members(case, set, |segment| segment.by_category.get(&category));
                    }
                    (OutcomeAction::SuppressCategory, None) | (OutcomeAction::SuppressAll, _) => {}
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
        Restraint::Frequency(_)
        | Restraint::Cooldown(_)
        | Restraint::Total(_)
        | Restraint::Segments(_)
        | Restraint::Hours(_)
        | Restraint::Override(_)
        | Restraint::Constant(_) => {}
    }
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

fn is_budget_exhausted(case: &Case<'_>, restraint: &Restraint, global: u32) -> bool {
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

fn recent_outcomes<'b>(
    case: &'b Case<'_>,
    outcomes: &'b [crate::keys::OutcomeKey],
    lookback_ms: i64,
) -> impl Iterator<Item = &'b crate::profile::state::OutcomeRecord> {
    let records = case.profile.map_or(&[][..], |profile| profile.outcomes());
    records
        .iter()
        .filter(move |record| outcomes.contains(&record.outcome) && case.at.now.since_ms(record.at) < lookback_ms)
}

/// The first offer shown within the time of those that `holds`, and whether another one was.
fn shown_of(case: &Case<'_>, lookback_ms: i64, holds: impl Fn(&Seen) -> bool) -> (Option<OfferKey>, bool) {
    let within = |last: Option<Timestamp>| last.is_some_and(|last| case.at.now.since_ms(last) < lookback_ms);
    let mut shown = case.history.seen.iter().filter(|seen| within(seen.last) && holds(seen));
    (shown.next().map(|seen| seen.offer), shown.next().is_some())
}

/// Adds the offers that scopes bind whatever the slot.
fn bind(case: &Case<'_>, scopes: &Scopes, everywhere: bool, into: &mut Sheet) {
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

fn or_members<'b>(
    case: &'b Case<'_>,
    into: &mut Sheet,
    members: impl Fn(&'b crate::snapshot::segment::Segment) -> Option<&'b bitset::Members>,
) {
    for part in &case.snapshot.parts {
        if let Some(members) = members(&part.segment) {
            members.or_into(&mut into.write()[part.range()]);
        }
    }
}

fn is_reached(case: &Case<'_>, limit: &Limit, counted: Counted) -> bool {
    is_reached_after(case, limit, counted, 0)
}

/// Whether a limit is reached once `choices` of the same answer count too.
fn is_reached_after(case: &Case<'_>, limit: &Limit, counted: Counted, choices: u64) -> bool {
    case.could_reach(limit, counted, choices)
        && case.impressions(counted, limit.stretch.at(case.at)) + choices >= limit.most
}

fn is_any_reached(case: &Case<'_>, limits: &[Limit], counted: Counted) -> bool {
    limits.iter().any(|limit| is_reached(case, limit, counted))
}

/// The first policy that bars a candidate, after these choices of the same answer; mandatory offers pass some by.
pub(crate) fn blocker(
    case: &Case<'_>,
    track: &Track<'_>,
    candidate: &Candidate,
    chosen: &[Chosen],
    mandatory: bool,
) -> Option<crate::keys::PolicyKey> {
    let mut policies = track.contact.policies.iter().filter(|policy| !(mandatory && policy.bypassable));
    let found = policies.find(|policy| blocks(case, track, policy, candidate, chosen))?;
    (!is_lifted(case, track, candidate)).then_some(found.key)
}

/// Whether earlier choices of the same answer bar a candidate that history does not.
pub(crate) fn is_barred_by_choices(
    case: &Case<'_>,
    track: &Track<'_>,
    candidate: &Candidate,
    chosen: &[Chosen],
) -> bool {
    !chosen.is_empty()
        && track.contact.counting.iter().any(|policy| newly_blocks(case, track, policy, candidate, chosen))
        && !is_lifted(case, track, candidate)
}

/// Whether earlier choices bar everything from now on, whatever it is and wherever it would go.
pub(crate) fn is_exhausted(case: &Case<'_>, track: &Track<'_>, chosen: &[Chosen]) -> bool {
    let contact = &track.contact;
    !contact.overrides
        && !chosen.is_empty()
        && contact.counting.iter().any(|policy| {
            let spent = |limit: &Limit| is_reached_after(case, limit, Counted::All, chosen.len() as u64);
            track.binds_everything(&policy.scopes)
                && match &policy.restraint {
                    Restraint::Frequency(limits) => limits.iter().any(spent),
                    Restraint::Total(limit) => spent(limit),
                    Restraint::CrossChannel(_)
                    | Restraint::Cooldown(_)
                    | Restraint::Budget { .. }
                    | Restraint::Outcomes { .. }
                    | Restraint::Segments(_)
                    | Restraint::Hours(_)
                    | Restraint::Mutual { .. }
                    | Restraint::Category { .. }
                    | Restraint::Override(_)
                    | Restraint::Constant(_) => false,
                }
        })
}

fn is_lifted(case: &Case<'_>, track: &Track<'_>, candidate: &Candidate) -> bool {
    let bound = |policy: &&&Policy| is_bound(case, track, &policy.scopes, candidate);
    track.contact.overrides && track.contact.policies.iter().filter(bound).any(|policy| lifts(track, policy))
}

/// Whether a policy lets through what others block, for this customer.
pub(crate) fn lifts(track: &Track<'_>, policy: &Policy) -> bool {
    match &policy.restraint {
        Restraint::Override(segments) => segments.iter().all(|segment| track.world.is_in(*segment)),
        Restraint::Frequency(_)
        | Restraint::Total(_)
        | Restraint::CrossChannel(_)
        | Restraint::Cooldown(_)
        | Restraint::Budget { .. }
        | Restraint::Outcomes { .. }
        | Restraint::Segments(_)
        | Restraint::Hours(_)
        | Restraint::Mutual { .. }
        | Restraint::Category { .. }
        | Restraint::Constant(_) => false,
    }
}

/// Whether the scopes bind a candidate, its creative included.
pub(crate) fn is_bound(case: &Case<'_>, track: &Track<'_>, scopes: &Scopes, candidate: &Candidate) -> bool {
    track.binds(case, scopes, candidate.global, candidate.spot) || scopes.creatives.contains(&candidate.creative)
}

/// Whether a policy that bars a candidate by history and choices together does so because of the choices: only then is
/// there anything to count.
fn newly_blocks(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate, chosen: &[Chosen]) -> bool {
    let same_offer = |other: &Chosen| other.offer == candidate.offer;
    let category = case.category(candidate.global);
    let concerned = match &policy.restraint {
        Restraint::Frequency(_) => {
            // A policy on categories alone is the common one of those that seldom concern.
            !policy.scopes.is_only_categories()
                || category.is_some() && chosen.iter().any(|other| other.category == category)
        }
        Restraint::CrossChannel(_) => chosen.iter().any(same_offer),
        Restraint::Category { .. } => {
            category.is_some() && chosen.iter().any(|other| other.category == category && !same_offer(other))
        }
        Restraint::Total(_) | Restraint::Mutual { .. } => true,
        Restraint::Cooldown(_)
        | Restraint::Budget { .. }
        | Restraint::Outcomes { .. }
        | Restraint::Segments(_)
        | Restraint::Hours(_)
        | Restraint::Override(_)
        | Restraint::Constant(_) => false,
    };
    concerned && blocks(case, track, policy, candidate, chosen)
}

/// Whether one policy bars one candidate.
fn blocks(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate, chosen: &[Chosen]) -> bool {
    let scopes = &policy.scopes;
    let another = |other: &Chosen| other.offer != candidate.offer;
    match &policy.restraint {
        Restraint::Frequency(limits) => counts(case, track, scopes, limits, candidate, chosen),
        Restraint::Cooldown(limit) => counts(case, track, scopes, std::slice::from_ref(limit), candidate, &[]),
        Restraint::Override(_) => false,
        _ if !is_bound(case, track, scopes, candidate) => false,
        Restraint::Total(limit) => is_reached_after(case, limit, Counted::All, chosen.len() as u64),
        Restraint::CrossChannel(limit) => {
            let again = chosen.iter().filter(|other| other.offer == candidate.offer).count() as u64;
            is_reached_after(case, limit, Counted::Offer(candidate.offer), again)
        }
        Restraint::Budget { .. } => is_budget_exhausted(case, &policy.restraint, candidate.global),
        Restraint::Outcomes { outcomes, lookback_ms, action } => {
            recent_outcomes(case, outcomes, *lookback_ms).any(|record| match action {
                OutcomeAction::SuppressOffer => record.offer == candidate.offer,
                OutcomeAction::SuppressCategory => {
                    record.category.is_some() && record.category == case.category(candidate.global)
                }
                OutcomeAction::SuppressAll => true,
            })
        }
        Restraint::Segments(segments) => segments.iter().any(|segment| track.world.is_in(*segment)),
        Restraint::Hours(hours) => !hours.are_open(&case.at.frame),
        Restraint::Mutual { offers, lookback_ms } => {
            let inside = |offer: &OfferKey| offers.binary_search(offer).is_ok();
            inside(&candidate.offer)
                && (chosen.iter().any(|other| another(other) && inside(&other.offer))
                    || shown_of(case, *lookback_ms, |seen| seen.offer != candidate.offer && inside(&seen.offer))
                        .0
                        .is_some())
        }
        Restraint::Category { lookback_ms } => case.category(candidate.global).is_some_and(|category| {
            let seen_there =
                |seen: &Seen| seen.offer != candidate.offer && case.category_of_seen(seen) == Some(category);
            chosen.iter().any(|other| another(other) && other.category == Some(category))
                || shown_of(case, *lookback_ms, seen_there).0.is_some()
        }),
        Restraint::Constant(blocks) => *blocks,
    }
}

/// Frequency for one candidate: each scope that binds it counts its own kind of thing.
fn counts(
    case: &Case<'_>,
    track: &Track<'_>,
    scopes: &Scopes,
    limits: &[Limit],
    candidate: &Candidate,
    chosen: &[Chosen],
) -> bool {
    if !limits.iter().any(|limit| case.could_reach(limit, Counted::All, chosen.len() as u64)) {
        return false;
    }
    let reached = |counted: Counted, of: &dyn Fn(&Chosen) -> bool| {
        let again = chosen.iter().filter(|other| of(other)).count() as u64;
        limits.iter().any(|limit| is_reached_after(case, limit, counted, again))
    };
    let (spot, category) = (candidate.spot, case.category(candidate.global));
    let sub_category = case.sub_category(candidate.global);
    track.binds_everything(scopes) && reached(Counted::All, &|_| true)
        || scopes.channels.contains(&spot.channel)
            && reached(Counted::Channel(spot.channel), &|other| other.spot.channel == spot.channel)
        || scopes.placements.contains(&spot.placement)
            && reached(Counted::Placement(spot.placement), &|other| other.spot.placement == spot.placement)
        || category.is_some_and(|category| {
            scopes.categories.contains(&category)
                && reached(Counted::Category(category), &|other| other.category == Some(category))
        })
        || sub_category.is_some_and(|sub| {
            let again = chosen.iter().filter(|other| other.sub_category == Some(sub)).count() as u64;
            scopes.sub_categories.contains(&sub)
                && limits
                    .iter()
                    .any(|limit| case.impressions_in_sub_category(sub, limit.stretch.at(case.at)) + again >= limit.most)
        })
        || scopes.offers.binary_search(&candidate.offer).is_ok()
            && reached(Counted::Offer(candidate.offer), &|other| other.offer == candidate.offer)
        || scopes.creatives.contains(&candidate.creative)
            && reached(Counted::Creative(candidate.creative), &|other| other.creative == candidate.creative)
}
