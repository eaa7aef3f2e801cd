//! Decision flows, compiled: which offers, which rules and policies, which score.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::checks::Check;
use super::rules::{Selector, program};
use super::screens::{Screen, Test};
use super::shared::Interner;
use super::slots::{CUSTOMER, FACTORS_FROM, Names};
use super::world::World;
use crate::catalog::TenantCatalog;
use crate::catalog::unroll::{InForce, Unrolled};
use crate::decide::decision::RemovalReason;
use crate::expr::{self, Name, Namespace, Program, Resolver, Source};
use crate::keys::{
    CategoryKey, ChannelKey, FlowKey, ModelKey, OfferKey, PolicyKey, RuleKey, SchemaKey, SubCategoryKey,
};
use crate::model::branch::Conditional;
use crate::model::flow::{
    Arbitration, ControlGroupAction, DecisionFlow, FormulaWeights, ImpactBlend, Inventory, InventoryScope, Node,
    PlacementMatchMode, Relevance, ResponseFormat, Score, ScoreMethod, Selection, SelectionMode,
};
use crate::model::objective::Objectives;
use crate::model::schema::SchemaEntity;
use crate::model::scoring::{ExpressionScore, FACTOR_NAMES};
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
    /// How slots share offers, where the request does not say.
    pub arbitration: Arbitration,
    /// Computed fields that answers carry; empty = all.
    pub computed: Vec<String>,
    /// What is put beside each proposition, by name.
    pub properties: BTreeMap<Arc<str>, Program>,
    /// Holdout.
    pub trial: Option<Trial>,
    /// Where conditionals part it; the rest is then what holds on every way.
    pub fork: Option<Box<Fork>>,
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
    /// Days in which outcomes count.
    pub window_days: u32,
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
    /// What all of these have in common.
    Common(Vec<Stock>),
}

/// Method and weights for an offer.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightSet {
    /// Which formula.
    pub method: ScoreMethod,
    /// Its exponents.
    pub weights: FormulaWeights,
    /// What P comes from before outcomes tell.
    pub model: Option<ModelKey>,
}

impl WeightSet {
    /// The exponent of P in the method's score.
    pub fn propensity_weight(&self) -> f64 {
        match self.method {
            ScoreMethod::PriorityWeighted => 0.0,
            ScoreMethod::Propensity => 1.0,
            ScoreMethod::Formula => self.weights.propensity_weight,
        }
    }
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
    /// Scores instead of any method.
    pub formula: Option<Arc<Program>>,
    /// What takes the place of the method's score.
    pub objectives: Option<Objectives>,
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
            base: WeightSet { method: ScoreMethod::PriorityWeighted, weights: NO_WEIGHTS, model: None },
            overrides: Vec::new(),
            relevance: NO_RELEVANCE,
            impact: None,
            formula: None,
            objectives: None,
            priority_only: false,
        }
    }

    /// Priority alone.
    pub fn priority_only() -> Self {
        Plan { priority_only: true, ..Plan::priority_weighted() }
    }

    fn by_expression(catalog: &TenantCatalog, names: &mut Names, score: &ExpressionScore) -> Self {
        let formula = expr::parse(&score.formula).ok().map(|ast| expr::compile(&ast, &mut Factored(names)));
        let plain = Plan::priority_weighted();
        Plan {
            base: WeightSet { model: find_model(catalog, score.model_key.as_deref()), ..plain.base },
            relevance: score.relevance.clone(),
            impact: score.impact.clone(),
            // None is published that does not parse.
            formula: formula.map(Arc::new),
            ..plain
        }
    }

    fn new(catalog: &TenantCatalog, score: &Score, channel: Option<ChannelKey>) -> Self {
        let weights = score.formula.clone().unwrap_or(NO_WEIGHTS);
        let model = find_model(catalog, score.model_key.as_deref());
        let base = WeightSet { method: score.method, weights, model };
        let applying = score.overrides.iter().filter(|other| {
            let named = other.channel.as_ref().map(|named| catalog.channels().key_of(&named.0));
            named.is_none_or(|named| named.is_some() && named == channel)
        });
        let overrides = applying.map(|other| {
            let set = WeightSet {
                method: other.method.unwrap_or(base.method),
                weights: other.formula.clone().unwrap_or_else(|| base.weights.clone()),
                model: other.model_key.as_deref().map_or(base.model, |key| find_model(catalog, Some(key))),
            };
            let category = other.category.as_ref().map(|category| catalog.categories().key_of(&category.0));
            (category, other.product_type.clone(), set)
        });
        Plan {
            overrides: overrides.collect(),
            base: base.clone(),
            relevance: score.relevance.clone(),
            impact: score.impact.clone(),
            formula: None,
            objectives: None,
            priority_only: false,
        }
    }
}

