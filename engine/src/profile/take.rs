//! Taking what a decision proposed: every unit is checked again, and all are taken or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::outcomes::IMPRESSION;
use crate::keys::{CapKey, OfferKey};
use crate::limits::{MANDATORY_PER_PROFILE, PROPOSITIONS_PER_TAKE};
use crate::profile::apply::{Outcome, Refusal, Took};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::{CapTake, CountEvent, Counted, Idempotency, Take, TakeAccount, TakenProposition, Window};
use crate::profile::draft::Draft;
use crate::profile::evidence::Observation;
use crate::profile::keyed::{Keyed, KeyedAnswer};
use crate::profile::metrics::Trigger;
use crate::profile::state::{Answer, DecisionRecord, Exposure, PolicyHold, Profile, Reservation};
use crate::time::Timestamp;

/// Offers and caps for which there was no unit.
#[derive(Default)]
struct Missing {
    offers: Vec<OfferKey>,
    caps: Vec<CapKey>,
}

impl Missing {
    fn note(&mut self, offer: OfferKey, cap: Option<CapKey>) {
        if !self.offers.contains(&offer) {
            self.offers.push(offer);
        }
        if let Some(cap) = cap.filter(|cap| !self.caps.contains(cap)) {
            self.caps.push(cap);
        }
    }
}

impl Profile {
    /// The first answer to a key, if it is still known.
    ///
    /// # Errors
    /// If the key came with another body.
    pub fn answered(&self, key: &Idempotency) -> Result<Option<&KeyedAnswer>, Refusal> {
        let keyed = self.dealings.iter().flat_map(|dealings| dealings.keyed.iter()).find(|keyed| keyed.key == key.key);
        match keyed {
            Some(keyed) if keyed.body == key.body => Ok(Some(&keyed.answer)),
            Some(_) => Err(Refusal::IdempotencyConflict),
            None => Ok(None),
        }
    }

    /// Bytes that answered keys count for. O(1).
    pub(crate) fn keyed_bytes(&self) -> u64 {
        self.dealings.as_ref().map_or(0, |dealings| dealings.keyed.bytes())
    }
}

/// Ranks for which a strict policy has no unit: those past what its limit leaves after earlier answers. Ranks under one limit
/// are counted against each other, in whatever order they were chosen; what no limit binds was counted when it was decided.
fn past_policies(profile: &Profile, take: &Take, now: Timestamp) -> Vec<u16> {
    let mut past = Vec::new();
    // Per thing counted: limit, window, the last rank that they bind and how many there are up to that.
    let mut bound = BTreeMap::<Counted, Vec<(u64, Window, u16, u64)>>::new();
    for policy in take.policies.iter().filter(|policy| policy.limit != u64::MAX) {
        let earlier = profile.impressions(policy.counted, policy.window, now);
        let within = if policy.earlier_only {
            0
        } else {
            let limits = bound.entry(policy.counted).or_default();
            let same = |of: &(u64, Window, u16, u64)| (of.0, of.1) == (policy.limit, policy.window);
            let place = limits.iter().position(same).unwrap_or_else(|| {
                limits.push((policy.limit, policy.window, policy.rank, 1));
                limits.len() - 1
            });
            let (_, _, last, count) = &mut limits[place];
            if *last != policy.rank {
                (*last, *count) = (policy.rank, *count + 1);
            }
            *count - 1
        };
        if earlier.saturating_add(within) >= policy.limit {
            past.push(policy.rank);
        }
    }
    past
}

