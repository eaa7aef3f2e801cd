//! The actor of the meta group.

use std::sync::Arc;

use proffer_engine::profile::command::{Leader, Position};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::actors::acknowledge::acknowledge;
use crate::actors::check_level;
use crate::actors::fences::Fences;
use crate::actors::timer::Alarm;
use crate::groups::{Groups, ProposeMeta};
use crate::meta::command::MetaOutcome;
use crate::meta::compile::Compiled;
use crate::meta::leader::{Command, MetaLeader, Surroundings};
use crate::meta::state::MetaState;
use crate::ports::fatal::Fatal;
use crate::ports::offload::{self, Lane, Offload};
use crate::ports::propose::{Gone, InstallError, Machine, Pending, Pieces, Proposed, Replicated};

/// Messages of the meta group's actor.
pub(crate) enum MetaMsg {
    /// Something waits at the door.
    Work,
    /// Apply a committed entry.
    Apply { position: Position, commands: Vec<Command>, reply: oneshot::Sender<Vec<MetaOutcome>> },
    /// The entry under way has been answered.
    Proposed(Proposed<MetaOutcome>),
    /// This replica leads, or does not.
    Leads(Option<Leader>),
    /// The round has ended that confirms the leader, or does not.
    Confirmed(bool),
    /// A compile has ended.
    Compiled(Box<Compiled>),
    /// The alarm rang.
    Ring,
    /// The committed state, shared.
    Share(oneshot::Sender<MetaState>),
    /// A state from elsewhere, in place of this one.
    Install { state: Box<MetaState>, position: Position, reply: oneshot::Sender<()> },
    /// Its log has ended: so must it.
    Abandon(String),
    /// Whether nothing is under way.
    IsIdle(oneshot::Sender<bool>),
}

/// The actor.
pub(crate) struct MetaActor;

/// What it is started with.
pub(crate) struct MetaStart {
    pub(crate) around: Surroundings,
    pub(crate) groups: Arc<dyn Groups>,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) fatal: Arc<dyn Fatal>,
    pub(crate) state: MetaState,
    pub(crate) applied: Position,
}

/// What it owns.
pub(crate) struct MetaBody {
    leader: MetaLeader,
    around: Surroundings,
    propose: ProposeMeta,
    offload: Arc<dyn Offload>,
    fatal: Arc<dyn Fatal>,
    tasks: JoinSet<()>,
    fences: Fences,
    alarm: Alarm,
    /// A `Work` of our own is in the mailbox.
    summoned: bool,
}

struct MetaMachine(ActorRef<MetaMsg>);

impl Machine<Command, MetaOutcome> for MetaMachine {
    fn apply(&self, position: Position, commands: Vec<Command>) -> Pending<'_, Result<Vec<MetaOutcome>, Gone>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.0.cast(MetaMsg::Apply { position, commands, reply }).map_err(|_| Gone)?;
            answer.await.map_err(|_| Gone)
        })
    }
}

impl Replicated<Command, MetaOutcome> for MetaMachine {
    fn share(&self) -> Pending<'_, Result<Pieces, Gone>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            self.0.cast(MetaMsg::Share(reply)).map_err(|_| Gone)?;
            let state = answer.await.map_err(|_| Gone)?;
            let pieces: Pieces = Box::new(move || state.encode_chunks().collect());
            Ok(pieces)
        })
    }

    fn install(&self, position: Position, pieces: Vec<Vec<u8>>) -> Pending<'_, Result<(), InstallError>> {
        Box::pin(async move {
            let state = MetaState::decode_chunks(pieces.into_iter());
            let state = Box::new(state.map_err(|error| InstallError::Unreadable(error.to_string()))?);
            let (reply, answer) = oneshot::channel();
            self.0.cast(MetaMsg::Install { state, position, reply }).map_err(|_| Gone)?;
            answer.await.map_err(|_| Gone)?;
            Ok(())
        })
    }

    fn abandon(&self, reason: &str) {
        let _ = self.0.cast(MetaMsg::Abandon(reason.to_owned()));
    }
}

impl Actor for MetaActor {
    type Msg = MetaMsg;
    type State = MetaBody;
    type Arguments = MetaStart;

