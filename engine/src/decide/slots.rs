//! The slots of a request: which flow decides, where each proposition would go, what may compete for it.

use smallvec::{SmallVec, smallvec};

use crate::decide::candidates::Admission;
use crate::decide::case::{Case, Spot};
use crate::decide::request::{Request, SlotTarget};
use crate::keys::{ActivityKey, ChannelKey, OfferKey, PlacementKey};
use crate::snapshot::flows::Flow;
use crate::snapshot::shared::Shared;

/// Most propositions of a request without slots that gives no limit.
const DEFAULT_LIMIT: u32 = 5;

/// One place to fill. A request without slots has one without a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lane {
    pub(crate) number: Option<u16>,
    pub(crate) activity: Option<ActivityKey>,
    pub(crate) spot: Spot,
    pub(crate) limit: usize,
    /// Flow, activity, placement and channel are in force.
    pub(crate) active: bool,
    pub(crate) atomic: bool,
    pub(crate) admission: Admission,
    pub(crate) fallback: Option<OfferKey>,
}

/// The flow that decides: named by the request, else by the first slot's activity, else by the route of the first slot's
/// channel and placement, else of its channel, else the tenant's default, else the base flow. `None`: a named flow that
/// does not exist.
pub(crate) fn choose_flow<'a>(shared: &'a Shared, request: &Request) -> Option<&'a Flow> {
    if let Some(key) = request.flow {
        return shared.flow_numbers.get(&key).map(|number| &shared.flows[*number]);
    }
    let (own, channel, placement) = match request.slots.first().map(|slot| slot.target) {
        None => (None, request.channel, None),
        Some(SlotTarget::Placement(placement)) => {
            (None, shared.placements.get(&placement).map(|placement| placement.channel), Some(placement))
        }
        Some(SlotTarget::Activity(activity)) => match shared.activities.get(&activity) {
            None => (None, None, None),
            Some(activity) => {
                let channel = shared.placements.get(&activity.placement).map(|placement| placement.channel);
                (activity.flow, channel, Some(activity.placement))
            }
        },
    };
    let route = |placement: Option<PlacementKey>| {
        let channel = channel?;
        shared.routes.iter().find(|route| route.channel == channel && route.placement == placement)?.flow
    };
    let number = own
        .or_else(|| route(Some(placement?)))
        .or_else(|| route(None))
        .or(shared.default_flow)
        .unwrap_or(shared.base_flow);
    Some(&shared.flows[number])
}

/// The lanes of the case's request under `flow`.
pub(crate) fn open(case: &Case<'_>, flow: &Flow, flow_active: bool) -> SmallVec<[Lane; 2]> {
    let request = case.request;
    if request.slots.is_empty() {
        let channel = request.channel.unwrap_or(ChannelKey::NONE);
        return smallvec![Lane {
            number: None,
            activity: None,
            spot: Spot { channel, placement: PlacementKey::NONE },
            limit: request.limit.unwrap_or(DEFAULT_LIMIT).min(flow.most) as usize,
            active: flow_active && is_channel_open(case, channel),
            atomic: false,
            admission: Admission::All,
            fallback: None,
        }];
    }
    let slots = request.slots.iter().zip(0..);
    slots
        .map(|(slot, number)| {
            let lane = lane(case, slot.target, slot.limit as usize, number);
            Lane { active: lane.active && flow_active, ..lane }
        })
        .collect()
}

fn lane(case: &Case<'_>, target: SlotTarget, limit: usize, number: u16) -> Lane {
    let shared = case.shared;
    let (key, activity, placement) = match target {
        SlotTarget::Placement(placement) => (None, None, Some(placement)),
        SlotTarget::Activity(key) => {
            let activity = shared.activities.get(&key);
            (Some(key), activity, activity.map(|activity| activity.placement))
        }
    };
    let placed = placement.and_then(|placement| shared.placements.get(&placement));
    let channel = placed.map_or(ChannelKey::NONE, |placement| placement.channel);
    let collection = activity.map(|activity| activity.collection);
    Lane {
        number: Some(number),
        activity: key,
        spot: Spot { channel, placement: placement.unwrap_or(PlacementKey::NONE) },
        limit,
        active: placed.is_some_and(|placement| placement.active)
            && is_channel_open(case, channel)
            && (key.is_none() || activity.is_some_and(|activity| activity.active)),
        atomic: shared.channels.get(&channel).is_some_and(|channel| channel.atomic),
        admission: match (key, collection) {
            (None, _) => Admission::All,
            (Some(_), Some(Some(collection))) => Admission::Collection(collection),
            (Some(_), Some(None) | None) => Admission::None,
        },
        fallback: activity.and_then(|activity| activity.fallback),
    }
}

fn is_channel_open(case: &Case<'_>, channel: ChannelKey) -> bool {
    channel == ChannelKey::NONE || case.shared.channels.get(&channel).is_some_and(|channel| channel.active)
}
