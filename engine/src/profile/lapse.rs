//! What time does to a profile: reservations lapse, answered keys and old history are forgotten, vectors shrink.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::limits::RETENTION_MS;
use crate::profile::cells::Look;
use crate::profile::command::{Counted, DecisionId};
use crate::profile::draft::Draft;
use crate::profile::state::{Dealings, DecisionRecord, Exposure, Lapsed, Profile, Reservation, Used};
use crate::time::Timestamp;

impl Profile {
    /// Takes out what is past at the draft's time. Units of lapsed reservations go back to their accounts.
    pub(crate) fn lapse<L: Look>(&mut self, draft: &mut Draft<'_, L>) {
        let now = draft.now();
        self.age_exposures(now);
        let Some(dealings) = self.dealings.as_mut() else { return };
        dealings.give_back(draft, |held| held.expires_at <= now);
        dealings.policy_holds.retain(|hold| now < hold.expires_at);
        dealings.keyed.lapse(now);
        dealings.forget_decisions(|record| record.until <= now);
        dealings.cap_uses.retain(|use_of| match &use_of.used {
            Used::Lifetime(_) => true,
            Used::Calendar(span, _) => now < span.until,
            Used::Rolling(times) => times.last().is_some_and(|last| now.since_ms(*last) < RETENTION_MS),
        });
        dealings.outcomes.retain(|outcome| now.since_ms(outcome.at) < RETENTION_MS);
        dealings.metrics.lapse(now);
        dealings.trials.lapse(now);
        dealings.ghosts.retain(|(_, at)| now.since_ms(*at) < RETENTION_MS);
        if dealings.mandatory.as_ref().is_some_and(|(day, _)| day.until <= now) {
            dealings.mandatory = None;
        }
    }

    /// When [`Profile::lapse`] has something to do that others wait for: units to give back, keys to forget, experiments
    /// that are over, for nothing else may touch who was only enrolled. As it was when the profile was last [tidied](Profile::tidy). O(1).
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.dealings.as_ref()?.due.0
    }

    /// Appends an impression.
    pub(crate) fn expose(&mut self, exposure: Exposure) {
        if let Some(category) = exposure.category() {
            let crowds = self.dealings.iter_mut().flat_map(|dealings| &mut dealings.crowds).map(|(last, _)| last);
            for earlier in self.exposures.iter_mut().chain(crowds).filter(|seen| seen.offer == exposure.offer) {
                *earlier = earlier.in_category(Some(category));
            }
        }
        self.exposures.push(exposure);
    }

    /// Frees what is empty (most profiles have no dealings most of the time) and notes when something falls due.
    pub(crate) fn tidy(&mut self) {
        self.rows.shrink_to_fit();
        if let Some(dealings) = self.dealings.as_mut() {
            if **dealings == Dealings::default() {
                self.dealings = None;
            } else {
                dealings.shrink();
                dealings.due = dealings.find_due();
            }
        }
    }

    /// Whether nothing is known of this customer.
    pub(crate) fn is_empty(&self) -> bool {
        self.attributes.is_empty()
            && self.segments.is_empty()
            && self.rows.is_empty()
            && self.exposures.is_empty()
            && self.dealings.is_none()
    }

    /// Whether nothing is known of this customer but keys of outcomes, which outlive a deleted profile.
    pub fn is_deleted(&self) -> bool {
        let bare =
            |dealings: &Dealings| Dealings { keyed: Default::default(), ..dealings.clone() } == Dealings::default();
        self.attributes.is_empty()
            && self.segments.is_empty()
            && self.rows.is_empty()
            && self.exposures.is_empty()
            && self.dealings.as_deref().is_none_or(bare)
    }

    /// Folds impressions older than every window into totals.
    fn age_exposures(&mut self, now: Timestamp) {
        let old = self.exposures.partition_point(|seen| now.since_ms(seen.at()) >= RETENTION_MS);
        if old == 0 {
            return;
        }
        let dealings = self.dealings.get_or_insert_default();
        for seen in self.exposures.drain_first(old) {
            dealings.fold(&seen, 1);
        }
        for (last, times) in
            dealings.crowds.extract_if(.., |(last, _)| now.since_ms(last.at()) >= RETENTION_MS).collect::<Vec<_>>()
        {
            dealings.fold(&last, times);
        }
        self.prune_answered();
    }

    /// Forgets good news about offers that are no longer in the history: there is no fatigue for it to end.
    pub(crate) fn prune_answered(&mut self) {
        let Some(dealings) = self.dealings.as_mut() else { return };
        let shown: std::collections::BTreeSet<_> = self.exposures.iter().map(|seen| seen.offer).collect();
        dealings.answered.retain(|(offer, _)| shown.contains(offer));
    }
}

