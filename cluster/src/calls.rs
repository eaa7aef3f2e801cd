//! What is asked of the cluster and what it answers: the types of the front door.

use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use proffer_engine::catalog::Role;
use proffer_engine::decide::decision::Decision;
use proffer_engine::decide::trace::Trace;
use proffer_engine::keys::{
    CapKey, ChannelKey, CreativeKey, CustomerId, Micros, OfferKey, OutcomeKey, PlacementKey, Revision, SchemaKey,
    ShardId, TenantId,
};
use proffer_engine::learn::ExperimentTally;
use proffer_engine::profile::command::{DecisionId, OptOut, Position};
use proffer_engine::profile::shard::CHUNKS;
use proffer_engine::profile::state::{Dealings, Exposure};
use proffer_engine::time::{Span, Timestamp};
use proffer_engine::value::Value;
use tokio::time::Instant;

use crate::group::Group;
use crate::meta::roster::NodeStanding;
use crate::ports::propose::Pending;
use crate::view::TenantView;

/// What makes a retried call recognisable: XXH3-128 of the caller's key, XXH3-64 of the canonical body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallKey {
    /// Hash of the key.
    pub key: u128,
    /// Hash of the body.
    pub body: u64,
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// Counts once under this key.
    pub idempotency: Option<CallKey>,
    /// An earlier decision of the same customer whose unshown units are given back in the same turn.
    pub supersedes: Option<DecisionId>,
    /// Decide, but record and take nothing.
    pub dry_run: bool,
    /// Note what is read, so that it can be decided again.
    pub trace: bool,
}

impl Call {
    /// A plain call.
    pub fn until(deadline: Instant) -> Self {
        Call { deadline, idempotency: None, supersedes: None, dry_run: false, trace: false }
    }
}

/// The cluster as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterReport {
    /// Its id.
    pub cluster: u128,
    /// The node that says so.
    pub node: u64,
    /// The node that leads the catalogue.
    pub meta_leader: Option<u64>,
    /// All nodes, by id.
    pub nodes: Vec<NodeReport>,
    /// The meta group, then the shards by number.
    pub groups: Vec<GroupReport>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its id.
    pub node: u64,
    /// Where other nodes reach it.
    pub peer_address: String,
    /// Where its HTTP interface is reached.
    pub http_address: String,
    /// Nodes of one zone fail together.
    pub zone: String,
    /// What is meant to become of it.
    pub standing: NodeStanding,
    /// Whether the node that says so has a connection to it.
    pub is_up: bool,
    /// How many groups it leads.
    pub leads: usize,
    /// How many replicas it holds, or is meant to.
    pub replicas: usize,
}

/// A group's members, by node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// Which shard; `None`: the meta group.
    pub shard: Option<ShardId>,
    /// The node that leads, if one is known to.
    pub leader: Option<u64>,
    /// In which term.
    pub term: u64,
    /// Nodes that vote.
    pub voters: Vec<u64>,
    /// Nodes that receive everything and do not vote.
    pub learners: Vec<u64>,
    /// Those of the voters whose replica there was given up and is being replaced by a new one: they do not vote now.
    pub renewing: Vec<u64>,
    /// Voters and learners as they are meant to be, while they are not.
    pub target: Option<(Vec<u64>, Vec<u64>)>,
    /// How it came to the generation that it is of, if it was begun anew.
    pub recovery: Option<RecoveryReport>,
}

/// A group was begun anew, because its majority was lost for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// How often it was.
    pub generation: u64,
    /// Who wanted the last time.
    pub by: String,
    /// When, in cluster time.
    pub at: Timestamp,
}

/// What a replica holds, for whoever compares replicas: two of one group that stand at the same position hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Which replica.
    pub replica: u64,
    /// When it was started: a node starts one anew on what its disk holds, if its actor died or nobody took the leadership that it gave
    /// away. In between it never goes back.
    pub began: Instant,
    /// The last entry that is applied.
    pub position: Position,
    /// Index of the last entry that its log holds, or held before a snapshot took its place.
    pub log_end: u64,
    /// The term in which it leads, if it does.
    pub leads_in_term: Option<u64>,
    /// The state in its stored form: of a shard `ShardState::decode_chunks` reads it, of the meta group `MetaState::decode_chunks`.
    pub pieces: Vec<Vec<u8>>,
}

