//! Publishing a flow: its draft becomes an immutable version, once everything in it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::apply::{Stamp, not_found};
use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, resolve, resolve_all, shown};
use crate::catalog::index::Thing;
use crate::catalog::refusal::{Changed, Refusal, Touched};
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::unroll::{InForce, Knot};
use crate::catalog::validate::{filter, flow, formula, text};
use crate::keys::FlowKey;
use crate::limits;
use crate::model::branch::Conditional;
use crate::model::category::{Category, SubCategory};
use crate::model::channel::Channel;
use crate::model::fault::Faults;
use crate::model::flow::{
    Arbitration, DecisionFlow, Enrich, EnrichSource, Experiment, FlowConfig, FlowNode, FlowVersion, FormulaWeights,
    Group, ImpactBlend, Inventory, InventoryScope, Node, Rank, RawNode, Relevance, Score, ScoreMethod, Selection,
    SelectionMode,
};
use crate::model::offer::Offer;
use crate::model::policy::ContactPolicy;
use crate::model::record::{Field, refuse_unknown};
use crate::model::rule::QualificationRule;
use crate::model::schema::{Schema, SchemaEntity};
use crate::model::{Entity, Status};
use crate::value::Value;

/// Checks the draft of a flow and appends it as the newest version.
pub(crate) fn publish(tenant: &mut TenantCatalog, id: &str, stamp: &Stamp<'_>) -> Result<Changed, Refusal> {
    let row = find(tenant, id)?;
    let source = row.body.draft_config.clone();
    let mut faults = Faults::new();
    let config = faults.within("draftConfig", |faults| check_for(tenant, row.key, &source, faults));
    append(tenant, &row, config, source, faults, stamp)
}

/// Appends an earlier version as the newest, if what it references still holds.
pub(crate) fn roll_back(
    tenant: &mut TenantCatalog,
    id: &str,
    number: u32,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    let row = find(tenant, id)?;
    let version = tenant.flow_versions(row.key).iter().find(|version| version.number == number);
    let Some(version) = version.cloned() else {
        return Err(Refusal::NotFound(format!("version {number} of decision flow {:?}", row.id)));
    };
    let source = version.source.clone();
    let mut faults = Faults::new();
    let config = faults.within("draftConfig", |faults| check_for(tenant, row.key, &source, faults));
    append(tenant, &row, config, source, faults, stamp)
}

/// Checks a draft, and what it adds to the other flows in force.
fn check_for(tenant: &TenantCatalog, flow: FlowKey, draft: &Value, faults: &mut Faults) -> Option<FlowConfig> {
    let config = check(tenant, draft, faults)?;
    faults.within("nodes", |faults| {
        check_sum(tenant, flow, &config, faults);
        check_ways(tenant, flow, &config, faults);
    });
    Some(config)
}

/// The ways through a flow, and through those that call it, with this as the version in force.
fn check_ways(tenant: &TenantCatalog, flow: FlowKey, config: &FlowConfig, faults: &mut Faults) {
    let flows = InForce::with(tenant, flow, config);
    if let Err(knot) = flows.check_calls(flow) {
        // Calls of what does not exist are told where they stand.
        let is_told = matches!(&knot, Knot::Unknown(key) if tenant.flow_by_key(key).is_none());
        if !is_told {
            faults.add(said(&knot));
        }
        return;
    }
    // Those that call it directly, and those that call them.
    let mut callers = vec![flow];
    let mut looked_at = 0;
    while let Some(caller) = callers.get(looked_at).copied() {
        looked_at += 1;
        let users = tenant.index.users_of_kind(Thing::new(EntityKind::Flow, caller), EntityKind::Flow);
        for user in users.map(|user| user.key::<FlowKey>()) {
            if !callers.contains(&user) {
                callers.push(user);
            }
        }
    }
    for caller in callers {
        if let Err(knot) = flows.check_calls(caller).and_then(|()| flows.check_size(caller)) {
            let of = tenant.flows.get(caller).filter(|_| caller != flow);
            let whose = of.map(|row| format!("of the flow {:?}, which calls this one: ", row.body.key));
            faults.add(format!("{}{}", whose.unwrap_or_default(), said(&knot)));
        }
    }
}

