//! Names of a request turned into keys of the catalogue, every unknown one reported.

use std::sync::Arc;

use proffer_cluster::view::TenantView;
use proffer_engine::catalog::TenantCatalog;
use proffer_engine::catalog::table::{Resolved, Table, TableKey};
use proffer_engine::decide::request::{Duplicates, Explain, Request, SlotRequest, SlotTarget};
use proffer_engine::keys::{ActivityKey, ChannelKey, CreativeKey, CustomerId, OfferKey, PlacementKey};
use proffer_engine::model::Ref;
use proffer_engine::model::fault::Faults;
use proffer_engine::value::Value;

use crate::limits::PROPOSITIONS_MAX;
use crate::problem::Problem;
use crate::wire::field::{Limit, Name, Names};
use crate::wire::recommend::Recommend;

/// Which slots a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// `placement` and `placements`.
    Placements,
    /// `activities`, at least one.
    Activities,
    /// Either.
    Any,
}

/// The request that `body` asks for under `view`.
///
/// # Errors
/// [`Problem::Invalid`] with every unknown name, every slot the route does not take, every limit broken.
pub fn resolve(body: &Recommend, slots: Slots, view: &TenantView) -> Result<Request, Problem> {
    let mut faults = Faults::new();
    let request = Resolver { catalog: &view.catalog, faults: &mut faults }.request(body, slots, view);
    if faults.is_empty() { Ok(request) } else { Err(Problem::Invalid(faults.into_vec())) }
}

/// The channel that a body names, by name, by id or both.
pub fn channel(
    catalog: &TenantCatalog,
    name: Option<&Name>,
    id: Option<&Name>,
    faults: &mut Faults,
) -> Option<ChannelKey> {
    let named = name.and_then(|name| find(catalog.channels(), "channel", "channel", name, faults));
    let by_id = id.and_then(|id| find(catalog.channels(), "channelId", "channel", id, faults));
    match (named, by_id) {
        (Some(named), Some(by_id)) if named != by_id => {
            faults.add_at("channelId", "names another channel than channel");
            None
        }
        (named, by_id) => named.or(by_id),
    }
}

/// The thing that `member` of a body names by id or exact name.
pub fn find<K: TableKey, T>(
    table: &Table<K, T>,
    member: &str,
    noun: &str,
    name: &Name,
    faults: &mut Faults,
) -> Option<K> {
    match table.resolve(&Ref(name.0.to_string())) {
        Resolved::Found(key) => Some(key),
        Resolved::Unknown => {
            faults.add_at(member, format!("{noun} {:?} does not exist", name.0));
            None
        }
        Resolved::Ambiguous => {
            faults.add_at(member, format!("several things are named {:?}: use the id", name.0));
            None
        }
    }
}

struct Resolver<'a> {
    catalog: &'a TenantCatalog,
    faults: &'a mut Faults,
}

