//! Guardrails as they are written and stored.

use super::{World, json, summary};
use crate::catalog::{Catalog, EntityKind};
use crate::keys::TenantId;

#[test]
fn every_fault_of_a_guardrail_is_told_with_its_pointer() {
    let mut world = World::furnished();
    let mut create = |body: &str| match world.create(EntityKind::Guardrail, "g", json(body)) {
        Ok(_) => Vec::new(),
        Err(refusal) => summary(&refusal).1,
    };
    let faulty = r#"{"name":"","expression":"customer.age >","mode":"firm","multiplier":0.05,"priority":101,"x":1}"#;
    assert_eq!(create(faulty), ["/expression", "/mode", "/multiplier", "/name", "/priority", "/x"]);
    assert_eq!(create(r#"{"name":"g"}"#), ["/expression"]);
    assert_eq!(create(r#"{"name":"g","expression":"customer.age + 1"}"#), ["/expression"]);
    assert_eq!(create(r#"{"name":"g","expression":"metric.clicks > 1"}"#), ["/expression"]);
    assert_eq!(create(r#"{"name":"g","expression":"offer.margin > 0 || customer.staff"}"#), [""; 0]);
    let again = world.create(EntityKind::Guardrail, "h", json(r#"{"name":"g","expression":"true"}"#));
    assert_eq!(summary(&again.unwrap_err()), ("conflict", vec!["/name".to_owned()]));
}

#[test]
fn a_catalogue_with_guardrails_reads_back_and_one_without_is_stored_as_ever() {
    let mut world = World::furnished();
    let without = world.catalog.records().count();
    world.create(EntityKind::Guardrail, "g", json(r#"{"name":"g","expression":"true","mode":"soft"}"#)).unwrap();
    let records: Vec<Vec<u8>> = world.catalog.records().collect();
    assert_eq!(records.len(), without + 2, "its table and itself");
    let restored = Catalog::from_records(&records).unwrap();
    assert!(restored.records().eq(records));
    let shown = |catalog: &Catalog| catalog.tenant(&TenantId::new("t")).unwrap().get(EntityKind::Guardrail, "g");
    assert_eq!(shown(&restored), shown(&world.catalog));
    // Its id is remembered when it is gone.
    world.delete(EntityKind::Guardrail, "g", false).unwrap();
    let again = json(r#"{"name":"g","expression":"true"}"#);
    assert_eq!(summary(&world.create(EntityKind::Guardrail, "g", again).unwrap_err()).0, "conflict");
}
