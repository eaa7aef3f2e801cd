//! Decision flows, compiled: which offers, which rules and policies, which score.

use std::collections::BTreeMap;

use super::rules::Selector;
use super::screens::{Screen, Test};
use super::shared::Interner;
use super::slots::{CUSTOMER, Names};
use crate::catalog::TenantCatalog;
use crate::keys::{CategoryKey, ChannelKey, FlowKey, OfferKey, PolicyKey, RuleKey, SchemaKey, SubCategoryKey};
use crate::model::flow::{
    ControlGroupAction, DecisionFlow, FormulaWeights, ImpactBlend, Inventory, InventoryScope, Node, PlacementMatchMode,
    Relevance, ResponseFormat, Score, ScoreMethod, Selection, SelectionMode,
};
use crate::model::schema::SchemaEntity;
use crate::model::{Entity, Ref, Status};

/// A compiled flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// `None`: the base flow.
    pub key: Option<FlowKey>,
    /// Published version.
    pub version: u32,
    /// Active and published.
    pub active: bool,
    /// Ids, scores and ranks only.
    pub compact: bool,
    /// Which inventory.
    pub inventory: usize,
    /// Drop offers without content.
    pub require_creative: bool,
    /// How placements match.
    pub mode: PlacementMatchMode,
    /// Rows that become facts, in order.
    pub enrich: Vec<Loading>,
    /// Which rules; `None`: no rules at all.
    pub rules: Option<usize>,
    /// Which policies; `None`: none.
    pub policies: Option<usize>,
    /// Tests that offers must pass, in order.
    pub screens: Vec<Screen>,
    /// Which scoring plan for channels that no override names.
    pub plan: usize,
    /// Which for those that one does.
    pub channel_plans: BTreeMap<ChannelKey, usize>,
    /// How many remain.
    pub most: u32,
    /// Computed fields that answers carry; empty = all.
    pub computed: Vec<String>,
    /// Holdout.
    pub trial: Option<Trial>,
}

impl Flow {
    /// The plan for a channel.
    pub fn plan_on(&self, channel: ChannelKey) -> usize {
        self.channel_plans.get(&channel).copied().unwrap_or(self.plan)
    }
}

/// A row that becomes facts.
#[derive(Clone, Debug, PartialEq)]
pub struct Loading {
    /// Which table.
    pub schema: SchemaKey,
    /// Number of the namespace.
    pub namespace: u16,
    /// Columns; empty = all.
    pub fields: Vec<String>,
}

/// An enabled experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Its name.
    pub key: String,
    /// Share held out.
    pub percent: f64,
    /// What held-out customers get.
    pub action: ControlGroupAction,
}

/// Which offers take part.
#[derive(Clone, Debug, PartialEq)]
pub enum Stock {
    /// Every general offer.
    All,
    /// Those of these.
    Categories(Vec<CategoryKey>, Vec<SubCategoryKey>),
    /// These.
    Named(Vec<OfferKey>),
}

/// Method and weights for an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSet {
    /// Which formula.
    pub method: ScoreMethod,
    /// Its exponents.
    pub weights: FormulaWeights,
}

/// How offers are scored on a channel: the node's weights and those that override them for some offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Weights of offers that no override matches.
    pub base: WeightSet,
    /// First match wins: category, productType, weights.
    pub overrides: Vec<(Option<Option<CategoryKey>>, Option<String>, WeightSet)>,
    /// Signals of R.
    pub relevance: Relevance,
    /// Blend of I.
    pub impact: Option<ImpactBlend>,
    /// What a holdout of action `priority_only` scores by: nothing but priority.
    pub priority_only: bool,
}

/// No weights: every term left out.
const NO_WEIGHTS: FormulaWeights = FormulaWeights {
    propensity_weight: 0.0,
    relevance_weight: 0.0,
    impact_weight: 0.0,
    emphasis_weight: 0.0,
    uplift_weight: 0.0,
    uplift_scale: 0.1,
};

const NO_RELEVANCE: Relevance =
    Relevance { channel_match: None, freshness: None, segment_match: None, half_life_days: 7.0 };

