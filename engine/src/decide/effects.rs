//! What a decision takes: units of caps, holds of strict policies, mandatory counts, ghosts, implied impressions.

use std::sync::Arc;

use crate::decide::case::{Case, Spot, look_back};
use crate::decide::contact::Candidate;
use crate::decide::counting::cap_window;
use crate::decide::decision::{Decision, PropositionKind};
use crate::decide::qualify::{self, Track};
use crate::decide::request::Request;
use crate::decide::slots;
use crate::decide::view::{EscrowView, Instant, Subject};
use crate::keys::{CapKey, ChannelKey};
use crate::model::offer::CapScope;
use crate::profile::command::{
    CapTake, Counted, DecisionId, FirstAnswer, Idempotency, PolicyTake, Take, TakeAccount, TakenProposition,
};
use crate::snapshot::policies::{Limit, Policy, Restraint};
use crate::snapshot::{Binding, Snapshot};
use crate::time::{DAY_MS, SECOND_MS, Timestamp};

/// What a proposition of the offer at `global` takes: a unit of each strict cap that counts there.
pub(crate) fn takes(case: &Case<'_>, global: u32, spot: Spot) -> Vec<CapTake> {
    let (part, position) = case.locate(global);
    let caps = part.segment.caps.of(position).iter();
    let strict = caps.filter(|cap| cap.strict && cap.counts_in(spot.placement));
    strict
        .filter_map(|cap| {
            let account = match cap.scope {
                CapScope::Profile => {
                    TakeAccount::Profile { limit: cap.limit, window: cap_window(cap.per, cap.window, &case.at.frame) }
                }
                CapScope::Global => {
                    let free = case.escrow.free(cap.cap, case.at.now)?;
                    TakeAccount::Global { account: free.account, amount: cap.cost }
                }
            };
            let seconds = cap.reservation_seconds.unwrap_or(case.snapshot.reservation_seconds(spot.channel));
            let expires_at = expiry(case.at.now, seconds);
            Some(CapTake { cap: cap.cap, account, count_on: cap.count_on?, expires_at })
        })
        .collect()
}

fn expiry(now: Timestamp, seconds: u32) -> Timestamp {
    now.plus_ms(i64::from(seconds) * SECOND_MS)
}

/// Identity of a taking decision, drawn and given by the caller.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// Identifies the decision within its profile.
    pub decision: DecisionId,
    /// Key of a retry.
    pub idempotency: Option<Idempotency>,
    /// An earlier decision that this one replaces.
    pub supersedes: Option<DecisionId>,
    /// Others took its units again and again: see [`FirstAnswer::contended`].
    pub contended: bool,
}

/// No shard's escrow: what a decision takes of global caps was settled when it was made.
struct Settled;

impl EscrowView for Settled {
    fn free(&self, _: CapKey, _: Timestamp) -> Option<crate::decide::view::Free> {
        None
    }
}

/// The command that takes what `decision` proposed; `None` when it takes nothing: such a decision writes nothing. `decision`
/// was made from the same snapshot, subject, request and instant. One that replaces another always takes.
pub fn take_of(
    snapshot: &Snapshot,
    subject: Subject<'_>,
    binding: &mut Binding,
    request: &Request,
    decision: &Decision,
    at: &Instant,
    taking: Taking,
) -> Option<Take> {
    let policies = policy_takes(snapshot, subject, binding, request, decision, at);
    let implied = |channel: ChannelKey| snapshot.shared.channels.get(&channel).is_some_and(|channel| channel.implicit);
    let takes_anything = !policies.is_empty()
        || !decision.ghosts.is_empty()
        || taking.supersedes.is_some()
        || decision.propositions.iter().any(|proposition| {
            !proposition.takes.is_empty()
                || proposition.kind == PropositionKind::Mandatory
                || implied(proposition.channel)
        });
    if !takes_anything {
        return None;
    }
    let propositions = decision.propositions.iter().map(|proposition| TakenProposition {
        offer: proposition.offer,
        creative: proposition.creative,
        channel: proposition.channel,
        placement: proposition.placement,
        category: snapshot.category_of(proposition.offer),
        score: proposition.score,
        mandatory: proposition.kind == PropositionKind::Mandatory,
        fallback: proposition.kind == PropositionKind::Fallback,
        implied_impression: implied(proposition.channel),
        takes: proposition.takes.clone(),
    });
    Some(Take {
        tenant: request.tenant.clone(),
        customer: request.customer.clone(),
        decision: taking.decision,
        idempotency: taking.idempotency,
        supersedes: taking.supersedes,
        propositions: propositions.collect(),
        ghosts: decision.ghosts.clone(),
        mandatory: decision
            .propositions
            .iter()
            .any(|proposition| proposition.kind == PropositionKind::Mandatory)
            .then_some((at.frame.day, snapshot.shared.mandatory_per_day)),
        policies,
        answerable_until: at.now.plus_ms(i64::from(snapshot.shared.outcome_window_days) * DAY_MS),
        answer: taking.idempotency.map(|_| Arc::new(FirstAnswer::of(decision, taking.contended))),
    })
}

