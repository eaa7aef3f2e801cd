//! Deeds: foreseen on what is pending, formed into entries, proposed one entry at a time, and begun again where the log did not take them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proffer_engine::codec;
use proffer_engine::keys::Revision;
use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::{Leader, Position, ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::profile::pending::Sequence;
use tokio::time::{Duration, Instant};

use super::{Command, ShardLeader};
use crate::error::Error;
use crate::limits::{
    ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, ENTRY_OVERHEAD_BYTES, OWN_RETRY_MS, PROPOSE_TRIES, RETRY_AFTER_START_MS,
};
use crate::planted::{Bug, is};
use crate::ports::propose::{Proposed, Reason};
use crate::shard::ask::Ask;
use crate::shard::work::{Answer, Deed, Origin, Work};

impl ShardLeader {
    /// The next entry to propose, if none is under way.
    pub(crate) fn next_entry(&mut self) -> Option<(Vec<Command>, Leader)> {
        let leader = self.leader?;
        if !self.in_flight.is_empty() || self.forming.is_empty() {
            return None;
        }
        let mut bytes = 0;
        let mut joined = false;
        while let Some(deed) = self.forming.front() {
            let partner = self.forming.get(1).filter(|_| deed.joined).map_or(0, |partner| partner.bytes);
            let fits = bytes + deed.bytes + partner <= ENTRY_BYTES_MAX && self.in_flight.len() < ENTRY_COMMANDS_MAX;
            if !fits && !joined && !self.in_flight.is_empty() {
                break;
            }
            (bytes, joined) = (bytes + deed.bytes, deed.joined);
            self.in_flight.extend(self.forming.pop_front());
        }
        self.forming_bytes -= bytes;
        if is(Bug::AcknowledgedBeforeCommit) {
            self.settle_in_flight();
        }
        Some((self.in_flight.iter().map(|deed| Arc::clone(&deed.command)).collect(), leader))
    }

    /// Answers everybody whose entry is under way with what is foreseen.
    pub(super) fn settle_in_flight(&mut self) {
        let take = |deed: &mut Deed| (std::mem::replace(&mut deed.origin, Origin::Doubted), deed.expected.clone());
        for (origin, expected) in self.in_flight.iter_mut().map(take).collect::<Vec<_>>() {
            self.settle(origin, expected);
        }
    }

    /// The log takes nothing: what was formed is refused, rather than kept waiting behind an entry that does not end.
    pub(crate) fn refuse_formed(&mut self, reason: &str) {
        let formed = std::mem::take(&mut self.forming);
        if formed.is_empty() {
            return;
        }
        self.not_applied(formed, reason);
    }

    /// The log wrote nothing of these deeds and never will.
    pub(super) fn not_applied(&mut self, deeds: impl IntoIterator<Item = Deed>, reason: &str) {
        let error = Error::Unavailable { reason: reason.to_owned(), retry_after_ms: RETRY_AFTER_START_MS };
        for deed in deeds {
            self.fail(deed.origin, &error);
        }
        self.start_over();
    }

    /// What became of the entry under way.
    pub(crate) fn proposed(&mut self, proposed: Proposed<Outcome>) {
        let deeds = std::mem::take(&mut self.in_flight);
        match proposed {
            Proposed::Applied(committed) => {
                let as_foreseen = deeds.iter().zip(&committed.results).all(|(deed, result)| deed.expected == *result);
                let through = deeds.last().map(|deed| deed.sequence);
                for (deed, outcome) in deeds.into_iter().zip(committed.results) {
                    self.settle(deed.origin, outcome);
                }
                match through {
                    Some(through) if as_foreseen => {
                        self.pending.commit(through);
                        self.release(through);
                    }
                    Some(_) | None => self.start_over(),
                }
            }
            // What was formed on top of these deeds is begun again after them.
            Proposed::Refused(Reason::NotLeader(leader)) => {
                self.hush();
                self.follow(leader);
                self.start_over();
                self.retry(deeds);
                self.hand_back_unless_led();
            }
            Proposed::NotApplied(reason) => {
                tracing::warn!(shard = self.around.shard.0, %reason, "an entry was not applied");
                self.not_applied(deeds, &reason);
            }
            Proposed::Unknown => {
                let mut again = Vec::new();
                for mut deed in deeds {
                    if deed.origin.may_be_repeated() {
                        deed.origin.doubt();
                        again.push(deed);
                    } else {
                        self.fail(deed.origin, &Error::Unknown);
                    }
                }
                self.start_over();
                self.retry(again);
                self.hand_back_unless_led();
            }
        }
    }

    pub(in crate::shard) fn write(&mut self, op: ShardOp, origin: Origin, leader: Leader) {
        let command = self.command(op, self.around.views.load().revision, leader);
        match self.foresee(&command, leader) {
            Ok((_, Outcome::Refused(refusal))) => self.reconsider(origin, &command, refusal),
            Ok((sequence, outcome)) => self.form(sequence, command, outcome, origin),
            Err(error) => self.fail(origin, &error),
        }
    }

    pub(in crate::shard) fn command(&self, op: ShardOp, revision: Revision, leader: Leader) -> Command {
        let revision = if is(Bug::FenceSkipped) { Revision(u64::MAX) } else { revision };
        Arc::new(ShardCommand::V1(ShardCommandV1 { now: self.now(), leader, revision, op }))
    }

    /// Runs the command on what is pending, as `apply` will. One that panics must never enter the log.
    pub(in crate::shard) fn foresee(
        &mut self,
        command: &Command,
        leader: Leader,
    ) -> Result<(Sequence, Outcome), Error> {
        let position = Position { leader, index: self.applied.index };
        let ran = catch_unwind(AssertUnwindSafe(|| self.pending.apply(&self.state, position, command)));
        ran.map_err(|_| {
            tracing::error!(shard = self.around.shard.0, command = ?command, "applying a command panics; it is refused");
            // The overlay may be half written.
            self.start_over();
            Error::Poisonous
        })
    }

    pub(in crate::shard) fn form(&mut self, sequence: Sequence, command: Command, expected: Outcome, origin: Origin) {
        let bytes = codec::encode(&*command).len() + ENTRY_OVERHEAD_BYTES;
        self.forming_bytes += bytes;
        self.forming.push_back(Deed { sequence, command, bytes, expected, origin, joined: false });
    }

    /// What is formed next goes into the same entry as what was formed last.
    pub(in crate::shard) fn join_last(&mut self) {
        if let Some(last) = self.forming.back_mut() {
            last.joined = true;
        }
    }

    /// Drops everything pending. What is in the log's hands stays there; what was only formed, and answers that read it, are
    /// begun again.
    pub(super) fn start_over(&mut self) {
        self.pending.clear();
        // The names that only the overlay knew are taken back: their numbers will mean others.
        self.frames.forget_names();
        self.forming_bytes = 0;
        let mut again: VecDeque<Work> = VecDeque::new();
        for deed in std::mem::take(&mut self.forming) {
            again.extend(deed.origin.into_work(&deed.command));
        }
        for waiter in std::mem::take(&mut self.waiting) {
            again.push_back(match waiter.answer {
                Answer::Decide(ask, _) => Work::Ask(Ask::Decide(ask)),
                Answer::Read(read) => Work::Ask(Ask::Read(read)),
                Answer::Refused(work, _) => work,
            });
        }
        again.append(&mut self.redo);
        self.redo = again;
        // What is in flight may still be applied: go on from there.
        let Some(leader) = self.leader else { return };
        for deed in &mut self.in_flight {
            let position = Position { leader, index: self.applied.index };
            let pending = &mut self.pending;
            let state = &self.state;
            if let Ok((sequence, outcome)) =
                catch_unwind(AssertUnwindSafe(|| pending.apply(state, position, &deed.command)))
            {
                deed.sequence = sequence;
                deed.expected = outcome;
            }
        }
    }

    /// Begins deeds again that the log did not take.
    pub(super) fn retry(&mut self, deeds: Vec<Deed>) {
        let mut again = VecDeque::new();
        for mut deed in deeds {
            let ShardCommand::V1(ShardCommandV1 { op, .. }) = &*deed.command;
            let tries = deed.origin.count_try();
            if matches!(op, ShardOp::Tick | ShardOp::Lapse(_)) {
                // It falls due again.
                self.tick_pending = false;
            } else if tries > PROPOSE_TRIES {
                let reason = "the shard's leader keeps changing".to_owned();
                self.fail(deed.origin, &Error::Unavailable { reason, retry_after_ms: RETRY_AFTER_START_MS });
            } else {
                again.extend(deed.origin.into_work(&deed.command));
            }
        }
        again.append(&mut self.redo);
        self.redo = again;
    }

    /// Answers whoever waits for an applied deed.
    pub(super) fn settle(&mut self, origin: Origin, outcome: Outcome) {
        match (origin, outcome) {
            (Origin::Decide(ask, raw), outcome) => self.settle_decision(ask, raw, outcome),
            (Origin::Respond(ask), outcome) => self.settle_outcome(ask, outcome),
            (Origin::Write(tally), Outcome::Refused(refusal)) => {
                tally.refused(crate::shard::deciding::refused(&refusal))
            }
            (Origin::Write(tally), _) => tally.applied(),
            (Origin::Own, Outcome::Refused(refusal)) => {
                tracing::warn!(shard = self.around.shard.0, %refusal, "the cluster's own command was refused");
                self.own_failed();
            }
            (Origin::Doubted, _) => {}
            (Origin::Own, _) => {
                self.tick_pending = false;
                if self.taker.is_settled() {
                    self.unpark(|_| true);
                }
            }
        }
    }

    /// What the cluster itself wanted was not done; it is wanted again, but not at once: whatever stands in the way (a full
    /// disk) would be met again, for ever.
    pub(super) fn own_failed(&mut self) {
        self.tick_pending = false;
        self.hush();
    }

    pub(super) fn hush(&mut self) {
        self.quiet_until = Instant::now() + Duration::from_millis(OWN_RETRY_MS);
    }

    /// `apply` refused, foreseen or in the log.
    pub(in crate::shard) fn reconsider(
        &mut self,
        origin: Origin,
        command: &Command,
        refusal: proffer_engine::profile::apply::Refusal,
    ) {
        use proffer_engine::profile::apply::Refusal;
        let origin = match (origin, &refusal) {
            (Origin::Decide(mut ask, _), Refusal::CapRefused { offers, .. }) => {
                ask.masked.extend(offers);
                ask.contended = ask.contended.saturating_add(1);
                self.redo.push_front(Work::Ask(Ask::Decide(ask)));
                return;
            }
            (origin, _) => origin,
        };
        match refusal {
            Refusal::Fenced { need } if need > self.around.views.revision() => {
                self.behind.extend(origin.into_work(command).map(|work| (need, work)));
            }
            Refusal::Fenced { .. } | Refusal::WrongLeader | Refusal::DecisionRepeated => {
                let mut origin = origin;
                if origin.count_try() > PROPOSE_TRIES {
                    let reason = "the shard's leader keeps changing".to_owned();
                    self.fail(origin, &Error::Unavailable { reason, retry_after_ms: RETRY_AFTER_START_MS });
                } else if let Some(work) = origin.into_work(command) {
                    self.redo.push_front(work);
                }
            }
            Refusal::CapRefused { .. }
            | Refusal::IdempotencyConflict
            | Refusal::KeyTableFull
            | Refusal::NamesFull
            | Refusal::ProfileTooLarge
            | Refusal::Malformed(_) => {
                let error = crate::shard::deciding::refused(&refusal);
                let until = (!self.pending.is_empty()).then(|| self.pending.last());
                if let Some(work) = origin.into_work(command) {
                    self.refuse_when(until, work, error);
                }
            }
        }
    }
}
