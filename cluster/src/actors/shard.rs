//! The actor of a shard: one turn at a time, and a tracked task for each proposal.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::profile::apply::Outcome;
use proffer_engine::profile::command::{Leader, Position};
use proffer_engine::profile::shard::ShardState;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::actors::check_level;
use crate::actors::timer::Alarm;
use crate::config::Reads;
use crate::groups::{Groups, ProposeShard};
use crate::limits::{CONFIRM_MS_MAX, LEASE_RETRY_MS};
use crate::ports::propose::{Gone, InstallError, Machine, Pending, Pieces, Proposed, Replicated};
use crate::shard::leader::{Command, ShardLeader, Surroundings};

/// Messages of a shard's actor.
pub(crate) enum ShardMsg {
    /// Something waits at the door, or is to be gone on with.
    Work,
    /// Apply a committed entry.
    Apply { position: Position, commands: Vec<Command>, reply: oneshot::Sender<Vec<Outcome>> },
    /// The entry under way has been answered.
    Proposed(Proposed<Outcome>),
    /// This replica leads, or does not.
    Leads(Option<Leader>),
    /// The alarm rang.
    Ring,
    /// A quorum has confirmed that this replica leads under that leader, or not.
    Confirmed(Leader, bool),
    /// The committed state, shared.
    Share(oneshot::Sender<ShardState>),
    /// A state from elsewhere, in place of this one.
    Install { state: Box<ShardState>, position: Position, reply: oneshot::Sender<()> },
    /// Its log has ended: so must it.
    Abandon(String),
    /// Whether nothing is under way.
    IsIdle(oneshot::Sender<bool>),
}

/// The actor.
pub(crate) struct ShardActor;

/// What it is started with.
pub(crate) struct ShardStart {
    pub(crate) around: Surroundings,
    pub(crate) groups: Arc<dyn Groups>,
    pub(crate) state: ShardState,
    pub(crate) applied: Position,
}

/// What it owns.
pub(crate) struct ShardBody {
    leader: ShardLeader,
    around: Surroundings,
    propose: ProposeShard,
    proposals: JoinSet<()>,
    alarm: Alarm,
    /// A quorum is being asked whether this replica leads.
    confirming: bool,
    /// A `Work` is in the mailbox.
    summoned: bool,
}

/// The actor as its log sees it.
struct ShardMachine(ActorRef<ShardMsg>);

impl Machine<Command, Outcome> for ShardMachine {
    fn apply(&self, position: Position, commands: Vec<Command>) -> Pending<'_, Result<Vec<Outcome>, Gone>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.0.cast(ShardMsg::Apply { position, commands, reply }).map_err(|_| Gone)?;
            answer.await.map_err(|_| Gone)
        })
    }
}

impl Replicated<Command, Outcome> for ShardMachine {
    fn share(&self) -> Pending<'_, Result<Pieces, Gone>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.0.cast(ShardMsg::Share(reply)).map_err(|_| Gone)?;
            let state = answer.await.map_err(|_| Gone)?;
            let pieces: Pieces = Box::new(move || state.encode_chunks().collect());
            Ok(pieces)
        })
    }

    fn install(&self, position: Position, pieces: Vec<Vec<u8>>) -> Pending<'_, Result<(), InstallError>> {
        Box::pin(async move {
            let state = ShardState::decode_chunks(pieces);
            let state = Box::new(state.map_err(|error| InstallError::Unreadable(error.to_string()))?);
            let (reply, answer) = oneshot::channel();
            self.0.cast(ShardMsg::Install { state, position, reply }).map_err(|_| Gone)?;
            answer.await.map_err(|_| Gone)?;
            Ok(())
        })
    }

    fn abandon(&self, reason: &str) {
        let _ = self.0.cast(ShardMsg::Abandon(reason.to_owned()));
    }
}

impl Actor for ShardActor {
    type Msg = ShardMsg;
    type State = ShardBody;
    type Arguments = ShardStart;