fn said(knot: &Knot) -> String {
    match knot {
        Knot::Cycle(keys) => format!("flows call each other: {}", keys.join(" -> ")),
        Knot::Deep(keys) => {
            format!("calls go deeper than {}: {}", limits::FLOW_CALLS_DEPTH_MAX, keys.join(" -> "))
        }
        Knot::Unknown(key) => format!("the flow {:?} was never published", shown(key)),
        Knot::Long => format!("a way through it has more than {} nodes", limits::FLOW_STEPS_MAX),
        Knot::Wide => format!("its conditionals make more than {} ways through it", limits::FLOW_WAYS_MAX),
    }
}

/// What all flows of a tenant together cost every offer and every request. O(flows).
fn check_sum(tenant: &TenantCatalog, flow: FlowKey, config: &FlowConfig, faults: &mut Faults) {
    let others = tenant.flows.iter().filter(|row| row.key != flow);
    let others = others.filter_map(|row| tenant.current_version(row.key)).map(|version| &version.config);
    let (mut scores, mut prefixes, mut names) = (Vec::<&Score>::new(), BTreeSet::new(), BTreeSet::new());
    for node in others.chain([config]).flat_map(FlowConfig::all_nodes) {
        match &node.node {
            Node::Score(score) => {
                let score: &Score = score;
                if !scores.contains(&score) {
                    scores.push(score);
                }
            }
            Node::Enrich(enrich) => prefixes.extend(enrich.sources.iter().map(|source| source.prefix.as_str())),
            Node::Filter(filter) => names.extend(filter::names_read(filter)),
            Node::Conditional(conditional) => {
                names.extend(conditional.branches.iter().flat_map(|branch| formula::names_read(&branch.when)));
            }
            Node::Inventory(_)
            | Node::MatchCreatives(_)
            | Node::Qualify(_)
            | Node::ContactPolicy(_)
            | Node::Rank(_)
            | Node::Group(_)
            | Node::CallFlow(_)
            | Node::Compute(_)
            | Node::Response(_) => {}
        }
    }
    let channels = |score: &Score| -> BTreeSet<String> {
        score.overrides.iter().filter_map(|one| one.channel.as_ref()).map(|channel| channel.0.clone()).collect()
    };
    let plans: usize = scores.iter().map(|score| 1 + channels(score).len()).sum();
    if plans > limits::PLANS_MAX {
        let most = limits::PLANS_MAX;
        faults.add(format!(
            "the flows in force would score in {plans} ways (one for each channel overridden), at most {most}"
        ));
    }
    if prefixes.len() > limits::PREFIXES_MAX {
        faults.add(format!("the flows in force would load rows under more than {} prefixes", limits::PREFIXES_MAX));
    }
    if names.len() > limits::FLOW_NAMES_READ_MAX {
        faults.add(format!("the flows in force would read more than {} names", limits::FLOW_NAMES_READ_MAX));
    }
}

fn find(tenant: &TenantCatalog, id: &str) -> Result<Arc<Entity<FlowKey, DecisionFlow>>, Refusal> {
    let row = tenant.flows.by_id(id).or_else(|| tenant.flow_by_key(id));
    row.cloned().ok_or_else(|| not_found::<DecisionFlow>(id))
}