/// The model of this key. One that flows of earlier releases name without there being any is none.
fn find_model(catalog: &TenantCatalog, key: Option<&str>) -> Option<ModelKey> {
    Some(catalog.model_by_key(key?)?.key)
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
            arbitration: Arbitration::Greedy,
            computed: Vec::new(),
            properties: BTreeMap::new(),
            trial: None,
            fork: None,
        }
    }

    /// Gives each prefix that a flow in force loads rows under its number.
    pub(crate) fn name_prefixes(catalog: &TenantCatalog, names: &mut Names, flow: FlowKey) {
        for node in catalog.current_version(flow).iter().flat_map(|version| version.config.all_nodes()) {
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
        let mut compiler = Compiler { catalog, names, parts, authored };
        let Ok(unrolled) = InForce::now(catalog).unroll(authored.key, &[]) else {
            return compiler.unpublished();
        };
        let mut flow = compiler.way(&unrolled);
        flow.fork = unrolled.open.map(|conditional| Box::new(compiler.fork(conditional, &mut Vec::new())));
        flow
    }
}

/// Names of a formula that scores: those of factors have numbers of their own.
struct Factored<'n>(&'n mut Names);

impl Resolver for Factored<'_> {
    fn resolve(&mut self, name: &Name) -> Source {
        let factors = FACTOR_NAMES.iter().zip(FACTORS_FROM..);
        let mut factors = factors.filter(|(factor, _)| name.namespace == Namespace::Bare && name.path == **factor);
        factors.next().map_or_else(|| self.0.resolve(name), |(_, number)| Source::Offer(number))
    }
}

/// A flow parts here by the first condition that is true.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Conditions, in order.
    whens: Vec<Check>,
    /// Where each leads, and at the end where none of them does.
    turns: Vec<Turn>,
}

/// Where a condition leads.
#[derive(Clone, Debug)]
enum Turn {
    /// To the next conditions.
    Fork(Fork),
    /// To the flow as it is on this way.
    Way(Box<Flow>),
}

impl Fork {
    /// The flow as it is for a request. O(conditions).
    pub(crate) fn choose(&self, world: &World<'_>) -> &Flow {
        let mut fork = self;
        loop {
            let taken = fork.whens.iter().position(|when| when.holds(world)).unwrap_or(fork.whens.len());
            match &fork.turns[taken] {
                Turn::Fork(next) => fork = next,
                Turn::Way(flow) => return flow,
            }
        }
    }
}

struct Compiler<'a> {
    catalog: &'a TenantCatalog,
    names: &'a mut Names,
    parts: &'a mut Parts,
    authored: &'a Entity<FlowKey, DecisionFlow>,
}