    async fn pre_start(&self, myself: ActorRef<ShardMsg>, start: ShardStart) -> Result<ShardBody, ActorProcessingErr> {
        let ShardStart { around, groups, state, applied } = start;
        let machine = Arc::new(ShardMachine(myself.clone()));
        let propose = groups.shard(around.shard, machine);
        let mut proposals = JoinSet::new();
        let mut leads = propose.leader();
        let follower = myself.clone();
        proposals.spawn(async move {
            loop {
                let leader = *leads.borrow_and_update();
                if follower.cast(ShardMsg::Leads(leader)).is_err() || leads.changed().await.is_err() {
                    break;
                }
            }
        });
        let leader = ShardLeader::new(around.clone(), state, applied);
        check_level(leader.level(), around.can)?;
        Ok(ShardBody {
            leader,
            around,
            propose,
            proposals,
            alarm: Alarm::default(),
            confirming: false,
            summoned: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMsg>,
        message: ShardMsg,
        body: &mut ShardBody,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShardMsg::Work => body.summoned = false,
            ShardMsg::Apply { position, commands, reply } => {
                let outcomes = body.leader.apply(position, &commands);
                check_level(body.leader.level(), body.around.can)?;
                // Whoever proposed may have gone; the entry is applied all the same.
                let _ = reply.send(outcomes);
            }
            ShardMsg::Proposed(proposed) => {
                body.leader.proposed(proposed);
                // What the answer said of the leader may be older than what the port says by now.
                let leader = *body.propose.leader().borrow();
                body.follow(leader, &myself);
            }
            ShardMsg::Leads(leader) => body.follow(leader, &myself),
            ShardMsg::Ring => {
                body.alarm.rang();
                body.leader.wake();
            }
            ShardMsg::Confirmed(leader, is_leader) => {
                body.confirming = false;
                if is_leader && *body.propose.leader().borrow() == Some(leader) {
                    body.leader.work_staged();
                }
            }
            ShardMsg::Share(reply) => {
                let (state, _) = body.leader.share();
                let _ = reply.send(state);
                return Ok(());
            }
            ShardMsg::Install { state, position, reply } => {
                body.leader.install(*state, position);
                check_level(body.leader.level(), body.around.can)?;
                let _ = reply.send(());
            }
            ShardMsg::Abandon(reason) => return Err(reason.into()),
            ShardMsg::IsIdle(reply) => {
                let _ = reply.send(body.leader.is_idle());
                return Ok(());
            }
        }
        body.turn(&myself);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<ShardMsg>, body: &mut ShardBody) -> Result<(), ActorProcessingErr> {
        body.around.door.close();
        Ok(())
    }
}

impl ShardBody {
    /// This replica leads, or does not: calls are let in while it does.
    fn follow(&mut self, leader: Option<Leader>, myself: &ActorRef<ShardMsg>) {
        self.leader.follow(leader);
        match (leader, self.around.door.is_open()) {
            (Some(leader), false) => {
                // The door's waker sends the first `Work`.
                self.summoned = true;
                let woken = myself.clone();
                self.around.door.open(leader.replica, Arc::new(move || drop(woken.cast(ShardMsg::Work))));
            }
            (None, true) => self.around.door.close(),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// Has a quorum asked whether this replica leads, for the sake of what waits now.
    fn confirm(&mut self, myself: &ActorRef<ShardMsg>) {
        let Some(leader) = *self.propose.leader().borrow() else { return };
        if self.confirming || !self.leader.stage() {
            return;
        }
        self.confirming = true;
        while self.proposals.try_join_next().is_some() {}
        let (propose, myself) = (Arc::clone(&self.propose), myself.clone());
        self.proposals.spawn(async move {
            let patience = Duration::from_millis(CONFIRM_MS_MAX);
            let is_leader = tokio::time::timeout(patience, propose.confirm()).await.unwrap_or(false);
            if !is_leader {
                tokio::time::sleep(Duration::from_millis(LEASE_RETRY_MS)).await;
            }
            let _ = myself.cast(ShardMsg::Confirmed(leader, is_leader));
        });
    }

    fn turn(&mut self, myself: &ActorRef<ShardMsg>) {
        // Looked at before the state is: what is read then was the newest when it was looked at.
        let may_read = match self.around.reads {
            Reads::Lease => self.propose.may_read(),
            Reads::Quorum => {
                self.confirm(myself);
                false
            }
        };
        if may_read && self.leader.work() && !self.summoned {
            self.summoned = true;
            let _ = myself.cast(ShardMsg::Work);
        }
        if let Some(reason) = self.propose.stuck() {
            self.leader.refuse_formed(&reason);
        }
        if let Some((commands, leader)) = self.leader.next_entry() {
            while self.proposals.try_join_next().is_some() {}
            let (propose, myself) = (Arc::clone(&self.propose), myself.clone());
            self.proposals.spawn(async move {
                let proposed = propose.propose(commands, leader).await;
                // An actor that is gone recovers from the log what it does not hear here.
                let _ = myself.cast(ShardMsg::Proposed(proposed));
            });
        }
        // Only now is the door's next call a reason to come again: what came before has been looked at.
        if self.around.door.rest() && !self.summoned && may_read && !self.leader.is_held_up() {
            self.summoned = true;
            let _ = myself.cast(ShardMsg::Work);
        }
        let ring = myself.clone();
        let lacks_lease = !may_read && self.around.reads == Reads::Lease && self.leader.leads();
        let again = lacks_lease.then(|| Instant::now() + Duration::from_millis(LEASE_RETRY_MS));
        self.alarm
            .set(self.leader.next_timer().into_iter().chain(again).min(), move || drop(ring.cast(ShardMsg::Ring)));
    }
}
