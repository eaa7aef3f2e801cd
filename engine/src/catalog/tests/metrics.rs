//! Behavioural metrics as they are written, read by others, and stored.

use super::{World, json, summary};
use crate::catalog::{Catalog, EntityKind};
use crate::keys::{MetricKey, Micros, TenantId};
use crate::profile::command::Window;
use crate::profile::measuring::gone;
use crate::profile::metrics::{Feed, Group, Trigger};
use crate::profile::state::Profile;
use crate::time::Timestamp;

fn create(world: &mut World, kind: EntityKind, id: &str, body: &str) -> Vec<String> {
    match world.create(kind, id, json(body)) {
        Ok(_) => Vec::new(),
        Err(refusal) => summary(&refusal).1,
    }
}

#[test]
fn every_fault_of_a_metric_is_told_with_its_pointer() {
    let mut world = World::furnished();
    let mut metric = |body: &str| create(&mut world, EntityKind::Metric, "m", body);
    let faulty = r#"{"name":"a b","aggregation":"median","outcomes":["nope"],"events":["",""],"field":"cost","per":{"hours":0},
        "groupBy":["offer","offer","shop","properties.a b"],"x":1,"filters":{"conditions":[]}}"#;
    let told = [
        "/aggregation",
        "/events/0",
        "/events/1",
        "/events/1",
        "/field",
        "/filters/conditions",
        "/groupBy/2",
        "/name",
        "/outcomes/0",
        "/per/hours",
        "/x",
    ];
    let mut found = metric(faulty);
    found.retain(|pointer| pointer != "/groupBy/1" && pointer != "/groupBy/3");
    assert_eq!(found, told);
    assert_eq!(metric(r#"{"name":"m"}"#), [""]);
    assert_eq!(metric(r#"{"name":"m","events":["a"],"field":"properties.x"}"#), ["/field"]);
    assert_eq!(metric(r#"{"name":"m","events":["a"],"window":"rolling"}"#), ["/window"]);
    assert_eq!(metric(r#"{"name":"m","events":["a"],"per":{"hours":2},"window":"calendar"}"#), ["/window"]);
    assert_eq!(metric(r#"{"name":"m","events":["a"],"groupBy":["properties.a","properties.b"]}"#), ["/groupBy/1"]);
    let filters = r#"{"name":"m","events":["a"],"filters":{"conditions":[{"field":"type","operator":"eq","value":1},
        {"field":"priority","operator":"eq","value":1},{"field":"properties.a","operator":"regex","value":"a"},
        {"combinator":"or","conditions":[{"field":"value","operator":"gt","value":"a"},{"field":"value","operator":"is_null","value":2}]}]}}"#;
    let at = |place: &str| format!("/filters/conditions/{place}");
    let expected = ["0/value", "1/field", "2/operator", "3/conditions/0/value", "3/conditions/1/value"].map(at);
    assert_eq!(metric(filters), expected);
    let fine = r#"{"name":"m","aggregation":"avg","outcomes":["click","conversion"],"events":["buy"],"field":"properties.price",
        "per":"week","window":"rolling","groupBy":["offer","category","channel","properties.brand"],"generation":7,
        "filters":{"combinator":"or","conditions":[{"field":"channel","operator":"in","value":["web"]},
        {"field":"properties.basket","operator":"is_not_null"}]}}"#;
    assert_eq!(metric(fine), [""; 0]);
    assert_eq!(create(&mut world, EntityKind::Metric, "n", r#"{"name":"m","events":["a"]}"#), ["/name"]);
    let stored = world.catalog.tenant(&TenantId::new("t")).unwrap().metrics().by_name("m").unwrap().clone();
    assert_eq!(stored.body.generation, 0, "nobody writes it");
}

#[test]
fn what_names_a_metric_names_one_that_is_there_and_keeps_it_there() {
    let table = [
        (
            EntityKind::Rule,
            r#"{"name":"x","ruleType":"metric_condition","config":{"metric":"N","operator":"gt","value":1}}"#,
            "/config/metric",
        ),
        (
            EntityKind::Rule,
            r#"{"name":"x","ruleType":"expression","config":{"expression":"metric.N > 1"}}"#,
            "/config/expression",
        ),
        (
            EntityKind::Rule,
            r#"{"name":"x","ruleType":"attribute_condition","config":{"attribute":"metric.N","operator":"gt","value":1}}"#,
            "/config/attribute",
        ),
        (
            EntityKind::Policy,
            r#"{"name":"x","ruleType":"metric_condition","config":{"metric":"N","operator":"gt","value":1}}"#,
            "/config/metric",
        ),
        (EntityKind::Guardrail, r#"{"name":"x","expression":"metric.N < 5"}"#, "/expression"),
        (
            EntityKind::Category,
            r#"{"name":"x","customFields":[{"name":"f","type":"computed","formula":"metric.N * 2","outputType":"number"}]}"#,
            "/customFields/0/formula",
        ),
    ];
    for (kind, body, pointer) in table {
        let mut world = World::furnished();
        assert_eq!(create(&mut world, kind, "x", &body.replace('N', "m")), [pointer], "{body}");
        create(&mut world, EntityKind::Metric, "m", r#"{"name":"m","events":["a"]}"#);
        create(&mut world, EntityKind::Metric, "g", r#"{"name":"g","events":["a"],"groupBy":["properties.shop"]}"#);
        let of_one = if pointer == "/config/metric" { "/config/group" } else { pointer };
        assert_eq!(create(&mut world, kind, "x", &body.replace('N', "g")), [of_one], "which of its groups? {body}");
        assert_eq!(create(&mut world, kind, "x", &body.replace('N', "m")), [""; 0], "{body}");
        for force in [false, true] {
            let refused = world.delete(EntityKind::Metric, "m", force).unwrap_err();
            assert_eq!(summary(&refused).0, "conflict", "{body}");
        }
        let made = if kind == EntityKind::Category { "cat_x" } else { "x" };
        world.delete(kind, made, true).unwrap();
        world.delete(EntityKind::Metric, "m", false).unwrap();
    }
}

#[test]
fn a_flow_in_force_keeps_its_metrics_and_branches_take_none_that_differ_by_offer() {
    let mut world = World::furnished();
    create(&mut world, EntityKind::Metric, "m", r#"{"name":"m","outcomes":["click"]}"#);
    create(&mut world, EntityKind::Metric, "o", r#"{"name":"o","outcomes":["click"],"groupBy":["offer"]}"#);
    let draft = |when: &str| {
        format!(
            r#"{{"key":"metered","name":"metered","draftConfig":{{"version":2,"nodes":[
            {{"id":"i","type":"inventory","phase":1,"position":0}},
            {{"id":"c","type":"conditional","phase":1,"position":1,"config":{{"branches":[{{"when":"{when}","nodes":[]}}]}}}},
            {{"id":"f","type":"filter","phase":1,"position":2,"config":{{"conditions":[
                {{"field":"metric.o","operator":"lt","value":3}}]}}}}]}}}}"#
        )
    };
    create(&mut world, EntityKind::Flow, "flow_metered", &draft("metric.o > 2"));
    let publish =
        |world: &mut World| match world.apply(crate::catalog::Op::PublishFlow { id: "flow_metered".to_owned() }) {
            Ok(_) => Vec::new(),
            Err(refusal) => summary(&refusal).1,
        };
    assert_eq!(publish(&mut world), ["/draftConfig/nodes/1/config/branches/0/when"]);
    world.update(EntityKind::Flow, "flow_metered", &draft("metric.m > 2")).unwrap();
    assert_eq!(publish(&mut world), [""; 0]);
    for metric in ["m", "o"] {
        assert_eq!(summary(&world.delete(EntityKind::Metric, metric, true).unwrap_err()).0, "conflict");
    }
}

#[test]
fn a_catalogue_with_metrics_reads_back_and_one_without_is_stored_as_ever() {
    let mut world = World::furnished();
    let without = world.catalog.records().count();
    create(&mut world, EntityKind::Metric, "m", r#"{"name":"m","events":["a"]}"#);
    create(
        &mut world,
        EntityKind::Rule,
        "r",
        r#"{"name":"r","ruleType":"expression","config":{"expression":"metric.m > 1"}}"#,
    );
    let records: Vec<Vec<u8>> = world.catalog.records().collect();
    assert_eq!(records.len(), without + 3, "its table and itself, and the rule");
    let mut restored = Catalog::from_records(&records).unwrap();
    assert!(restored.records().eq(records));
    let shown = |catalog: &Catalog| catalog.tenant(&TenantId::new("t")).unwrap().get(EntityKind::Metric, "m");
    assert_eq!(shown(&restored), shown(&world.catalog));
    // Who reads it is known again.
    std::mem::swap(&mut restored, &mut world.catalog);
    assert_eq!(summary(&world.delete(EntityKind::Metric, "m", false).unwrap_err()).0, "conflict");
}

#[test]
fn a_metric_that_a_catalogue_has_not_heard_of_yet_was_not_deleted() {
    let mut world = World::furnished();
    let counted = |metric: u32| {
        let feed = Feed {
            trigger: Trigger::Itself,
            metric: MetricKey(metric),
            generation: 0,
            group: Group::default(),
            number: Micros(1),
            window: Window::Lifetime,
        };
        let mut profile = Profile::default();
        profile.dealings.get_or_insert_default().metrics.feed(&feed, Timestamp(0));
        profile
    };
    let gone = |world: &World| gone(world.catalog.tenant(&TenantId::new("t")).unwrap(), Some(&counted(0)));
    assert_eq!(gone(&world), [], "the profile was fed by a leader that knew more");
    create(&mut world, EntityKind::Metric, "m", r#"{"name":"m","events":["a"]}"#);
    assert_eq!(gone(&world), []);
    world.delete(EntityKind::Metric, "m", false).unwrap();
    assert_eq!(gone(&world), [MetricKey(0)]);
}