/// Where calls about a customer are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this node.
    Here,
    /// On this one, as far as is known.
    At(u64),
    /// Nobody leads the customer's shard, as far as is known.
    Nowhere,
}

/// Answers calls that other nodes forward.
pub trait Forwarded: Send + Sync + 'static {
    /// Answers `call`, what the other node's layer above made of it, within the time that is left of it.
    fn answer(&self, call: Vec<u8>, within: Duration) -> Pending<'static, Vec<u8>>;
}

/// Why a decision is less than it could have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// Others took the last units three times in a row: what takes units of global caps was left out.
    Contention,
}

/// A decision with what the cluster knows of it.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What was decided.
    pub decision: Decision,
    /// Its id in the profile, also when nothing was taken.
    pub id: DecisionId,
    /// Log time of the decision.
    pub at: Timestamp,
    /// The seed of its random draws: with it, the same inputs give the same bytes.
    pub seed: u64,
    /// An idempotency key was seen before: this is the decision of then, without its explanation.
    pub duplicate: bool,
    /// Ranks (from 1) of a repeated answer's propositions whose offers have been excluded since: not to be shown, but the
    /// others keep their ranks.
    pub excluded: Vec<u16>,
    /// Less than it could have been.
    pub degraded: Option<Degraded>,
    /// The catalogue it was decided under (of a duplicate: the newest one).
    pub view: Arc<TenantView>,
    /// When the units of each proposition lapse; `None` for those that hold none.
    pub expires: Vec<Option<Timestamp>>,
    /// What it was decided on, if that was asked for. Of a duplicate there is none: it was not decided.
    pub trace: Option<Box<Trace>>,
}

/// How far the listing of a shard's customers has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    pub(crate) shard: ShardId,
    pub(crate) part: u16,
}

impl Listing {
    /// How much of the shard is listed, from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.part) / CHUNKS as f64
    }
}

/// An outcome, with names resolved by the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct RespondRequest {
    /// Whose.
    pub tenant: TenantId,
    /// Who responded.
    pub customer: CustomerId,
    /// The proposition answered, when a `recommendationId` was given: decision and rank from 1.
    pub proposition: Option<(DecisionId, u16)>,
    /// When that decision was made; given with the proposition, or neither is.
    pub decided_at: Option<Timestamp>,
    /// What was shown.
    pub offer: OfferKey,
    /// Its content, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
    /// What happened.
    pub outcome: OutcomeKey,
    /// Money or value of a conversion.
    pub value: Option<Micros>,
    /// Whether it is evidence for learning (not for fallback, mandatory and held-out propositions).
    pub evidence: bool,
    /// What an `opt_out` bars; `None` with any other outcome.
    pub opt_out: Option<OptOut>,
    /// The offer was withheld from a held-out customer: the outcome is recorded, and nothing is counted as shown.
    pub withheld: bool,
}

/// What became of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responded {
    /// Stored now.
    pub recorded: bool,
    /// The idempotency key was seen before: this is the answer of then.
    pub duplicate: bool,
    /// After the reservation had lapsed.
    pub late: bool,
    /// This outcome had come for this proposition already: stored, uncounted.
    pub repeat: bool,
    /// Past a limit: stored, uncounted.
    pub over_cap: bool,
}

/// Units to give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseRequest {
    /// Whose.
    pub tenant: TenantId,
    /// Which customer.
    pub customer: CustomerId,
    /// Of which decision.
    pub decision: DecisionId,
    /// Which ranks (from 1); empty = all.
    pub ranks: Vec<u16>,
}

