//! What a decision takes: units of caps, holds of strict policies, mandatory counts, ghosts, implied impressions.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::decide::case::{Case, History, Spot};
use crate::decide::contact::{self, Candidate};
use crate::decide::counting::cap_window;
use crate::decide::decision::{Decision, Proposition, PropositionKind};
use crate::decide::qualify::{self, Track};
use crate::decide::request::Request;
use crate::decide::slots;
use crate::decide::view::{EscrowView, Instant, Subject};
use crate::keys::ChannelKey;
use crate::learn::NOTHING;
use crate::model::offer::CapScope;
use crate::profile::command::{
    CapTake, CountEvent, Counted, DecisionId, FirstAnswer, Idempotency, PolicyTake, Take, TakeAccount, TakenProposition,
};
use crate::profile::state::Profile;
use crate::profile::trials::{Enrolment, ExperimentId, Trials};
use crate::snapshot::policies::{Policy, Restraint, Tally};
use crate::snapshot::{Binding, CapPlan, Snapshot};
use crate::time::{DAY_MS, SECOND_MS, Timestamp};

/// What a proposition of the offer at `global` takes: a unit of each strict cap that counts there.
pub(crate) fn takes(case: &Case<'_>, global: u32, spot: Spot) -> Vec<CapTake> {
    units(case, global, spot, |cap| cap.strict)
}

/// A unit of each cap that is wanted and counts there.
fn units(case: &Case<'_>, global: u32, spot: Spot, wanted: impl Fn(&CapPlan) -> bool) -> Vec<CapTake> {
    let (part, position) = case.locate(global);
    let caps = part.segment.caps.of(position).iter();
    caps.filter(|cap| wanted(cap) && cap.counts_in(spot.placement))
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
    /// It is written for its customer's place in an experiment ([`enrolment_of`]), if for nothing else; then without its key.
    pub enrols: bool,
}

/// The place in an experiment that `decision` gives its customer, as far as it is new; `None`: none, or none that is. `decision`
/// was made from the same snapshot, subject, request and instant. O(propositions and ghosts · log windows + windows).
pub fn enrolment_of(
    snapshot: &Snapshot,
    profile: Option<&Profile>,
    request: &Request,
    decision: &Decision,
    at: &Instant,
) -> Option<Enrolment> {
    let control = decision.arm.as_ref()?.control;
    let trial = slots::choose_flow(&snapshot.shared, request)?.trial.as_ref()?;
    let proposed = decision.propositions.iter().filter(|proposition| proposition.kind == PropositionKind::Regular);
    let withheld = decision.ghosts.iter().map(|ghost| ghost.offer);
    let offers: BTreeSet<_> = proposed.map(|proposition| proposition.offer).chain(withheld).collect();
    if offers.is_empty() {
        return None;
    }
    let enrolment = Enrolment {
        experiment: ExperimentId::of(&trial.key),
        control,
        window_days: u16::try_from(trial.window_days).unwrap_or(u16::MAX),
        offers: offers.into_iter().collect(),
    };
    let nothing = Trials::default();
    profile.and_then(Profile::trials).unwrap_or(&nothing).news(enrolment, at.now)
}

/// The command that takes what `decision` proposed; `None` when it takes nothing: such a decision writes nothing. `decision`
/// was made from the same snapshot, subject, escrow, request and instant. One that replaces another always takes.
#[expect(clippy::too_many_arguments, reason = "what a decision reads, and what it decided")]
pub fn take_of(
    snapshot: &Snapshot,
    subject: Subject<'_>,
    binding: &mut Binding,
    escrow: &dyn EscrowView,
    request: &Request,
    decision: &Decision,
    at: &Instant,
    taking: Taking,
) -> Option<Take> {
    let case = Case {
        snapshot,
        shared: &snapshot.shared,
        profile: subject.profile,
        escrow,
        request,
        at,
        history: History::default(),
        // Nothing that takes units looks at metrics, or at how well offers are received.
        measured: &[],
        learned: &NOTHING,
        seed: 0,
    };
    let policies = policy_takes(&case, subject, binding, decision);
    let implied = |channel: ChannelKey| snapshot.shared.channels.get(&channel).is_some_and(|channel| channel.implicit);
    let counts: Vec<CapTake> = decision
        .propositions
        .iter()
        .flat_map(|proposition| counts_at_once(&case, proposition, implied(proposition.channel)))
        .collect();
    let is_control = decision.arm.as_ref().is_some_and(|arm| arm.control);
    let takes_anything = !policies.is_empty()
        || !counts.is_empty()
        || !decision.ghosts.is_empty()
        || taking.supersedes.is_some()
        || decision.propositions.iter().any(|proposition| {
            !proposition.takes.is_empty()
                || proposition.kind == PropositionKind::Mandatory
                || implied(proposition.channel)
        });
    if !takes_anything && !taking.enrols {
        return None;
    }
    // Enrolling twice is enrolling once: a retry may decide anew, as it does where nothing is taken, and its answer need not be kept.
    // A batch over everybody would fill the table of keys with them, and outcomes find no place.
    let idempotency = taking.idempotency.filter(|_| takes_anything);
    let propositions = decision.propositions.iter().map(|proposition| TakenProposition {
        offer: proposition.offer,
        creative: proposition.creative,
        channel: proposition.channel,
        placement: proposition.placement,
        category: snapshot.category_of(proposition.offer),
        score: proposition.score,
        mandatory: proposition.kind == PropositionKind::Mandatory,
        fallback: proposition.kind == PropositionKind::Fallback,
        evidence: proposition.kind == PropositionKind::Regular && !is_control,
        implied_impression: implied(proposition.channel),
        takes: proposition.takes.clone(),
    });
    Some(Take {
        tenant: request.tenant.clone(),
        customer: request.customer.clone(),
        decision: taking.decision,
        idempotency,
        supersedes: taking.supersedes,
        propositions: propositions.collect(),
        ghosts: decision.ghosts.clone(),
        mandatory: decision
            .propositions
            .iter()
            .any(|proposition| proposition.kind == PropositionKind::Mandatory)
            .then_some((at.frame.day, snapshot.shared.mandatory_per_day)),
        policies,
        counts,
        answerable_until: at.now.plus_ms(i64::from(snapshot.shared.outcome_window_days) * DAY_MS),
        answer: idempotency.map(|_| Arc::new(FirstAnswer::of(decision, taking.contended))),
    })
}

