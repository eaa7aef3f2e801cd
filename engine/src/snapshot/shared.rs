//! What a snapshot holds of a tenant beside its offers: channels, slots, flows, wide rules, policies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flows::{Flow, Parts, Plan};
use super::guardrails::Guardrails;
use super::metrics::{self, Metric};
use super::models::{self, Model};
use super::rules::{Rule, Scopes, program};
use super::slots::Names;
use crate::catalog::TenantCatalog;
use crate::decide::score::LargestValues;
use crate::expr::Program;
use crate::keys::{
    ActivityKey, CategoryKey, ChannelKey, CollectionKey, FlowKey, OfferKey, PlacementKey, RuleKey, SubCategoryKey,
};
use crate::model::category::{Category, CustomFieldType, OutputType};
use crate::model::channel::{CouplingMode, ImpressionMode};
use crate::model::collection::Collection;
use crate::model::rule::QualificationRule;
use crate::model::{Entity, Status};
use crate::time::Calendar;
use crate::value::Value;

/// Different values, numbered.
#[derive(Clone, Debug)]
pub struct Interner<T>(Vec<T>);

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner(Vec::new())
    }
}

impl<T: PartialEq> Interner<T> {
    /// The number of `value`.
    pub fn number(&mut self, value: T) -> usize {
        self.0.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.0.push(value);
            self.0.len() - 1
        })
    }

    /// All of them by number.
    pub fn values(&self) -> &[T] {
        &self.0
    }
}

/// A channel as decisions see it.
#[derive(Clone, Debug)]
pub struct Channel {
    /// In force.
    pub active: bool,
    /// Its name, default of `attributes.channel`.
    pub name: Value,
    /// A decision counts as shown.
    pub implicit: bool,
    /// One empty placement empties all.
    pub atomic: bool,
    /// How long propositions hold their units.
    pub reservation_seconds: Option<u32>,
}

/// A placement as decisions see it.
#[derive(Clone, Debug)]
pub struct Placement {
    /// In force.
    pub active: bool,
    /// Its channel.
    pub channel: ChannelKey,
    /// Content that it takes; empty: all.
    pub content_types: Arc<[Box<str>]>,
}

/// An activity as decisions see it.
#[derive(Clone, Copy, Debug)]
pub struct Activity {
    /// In force, and all it names too.
    pub active: bool,
    /// Number of its collection.
    pub collection: Option<usize>,
    /// Where the winner goes.
    pub placement: PlacementKey,
    /// What is shown when nothing qualifies.
    pub fallback: Option<OfferKey>,
    /// Its own flow: number, or `None` if it names none.
    pub flow: Option<usize>,
}

/// A computed field of a category.
#[derive(Clone, Debug)]
pub struct ComputedField {
    /// Its place in the category's custom fields.
    pub index: u16,
    /// Its name.
    pub name: String,
    /// What it yields.
    pub program: Program,
    /// Of which type.
    pub output: Option<OutputType>,
    /// Whether another computed field of its category reads it.
    pub is_built_on: bool,
}

/// A route: channel, placement, flow.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub(crate) channel: ChannelKey,
    pub(crate) placement: Option<PlacementKey>,
    pub(crate) flow: Option<usize>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Shared {
    pub(crate) calendar: Calendar,
    pub(crate) mandatory_per_day: u32,
    pub(crate) reservation_seconds: u32,
    pub(crate) outcome_window_days: u32,
    pub(crate) fatigue: (f64, f64),
    pub(crate) channels: BTreeMap<ChannelKey, Channel>,
    pub(crate) placements: BTreeMap<PlacementKey, Placement>,
    pub(crate) activities: BTreeMap<ActivityKey, Activity>,
    pub(crate) collections: Vec<Arc<Entity<CollectionKey, Collection>>>,
    pub(crate) categories: BTreeMap<CategoryKey, Arc<Entity<CategoryKey, Category>>>,
    /// Whether each sub-category is active.
    pub(crate) sub_categories: BTreeMap<SubCategoryKey, bool>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) flow_numbers: BTreeMap<FlowKey, usize>,
    pub(crate) base_flow: usize,
    pub(crate) default_flow: Option<usize>,
    pub(crate) routes: Vec<Route>,
    pub(crate) parts: Parts,
    /// What a holdout of action `priority_only` scores by.
    pub(crate) priority_plan: usize,
    /// Rules bound to more than listed offers and creatives, by priority, then key.
    pub(crate) wide_rules: Vec<(Rule, Scopes)>,
    /// What each of them was compiled from: the same authored rule compiles to the same.
    pub(crate) wide_sources: Vec<Arc<Entity<RuleKey, QualificationRule>>>,
    pub(crate) computed: Vec<ComputedField>,
    /// Numbers of a category's computed fields, in declaration order.
    pub(crate) computed_of: BTreeMap<CategoryKey, Vec<u32>>,
    pub(crate) guardrails: Guardrails,
    pub(crate) metrics: Box<[Metric]>,
    /// By key.
    pub(crate) models: Box<[Model]>,
    /// Largest margin and revenue of active general offers.
    pub(crate) largest: LargestValues,
}