impl<L: Look> Draft<'_, L> {
    pub(crate) fn take(&mut self, take: &Take) -> Result<Outcome, Refusal> {
        let sizes = [take.propositions.len(), take.ghosts.len(), take.policies.len(), take.counts.len()];
        if sizes.into_iter().any(|len| len > PROPOSITIONS_PER_TAKE) {
            return Err(Refusal::Malformed("too many propositions".to_owned()));
        }
        if take.idempotency.is_some() != take.answer.is_some() {
            return Err(Refusal::Malformed("a key comes with the answer to a retry, and only then".to_owned()));
        }
        let id = ProfileId { tenant: take.tenant.clone(), customer: take.customer.clone() };
        let mut profile = self.open_profile(&id);
        if let Some(key) = &take.idempotency {
            match profile.answered(key)? {
                Some(KeyedAnswer::Took { decision, at, answer }) => {
                    let took = Took { decision: *decision, at: *at, first_answer: Some(Arc::clone(answer)) };
                    self.store_profile(id, profile);
                    return Ok(Outcome::Took(took));
                }
                Some(KeyedAnswer::Responded { .. } | KeyedAnswer::Noted) => return Err(Refusal::IdempotencyConflict),
                None => {}
            }
        }
        let keyed = take.idempotency.zip(take.answer.as_ref()).map(|(key, answer)| Keyed {
            key: key.key,
            body: key.body,
            until: key.until,
            answer: KeyedAnswer::Took { decision: take.decision, at: self.now(), answer: Arc::clone(answer) },
        });
        if keyed.as_ref().is_some_and(|keyed| !self.can_remember(&profile, keyed)) {
            return Err(Refusal::KeyTableFull);
        }
        let dealings = profile.dealings.get_or_insert_default();
        if dealings.decisions.iter().any(|record| record.decision == take.decision) {
            return Err(Refusal::DecisionRepeated);
        }
        if let Some(superseded) = take.supersedes {
            dealings.release(self, superseded, &[]);
        }
        dealings.decisions.push(DecisionRecord {
            decision: take.decision,
            at: self.now(),
            until: take.answerable_until,
        });

        let missing = self.take_units(&id, &mut profile, take);
        if !missing.offers.is_empty() {
            return Err(Refusal::CapRefused { offers: missing.offers, caps: missing.caps });
        }
        let dealings = profile.dealings.get_or_insert_default();
        for ghost in &take.ghosts {
            if !dealings.ghosts.iter().any(|(known, _)| known.offer == ghost.offer) {
                dealings.ghosts.push((*ghost, self.now()));
            }
        }
        if let Some(enrolment) = &self.enrolment {
            dealings.trials.enrol(enrolment, self.now());
        }
        if let Some(keyed) = keyed {
            dealings.keyed.push(keyed);
        }
        self.store_profile(id, profile);
        Ok(Outcome::Took(Took { decision: take.decision, at: self.now(), first_answer: None }))
    }

    fn take_units(&mut self, id: &ProfileId, profile: &mut Profile, take: &Take) -> Missing {
        let mut missing = Missing::default();
        let now = self.now();
        for rank in past_policies(profile, take, now) {
            if let Some(proposition) = take.propositions.get(usize::from(rank).wrapping_sub(1)) {
                missing.note(proposition.offer, None);
            }
        }
        for (index, proposition) in take.propositions.iter().enumerate() {
            let rank = u16::try_from(index + 1).expect("PROPOSITIONS_PER_TAKE fits 16 bits");
            let policies = || take.policies.iter().filter(move |policy| policy.rank == rank);
            for unit in &proposition.takes {
                if !self.take_unit(profile, take, rank, proposition, unit) {
                    missing.note(proposition.offer, Some(unit.cap));
                }
            }
            self.take_mandatory(profile, take, proposition, &mut missing);
            if proposition.implied_impression {
                self.show(id, profile, take, rank, proposition);
            } else {
                let dealings = profile.dealings.get_or_insert_default();
                for policy in policies() {
                    let room = dealings.can_hold_for_policy();
                    let hold = dealings
                        .policy_holds
                        .iter_mut()
                        .find(|hold| (hold.decision, hold.rank, hold.counted) == (take.decision, rank, policy.counted));
                    match hold {
                        Some(hold) => hold.expires_at = hold.expires_at.max(policy.expires_at),
                        None if room => dealings.policy_holds.push(PolicyHold {
                            decision: take.decision,
                            rank,
                            counted: policy.counted,
                            expires_at: policy.expires_at,
                        }),
                        None => missing.note(proposition.offer, None),
                    }
                }
            }
        }
        for unit in &take.counts {
            self.use_unit(profile, unit);
        }
        missing
    }

    /// Reserves one unit, or uses it at once if the decision itself counts.
    fn take_unit(
        &mut self,
        profile: &mut Profile,
        take: &Take,
        rank: u16,
        proposition: &TakenProposition,
        unit: &CapTake,
    ) -> bool {
        let now = self.now();
        let at_once = match unit.count_on {
            CountEvent::Decision => true,
            CountEvent::Impression => proposition.implied_impression,
            CountEvent::Outcome(_) => false,
        };
        if at_once {
            return self.use_unit(profile, unit);
        }
        if profile.dealings.as_ref().is_some_and(|dealings| !dealings.can_hold()) {
            return false;
        }
        let can = match unit.account {
            TakeAccount::Profile { limit, window } => profile.has_unit(unit.cap, limit, window, now),
            TakeAccount::Global { account, amount } => {
                self.account(account).is_some_and(|held| held.reserve(amount, now))
            }
        };
        if can {
            profile.dealings.get_or_insert_default().reservations.push(Reservation {
                decision: take.decision,
                rank,
                cap: unit.cap,
                account: unit.account,
                count_on: unit.count_on,
                expires_at: unit.expires_at,
            });
        }
        can
    }

    /// Uses a unit that nobody holds; `false` if there is none.
    pub(crate) fn use_unit(&mut self, profile: &mut Profile, unit: &CapTake) -> bool {
        let now = self.now();
        match unit.account {
            TakeAccount::Profile { limit, window } => {
                let can = profile.has_unit(unit.cap, limit, window, now);
                if can {
                    profile.dealings.get_or_insert_default().count_use(unit.cap, window, now);
                }
                can
            }
            TakeAccount::Global { account, amount } => {
                self.account(account).is_some_and(|held| held.spend(amount, now))
            }
        }
    }

    fn take_mandatory(
        &self,
        profile: &mut Profile,
        take: &Take,
        proposition: &TakenProposition,
        missing: &mut Missing,
    ) {
        let Some((day, limit)) = take.mandatory.filter(|_| proposition.mandatory) else { return };
        let today = &mut profile.dealings.get_or_insert_default().mandatory;
        if today.as_ref().is_none_or(|(known, _)| known.until <= day.from) {
            *today = Some((day, Vec::new()));
        }
        let Some((_, offers)) = today else { return };
        if offers.contains(&proposition.offer) {
            return;
        }
        if offers.len() as u64 >= u64::from(limit.min(MANDATORY_PER_PROFILE)) {
            missing.note(proposition.offer, None);
        } else {
            offers.push(proposition.offer);
        }
    }

    /// A proposition on a channel where the decision counts as shown.
    fn show(&mut self, id: &ProfileId, profile: &mut Profile, take: &Take, rank: u16, shown: &TakenProposition) {
        let exposure = Exposure::new(self.now(), shown.offer, shown.creative, shown.channel, shown.placement);
        profile.expose(exposure.in_category(shown.category));
        self.feed(profile, Trigger::Impression(rank));
        let dealings = profile.dealings.get_or_insert_default();
        dealings.answers.push(Answer { decision: take.decision, rank, outcome: IMPRESSION, positive: false });
        if shown.evidence {
            let seen = Observation { offer: shown.offer, category: shown.category, shown: true, positive: false };
            self.writes().observed.push((id.tenant.clone(), seen));
        }
    }
}
