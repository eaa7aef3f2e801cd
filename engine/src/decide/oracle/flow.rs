//! Which flow decides, and what it says.

use crate::catalog::TenantCatalog;
use crate::decide::decision::{FlowChoice, RemovalReason};
use crate::decide::request::{Request, SlotTarget};
use crate::keys::{ChannelKey, FlowKey, PlacementKey};
use crate::model::Status;
use crate::model::filter::FilterGroup;
use crate::model::flow::{
    EnrichSource, Experiment, Inventory, MatchCreatives, Node, PlacementMatchMode, ResponseFormat, Score, Selection,
    SelectionMode,
};
use crate::model::record::Field;
use crate::value::Value;

/// What the chosen flow says, by subject.
pub(super) struct Flow {
    pub(super) choice: FlowChoice,
    /// The flow's own key, the default name of its experiment.
    pub(super) name: String,
    pub(super) is_active: bool,
    pub(super) inventory: Option<Inventory>,
    pub(super) creatives: MatchCreatives,
    pub(super) sources: Vec<EnrichSource>,
    /// Empty: no rule binds.
    pub(super) qualify: Vec<Selection>,
    /// Empty: no policy binds.
    pub(super) contact: Vec<Selection>,
    /// Filters, each with its place among the nodes of its flow.
    pub(super) filters: Vec<(RemovalReason, FilterGroup)>,
    pub(super) score: Score,
    pub(super) most: u32,
    /// Computed fields that answers carry; empty = all.
    pub(super) computed: Vec<String>,
    pub(super) experiment: Option<Experiment>,
}

impl Flow {
    /// Named by the request, else by the first slot's activity, else by the route of the first slot's channel and
    /// placement, else by the route of its channel, else the tenant's default, else the base flow.
    pub(super) fn choose(catalog: &TenantCatalog, request: &Request) -> Self {
        let (activity_flow, channel, placement) = first_slot(catalog, request);
        let settings = catalog.settings();
        let route = |placement: Option<PlacementKey>| {
            let found = settings.routes.iter().find(|route| {
                let routed = route.placement_id.as_ref().map(|id| catalog.placements().key_of(&id.0));
                catalog.channels().key_of(&route.channel_id.0) == channel
                    && channel.is_some()
                    && routed == placement.map(Some)
            });
            found.map(|route| route.decision_flow_key.clone())
        };
        let by_key = |key: String| catalog.flow_by_key(&key).map(|flow| flow.key);
        let chosen = request
            .flow
            .or_else(|| activity_flow.and_then(by_key))
            .or_else(|| placement.and_then(|placement| route(Some(placement))).and_then(by_key))
            .or_else(|| route(None).and_then(by_key))
            .or_else(|| settings.default_flow_key.clone().and_then(by_key));
        match chosen {
            Some(key) => Self::published(catalog, key),
            None => Self::base(catalog),
        }
    }

    /// inventory all → match_creatives (not required) → qualify → contact_policy → score priority_weighted → rank topN 50
    /// → compute → response; `customer.*` is the profile and its customer rows.
    fn base(catalog: &TenantCatalog) -> Self {
        let everything = Selection { mode: SelectionMode::All, ids: Vec::new() };
        let rows = catalog.schemas().iter().map(|schema| EnrichSource {
            schema_id: crate::model::Ref(schema.id.clone()),
            lookup_key: String::new(),
            fields: Vec::new(),
            prefix: "customer".to_owned(),
        });
        Flow {
            choice: FlowChoice { key: None, version: 0, compact: false },
            is_active: true,
            qualify: vec![everything.clone()],
            contact: vec![everything],
            sources: rows.collect(),
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Flow {
            choice: FlowChoice { key: None, version: 0, compact: false },
            name: String::new(),
            is_active: false,
            inventory: None,
            creatives: MatchCreatives { require_creative: false, placement_match_mode: PlacementMatchMode::Any },
            sources: Vec::new(),
            qualify: Vec::new(),
            contact: Vec::new(),
            filters: Vec::new(),
            score: Field::read(&Value::map::<&str>([]), &mut crate::model::fault::Faults::new())
                .expect("every member of a score has a default"),
            most: 50,
            computed: Vec::new(),
            experiment: None,
        }
    }

    fn published(catalog: &TenantCatalog, key: FlowKey) -> Self {
        let unknown = Flow { choice: FlowChoice { key: Some(key), version: 0, compact: false }, ..Self::empty() };
        let Some(entity) = catalog.flows().get(key) else { return unknown };
        let Some(version) = catalog.current_version(key) else { return unknown };
        let mut flow = Flow {
            choice: FlowChoice { key: Some(key), version: version.number, compact: false },
            name: entity.body.key.clone(),
            is_active: entity.body.status == Status::Active,
            experiment: version.config.flow_config.experiment.clone().filter(|experiment| experiment.enabled),
            ..unknown
        };
        let mut nodes: Vec<_> = version.config.nodes.iter().zip(0u16..).collect();
        nodes.sort_by_key(|(node, _)| (node.phase, node.position));
        for (node, number) in nodes {
            match &node.node {
                Node::Inventory(inventory) => flow.inventory = Some(inventory.clone()),
                Node::MatchCreatives(creatives) => flow.creatives = creatives.clone(),
                Node::Enrich(enrich) => flow.sources.extend(enrich.sources.iter().cloned()),
                Node::Qualify(selection) => flow.qualify.push(selection.clone()),
                Node::ContactPolicy(selection) => flow.contact.push(selection.clone()),
                Node::Filter(filter) => {
                    flow.filters.push((RemovalReason::Filter { flow: key, node: number }, filter.clone()));
                }
                Node::Score(score) => flow.score = (**score).clone(),
                Node::Rank(rank) => flow.most = rank.max_candidates,
                Node::Group(_) => {}
                Node::Compute(compute) => flow.computed.extend(compute.fields.iter().cloned()),
                Node::Response(response) => {
                    flow.choice.compact = response.response_format == ResponseFormat::Compact;
                }
            }
        }
        flow
    }
}

/// Whether any of the selections takes in the rule or policy with this id.
pub(super) fn selects(selections: &[Selection], id: &str) -> bool {
    selections.iter().any(|selection| match selection.mode {
        SelectionMode::All => true,
        SelectionMode::Selected => selection.ids.iter().any(|selected| selected.0 == id),
    })
}

fn first_slot(
    catalog: &TenantCatalog,
    request: &Request,
) -> (Option<String>, Option<ChannelKey>, Option<PlacementKey>) {
    match request.slots.first().map(|slot| slot.target) {
        None => (None, request.channel, None),
        Some(SlotTarget::Placement(placement)) => (None, catalog.channel_of(placement), Some(placement)),
        Some(SlotTarget::Activity(activity)) => {
            let Some(activity) = catalog.activities().get(activity) else { return (None, None, None) };
            let placement = catalog.placements().key_of(&activity.body.placement_id.0);
            let channel = placement.and_then(|placement| catalog.channel_of(placement));
            (activity.body.decision_flow_key.clone(), channel, placement)
        }
    }
}
