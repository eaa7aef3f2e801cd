//! Bad writes, from the golden table.

use super::{World, json, summary};
use crate::catalog::EntityKind;
use crate::limits::NAMES_READ_MAX;
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

#[test]
fn policies_that_could_not_hold_are_refused() {
    let mut world = World::furnished();
    let mut create = |id: &str, body: &str| match world.create(EntityKind::Policy, id, json(body)) {
        Ok(_) => Vec::new(),
        Err(refusal) => summary(&refusal).1,
    };
    let counted = |kind: &str, config: &str, scope: &str| {
        format!(r#"{{"name":"n","ruleType":"{kind}","config":{{{config},"enforcement":"strict"}},"scopes":[{scope}]}}"#)
    };
    let house = r#"{"scope":"global"},{"scope":"subcategory","scopeId":"sub_house"}"#;
    let strict = ["/config/enforcement"];
    assert_eq!(create("a", &counted("frequency_cap", r#""maxPerDay":1"#, house)), strict);
    assert_eq!(create("b", &counted("cooldown", r#""cooldownHours":1"#, house)), strict);
    let total = counted("customer_total_cap", r#""maxTotal":1,"periodType":"daily""#, house);
    assert!(create("c", &total).is_empty(), "it counts all impressions");
    assert!(create("d", &counted("cooldown", r#""cooldownHours":1"#, r#"{"scope":"global"}"#)).is_empty());
    let outcomes =
        r#"{"name":"n","ruleType":"outcome_based","config":{"outcomes":["click","impression"],"lookbackDays":1}}"#;
    assert_eq!(create("e", outcomes), ["/config/outcomes/1"]);
}

#[test]
fn rules_and_formulas_read_so_many_names_and_no_more() {
    let mut world = World::furnished();
    let expression = |first: usize, count: usize| {
        let names: Vec<String> = (first..first + count).map(|number| format!("context.n{number}")).collect();
        format!(
            r#"{{"name":"n","ruleType":"expression","config":{{"expression":"coalesce({}) == 1"}}}}"#,
            names.join(", ")
        )
    };
    let step = 200;
    // The rule and the formulas of the fixture read a few.
    let steps = NAMES_READ_MAX / step - 1;
    for number in 0..steps {
        world.create(EntityKind::Rule, &format!("r_{number}"), json(&expression(number * step, step))).unwrap();
    }
    let more = json(&expression(steps * step, step));
    assert_eq!(summary(&world.create(EntityKind::Rule, "more", more.clone()).unwrap_err()).1, ["/config"]);
    world.create(EntityKind::Rule, "same", json(&expression(0, step))).unwrap();
    world.delete(EntityKind::Rule, "r_1", false).unwrap();
    world.create(EntityKind::Rule, "more", more).unwrap();
}

#[test]
fn a_placement_takes_no_types_that_leave_its_content_or_a_fallback_out() {
    let mut world = World::empty();
    let mut make = |kind: EntityKind, id: &str, body: &str| {
        world.create(kind, id, json(body)).unwrap_or_else(|refusal| panic!("{id}: {refusal}"));
    };
    make(EntityKind::Channel, "web", r#"{"name":"web"}"#);
    make(EntityKind::Placement, "top", r#"{"name":"top","channelId":"web"}"#);
    make(EntityKind::Offer, "a", r#"{"name":"a"}"#);
    make(EntityKind::Offer, "rescue", r#"{"name":"rescue","kind":"fallback","status":"active"}"#);
    for (id, offer, placement, content_type, status) in [
        ("a_html", "a", r#""top""#, "html", "draft"),
        ("a_image", "a", r#""top""#, "image", "active"),
        ("a_video", "a", r#""top""#, "video", "paused"),
        ("a_wide", "a", "null", "video", "active"),
        ("rescue_wide", "rescue", "null", "video", "active"),
    ] {
        let body = format!(
            r#"{{"name":"c","offerId":"{offer}","channelId":"web","placementId":{placement},"contentType":"{content_type}","status":"{status}"}}"#
        );
        make(EntityKind::Creative, id, &body);
    }
    make(EntityKind::Collection, "all", r#"{"name":"all"}"#);
    let activity = r#"{"name":"hero","collectionId":"all","placementId":"top","fallbackOfferId":"rescue"}"#;
    make(EntityKind::Activity, "hero", activity);

    let refusal = world.update(EntityKind::Placement, "top", r#"{"contentTypes":["image"]}"#).unwrap_err();
    let crate::catalog::Refusal::Conflict { faults, .. } = refusal else { panic!("{refusal}") };
    let named: Vec<(&str, &str)> =
        faults.iter().map(|fault| (fault.pointer.as_str(), fault.message.split(' ').nth(1).unwrap())).collect();
    let at = "/contentTypes";
    assert_eq!(named, [(at, "a_html"), (at, "a_video"), (at, "hero")]);
    world.update(EntityKind::Placement, "top", r#"{"contentTypes":["image","html","video"]}"#).unwrap();
    let refusal = world.update(EntityKind::Creative, "rescue_wide", r#"{"contentType":"text"}"#).unwrap_err();
    assert_eq!(summary(&refusal).0, "conflict", "what fills in for nothing must fit too");
}
