//! Publishing a flow: its draft becomes an immutable version, once everything in it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::apply::{Stamp, not_found};
use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, shown};
use crate::catalog::index::Thing;
use crate::catalog::refusal::{Changed, Refusal, Touched};
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::unroll::{InForce, Knot};
use crate::catalog::validate::{filter, flow, formula, node, text};
use crate::keys::FlowKey;
use crate::limits;
use crate::model::fault::Faults;
use crate::model::flow::{
    DecisionFlow, Experiment, FlowConfig, FlowNode, FlowSettings, FlowVersion, Node, RawNode, Score,
};
use crate::model::objective::Objectives;
use crate::model::record::{Field, refuse_unknown};
use crate::model::scoring::ExpressionScore;
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
        if check_ways(tenant, flow, &config, faults) {
            check_plans(tenant, flow, &config, faults);
        }
    });
    Some(config)
}

/// The ways through a flow, and through those that call it, with this as the version in force. Whether all can be gone.
fn check_ways(tenant: &TenantCatalog, flow: FlowKey, config: &FlowConfig, faults: &mut Faults) -> bool {
    let flows = InForce::with(tenant, flow, config);
    if let Err(knot) = flows.check_calls(flow) {
        // Calls of what does not exist are told where they stand.
        let is_told = matches!(&knot, Knot::Unknown(key) if tenant.flow_by_key(key).is_none());
        if !is_told {
            faults.add(said(&knot));
        }
        return false;
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
    let before = faults.count();
    for caller in callers {
        if let Err(knot) = flows.check_calls(caller).and_then(|()| flows.check_size(caller)) {
            let of = tenant.flows.get(caller).filter(|_| caller != flow);
            let whose = of.map(|row| format!("of the flow {:?}, which calls this one: ", row.body.key));
            faults.add(format!("{}{}", whose.unwrap_or_default(), said(&knot)));
        }
    }
    faults.count() == before
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
    let (mut prefixes, mut names) = (BTreeSet::new(), BTreeSet::new());
    for config in others.chain([config]) {
        for node in config.all_nodes() {
            if let Node::Enrich(enrich) = &node.node {
                prefixes.extend(enrich.sources.iter().map(|source| source.prefix.as_str()));
            }
        }
        names.extend(names_read(config));
    }
    if prefixes.len() > limits::PREFIXES_MAX {
        faults.add(format!("the flows in force would load rows under more than {} prefixes", limits::PREFIXES_MAX));
    }
    if names.len() > limits::FLOW_NAMES_READ_MAX {
        faults.add(format!("the flows in force would read more than {} names", limits::FLOW_NAMES_READ_MAX));
    }
}

/// The names that filters, conditions, properties and formulas of a flow read.
pub(crate) fn names_read(config: &FlowConfig) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for node in config.all_nodes() {
        match &node.node {
            Node::Filter(filter) => names.extend(filter::names_read(filter)),
            Node::Conditional(conditional) => {
                names.extend(conditional.branches.iter().flat_map(|branch| formula::names_read(&branch.when)));
            }
            Node::SetProperties(config) => {
                names.extend(config.set.values().flat_map(|expression| formula::names_read(expression)));
            }
            Node::ScoreByExpression(config) => names.extend(formula::names_read(&config.formula)),
            Node::Enrich(_)
            | Node::Inventory(_)
            | Node::MatchCreatives(_)
            | Node::Qualify(_)
            | Node::ContactPolicy(_)
            | Node::Score(_)
            | Node::Optimize(_)
            | Node::Rank(_)
            | Node::Group(_)
            | Node::CallFlow(_)
            | Node::Compute(_)
            | Node::Response(_) => {}
        }
    }
    names
}

/// What a way through a flow scores by.
#[derive(Clone, Copy, PartialEq)]
enum Scoring<'a> {
    Default,
    Method(&'a Score),
    Expression(&'a ExpressionScore),
}

/// The ways in which all flows of a tenant together score: each is a column of all offers. O(flows · ways).
fn check_plans(tenant: &TenantCatalog, flow: FlowKey, config: &FlowConfig, faults: &mut Faults) {
    let flows = InForce::with(tenant, flow, config);
    let channels = |score: &Score| -> BTreeSet<String> {
        score.overrides.iter().filter_map(|one| one.channel.as_ref()).map(|channel| channel.0.clone()).collect()
    };
    let (mut plans, mut known) = (0, Vec::<(Scoring<'_>, Option<&Objectives>)>::new());
    for row in tenant.flows.iter().filter(|row| flows.config(row.key).is_some()) {
        let counted = flows.visit_ways(row.key, |way| {
            let (mut score, mut objectives) = (Scoring::Default, None);
            for step in &way.steps {
                if let Node::Score(config) = step.node {
                    score = Scoring::Method(config);
                } else if let Node::ScoreByExpression(config) = step.node {
                    score = Scoring::Expression(config);
                } else if let Node::Optimize(config) = step.node {
                    objectives = Some(&config.objectives);
                }
            }
            let plan = (score, objectives);
            if plan != (Scoring::Default, None) && plans <= limits::PLANS_MAX && !known.contains(&plan) {
                known.push(plan);
                plans += match score {
                    Scoring::Method(score) => 1 + channels(score).len(),
                    Scoring::Default | Scoring::Expression(_) => 1,
                };
            }
        });
        // Flows that cannot be unrolled are told as such.
        if counted.is_err() {
            return;
        }
    }
    if plans > limits::PLANS_MAX {
        let most = limits::PLANS_MAX;
        faults
            .add(format!("the flows in force would score in more than {most} ways (one for each channel overridden)"));
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
    let settings = settings.unwrap_or_else(|| Some(FlowSettings::default()));
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
    node::check(tenant, &mut node, faults);
    Some(node)
}

/// Checks those nodes in the branches of an unreadable one that can be read: all faults are told at once.
fn check_readable_parts(tenant: &TenantCatalog, value: &Value, faults: &mut Faults) {
    for (place, nodes) in branches_of(value) {
        for (index, value) in nodes.iter().enumerate() {
            let place = [&place[..], &[index.to_string()]].concat();
            within_all(&place, faults, |faults| match FlowNode::read(value, &mut Faults::new()) {
                Some(mut node) => node::check(tenant, &mut node, faults),
                None => check_readable_parts(tenant, value, faults),
            });
        }
    }
}
