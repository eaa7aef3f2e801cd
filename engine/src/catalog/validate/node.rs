//! Nodes of flows: what each config must be, against the catalogue.

use crate::catalog::entity::{Authored, resolve, resolve_all, shown};
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{algorithm, filter, formula, text};
use crate::limits;
use crate::model::Status;
use crate::model::branch::Conditional;
use crate::model::category::{Category, CustomFieldType, SubCategory};
use crate::model::channel::Channel;
use crate::model::fault::Faults;
use crate::model::flow::{
    Enrich, EnrichSource, FlowNode, FormulaWeights, ImpactBlend, Inventory, InventoryScope, Node, Rank, Relevance,
    Score, ScoreMethod, Selection, SelectionMode,
};
use crate::model::offer::Offer;
use crate::model::policy::ContactPolicy;
use crate::model::property::SetProperties;
use crate::model::rule::QualificationRule;
use crate::model::schema::{Schema, SchemaEntity};
use crate::model::scoring::ExpressionScore;

/// Checks a node that could be read, and those in its branches.
pub(crate) fn check(tenant: &TenantCatalog, node: &mut FlowNode, faults: &mut Faults) {
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
        Node::Compute(config) => check_compute(tenant, &config.fields, faults),
        Node::Conditional(config) => check_conditional(tenant, config, faults),
        Node::CallFlow(config) => {
            if tenant.flow_by_key(&config.flow_key).is_none() {
                faults.add_at("flowKey", format!("no decision flow has the key {:?}", shown(&config.flow_key)));
            }
        }
        Node::ScoreByExpression(config) => check_expression_score(tenant, config, faults),
        Node::SetProperties(config) => check_properties(tenant, config, faults),
        Node::Optimize(config) => {
            faults.within("objectives", |faults| check_shares(&config.objectives.weights(), faults))
        }
        Node::MatchCreatives(_) | Node::Group(_) | Node::Response(_) => {}
    });
}

fn check_conditional(tenant: &TenantCatalog, config: &mut Conditional, faults: &mut Faults) {
    let check_all = |nodes: &mut [FlowNode], faults: &mut Faults| {
        for (index, node) in nodes.iter_mut().enumerate() {
            faults.within(&index.to_string(), |faults| check(tenant, node, faults));
        }
    };
    faults.within("branches", |faults| {
        if config.branches.is_empty() {
            faults.add("must not be empty");
        }
        for (index, branch) in config.branches.iter_mut().enumerate() {
            faults.within(&index.to_string(), |faults| {
                formula::check_branch(tenant, "when", &branch.when, faults);
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
    algorithm::check_named(tenant, "modelKey", config.model_key.as_deref(), faults);
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
                algorithm::check_named(tenant, "modelKey", one.model_key.as_deref(), faults);
            });
        }
    });
}

fn check_expression_score(tenant: &TenantCatalog, config: &ExpressionScore, faults: &mut Faults) {
    formula::check_number(tenant, "formula", &config.formula, faults);
    faults.within("relevance", |faults| check_relevance(&config.relevance, faults));
    if let Some(blend) = &config.impact {
        faults.within("impact", |faults| check_blend(blend, faults));
    }
    algorithm::check_named(tenant, "modelKey", config.model_key.as_deref(), faults);
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

fn check_properties(tenant: &TenantCatalog, config: &SetProperties, faults: &mut Faults) {
    faults.within("set", |faults| {
        if config.set.is_empty() {
            faults.add("must not be empty");
        } else if config.set.len() > limits::PROPERTIES_MAX {
            faults.add(format!("must have at most {} properties", limits::PROPERTIES_MAX));
            return;
        }
        for (name, expression) in &config.set {
            if !text::is_identifier(name) {
                faults.add_at(name, "a property is named with letters, digits and _, not starting with a digit");
            }
            formula::check_value(tenant, name, expression, faults);
        }
    });
}

fn check_compute(tenant: &TenantCatalog, fields: &[String], faults: &mut Faults) {
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
