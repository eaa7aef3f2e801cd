//! The meta leader's turn: changes are tried on a copy of the catalogue, what is accepted is proposed, and a change is
//! acknowledged when the snapshot that holds it decides on this node and the shards know what they must.
//!
//! Knows neither actors nor logs, as the shard's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::AccountState;
use proffer_engine::catalog::{self, Catalog, CommandV1, Touched};
use proffer_engine::codec;
use proffer_engine::keys::{Revision, ShardId, TenantId};
use proffer_engine::level::Level;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Leader, Position, SoftTerms};
use proffer_engine::time::{Calendar, Timestamp};
use tokio::time::Instant;

use crate::calls::Changed;
use crate::error::Error;
use crate::group::Group;
use crate::lease::Tenure;
use crate::limits::{
    ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, ENTRY_OVERHEAD_BYTES, ESCROW_MESSAGES_MAX, LEDGER_ROUND_MS, OWN_RETRY_MS,
    PROPOSE_TRIES, RETRY_AFTER_START_MS,
};
use crate::meta::ask::{LedgerRow, MetaAsk};
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::compile::{Compile, Compiled};
use crate::meta::door::{Admitted, MetaDoor};
use crate::meta::job::{Acknowledgement, Duties, Job, Part, Space, is_exclusion, told_of};
use crate::meta::keeper::{Errand, Keeper, Whereabouts};
use crate::meta::leasing::{Leasing, Sight};
use crate::meta::openings::{Openings, to_open};
use crate::meta::roster::Roster;
use crate::meta::state::{MetaState, touched_offers};
use crate::ports::clock::Clock;
use crate::ports::propose::{Proposed, Reason};
use crate::shard::ask::{Ask, Lane, Notice};
use crate::shard::door::ShardDoor;
use crate::view::Views;

/// A command as it travels.
pub(crate) type Command = Arc<MetaCommand>;

/// What the leader needs of its node.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) door: Arc<MetaDoor>,
    pub(crate) shards: Vec<Arc<ShardDoor>>,
    pub(crate) views: Arc<Views>,
    /// The node's own: cluster time, while it leads.
    pub(crate) clock: Arc<dyn Clock>,
    /// The node's lease: where the catalogue is led, cluster time is the own clock's.
    pub(crate) tenure: Arc<Tenure>,
    /// What the cluster is created with, if it is not yet.
    pub(crate) founding: Founding,
    /// Who this node is, and whom it hears.
    pub(crate) whereabouts: Whereabouts,
    /// The highest feature level that this node can.
    pub(crate) can: Level,
}

/// The meta group's state machine and its leader.
pub(crate) struct MetaLeader {
    around: Surroundings,
    state: MetaState,
    applied: Position,
    /// The committed catalogue with the entry under way tried on it: what validates.
    tried: Catalog,
    /// The index that the entry under way was expected to get; 0: what was tried does not hold.
    tried_for: u64,
    leader: Option<Leader>,
    in_flight: Vec<(Command, Part)>,
    jobs: BTreeMap<u64, Job>,
    /// Jobs of nothing but emergency exclusions with commands still to be proposed: before everything else.
    urgent: VecDeque<u64>,
    /// The other jobs with commands still to be proposed. One that fills an entry goes to the end.
    open: VecDeque<u64>,
    /// Those that change what another job changes in the entry that is being formed: the next one is theirs. Empty between entries.
    behind: Vec<u64>,
    next_job: u64,
    openings: Openings,
    keeper: Keeper,
    /// What has changed since the last compile was begun.
    stale: BTreeMap<TenantId, Vec<Touched>>,
    /// The revision has risen, though no tenant's catalogue is another for it.
    is_behind: bool,
    compiling: bool,
    /// What was committed before this start is applied, as far as is known.
    caught_up: bool,
    leasing: Leasing,
    /// Accounts of which a shard may not have heard what it was last granted: told again every round until it reports.
    unheard: BTreeSet<AccountId>,
    last_round: Instant,
    /// The log took nothing: the cluster's own commands are not proposed again before.
    quiet_until: Instant,
}