fn append(
    tenant: &mut TenantCatalog,
    row: &Entity<FlowKey, DecisionFlow>,
    config: Option<FlowConfig>,
    source: Value,
    faults: Faults,
    stamp: &Stamp<'_>,
) -> Result<Changed, Refusal> {
    Refusal::from_findings(faults, Faults::new())?;
    let config = config.expect("a draft without faults was read");
    if row.body.status == Status::Archived {
        return Err(Refusal::conflict("an archived decision flow cannot be published"));
    }
    let number = tenant.flow_versions(row.key).len() as u32 + 1;
    if number as usize > limits::FLOW_VERSIONS_MAX {
        return Err(Refusal::conflict(format!("a flow has at most {} versions", limits::FLOW_VERSIONS_MAX)));
    }
    let before = row.body.references(tenant);
    let after = flow::references_of(tenant, &config);
    let version = FlowVersion { number, published_at: stamp.at, config, source };
    tenant.flow_versions.entry(row.key).or_default().push(Arc::new(version));
    tenant.index.repoint(Thing::new(EntityKind::Flow, row.key), &before, &after);
    let mut body = row.body.clone();
    body.status = Status::Active;
    let name = body.name.clone();
    let updated = Entity {
        key: row.key,
        id: row.id.clone(),
        created_at: row.created_at,
        updated_at: stamp.at,
        revision: stamp.revision,
        body,
    };
    tenant.flows.put(updated, &name, Some(&name));
    let effect = vec![Touched::Shared];
    Ok(Changed { id: row.id.clone(), kind: Some(EntityKind::Flow), also: Vec::new(), new_caps: Vec::new(), effect })
}

/// Checks a whole draft; every fault at once. The config is returned when it can be read, with references as ids.
fn check(tenant: &TenantCatalog, draft: &Value, faults: &mut Faults) -> Option<FlowConfig> {
    let Some(members) = draft.as_map() else {
        faults.add("there is no draft to publish");
        return None;
    };
    refuse_unknown(members, &["version", "flowConfig", "nodes"], faults);
    let version = members.get("version").and_then(Value::as_number);
    if version != Some(2.0) {
        faults.add_at("version", "must be 2, the format of drafts");
    }
    let settings = members.get("flowConfig").filter(|settings| !settings.is_null());
    let settings = settings.map(|settings| faults.within("flowConfig", |faults| Field::read(settings, faults)));
    let settings = settings.unwrap_or_else(|| Some(crate::model::flow::FlowSettings::default()));
    if let Some(experiment) = settings.as_ref().and_then(|settings| settings.experiment.as_ref()) {
        faults.within("flowConfig", |faults| {
            faults.within("experiment", |faults| check_experiment(experiment, faults));
        });
    }
    let nodes = faults.within("nodes", |faults| {
        let Some(nodes) = members.get("nodes").and_then(Value::as_list) else {
            faults.add("must be a list of nodes");
            return None;
        };
        if count(nodes) > limits::FLOW_NODES_MAX {
            faults.add(format!("must have at most {} nodes", limits::FLOW_NODES_MAX));
            return None;
        }
        check_structure(nodes, &mut BTreeSet::new(), false, faults);
        let mut read = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            read.extend(faults.within(&index.to_string(), |faults| read_node(tenant, node, faults)));
        }
        read.sort_by_key(|node| node.position);
        Some(read)
    });
    Some(FlowConfig { version: 2, flow_config: settings?, nodes: nodes? })
}

fn check_experiment(experiment: &Experiment, faults: &mut Faults) {
    text::check_range("holdoutPercent", experiment.holdout_percent, 0.0, 100.0, faults);
    text::check_range("windowDays", f64::from(experiment.window_days), 1.0, 365.0, faults);
    if let Some(key) = &experiment.key {
        text::check_key("key", key, faults);
    }
}

/// How many nodes these are with those in their branches.
fn count(nodes: &[Value]) -> usize {
    nodes.iter().map(|node| 1 + branches_of(node).iter().map(|(_, nodes)| count(nodes)).sum::<usize>()).sum()
}

/// The lists of nodes in a conditional node, each with where it lies in the node.
fn branches_of(node: &Value) -> Vec<(Vec<String>, &[Value])> {
    let config = node.as_map().and_then(|members| members.get("config")).and_then(Value::as_map);
    let is_conditional = node.as_map().and_then(|members| members.get("type")).and_then(Value::as_text);
    let Some(config) = config.filter(|_| is_conditional == Some("conditional")) else { return Vec::new() };
    let branches = config.get("branches").and_then(Value::as_list).unwrap_or(&[]);
    let taken = branches.iter().enumerate().filter_map(|(index, branch)| {
        let nodes = branch.as_map()?.get("nodes")?.as_list()?;
        Some((vec!["config".to_owned(), "branches".to_owned(), index.to_string(), "nodes".to_owned()], nodes))
    });
    let otherwise = config.get("else").and_then(Value::as_list);
    taken.chain(otherwise.map(|nodes| (vec!["config".to_owned(), "else".to_owned()], nodes))).collect()
}