    async fn pre_start(&self, myself: ActorRef<MetaMsg>, start: MetaStart) -> Result<MetaBody, ActorProcessingErr> {
        let MetaStart { around, groups, offload, fatal, state, applied } = start;
        let propose = groups.meta(Arc::new(MetaMachine(myself.clone())));
        let mut tasks = JoinSet::new();
        let mut leads = propose.leader();
        let follower = myself.clone();
        tasks.spawn(async move {
            loop {
                let leader = *leads.borrow_and_update();
                if follower.cast(MetaMsg::Leads(leader)).is_err() || leads.changed().await.is_err() {
                    break;
                }
            }
        });
        let (views, waker) = (Arc::clone(&around.views), myself.clone());
        tasks.spawn(async move {
            // Once it is known how far the catalogue goes, what is recovered may be worth compiling.
            views.known().await;
            let _ = waker.cast(MetaMsg::Work);
        });
        let fences = Fences::new(&around, &mut tasks);
        let leader = MetaLeader::new(around.clone(), state, applied);
        check_level(leader.level(), around.can)?;
        Ok(MetaBody {
            leader,
            around,
            propose,
            offload,
            fatal,
            tasks,
            fences,
            alarm: Alarm::default(),
            summoned: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<MetaMsg>,
        message: MetaMsg,
        body: &mut MetaBody,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MetaMsg::Work => body.summoned = false,
            MetaMsg::Apply { position, commands, reply } => {
                let outcomes = body.leader.apply(position, &commands);
                check_level(body.leader.level(), body.around.can)?;
                // Whoever proposed may have gone; the entry is applied all the same.
                let _ = reply.send(outcomes);
            }
            MetaMsg::Proposed(proposed) => {
                body.leader.proposed(proposed);
                // What the answer said of the leader may be older than what the port says by now.
                let leader = *body.propose.leader().borrow();
                body.follow(leader, &myself);
            }
            MetaMsg::Leads(leader) => body.follow(leader, &myself),
            MetaMsg::Confirmed(is_leader) => body.leader.confirmed(is_leader),
            MetaMsg::Compiled(compiled) => body.leader.compiled(*compiled),
            MetaMsg::Ring => body.alarm.rang(),
            MetaMsg::Share(reply) => {
                let _ = reply.send(body.leader.share());
                return Ok(());
            }
            MetaMsg::Install { state, position, reply } => {
                body.leader.install(*state, position);
                check_level(body.leader.level(), body.around.can)?;
                let _ = reply.send(());
            }
            MetaMsg::Abandon(reason) => return Err(reason.into()),
            MetaMsg::IsIdle(reply) => {
                let _ = reply.send(body.leader.is_idle());
                return Ok(());
            }
        }
        body.turn(&myself);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<MetaMsg>, body: &mut MetaBody) -> Result<(), ActorProcessingErr> {
        body.around.door.close();
        Ok(())
    }
}

impl MetaBody {
    /// This replica leads, or does not: calls are let in while it does.
    fn follow(&mut self, leader: Option<Leader>, myself: &ActorRef<MetaMsg>) {
        self.leader.follow(leader);
        match (leader, self.around.door.is_up()) {
            (Some(_), false) => {
                let woken = myself.clone();
                self.around.door.open(Arc::new(move || drop(woken.cast(MetaMsg::Work))));
            }
            (None, true) => {
                self.around.door.close();
                self.leader.turn_away();
            }
            (Some(_), true) | (None, false) => {}
        }
    }

    fn turn(&mut self, myself: &ActorRef<MetaMsg>) {
        while self.tasks.try_join_next().is_some() {}
        if let Some(compile) = self.leader.next_compile() {
            let (offload, fatal, myself) = (Arc::clone(&self.offload), Arc::clone(&self.fatal), myself.clone());
            self.tasks.spawn(async move {
                match offload::call(&*offload, Lane::Bulk, move || compile.run()).await {
                    Ok(compiled) => drop(myself.cast(MetaMsg::Compiled(Box::new(compiled)))),
                    // The thread is gone: no later catalogue can be put in force.
                    Err(error) => fatal.stop(&format!("compiling the catalogue: {error}")),
                }
            });
        }
        if let Some((commands, leader)) = self.leader.next_entry() {
            let (propose, myself) = (Arc::clone(&self.propose), myself.clone());
            self.tasks.spawn(async move {
                let proposed = propose.propose(commands, leader).await;
                let _ = myself.cast(MetaMsg::Proposed(proposed));
            });
        }
        if self.leader.wants_a_turn() && !self.summoned {
            self.summoned = true;
            let _ = myself.cast(MetaMsg::Work);
        }
        if let Some(fence) = self.leader.fence_to_tell() {
            self.fences.raise(fence);
            self.fences.raise_level(self.leader.level());
        }
        for ready in self.leader.acknowledgements() {
            // Its exclusion is committed, also if another leads by now.
            ready.fence.into_iter().for_each(|fence| self.fences.raise(fence));
            self.tasks.spawn(acknowledge(self.around.clone(), ready));
        }
        // Last, so that whoever waits for the leases from this turn on is looked at.
        if self.leader.see_to_leases() {
            let (propose, myself) = (Arc::clone(&self.propose), myself.clone());
            self.tasks.spawn(async move {
                let is_leader = propose.confirm().await;
                let _ = myself.cast(MetaMsg::Confirmed(is_leader));
            });
        }
        let ring = myself.clone();
        self.alarm.set(self.leader.next_timer(), move || drop(ring.cast(MetaMsg::Ring)));
    }
}
