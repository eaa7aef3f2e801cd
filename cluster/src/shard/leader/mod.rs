//! The leader's turn (architecture.md §3): decide on committed state with everything pending over it, propose what is taken,
//! answer what has committed.
//!
//! Knows neither actors nor logs: it is handed asks, entries and what became of proposals, and says what to propose next. It
//! awaits nothing.

mod entry;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;

use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::level::Level;
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::{Leader, Position, ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::profile::pending::Pending;
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::time::{Duration, Instant};

use crate::config::Reads;
use crate::error::Error;
use crate::learning::{Learning, Posting};
use crate::limits::{BEHIND_MS, FORMING_BYTES_MAX, TICK_DUE_MAX, TURN_ASKS_MAX, WAITERS_SWEEP_MS};
use crate::meta::door::MetaDoor;
use crate::planted::{Bug, is};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::shard::ask::{Ask, DecideAsk, WriteAsk};
use crate::shard::deciding::Frames;
use crate::shard::door::ShardDoor;
use crate::shard::tally::Tally;
use crate::shard::work::{Deed, Origin, Waiter, Work};
use crate::timing::Timing;
use crate::transfer::taker::Taker;
use crate::view::Views;

/// A shard's command as it travels: shared between the leader, its log and its machine.
pub(crate) type Command = Arc<ShardCommand>;

/// What a leader needs of its node.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) shard: ShardId,
    pub(crate) door: Arc<ShardDoor>,
    pub(crate) views: Arc<Views>,
    pub(crate) learning: Arc<Learning>,
    pub(crate) meta: Arc<MetaDoor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// What reads rest on.
    pub(crate) reads: Reads,
    /// How long replicas wait for a leader.
    pub(crate) timing: Timing,
    /// The highest feature level that this node can.
    pub(crate) can: Level,
}

/// One shard's state machine and its leader.
pub(crate) struct ShardLeader {
    pub(super) around: Surroundings,
    pub(super) state: ShardState,
    applied: Position,
    /// When the state next has something to do for time alone.
    due: Option<Timestamp>,
    pub(super) pending: Pending,
    leader: Option<Leader>,
    /// When it ceased to lead, if it did.
    lost_at: Option<Instant>,
    /// Proposed and not answered, in order: at most one entry.
    in_flight: Vec<Deed>,
    /// The next entry.
    forming: VecDeque<Deed>,
    forming_bytes: usize,
    /// Answers that read what is not committed yet, in order.
    waiting: VecDeque<Waiter>,
    /// To be done before anything new is.
    redo: VecDeque<Work>,
    /// Decisions that wait for units, each until its instant.
    parked: Vec<(Instant, DecideAsk)>,
    /// Calls that wait for a newer catalogue.
    behind: Vec<(Revision, Work)>,
    pub(super) frames: Frames,
    pub(super) taker: Taker,
    tick_pending: bool,
    /// The log did not take what the cluster itself wanted: it is not asked for a tick again before.
    quiet_until: Instant,
    posting: Posting,
}

impl ShardLeader {
    /// Takes over recovered state whose last entry is `applied`.
    pub(crate) fn new(around: Surroundings, state: ShardState, applied: Position) -> Self {
        let taker = Taker::new(around.shard);
        let mut posting = Posting::default();
        posting.look(around.shard, &state, &around.learning);
        ShardLeader {
            around,
            due: state.next_due(),
            state,
            applied,
            pending: Pending::new(),
            leader: None,
            lost_at: None,
            in_flight: Vec::new(),
            forming: VecDeque::new(),
            forming_bytes: 0,
            waiting: VecDeque::new(),
            redo: VecDeque::new(),
            parked: Vec::new(),
            behind: Vec::new(),
            frames: Frames::default(),
            taker,
            tick_pending: false,
            quiet_until: Instant::now(),
            posting,
        }
    }

    /// The committed state, shared: O(chunks). And the entry it stands at.
    pub(crate) fn share(&self) -> (ShardState, Position) {
        (self.state.clone(), self.applied)
    }

