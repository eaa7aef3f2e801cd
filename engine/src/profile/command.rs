//! Commands of a shard: everything `apply` needs, times, limits and calendar spans included, so that replicas need neither
//! clock nor catalogue (architecture.md §3, §4).

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::claims;
use crate::decide::decision::{Decision, Ghost};
use crate::keys::{
    CapKey, CategoryKey, ChannelKey, CreativeKey, CustomerId, Micros, OfferKey, OutcomeKey, PlacementKey, Revision,
    SchemaKey, TenantId,
};
use crate::level::Level;
use crate::limits::KEPT_ANSWER_BYTES;
use crate::model::settings::Sentiment;
use crate::profile::measured::{Enrolled, Measured, MeasuredOp};
use crate::profile::trials::Enrolment;
use crate::time::{Span, Timestamp};
use crate::value::Value;

/// A log entry of a shard.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ShardCommand {
    /// First version of the format.
    V1(ShardCommandV1),
}

/// What is asked of the shard, under which authority.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ShardCommandV1 {
    /// Cluster time at the proposer. Log time becomes the maximum of it and the last.
    pub now: Timestamp,
    /// Leader that decided it; `apply` refuses another's. Opaque here: compared for equality with the position's.
    pub leader: Leader,
    /// Catalogue revision it was decided under; `apply` refuses one older than the shard's fence.
    pub revision: Revision,
    /// What to do.
    pub op: ShardOp,
}

/// Whole leader id of a shard: term *and* replica (two leaders in one term are legal in openraft).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Leader {
    /// Term.
    pub term: u64,
    /// Replica.
    pub replica: u64,
}

/// Where in the log a command stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Position {
    /// Leader that wrote it.
    pub leader: Leader,
    /// Index.
    pub index: u64,
}

/// The deeds.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ShardOp {
    /// Replace attributes and segments of a profile; `None` leaves that part alone.
    PutProfile(PutProfile),
    /// Upsert the customer's row of a schema.
    PutRow(PutRow),
    /// Remove a profile with all it owns.
    DeleteProfile {
        /// Whose.
        tenant: TenantId,
        /// Which.
        customer: CustomerId,
    },
    /// Take what a decision proposed.
    Take(Box<Take>),
    /// Record an outcome.
    Respond(Box<Respond>),
    /// Give unshown units back.
    Release(Release),
    /// Lift a profile's opt-outs.
    ClearOptOuts {
        /// Whose.
        tenant: TenantId,
        /// Which.
        customer: CustomerId,
    },
    /// Advance log time: expire reservations, close accounts.
    Tick,
    /// Refuse what was decided under an older revision.
    Fence(Revision),
    /// Escrow: the ledger's totals for accounts of this shard.
    Escrow(Vec<EscrowMessage>),
    /// As [`ShardOp::Tick`], but only for what has fallen due by this instant: after a downtime, one entry does not do it all.
    Lapse(Timestamp),
    /// As [`ShardOp::Escrow`], for one generation of the shard, counted from 0: another's state is left as it is. `Escrow` is for the first.
    EscrowOf {
        /// Which generation.
        generation: u64,
        /// The totals.
        messages: Vec<EscrowMessage>,
    },
    /// Commands are applied as from this feature level on; every node can it.
    Level(Level),
    /// A deed that metrics look at.
    Measured(Box<Measured>),
    /// A deed that enrols its customer in an experiment.
    Enrolled(Box<Enrolled>),
}

impl ShardOp {
    /// The same deed, which enrols its customer too if it is a take. Nothing else enrols.
    #[must_use]
    pub fn enrolling(self, enrolment: Enrolment) -> Self {
        let measured = match self {
            ShardOp::Take(take) => Measured { op: MeasuredOp::Take(take), feeds: Vec::new(), gone: Vec::new() },
            ShardOp::Measured(measured) => *measured,
            other @ (ShardOp::PutProfile(_)
            | ShardOp::PutRow(_)
            | ShardOp::DeleteProfile { .. }
            | ShardOp::Respond(_)
            | ShardOp::Release(_)
            | ShardOp::ClearOptOuts { .. }
            | ShardOp::Tick
            | ShardOp::Fence(_)
            | ShardOp::Escrow(_)
            | ShardOp::Lapse(_)
            | ShardOp::EscrowOf { .. }
            | ShardOp::Level(_)
            | ShardOp::Enrolled(_)) => return other,
        };
        ShardOp::Enrolled(Box::new(Enrolled { measured, enrolment }))
    }

    /// The ledger's totals for one generation of a shard.
    pub fn escrow(generation: u64, messages: Vec<EscrowMessage>) -> Self {
        if generation == 0 { ShardOp::Escrow(messages) } else { ShardOp::EscrowOf { generation, messages } }
    }
}