impl Resolver<'_> {
    fn request(mut self, body: &Recommend, slots: Slots, view: &TenantView) -> Request {
        let channel = channel(self.catalog, body.channel.as_ref(), body.channel_id.as_ref(), self.faults);
        let targets = self.slots(body, slots, channel);
        self.check_size(&targets, body.limit);
        let flow = body.decision_flow_key.as_ref().and_then(|key| {
            let found = self.catalog.flow_by_key(&key.0).map(|flow| flow.key);
            if found.is_none() {
                self.faults.add_at("decisionFlowKey", format!("decision flow {:?} does not exist", key.0));
            }
            found
        });
        let explain_limit = self.catalog.settings().explain_limit;
        Request {
            tenant: view.tenant.clone(),
            customer: CustomerId(Arc::clone(&body.customer_id.0)),
            channel,
            slots: targets,
            flow,
            limit: body.limit.map(|limit| limit.0),
            attributes: body.attributes.0.clone(),
            context: context(body),
            segments: body.segments.0.clone(),
            exclude_offers: self.offers("excludeOffers", &body.exclude_offers),
            exclude_creatives: self.creatives("excludeCreatives", &body.exclude_creatives),
            duplicates: if body.allow_duplicates { Duplicates::Anywhere } else { Duplicates::Never },
            arbitration: body.arbitration,
            explain: if body.explain { Explain::Full { limit: explain_limit } } else { Explain::Off },
            counters: true,
        }
    }

    fn slots(&mut self, body: &Recommend, slots: Slots, channel: Option<ChannelKey>) -> Vec<SlotRequest> {
        let takes_placements = matches!(slots, Slots::Placements | Slots::Any);
        let takes_activities = matches!(slots, Slots::Activities | Slots::Any);
        let mut targets = Vec::new();
        if let Some(slot) = &body.placement {
            let target = self.faults_at("placement", |this| this.placement(&slot.name, channel));
            targets.extend(target.map(|key| slot_request(SlotTarget::Placement(key), slot.limit)));
        }
        for (index, slot) in body.placements.iter().enumerate() {
            let target = self.placement_at(index, &slot.name, channel);
            targets.extend(target.map(|key| slot_request(SlotTarget::Placement(key), slot.limit)));
        }
        for (index, slot) in body.activities.iter().enumerate() {
            let target = self.activity_at(index, &slot.name);
            targets.extend(target.map(|key| slot_request(SlotTarget::Activity(key), slot.limit)));
        }
        if body.placement.is_some() && !body.placements.is_empty() {
            self.faults.add_at("placement", "give placement or placements, not both");
        }
        if !takes_placements && body.placement.is_some() {
            self.faults.add_at("placement", "unknown field: this route takes activities");
        }
        if !takes_placements && !body.placements.is_empty() {
            self.faults.add_at("placements", "unknown field: this route takes activities");
        }
        if !takes_activities && !body.activities.is_empty() {
            self.faults.add_at("activities", "unknown field: POST /api/v1/decisions takes activities");
        }
        if slots == Slots::Activities && body.activities.is_empty() {
            self.faults.add_at("activities", "is required");
        }
        if slots == Slots::Any
            && !body.activities.is_empty()
            && (body.placement.is_some() || !body.placements.is_empty())
        {
            self.faults.add_at("activities", "give placements or activities, not both");
        }
        targets
    }

    /// The checks of a whole answer's size.
    fn check_size(&mut self, targets: &[SlotRequest], limit: Option<Limit>) {
        let member = match targets.first().map(|slot| slot.target) {
            Some(SlotTarget::Activity(_)) => "activities",
            Some(SlotTarget::Placement(_)) | None => "placements",
        };
        let most = self.catalog.settings().max_slots as usize;
        if targets.len() > most {
            self.faults.add_at(member, format!("must have at most {most} slots"));
        }
        let asked: u32 = targets.iter().map(|slot| slot.limit).sum();
        if limit.is_none() && asked > PROPOSITIONS_MAX {
            self.faults
                .add_at(member, format!("ask for {asked} propositions, at most {PROPOSITIONS_MAX} fit an answer"));
        }
    }

    fn faults_at<T>(&mut self, member: &str, read: impl FnOnce(&mut Resolver<'_>) -> T) -> T {
        let catalog = self.catalog;
        self.faults.within(member, |faults| read(&mut Resolver { catalog, faults }))
    }

    fn placement_at(&mut self, index: usize, name: &Name, channel: Option<ChannelKey>) -> Option<PlacementKey> {
        if let Some(found) = self.known_placement(name, channel) {
            return Some(found);
        }
        self.faults_at("placements", |this| this.faults_at(&index.to_string(), |this| this.placement(name, channel)))
    }

    fn known_placement(&self, name: &Name, channel: Option<ChannelKey>) -> Option<PlacementKey> {
        self.catalog.placement(channel?, &name.0).map(|placement| placement.key)
    }

    /// By key or id in the request's channel; without one by id, or by a key that only one channel has.
    fn placement(&mut self, name: &Name, channel: Option<ChannelKey>) -> Option<PlacementKey> {
        if let Some(found) = self.known_placement(name, channel) {
            return Some(found);
        }
        if let Some(elsewhere) = self.catalog.placements().by_id(&name.0) {
            if channel.is_none() {
                return Some(elsewhere.key);
            }
            self.faults.add(format!("placement {:?} belongs to another channel", name.0));
            return None;
        }
        let keyed = |wanted: Option<&str>| wanted == Some(&name.0);
        let mut found = self.catalog.placements().iter().filter(|placement| keyed(placement.body.key.as_deref()));
        match (channel, found.next(), found.next()) {
            (None, Some(only), None) => Some(only.key),
            (None, Some(_), Some(_)) => {
                self.faults
                    .add(format!("placement {:?} exists in several channels: name the channel or the id", name.0));
                None
            }
            (Some(_), _, _) | (None, None, _) => {
                self.faults.add(format!("placement {:?} does not exist", name.0));
                None
            }
        }
    }

    fn activity_at(&mut self, index: usize, name: &Name) -> Option<ActivityKey> {
        let found = self.catalog.activity(&name.0).map(|activity| activity.key);
        if found.is_none() {
            self.faults_at("activities", |this| {
                this.faults.add_at(&index.to_string(), format!("activity {:?} does not exist", name.0));
            });
        }
        found
    }

    fn offers(&mut self, member: &str, names: &Names) -> Vec<OfferKey> {
        let table = self.catalog.offers();
        self.all(table, member, "offer", names)
    }

    fn creatives(&mut self, member: &str, names: &Names) -> Vec<CreativeKey> {
        let table = self.catalog.creatives();
        self.all(table, member, "creative", names)
    }

    fn all<K: TableKey, T>(&mut self, table: &Table<K, T>, member: &str, noun: &str, names: &Names) -> Vec<K> {
        let mut keys = Vec::with_capacity(names.0.len());
        for (index, name) in names.0.iter().enumerate() {
            let name = Name(Arc::clone(name));
            keys.extend(self.faults_at(member, |this| find(table, &index.to_string(), noun, &name, this.faults)));
        }
        keys
    }
}

fn slot_request(target: SlotTarget, limit: Option<Limit>) -> SlotRequest {
    SlotRequest { target, limit: limit.map_or(1, |limit| limit.0) }
}

/// `context.*`: what the body says of itself steps in where the channel gave no such value.
fn context(body: &Recommend) -> Vec<(Arc<str>, Value)> {
    let mut context = body.context.0.clone();
    for (name, value) in [("sessionId", &body.session_id), ("locale", &body.locale), ("currency", &body.currency)] {
        if let Some(value) = value
            && !context.iter().any(|(known, _)| &**known == name)
        {
            context.push((Arc::from(name), Value::Text(Arc::clone(&value.0))));
        }
    }
    context
}