/// The units of soft caps that a proposition counts by being decided, or by being shown with that. Global caps of which
/// the shard has no account count nothing.
fn counts_at_once(case: &Case<'_>, proposition: &Proposition, implied: bool) -> Vec<CapTake> {
    if proposition.kind == PropositionKind::Fallback {
        return Vec::new();
    }
    let Some(global) = case.snapshot.global(proposition.offer) else { return Vec::new() };
    let spot = Spot { channel: proposition.channel, placement: proposition.placement };
    units(case, global, spot, |cap| {
        !cap.strict
            && match cap.count_on {
                Some(CountEvent::Decision) => true,
                Some(CountEvent::Impression) => implied,
                Some(CountEvent::Outcome(_)) | None => false,
            }
    })
}

/// The holds of strict policies on each proposition that they bind.
fn policy_takes(case: &Case<'_>, subject: Subject<'_>, binding: &mut Binding, decision: &Decision) -> Vec<PolicyTake> {
    let (snapshot, request, at) = (case.snapshot, case.request, case.at);
    let mut found = Vec::new();
    let flow = slots::choose_flow(&snapshot.shared, request);
    let Some((flow, number)) = flow.and_then(|flow| Some((flow, flow.policies?))) else { return found };
    let selector = &snapshot.shared.parts.policies.values()[number];
    let selected = || snapshot.policies.policies.iter().filter(|policy| selector.selects(&policy.key));
    let strict: Vec<&Policy> = selected().filter(|policy| policy.strict).collect();
    if strict.is_empty() {
        return found;
    }
    binding.follow(&snapshot.names, subject.symbols);
    let world = qualify::look(case, flow, subject, binding);
    let track = Track::bare(flow, world);
    let overrides: Vec<&Policy> = selected().filter(|policy| contact::lifts(&track, policy)).collect();
    for (proposition, rank) in decision.propositions.iter().zip(1..) {
        let Some(global) = snapshot.global(proposition.offer) else { continue };
        if proposition.kind == PropositionKind::Fallback {
            continue;
        }
        let spot = Spot { channel: proposition.channel, placement: proposition.placement };
        let candidate = Candidate { global, offer: proposition.offer, creative: proposition.creative, spot };
        let expires_at = expiry(at.now, snapshot.reservation_seconds(spot.channel));
        let is_mandatory = proposition.kind == PropositionKind::Mandatory;
        let is_lifted = overrides.iter().any(|policy| contact::is_bound(case, &track, &policy.scopes, &candidate));
        for policy in &strict {
            let Restraint::Impressions(counting) = &policy.restraint else { continue };
            // What passes a policy by counts like anything else, but is not refused for it.
            let passes_by = is_lifted || is_mandatory && policy.bypassable;
            for counted in counted_by(case, &track, policy, counting.tally, &candidate) {
                found.extend(counting.limits.iter().map(|limit| PolicyTake {
                    rank,
                    counted,
                    limit: if passes_by { u64::MAX } else { limit.most },
                    window: limit.stretch.at(at),
                    earlier_only: !counting.choices,
                    expires_at,
                }));
            }
        }
    }
    found
}

/// What a policy counts where it binds a candidate. Nothing is counted by sub-category: strict policies that would have to
/// are refused when they are written.
fn counted_by(
    case: &Case<'_>,
    track: &Track<'_>,
    policy: &Policy,
    tally: Tally,
    candidate: &Candidate,
) -> Vec<Counted> {
    let (scopes, spot) = (&policy.scopes, candidate.spot);
    let one = match tally {
        Tally::ByScope => {
            let category = case.category(candidate.global).filter(|category| scopes.categories.contains(category));
            let offer = scopes.offers.binary_search(&candidate.offer).is_ok();
            let found = [
                track.binds_everything(scopes).then_some(Counted::All),
                scopes.channels.contains(&spot.channel).then_some(Counted::Channel(spot.channel)),
                scopes.placements.contains(&spot.placement).then_some(Counted::Placement(spot.placement)),
                category.map(Counted::Category),
                offer.then_some(Counted::Offer(candidate.offer)),
                scopes.creatives.contains(&candidate.creative).then_some(Counted::Creative(candidate.creative)),
            ];
            return found.into_iter().flatten().collect();
        }
        Tally::All => Counted::All,
        Tally::Own => Counted::Offer(candidate.offer),
    };
    if contact::is_bound(case, track, scopes, candidate) { vec![one] } else { Vec::new() }
}