impl Shared {
    /// Compiles everything of `catalog` but its offers.
    pub(crate) fn new(catalog: &TenantCatalog, names: &mut Names) -> Self {
        names.know_metrics(catalog);
        let settings = catalog.settings();
        let calendar = Calendar::of(settings);
        let mut parts = Parts::default();
        // What a filter of one flow reads, another one may load.
        for flow in catalog.flows().iter() {
            Flow::name_prefixes(catalog, names, flow.key);
        }
        let mut flows = vec![Flow::base(catalog, &mut parts)];
        let mut flow_numbers = BTreeMap::new();
        for flow in catalog.flows().iter() {
            flow_numbers.insert(flow.key, flows.len());
            flows.push(Flow::new(catalog, names, &mut parts, flow));
        }
        let by_key = |key: &str| flow_numbers.get(&catalog.flow_by_key(key)?.key).copied();
        let routes = settings.routes.iter().filter_map(|route| {
            let placement = match &route.placement_id {
                Some(placement) => Some(catalog.placements().key_of(&placement.0)?),
                None => None,
            };
            let channel = catalog.channels().key_of(&route.channel_id.0)?;
            Some(Route { channel, placement, flow: by_key(&route.decision_flow_key) })
        });
        let routes = routes.collect();
        let default_flow = settings.default_flow_key.as_deref().and_then(by_key);
        let mut wide: Vec<_> = catalog
            .wide_rules()
            .filter(|rule| rule.body.status == Status::Active)
            .filter_map(|rule| {
                let scopes = Scopes::new(catalog, names, &rule.body.all_scopes());
                scopes.is_wide().then(|| Some(((Rule::new(catalog, names, rule)?, scopes), Arc::clone(rule))))?
            })
            .collect();
        wide.sort_by_key(|((rule, _), _)| rule.order());
        let (wide_rules, wide_sources) = wide.into_iter().unzip();
        let (computed, computed_of) = compute(catalog, names);
        let guardrails = Guardrails::new(catalog, names, &mut parts);
        let models = models::compile(catalog, names);
        let collections: Vec<_> = catalog.collections().iter().cloned().collect();
        Shared {
            mandatory_per_day: settings.mandatory_per_day,
            reservation_seconds: settings.reservation_seconds,
            outcome_window_days: settings.outcome_window_days,
            fatigue: (settings.fatigue_half_life_hours, settings.fatigue_strength),
            channels: channels(catalog),
            placements: placements(catalog),
            activities: activities(catalog, &collections, by_key),
            categories: catalog.categories().iter().map(|category| (category.key, Arc::clone(category))).collect(),
            sub_categories: catalog
                .sub_categories()
                .iter()
                .map(|sub_category| (sub_category.key, sub_category.body.status == Status::Active))
                .collect(),
            priority_plan: parts.plans.number(Plan::priority_only()),
            calendar,
            collections,
            base_flow: 0,
            default_flow,
            routes,
            flows,
            flow_numbers,
            parts,
            wide_rules,
            wide_sources,
            computed,
            computed_of,
            guardrails,
            metrics: metrics::compile(catalog),
            models,
            largest: catalog.largest_values(),
        }
    }

    /// The plan of the flow that decides where no other is named.
    pub(crate) fn default_plan(&self) -> &Plan {
        let flow = &self.flows[self.default_flow.unwrap_or(self.base_flow)];
        &self.parts.plans.values()[flow.plan]
    }

    /// The number that wide rule `number` of `other` has here, if it is the same rule here.
    pub(crate) fn same_wide_rule(&self, other: &Shared, number: usize) -> Option<usize> {
        let order = other.wide_rules[number].0.order();
        let found = self.wide_rules.binary_search_by_key(&order, |(rule, _)| rule.order()).ok()?;
        Arc::ptr_eq(&self.wide_sources[found], &other.wide_sources[number]).then_some(found)
    }

