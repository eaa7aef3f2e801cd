//! Recording what happened to a proposition (domain.md §5, `respond`).

use crate::catalog::outcomes::IMPRESSION;
use crate::keys::OutcomeKey;
use crate::model::settings::Sentiment;
use crate::profile::apply::{Outcome, Refusal, Responded};
use crate::profile::cells::{Look, ProfileId};
use crate::profile::command::{CountEvent, Idempotency, OptOut, Respond, TakeAccount};
use crate::profile::draft::Draft;
use crate::profile::evidence::Observation;
use crate::profile::keyed::{Keyed, KeyedAnswer};
use crate::profile::metrics::Trigger;
use crate::profile::state::{Answer, Dealings, DecisionRecord, Exposure, OutcomeRecord, Profile, Reservation};

impl<L: Look> Draft<'_, L> {
    pub(crate) fn respond(&mut self, respond: &Respond) -> Result<Outcome, Refusal> {
        if respond.proposition.is_some_and(|(_, rank)| rank == 0) {
            return Err(Refusal::Malformed("ranks count from 1".to_owned()));
        }
        let id = ProfileId { tenant: respond.tenant.clone(), customer: respond.customer.clone() };
        let mut profile = self.open_profile(&id);
        match profile.answered(&respond.idempotency)? {
            Some(KeyedAnswer::Responded { late, repeat, over_cap }) => {
                let first = Responded { duplicate: true, late: *late, repeat: *repeat, over_cap: *over_cap };
                self.store_profile(id, profile);
                return Ok(Outcome::Responded(first));
            }
            Some(KeyedAnswer::Took { .. } | KeyedAnswer::Noted) => return Err(Refusal::IdempotencyConflict),
            None => {}
        }

        if !self.can_remember(&profile, &keyed(respond, Responded::default())) {
            let Some(opt_out) = respond.opt_out else { return Err(Refusal::KeyTableFull) };
            // What the customer wants holds whatever else there is no room for. Done again it changes nothing, so it needs
            // no key; the outcome would count again, and is left out.
            profile.dealings.get_or_insert_default().bar(opt_out);
            self.store_profile(id, profile);
            return Ok(Outcome::Responded(Responded::default()));
        }

        let mut responded = Responded { repeat: is_repeat(&profile, respond), ..Responded::default() };
        if !responded.repeat && !respond.withheld {
            self.count(&id, &mut profile, respond, &mut responded);
        }
        self.hear(&mut profile, respond);
        self.note_outcome(&mut profile, respond, responded);
        self.store_profile(id, profile);
        Ok(Outcome::Responded(responded))
    }

    /// What an outcome is to experiments. It counts once by its key, and in both arms alike: a repeat, one that is late, past a cap
    /// or withheld counts as any other, since of a ghost none is a repeat, late or past a cap. Only who is treated has impressions.
    fn hear(&self, profile: &mut Profile, respond: &Respond) {
        if let Some(dealings) = profile.dealings.as_mut().filter(|_| respond.outcome != IMPRESSION) {
            let positive = respond.sentiment == Sentiment::Positive;
            dealings.trials.hear(respond.offer, (respond.outcome, positive), respond.value, self.now());
        }
    }

    /// The impression, given or implied, then the outcome itself.
    fn count(&mut self, id: &ProfileId, profile: &mut Profile, respond: &Respond, responded: &mut Responded) {
        let is_impression = respond.outcome == IMPRESSION;
        let observe = |draft: &mut Self, shown, positive| {
            if respond.evidence && respond.proposition.is_some() {
                let seen = Observation { offer: respond.offer, category: respond.category, shown, positive };
                draft.writes().observed.push((id.tenant.clone(), seen));
            }
        };
        if is_impression || !was_shown(profile, respond) {
            self.settle(profile, respond, CountEvent::Impression, responded);
            let exposure =
                Exposure::new(self.now(), respond.offer, respond.creative, respond.channel, respond.placement);
            profile.expose(exposure.in_category(respond.category));
            if let Some((decision, rank)) = respond.proposition {
                let holds = &mut profile.dealings.get_or_insert_default().policy_holds;
                holds.retain(|hold| (hold.decision, hold.rank) != (decision, rank));
            }
            self.note_answer(profile, respond, IMPRESSION, false);
            self.feed(profile, Trigger::Impression(0));
            observe(self, true, false);
        }
        if !is_impression {
            let positive = respond.sentiment == Sentiment::Positive;
            self.settle(profile, respond, CountEvent::Outcome(respond.outcome), responded);
            if positive && !had_good_news(profile, respond) {
                observe(self, false, true);
            }
            self.note_answer(profile, respond, respond.outcome, positive);
            self.feed(profile, Trigger::Itself);
        }
        if respond.sentiment == Sentiment::Positive {
            let now = self.now();
            let answered = &mut profile.dealings.get_or_insert_default().answered;
            match answered.binary_search_by_key(&respond.offer, |(offer, _)| *offer) {
                Ok(index) => answered[index].1 = now,
                Err(index) => answered.insert(index, (respond.offer, now)),
            }
        }
    }

    /// Turns what the proposition holds for this event into use, and takes a fresh unit of each of the offer's caps that
    /// it holds none of. A unit of a cap that is not the answered offer's is not this outcome's to use, whatever rank it is
    /// held for: it lapses.
    fn settle(&mut self, profile: &mut Profile, respond: &Respond, event: CountEvent, responded: &mut Responded) {
        let now = self.now();
        let mut confirmed = Vec::new();
        if let Some((decision, rank)) = respond.proposition {
            let dealings = profile.dealings.get_or_insert_default();
            let is_counted = |cap| respond.counts.iter().any(|unit| unit.cap == cap);
            let mine = |held: &Reservation| {
                (held.decision, held.rank, held.count_on) == (decision, rank, event) && is_counted(held.cap)
            };
            let held: Vec<_> = dealings.reservations.iter().copied().filter(mine).collect();
            dealings.reservations.retain(|held| !mine(held));
            for unit in held {
                confirmed.push(unit.cap);
                match unit.account {
                    TakeAccount::Profile { window, .. } => dealings.count_use(unit.cap, window, now),
                    TakeAccount::Global { account, amount } => {
                        if let Some(account) = self.account(account) {
                            account.confirm(amount, now);
                        }
                    }
                }
            }
        }
        for unit in respond.counts.iter().filter(|unit| unit.count_on == event && !confirmed.contains(&unit.cap)) {
            let lapsed = profile.dealings.iter().flat_map(|dealings| &dealings.lapsed);
            responded.late |= lapsed
                .filter(|lapsed| Some((lapsed.decision, lapsed.rank)) == respond.proposition)
                .any(|lapsed| lapsed.cap == unit.cap);
            responded.over_cap |= !self.use_unit(profile, unit);
        }
    }

    /// Remembers that the proposition had this outcome.
    fn note_answer(&self, profile: &mut Profile, respond: &Respond, outcome: OutcomeKey, positive: bool) {
        let Some((decision, rank)) = respond.proposition else { return };
        let now = self.now();
        let dealings = profile.dealings.get_or_insert_default();
        if !dealings.decisions.iter().any(|record| record.decision == decision) {
            dealings.decisions.push(DecisionRecord {
                decision,
                at: respond.decided_at.unwrap_or(now),
                until: respond.answerable_until.unwrap_or(now),
            });
        }
        dealings.answers.push(Answer { decision, rank, outcome, positive });
    }

    fn note_outcome(&self, profile: &mut Profile, respond: &Respond, responded: Responded) {
        let now = self.now();
        let dealings = profile.dealings.get_or_insert_default();
        if respond.outcome != IMPRESSION || responded.repeat || responded.over_cap {
            dealings.note_outcome(OutcomeRecord {
                at: now,
                offer: respond.offer,
                category: respond.category,
                outcome: respond.outcome,
                value: respond.value,
                over_cap: responded.over_cap,
                repeat: responded.repeat,
                times: 1,
            });
        }
        if let Some(opt_out) = respond.opt_out {
            dealings.bar(opt_out);
        }
        dealings.keyed.push(keyed(respond, responded));
    }
}

