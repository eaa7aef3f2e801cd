//! What time does to a profile: reservations lapse, answered keys and old history are forgotten, vectors shrink.

use crate::limits::RETENTION_MS;
use crate::profile::cells::Look;
use crate::profile::command::{Counted, DecisionId};
use crate::profile::draft::Draft;
use crate::profile::state::{Dealings, Exposure, Profile, Reservation, Used};
use crate::time::Timestamp;

impl Profile {
    /// Takes out what is past at the draft's time. Units of lapsed reservations go back to their accounts.
    pub(crate) fn lapse<L: Look>(&mut self, draft: &mut Draft<'_, L>) {
        let now = draft.now();
        self.age_exposures(now);
        let Some(dealings) = self.dealings.as_mut() else { return };
        dealings.give_back(draft, |held| held.expires_at <= now);
        dealings.policy_holds.retain(|hold| now < hold.expires_at);
        dealings.keyed.retain(|keyed| now < keyed.until);
        dealings.decisions.retain(|record| now < record.until);
        dealings.cap_uses.retain(|use_of| match &use_of.used {
            Used::Lifetime(_) => true,
            Used::Calendar(span, _) => now < span.until,
            Used::Rolling(times) => times.last().is_some_and(|last| now.since_ms(*last) < RETENTION_MS),
        });
        dealings.outcomes.retain(|outcome| now.since_ms(outcome.at) < RETENTION_MS);
        dealings.ghosts.retain(|(_, at)| now.since_ms(*at) < RETENTION_MS);
        if dealings.mandatory.as_ref().is_some_and(|(day, _)| day.until <= now) {
            dealings.mandatory = None;
        }
    }

    /// When [`Profile::lapse`] has something to do that others wait for: units to give back, keys to forget.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let dealings = self.dealings.as_ref()?;
        let held = dealings.reservations.iter().map(|held| held.expires_at);
        let holds = dealings.policy_holds.iter().map(|hold| hold.expires_at);
        let keyed = dealings.keyed.iter().map(|keyed| keyed.until);
        let decisions = dealings.decisions.iter().map(|record| record.until);
        held.chain(holds).chain(keyed).chain(decisions).min()
    }

    /// Appends an impression.
    pub(crate) fn expose(&mut self, exposure: Exposure) {
        if let Some(category) = exposure.category() {
            for earlier in self.exposures.iter_mut().filter(|seen| seen.offer == exposure.offer) {
                *earlier = earlier.in_category(Some(category));
            }
        }
        self.exposures.push(exposure);
    }

    /// Frees what is empty: most profiles have no dealings most of the time.
    pub(crate) fn tidy(&mut self) {
        self.exposures.shrink_to_fit();
        self.rows.shrink_to_fit();
        if let Some(dealings) = self.dealings.as_mut() {
            if **dealings == Dealings::default() {
                self.dealings = None;
            } else {
                dealings.shrink();
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

    /// Folds impressions older than every window into totals.
    fn age_exposures(&mut self, now: Timestamp) {
        let old = self.exposures.partition_point(|seen| now.since_ms(seen.at()) >= RETENTION_MS);
        if old == 0 {
            return;
        }
        let dealings = self.dealings.get_or_insert_default();
        for seen in self.exposures.drain(..old) {
            let counted = [
                Some(Counted::All),
                Some(Counted::Offer(seen.offer)),
                Some(Counted::Creative(seen.creative)),
                seen.category().map(Counted::Category),
                Some(Counted::Channel(seen.channel)),
                Some(Counted::Placement(seen.placement())),
            ];
            for counted in counted.into_iter().flatten() {
                match dealings.older.binary_search_by_key(&counted, |(what, _)| *what) {
                    Ok(index) => dealings.older[index].1 = dealings.older[index].1.saturating_add(1),
                    Err(index) => dealings.older.insert(index, (counted, 1)),
                }
            }
        }
        let exposures = &self.exposures;
        dealings.answered.retain(|(offer, _)| exposures.iter().any(|seen| seen.offer == *offer));
    }
}

impl Dealings {
    /// Takes out reservations and returns their units; an outcome that would have used one comes late from now on.
    /// Returns how many there were.
    pub(crate) fn give_back<L: Look>(
        &mut self,
        draft: &mut Draft<'_, L>,
        goes: impl Fn(&Reservation) -> bool,
    ) -> usize {
        let before = self.reservations.len();
        let decisions = &mut self.decisions;
        self.reservations.retain(|held| {
            let stays = !goes(held);
            if !stays {
                draft.give_back(held.account);
                if let Some(record) = decisions.iter_mut().find(|record| record.decision == held.decision) {
                    record.lapsed.push((held.rank, held.cap));
                }
            }
            stays
        });
        before - self.reservations.len()
    }

    /// Gives back what a decision holds for propositions that were not shown, and lifts their policies' holds. `ranks`
    /// empty: all.
    pub(crate) fn release<L: Look>(&mut self, draft: &mut Draft<'_, L>, decision: DecisionId, ranks: &[u16]) -> usize {
        let shown: Vec<u16> = self
            .decisions
            .iter()
            .filter(|record| record.decision == decision)
            .flat_map(|record| record.answers.iter().map(|answer| answer.rank))
            .collect();
        let goes = |of: DecisionId, rank: u16| {
            of == decision && (ranks.is_empty() || ranks.contains(&rank)) && !shown.contains(&rank)
        };
        self.policy_holds.retain(|hold| !goes(hold.decision, hold.rank));
        self.give_back(draft, |held| goes(held.decision, held.rank))
    }

    fn shrink(&mut self) {
        self.older.shrink_to_fit();
        self.outcomes.shrink_to_fit();
        self.cap_uses.shrink_to_fit();
        self.reservations.shrink_to_fit();
        self.policy_holds.shrink_to_fit();
        self.opt_outs.shrink_to_fit();
        self.answered.shrink_to_fit();
        self.ghosts.shrink_to_fit();
        self.decisions.shrink_to_fit();
        self.keyed.shrink_to_fit();
    }
}
