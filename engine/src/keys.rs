//! Keys: small numbers given to authored things at creation and never reused (architecture.md §7). State, log entries and
//! escrow speak keys; a position in a snapshot never leaves that snapshot.

use std::fmt;

use bincode::{Decode, Encode};

macro_rules! key {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

key! {
    /// An offer.
    OfferKey(u32);
    /// A creative.
    CreativeKey(u32);
    /// A category.
    CategoryKey(u32);
    /// A sub-category.
    SubCategoryKey(u32);
    /// A channel. 16 bits, because each exposure in each profile stores one: a tenant can create 65,535 in its life.
    ChannelKey(u16);
    /// A placement.
    PlacementKey(u32);
    /// A collection.
    CollectionKey(u32);
    /// An activity (decision scope).
    ActivityKey(u32);
    /// A qualification rule.
    RuleKey(u32);
    /// A contact policy.
    PolicyKey(u32);
    /// A schema.
    SchemaKey(u32);
    /// A decision flow.
    FlowKey(u32);
    /// A guardrail.
    GuardrailKey(u32);
    /// A behavioural metric.
    MetricKey(u32);
    /// A model that P comes from.
    ModelKey(u32);
    /// One cap of one offer (its `capId`): survives edits of the limit; a new one is given when `per`, `window`, `countOn`,
    /// `scope` or the placement changes.
    CapKey(u32);
    /// An outcome type: 0–9 are the built-in ones in the order of domain.md §5, custom ones follow.
    OutcomeKey(u16);
    /// A name interned in one shard's symbol table (attribute, column or segment name).
    Symbol(u32);
    /// A shard of the cluster.
    ShardId(u16);
    /// Index of a fact in a compiled snapshot. Never stored.
    Slot(u16);
    /// Catalogue revision: index of the meta entry that made it.
    Revision(u64);
}

impl ChannelKey {
    /// Stands for "no channel named" where a channel is optional; never given to a channel.
    pub const NONE: ChannelKey = ChannelKey(u16::MAX);
}

impl CreativeKey {
    /// Stands for "no creative"; never given to a creative.
    pub const NONE: CreativeKey = CreativeKey(u32::MAX);
}

impl PlacementKey {
    /// Stands for "no placement"; never given to a placement.
    pub const NONE: PlacementKey = PlacementKey(u32::MAX);
}

/// A tenant's name: 1–64 of `[a-z0-9-_]`. Every stored thing belongs to exactly one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct TenantId(pub std::sync::Arc<str>);

impl TenantId {
    /// Wraps a name that the caller has checked.
    pub fn new(name: impl AsRef<str>) -> Self {
        TenantId(std::sync::Arc::from(name.as_ref()))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A customer's id as the channel gives it: 1–256 bytes, opaque.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CustomerId(pub std::sync::Arc<str>);

impl CustomerId {
    /// Wraps an id that the caller has checked for length.
    pub fn new(id: impl AsRef<str>) -> Self {
        CustomerId(std::sync::Arc::from(id.as_ref()))
    }
}

/// Money as fixed-point micro-units (1.50 = 1,500,000), never a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Micros(pub i64);