/// See [`ShardOp::PutProfile`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PutProfile {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// By name.
    pub attributes: Option<Vec<(String, Value)>>,
    /// By name.
    pub segments: Option<Vec<String>>,
}

/// See [`ShardOp::PutRow`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PutRow {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// Table.
    pub schema: SchemaKey,
    /// Column name → value, all columns.
    pub columns: Vec<(String, Value)>,
}

/// Identifies a decision within its profile: drawn from the decision's seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct DecisionId(pub u64);

/// Two hashes that make a keyed call recognisable: XXH3-128 of the idempotency key, XXH3-64 of the canonical body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Idempotency {
    /// Hash of the key.
    pub key: u128,
    /// Hash of the body.
    pub body: u64,
    /// When it is forgotten.
    pub until: Timestamp,
}

/// What a decision takes: applied wholly or not at all.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Take {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// The decision.
    pub decision: DecisionId,
    /// Key of a retry.
    pub idempotency: Option<Idempotency>,
    /// An earlier decision whose unshown units are given back in the same turn.
    pub supersedes: Option<DecisionId>,
    /// The propositions, by rank from 1. Those that take nothing are there too (they may be answered).
    pub propositions: Vec<TakenProposition>,
    /// What was withheld.
    pub ghosts: Vec<Ghost>,
    /// The calendar day in which mandatory offers are counted, and at most how many distinct ones.
    pub mandatory: Option<(Span, u32)>,
    /// Strict contact policies to re-check and hold.
    pub policies: Vec<PolicyTake>,
    /// Units of soft caps that count at once, on the decision or on an impression it implies: used as far as they are free,
    /// and no reason to refuse.
    pub counts: Vec<CapTake>,
    /// Until when the propositions may be answered.
    pub answerable_until: Timestamp,
    /// With an idempotency key: what a retry is answered.
    pub answer: Option<Arc<FirstAnswer>>,
}

/// The answer to a keyed decision, kept so that a retry gets all of it again.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct FirstAnswer {
    /// What was decided, whole but for its explanation (and its computed fields, if it is larger than
    /// [`KEPT_ANSWER_BYTES`] with them).
    pub decision: Decision,
    /// What takes units of global caps was left out, because others kept taking them first.
    pub contended: bool,
}

impl FirstAnswer {
    /// Keeps of `decision` what a retry is to get.
    pub fn of(decision: &Decision, contended: bool) -> Self {
        let mut kept = FirstAnswer { decision: Decision { explanation: None, ..decision.clone() }, contended };
        if kept.bytes() > KEPT_ANSWER_BYTES {
            kept.decision.propositions.iter_mut().for_each(|proposition| proposition.computed.clear());
        }
        kept
    }

    /// Bytes that reading it will claim, roughly those it takes in memory. O(its parts).
    pub fn bytes(&self) -> usize {
        size_of::<FirstAnswer>() + claims(self)
    }
}

/// One proposition of a [`Take`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TakenProposition {
    /// What.
    pub offer: OfferKey,
    /// Content, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
    /// Category at decision time.
    pub category: Option<CategoryKey>,
    /// exp of its log-sum score.
    pub score: f64,
    /// Counts against the mandatory limit.
    pub mandatory: bool,
    /// Fallback offers take nothing and are no evidence.
    pub fallback: bool,
    /// Whether it is evidence for learning: not fallback, mandatory or for a held-out customer.
    pub evidence: bool,
    /// The channel counts a decision as shown.
    pub implied_impression: bool,
    /// Units.
    pub takes: Vec<CapTake>,
}

/// One unit (or price) of one cap.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub struct CapTake {
    /// Which cap.
    pub cap: CapKey,
    /// Whose account.
    pub account: TakeAccount,
    /// What turns the reservation into use.
    pub count_on: CountEvent,
    /// When the reservation lapses.
    pub expires_at: Timestamp,
}

/// What turns a reservation into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CountEvent {
    /// The decision itself: used at once.
    Decision,
    /// The first impression.
    Impression,
    /// The first outcome of this type.
    Outcome(OutcomeKey),
}

/// Where a unit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
pub enum TakeAccount {
    /// The profile's own counter: refused when used + reserved ≥ limit in the window.
    Profile {
        /// Limit in force when it was decided.
        limit: u64,
        /// Window that counts.
        window: Window,
    },
    /// The shard's escrow of a global account.
    Global {
        /// Which one: of one period.
        account: AccountId,
        /// Units, or micro-units of money.
        amount: u64,
    },
}

