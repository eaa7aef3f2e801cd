//! What may be deleted, and what goes with it.

use super::{World, json, summary};
use crate::catalog::{EntityKind, Op};
use crate::value::Value;

#[test]
fn deleting_a_category_takes_its_sub_categories_and_unlinks_its_offers() {
    let mut world = World::furnished();
    world.update(EntityKind::Offer, "o1", r#"{"subCategoryId":"sub_house"}"#).unwrap();
    let changed = world.delete(EntityKind::Category, "cat_loans", false).unwrap();
    assert_eq!(changed.also, [(EntityKind::Offer, "o1".to_owned()), (EntityKind::SubCategory, "sub_house".to_owned())]);
    assert_eq!(world.member(EntityKind::Offer, "o1", "categoryId"), Value::Null);
    assert_eq!(world.member(EntityKind::Offer, "o1", "subCategoryId"), Value::Null);
    // Values left behind do not stand in the way of later writes.
    world.update(EntityKind::Offer, "o1", r#"{"priority":3}"#).unwrap();
}

#[test]
fn things_in_use_are_not_deleted() {
    let mut world = World::furnished();
    world.apply(Op::UpdateSettings { patch: json(r#"{"defaultFlowKey":"base"}"#) }).unwrap();
    for (kind, id) in [
        (EntityKind::Channel, "chn_web"),
        (EntityKind::Placement, "plc_hero"),
        (EntityKind::Collection, "col_all"),
        (EntityKind::Offer, "o1"),
        (EntityKind::Flow, "flow_base"),
    ] {
        let refusal = world.delete(kind, id, false).unwrap_err();
        assert_eq!(summary(&refusal).0, "conflict", "{id}");
    }
    for (kind, id) in [(EntityKind::Schema, "sch_customer"), (EntityKind::Rule, "r1"), (EntityKind::Offer, "o2")] {
        world.delete(kind, id, false).unwrap();
        assert_eq!(world.tenant().get(kind, id), None);
    }
    assert_eq!(summary(&world.delete(EntityKind::Offer, "o2", false).unwrap_err()).0, "not found");
}

#[test]
fn an_offer_with_history_goes_only_by_force() {
    let mut world = World::furnished();
    let delete = |force| Op::Delete { kind: EntityKind::Offer, id: "o2".to_owned(), force, has_history: true };
    assert_eq!(summary(&world.apply(delete(false)).unwrap_err()).0, "conflict");
    world.apply(delete(true)).unwrap();
}

#[test]
fn a_forced_delete_takes_what_was_about_the_offer_alone() {
    let mut world = World::furnished();
    let rule = |scopes: &str| {
        json(&format!(r#"{{"name":"n","ruleType":"recency_check","config":{{"minDays":1}},"scopes":{scopes}}}"#))
    };
    let only = r#"[{"scope":"offer","scopeId":"o1"},{"scope":"creative","scopeId":"c1"}]"#;
    let also = r#"[{"scope":"offer","scopeId":"o1"},{"scope":"offer","scopeId":"o2"}]"#;
    world.create(EntityKind::Rule, "only", rule(only)).unwrap();
    world.create(EntityKind::Rule, "also", rule(also)).unwrap();
    let exclusion = |offers: &str| {
        let config = format!(r#"{{"offerIds":{offers},"lookbackDays":5}}"#);
        json(&format!(r#"{{"name":"n","ruleType":"mutual_exclusion","config":{config}}}"#))
    };
    world.create(EntityKind::Policy, "pair", exclusion(r#"["o1","o2"]"#)).unwrap();
    world.create(EntityKind::Policy, "triple", exclusion(r#"["o1","o2","o3"]"#)).unwrap();
    world.create(EntityKind::Collection, "col", json(r#"{"name":"n","offerIds":["o1","o2"]}"#)).unwrap();
    assert_eq!(summary(&world.delete(EntityKind::Offer, "o1", false).unwrap_err()).0, "conflict");
    world.delete(EntityKind::Offer, "o1", true).unwrap();
    let tenant = world.tenant();
    assert!(tenant.creatives().by_id("c1").is_none());
    assert!(tenant.rules().by_id("only").is_none());
    assert_eq!(tenant.rules().by_id("also").unwrap().body.scopes.len(), 1);
    assert!(tenant.policies().by_id("pair").is_none());
    assert!(tenant.policies().by_id("triple").is_some());
    assert_eq!(world.member(EntityKind::Collection, "col", "offerIds"), json(r#"["o2"]"#));
    assert!(world.tenant().tags().all(|(tag, _)| tag != "a"));
}

#[test]
fn a_collection_that_loses_its_last_offer_does_not_turn_into_all_offers() {
    let mut world = World::furnished();
    world.create(EntityKind::Collection, "col", json(r#"{"name":"n","offerIds":["o2"]}"#)).unwrap();
    world.delete(EntityKind::Offer, "o2", true).unwrap();
    assert_eq!(world.member(EntityKind::Collection, "col", "status"), Value::text("paused"));
}

#[test]
fn a_flow_in_force_keeps_the_rules_it_names_from_going_with_an_offer() {
    let mut world = World::furnished();
    let rule = r#"{"name":"n","ruleType":"recency_check","config":{"minDays":1},"scope":"offer","scopeId":"o1"}"#;
    world.create(EntityKind::Rule, "only", json(rule)).unwrap();
    let draft = r#"{"draftConfig":{"version":2,"nodes":[
      {"id":"inv","type":"inventory","phase":1,"position":0},
      {"id":"q","type":"qualify","phase":1,"position":1,"config":{"mode":"selected","ids":["only"]}}]}}"#;
    world.update(EntityKind::Flow, "flow_base", draft).unwrap();
    world.apply(Op::PublishFlow { id: "flow_base".to_owned() }).unwrap();
    let hash = world.catalog.hash();
    assert_eq!(summary(&world.delete(EntityKind::Offer, "o1", true).unwrap_err()).0, "conflict");
    assert_eq!(world.catalog.hash(), hash);
    world.update(EntityKind::Flow, "flow_base", &draft.replace(r#""mode":"selected","ids":["only"]"#, "")).unwrap();
    world.apply(Op::PublishFlow { id: "flow_base".to_owned() }).unwrap();
    world.delete(EntityKind::Offer, "o1", true).unwrap();
    assert!(world.tenant().rules().by_id("only").is_none());
}
