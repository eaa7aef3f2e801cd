//! What the next entry is formed of, in which order, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::budget::ledger::AccountState;
use proffer_engine::codec;
use proffer_engine::keys::Revision;
use proffer_engine::profile::command::Leader;
use proffer_engine::time::{Calendar, Timestamp};
use tokio::time::Instant;

use super::{Command, MetaLeader};
use crate::error::Error;
use crate::limits::{
    ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, ENTRY_OVERHEAD_BYTES, ESCROW_MESSAGES_MAX, LEDGER_ROUND_MS, OWN_RETRY_MS,
    RETRY_AFTER_START_MS,
};
use crate::meta::command::{MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::job::{Part, Space};
use crate::meta::keeper::Errand;
use crate::meta::openings::to_open;
use crate::planted::{Bug, is};
use crate::ports::propose::{Proposed, Reason};

impl MetaLeader {
    /// The next entry to propose, if none is under way and there is something to propose. Answers what only reads.
    pub(crate) fn next_entry(&mut self) -> Option<(Vec<Command>, Leader)> {
        let leader = self.leader?;
        if !self.in_flight.is_empty() {
            return None;
        }
        loop {
            self.form_entry(leader);
            // What was refused at once, or only read, leaves nothing to propose.
            if !self.around.door.rest() || self.wants_a_turn() || !self.in_flight.is_empty() {
                break;
            }
        }
        if self.in_flight.is_empty() {
            return None;
        }
        if is(Bug::AddBeforeSubtract) {
            self.tell_in_flight(leader);
        }
        Some((self.in_flight.iter().map(|(command, _)| Arc::clone(command)).collect(), leader))
    }

    /// Whether it wants another turn though nothing is under way: a turn tries no more than an entry's worth.
    pub(crate) fn wants_a_turn(&self) -> bool {
        self.leader.is_some() && self.in_flight.is_empty() && self.has_unproposed()
    }

    pub(super) fn form_entry(&mut self, leader: Leader) {
        while let Some(admitted) = self.around.door.next_call() {
            self.begin(admitted);
        }
        let now = self.now();
        if self.state.founding().is_none() {
            if Instant::now() < self.quiet_until {
                return;
            }
            // Nothing else can be applied before it but who founds.
            let mut space = Space::new(ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX);
            self.form(MetaOp::Found(self.around.founding), Part::Own, now, leader, &mut space);
            if let Some(op) = self.keeper.own_enrolment(self.state.roster()) {
                self.form(op, Part::OwnStart, now, leader, &mut space);
            }
            return;
        }
        let mut space = Space::new(ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX);
        self.tried_for = self.applied.index + 1;
        while space.is_left()
            && let Some(job) = self.urgent.pop_front()
        {
            if self.form_job(job, now, leader, &mut space) {
                self.urgent.push_back(job);
            }
        }
        let urgent = std::mem::take(&mut self.behind);
        self.form_own(now, leader, &mut space);
        self.form_roster(now, leader, &mut space);
        while space.is_left()
            && let Some(job) = self.open.pop_front()
        {
            if self.form_job(job, now, leader, &mut space) {
                self.open.push_back(job);
            }
        }
        self.urgent.extend(urgent);
        self.open.extend(std::mem::take(&mut self.behind));
    }

    pub(super) fn has_unproposed(&self) -> bool {
        !self.urgent.is_empty() || !self.open.is_empty() || self.keeper.has_asks()
    }

    /// What became of the entry under way.
    pub(crate) fn proposed(&mut self, proposed: Proposed<MetaOutcome>) {
        let parts = std::mem::take(&mut self.in_flight);
        match proposed {
            Proposed::Applied(committed) => {
                let revision = Revision(committed.position.index);
                for ((_, part), outcome) in parts.into_iter().zip(committed.results) {
                    self.settle(part, outcome, revision);
                }
                return;
            }
            Proposed::Refused(Reason::NotLeader(leader)) => {
                self.hush();
                for (command, part) in parts.into_iter().rev() {
                    self.retry(&command, part);
                }
                self.follow(leader);
                if self.leader.is_none() {
                    // It may have been lost before the refusal came: then what is begun again has nobody to begin it.
                    self.hand_back();
                }
            }
            Proposed::NotApplied(reason) => {
                tracing::warn!(%reason, "an entry of the catalogue was not applied");
                self.hush();
                let retry_after_ms = RETRY_AFTER_START_MS;
                self.fail_all(parts, &Error::Unavailable { reason, retry_after_ms });
            }
            Proposed::Unknown => self.fail_all(parts, &Error::Unknown),
        }
        self.tried = self.state.catalog().clone();
    }

    pub(super) fn hush(&mut self) {
        self.quiet_until = Instant::now() + Duration::from_millis(OWN_RETRY_MS);
    }

    /// The cluster's own: reports of shards, periods that begin and end.
    pub(super) fn form_own(&mut self, now: Timestamp, leader: Leader, space: &mut Space) {
        let is_quiet = Instant::now() < self.quiet_until;
        while space.is_left()
            && let Some((shard, generation, reports)) = self.around.door.next_reports()
        {
            // While the log takes nothing, reports are let go: the shards report again.
            if !is_quiet {
                let part = Part::Settle(shard, reports.clone());
                self.form(MetaOp::settle(generation, shard, reports), part, now, leader, space);
            }
        }
        let due = if is_quiet { Vec::new() } else { self.openings.due(now) };
        let mut open = Vec::new();
        for (tenant, offer) in due {
            let Some(catalog) = self.state.catalog().tenant(&tenant) else { continue };
            let Some(number) = self.state.number(&tenant) else { continue };
            let calendar = Calendar::of(catalog.settings());
            open.extend(to_open(catalog, &calendar, number, offer, self.state.ledger(), now));
            if open.len() >= ESCROW_MESSAGES_MAX {
                break;
            }
        }
        if !open.is_empty() {
            self.form(MetaOp::Open(open), Part::Open { job: None }, now, leader, space);
        }
        if self.last_round.elapsed() >= Duration::from_millis(LEDGER_ROUND_MS) {
            self.last_round = Instant::now();
            self.tell_again();
            let over = |state: AccountState, until: Timestamp| state == AccountState::Open && until <= now;
            let mut accounts = self.state.ledger().accounts();
            let ended = accounts.any(|(_, account)| over(account.state(), account.span().until));
            drop(accounts);
            if ended && !is_quiet {
                self.form(MetaOp::EndPeriods, Part::Own, now, leader, space);
            }
        }
    }

    /// What is to be said of nodes, replicas and groups: what was asked, then what the planner wants.
    pub(super) fn form_roster(&mut self, now: Timestamp, leader: Leader, space: &mut Space) {
        let roster = Arc::clone(self.state.roster());
        let is_quiet = Instant::now() < self.quiet_until;
        if let Some(op) = self.keeper.own_enrolment(&roster).filter(|_| !is_quiet) {
            self.form(op, Part::OwnStart, now, leader, space);
        }
        while space.is_left()
            && let Some(commands) = self.keeper.next_asked(&roster)
        {
            for (op, errand) in commands {
                self.form(op, Part::Roster(errand), now, leader, space);
            }
        }
        if !is_quiet && space.is_left() {
            for op in self.keeper.plan(&roster, Instant::now()) {
                self.form(op, Part::Roster(Errand::Own), now, leader, space);
            }
        }
    }

    pub(super) fn form(&mut self, op: MetaOp, part: Part, now: Timestamp, leader: Leader, space: &mut Space) {
        let command = Arc::new(MetaCommand::V1(MetaCommandV1 { now, leader, op }));
        space.take(codec::encode(&*command).len() + ENTRY_OVERHEAD_BYTES);
        self.in_flight.push((command, part));
    }
}
