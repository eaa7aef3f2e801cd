//! What callers asked for: each of their commands is tried, proposed, and answered when all that was asked is in force.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proffer_engine::budget::ledger::AccountState;
use proffer_engine::catalog::{self, CommandV1, Touched};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::profile::command::{AccountId, Leader};
use proffer_engine::time::{Calendar, Timestamp};
use tokio::time::Instant;

use super::{Command, MetaLeader};
use crate::calls::Changed;
use crate::error::Error;
use crate::group::Group;
use crate::limits::{ESCROW_MESSAGES_MAX, PROPOSE_TRIES, RETRY_AFTER_START_MS};
use crate::meta::ask::{LedgerRow, MetaAsk};
use crate::meta::command::{MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::door::Admitted;
use crate::meta::job::{Acknowledgement, Duties, Job, Part, Space, is_exclusion};
use crate::meta::openings::to_open;
use crate::meta::state::touched_offers;

impl MetaLeader {
    /// Answers what waits to be proposed: another leads, and what was asked of this one must not be done once it leads again. What was
    /// begun and is acknowledged by the log is answered as if nothing had happened.
    pub(super) fn hand_back(&mut self) {
        let error = Error::NotLed { reason: "the catalogue".to_owned() };
        for job in self.jobs.values_mut() {
            for (index, _) in std::mem::take(&mut job.todo) {
                job.answers[index] = Some(Err(error.clone()));
            }
        }
        self.keeper.hand_back(&error);
        self.urgent.clear();
        self.open.clear();
    }

    /// Calls whose changes are in force.
    pub(crate) fn acknowledgements(&mut self) -> Vec<Acknowledgement> {
        let in_force = self.around.views.revision();
        let done = |job: &Job| {
            job.todo.is_empty() && job.duties.revision <= in_force && job.answers.iter().all(Option::is_some)
        };
        let ids: Vec<u64> = self.jobs.iter().filter(|(_, job)| done(job)).map(|(id, _)| *id).collect();
        let broken = &self.around.views.load().broken;
        ids.into_iter()
            .filter_map(|id| self.jobs.remove(&id))
            .map(|job| {
                let Job { answers, reply, duties, room, .. } = job;
                // Stored, but what decides is an older catalogue: nobody is told that the change is in force.
                let stuck = duties.tenants.iter().any(|tenant| broken.contains_key(tenant));
                let known =
                    |answer: Result<Changed, Error>| if stuck { answer.and(Err(Error::Unknown)) } else { answer };
                let answers = answers.into_iter().flatten().map(known).collect();
                // Its exclusions are applied: the newest fence is theirs, or a later one.
                let fence = duties.fence.then(|| self.state.fence());
                let fenced = fence.map(|fence| self.leasing.fenced(fence));
                let told = duties.told.iter().map(|(shard, _)| *shard);
                let generations = told.map(|shard| (shard, self.state.roster().generation(Group::Shard(shard))));
                let generations = generations.collect();
                Acknowledgement { answers, reply, duties, generations, room, fence, fenced }
            })
            .collect()
    }

    /// Tries a job's commands, and forms what is accepted, as far as the entry has space. `true`: there are more.
    pub(super) fn form_job(&mut self, id: u64, now: Timestamp, leader: Leader, space: &mut Space) -> bool {
        let revision = Revision(self.applied.index + 1);
        while space.is_left() {
            let Some(job) = self.jobs.get_mut(&id) else { return false };
            if job.todo.len() == job.answers.len() && job.reply.is_closed() {
                // Its caller is gone before any of it was begun.
                self.jobs.remove(&id);
                return false;
            }
            if job.todo.front().is_some_and(|(_, command)| !space.admits(id, command)) {
                // The next entry is near; until then the entry takes what others want.
                self.behind.push(id);
                return false;
            }
            let Some((index, command)) = job.todo.pop_front() else { return false };
            let tried = &mut self.tried;
            let result = catch_unwind(AssertUnwindSafe(|| tried.apply(revision, &command)));
            match result {
                Err(_) => {
                    tracing::error!(?command, "changing the catalogue panics; the change is refused");
                    job.answers[index] = Some(Err(Error::Poisonous));
                    self.try_again_from_committed(revision);
                    space.take(0);
                }
                Ok(Err(refusal)) => {
                    job.answers[index] = Some(Err(Error::Refused(refusal)));
                    space.take(0);
                }
                Ok(Ok(changed)) => {
                    let catalog::Command::V1(CommandV1 { tenant, .. }) = &command;
                    job.duties.fence |= is_exclusion(&command);
                    job.duties.tenants.insert(tenant.clone());
                    let open = self.accounts_of(&command, &changed.effect, now);
                    self.form(MetaOp::Change(command), Part::Change { job: id, index }, now, leader, space);
                    for open in open.chunks(ESCROW_MESSAGES_MAX) {
                        self.form(MetaOp::Open(open.to_vec()), Part::Open { job: Some(id) }, now, leader, space);
                    }
                }
            }
        }
        self.jobs.get(&id).is_some_and(|job| !job.todo.is_empty())
    }

    /// The accounts that a tried change needs at once.
    pub(super) fn accounts_of(
        &self,
        command: &catalog::Command,
        effect: &[Touched],
        now: Timestamp,
    ) -> Vec<(AccountId, proffer_engine::budget::ledger::Terms)> {
        let catalog::Command::V1(CommandV1 { tenant, .. }) = command;
        // A tenant that this entry makes has no number yet: its accounts come with the next one.
        let (Some(number), Some(catalog)) = (self.state.number(tenant), self.tried.tenant(tenant)) else {
            return Vec::new();
        };
        let offers = touched_offers(catalog, effect);
        if offers.is_empty() {
            return Vec::new();
        }
        let calendar = Calendar::of(catalog.settings());
        let ledger = self.state.ledger();
        offers.into_iter().flat_map(|offer| to_open(catalog, &calendar, number, offer, ledger, now)).collect()
    }

    /// A panic may have left the tried catalogue half changed.
    pub(super) fn try_again_from_committed(&mut self, revision: Revision) {
        self.tried = self.state.catalog().clone();
        for (command, _) in &self.in_flight {
            let MetaCommand::V1(MetaCommandV1 { op, .. }) = &**command;
            if let MetaOp::Change(command) = op {
                // It was accepted before, and is again.
                let _ = self.tried.apply(revision, command);
            }
        }
    }

    pub(super) fn begin(&mut self, admitted: Admitted) {
        let Admitted { ask, room } = admitted;
        match ask {
            MetaAsk::Change { commands, deadline, reply } => {
                if deadline <= Instant::now() {
                    let _ = reply.send(Err(Error::Expired));
                    return;
                }
                let answers = commands.iter().map(|_| None).collect();
                let urgent = commands.iter().all(is_exclusion);
                let todo = commands.into_iter().enumerate().collect();
                let job = Job { todo, answers, reply, tries: 0, duties: Duties::default(), urgent, room };
                self.jobs.insert(self.next_job, job);
                let queue = if urgent { &mut self.urgent } else { &mut self.open };
                queue.push_back(self.next_job);
                self.next_job += 1;
            }
            MetaAsk::Budget { tenant, offer, reply } => {
                let _ = reply.send(Ok(self.rows(&tenant, offer)));
            }
            MetaAsk::Over { accounts, reply } => {
                let ledger = self.state.ledger();
                let over = accounts.iter().filter_map(|id| ledger.account(*id)).map(|account| account.over_by());
                let _ = reply.send(Ok(over.sum()));
            }
            MetaAsk::Enroll { info, reply } => self.keeper.enroll(MetaOp::Enroll(info), reply, room),
            MetaAsk::Able { disk, level } => self.keeper.enable(MetaOp::Able { disk, level }, room),
            MetaAsk::Replace { disk, given_up, reply } => {
                self.keeper.enroll(MetaOp::Replace { disk, given_up }, reply, room);
            }
            MetaAsk::Configured(report) => self.keeper.report(report, room),
            MetaAsk::Recover { recover, reply } => self.keeper.recover(recover, reply, room),
            MetaAsk::Operate { operation, reply } => self.keeper.operate(operation, reply, room),
            MetaAsk::Everywhere { revision, reply } => self.leasing.everywhere(revision, reply, room),
        }
    }

    pub(super) fn rows(&self, tenant: &TenantId, offer: proffer_engine::keys::OfferKey) -> Vec<LedgerRow> {
        let (Some(number), Some(catalog)) = (self.state.number(tenant), self.state.catalog().tenant(tenant)) else {
            return Vec::new();
        };
        let ledger = self.state.ledger();
        let accounts = catalog.caps(offer).iter().flat_map(|cap| ledger.accounts_of(number, cap.cap));
        accounts
            .filter(|(_, account)| account.state() != AccountState::Closed)
            .map(|(id, account)| LedgerRow {
                account: id,
                span: account.span(),
                limit: account.limit(),
                pool: i64::try_from(account.pool()).unwrap_or(i64::MIN),
                totals: account.totals().collect(),
                reports: account.reports().map(|(shard, report)| (shard, *report)).collect(),
            })
            .collect()
    }

    pub(super) fn settle(&mut self, part: Part, outcome: MetaOutcome, revision: Revision) {
        match (part, outcome) {
            (Part::Change { job, index }, MetaOutcome::Changed(change)) => {
                let Some(job) = self.jobs.get_mut(&job) else { return };
                job.duties.revision = job.duties.revision.max(revision);
                job.duties.told.extend(change.told);
                job.duties.over.extend(change.over);
                let (id, change) = (change.changed.id.clone(), change.changed);
                job.answers[index] = Some(Ok(Changed { revision, id, change, over_by: 0 }));
            }
            (Part::Change { job, index }, MetaOutcome::Refused(refusal)) => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.answers[index] = Some(Err(Error::Refused(refusal)));
                }
            }
            (Part::Open { job: Some(job) }, MetaOutcome::Told(told)) => match self.jobs.get_mut(&job) {
                Some(job) => job.duties.told.extend(told),
                None => self.tell(told, None),
            },
            (Part::Roster(errand), outcome) => self.keeper.settle(errand, outcome),
            (Part::OwnStart, MetaOutcome::Barred(words)) => self.keeper.barred(&words),
            (Part::Settle(shard, reports), MetaOutcome::Told(told)) => self.tell(told, Some((shard, reports))),
            (Part::Open { job: None } | Part::Own | Part::OwnStart, MetaOutcome::Told(told)) => self.tell(told, None),
            (
                Part::Change { job, index },
                MetaOutcome::Told(_) | MetaOutcome::WrongLeader | MetaOutcome::Enrolled { .. } | MetaOutcome::Barred(_),
            ) => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.answers[index] = Some(Err(Error::Unknown));
                }
            }
            (
                Part::Open { .. } | Part::Settle(..) | Part::Own | Part::OwnStart,
                MetaOutcome::Changed(_)
                | MetaOutcome::Refused(_)
                | MetaOutcome::WrongLeader
                | MetaOutcome::Enrolled { .. }
                | MetaOutcome::Barred(_),
            ) => {}
        }
    }

    /// Begins a command again that the log did not take.
    pub(super) fn retry(&mut self, command: &MetaCommand, part: Part) {
        let MetaCommand::V1(MetaCommandV1 { op, .. }) = command;
        let (command, id, index) = match (op, part) {
            (MetaOp::Change(command), Part::Change { job, index }) => (command, job, index),
            (_, Part::Roster(errand)) => {
                errand.fail(&Error::NotLed { reason: "the catalogue".to_owned() });
                return;
            }
            // Shards report again, periods fall due again, and so does this node's own start.
            (_, Part::Change { .. } | Part::Open { .. } | Part::Settle(..) | Part::Own | Part::OwnStart) => return,
        };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.tries = job.tries.saturating_add(1);
        if usize::from(job.tries) > usize::from(PROPOSE_TRIES) * job.answers.len() {
            let reason = "the catalogue's leader keeps changing".to_owned();
            job.answers[index] = Some(Err(Error::Unavailable { reason, retry_after_ms: RETRY_AFTER_START_MS }));
            return;
        }
        job.todo.push_front((index, command.clone()));
        let queue = if job.urgent { &mut self.urgent } else { &mut self.open };
        if !queue.contains(&id) {
            queue.push_front(id);
        }
    }

    pub(super) fn fail_all(&mut self, parts: Vec<(Command, Part)>, error: &Error) {
        for (_, part) in parts {
            match part {
                Part::Change { job, index } => {
                    if let Some(job) = self.jobs.get_mut(&job) {
                        job.answers[index] = Some(Err(error.clone()));
                    }
                }
                Part::Roster(errand) => errand.fail(error),
                Part::Open { .. } | Part::Settle(..) | Part::Own | Part::OwnStart => {}
            }
        }
    }
}