impl MetaLeader {
    /// Takes over recovered state whose last entry is `applied`.
    pub(crate) fn new(around: Surroundings, state: MetaState, applied: Position) -> Self {
        let stale = state.numbers().map(|(tenant, _)| (tenant.clone(), vec![Touched::Everything])).collect();
        let unheard = state.ledger().accounts().map(|(id, _)| id).collect();
        let is_behind = state.revision() > Revision(0);
        bar_lost_generations(state.roster(), &around.shards);
        // The actor before this one may have died while it led.
        around.tenure.clock().lead(false);
        MetaLeader {
            keeper: Keeper::new(around.whereabouts.clone(), state.roster(), applied.index),
            around,
            tried: state.catalog().clone(),
            tried_for: 0,
            openings: Openings::of(&state),
            state,
            applied,
            leader: None,
            in_flight: Vec::new(),
            jobs: BTreeMap::new(),
            urgent: VecDeque::new(),
            open: VecDeque::new(),
            behind: Vec::new(),
            next_job: 0,
            stale,
            is_behind,
            compiling: false,
            caught_up: false,
            leasing: Leasing::new(),
            unheard,
            last_round: Instant::now(),
            quiet_until: Instant::now(),
        }
    }

    /// Applies a committed entry.
    pub(crate) fn apply(&mut self, position: Position, commands: &[Command]) -> Vec<MetaOutcome> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            let outcome = self.state.apply(position, command);
            self.note(command, &outcome);
            self.unheard.extend(told_of(&outcome).iter().map(|(_, message)| message.account));
            outcomes.push(outcome);
        }
        // Before it counts as applied anywhere: a lease that names this entry is held by nobody who decides for a lost generation.
        bar_lost_generations(self.state.roster(), &self.around.shards);
        self.keeper.publish(self.state.roster(), position.index);
        self.applied = position;
        let ours = self.in_flight.len() == commands.len()
            && self.in_flight.iter().zip(commands).all(|((tried, _), command)| Arc::ptr_eq(tried, command));
        if !ours {
            // Somebody else's entry: what was tried, was tried on another catalogue.
            self.tried_for = 0;
        }
        if self.leader.is_some() && self.tried_for != position.index {
            self.tried = self.state.catalog().clone();
        }
        outcomes
    }

    /// The committed state. O(size of the tables): bodies are shared.
    pub(crate) fn share(&self) -> MetaState {
        self.state.clone()
    }

    /// Takes a state from elsewhere in place of its own, which lacks too much to be fed one entry after the other.
    pub(crate) fn install(&mut self, state: MetaState, applied: Position) {
        self.stale = state.numbers().map(|(tenant, _)| (tenant.clone(), vec![Touched::Everything])).collect();
        self.unheard = state.ledger().accounts().map(|(id, _)| id).collect();
        self.openings = Openings::of(&state);
        self.is_behind = state.revision() > Revision(0);
        bar_lost_generations(state.roster(), &self.around.shards);
        self.keeper.publish(state.roster(), applied.index);
        (self.tried, self.tried_for) = (state.catalog().clone(), 0);
        (self.state, self.applied) = (state, applied);
    }

    /// This replica leads, or does not.
    pub(crate) fn follow(&mut self, leader: Option<Leader>) {
        let before = std::mem::replace(&mut self.leader, leader);
        if before == leader {
            return;
        }
        self.around.tenure.clock().lead(leader.is_some());
        match leader {
            Some(_) => {
                // An entry of its own term is applied. Between two terms, another may have led.
                self.leasing.lead(self.around.clock.boottime());
                if before.is_none() {
                    // Everything that was committed is applied: that is what changes are tried on.
                    (self.tried, self.tried_for) = (self.state.catalog().clone(), 0);
                    self.keeper.lead();
                }
            }
            None => {
                self.leasing.stop();
                self.hand_back();
            }
        }
    }

    /// Hears what nodes say for the sake of their leases, and tells those who wait for that. `true`: the leader is to be confirmed, and
    /// [`MetaLeader::confirmed`] to be told.
    pub(crate) fn see_to_leases(&mut self) -> bool {
        while let Some(ask) = self.around.door.next_lease_ask() {
            self.leasing.hear(ask, self.state.roster());
        }
        self.leasing.settle(&Sight { state: &self.state, clock: &*self.around.clock });
        self.leasing.begin_round()
    }

    /// Whether this was the leader still when it had been asked to be confirmed.
    pub(crate) fn confirmed(&mut self, is_leader: bool) {
        let sight = Sight { state: &self.state, clock: &*self.around.clock };
        self.leasing.confirmed(is_leader, &sight);
        let off = self.leasing.clock_off(&sight);
        self.around.tenure.clock().is_off_by(off);
    }

    /// Answers what waits to be proposed: another leads, and what was asked of this one must not be done once it leads again. What was
    /// begun and is acknowledged by the log is answered as if nothing had happened.
    fn hand_back(&mut self) {
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

    /// The door is closed: whoever came through it before is answered.
    pub(crate) fn turn_away(&self) {
        while let Some(Admitted { ask, room: _room }) = self.around.door.next_call() {
            ask.fail(Error::NotLed { reason: "the catalogue".to_owned() });
        }
    }

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
        Some((self.in_flight.iter().map(|(command, _)| Arc::clone(command)).collect(), leader))
    }

    /// Whether it wants another turn though nothing is under way: a turn tries no more than an entry's worth.
    pub(crate) fn wants_a_turn(&self) -> bool {
        self.leader.is_some() && self.in_flight.is_empty() && self.has_unproposed()
    }

    fn form_entry(&mut self, leader: Leader) {
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

    /// Whether something waits to be proposed.
    pub(crate) fn has_work(&self) -> bool {
        self.has_unproposed() || !self.around.door.is_empty()
    }

    fn has_unproposed(&self) -> bool {
        !self.urgent.is_empty() || !self.open.is_empty() || self.keeper.has_asks()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.jobs.is_empty() && !self.has_work()
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

    fn hush(&mut self) {
        self.quiet_until = Instant::now() + Duration::from_millis(OWN_RETRY_MS);
    }

    /// What to compile next, if nothing is being compiled and something is stale.
    pub(crate) fn next_compile(&mut self) -> Option<Compile> {
        // While old entries are fed, every one would make a catalogue that nobody asks.
        self.caught_up |= self.around.views.wants(self.state.revision());
        if self.compiling || (self.stale.is_empty() && !self.is_behind) || !self.caught_up {
            return None;
        }
        (self.compiling, self.is_behind) = (true, false);
        let before = self.around.views.load();
        let stale = std::mem::take(&mut self.stale);
        Some(Compile::new(&self.state, &before, stale))
    }

    /// A compile has ended: what it made is in force. Calls that waited for it are handed out.
    pub(crate) fn compiled(&mut self, compiled: Compiled) {
        self.compiling = false;
        self.around.views.swap(compiled.into_in_force(&self.around.views.load()));
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

    /// The fence that shards have to hear of: the newest, once it is in force here, whoever has it put there.
    pub(crate) fn fence_to_tell(&self) -> Option<Revision> {
        let fence = self.state.fence();
        (self.leader.is_some() && fence <= self.around.views.revision()).then_some(fence)
    }

    /// The feature level that this replica has applied: it must not go on at one that its release cannot.
    pub(crate) fn level(&self) -> Level {
        self.state.roster().level()
    }

    /// When time alone makes something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let lapse = self.leasing.next_timer(&Sight { state: &self.state, clock: &*self.around.clock });
        lapse.into_iter().chain(self.next_due()).min()
    }

    fn next_due(&self) -> Option<Instant> {
        if self.leader.is_none() || !self.in_flight.is_empty() {
            // Nothing can be begun: the answer, or the next leader, is a reason to look again.
            return None;
        }
        let founding = self.state.founding().is_none().then_some(self.quiet_until);
        let has_accounts = self.state.ledger().accounts().next().is_some();
        let due = self.openings.next().map(|due| {
            let ms = due.since_ms(self.now()).clamp(10, 60_000);
            self.quiet_until.max(Instant::now() + Duration::from_millis(ms.unsigned_abs()))
        });
        let round = has_accounts.then(|| self.last_round + Duration::from_millis(LEDGER_ROUND_MS));
        let plan = self.keeper.next_round(self.state.roster()).map(|round| self.quiet_until.max(round));
        due.into_iter().chain(round).chain(founding).chain(plan).min()
    }

    fn now(&self) -> Timestamp {
        self.around.clock.wall().max(self.state.log_time())
    }

    /// What a committed command makes stale here.
    fn note(&mut self, command: &MetaCommand, outcome: &MetaOutcome) {
        let MetaCommand::V1(MetaCommandV1 { op, .. }) = command;
        match (op, outcome) {
            (MetaOp::Change(catalog::Command::V1(CommandV1 { tenant, .. })), MetaOutcome::Changed(change)) => {
                self.stale.entry(tenant.clone()).or_default().extend(&change.changed.effect);
                let Some(number) = self.state.number(tenant) else { return };
                let Some(catalog) = self.state.catalog().tenant(tenant) else { return };
                for offer in touched_offers(catalog, &change.changed.effect) {
                    self.openings.follow(tenant, number, catalog, offer, self.state.ledger());
                }
            }
            (MetaOp::Open(_), _) => {
                for (tenant, offer) in self.openings.due(self.state.log_time()) {
                    let Some(number) = self.state.number(&tenant) else { continue };
                    let Some(catalog) = self.state.catalog().tenant(&tenant) else { continue };
                    self.openings.follow(&tenant, number, catalog, offer, self.state.ledger());
                }
            }
            (MetaOp::Recover(_), MetaOutcome::Told(_)) => self.is_behind = true,
            (
                MetaOp::Found(_)
                | MetaOp::Change(_)
                | MetaOp::Recover(_)
                | MetaOp::SettleOf { .. }
                | MetaOp::Settle { .. }
                | MetaOp::EndPeriods
                | MetaOp::Enroll(_)
                | MetaOp::Retarget { .. }
                | MetaOp::Configured(_)
                | MetaOp::SetStanding { .. }
                | MetaOp::Forget { .. }
                | MetaOp::Replace { .. }
                | MetaOp::Able { .. }
                | MetaOp::Level(_),
                _,
            ) => {}
        }
    }

    /// The cluster's own: reports of shards, periods that begin and end.
    fn form_own(&mut self, now: Timestamp, leader: Leader, space: &mut Space) {
        let is_quiet = Instant::now() < self.quiet_until;
        while space.is_left()
            && let Some((shard, generation, reports)) = self.around.door.next_reports()
        {
            // While the log takes nothing, reports are let go: the shards report again.
            if !is_quiet {
                self.form(MetaOp::settle(generation, shard, reports), Part::Settle(shard), now, leader, space);
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
    fn form_roster(&mut self, now: Timestamp, leader: Leader, space: &mut Space) {
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

    fn form(&mut self, op: MetaOp, part: Part, now: Timestamp, leader: Leader, space: &mut Space) {
        let command = Arc::new(MetaCommand::V1(MetaCommandV1 { now, leader, op }));
        space.take(codec::encode(&*command).len() + ENTRY_OVERHEAD_BYTES);
        self.in_flight.push((command, part));
    }

    /// Tries a job's commands, and forms what is accepted, as far as the entry has space. `true`: there are more.
    fn form_job(&mut self, id: u64, now: Timestamp, leader: Leader, space: &mut Space) -> bool {
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
    fn accounts_of(
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
    fn try_again_from_committed(&mut self, revision: Revision) {
        self.tried = self.state.catalog().clone();
        for (command, _) in &self.in_flight {
            let MetaCommand::V1(MetaCommandV1 { op, .. }) = &**command;
            if let MetaOp::Change(command) = op {
                // It was accepted before, and is again.
                let _ = self.tried.apply(revision, command);
            }
        }
    }

    fn begin(&mut self, admitted: Admitted) {
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

    fn rows(&self, tenant: &TenantId, offer: proffer_engine::keys::OfferKey) -> Vec<LedgerRow> {
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
            })
            .collect()
    }

    fn settle(&mut self, part: Part, outcome: MetaOutcome, revision: Revision) {
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
            (Part::Settle(shard), MetaOutcome::Told(told)) => self.tell(told, Some(shard)),
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
                Part::Open { .. } | Part::Settle(_) | Part::Own | Part::OwnStart,
                MetaOutcome::Changed(_)
                | MetaOutcome::Refused(_)
                | MetaOutcome::WrongLeader
                | MetaOutcome::Enrolled { .. }
                | MetaOutcome::Barred(_),
            ) => {}
        }
    }

    /// Sends totals to shards. What is lost on the way is asked for again by their rounds.
    fn tell(&self, told: Vec<(ShardId, EscrowMessage)>, booked: Option<ShardId>) {
        let mut by_shard: BTreeMap<ShardId, Vec<EscrowMessage>> = BTreeMap::new();
        for (shard, message) in told {
            by_shard.entry(shard).or_default().push(message);
        }
        for (shard, messages) in by_shard {
            let Some(door) = self.around.shards.get(usize::from(shard.0)) else { continue };
            for messages in messages.chunks(ESCROW_MESSAGES_MAX) {
                let generation = self.state.roster().generation(Group::Shard(shard));
                let notice = Notice { generation, messages: messages.to_vec(), booked: booked == Some(shard) };
                // The cluster's own is never refused.
                let _ = door.send(Lane::Own, Ask::Notice(notice));
            }
        }
    }

    /// Tells again what shards have not confirmed: messages are lost, and so are answers of the log that would have sent them.
    fn tell_again(&mut self) {
        let mut again = Vec::new();
        let mut unheard = std::mem::take(&mut self.unheard);
        unheard.retain(|id| {
            let before = again.len();
            let Some(account) = self.state.ledger().account(*id) else { return false };
            for shard in (0..self.around.shards.len()).map(|shard| ShardId(shard as u16)) {
                let Some(message) = self.state.message(*id, shard) else { continue };
                let report = account.reports().find(|(of, _)| *of == shard).map(|(_, report)| report);
                if report.is_none_or(|report| !has_heard(report, &message)) {
                    again.push((shard, message));
                }
            }
            again.len() > before && account.state() != AccountState::Closed
        });
        self.unheard.append(&mut unheard);
        self.tell(again, None);
    }

    /// Begins a command again that the log did not take.
    fn retry(&mut self, command: &MetaCommand, part: Part) {
        let MetaCommand::V1(MetaCommandV1 { op, .. }) = command;
        let (command, id, index) = match (op, part) {
            (MetaOp::Change(command), Part::Change { job, index }) => (command, job, index),
            (_, Part::Roster(errand)) => {
                errand.fail(&Error::NotLed { reason: "the catalogue".to_owned() });
                return;
            }
            // Shards report again, periods fall due again, and so does this node's own start.
            (_, Part::Change { .. } | Part::Open { .. } | Part::Settle(_) | Part::Own | Part::OwnStart) => return,
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

    fn fail_all(&mut self, parts: Vec<(Command, Part)>, error: &Error) {
        for (_, part) in parts {
            match part {
                Part::Change { job, index } => {
                    if let Some(job) = self.jobs.get_mut(&job) {
                        job.answers[index] = Some(Err(error.clone()));
                    }
                }
                Part::Roster(errand) => errand.fail(error),
                Part::Open { .. } | Part::Settle(_) | Part::Own | Part::OwnStart => {}
            }
        }
    }
}

/// Shuts the doors of shards that were begun anew to what is of a generation before. O(shards that were).
fn bar_lost_generations(roster: &Roster, doors: &[Arc<ShardDoor>]) {
    for (group, recovery) in roster.recoveries() {
        let Group::Shard(shard) = group else { continue };
        if let Some(door) = doors.get(usize::from(shard.0)) {
            door.begin_generation(recovery.founder, recovery.term_floor());
        }
    }
}

/// Whether a shard that reports this knows what the message says, as far as it has to.
fn has_heard(report: &EscrowReport, message: &EscrowMessage) -> bool {
    // Once a soft cap is used up, everybody has to know; before, who counts is told in answer to that.
    let counts = |soft: &SoftTerms| soft.taken_elsewhere.saturating_sub(soft.returned_elsewhere) < soft.limit;
    let knows_others = match (report.soft, message.soft) {
        (Some(heard), Some(soft)) => counts(&soft) || heard >= soft.taken_elsewhere,
        (None, _) | (_, None) => true,
    };
    report.granted_seen == message.granted && report.version == message.version && knows_others
}
