//! The supervisor: starts the node's actors, restarts one that dies from snapshot and log, ends the process when one keeps
//! dying, and drains them at the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use proffer_engine::profile::command::Position;
use proffer_engine::profile::shard::ShardState;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::actors::meta::{MetaActor, MetaMsg, MetaStart};
use crate::actors::shard::{ShardActor, ShardMsg, ShardStart};
use crate::error::StartError;
use crate::groups::{Group, Groups};
use crate::limits::{
    ACTOR_BACK_OFF_MS, ACTOR_DEATHS_MAX, ACTOR_DEATHS_WITHIN_MS, DRAIN_MS_MAX, DRAIN_POLL_MS, SNAPSHOT_ROUND_MS,
};
use crate::meta::leader::Surroundings as MetaSurroundings;
use crate::meta::state::MetaState;
use crate::ports::fatal::Fatal;
use crate::ports::offload::Offload;
use crate::shard::leader::Surroundings as ShardSurroundings;

/// Messages of the supervisor.
pub(crate) enum RootMsg {
    /// A dead actor's state is recovered: start it again.
    Revive(Box<Recovered>),
    /// A group's replica does not belong here any more: its actor ends. Its replica has ended already.
    Unhost(Group, oneshot::Sender<()>),
    /// The meta group's state is asked for.
    ShareMeta(oneshot::Sender<MetaState>),
    /// A replica that has fallen silent for good is started again, with its actor.
    Restart(Group),
    /// Look whether snapshots are due.
    Round,
    /// Finish what is under way, keep snapshots, close the log.
    Drain,
}

/// A group's state, ready for an actor.
pub(crate) enum Recovered {
    Meta(MetaState, Position),
    Shard(ShardSurroundings, ShardState, Position),
}

impl Recovered {
    fn group(&self) -> Group {
        match self {
            Recovered::Meta(..) => Group::Meta,
            Recovered::Shard(around, ..) => Group::Shard(around.shard),
        }
    }
}

/// The supervisor.
pub(crate) struct Root;

/// What it is started with.
pub(crate) struct RootStart {
    pub(crate) node: String,
    pub(crate) groups: Arc<dyn Groups>,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) fatal: Arc<dyn Fatal>,
    pub(crate) meta: MetaSurroundings,
    pub(crate) shards: Vec<ShardSurroundings>,
    pub(crate) drained: watch::Sender<bool>,
}

/// What it owns.
pub(crate) struct RootBody {
    start: RootStart,
    meta: Option<ActorRef<MetaMsg>>,
    shards: BTreeMap<Group, ActorRef<ShardMsg>>,
    /// Which group an actor stands for.
    groups: HashMap<ActorId, Group>,
    deaths: BTreeMap<Group, Vec<Instant>>,
    draining: bool,
    generation: u64,
}

/// A way to the supervisor.
#[derive(Clone)]
pub(crate) struct Supervisor {
    root: ActorRef<RootMsg>,
    /// What each shard's actor needs of its node.
    shards: Arc<Vec<ShardSurroundings>>,
}

impl Supervisor {
    /// Recovers a group that belongs here from now on, and has its actor started.
    ///
    /// # Errors
    /// If what is on the disk of it cannot be read.
    pub(crate) async fn host(&self, group: Group, groups: &dyn Groups) -> Result<(), StartError> {
        let recovered = recover(group, groups, &self.shards).await?;
        let _ = self.root.cast(RootMsg::Revive(Box::new(recovered)));
        Ok(())
    }

    /// Ends the actor of a group that belongs here no more, whose replica has ended.
    pub(crate) async fn unhost(&self, group: Group) {
        let (done, ended) = oneshot::channel();
        let _ = self.root.cast(RootMsg::Unhost(group, done));
        // An error means that the supervisor is gone, and all actors with it.
        let _ = ended.await;
    }

    /// The meta group's state as it is applied here; `None` while nothing is.
    pub(crate) async fn catalogue(&self) -> Option<MetaState> {
        let (reply, answer) = oneshot::channel();
        let _ = self.root.cast(RootMsg::ShareMeta(reply));
        // An error means that its actor is gone, and comes again.
        answer.await.ok()
    }

    /// Starts a group's replica again, with its actor.
    pub(crate) fn restart(&self, group: Group) {
        let _ = self.root.cast(RootMsg::Restart(group));
    }

    /// Finishes what is under way, keeps snapshots, closes the log.
    pub(crate) fn drain(&self) {
        let _ = self.root.cast(RootMsg::Drain);
    }
}

/// Reads a group's state from snapshot and log.
pub(crate) async fn recover(
    group: Group,
    groups: &dyn Groups,
    shards: &[ShardSurroundings],
) -> Result<Recovered, StartError> {
    match group {
        Group::Meta => groups.recover_meta().await.map(|(state, at)| Recovered::Meta(state, at)),
        Group::Shard(shard) => {
            let around = shards.get(usize::from(shard.0)).cloned();
            let around = around.ok_or_else(|| StartError::Recovery {
                what: group.to_string(),
                reason: "the cluster has no such shard".to_owned(),
            })?;
            let (state, at) = groups.recover_shard(shard).await?;
            Ok(Recovered::Shard(around, state, at))
        }
    }
}

