//! What clients make of the answers to their calls.

use proffer_chaos::history::{Answer, Budget, Call, Responded};

use super::{Kept, NUMBER, Offer, Role, Workload, header};
use crate::sim::host::Reply;
use crate::sim::seed::Draws;

/// Acknowledged outcomes that are kept to be sent again.
const KEPT_MAX: usize = 400;

impl Workload {
    pub(super) fn understand(&mut self, number: usize, reply: &Reply) -> Answer {
        let client = &mut self.clients[number];
        let Some(wish) = &client.wish else { return Answer::Done };
        let body = &reply.body;
        match &wish.call {
            Call::Recommend { customer, .. } => {
                let entries = body["decisions"].as_array().cloned().unwrap_or_default();
                let id = body["recommendationId"].as_str().unwrap_or_default().to_owned();
                let offers: Vec<String> =
                    entries.iter().filter_map(|entry| entry["offerId"].as_str().map(str::to_owned)).collect();
                client.proposed = entries
                    .iter()
                    .filter_map(|entry| {
                        Some((
                            customer.clone(),
                            id.clone(),
                            entry["rank"].as_u64()?,
                            entry["offerId"].as_str()?.to_owned(),
                        ))
                    })
                    .collect();
                // Only what takes units is written, and known again.
                let takes = entries.iter().any(|entry| entry["expiresAt"].is_string());
                if let Some(key) = wish.key.as_ref().filter(|key| takes || self.decided.contains_key(*key)) {
                    let first = self.decided.entry(key.clone()).or_insert_with(|| (id.clone(), offers.clone()));
                    if first.0 != id {
                        self.violations.push(format!("{key} led to two decisions: {} and {id}", first.0));
                    }
                    if offers.iter().any(|offer| !first.1.contains(offer)) {
                        self.violations.push(format!("{key} led to {:?}, then to {offers:?}", first.1));
                    }
                    let kept = Kept {
                        operation: wish.operation as u64,
                        path: "/recommend",
                        body: wish.body.clone().unwrap_or_default(),
                        key: key.clone(),
                    };
                    keep(&mut self.kept, kept, &self.draws);
                }
                Answer::Decided { offers }
            }
            Call::Respond { .. } | Call::Repeat { .. } => {
                let is = |name: &str| body[name] == true;
                let responded = Responded {
                    recorded: is("recorded"),
                    duplicate: is("duplicate"),
                    late: is("late"),
                    repeat: is("repeat"),
                    over_cap: is("overCap"),
                };
                self.tally.duplicates += u64::from(responded.duplicate);
                if let (Call::Respond { key, .. }, Some(sent)) = (&wish.call, &wish.body) {
                    let kept = Kept {
                        operation: wish.operation as u64,
                        path: "/respond",
                        body: sent.clone(),
                        key: key.clone(),
                    };
                    keep(&mut self.kept, kept, &self.draws);
                }
                Answer::Responded(responded)
            }
            Call::WriteProfile { .. } => Answer::Done,
            Call::Exclude { .. } => {
                self.excluded_at = self.excluded_at.max(body["revision"].as_u64().unwrap_or(0));
                Answer::Done
            }
            Call::Create { .. } => {
                let id = body["id"].as_str().unwrap_or_default().to_owned();
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                let is_limited = body["caps"].as_array().is_some_and(|caps| !caps.is_empty());
                self.offers.push(Offer { id: id.clone(), name, role: Role::Fleeting { is_limited } });
                Answer::Created { offer: id }
            }
            Call::ReadProfile { .. } => Answer::Profile { value: body["attributes"]["number"].as_u64() },
            Call::ReadBudget { .. } => {
                let of = |name: &str| body[name].as_i64().unwrap_or(i64::MIN / 8);
                let (pool, in_flight) = (of("pool"), of("inFlight"));
                let (free, reserved, spent) = (of("free"), of("reserved"), of("spent"));
                Answer::Budget(Budget { limit: of("limit"), pool, in_flight, free, reserved, spent })
            }
            Call::Edit { .. } => Answer::Revised { revision: header(reply, "x-catalog-revision").unwrap_or(0) },
            Call::ReadOffer { .. } => Answer::Offer {
                catalog: header(reply, "x-catalog-revision").unwrap_or(0),
                revision: body["revision"].as_u64().unwrap_or(0),
                value: body["description"].as_str().and_then(|text| text.parse().ok()),
            },
        }
    }
}

impl Workload {
    /// What a decision, made for the first time, has read of its customer, and tells.
    pub(super) fn read_by(&self, number: usize, reply: &Reply) -> Option<(String, Option<u64>)> {
        let Call::Recommend { customer, key } = &self.clients[number].wish.as_ref()?.call else { return None };
        if key.as_ref().is_some_and(|key| self.decided.contains_key(key)) {
            return None;
        }
        let mut entries = reply.body["decisions"].as_array()?.iter();
        let told = entries.find_map(|entry| entry["personalization"].get(NUMBER))?;
        Some((customer.clone(), told.as_u64().or_else(|| told.as_f64().map(|told| told as u64))))
    }
}

/// Keeps an answer; beyond the room there is, in place of a drawn one.
fn keep(kept: &mut Vec<Kept>, new: Kept, draws: &Draws) {
    if kept.len() < KEPT_MAX {
        kept.push(new);
    } else {
        let place = usize::try_from(draws.below(KEPT_MAX as u64)).unwrap_or(0);
        kept[place] = new;
    }
}