impl Plan {
    /// Priority and creative weight.
    pub fn priority_weighted() -> Self {
        Plan {
            base: WeightSet { method: ScoreMethod::PriorityWeighted, weights: NO_WEIGHTS },
            overrides: Vec::new(),
            relevance: NO_RELEVANCE,
            impact: None,
            priority_only: false,
        }
    }

    /// Priority alone.
    pub fn priority_only() -> Self {
        Plan { priority_only: true, ..Plan::priority_weighted() }
    }

    fn new(catalog: &TenantCatalog, score: &Score, channel: Option<ChannelKey>) -> Self {
        let weights = score.formula.clone().unwrap_or(NO_WEIGHTS);
        let base = WeightSet { method: score.method, weights };
        let applying = score.overrides.iter().filter(|other| {
            let named = other.channel.as_ref().map(|named| catalog.channels().key_of(&named.0));
            named.is_none_or(|named| named.is_some() && named == channel)
        });
        let overrides = applying.map(|other| {
            let set = WeightSet {
                method: other.method.unwrap_or(base.method),
                weights: other.formula.clone().unwrap_or_else(|| base.weights.clone()),
            };
            let category = other.category.as_ref().map(|category| catalog.categories().key_of(&category.0));
            (category, other.product_type.clone(), set)
        });
        Plan {
            overrides: overrides.collect(),
            base: base.clone(),
            relevance: score.relevance.clone(),
            impact: score.impact.clone(),
            priority_only: false,
        }
    }
}

/// Parts that flows share, each once.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Inventories.
    pub stocks: Interner<Stock>,
    /// Selections of rules.
    pub rules: Interner<Selector<RuleKey>>,
    /// Selections of policies.
    pub policies: Interner<Selector<PolicyKey>>,
    /// Scoring plans.
    pub plans: Interner<Plan>,
    /// Tests of filters.
    pub tests: Interner<Test>,
}

impl Flow {
    /// The flow that decides where nothing else is said.
    pub(crate) fn base(catalog: &TenantCatalog, parts: &mut Parts) -> Self {
        let schemas = catalog
            .schemas()
            .iter()
            .filter(|schema| schema.body.status == Status::Active && schema.body.entity_type == SchemaEntity::Customer);
        Flow {
            key: None,
            version: 0,
            active: true,
            compact: false,
            inventory: parts.stocks.number(Stock::All),
            require_creative: false,
            mode: PlacementMatchMode::Any,
            enrich: schemas
                .map(|schema| Loading { schema: schema.key, namespace: CUSTOMER, fields: Vec::new() })
                .collect(),
            rules: Some(parts.rules.number(Selector::All)),
            policies: Some(parts.policies.number(Selector::All)),
            screens: Vec::new(),
            plan: parts.plans.number(Plan::priority_weighted()),
            channel_plans: BTreeMap::new(),
            most: 50,
            computed: Vec::new(),
            trial: None,
        }
    }

    /// Gives each prefix that a flow in force loads rows under its number.
    pub(crate) fn name_prefixes(catalog: &TenantCatalog, names: &mut Names, flow: FlowKey) {
        for node in catalog.current_version(flow).iter().flat_map(|version| &version.config.nodes) {
            if let Node::Enrich(enrich) = &node.node {
                enrich.sources.iter().for_each(|source| _ = names.namespace(&source.prefix));
            }
        }
    }

