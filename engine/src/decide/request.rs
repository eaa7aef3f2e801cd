//! What a channel asks, with every name of the catalogue already resolved to its key.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::keys::{ActivityKey, ChannelKey, CreativeKey, CustomerId, FlowKey, OfferKey, PlacementKey, TenantId};
use crate::model::flow::Arbitration;
use crate::value::Value;

/// One decision asked for.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Request {
    /// Whose catalogue.
    pub tenant: TenantId,
    /// For whom.
    pub customer: CustomerId,
    /// Where; `None` when the request names no channel (placements and activities bring their own).
    pub channel: Option<ChannelKey>,
    /// The slots to fill, in answer order. Empty: one ranked list without slots.
    pub slots: Vec<SlotRequest>,
    /// The flow named by the request; `None`: activity's, route, tenant default, base flow.
    pub flow: Option<FlowKey>,
    /// Most propositions in the whole answer. `None`: 5 without slots, unbounded with slots.
    pub limit: Option<u32>,
    /// `attributes.*`, by name.
    pub attributes: Vec<(Arc<str>, Value)>,
    /// `context.*`, by name.
    pub context: Vec<(Arc<str>, Value)>,
    /// Segments united with the profile's.
    pub segments: Vec<Arc<str>>,
    /// Offers not to propose.
    pub exclude_offers: Vec<OfferKey>,
    /// Creatives not to show.
    pub exclude_creatives: Vec<CreativeKey>,
    /// Whether one offer may fill several slots.
    pub duplicates: Duplicates,
    /// How slots share offers; `None`: as the flow says.
    pub arbitration: Option<Arbitration>,
    /// How much of an explanation to make.
    pub explain: Explain,
    /// Whether the funnel's counters must be exact (they may be left at zero otherwise).
    pub counters: bool,
}

/// Where one offer may stand more than once in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Duplicates {
    /// Nowhere.
    #[default]
    Never,
    /// In slots of one placement: Adobe's `acrossActivities` without `acrossPlacements`.
    WithinPlacement,
    /// In any two slots.
    Anywhere,
}

impl Duplicates {
    /// Whether an offer that stands in one placement may not stand in another (or the same) once more.
    pub(crate) fn bar(self, chosen: PlacementKey, here: PlacementKey) -> bool {
        match self {
            Duplicates::Never => true,
            Duplicates::WithinPlacement => chosen != here,
            Duplicates::Anywhere => false,
        }
    }
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SlotRequest {
    /// What names it.
    pub target: SlotTarget,
    /// Most propositions in it, ≥ 1.
    pub limit: u32,
}

/// What names a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum SlotTarget {
    /// A placement: every general offer competes.
    Placement(PlacementKey),
    /// An activity: its collection competes, its fallback steps in.
    Activity(ActivityKey),
}

/// How much of an explanation to make. Explaining never changes what is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Explain {
    /// None.
    Off,
    /// Factors of each proposition, and why up to so many offers were removed.
    Full {
        /// Most removed offers listed.
        limit: u32,
    },
}
