//! Which flow decides, and what it says.

use std::collections::BTreeMap;

use crate::catalog::TenantCatalog;
use crate::decide::decision::{FlowChoice, RemovalReason};
use crate::decide::request::{Request, SlotTarget};
use crate::keys::{ChannelKey, FlowKey, PlacementKey};
use crate::model::Status;
use crate::model::filter::FilterGroup;
use crate::model::flow::{
    Arbitration, EnrichSource, Experiment, FlowNode, Inventory, MatchCreatives, Node, PlacementMatchMode,
    ResponseFormat, Score, Selection, SelectionMode,
};
use crate::model::objective::Objectives;
use crate::model::record::Field;
use crate::model::scoring::ExpressionScore;
use crate::value::Value;

/// What the chosen flow says, by subject.
pub(super) struct Flow {
    pub(super) choice: FlowChoice,
    /// The flow's own key, the default name of its experiment.
    pub(super) name: String,
    /// With all flows that it calls.
    pub(super) is_active: bool,
    /// Whether the flow's own status lets it decide.
    is_active_itself: bool,
    /// Whether it, or a flow that it calls, has a conditional.
    has_branches: bool,
    /// An offer must be in all of them.
    pub(super) inventories: Vec<Inventory>,
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
    /// How slots share offers, where the request does not say.
    pub(super) arbitration: Arbitration,
    /// Computed fields that answers carry; empty = all.
    pub(super) computed: Vec<String>,
    /// Expressions whose values stand beside each proposition, by name.
    pub(super) properties: BTreeMap<String, String>,
    /// Scores instead of `score`.
    pub(super) formula: Option<ExpressionScore>,
    /// What takes the place of the method's score.
    pub(super) objectives: Option<Objectives>,
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
            is_active_itself: false,
            has_branches: false,
            inventories: Vec::new(),
            creatives: MatchCreatives { require_creative: false, placement_match_mode: PlacementMatchMode::Any },
            sources: Vec::new(),
            qualify: Vec::new(),
            contact: Vec::new(),
            filters: Vec::new(),
            score: Field::read(&Value::map::<&str>([]), &mut crate::model::fault::Faults::new())
                .expect("every member of a score has a default"),
            most: 50,
            arbitration: Arbitration::Greedy,
            computed: Vec::new(),
            properties: BTreeMap::new(),
            formula: None,
            objectives: None,
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
            is_active_itself: entity.body.status == Status::Active,
            experiment: version.config.flow_config.experiment.clone().filter(|experiment| experiment.enabled),
            ..unknown
        };
        flow.gather(catalog, None);
        flow
    }

    /// The same with its conditionals, given what their conditions are. `None` if it has none.
    pub(super) fn choose_branches(&self, catalog: &TenantCatalog, holds: &dyn Fn(&str) -> bool) -> Option<Self> {
        if !self.has_branches {
            return None;
        }
        let mut flow = Flow {
            choice: FlowChoice { compact: false, ..self.choice },
            name: self.name.clone(),
            is_active: self.is_active_itself,
            is_active_itself: self.is_active_itself,
            experiment: self.experiment.clone(),
            ..Self::empty()
        };
        flow.gather(catalog, Some(holds));
        Some(flow)
    }

    /// Takes in all nodes that act, phase by phase. Without conditions, conditionals stand for nothing.
    fn gather(&mut self, catalog: &TenantCatalog, holds: Option<&dyn Fn(&str) -> bool>) {
        let Some(key) = self.choice.key else { return };
        let mut acting = Vec::new();
        self.enter(catalog, key, 1, holds, &mut acting);
        acting.sort_by_key(|(phase, ..)| *phase);
        for (_, reason, node) in acting {
            match node {
                Node::Inventory(inventory) => self.inventories.push(inventory),
                Node::MatchCreatives(creatives) => self.creatives = creatives,
                Node::Enrich(enrich) => self.sources.extend(enrich.sources),
                Node::Qualify(selection) => self.qualify.push(selection),
                Node::ContactPolicy(selection) => self.contact.push(selection),
                Node::Filter(filter) => self.filters.push((reason, filter)),
                Node::Score(score) => (self.score, self.formula) = (*score, None),
                Node::ScoreByExpression(score) => self.formula = Some(*score),
                Node::Rank(rank) => self.most = rank.max_candidates,
                Node::Compute(compute) => self.computed = compute.fields,
                Node::SetProperties(config) => self.properties.extend(config.set),
                Node::Optimize(config) => self.objectives = Some(config.objectives),
                Node::Response(response) => {
                    self.choice.compact = response.response_format == ResponseFormat::Compact;
                }
                Node::Group(group) => self.arbitration = group.arbitration,
                Node::Conditional(_) | Node::CallFlow(_) => {}
            }
        }
    }

    /// Adds the acting nodes of a flow from `phase` on, each with its phase and what it is told as if it removes an offer.
    fn enter(
        &mut self,
        catalog: &TenantCatalog,
        flow: FlowKey,
        phase: u8,
        holds: Option<&dyn Fn(&str) -> bool>,
        acting: &mut Vec<(u8, RemovalReason, Node)>,
    ) {
        let Some(version) = catalog.current_version(flow) else { return };
        let mut open: Vec<FlowNode> = version.config.nodes.iter().filter(|node| node.phase >= phase).cloned().collect();
        // The next one last.
        open.sort_by_key(|node| std::cmp::Reverse((node.phase, node.position)));
        while let Some(node) = open.pop() {
            match node.node {
                Node::Conditional(conditional) => {
                    self.has_branches = true;
                    let Some(holds) = holds else { continue };
                    let taken = conditional.branches.iter().find(|branch| holds(&branch.when));
                    let mut nodes = taken.map_or(conditional.otherwise.clone(), |branch| branch.nodes.clone());
                    nodes.sort_by_key(|node| std::cmp::Reverse(node.position));
                    open.extend(nodes);
                }
                Node::CallFlow(call) => {
                    let called = catalog.flow_by_key(&call.flow_key).expect("published calls name flows that exist");
                    self.is_active &= called.body.status == Status::Active;
                    self.enter(catalog, called.key, node.phase, holds, acting);
                }
                own @ (Node::Inventory(_)
                | Node::MatchCreatives(_)
                | Node::Enrich(_)
                | Node::Qualify(_)
                | Node::ContactPolicy(_)
                | Node::Filter(_)
                | Node::Score(_)
                | Node::Rank(_)
                | Node::Group(_)
                | Node::Compute(_)
                | Node::SetProperties(_)
                | Node::Optimize(_)
                | Node::ScoreByExpression(_)
                | Node::Response(_)) => {
                    let place = version.config.place_of(&node.id);
                    acting.push((node.phase, RemovalReason::Filter { flow, node: place }, own));
                }
            }
        }
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