    /// An authored flow as it was last published; one that never was is not active.
    pub(crate) fn new(
        catalog: &TenantCatalog,
        names: &mut Names,
        parts: &mut Parts,
        authored: &Entity<FlowKey, DecisionFlow>,
    ) -> Self {
        let published = catalog.current_version(authored.key);
        let trial = published.and_then(|version| version.config.flow_config.experiment.as_ref());
        let mut flow = Flow {
            key: Some(authored.key),
            version: published.map_or(0, |version| version.number),
            active: published.is_some() && authored.body.status == Status::Active,
            compact: false,
            inventory: parts.stocks.number(Stock::All),
            require_creative: false,
            mode: PlacementMatchMode::Any,
            enrich: Vec::new(),
            rules: None,
            policies: None,
            screens: Vec::new(),
            plan: parts.plans.number(Plan::priority_weighted()),
            channel_plans: BTreeMap::new(),
            most: 50,
            computed: Vec::new(),
            trial: trial.filter(|trial| trial.enabled).map(|trial| Trial {
                key: trial.key.clone().unwrap_or_else(|| authored.body.key.clone()),
                percent: trial.holdout_percent,
                action: trial.control_group_action,
            }),
        };
        let mut nodes: Vec<_> = published.iter().flat_map(|version| &version.config.nodes).zip(0u16..).collect();
        nodes.sort_by_key(|(node, _)| (node.phase, node.position));
        let (mut rules, mut policies) = (None, None);
        for (node, number) in nodes {
            match &node.node {
                Node::Inventory(inventory) => flow.inventory = parts.stocks.number(stock(catalog, inventory)),
                Node::MatchCreatives(config) => {
                    flow.require_creative = config.require_creative;
                    flow.mode = config.placement_match_mode;
                }
                Node::Enrich(enrich) => {
                    flow.enrich.extend(enrich.sources.iter().filter_map(|source| {
                        let schema = catalog.schemas().get(catalog.schemas().key_of(&source.schema_id.0)?)?;
                        let usable =
                            schema.body.status == Status::Active && schema.body.entity_type == SchemaEntity::Customer;
                        let namespace = names.namespace(&source.prefix)?;
                        usable.then(|| Loading { schema: schema.key, namespace, fields: source.fields.clone() })
                    }));
                }
                Node::Qualify(selection) => select(&mut rules, selection, |id| catalog.rules().key_of(id)),
                Node::ContactPolicy(selection) => {
                    select(&mut policies, selection, |id| catalog.policies().key_of(id));
                }
                Node::Filter(filter) => {
                    let tests = Test::conjuncts(names, filter).into_iter().map(|test| parts.tests.number(test));
                    flow.screens.extend(tests.map(|test| Screen { test, flow: authored.key, node: number }));
                }
                Node::Score(score) => {
                    flow.plan = parts.plans.number(Plan::new(catalog, score, None));
                    let named = score.overrides.iter().filter_map(|other| other.channel.as_ref());
                    flow.channel_plans = named
                        .filter_map(|channel| catalog.channels().key_of(&channel.0))
                        .map(|channel| (channel, parts.plans.number(Plan::new(catalog, score, Some(channel)))))
                        .collect();
                }
                Node::Rank(rank) => flow.most = rank.max_candidates,
                // Greedy is the one way there is.
                Node::Group(_) => {}
                Node::Compute(compute) => flow.computed.extend(compute.fields.iter().cloned()),
                Node::Response(response) => flow.compact = response.response_format == ResponseFormat::Compact,
            }
        }
        flow.rules = rules.map(|selector| parts.rules.number(selector));
        flow.policies = policies.map(|selector| parts.policies.number(selector));
        flow
    }
}

fn stock(catalog: &TenantCatalog, inventory: &Inventory) -> Stock {
    match inventory.scope {
        InventoryScope::All => Stock::All,
        InventoryScope::Category => Stock::Categories(
            inventory.category_ids.iter().filter_map(|id| catalog.categories().key_of(&id.0)).collect(),
            inventory.sub_category_ids.iter().filter_map(|id| catalog.sub_categories().key_of(&id.0)).collect(),
        ),
        InventoryScope::Manual => {
            Stock::Named(inventory.offer_ids.iter().filter_map(|id| catalog.offers().key_of(&id.0)).collect())
        }
    }
}

/// Adds a node's selection: several nodes select together.
fn select<K: Ord>(into: &mut Option<Selector<K>>, selection: &Selection, find: impl Fn(&str) -> Option<K>) {
    let mut keys = match (selection.mode, into.take()) {
        (SelectionMode::All, _) | (_, Some(Selector::All)) => {
            *into = Some(Selector::All);
            return;
        }
        (SelectionMode::Selected, None) => Vec::new(),
        (SelectionMode::Selected, Some(Selector::Named(keys))) => keys,
    };
    keys.extend(selection.ids.iter().filter_map(|Ref(id)| find(id)));
    keys.sort_unstable();
    keys.dedup();
    *into = Some(Selector::Named(keys));
}