/// Ids, positions, phases and counts, for all nodes whose outline can be read: of the flow, or `nested` in a branch. `ids` are
/// those of the whole flow so far.
fn check_structure(nodes: &[Value], ids: &mut BTreeSet<String>, nested: bool, faults: &mut Faults) {
    let outlines: Vec<(usize, RawNode)> = nodes
        .iter()
        .enumerate()
        .filter_map(|(index, node)| Some((index, RawNode::read(node, &mut Faults::new())?)))
        .collect();
    let mut positions = BTreeSet::new();
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in &outlines {
        faults.within(&index.to_string(), |faults| {
            text::check_key("id", &node.id, faults);
            if !ids.insert(node.id.clone()) {
                faults.add_at("id", format!("another node has the id {:?}", shown(&node.id)));
            }
            if !positions.insert(node.position) {
                faults.add_at("position", "another node has the same position");
            }
            let number = types.entry(node.node_type.as_str()).or_insert(0);
            *number += 1;
            if *number > 1 && !MANY.contains(&node.node_type.as_str()) {
                faults.add_at("type", format!("a flow has one {} node", shown(&node.node_type)));
            }
            if nested && node.node_type == "inventory" {
                faults.add_at("type", "an inventory node cannot stand in a branch: use a filter, or call a flow");
            }
            if nested && node.phase != 1 {
                faults.add_at("phase", "branches are of phase 1");
            }
        });
    }
    for (index, node) in nodes.iter().enumerate() {
        for (place, nodes) in branches_of(node) {
            within_all(&[vec![index.to_string()], place].concat(), faults, |faults| {
                check_structure(nodes, ids, true, faults);
            });
        }
    }
    if nested {
        return;
    }
    if !types.contains_key("inventory") {
        faults.add("must hold an inventory node");
    }
    let mut in_order: Vec<&(usize, RawNode)> = outlines.iter().collect();
    in_order.sort_by_key(|(_, node)| node.position);
    if let Some((index, first)) = in_order.first()
        && first.node_type != "inventory"
    {
        faults.within(&index.to_string(), |faults| faults.add_at("position", "the inventory node comes first"));
    }
    for pair in in_order.windows(2) {
        let [(_, one), (index, next)] = pair else { continue };
        if next.phase < one.phase {
            faults.within(&index.to_string(), |faults| {
                let message = format!("phase {} comes before phase {}", next.phase, one.phase);
                faults.add_at("position", message);
            });
        }
    }
}

/// Runs `check` with the place moved down `path`.
fn within_all(path: &[String], faults: &mut Faults, check: impl FnOnce(&mut Faults)) {
    match path.split_first() {
        Some((first, rest)) => faults.within(first, |faults| within_all(rest, faults, check)),
        None => check(faults),
    }
}

/// Node types that a flow may have several of.
const MANY: [&str; 6] = ["enrich", "qualify", "contact_policy", "filter", "conditional", "call_flow"];

fn read_node(tenant: &TenantCatalog, value: &Value, faults: &mut Faults) -> Option<FlowNode> {
    let Some(mut node) = FlowNode::read(value, faults) else {
        check_readable_parts(tenant, value, faults);
        return None;
    };
    check_node(tenant, &mut node, faults);
    Some(node)
}