impl Compiler<'_> {
    /// What is compiled of a flow that nothing was published of.
    fn unpublished(&mut self) -> Flow {
        let (catalog, authored) = (self.catalog, self.authored);
        let published = catalog.current_version(authored.key);
        let trial = published.and_then(|version| version.config.flow_config.experiment.as_ref());
        Flow {
            key: Some(authored.key),
            version: published.map_or(0, |version| version.number),
            active: false,
            compact: false,
            inventory: self.parts.stocks.number(Stock::All),
            require_creative: false,
            mode: PlacementMatchMode::Any,
            enrich: Vec::new(),
            rules: None,
            policies: None,
            screens: Vec::new(),
            plan: self.parts.plans.number(Plan::priority_weighted()),
            channel_plans: BTreeMap::new(),
            most: 50,
            arbitration: Arbitration::Greedy,
            computed: Vec::new(),
            properties: BTreeMap::new(),
            trial: trial.filter(|trial| trial.enabled).map(|trial| Trial {
                key: trial.key.clone().unwrap_or_else(|| authored.body.key.clone()),
                percent: trial.holdout_percent,
                action: trial.control_group_action,
                window_days: trial.window_days,
            }),
            fork: None,
        }
    }

    fn fork(&mut self, conditional: &Conditional, choices: &mut Vec<usize>) -> Fork {
        let whens = conditional.branches.iter().map(|branch| match program(self.names, &branch.when) {
            Some(program) => Check::Program(Arc::new(program)),
            None => Check::Constant(false),
        });
        let whens: Vec<Check> = whens.collect();
        let turns = (0..=whens.len()).map(|choice| {
            choices.push(choice);
            let turn = self.turn(choices);
            choices.pop();
            turn
        });
        Fork { turns: turns.collect(), whens }
    }

    fn turn(&mut self, choices: &mut Vec<usize>) -> Turn {
        let catalog = self.catalog;
        match InForce::now(catalog).unroll(self.authored.key, choices) {
            Ok(Unrolled { open: Some(conditional), .. }) => Turn::Fork(self.fork(conditional, choices)),
            Ok(unrolled) => Turn::Way(Box::new(self.way(&unrolled))),
            // None is published that cannot be unrolled.
            Err(_) => Turn::Way(Box::new(self.unpublished())),
        }
    }

    /// A flow as it is on one way through it. It is active if all that it calls is.
    fn way(&mut self, unrolled: &Unrolled<'_>) -> Flow {
        let catalog = self.catalog;
        let is_active = |flow: FlowKey| {
            catalog.flows().get(flow).is_some_and(|row| row.body.status == Status::Active)
                && catalog.current_version(flow).is_some()
        };
        let mut flow = self.unpublished();
        flow.active = is_active(self.authored.key) && unrolled.called.iter().all(|called| is_active(*called));
        let (names, parts) = (&mut *self.names, &mut *self.parts);
        let (mut stocks, mut rules, mut policies) = (Vec::new(), None, None);
        let (mut score, mut formula) = (None::<&Score>, None::<&ExpressionScore>);
        let mut objectives = None::<&Objectives>;
        for step in &unrolled.steps {
            match step.node {
                Node::Inventory(inventory) => stocks.push(stock(catalog, inventory)),
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
                    let reason = RemovalReason::Filter { flow: step.flow, node: step.place };
                    flow.screens.extend(tests.map(|test| Screen { test, reason }));
                }
                Node::Score(config) => (score, formula) = (Some(&**config), None),
                Node::ScoreByExpression(config) => (score, formula) = (None, Some(&**config)),
                Node::Optimize(config) => objectives = Some(&config.objectives),
                Node::SetProperties(config) => {
                    let set =
                        config.set.iter().filter_map(|(name, text)| Some((Arc::from(&**name), program(names, text)?)));
                    flow.properties.extend(set);
                }
                Node::Rank(rank) => flow.most = rank.max_candidates,
                Node::Compute(compute) => flow.computed.clone_from(&compute.fields),
                Node::Response(response) => flow.compact = response.response_format == ResponseFormat::Compact,
                Node::Group(group) => flow.arbitration = group.arbitration,
                // These are unrolled.
                Node::Conditional(_) | Node::CallFlow(_) => {}
            }
        }
        let mut number = |channel: Option<ChannelKey>| {
            let plan = match (score, formula) {
                (Some(score), _) => Plan::new(catalog, score, channel),
                (None, Some(formula)) => Plan::by_expression(catalog, names, formula),
                (None, None) => Plan::priority_weighted(),
            };
            parts.plans.number(Plan { objectives: objectives.cloned(), ..plan })
        };
        let overrides = score.map_or(&[][..], |score| &score.overrides).iter();
        let named = overrides.filter_map(|other| catalog.channels().key_of(&other.channel.as_ref()?.0));
        flow.plan = number(None);
        flow.channel_plans = named.map(|channel| (channel, number(Some(channel)))).collect();
        stocks.retain(|stock| *stock != Stock::All);
        flow.inventory = parts.stocks.number(match stocks.len() {
            0 => Stock::All,
            1 => stocks.remove(0),
            _ => Stock::Common(stocks),
        });
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
