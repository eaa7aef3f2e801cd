//! The leader's turn (architecture.md §3): decide on committed state with everything pending over it, propose what is taken,
//! answer what has committed.
//!
//! Knows neither actors nor logs: it is handed asks, entries and what became of proposals, and says what to propose next. It
//! awaits nothing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proffer_engine::codec;
use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::level::Level;
use proffer_engine::profile::apply::{Outcome, apply};
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::command::{Leader, Position, ShardCommand, ShardCommandV1, ShardOp};
use proffer_engine::profile::pending::{Pending, Sequence};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::time::{Duration, Instant};

use crate::config::Reads;
use crate::error::Error;
use crate::limits::{
    BEHIND_MS, ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, ENTRY_OVERHEAD_BYTES, FORMING_BYTES_MAX, LEADERLESS_MS,
    OWN_RETRY_MS, PROPOSE_TRIES, RETRY_AFTER_START_MS, TICK_DUE_MAX, TURN_ASKS_MAX, WAITERS_SWEEP_MS,
};
use crate::meta::door::MetaDoor;
use crate::planted::{Bug, is};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::propose::{Proposed, Reason};
use crate::shard::ask::{Ask, DecideAsk, ReadAsk, WriteAsk};
use crate::shard::deciding::Frames;
use crate::shard::door::ShardDoor;
use crate::shard::tally::Tally;
use crate::shard::trial::Raw;
use crate::shard::work::{Answer, Deed, Origin, Waiter, Work};
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
    pub(crate) meta: Arc<MetaDoor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// What reads rest on.
    pub(crate) reads: Reads,
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
}

