//! What earlier choices of the same answer bar from its later slots.

use super::{Candidate, blocks, is_lifted, is_reached_after};
use crate::decide::case::{Case, Chosen};
use crate::decide::qualify::Track;
use crate::profile::command::Counted;
use crate::snapshot::policies::{Policy, Restraint, Tally};

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
            let Restraint::Impressions(counting) = &policy.restraint else { return false };
            let spent = |limit| is_reached_after(case, limit, Counted::All, chosen.len() as u64);
            counting.tally != Tally::Own && track.binds_everything(&policy.scopes) && counting.limits.iter().any(spent)
        })
}

/// Whether a policy that bars a candidate by history and choices together does so because of the choices: only then is
/// there anything to count.
fn newly_blocks(case: &Case<'_>, track: &Track<'_>, policy: &Policy, candidate: &Candidate, chosen: &[Chosen]) -> bool {
    let same_offer = |other: &Chosen| other.offer == candidate.offer;
    let category = case.category(candidate.global);
    let concerned = match &policy.restraint {
        Restraint::Impressions(counting) => match counting.tally {
            // A policy on categories alone is the common one of those that seldom concern.
            Tally::ByScope if policy.scopes.is_only_categories() => {
                category.is_some() && chosen.iter().any(|other| other.category == category)
            }
            Tally::Own => chosen.iter().any(same_offer),
            Tally::ByScope | Tally::All => true,
        },
        Restraint::Category { .. } => {
            category.is_some() && chosen.iter().any(|other| other.category == category && !same_offer(other))
        }
        Restraint::Mutual { .. } => true,
        Restraint::Budget { .. }
        | Restraint::Outcomes { .. }
        | Restraint::Segments(_)
        | Restraint::Hours(_)
        | Restraint::Override(_)
        | Restraint::Asked(_) => false,
    };
    concerned && blocks(case, track, policy, candidate, chosen)
}
