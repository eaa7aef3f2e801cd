//! Lists, rows, settings, keys.

use super::{World, json, summary};
use crate::catalog::{Catalog, EntityKind, Filter, Op, Role};
use crate::keys::OutcomeKey;
use crate::model::Status;
use crate::model::settings::Sentiment;
use crate::value::Value;

fn ids(world: &World, kind: EntityKind, filter: &Filter) -> Vec<String> {
    let page = world.tenant().list(kind, filter).unwrap();
    let id = |item: &Value| item.as_map().unwrap().get("id").unwrap().as_text().unwrap().to_owned();
    page.items.iter().map(id).collect()
}

#[test]
fn lists_filter_and_page() {
    let world = World::furnished();
    let all = Filter::default();
    assert_eq!(ids(&world, EntityKind::Offer, &all), ["o1", "o2", "o3", "fb"]);
    let active = Filter { status: Some(Status::Active), ..all.clone() };
    assert_eq!(ids(&world, EntityKind::Offer, &active), ["o1", "o3", "fb"]);
    let tagged = Filter { tags: vec!["b".to_owned(), "z".to_owned()], ..all.clone() };
    assert_eq!(ids(&world, EntityKind::Offer, &tagged), ["o1", "o2"]);
    let loans = Filter { category_id: Some("Loans".to_owned()), ..all.clone() };
    assert_eq!(ids(&world, EntityKind::Offer, &loans), ["o1"]);
    assert_eq!(ids(&world, EntityKind::SubCategory, &loans), ["sub_house"]);
    let first = Filter { limit: Some(3), ..all.clone() };
    let page = world.tenant().list(EntityKind::Offer, &first).unwrap();
    assert_eq!(page.items.len(), 3);
    let rest = Filter { cursor: page.next_cursor, ..first };
    assert_eq!(ids(&world, EntityKind::Offer, &rest), ["fb"]);
    assert_eq!(world.tenant().list(EntityKind::Offer, &rest).unwrap().next_cursor, None);
    let bad = Filter { cursor: Some("x".to_owned()), ..all };
    assert!(world.tenant().list(EntityKind::Offer, &bad).is_err());
}

#[test]
fn objects_are_shown_whole() {
    let world = World::furnished();
    let category = world.tenant().get(EntityKind::Category, "cat_loans").unwrap();
    let nested = category.as_map().unwrap().get("subCategories").unwrap().as_list().unwrap();
    assert_eq!(nested[0].as_map().unwrap().get("id"), Some(&Value::text("sub_house")));
    assert_eq!(world.member(EntityKind::Offer, "o1", "createdAt"), Value::text("2023-11-14T22:13:20.01Z"));
    assert_eq!(world.member(EntityKind::Offer, "o1", "category"), Value::text("Loans"));
    assert_eq!(world.member(EntityKind::Placement, "plc_hero", "key"), Value::text("hero"));
    assert_eq!(world.member(EntityKind::Creative, "c1", "offerId"), Value::text("o1"));
    assert_eq!(world.tenant().find(EntityKind::Flow, "base"), Some("flow_base".to_owned()));
    assert_eq!(world.tenant().tags().collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
}

#[test]
fn rows_are_checked_against_their_schema() {
    let world = World::furnished();
    let schema = world.tenant().schemas().key_of("sch_customer").unwrap();
    let row = world.tenant().check_row(schema, &json(r#"{"customer_id":"c","age":36,"member":null}"#)).unwrap();
    assert_eq!(row.customer, "c");
    assert_eq!(row.columns.len(), 5);
    assert_eq!(row.columns[1], ("age".to_owned(), Value::Number(36.0)));
    let bad = json(r#"{"age":3.5,"member":"yes","joined":"soon","tier":1,"other":2}"#);
    let faults = world.tenant().check_row(schema, &bad).unwrap_err();
    let mut pointers: Vec<_> = faults.into_iter().map(|fault| fault.pointer).collect();
    pointers.sort();
    assert_eq!(pointers, ["/age", "/customer_id", "/joined", "/member", "/other", "/tier"]);
}

#[test]
fn settings_are_checked_and_outcomes_keep_their_keys() {
    let mut world = World::furnished();
    let mut set = |patch: &str| world.apply(Op::UpdateSettings { patch: json(patch) });
    let bad = r#"{"timeZone":"Mars","maxSlots":0,"routes":[{"channelId":"x","decisionFlowKey":"y"}],"outcomes":[{"key":"click"}],"z":1}"#;
    let (_, pointers) = summary(&set(bad).unwrap_err());
    assert_eq!(
        pointers,
        ["/maxSlots", "/outcomes/0/key", "/routes/0/channelId", "/routes/0/decisionFlowKey", "/timeZone", "/z"]
    );
    set(r#"{"outcomes":[{"key":"applause","sentiment":"positive"},{"key":"boo"}]}"#).unwrap();
    set(r#"{"outcomes":[{"key":"boo","sentiment":"negative"},{"key":"yawn"}]}"#).unwrap();
    let outcomes = world.tenant().outcomes();
    assert_eq!(outcomes.get("applause"), None);
    assert_eq!(
        outcomes.get("boo").map(|outcome| (outcome.key, outcome.sentiment)),
        Some((OutcomeKey(11), Sentiment::Negative))
    );
    assert_eq!(outcomes.get("yawn").map(|outcome| outcome.key), Some(OutcomeKey(12)));
    assert_eq!(outcomes.get("complaint").map(|outcome| outcome.key), Some(OutcomeKey(9)));
    world.update(EntityKind::Offer, "o1", r#"{"caps":[{"scope":"profile","limit":1,"countOn":"yawn"}]}"#).unwrap();
    let refusal = world.apply(Op::UpdateSettings { patch: json(r#"{"outcomes":null}"#) }).unwrap_err();
    assert_eq!(summary(&refusal), ("conflict", vec!["/outcomes".to_owned()]));
}

#[test]
fn a_secret_names_its_tenant_until_it_is_revoked() {
    let mut world = World::empty();
    let put = |id: &str, byte: u8| Op::PutApiKey {
        id: id.to_owned(),
        hash: [byte; 32],
        roles: vec![Role::Admin],
        name: "n".to_owned(),
    };
    world.apply(put("k", 1)).unwrap();
    assert_eq!(summary(&world.apply(put("other", 1)).unwrap_err()).0, "conflict");
    world.apply(put("k", 2)).unwrap();
    assert!(world.catalog.authenticate(&[1; 32]).is_none());
    let (tenant, key) = world.catalog.authenticate(&[2; 32]).unwrap();
    assert_eq!((tenant.0.as_ref(), key.id.as_str()), ("t", "k"));
    let restored = Catalog::from_records(world.catalog.records()).unwrap();
    assert!(restored.authenticate(&[2; 32]).is_some());
    world.apply(Op::RevokeApiKey { id: "k".to_owned() }).unwrap();
    assert!(world.catalog.authenticate(&[2; 32]).is_none());
}