/// Starts the supervisor over recovered groups.
pub(crate) async fn spawn(start: RootStart, recovered: Vec<Recovered>) -> Result<Supervisor, StartError> {
    let shards = Arc::new(start.shards.clone());
    let name = format!("{}/root", start.node);
    let (root, _) = Actor::spawn(Some(name), Root, (start, recovered))
        .await
        .map_err(|error| StartError::Spawn { what: "the supervisor".to_owned(), reason: error.to_string() })?;
    Ok(Supervisor { root, shards })
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootBody;
    type Arguments = (RootStart, Vec<Recovered>);

    async fn pre_start(
        &self,
        myself: ActorRef<RootMsg>,
        (start, recovered): (RootStart, Vec<Recovered>),
    ) -> Result<RootBody, ActorProcessingErr> {
        let mut body = RootBody {
            start,
            meta: None,
            shards: BTreeMap::new(),
            groups: HashMap::new(),
            deaths: BTreeMap::new(),
            draining: false,
            generation: 0,
        };
        for recovered in recovered {
            body.revive(myself.get_cell(), recovered).await?;
        }
        next_round(myself);
        Ok(body)
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        body: &mut RootBody,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Revive(recovered) => {
                // What was recovered may have left this node meanwhile, or be here already.
                let (group, groups) = (recovered.group(), &body.start.groups);
                if !body.draining
                    && groups.holds(group)
                    && !body.hosts(group)
                    && let Err(error) = body.revive(myself.get_cell(), *recovered).await
                {
                    body.start.fatal.stop(&format!("an actor that died cannot be started again: {error}"));
                }
            }
            RootMsg::Unhost(group, done) => {
                body.dismiss(group).await;
                let _ = done.send(());
            }
            RootMsg::ShareMeta(reply) => {
                if let Some(meta) = &body.meta {
                    let _ = meta.cast(MetaMsg::Share(reply));
                }
            }
            RootMsg::Restart(group) => {
                if !body.draining && body.hosts(group) {
                    body.dismiss(group).await;
                    body.recover(group, Duration::ZERO, myself);
                }
            }
            RootMsg::Round => {
                let due = body.all().filter(|group| body.start.groups.is_snapshot_due(*group)).collect::<Vec<_>>();
                let keep = body.keep(due);
                tokio::spawn(async move {
                    keep.await;
                    next_round(myself);
                });
            }
            RootMsg::Drain => {
                body.draining = true;
                body.drain().await;
                body.start.drained.send_replace(true);
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        body: &mut RootBody,
    ) -> Result<(), ActorProcessingErr> {
        let (who, why) = match event {
            SupervisionEvent::ActorTerminated(who, _, why) => (who, why.unwrap_or_else(|| "it stopped".to_owned())),
            SupervisionEvent::ActorFailed(who, why) => (who, why.to_string()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        let Some(group) = body.groups.remove(&who.get_id()) else { return Ok(()) };
        if body.draining {
            return Ok(());
        }
        body.died(group, &why, myself);
        Ok(())
    }
}

fn next_round(root: ActorRef<RootMsg>) {
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(SNAPSHOT_ROUND_MS)).await;
        let _ = root.cast(RootMsg::Round);
    });
}

impl RootBody {
    async fn revive(&mut self, myself: ActorCell, recovered: Recovered) -> Result<(), ActorProcessingErr> {
        self.generation += 1;
        let name = |group: Group| Some(format!("{}/{group}/{}", self.start.node, self.generation));
        let groups = Arc::clone(&self.start.groups);
        match recovered {
            Recovered::Meta(state, applied) => {
                let (offload, fatal) = (Arc::clone(&self.start.offload), Arc::clone(&self.start.fatal));
                let around = self.start.meta.clone();
                let start = MetaStart { around, groups, offload, fatal, state, applied };
                let (actor, _) = Actor::spawn_linked(name(Group::Meta), MetaActor, start, myself).await?;
                self.groups.insert(actor.get_id(), Group::Meta);
                self.meta = Some(actor);
            }
            Recovered::Shard(around, state, applied) => {
                let group = Group::Shard(around.shard);
                let start = ShardStart { around, groups, state, applied };
                let (actor, _) = Actor::spawn_linked(name(group), ShardActor, start, myself).await?;
                self.groups.insert(actor.get_id(), group);
                self.shards.insert(group, actor);
            }
        }
        Ok(())
    }