/// Checks those nodes in the branches of an unreadable one that can be read: all faults are told at once.
fn check_readable_parts(tenant: &TenantCatalog, value: &Value, faults: &mut Faults) {
    for (place, nodes) in branches_of(value) {
        for (index, value) in nodes.iter().enumerate() {
            let place = [&place[..], &[index.to_string()]].concat();
            within_all(&place, faults, |faults| match FlowNode::read(value, &mut Faults::new()) {
                Some(mut node) => check_node(tenant, &mut node, faults),
                None => check_readable_parts(tenant, value, faults),
            });
        }
    }
}

/// Checks a node that could be read, and those in its branches.
fn check_node(tenant: &TenantCatalog, node: &mut FlowNode, faults: &mut Faults) {
    match node.node.phase() {
        Some(phase) if node.phase != phase => {
            faults.add_at("phase", format!("a {} node belongs to phase {phase}", node.node.type_name()));
        }
        None if !(1..=3).contains(&node.phase) => faults.add_at("phase", "must be 1, 2 or 3"),
        Some(_) | None => {}
    }
    faults.within("config", |faults| match &mut node.node {
        Node::Inventory(config) => check_inventory(tenant, config, faults),
        Node::Enrich(config) => check_enrich(tenant, config, faults),
        Node::Qualify(config) => check_selection::<QualificationRule>(tenant, config, faults),
        Node::ContactPolicy(config) => check_selection::<ContactPolicy>(tenant, config, faults),
        Node::Filter(config) => filter::check(tenant, config, faults),
        Node::Score(config) => check_score(tenant, config, faults),
        Node::Rank(config) => check_rank(config, faults),
        Node::Group(config) => check_group(config, faults),
        Node::Compute(config) => check_compute(tenant, &config.fields, faults),
        Node::Conditional(config) => check_conditional(tenant, config, faults),
        Node::CallFlow(config) => {
            if tenant.flow_by_key(&config.flow_key).is_none() {
                faults.add_at("flowKey", format!("no decision flow has the key {:?}", shown(&config.flow_key)));
            }
        }
        Node::MatchCreatives(_) | Node::Response(_) => {}
    });
}

fn check_conditional(tenant: &TenantCatalog, config: &mut Conditional, faults: &mut Faults) {
    let check_all = |nodes: &mut [FlowNode], faults: &mut Faults| {
        for (index, node) in nodes.iter_mut().enumerate() {
            faults.within(&index.to_string(), |faults| check_node(tenant, node, faults));
        }
    };
    faults.within("branches", |faults| {
        if config.branches.is_empty() {
            faults.add("must not be empty");
        }
        for (index, branch) in config.branches.iter_mut().enumerate() {
            faults.within(&index.to_string(), |faults| {
                formula::check_branch("when", &branch.when, faults);
                faults.within("nodes", |faults| check_all(&mut branch.nodes, faults));
            });
        }
    });
    faults.within("else", |faults| check_all(&mut config.otherwise, faults));
}

fn check_inventory(tenant: &TenantCatalog, config: &mut Inventory, faults: &mut Faults) {
    let lists = [
        ("categoryIds", config.category_ids.len(), InventoryScope::Category),
        ("subCategoryIds", config.sub_category_ids.len(), InventoryScope::Category),
        ("offerIds", config.offer_ids.len(), InventoryScope::Manual),
    ];
    for (member, count, scope) in lists {
        if count > 0 && config.scope != scope {
            faults.add_at(member, format!("needs scope {}", scope.as_str()));
        }
        if count > limits::COLLECTION_OFFERS_MAX {
            faults.add_at(member, format!("must have at most {} items", limits::COLLECTION_OFFERS_MAX));
        }
    }
    let (_, categories, _) = lists[0];
    let (_, sub_categories, _) = lists[1];
    match config.scope {
        InventoryScope::Category if categories + sub_categories == 0 => {
            faults.add_at("categoryIds", "scope category needs categoryIds or subCategoryIds");
        }
        InventoryScope::Manual if config.offer_ids.is_empty() => {
            faults.add_at("offerIds", "scope manual needs offerIds");
        }
        InventoryScope::All | InventoryScope::Category | InventoryScope::Manual => {}
    }
    faults.within("categoryIds", |faults| {
        resolve_all::<Category>(tenant, &mut config.category_ids, faults);
    });
    faults.within("subCategoryIds", |faults| {
        resolve_all::<SubCategory>(tenant, &mut config.sub_category_ids, faults);
    });
    faults.within("offerIds", |faults| {
        resolve_all::<Offer>(tenant, &mut config.offer_ids, faults);
    });
    if config.include_statuses != [Status::Active] {
        faults.add_at("includeStatuses", "must be [\"active\"]: only active offers are decided on");
    }
}

