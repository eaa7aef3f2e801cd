//! The front door: what `api` and `node` see of the cluster. Calls about one customer lie in `customers`, those about many in `bulk`.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use proffer_engine::catalog::Command;
use proffer_engine::codec;
use proffer_engine::keys::{CustomerId, OfferKey, Revision, ShardId, TenantId};
use proffer_engine::learn::Learned;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::accounts::Sides;
use crate::calls::{BudgetReport, Changed, Examined, Forwarded, Identity, Place, Status};
use crate::error::Error;
use crate::groups::{Group, Groups};
use crate::learning::Learning;
use crate::lease::Tenure;
use crate::limits::{BUDGET_READS_MAX, CHANGE_BYTES_MAX, CHANGED_HERE_MS, PLACE_LOOK_MS, RETRY_AFTER_START_MS};
use crate::meta::command::Founding;
use crate::meta::door::MetaDoor;
use crate::meta::roster::Roster;
use crate::peers;
use crate::post::{Answer, Post, ToMeta, ToShard};
use crate::routing::Router;
use crate::shard::door::ShardDoor;
use crate::surrender::Surrender;
use crate::view::{CatalogueAt, TenantView, Views};

/// A way into a running node. Clones share it; the node runs until [`Handle::shutdown`].
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) router: Router,
    pub(crate) views: Arc<Views>,
    pub(crate) learning: Arc<Learning>,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) shards: Vec<Arc<ShardDoor>>,
    pub(crate) meta: Arc<MetaDoor>,
    pub(crate) groups: Arc<dyn Groups>,
    pub(crate) post: Post,
    /// What the cluster was created with.
    pub(crate) founding: Founding,
    /// The newest roster that this node has applied.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// How it gives up what it leads, if there can be others to take it.
    pub(crate) surrender: Option<Surrender>,
    /// What runs beside the actors, as long as the node does.
    pub(crate) tasks: Mutex<JoinSet<()>>,
    /// No call is admitted any more.
    pub(crate) closing: AtomicBool,
    /// Tells the supervisor to drain, and says when that is done.
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) drained: watch::Receiver<bool>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("shards", &self.inner.router.shards()).finish_non_exhaustive()
    }
}

impl Inner {
    /// The groups that nobody leads, as far as is known.
    pub(crate) fn unled(&self) -> Vec<Group> {
        let is_led = |group: Group| match group {
            Group::Meta => self.meta.is_up(),
            Group::Shard(shard) => self.shards[usize::from(shard.0)].is_up(),
        };
        let all = std::iter::once(Group::Meta).chain(self.router.all().map(Group::Shard));
        all.filter(|group| !is_led(*group) && self.post.leader_elsewhere(*group).is_none()).collect()
    }
}

impl Handle {
    pub(crate) fn new(inner: Inner) -> Self {
        Handle { inner: Arc::new(inner) }
    }

    /// The tenant's catalogue and snapshot in force; `None` if there is no such tenant. Load it once per request. O(log tenants).
    pub fn tenant(&self, tenant: &TenantId) -> Option<Arc<TenantView>> {
        self.inner.views.tenant(tenant)
    }

    /// What is known here of how a tenant's offers are received, in all shards together: at most about a second old. O(log tenants).
    pub fn learned(&self, tenant: &TenantId) -> Arc<Learned> {
        self.inner.learning.of(tenant)
    }