    /// The number that collection `number` of `other` has here, if it is the same collection here.
    pub(crate) fn same_collection(&self, other: &Shared, number: usize) -> Option<usize> {
        let wanted = &other.collections[number];
        let found = self.collections.binary_search_by_key(&wanted.key, |collection| collection.key).ok()?;
        Arc::ptr_eq(&self.collections[found], wanted).then_some(found)
    }

    /// Names of computed fields whose number in some category is another one in `other`, or that only one of both has.
    pub(crate) fn renumbered_fields<'a>(&'a self, other: &'a Shared) -> BTreeSet<&'a str> {
        let numbered = |shared: &'a Shared| -> BTreeSet<(CategoryKey, &'a str, u32)> {
            let all = shared.computed_of.iter().flat_map(|(category, numbers)| numbers.iter().map(|n| (*category, *n)));
            all.map(|(category, number)| (category, shared.computed[number as usize].name.as_str(), number)).collect()
        };
        numbered(self).symmetric_difference(&numbered(other)).map(|(_, name, _)| *name).collect()
    }
}

fn channels(catalog: &TenantCatalog) -> BTreeMap<ChannelKey, Channel> {
    let compile = |channel: &Arc<Entity<ChannelKey, crate::model::channel::Channel>>| {
        let body = &channel.body;
        let compiled = Channel {
            active: body.status == Status::Active,
            name: Value::text(&body.name),
            implicit: body.impression_mode == ImpressionMode::Implicit,
            atomic: body.coupling_mode == CouplingMode::Atomic,
            reservation_seconds: body.reservation_seconds,
        };
        (channel.key, compiled)
    };
    catalog.channels().iter().map(compile).collect()
}

fn placements(catalog: &TenantCatalog) -> BTreeMap<PlacementKey, Placement> {
    let compile = |placement: &Arc<Entity<PlacementKey, crate::model::placement::Placement>>| {
        let channel = catalog.channel_of(placement.key)?;
        let active = placement.body.status == Status::Active;
        let content_types = placement.body.content_types.iter().map(|fits| fits.as_str().into()).collect();
        Some((placement.key, Placement { active, channel, content_types }))
    };
    catalog.placements().iter().filter_map(compile).collect()
}

fn activities(
    catalog: &TenantCatalog,
    collections: &[Arc<Entity<CollectionKey, Collection>>],
    by_key: impl Fn(&str) -> Option<usize>,
) -> BTreeMap<ActivityKey, Activity> {
    let compile = |activity: &Arc<Entity<ActivityKey, crate::model::activity::Activity>>| {
        let body = &activity.body;
        let placement = catalog.placements().key_of(&body.placement_id.0)?;
        let collection = catalog.collections().key_of(&body.collection_id.0);
        let compiled = Activity {
            active: body.status == Status::Active,
            collection: collection.and_then(|key| collections.iter().position(|known| known.key == key)),
            placement,
            fallback: catalog.offers().key_of(&body.fallback_offer_id.0),
            flow: body.decision_flow_key.as_deref().and_then(&by_key),
        };
        Some((activity.key, compiled))
    };
    catalog.activities().iter().filter_map(compile).collect()
}

fn compute(catalog: &TenantCatalog, names: &mut Names) -> (Vec<ComputedField>, BTreeMap<CategoryKey, Vec<u32>>) {
    let (mut fields, mut of) = (Vec::new(), BTreeMap::<CategoryKey, Vec<u32>>::new());
    for category in catalog.categories().iter() {
        let first = fields.len();
        for (index, field) in category.body.custom_fields.iter().enumerate() {
            let Some(formula) = field.formula.as_deref().filter(|_| field.field_type == CustomFieldType::Computed)
            else {
                continue;
            };
            let Some(program) = program(names, formula) else { continue };
            of.entry(category.key).or_default().push(fields.len() as u32);
            fields.push(ComputedField {
                index: index as u16,
                name: field.name.clone(),
                program,
                output: field.output_type,
                is_built_on: false,
            });
        }
        let own: &mut [ComputedField] = &mut fields[first..];
        let read: BTreeSet<u16> = own.iter().flat_map(|field| field.program.offer_fields()).copied().collect();
        let read: BTreeSet<&str> = read.iter().map(|field| names.fields()[usize::from(*field)].name.as_str()).collect();
        own.iter_mut().for_each(|field| field.is_built_on = read.contains(field.name.as_str()));
    }
    (fields, of)
}
