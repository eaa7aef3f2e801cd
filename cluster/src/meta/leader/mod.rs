//! The meta leader's turn: changes are tried on a copy of the catalogue, what is accepted is proposed, and a change is
//! acknowledged when the snapshot that holds it decides on this node and the shards know what they must.
//!
//! Knows neither actors nor logs, as the shard's.

mod entry;
mod jobs;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::catalog::{self, Catalog, CommandV1, Touched};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::level::Level;
use proffer_engine::profile::command::{AccountId, Leader, Position};
use proffer_engine::time::Timestamp;
use tokio::time::Instant;

use crate::error::Error;
use crate::group::Group;
use crate::lease::{Clocks, Tenure};
use crate::limits::LEDGER_ROUND_MS;
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::compile::{Compile, Compiled};
use crate::meta::door::{Admitted, MetaDoor};
use crate::meta::job::{Job, Part, told_of};
use crate::meta::keeper::{Keeper, Whereabouts};
use crate::meta::leasing::{Leasing, Sight};
use crate::meta::openings::Openings;
use crate::meta::roster::Roster;
use crate::meta::state::{MetaState, touched_offers};
use crate::ports::clock::Clock;
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
    /// The node's own.
    pub(crate) clock: Arc<dyn Clock>,
    /// The node's lease, and with it cluster time.
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
    /// Accounts of which a shard may not have heard what it was last granted: told again every round until it reports. Empty where another leads.
    unheard: BTreeSet<AccountId>,
    last_round: Instant,
    /// The log took nothing: the cluster's own commands are not proposed again before.
    quiet_until: Instant,
}

impl MetaLeader {
    /// Takes over recovered state whose last entry is `applied`.
    pub(crate) fn new(around: Surroundings, state: MetaState, applied: Position) -> Self {
        let stale = state.numbers().map(|(tenant, _)| (tenant.clone(), vec![Touched::Everything])).collect();
        let is_behind = state.revision() > Revision(0);
        bar_lost_generations(state.roster(), &around.shards);
        // The actor before this one may have died while it led.
        around.tenure.clock().judge_own(Clocks::TooFewHeard);
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
            unheard: BTreeSet::new(),
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
            if self.leader.is_some() {
                self.unheard.extend(told_of(&outcome).iter().map(|(_, message)| message.account));
            }
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
        self.around.tenure.clock().judge_own(Clocks::TooFewHeard);
        match leader {
            Some(_) => {
                // An entry of its own term is applied. Between two terms, another may have led.
                self.leasing.lead(self.around.clock.boottime());
                if before.is_none() {
                    // Everything that was committed is applied: that is what changes are tried on.
                    (self.tried, self.tried_for) = (self.state.catalog().clone(), 0);
                    self.unheard = self.state.ledger().accounts().map(|(id, _)| id).collect();
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
        let known = self.around.tenure.clock().known();
        let sight = Sight { state: &self.state, clock: &*self.around.clock };
        if let Some(clocks) = self.leasing.confirmed(is_leader, &sight, known) {
            self.around.tenure.clock().judge_own(clocks);
        }
    }

    /// The door is closed: whoever came through it before is answered.
    pub(crate) fn turn_away(&self) {
        while let Some(Admitted { ask, room: _room }) = self.around.door.next_call() {
            ask.fail(Error::NotLed { reason: "the catalogue".to_owned() });
        }
    }

    /// Whether something waits to be proposed.
    pub(crate) fn has_work(&self) -> bool {
        self.has_unproposed() || !self.around.door.is_empty()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.jobs.is_empty() && !self.has_work()
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

    /// Cluster time, as log time has it.
    fn now(&self) -> Timestamp {
        // Whoever founds is alone.
        let is_founded = self.state.founding().is_some();
        let wall = if is_founded { self.around.tenure.clock().wall() } else { self.around.clock.wall() };
        wall.max(self.state.log_time())
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