/// When something falls due. Derived: not stored, and no part of what is compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Due(Option<Timestamp>);

impl PartialEq for Due {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Encode for Due {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for Due {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Due::default())
    }
}
bincode::impl_borrow_decode!(Due);

impl Dealings {
    fn find_due(&self) -> Due {
        let held = self.reservations.iter().map(|held| held.expires_at);
        let holds = self.policy_holds.iter().map(|hold| hold.expires_at);
        let keyed = self.keyed.iter().map(|keyed| keyed.until);
        let decisions = self.decisions.iter().map(|record| record.until);
        Due(held.chain(holds).chain(keyed).chain(decisions).chain(self.trials.due()).min())
    }

    /// Takes impressions out of the history: from now on they count at the time of the last that was taken out.
    pub(crate) fn fold(&mut self, seen: &Exposure, times: u32) {
        self.older_until = self.older_until.max(seen.at());
        let counted = [
            Some(Counted::All),
            Some(Counted::Offer(seen.offer)),
            Some(Counted::Creative(seen.creative)),
            seen.category().map(Counted::Category),
            Some(Counted::Channel(seen.channel)),
            Some(Counted::Placement(seen.placement())),
        ];
        for counted in counted.into_iter().flatten() {
            match self.older.binary_search_by_key(&counted, |(what, _)| *what) {
                Ok(index) => self.older[index].1 = self.older[index].1.saturating_add(times),
                Err(index) => {
                    let before = if counted == Counted::All { 0 } else { self.older_rest };
                    self.older.insert(index, (counted, before.saturating_add(times)));
                }
            }
        }
    }

    /// Forgets decisions with all that is known of them.
    pub(crate) fn forget_decisions(&mut self, goes: impl Fn(&DecisionRecord) -> bool) {
        let mut gone: Vec<DecisionId> =
            self.decisions.extract_if(.., |record| goes(record)).map(|record| record.decision).collect();
        if gone.is_empty() {
            return;
        }
        gone.sort_unstable();
        self.answers.retain(|answer| gone.binary_search(&answer.decision).is_err());
        self.lapsed.retain(|lapsed| gone.binary_search(&lapsed.decision).is_err());
    }

    /// Takes out reservations and returns their units; an outcome that would have used one comes late from now on.
    /// Returns how many there were.
    pub(crate) fn give_back<L: Look>(
        &mut self,
        draft: &mut Draft<'_, L>,
        goes: impl Fn(&Reservation) -> bool,
    ) -> usize {
        let before = self.reservations.len();
        let (decisions, lapsed) = (&self.decisions, &mut self.lapsed);
        self.reservations.retain(|held| {
            let stays = !goes(held);
            if !stays {
                draft.give_back(held.account);
                if decisions.iter().any(|record| record.decision == held.decision) {
                    lapsed.push(Lapsed { decision: held.decision, rank: held.rank, cap: held.cap });
                }
            }
            stays
        });
        before - self.reservations.len()
    }

    /// Gives back what a decision holds for propositions that were not shown, and lifts their policies' holds. `ranks`
    /// empty: all.
    pub(crate) fn release<L: Look>(&mut self, draft: &mut Draft<'_, L>, decision: DecisionId, ranks: &[u16]) -> usize {
        let answers = self.answers.iter().filter(|answer| answer.decision == decision);
        let shown: Vec<u16> = answers.map(|answer| answer.rank).collect();
        let goes = |of: DecisionId, rank: u16| {
            of == decision && (ranks.is_empty() || ranks.contains(&rank)) && !shown.contains(&rank)
        };
        self.policy_holds.retain(|hold| !goes(hold.decision, hold.rank));
        self.give_back(draft, |held| goes(held.decision, held.rank))
    }

    fn shrink(&mut self) {
        self.crowds.shrink_to_fit();
        self.older.shrink_to_fit();
        self.outcomes.shrink_to_fit();
        self.cap_uses.shrink_to_fit();
        self.reservations.shrink_to_fit();
        self.policy_holds.shrink_to_fit();
        self.opt_outs.shrink_to_fit();
        self.answered.shrink_to_fit();
        self.ghosts.shrink_to_fit();
        self.decisions.shrink_to_fit();
        self.answers.shrink_to_fit();
        self.lapsed.shrink_to_fit();
        self.keyed.shrink_to_fit();
        self.metrics.shrink_to_fit();
        self.trials.shrink_to_fit();
    }
}