/// The holds of strict policies on each proposition that they bind.
fn policy_takes(
    snapshot: &Snapshot,
    subject: Subject<'_>,
    binding: &mut Binding,
    request: &Request,
    decision: &Decision,
    at: &Instant,
) -> Vec<PolicyTake> {
    let mut found = Vec::new();
    let flow = slots::choose_flow(&snapshot.shared, request);
    let Some((flow, number)) = flow.and_then(|flow| Some((flow, flow.policies?))) else { return found };
    let selector = &snapshot.shared.parts.policies.values()[number];
    let policies = snapshot.policies.policies.iter();
    let strict: Vec<&Policy> = policies.filter(|policy| policy.strict && selector.selects(&policy.key)).collect();
    if strict.is_empty() {
        return found;
    }
    binding.follow(&snapshot.names, subject.symbols);
    let case = Case {
        snapshot,
        shared: &snapshot.shared,
        profile: subject.profile,
        escrow: &Settled,
        request,
        at,
        history: look_back(snapshot, subject.profile),
    };
    let world = qualify::look(&case, flow, subject, binding);
    let track = Track::bare(flow, world);
    for (proposition, rank) in decision.propositions.iter().zip(1..) {
        let Some(global) = snapshot.global(proposition.offer) else { continue };
        if proposition.kind == PropositionKind::Fallback {
            continue;
        }
        let spot = Spot { channel: proposition.channel, placement: proposition.placement };
        let candidate = Candidate { global, offer: proposition.offer, creative: proposition.creative, spot };
        let expires_at = expiry(at.now, snapshot.reservation_seconds(spot.channel));
        let passes_by = |policy: &&&Policy| proposition.kind == PropositionKind::Mandatory && policy.bypassable;
        for policy in strict.iter().filter(|policy| !passes_by(policy)) {
            let mut hold = |counted: Counted, limit: &Limit, earlier_only: bool| {
                let window = limit.stretch.at(at);
                found.push(PolicyTake { rank, counted, limit: limit.most, window, earlier_only, expires_at });
            };
            match &policy.restraint {
                Restraint::Frequency(limits) => {
                    for counted in counted_by(&case, &track, policy, &candidate) {
                        limits.iter().for_each(|limit| hold(counted, limit, false));
                    }
                }
                Restraint::Cooldown(limit) => {
                    for counted in counted_by(&case, &track, policy, &candidate) {
                        hold(counted, limit, true);
                    }
                }
                Restraint::Total(limit) if is_bound(&case, &track, policy, &candidate) => {
                    hold(Counted::All, limit, false);
                }
                Restraint::CrossChannel(limit) if is_bound(&case, &track, policy, &candidate) => {
                    hold(Counted::Offer(candidate.offer), limit, false);
                }
                Restraint::Total(_)
                | Restraint::CrossChannel(_)
                | Restraint::Budget { .. }
                | Restraint::Outcomes { .. }
                | Restraint::Segments(_)
                | Restraint::Hours(_)
                | Restraint::Mutual { .. }
                | Restraint::Category { .. }
                | Restraint::Override(_)
                | Restraint::Constant(_) => {}
            }
        }
    }
    found
}

fn is_bound(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate) -> bool {
    !counted_by(case, track, policy, candidate).is_empty()
}

/// What the scopes of a policy that bind a candidate count. A sub-category counts as the candidate's own offer: a profile
/// keeps no count by sub-category.
fn counted_by(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate) -> Vec<Counted> {
    let (scopes, spot) = (&policy.scopes, candidate.spot);
    let category = case.category(candidate.global).filter(|category| scopes.categories.contains(category));
    let sub_category = case.sub_category(candidate.global).filter(|sub| scopes.sub_categories.contains(sub));
    let offer = scopes.offers.binary_search(&candidate.offer).is_ok() || sub_category.is_some();
    let found = [
        track.binds_everything(scopes).then_some(Counted::All),
        scopes.channels.contains(&spot.channel).then_some(Counted::Channel(spot.channel)),
        scopes.placements.contains(&spot.placement).then_some(Counted::Placement(spot.placement)),
        category.map(Counted::Category),
        offer.then_some(Counted::Offer(candidate.offer)),
        scopes.creatives.contains(&candidate.creative).then_some(Counted::Creative(candidate.creative)),
    ];
    found.into_iter().flatten().collect()
}
