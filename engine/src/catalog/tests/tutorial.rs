//! The cross-sell tutorial's bodies, as a client sends them.

use super::{World, json};
use crate::catalog::{EntityKind, Op, Touched};
use crate::value::Value;

#[test]
fn the_tutorial_is_accepted_as_written() {
    let mut world = World::empty();
    let schema = r#"{ "name": "customer", "displayName": "Customer", "fields": [
      { "name": "customer_id",       "dataType": "varchar", "isUnique": true },
      { "name": "tenureMonths",      "dataType": "integer" },
      { "name": "tier",              "dataType": "varchar" },
      { "name": "hasChecking",       "dataType": "boolean" },
      { "name": "hasCreditCard",     "dataType": "boolean" },
      { "name": "avgMonthlyBalance", "dataType": "decimal" } ] }"#;
    world.create(EntityKind::Schema, "sch_1", json(schema)).unwrap();
    let offers = [("offer_card", "Rewards credit card", 80), ("offer_wealth", "Wealth-management account", 95)];
    for (id, name, priority) in offers {
        let body = format!(
            r#"{{ "name": "{name}", "status": "active", "category": "cross-sell",
                 "priority": {priority}, "businessValue": 80, "revenueValue": 90 }}"#
        );
        let changed = world.create(EntityKind::Offer, id, json(&body)).unwrap();
        let made = if id == "offer_card" { vec![(EntityKind::Category, "cat_cross_sell".to_owned())] } else { vec![] };
        assert_eq!(changed.also, made);
    }
    assert_eq!(world.member(EntityKind::Offer, "offer_wealth", "categoryId"), Value::text("cat_cross_sell"));
    let rules = [
        r#""attribute": "customer.hasCreditCard", "operator": "eq", "value": false"#,
        r#""attribute": "customer.tenureMonths", "operator": "gte", "value": 6"#,
        r#""attribute": "customer.tier", "operator": "in", "value": ["premium", "private"]"#,
        r#""attribute": "customer.avgMonthlyBalance", "operator": "gte", "value": 50000"#,
    ];
    for (index, config) in rules.iter().enumerate() {
        let body = format!(
            r#"{{ "name": "Card — {index}", "ruleType": "attribute_condition", "scope": "offer",
                 "scopeId": "offer_card", "stage": "eligibility", "config": {{ {config} }} }}"#
        );
        let changed = world.create(EntityKind::Rule, &format!("rule_{index}"), json(&body)).unwrap();
        let offer = world.tenant().offers().key_of("offer_card").unwrap();
        assert_eq!(changed.effect, [Touched::Offer(offer)]);
    }
    let offer = world.tenant().offers().key_of("offer_card").unwrap();
    assert_eq!(world.tenant().rules_of(offer).count(), 4);
    for name in ["email", "in_app", "branch"] {
        let body = format!(r#"{{ "name": "{name}", "status": "active", "couplingMode": "partial" }}"#);
        world.create(EntityKind::Channel, &format!("chn_{name}"), json(&body)).unwrap();
    }
    world.create(EntityKind::Flow, "flow_1", json(FLOW)).unwrap();
    let changed = world.apply(Op::PublishFlow { id: "flow_1".to_owned() }).unwrap();
    assert_eq!(changed.effect, [Touched::Shared]);
    assert_eq!(world.member(EntityKind::Flow, "flow_1", "status"), Value::text("active"));
    assert_eq!(world.member(EntityKind::Flow, "flow_1", "decisionFlowVersion"), Value::Number(1.0));
}

pub(super) const FLOW: &str = r#"{ "key": "cross-sell", "name": "Cross-Sell", "draftConfig": { "version": 2,
  "flowConfig": { "experiment": { "enabled": true, "holdoutPercent": 10, "controlGroupAction": "no_offers" } },
  "nodes": [
    { "id": "inv",   "type": "inventory",      "phase": 1, "position": 0,
      "config": { "scope": "all", "includeStatuses": ["active"] } },
    { "id": "enr",   "type": "enrich",         "phase": 1, "position": 1,
      "config": { "sources": [ { "schemaId": "sch_1", "lookupKey": "customer_id",
        "fields": ["tier", "tenureMonths", "hasChecking", "hasCreditCard", "avgMonthlyBalance"] } ] } },
    { "id": "qual",  "type": "qualify",        "phase": 1, "position": 2, "config": { "mode": "all" } },
    { "id": "cp",    "type": "contact_policy", "phase": 1, "position": 3, "config": { "mode": "all" } },
    { "id": "score", "type": "score",          "phase": 2, "position": 4,
      "config": { "method": "formula", "formula": { "propensityWeight": 0.4, "relevanceWeight": 0.15,
        "impactWeight": 0.35, "emphasisWeight": 0.1, "upliftWeight": 0.5 } } },
    { "id": "rank",  "type": "rank",           "phase": 2, "position": 5,
      "config": { "method": "topN", "maxCandidates": 5 } },
    { "id": "out",   "type": "response",       "phase": 3, "position": 6,
      "config": { "responseFormat": "standard" } } ] } }"#;