    /// An actor died: recover and start it again, later each time; too often, and the process ends.
    fn died(&mut self, group: Group, why: &str, myself: ActorRef<RootMsg>) {
        tracing::error!(%group, why, "an actor died; it is recovered from snapshot and log");
        self.close_door(group);
        self.forget(group);
        if !self.start.groups.holds(group) {
            return;
        }
        let now = Instant::now();
        let deaths = self.deaths.entry(group).or_default();
        deaths.retain(|at| now.duration_since(*at) < Duration::from_millis(ACTOR_DEATHS_WITHIN_MS));
        deaths.push(now);
        let count = deaths.len();
        if count >= ACTOR_DEATHS_MAX {
            self.start.fatal.stop(&format!("{group} died {count} times within a minute, last because: {why}"));
            return;
        }
        let back_off = Duration::from_millis(ACTOR_BACK_OFF_MS << (count - 1));
        self.recover(group, back_off, myself);
    }

    /// Ends a group's actor, if there is one, without its being missed.
    async fn dismiss(&mut self, group: Group) {
        let cell = match group {
            Group::Meta => self.meta.as_ref().map(ActorRef::get_cell),
            Group::Shard(_) => self.shards.get(&group).map(ActorRef::get_cell),
        };
        self.forget(group);
        if let Some(cell) = cell {
            self.groups.remove(&cell.get_id());
            // One that does not stop in time is left to itself: its log feeds it no more.
            let _ = cell.stop_and_wait(None, Some(Duration::from_millis(DRAIN_MS_MAX))).await;
        }
        self.close_door(group);
    }

    fn close_door(&self, group: Group) {
        match group {
            Group::Meta => self.start.meta.door.close(),
            Group::Shard(shard) => self.start.shards[usize::from(shard.0)].door.close(),
        }
    }

    fn forget(&mut self, group: Group) {
        match group {
            Group::Meta => drop(self.meta.take()),
            Group::Shard(_) => drop(self.shards.remove(&group)),
        }
    }

    fn hosts(&self, group: Group) -> bool {
        match group {
            Group::Meta => self.meta.is_some(),
            Group::Shard(_) => self.shards.contains_key(&group),
        }
    }

    /// Reads a group's state from snapshot and log after a while, and has its actor started.
    fn recover(&self, group: Group, back_off: Duration, myself: ActorRef<RootMsg>) {
        let (groups, fatal) = (Arc::clone(&self.start.groups), Arc::clone(&self.start.fatal));
        let left = Arc::clone(&self.start.groups);
        let shards = self.start.shards.clone();
        let recovery = tokio::spawn(async move {
            tokio::time::sleep(back_off).await;
            recover(group, &*groups, &shards).await
        });
        tokio::spawn(async move {
            match recovery.await {
                Ok(Ok(recovered)) => drop(myself.cast(RootMsg::Revive(Box::new(recovered)))),
                Ok(Err(_)) if !left.holds(group) => {}
                Ok(Err(error)) if left.give_up(group, error.to_string()).await => {}
                Ok(Err(error)) => fatal.stop(&error.to_string()),
                // What cannot be read now cannot be read after a back-off either.
                Err(panicked) => fatal.stop(&format!("recovering {group} from its log: {panicked}")),
            }
        });
    }

    fn all(&self) -> impl Iterator<Item = Group> + '_ {
        self.meta.iter().map(|_| Group::Meta).chain(self.shards.keys().copied())
    }

    /// Keeps a snapshot of each of these groups, one after the other.
    fn keep(&self, due: Vec<Group>) -> impl Future<Output = ()> + Send + use<> {
        let groups = Arc::clone(&self.start.groups);
        async move {
            for group in due {
                if let Err(error) = groups.keep(group).await {
                    tracing::error!(%group, %error, "no snapshot was kept; the log keeps growing");
                }
            }
        }
    }

    async fn drain(&self) {
        let until = Instant::now() + Duration::from_millis(DRAIN_MS_MAX);
        while Instant::now() < until && !self.is_idle().await {
            tokio::time::sleep(Duration::from_millis(DRAIN_POLL_MS)).await;
        }
        self.keep(self.all().collect()).await;
        // First the logs, then the machines under them: a log that lost its machine would say so.
        self.start.groups.close().await;
        let patience = Some(Duration::from_millis(DRAIN_MS_MAX));
        for shard in self.shards.values() {
            // One that does not stop in time is dropped with the runtime.
            let _ = shard.stop_and_wait(None, patience).await;
        }
        if let Some(meta) = &self.meta {
            let _ = meta.stop_and_wait(None, patience).await;
        }
    }

    async fn is_idle(&self) -> bool {
        for shard in self.shards.values() {
            let (reply, answer) = oneshot::channel();
            if shard.cast(ShardMsg::IsIdle(reply)).is_ok() && !answer.await.unwrap_or(true) {
                return false;
            }
        }
        let Some(meta) = &self.meta else { return true };
        let (reply, answer) = oneshot::channel();
        meta.cast(MetaMsg::IsIdle(reply)).is_err() || answer.await.unwrap_or(true)
    }
}