impl ShardLeader {
    /// Takes over recovered state whose last entry is `applied`.
    pub(crate) fn new(around: Surroundings, state: ShardState, applied: Position) -> Self {
        let taker = Taker::new(around.shard);
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
        let unfenced: Vec<Command>;
        let commands =
            if is(Bug::FenceSkipped) { (unfenced = unfence(commands, position), &*unfenced).1 } else { commands };
        for command in commands {
            self.taker.note(&self.state, command);
            outcomes.push(apply(&mut self.state, position, command));
        }
        (self.applied, self.due) = (position, self.state.next_due());
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
        self.start_over();
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

    /// From when on those whose entry is under way are kept waiting no longer: cut off from the others, this replica may not learn for as
    /// long as it likes what became of it.
    fn doubted_at(&self) -> Option<Instant> {
        let is_awaited = self.in_flight.iter().any(|deed| deed.origin.is_awaited());
        let lost_at = self.lost_at.filter(|_| is_awaited);
        lost_at.map(|lost_at| lost_at + Duration::from_millis(LEADERLESS_MS))
    }

    /// Tells everybody whose entry is under way that it is not known what becomes of it: who may repeat it does so where another leads.
    fn doubt_in_flight(&mut self) {
        let awaited = self.in_flight.iter_mut().filter(|deed| deed.origin.is_awaited());
        let origins: Vec<Origin> = awaited.map(|deed| std::mem::replace(&mut deed.origin, Origin::Doubted)).collect();
        for origin in origins {
            self.fail(origin, &Error::Unknown);
        }
    }

    /// Tells everybody who waits, but for those whose entry is under way, that this replica does not lead.
    fn hand_back_unless_led(&mut self) {
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
    fn settle_in_flight(&mut self) {
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
    fn not_applied(&mut self, deeds: impl IntoIterator<Item = Deed>, reason: &str) {
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

    /// When time alone makes something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        if self.leader.is_none() {
            return self.doubted_at();
        }
        let parked = self.parked.iter().map(|(until, _)| *until).min();
        let due = self.due.filter(|_| !self.tick_pending).map(|due| {
            let ms = due.since_ms(self.now()).clamp(0, 60_000);
            self.quiet_until.max(Instant::now() + Duration::from_millis(ms.unsigned_abs()))
        });
        let swept = (!self.waiting.is_empty()).then(|| Instant::now() + Duration::from_millis(WAITERS_SWEEP_MS));
        let asked = self.taker.next_timer();
        let behind = (!self.behind.is_empty()).then(|| Instant::now() + Duration::from_millis(BEHIND_MS));
        parked.into_iter().chain(due).chain(asked).chain(behind).chain(swept).min()
    }

    /// Time has passed.
    pub(crate) fn wake(&mut self) {
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

    pub(super) fn write(&mut self, op: ShardOp, origin: Origin, leader: Leader) {
        let command = self.command(op, self.around.views.load().revision, leader);
        match self.foresee(&command, leader) {
            Ok((_, Outcome::Refused(refusal))) => self.reconsider(origin, &command, refusal),
            Ok((sequence, outcome)) => self.form(sequence, command, outcome, origin),
            Err(error) => self.fail(origin, &error),
        }
    }

    pub(super) fn command(&self, op: ShardOp, revision: Revision, leader: Leader) -> Command {
        Arc::new(ShardCommand::V1(ShardCommandV1 { now: self.now(), leader, revision, op }))
    }

    /// Runs the command on what is pending, as `apply` will. One that panics must never enter the log.
    pub(super) fn foresee(&mut self, command: &Command, leader: Leader) -> Result<(Sequence, Outcome), Error> {
        let position = Position { leader, index: self.applied.index };
        let ran = catch_unwind(AssertUnwindSafe(|| self.pending.apply(&self.state, position, command)));
        ran.map_err(|_| {
            tracing::error!(shard = self.around.shard.0, command = ?command, "applying a command panics; it is refused");
            // The overlay may be half written.
            self.start_over();
            Error::Poisonous
        })
    }

    pub(super) fn form(&mut self, sequence: Sequence, command: Command, expected: Outcome, origin: Origin) {
        let bytes = codec::encode(&*command).len() + ENTRY_OVERHEAD_BYTES;
        self.forming_bytes += bytes;
        self.forming.push_back(Deed { sequence, command, bytes, expected, origin, joined: false });
    }

    /// What is formed next goes into the same entry as what was formed last.
    pub(super) fn join_last(&mut self) {
        if let Some(last) = self.forming.back_mut() {
            last.joined = true;
        }
    }

    /// Answers now, or when what was read has committed.
    pub(super) fn answer_decision(&mut self, until: Option<Sequence>, ask: Box<DecideAsk>, raw: Box<Raw>) {
        match until.filter(|_| !is(Bug::AnsweredFromOverlay)) {
            Some(until) => self.waiting.push_back(Waiter { until, answer: Answer::Decide(ask, raw) }),
            None => ask.answer(raw),
        }
    }

    /// Refuses now, or when what was read has committed.
    pub(super) fn refuse_when(&mut self, until: Option<Sequence>, work: Work, error: Error) {
        match until {
            Some(until) => self.waiting.push_back(Waiter { until, answer: Answer::Refused(work, error) }),
            None => self.refuse(work, error),
        }
    }

    pub(super) fn answer_read_later(&mut self, until: Sequence, read: ReadAsk) {
        self.waiting.push_back(Waiter { until, answer: Answer::Read(read) });
    }

    /// A decision waits for units until `until`.
    pub(super) fn park(&mut self, until: Instant, ask: DecideAsk) {
        self.parked.push((until, ask));
    }

    fn unpark(&mut self, which: impl Fn(Instant) -> bool) {
        let ready: Vec<_> = self.parked.extract_if(.., |(until, _)| which(*until)).collect();
        for (_, mut ask) in ready {
            ask.waited = true;
            self.redo.push_back(Work::Ask(Ask::Decide(Box::new(ask))));
        }
    }

    /// Everything up to `through` has committed.
    fn release(&mut self, through: Sequence) {
        while let Some(waiter) = self.waiting.pop_front_if(|waiter| waiter.until <= through) {
            match waiter.answer {
                Answer::Decide(ask, raw) => ask.answer(raw),
                Answer::Read(read) => self.read(read),
                Answer::Refused(work, error) => self.refuse(work, error),
            }
        }
    }

    /// Drops everything pending. What is in the log's hands stays there; what was only formed, and answers that read it, are
    /// begun again.
    fn start_over(&mut self) {
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
    fn retry(&mut self, deeds: Vec<Deed>) {
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
    fn settle(&mut self, origin: Origin, outcome: Outcome) {
        match (origin, outcome) {
            (Origin::Decide(ask, raw), outcome) => self.settle_decision(ask, raw, outcome),
            (Origin::Respond(ask), outcome) => self.settle_outcome(ask, outcome),
            (Origin::Write(tally), Outcome::Refused(refusal)) => tally.refused(super::deciding::refused(&refusal)),
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

    /// Answers whoever waits for a deed that was not done.
    pub(super) fn fail(&mut self, origin: Origin, error: &Error) {
        match origin {
            Origin::Decide(ask, _) => ask.reply.send(Err(error.clone())),
            Origin::Respond(ask) => ask.reply.send(Err(error.clone())),
            Origin::Write(tally) => tally.refused(error.clone()),
            Origin::Own => self.own_failed(),
            Origin::Doubted => {}
        }
    }

    /// Answers whoever waits for what will not be done.
    fn refuse(&mut self, work: Work, error: Error) {
        match work {
            Work::Ask(ask) => ask.fail(error),
            Work::Op(_, tally) => tally.refused(error),
            Work::Own(_) => self.own_failed(),
        }
    }

    /// What the cluster itself wanted was not done; it is wanted again, but not at once: whatever stands in the way (a full
    /// disk) would be met again, for ever.
    fn own_failed(&mut self) {
        self.tick_pending = false;
        self.hush();
    }

    fn hush(&mut self) {
        self.quiet_until = Instant::now() + Duration::from_millis(OWN_RETRY_MS);
    }

    /// `apply` refused, foreseen or in the log.
    pub(super) fn reconsider(
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
                let error = super::deciding::refused(&refusal);
                let until = (!self.pending.is_empty()).then(|| self.pending.last());
                if let Some(work) = origin.into_work(command) {
                    self.refuse_when(until, work, error);
                }
            }
        }
    }
}

/// The commands as if they had been decided under this leader and the newest catalogue.
fn unfence(commands: &[Command], position: Position) -> Vec<Command> {
    let unfence = |command: &Command| {
        let ShardCommand::V1(command) = &**command;
        let (leader, revision) = (position.leader, Revision(u64::MAX));
        Arc::new(ShardCommand::V1(ShardCommandV1 { leader, revision, ..command.clone() }))
    };
    commands.iter().map(unfence).collect()
}