/// What a customer is known by; `None` leaves that part alone.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileWrite {
    /// Whose.
    pub tenant: TenantId,
    /// Which customer.
    pub customer: CustomerId,
    /// `customer.*`, replaced whole.
    pub attributes: Option<Vec<(String, Value)>>,
    /// Replaced whole.
    pub segments: Option<Vec<String>>,
}

/// A profile as it is read.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileView {
    /// `customer.*`, by name in the order they were first seen.
    pub attributes: Vec<(Arc<str>, Value)>,
    /// Segments.
    pub segments: Vec<Arc<str>>,
    /// Rows by schema.
    pub rows: Vec<(SchemaKey, Vec<(Arc<str>, Value)>)>,
    /// Impressions, oldest first.
    pub exposures: Vec<Exposure>,
    /// Outcomes, opt-outs, reservations, keys.
    pub dealings: Option<Box<Dealings>>,
}

/// One customer's row of a schema.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerRow {
    /// Which customer.
    pub customer: CustomerId,
    /// Column name → value, all columns.
    pub columns: Vec<(String, Value)>,
}

/// An accepted change to the catalogue; the snapshot of its revision is in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    /// Revision that holds it.
    pub revision: Revision,
    /// Id of the entity written.
    pub id: String,
    /// What it did.
    pub change: proffer_engine::catalog::Changed,
    /// Units by which a lowered global cap is exceeded by what shards still hold; 0 = the new limit is in force whole.
    pub over_by: u64,
}

/// An API key's holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant it is bound to.
    pub tenant: TenantId,
    /// Public id of the key.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it may do.
    pub roles: Vec<Role>,
}

/// What came of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExperimentReport {
    /// Of all shards that could be asked.
    pub tally: ExperimentTally,
    /// Shards that could not: what their customers did is not in the tally. Ascending.
    pub unreachable: Vec<ShardId>,
}

/// The global accounts of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetReport {
    /// One per open account: cap by cap, earlier periods first.
    pub accounts: Vec<AccountReport>,
}

/// One global cap in one period: `pool + in flight + Σ shards (free + reserved + spent) = limit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountReport {
    /// Which cap.
    pub cap: CapKey,
    /// Which period.
    pub ordinal: u32,
    /// The period.
    pub span: Span,
    /// Limit in force, in units or micro-units of money.
    pub limit: u64,
    /// Not granted to any shard. Negative after the limit was lowered below what is granted; of a soft cap, what is left of the
    /// limit, negative by what it was overshot.
    pub pool: i64,
    /// Granted or returned, not yet seen by the receiver.
    pub in_flight: u64,
    /// What each shard holds; shards that hold nothing are left out.
    pub shards: Vec<ShardReport>,
}

/// What one shard holds of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardReport {
    /// Which.
    pub shard: ShardId,
    /// May be taken.
    pub free: u64,
    /// Held for propositions not yet shown.
    pub reserved: u64,
    /// Confirmed.
    pub spent: u64,
    /// Log time of this report.
    pub as_of: Timestamp,
}

/// Whether the node can decide, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Whether it can.
    pub ready: bool,
    /// What stands in the way; empty when ready.
    pub reasons: Vec<String>,
    /// What stands in nobody's way, and an operator should know: what its durability promises, which replicas are renewed.
    pub remarks: Vec<String>,
    /// Newest catalogue revision in force here.
    pub revision: Revision,
    /// How many shards there are.
    pub shards: u16,
}

/// What an operator asks of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// A node gives up its leaderships, then its replicas, if there is an elsewhere.
    Drain {
        /// Which.
        node: u64,
    },
    /// A node that is being drained holds replicas and leads again.
    Undrain {
        /// Which.
        node: u64,
    },
    /// A node goes for good.
    Remove {
        /// Which.
        node: u64,
        /// Shards may have fewer replicas than now.
        reduce_redundancy: bool,
    },
    /// A node leads a group from now on, as long as it is fit to.
    Transfer {
        /// Which group.
        group: Group,
        /// Which node.
        node: u64,
    },
    /// Leaderships are levelled again, those too that were transferred.
    Rebalance,
}