impl Dealings {
    fn bar(&mut self, opt_out: OptOut) {
        if let Err(index) = self.opt_outs.binary_search(&opt_out) {
            self.opt_outs.insert(index, opt_out);
        }
    }
}

fn keyed(respond: &Respond, Responded { late, repeat, over_cap, .. }: Responded) -> Keyed {
    let Idempotency { key, body, until } = respond.idempotency;
    Keyed { key, body, until, answer: KeyedAnswer::Responded { late, repeat, over_cap } }
}

fn answers<'a>(profile: &'a Profile, respond: &Respond) -> impl Iterator<Item = &'a Answer> {
    let proposition = respond.proposition;
    let answers = profile.dealings.iter().flat_map(|dealings| &dealings.answers);
    answers.filter(move |answer| Some((answer.decision, answer.rank)) == proposition)
}

/// Whether the proposition had this very outcome, or may have had it and that was forgotten. Without a proposition nothing
/// repeats.
fn is_repeat(profile: &Profile, respond: &Respond) -> bool {
    answers(profile, respond).any(|answer| answer.outcome == respond.outcome) || is_forgotten(profile, respond)
}

fn is_forgotten(profile: &Profile, respond: &Respond) -> bool {
    let (Some(dealings), Some((decision, _)), Some(at)) = (&profile.dealings, respond.proposition, respond.decided_at)
    else {
        return false;
    };
    at <= dealings.forgotten_until && !dealings.decisions.iter().any(|record| record.decision == decision)
}

fn had_good_news(profile: &Profile, respond: &Respond) -> bool {
    answers(profile, respond).any(|answer| answer.positive)
}

/// Whether an outcome implies no impression: the proposition has one, or, where none is named, the offer does.
fn was_shown(profile: &Profile, respond: &Respond) -> bool {
    match respond.proposition {
        Some(_) => answers(profile, respond).any(|answer| answer.outcome == IMPRESSION),
        None => profile.exposures.iter().any(|seen| seen.offer == respond.offer),
    }
}