    /// Applies a committed entry. The results go back to whoever feeds the log.
    pub(crate) fn apply(&mut self, position: Position, commands: &[Command]) -> Vec<Outcome> {
        let ours = self.in_flight.len() == commands.len()
            && self.in_flight.iter().zip(commands).all(|(deed, command)| Arc::ptr_eq(&deed.command, command));
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            self.taker.note(&self.state, command);
            let is_kept = !is(Bug::EscrowPerNode) || self.leader.is_some() || !is_escrow(command);
            outcomes.push(if is_kept { apply(&mut self.state, position, command) } else { Outcome::Done });
        }
        (self.applied, self.due) = (position, self.state.next_due());
        self.post_evidence();
        if !ours {
            // Somebody else's entry: what was foreseen on the state before it need not come true.
            self.start_over();
        }
        if self.leader.is_some() {
            self.taker.send(&self.state, &self.around.meta);
            self.redo.extend(self.taker.give_back_again(&self.state).map(Work::Own));
        }
        outcomes
    }

    /// Takes a state from elsewhere in place of its own, which lacks too much to be fed one entry after the other.
    pub(crate) fn install(&mut self, state: ShardState, applied: Position) {
        (self.due, self.state, self.applied) = (state.next_due(), state, applied);
        self.taker = Taker::new(self.around.shard);
        self.post_evidence();
        self.start_over();
    }

    fn post_evidence(&mut self) {
        self.posting.look(self.around.shard, &self.state, &self.around.learning);
    }

    /// Whether this replica leads.
    pub(crate) fn leads(&self) -> bool {
        self.leader.is_some()
    }

    /// This replica leads, or does not.
    pub(crate) fn follow(&mut self, leader: Option<Leader>) {
        if self.leader == leader {
            return;
        }
        self.leader = leader;
        self.lost_at = leader.is_none().then(Instant::now);
        self.tick_pending = false;
        self.start_over();
        match leader {
            Some(_) => self.taker.report_all(&self.state),
            // What it was asked as a leader is another's to answer now: nothing of it was done, or it is in the log.
            None => self.hand_back_unless_led(),
        }
    }

    /// Does some of what waits. `true`: there is more.
    pub(crate) fn work(&mut self) -> bool {
        let Some(leader) = self.leader else { return false };
        for _ in 0..TURN_ASKS_MAX {
            if self.forming_bytes >= FORMING_BYTES_MAX {
                // The log is slower than the callers: they wait in the door, where they are counted.
                return false;
            }
            let Some(work) = self.redo.pop_front().or_else(|| self.around.door.next().map(Work::Ask)) else { break };
            let begun = Instant::now();
            let deeds = match &work {
                Work::Ask(ask) => ask.deeds(),
                Work::Op(..) | Work::Own(_) => 1,
            };
            self.perform(work, leader);
            self.around.door.observe(deeds, begun.elapsed());
        }
        !self.redo.is_empty() || self.around.door.waiting() > 0
    }

    /// The feature level that this replica has applied: it must not go on at one that its release cannot.
    pub(crate) fn level(&self) -> Level {
        self.state.level()
    }

    /// Takes what waits at the door in, to be done when it is confirmed that this replica leads: what comes later is not covered by that.
    /// Whether there is anything.
    pub(crate) fn stage(&mut self) -> bool {
        if self.is_held_up() {
            return false;
        }
        while self.redo.len() < TURN_ASKS_MAX
            && let Some(ask) = self.around.door.next()
        {
            self.redo.push_back(Work::Ask(ask));
        }
        !self.redo.is_empty()
    }

    /// Does what was taken in.
    pub(crate) fn work_staged(&mut self) {
        for _ in 0..self.redo.len() {
            let (Some(leader), Some(work)) = (self.leader, self.redo.pop_front()) else { return };
            self.perform(work, leader);
        }
    }

    /// When time alone makes something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        if self.leader.is_none() {
            return self.doubted_at().into_iter().chain(self.posting.due()).min();
        }
        let parked = self.parked.iter().map(|(until, _)| *until).min();
        let due = self.due.filter(|_| !self.tick_pending).map(|due| {
            let ms = due.since_ms(self.now()).clamp(0, 60_000);
            self.quiet_until.max(Instant::now() + Duration::from_millis(ms.unsigned_abs()))
        });
        let swept = (!self.waiting.is_empty()).then(|| Instant::now() + Duration::from_millis(WAITERS_SWEEP_MS));
        let asked = self.taker.next_timer().into_iter().chain(self.posting.due());
        let behind = (!self.behind.is_empty()).then(|| Instant::now() + Duration::from_millis(BEHIND_MS));
        parked.into_iter().chain(due).chain(asked).chain(behind).chain(swept).min()
    }

    /// Time has passed.
    pub(crate) fn wake(&mut self) {
        if self.posting.due().is_some_and(|due| due <= Instant::now()) {
            self.post_evidence();
        }
        if self.leader.is_none() {
            if self.doubted_at().is_some_and(|at| at <= Instant::now()) {
                self.doubt_in_flight();
            }
            return;
        }
        let now = Instant::now();
        self.unpark(|until| until <= now);
        // Whoever has stopped waiting makes room.
        self.waiting.retain(|waiter| !waiter.answer.is_abandoned());
        self.behind.retain(|(_, work)| !work.is_abandoned());
        if !self.tick_pending && self.quiet_until <= now && self.due.is_some_and(|due| due <= self.now()) {
            self.tick_pending = true;
            // After a downtime much is due at once: the next part when this one is done.
            let part = self.state.due_in_part(TICK_DUE_MAX, self.now());
            self.redo.push_back(Work::Own(part.map_or(ShardOp::Tick, ShardOp::Lapse)));
        }
        if self.taker.round(&self.state, &self.around.meta, now) {
            self.redo.extend(self.taker.give_back_again(&self.state).map(Work::Own));
        }
        let newest = self.around.views.revision();
        let ready = |(need, _): &mut (Revision, Work)| *need <= newest;
        let caught_up: Vec<_> = self.behind.extract_if(.., ready).map(|(_, work)| work).collect();
        self.redo.extend(caught_up);
    }

    /// Whether nothing more can be begun until the log answers, or until somebody leads.
    pub(crate) fn is_held_up(&self) -> bool {
        self.leader.is_none() || self.forming_bytes >= FORMING_BYTES_MAX
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.forming.is_empty()
            && self.redo.is_empty()
            && self.waiting.is_empty()
            && self.around.door.waiting() == 0
    }

    /// How many finished answers wait for the log.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Cluster time, as log time has it.
    pub(super) fn now(&self) -> Timestamp {
        self.around.clock.wall().max(self.pending.view(&self.state).log_time())
    }

    fn perform(&mut self, work: Work, leader: Leader) {
        match work {
            Work::Ask(Ask::Decide(ask)) => self.decide(ask, leader),
            Work::Ask(Ask::Respond(ask)) => self.respond(ask, leader),
            Work::Ask(Ask::Write(WriteAsk { ops, deadline, reply })) => {
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    reply.send(Err(Error::Expired));
                    return;
                }
                let tallies = Tally::of_each(ops.len(), reply);
                for (op, tally) in ops.into_iter().zip(tallies) {
                    self.write(op, Origin::Write(tally), leader);
                }
            }
            Work::Ask(Ask::Read(read)) => self.read(read),
            Work::Ask(Ask::Notice(notice)) if notice.generation != self.state.generation() => {}
            Work::Ask(Ask::Notice(notice)) => {
                let told = self.taker.hear(&self.pending.view(&self.state), notice);
                if !told.is_empty() {
                    self.write(ShardOp::escrow(self.state.generation(), told), Origin::Own, leader);
                }
                if self.taker.is_settled() {
                    self.unpark(|_| true);
                }
            }
            Work::Op(op, tally) => self.write(op, Origin::Write(tally), leader),
            Work::Own(op) => self.write(op, Origin::Own, leader),
        }
    }
}

/// Whether a command is what the ledger said.
fn is_escrow(command: &Command) -> bool {
    let ShardCommand::V1(ShardCommandV1 { op, .. }) = &**command;
    matches!(op, ShardOp::Escrow(_) | ShardOp::EscrowOf { .. })
}