fn check_enrich(tenant: &TenantCatalog, config: &mut Enrich, faults: &mut Faults) {
    text::check_count("sources", &config.sources, limits::SCOPES_MAX, faults);
    faults.within("sources", |faults| {
        if config.sources.is_empty() {
            faults.add("must not be empty");
        }
        for (index, source) in config.sources.iter_mut().enumerate().take(limits::SCOPES_MAX) {
            faults.within(&index.to_string(), |faults| check_source(tenant, source, faults));
        }
    });
}

fn check_source(tenant: &TenantCatalog, source: &mut EnrichSource, faults: &mut Faults) {
    if !text::is_identifier(&source.prefix) {
        faults.add_at("prefix", "must be letters, digits and _, not starting with a digit");
    } else if ["offer", "attributes", "context", "metric"].contains(&source.prefix.as_str()) {
        faults.add_at("prefix", format!("{:?} means something else", source.prefix));
    }
    let schema = faults.within("schemaId", |faults| resolve::<Schema>(tenant, &mut source.schema_id, faults));
    let Some(schema) = schema.and_then(|key| tenant.schemas.get(key)) else { return };
    match schema.body.entity_type {
        SchemaEntity::Reference => faults.add_at("schemaId", "reference schemas are not available"),
        SchemaEntity::Customer => {
            let unique = schema.body.unique_field().map_or("", |field| &field.name);
            if source.lookup_key != unique {
                faults.add_at("lookupKey", format!("must be {unique:?}, the unique field of the schema"));
            }
        }
    }
    text::check_count("fields", &source.fields, limits::SCHEMA_FIELDS_MAX, faults);
    faults.within("fields", |faults| {
        for (index, name) in source.fields.iter().enumerate() {
            if !schema.body.fields.iter().any(|field| field.name == *name) {
                faults.add_at(&index.to_string(), format!("the schema has no field {:?}", shown(name)));
            }
        }
    });
}

fn check_selection<T: Authored>(tenant: &TenantCatalog, config: &mut Selection, faults: &mut Faults) {
    text::check_count("ids", &config.ids, limits::COLLECTION_OFFERS_MAX, faults);
    faults.within("ids", |faults| {
        match config.mode {
            SelectionMode::All if !config.ids.is_empty() => faults.add("needs mode selected"),
            SelectionMode::Selected if config.ids.is_empty() => faults.add("mode selected needs ids"),
            SelectionMode::All | SelectionMode::Selected => {}
        }
        resolve_all::<T>(tenant, &mut config.ids, faults);
    });
}

fn check_score(tenant: &TenantCatalog, config: &mut Score, faults: &mut Faults) {
    match (&config.formula, config.method) {
        (Some(weights), _) => faults.within("formula", |faults| check_weights(weights, faults)),
        (None, ScoreMethod::Formula) => faults.add_at("formula", "method formula needs weights"),
        (None, ScoreMethod::PriorityWeighted | ScoreMethod::Propensity) => {}
    }
    faults.within("relevance", |faults| check_relevance(&config.relevance, faults));
    if let Some(blend) = &config.impact {
        faults.within("impact", |faults| check_blend(blend, faults));
    }
    check_model("modelKey", config.model_key.as_ref(), faults);
    text::check_count("overrides", &config.overrides, limits::SCOPES_MAX, faults);
    let has_weights = config.formula.is_some();
    faults.within("overrides", |faults| {
        for (index, one) in config.overrides.iter_mut().enumerate().take(limits::SCOPES_MAX) {
            faults.within(&index.to_string(), |faults| {
                if let Some(channel) = &mut one.channel {
                    faults.within("channel", |faults| resolve::<Channel>(tenant, channel, faults));
                }
                if let Some(category) = &mut one.category {
                    faults.within("category", |faults| resolve::<Category>(tenant, category, faults));
                }
                if one.channel.is_none() && one.category.is_none() && one.product_type.is_none() {
                    faults.add("must name a channel, category or productType");
                }
                if let Some(weights) = &one.formula {
                    faults.within("formula", |faults| check_weights(weights, faults));
                } else if one.method == Some(ScoreMethod::Formula) && !has_weights {
                    faults.add_at("formula", "method formula needs weights");
                }
                check_model("modelKey", one.model_key.as_ref(), faults);
            });
        }
    });
}

