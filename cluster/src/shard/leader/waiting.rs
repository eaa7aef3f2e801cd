//! Whoever waits: for an entry to commit, for units, for another leader.

use proffer_engine::profile::pending::Sequence;
use tokio::time::Instant;

use super::ShardLeader;
use crate::error::Error;
use crate::planted::{Bug, is};
use crate::shard::ask::{Ask, DecideAsk, ReadAsk};
use crate::shard::trial::Raw;
use crate::shard::work::{Answer, Origin, Waiter, Work};

impl ShardLeader {
    /// From when on those whose entry is under way are kept waiting no longer: cut off from the others, this replica may not learn for as
    /// long as it likes what became of it.
    pub(super) fn doubted_at(&self) -> Option<Instant> {
        let is_awaited = self.in_flight.iter().any(|deed| deed.origin.is_awaited());
        let lost_at = self.lost_at.filter(|_| is_awaited);
        lost_at.map(|lost_at| lost_at + self.around.timing.longest_election())
    }

    /// Tells everybody whose entry is under way that it is not known what becomes of it: who may repeat it does so where another leads.
    pub(super) fn doubt_in_flight(&mut self) {
        let awaited = self.in_flight.iter_mut().filter(|deed| deed.origin.is_awaited());
        let origins: Vec<Origin> = awaited.map(|deed| std::mem::replace(&mut deed.origin, Origin::Doubted)).collect();
        for origin in origins {
            self.fail(origin, &Error::Unknown);
        }
    }

    /// Tells everybody who waits, but for those whose entry is under way, that this replica does not lead.
    pub(super) fn hand_back_unless_led(&mut self) {
        if self.leader.is_some() {
            return;
        }
        for ask in self.around.door.turn_away() {
            self.redo.push_back(Work::Ask(ask));
        }
        let waiting = std::mem::take(&mut self.redo).into_iter();
        let parked = std::mem::take(&mut self.parked).into_iter();
        let behind = std::mem::take(&mut self.behind).into_iter();
        let parked = parked.map(|(_, ask)| Work::Ask(Ask::Decide(Box::new(ask))));
        for work in waiting.chain(parked).chain(behind.map(|(_, work)| work)) {
            self.refuse(work, Error::NotLed { reason: "the customer's shard".to_owned() });
        }
    }

    /// Answers now, or when what was read has committed.
    pub(in crate::shard) fn answer_decision(&mut self, until: Option<Sequence>, ask: Box<DecideAsk>, raw: Box<Raw>) {
        match until.filter(|_| !is(Bug::AnsweredFromOverlay)) {
            Some(until) => self.waiting.push_back(Waiter { until, answer: Answer::Decide(ask, raw) }),
            None => ask.answer(raw),
        }
    }

    /// Refuses now, or when what was read has committed.
    pub(in crate::shard) fn refuse_when(&mut self, until: Option<Sequence>, work: Work, error: Error) {
        match until {
            Some(until) => self.waiting.push_back(Waiter { until, answer: Answer::Refused(work, error) }),
            None => self.refuse(work, error),
        }
    }

    pub(in crate::shard) fn answer_read_later(&mut self, until: Sequence, read: ReadAsk) {
        self.waiting.push_back(Waiter { until, answer: Answer::Read(read) });
    }

    /// A decision waits for units until `until`.
    pub(in crate::shard) fn park(&mut self, until: Instant, ask: DecideAsk) {
        self.parked.push((until, ask));
    }

    pub(super) fn unpark(&mut self, which: impl Fn(Instant) -> bool) {
        let ready: Vec<_> = self.parked.extract_if(.., |(until, _)| which(*until)).collect();
        for (_, mut ask) in ready {
            ask.waited = true;
            self.redo.push_back(Work::Ask(Ask::Decide(Box::new(ask))));
        }
    }

    /// Everything up to `through` has committed.
    pub(super) fn release(&mut self, through: Sequence) {
        while let Some(waiter) = self.waiting.pop_front_if(|waiter| waiter.until <= through) {
            match waiter.answer {
                Answer::Decide(ask, raw) => ask.answer(raw),
                Answer::Read(read) => self.read(read),
                Answer::Refused(work, error) => self.refuse(work, error),
            }
        }
    }

    /// Answers whoever waits for a deed that was not done.
    pub(in crate::shard) fn fail(&mut self, origin: Origin, error: &Error) {
        match origin {
            Origin::Decide(ask, _) => ask.reply.send(Err(error.clone())),
            Origin::Respond(ask) => ask.reply.send(Err(error.clone())),
            Origin::Write(tally) => tally.refused(error.clone()),
            Origin::Own => self.own_failed(),
            Origin::Doubted => {}
        }
    }

    /// Answers whoever waits for what will not be done.
    pub(super) fn refuse(&mut self, work: Work, error: Error) {
        match work {
            Work::Ask(ask) => ask.fail(error),
            Work::Op(_, tally) => tally.refused(error),
            Work::Own(_) => self.own_failed(),
        }
    }
}