/// The stretch of time a profile counter looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Window {
    /// For ever.
    Lifetime,
    /// `[from, until)`, a calendar period.
    Calendar(Span),
    /// The last so many milliseconds.
    Rolling {
        /// Length.
        ms: i64,
    },
}

/// A strict contact policy's units: counted like a profile cap over what the policy counts.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct PolicyTake {
    /// Rank (from 1) of the proposition it guards.
    pub rank: u16,
    /// What is counted.
    pub counted: Counted,
    /// Limit; `u64::MAX`: the proposition passes the policy by (an override, or mandatory): it counts and is not refused.
    pub limit: u64,
    /// Window.
    pub window: Window,
    /// Looks at earlier answers only (a cooldown), not at the other propositions of this one.
    pub earlier_only: bool,
    /// When the hold lapses.
    pub expires_at: Timestamp,
}

/// Which impressions of a profile a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Counted {
    /// All.
    All,
    /// One offer's.
    Offer(OfferKey),
    /// One creative's.
    Creative(CreativeKey),
    /// One category's.
    Category(CategoryKey),
    /// One channel's.
    Channel(ChannelKey),
    /// One placement's.
    Placement(PlacementKey),
}

/// See [`ShardOp::Respond`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Respond {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// Required: counts once.
    pub idempotency: Idempotency,
    /// The proposition answered, when a `recommendationId` was given: decision and rank from 1.
    pub proposition: Option<(DecisionId, u16)>,
    /// When that decision was made.
    pub decided_at: Option<Timestamp>,
    /// Until when its propositions may be answered.
    pub answerable_until: Option<Timestamp>,
    /// What.
    pub offer: OfferKey,
    /// Content, or NONE.
    pub creative: CreativeKey,
    /// Channel, or NONE.
    pub channel: ChannelKey,
    /// Placement, or NONE.
    pub placement: PlacementKey,
    /// Category.
    pub category: Option<CategoryKey>,
    /// What happened.
    pub outcome: OutcomeKey,
    /// How it counts.
    pub sentiment: Sentiment,
    /// Money or value of a conversion.
    pub value: Option<Micros>,
    /// Whether it is evidence for learning (not for fallback, mandatory, held-out propositions).
    pub evidence: bool,
    /// The caps of the offer that this outcome (or the impression it implies) counts on, reservation or not.
    pub counts: Vec<CapTake>,
    /// For `opt_out`.
    pub opt_out: Option<OptOut>,
    /// It was withheld from a held-out customer, who did it all the same: recorded, but nobody was shown anything.
    pub withheld: bool,
}

/// What an opt-out bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum OptOut {
    /// The offer.
    Offer(OfferKey),
    /// All offers of a category.
    Category(CategoryKey),
    /// Everything on a channel.
    Channel(ChannelKey),
    /// Everything.
    All,
}

/// See [`ShardOp::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Release {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub customer: CustomerId,
    /// Of which decision.
    pub decision: DecisionId,
    /// Which ranks (from 1); empty = all.
    pub ranks: Vec<u16>,
}

/// One account's totals from the ledger to a shard (architecture.md §4: cumulative, so loss, doubling and reordering need
/// nothing more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EscrowMessage {
    /// Which account.
    pub account: AccountId,
    /// Total ever granted to this shard.
    pub granted: u64,
    /// Period of the account.
    pub span: Span,
    /// Units of one action (1, or costPerAction in micro-units): smaller rests are returned.
    pub unit: u64,
    /// Rolling window after which a spent unit is free again; 0 = never.
    pub cooling_ms: i64,
    /// What the ledger asks back.
    pub recall: Recall,
    /// The ledger has seen everything settled: the shard may forget the account.
    pub closed: bool,
    /// Counts the edits of unit, limit and enforcement: of two messages the one with the higher number holds.
    pub version: u32,
    /// The cap is soft: the shard counts without units in hand, while it knows of something left.
    pub soft: Option<SoftTerms>,
}

/// What a shard has to know of a soft account to see that it is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SoftTerms {
    /// Limit in force, in units or micro-units of money.
    pub limit: u64,
    /// Total that other shards ever took, as far as they have reported.
    pub taken_elsewhere: u64,
    /// Total that they ever gave back.
    pub returned_elsewhere: u64,
}

/// What the ledger asks back of a shard's free units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Recall {
    /// Nothing.
    #[default]
    Nothing,
    /// Other shards starve: all but what was used in the last second.
    Spare,
    /// The limit was lowered: all.
    All,
}

/// A global account: one cap in one period. Accounts are per tenant; the tenant's number makes them unique in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct AccountId {
    /// Tenant's number in the catalogue (never reused).
    pub tenant: u32,
    /// Cap.
    pub cap: CapKey,
    /// Which period, counted from 0; rises, never reused.
    pub ordinal: u32,
}