fn check_model(member: &str, key: Option<&String>, faults: &mut Faults) {
    if let Some(key) = key {
        text::check_name(member, key, faults);
    }
}

/// How far from 1 a sum of weights may lie.
const WEIGHT_TOLERANCE: f64 = 1e-9;

fn check_weights(weights: &FormulaWeights, faults: &mut Faults) {
    let parts = [
        ("propensityWeight", weights.propensity_weight),
        ("relevanceWeight", weights.relevance_weight),
        ("impactWeight", weights.impact_weight),
        ("emphasisWeight", weights.emphasis_weight),
    ];
    check_shares(&parts, faults);
    text::check_range("upliftWeight", weights.uplift_weight, 0.0, 2.0, faults);
    text::check_positive("upliftScale", weights.uplift_scale, 1.0, faults);
}

fn check_blend(blend: &ImpactBlend, faults: &mut Faults) {
    let parts =
        [("businessValue", blend.business_value), ("margin", blend.margin), ("revenueValue", blend.revenue_value)];
    check_shares(&parts, faults);
}

fn check_shares(parts: &[(&str, f64)], faults: &mut Faults) {
    for (member, weight) in parts {
        text::check_range(member, *weight, 0.0, 1.0, faults);
    }
    let sum: f64 = parts.iter().map(|(_, weight)| weight).sum();
    if libm::fabs(sum - 1.0) > WEIGHT_TOLERANCE {
        let names: Vec<&str> = parts.iter().map(|(member, _)| *member).collect();
        faults.add(format!("{} must sum to 1, not {sum}", names.join(", ")));
    }
}

fn check_relevance(relevance: &Relevance, faults: &mut Faults) {
    let signals = [
        ("channelMatch", relevance.channel_match),
        ("freshness", relevance.freshness),
        ("segmentMatch", relevance.segment_match),
    ];
    for (member, weight) in signals {
        text::check_range(member, weight.unwrap_or(0.0), 0.0, 1_000.0, faults);
    }
    text::check_positive("halfLifeDays", relevance.half_life_days, limits::LOOKBACK_DAYS_MAX, faults);
}

fn check_rank(config: &Rank, faults: &mut Faults) {
    let most = f64::from(limits::RANK_CANDIDATES_MAX);
    text::check_range("maxCandidates", f64::from(config.max_candidates), 1.0, most, faults);
}

fn check_group(config: &Group, faults: &mut Faults) {
    match config.arbitration {
        Arbitration::Greedy => {}
        Arbitration::Optimal => {
            faults.add_at("arbitration", "must be \"greedy\": optimal arbitration is not available")
        }
    }
}

fn check_compute(tenant: &TenantCatalog, fields: &[String], faults: &mut Faults) {
    use crate::model::category::CustomFieldType;
    text::check_count("fields", fields, limits::CUSTOM_FIELDS_MAX, faults);
    faults.within("fields", |faults| {
        for (index, name) in fields.iter().enumerate() {
            let mut known = tenant.categories().iter().flat_map(|category| &category.body.custom_fields);
            if !known.any(|field| field.field_type == CustomFieldType::Computed && field.name == *name) {
                faults.add_at(&index.to_string(), format!("no category has a computed field {:?}", shown(name)));
            }
        }
    });
}