    /// All tenants.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.inner.views.tenants()
    }

    /// The cluster's secret: drawn when it was founded, the same on every node and at every start.
    pub fn secret(&self) -> [u8; 16] {
        self.inner.router.secret()
    }

    /// Returns while this node may decide and authenticate: nothing of what was excluded or revoked before this was called is in force
    /// here any more. Waits a little for a catalogue lease that has run out.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is none.
    pub async fn leased(&self, deadline: Instant) -> Result<(), Error> {
        self.inner.tenure.held(deadline).await
    }

    /// Who holds the API key whose secret has this SHA-256.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without a catalogue lease: a key that is found here may have been revoked.
    pub fn verify_api_key(&self, hash: &[u8; 32]) -> Result<Option<Arc<Identity>>, Error> {
        // In this order: what was revoked before it is looked up is not in what is looked up.
        let (is_held, identity) = (self.inner.tenure.is_held(), self.inner.views.identity(hash));
        if is_held { Ok(identity) } else { Err(self.inner.tenure.refusal()) }
    }

    /// The catalogue of a tenant as it was at this revision, if it is in force or is still kept.
    pub fn catalogue_at(&self, tenant: &TenantId, revision: Revision) -> Option<CatalogueAt> {
        self.inner.views.at(tenant, revision)
    }

    /// Newest catalogue revision that is wholly in force on this node.
    pub fn revision(&self) -> Revision {
        self.inner.views.revision()
    }

    /// Where calls about a customer are answered: a hint, for leaders change. O(nodes).
    pub fn place(&self, tenant: &TenantId, customer: &CustomerId) -> Place {
        let shard = self.inner.router.shard(tenant, customer);
        if self.inner.shards[usize::from(shard.0)].is_up() {
            return Place::Here;
        }
        self.inner.post.leader_elsewhere(Group::Shard(shard)).map_or(Place::Nowhere, Place::At)
    }

    /// Returns when calls about a customer may be answered elsewhere than at `was`, a moment later in any case, and at the deadline at
    /// the latest.
    pub async fn place_changes(&self, tenant: &TenantId, customer: &CustomerId, was: Place, deadline: Instant) {
        let mut changes = self.inner.post.directory.watch();
        let until = deadline.min(Instant::now() + Duration::from_millis(PLACE_LOOK_MS));
        while self.place(tenant, customer) == was {
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                break;
            }
        }
    }

    /// Asks another node to answer a call, which the layer above made into bytes and will read there; through a third node if there is
    /// no way to that one, unless the call `came` here from another node already. The lane has to take call and answer
    /// ([`peers::Lane::body_bytes_max`]).
    ///
    /// # Errors
    /// [`Error::NotLed`] if it was provably not begun, [`Error::Unknown`] if it may have been.
    pub async fn forward(
        &self,
        node: u64,
        lane: peers::Lane,
        call: Vec<u8>,
        came: bool,
        deadline: Instant,
    ) -> Result<Vec<u8>, Error> {
        self.open()?;
        self.inner.post.forward(node, lane, call, came, deadline).await
    }

    /// From now on calls that other nodes forward are answered by `answerer`. Only the first one is taken.
    pub fn on_forwarded(&self, answerer: Arc<dyn Forwarded>) {
        self.inner.post.answer_with(answerer);
    }

    /// Changes the catalogue. Answered when the snapshot that holds the change decides (and, for an emergency exclusion, when no
    /// shard can take under an older one).
    ///
    /// # Errors
    /// [`Error::Refused`] says why the catalogue stays as it is.
    pub async fn change(&self, command: Command, deadline: Instant) -> Result<Changed, Error> {
        let mut answers = self.change_many(vec![command], deadline).await?;
        answers.pop().expect("one answer for one command")
    }

    /// Changes the catalogue in bulk: each command applies wholly or not at all, in order; one that is refused does not stop
    /// those after it. The outer error means that it is not known of any of them.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_many(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Vec<Result<Changed, Error>>, Error> {
        self.open()?;
        let mut answers = Vec::with_capacity(commands.len());
        for commands in pieces(commands) {
            let count = commands.len();
            match self.inner.post.meta(ToMeta::Change(commands), deadline).await {
                Ok(Answer::Changed(changed)) => {
                    answers.extend(changed.into_iter().map(|changed| changed.map_err(Error::from)));
                }
                Ok(_) => return Err(Error::Unknown),
                Err(error) if answers.is_empty() => return Err(error),
                // Some pieces are known of: what became of this one, and that the later ones were not begun, is said of each.
                Err(error) => answers.extend((0..count).map(|_| Err(error.clone()))),
            }
        }
        let newest = answers.iter().flatten().map(|changed: &Changed| changed.revision).max();
        if let Some(newest) = newest {
            // It is in force where the catalogue is led. Whoever reads here next finds it here too, unless this node is far behind.
            let patience = Instant::now() + Duration::from_millis(CHANGED_HERE_MS);
            let _ = self.wait_for_revision(newest, deadline.min(patience)).await;
        }
        Ok(answers)
    }

    /// Waits until revision `revision` is in force here.
    ///
    /// # Errors
    /// [`Error::Unavailable`] past the deadline.
    pub async fn wait_for_revision(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        let mut watch = self.inner.views.watch();
        match timeout_at(deadline, watch.wait_for(|newest| *newest >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable {
                reason: format!("catalogue revision {revision} is not in force here yet"),
                retry_after_ms: RETRY_AFTER_START_MS,
            }),
        }
    }

    /// Waits until revision `revision` is in force on every node that may decide.
    ///
    /// # Errors
    /// [`Error::NotLed`] if nobody leads the catalogue, [`Error::Unavailable`] past the deadline.
    pub async fn wait_everywhere(&self, revision: Revision, deadline: Instant) -> Result<(), Error> {
        self.open()?;
        match self.inner.post.meta(ToMeta::Everywhere(revision), deadline).await {
            Ok(_) => Ok(()),
            Err(Error::Unknown | Error::Expired) => Err(Error::Unavailable {
                reason: format!("catalogue revision {revision} is not in force on every node yet"),
                retry_after_ms: RETRY_AFTER_START_MS,
            }),
            Err(error) => Err(error),
        }
    }

    /// Whether any profile has an impression or outcome of the offer: asks all shards. O(profiles), on copies outside the shards'
    /// turns.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the like if one shard cannot answer.
    pub async fn has_history(&self, tenant: &TenantId, offer: OfferKey, deadline: Instant) -> Result<bool, Error> {
        self.known(tenant)?;
        for shard in self.inner.router.all() {
            let ask = ToShard::History { tenant: tenant.clone(), offer };
            if matches!(self.inner.post.shard(shard, ask, deadline).await?, Answer::Seen(true)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The global accounts of an offer: ledger and shards put together, each account's terms as of one moment. A shard and the
    /// ledger that were read at instants that do not fit together are read again. All shards are asked at once, each where it is led.
    ///
    /// A shard that cannot be asked is told of by its last report, unless they are to be `linearizable`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if units move faster than they can be read; and see [`Error`].
    pub async fn budget(
        &self,
        tenant: &TenantId,
        offer: OfferKey,
        linearizable: bool,
        deadline: Instant,
    ) -> Result<BudgetReport, Error> {
        self.known(tenant)?;
        let mut sides = Sides::default();
        let mut torn: BTreeSet<ShardId> = (0..self.inner.router.shards()).map(ShardId).collect();
        for _ in 0..BUDGET_READS_MAX {
            let ask = ToMeta::Budget { tenant: tenant.clone(), offer };
            if let Answer::Rows(rows) = self.inner.post.meta(ask, deadline).await? {
                sides.ledger = rows;
            }
            let accounts: Vec<_> = sides.ledger.iter().map(|row| row.account).collect();
            // There is to be time for another read after a shard that does not answer.
            let now = Instant::now();
            let patience = if linearizable { deadline } else { now + deadline.saturating_duration_since(now) / 2 };
            let asks = torn.into_iter().map(|shard| {
                let ask = ToShard::Held { tenant: tenant.clone(), accounts: accounts.clone() };
                async move { (shard, self.inner.post.shard(shard, ask, patience).await) }
            });
            for (shard, answer) in join_all(asks).await {
                match answer {
                    Ok(Answer::Held(held)) => sides.put(shard, held),
                    Err(error) if !linearizable && error.retryable() => sides.put_reported(shard),
                    Ok(_) => {}
                    Err(error) => return Err(error),
                }
            }
            torn = sides.torn();
            if torn.is_empty() {
                return Ok(sides.report());
            }
        }
        Err(Error::Unavailable {
            reason: "units move between ledger and shards faster than they can be read".to_owned(),
            retry_after_ms: RETRY_AFTER_START_MS,
        })
    }

    /// The state of this node's replica of a group, wherever the group is led; `None` if none runs here. O(state), on a copy.
    pub async fn examine(&self, group: Group) -> Option<Examined> {
        self.inner.groups.examine(group).await
    }

    /// The groups that this node leads, in which term, by leases under which it answers reads now without asking anybody. No two nodes
    /// say so of one group at one time. O(groups).
    pub fn answers_reads(&self) -> Vec<(Group, u64)> {
        self.inner.groups.answers_reads()
    }

    /// Whether the node can decide, and why not.
    pub fn status(&self) -> Status {
        let mut reasons = Vec::new();
        if self.inner.closing.load(Ordering::Acquire) {
            reasons.push("shutting down".to_owned());
        }
        reasons.extend(self.inner.unled().into_iter().map(|group| match group {
            Group::Meta => "nobody leads the catalogue".to_owned(),
            Group::Shard(shard) => format!("nobody leads shard {}", shard.0),
        }));
        if !self.inner.tenure.is_held() {
            reasons.push(self.inner.tenure.refusal().to_string());
        }
        reasons.extend(self.inner.groups.trouble());
        for (tenant, revision) in &self.inner.views.load().broken {
            reasons.push(format!("the catalogue of tenant {tenant} at revision {revision} cannot be compiled"));
        }
        Status {
            ready: reasons.is_empty(),
            reasons,
            remarks: self.inner.groups.remarks(),
            revision: self.inner.views.revision(),
            shards: self.inner.router.shards(),
        }
    }

    /// Admits nothing more, waits for what is under way, writes snapshots and closes the log. Harmless when repeated.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.drain.send_replace(true);
        let mut drained = self.inner.drained.clone();
        // An error means that the supervisor is gone: then there is nothing left to wait for.
        let _ = drained.wait_for(|drained| *drained).await;
        self.inner.post.close();
        self.inner.tasks.lock().expect("no holder panics").abort_all();
    }

    /// The shard that a profile lives in.
    pub fn shard_number(&self, tenant: &TenantId, customer: &CustomerId) -> ShardId {
        self.inner.router.shard(tenant, customer)
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        if self.inner.closing.load(Ordering::Acquire) {
            return Err(Error::Unavailable {
                reason: "the node is shutting down".to_owned(),
                retry_after_ms: RETRY_AFTER_START_MS,
            });
        }
        Ok(())
    }

    pub(crate) fn known(&self, tenant: &TenantId) -> Result<(), Error> {
        self.open()?;
        match self.inner.views.tenant(tenant) {
            Some(_) => Ok(()),
            None => Err(Error::UnknownTenant(tenant.to_string())),
        }
    }
}

/// Whether the shard is of the same generation still as when `founder` was read: what was answered since is its answer.
///
/// # Errors
/// [`Error::Unknown`] if not: what the lost generation has done is lost, or not.
pub(crate) fn of_generation(shard: &ShardDoor, founder: u64) -> Result<(), Error> {
    if shard.founder() == founder { Ok(()) } else { Err(Error::Unknown) }
}

/// Commands in pieces that fit into a message, in order.
fn pieces(commands: Vec<Command>) -> Vec<Vec<Command>> {
    let (mut pieces, mut bytes) = (vec![Vec::new()], 0);
    for command in commands {
        bytes += codec::encode(&command).len();
        if bytes > CHANGE_BYTES_MAX && pieces.last().is_some_and(|piece| !piece.is_empty()) {
            bytes = codec::encode(&command).len();
            pieces.push(Vec::new());
        }
        pieces.last_mut().expect("there is one from the beginning").push(command);
    }
    pieces
}

/// Waits for an answer. A reply port dropped unanswered, or none in time, leaves the outcome unknown.
pub(crate) async fn answered<T>(
    deadline: Instant,
    answer: impl Future<Output = Result<Result<T, Error>, oneshot::error::RecvError>>,
) -> Result<T, Error> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(Error::Unknown),
    }
}
