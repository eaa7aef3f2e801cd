//! Mandatory offers: prepended whatever the scores, past inventory, rules, opt-outs and bypassable policies.

use crate::decide::candidates::{Show, Spotting};
use crate::decide::case::{Case, Chosen};
use crate::decide::contact::{self, Candidate};
use crate::decide::decision::RemovalReason;
use crate::decide::suppress;
use crate::keys::{CreativeKey, OfferKey};
use crate::snapshot::bitset;
use crate::snapshot::tie;

/// Offers that are mandatory now, in the order they are prepended.
pub(crate) fn now_mandatory(case: &Case<'_>) -> Vec<u32> {
    let mut found = Vec::new();
    for part in &case.snapshot.parts {
        let segment = &part.segment;
        let current = segment.mandatory.iter().filter(|(position, until)| {
            case.at.now < *until && part.present.has(*position) && segment.general.has(*position)
        });
        found.extend(current.map(|(position, _)| part.first() + position));
    }
    let row = |global: u32| {
        let (part, position) = case.locate(global);
        &part.segment.offers[position as usize]
    };
    found.sort_by(|left, right| tie(row(*left), row(*right)));
    found
}

/// Whether the offer at `global` may be prepended here after these choices, and with which creative. `available` are the
/// positions that status, schedule and emergency exclusion leave.
pub(crate) fn admit(
    spotting: &Spotting<'_, '_>,
    available: &[u64],
    global: u32,
    chosen: &[Chosen],
) -> Result<CreativeKey, RemovalReason> {
    let (case, track) = (spotting.case, spotting.track);
    if !bitset::has(available, global) {
        return Err(unavailable(case, global));
    }
    if !spotting.admits(global) {
        return Err(RemovalReason::Inventory);
    }
    if spotting.needs_content() && !spotting.has_content(global) {
        return Err(RemovalReason::Creative);
    }
    let creative = match spotting.show_by(global, false) {
        Show::Creative(content) => content.key,
        Show::Nothing => CreativeKey::NONE,
        Show::LostToRule | Show::LostToRequest => return Err(RemovalReason::Excluded),
    };
    let offer = case.offer(global);
    if case.request.exclude_offers.contains(&offer) {
        return Err(RemovalReason::Excluded);
    }
    if let Some(reason) = suppress::cap_reached(case, global, spotting.spot, chosen) {
        return Err(reason);
    }
    if is_past_limit(case, offer, chosen) {
        return Err(RemovalReason::MandatoryPerDay);
    }
    let candidate = Candidate { global, offer, creative, spot: spotting.spot };
    match contact::blocker(case, track, &candidate, chosen, true) {
        Some(policy) => Err(RemovalReason::Policy(policy)),
        None => Ok(creative),
    }
}

/// Why an offer is not available at all.
pub(crate) fn unavailable(case: &Case<'_>, global: u32) -> RemovalReason {
    let (part, position) = case.locate(global);
    if !part.live.has(position) {
        RemovalReason::Status
    } else if !part.segment.hours[position as usize].are_open(case.at.now, &case.at.frame) {
        RemovalReason::Schedule
    } else {
        RemovalReason::EmergencyExcluded
    }
}

/// Whether the offer would be one distinct mandatory offer too many today.
fn is_past_limit(case: &Case<'_>, offer: OfferKey, chosen: &[Chosen]) -> bool {
    let mut today = case.profile.map_or(&[][..], |profile| profile.mandatory_today(case.at.now)).to_vec();
    today.extend(chosen.iter().filter(|other| other.mandatory).map(|other| other.offer));
    today.sort_unstable();
    today.dedup();
    !today.contains(&offer) && today.len() >= case.shared.mandatory_per_day as usize
}
