//! Bad writes, from the golden table.

use super::{World, json, summary};
use crate::catalog::EntityKind;
use crate::value::Value;

#[test]
fn bad_writes_are_refused_with_every_pointer_and_change_nothing() {
    let mut world = World::furnished();
    let hash = world.catalog.hash();
    for line in include_str!("../../../tests/golden/catalog_refusals.ndjson").lines() {
        let case = json(line);
        let member = |name: &str| case.as_map().unwrap().get(name).cloned().unwrap_or_default();
        let kind = EntityKind::parse(member("kind").as_text().unwrap()).unwrap();
        world.admin = member("admin") == Value::Bool(true);
        let refusal = world.create(kind, "fresh", member("body"));
        let refusal = refusal.expect_err(&format!("accepted: {line}"));
        let (what, pointers) = summary(&refusal);
        assert_eq!(Some(what), member("refusal").as_text(), "{line}: {refusal}");
        let at = member("at");
        let wanted: Vec<&str> = at.as_list().unwrap().iter().map(|at| at.as_text().unwrap()).collect();
        assert_eq!(pointers, wanted, "{line}: {refusal}");
        assert_eq!(world.catalog.hash(), hash, "{line}");
    }
}

#[test]
fn bodies_beyond_the_limits_are_refused() {
    let mut world = World::empty();
    let mut deep = Value::Null;
    for _ in 0..40 {
        deep = Value::list([deep]);
    }
    let body = |metadata: Value| Value::map([("name", Value::text("n")), ("metadata", Value::map([("x", metadata)]))]);
    let long = Value::text("x".repeat(300_000));
    let wide = Value::list((0..60_000).map(|number| Value::Number(f64::from(number))));
    for metadata in [deep, long, wide, Value::Number(f64::NAN)] {
        let refusal = world.create(EntityKind::Offer, "o", body(metadata)).unwrap_err();
        assert_eq!(summary(&refusal), ("invalid", vec![String::new()]));
    }
}
