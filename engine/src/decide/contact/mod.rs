//! Contact policies: whom history bars ([`history`]), and whom earlier choices of the same answer do ([`choices`]). A policy
//! can only bar what its scope binds, and most of them only what the history holds, so this costs what the history costs.

mod choices;
mod history;

use smallvec::SmallVec;

use crate::decide::case::{Case, Chosen, Scratch, Seen, Sheet, Spot};
use crate::decide::qualify::Track;
use crate::keys::{CreativeKey, OfferKey, OutcomeKey, PolicyKey};
use crate::model::policy::OutcomeAction;
use crate::profile::command::Counted;
use crate::profile::state::OutcomeRecord;
use crate::snapshot::policies::{Counting, Limit, Policy, Restraint, Tally};
use crate::snapshot::rules::Scopes;
use crate::time::Timestamp;

pub(crate) use choices::{is_barred_by_choices, is_exhausted};
pub(crate) use history::{is_idle, restrain};

/// The policies of a request's flow, and what they bar wherever it would go.
#[derive(Default)]
pub(crate) struct Contact<'a> {
    /// Those the flow selects that can bar anything at all, by priority, then key.
    policies: SmallVec<[&'a Policy; 16]>,
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

/// Finds what the policies of the track's flow bar in every slot of an answer of `most` propositions or fewer.
pub(crate) fn look<'a>(case: &Case<'a>, track: &mut Track<'a>, most: usize, scratch: &mut Scratch) {
    let Some(number) = track.flow.policies else { return };
    let words = case.snapshot.words();
    let selector = &case.shared.parts.policies.values()[number];
    let sheet = |scratch: &mut Scratch| Sheet::new(scratch, words);
    let mut contact = Contact { blocked: sheet(scratch), lifted: sheet(scratch), ..Contact::default() };
    let mut set = sheet(scratch);
    for policy in case.snapshot.policies.policies.iter().filter(|policy| selector.selects(&policy.key)) {
        // Most limits are far from what a history holds: their policies need no further look.
        if !case.history.may_hold(policy.least, most as u64) {
            continue;
        }
        contact.policies.push(policy);
        let scopes = &policy.scopes;
        if !scopes.channels.is_empty() || !scopes.placements.is_empty() || !scopes.creatives.is_empty() {
            contact.by_spot.push(policy);
        }
        if policy.restraint.counts_choices() {
            contact.counting.push(policy);
        }
        let everywhere = track.binds_everything(scopes);
        if let Restraint::Override(_) = &policy.restraint {
            contact.overrides = true;
            if lifts(track, policy) {
                history::bind(case, scopes, everywhere, &mut contact.lifted);
            }
        } else {
            history::bar(case, track, policy, everywhere, &mut contact.blocked, &mut set);
        }
    }
    scratch.give(set.into_buffer());
    track.contact = contact;
}

/// The first policy that bars a candidate, after these choices of the same answer; mandatory offers pass some by.
pub(crate) fn blocker(
    case: &Case<'_>,
    track: &Track<'_>,
    candidate: &Candidate,
    chosen: &[Chosen],
    mandatory: bool,
) -> Option<PolicyKey> {
    let mut policies = track.contact.policies.iter().filter(|policy| !(mandatory && policy.bypassable));
    let found = policies.find(|policy| blocks(case, track, policy, candidate, chosen))?;
    (!is_lifted(case, track, candidate)).then_some(found.key)
}

fn is_lifted(case: &Case<'_>, track: &Track<'_>, candidate: &Candidate) -> bool {
    let bound = |policy: &&&Policy| is_bound(case, track, &policy.scopes, candidate);
    track.contact.overrides && track.contact.policies.iter().filter(bound).any(|policy| lifts(track, policy))
}

/// Whether a policy lets through what others block, for this customer.
pub(crate) fn lifts(track: &Track<'_>, policy: &Policy) -> bool {
    let Restraint::Override(segments) = &policy.restraint else { return false };
    segments.iter().all(|segment| track.world.is_in(*segment))
}

/// Whether the scopes bind a candidate, its creative included.
pub(crate) fn is_bound(case: &Case<'_>, track: &Track<'_>, scopes: &Scopes, candidate: &Candidate) -> bool {
    track.binds(case, scopes, candidate.global, candidate.spot) || scopes.creatives.contains(&candidate.creative)
}

/// Whether one policy bars one candidate.
fn blocks(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate, chosen: &[Chosen]) -> bool {
    let scopes = &policy.scopes;
    let another = |other: &Chosen| other.offer != candidate.offer;
    match &policy.restraint {
        Restraint::Impressions(counting) => {
            let chosen = if counting.choices { chosen } else { &[] };
            counts(case, track, scopes, counting, candidate, chosen)
        }
        Restraint::Override(_) => false,
        _ if !is_bound(case, track, scopes, candidate) => false,
        Restraint::Budget { .. } => history::is_budget_exhausted(case, &policy.restraint, candidate.global),
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
        Restraint::Asked(question) => track.holds(case, question, candidate.global),
    }
}

/// Impressions for one candidate: by scope, each that binds it counts its own kind of thing.
fn counts(
    case: &Case<'_>,
    track: &Track<'_>,
    scopes: &Scopes,
    counting: &Counting,
    candidate: &Candidate,
    chosen: &[Chosen],
) -> bool {
    let reached = |counted: Counted, of: &dyn Fn(&Chosen) -> bool| {
        let again = chosen.iter().filter(|other| of(other)).count() as u64;
        counting.limits.iter().any(|limit| is_reached_after(case, limit, counted, again))
    };
    let own = |other: &Chosen| other.offer == candidate.offer;
    match counting.tally {
        Tally::ByScope => {}
        Tally::All => return is_bound(case, track, scopes, candidate) && reached(Counted::All, &|_| true),
        Tally::Own => {
            return is_bound(case, track, scopes, candidate) && reached(Counted::Offer(candidate.offer), &own);
        }
    }
    if !counting.limits.iter().any(|limit| case.could_reach(limit, Counted::All, chosen.len() as u64)) {
        return false;
    }
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
                && counting
                    .limits
                    .iter()
                    .any(|limit| case.impressions_in_sub_category(sub, limit.stretch.at(case.at)) + again >= limit.most)
        })
        || scopes.offers.binary_search(&candidate.offer).is_ok() && reached(Counted::Offer(candidate.offer), &own)
        || scopes.creatives.contains(&candidate.creative)
            && reached(Counted::Creative(candidate.creative), &|other| other.creative == candidate.creative)
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

fn recent_outcomes<'b>(
    case: &'b Case<'_>,
    outcomes: &'b [OutcomeKey],
    lookback_ms: i64,
) -> impl Iterator<Item = &'b OutcomeRecord> {
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
