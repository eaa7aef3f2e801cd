//! Publishing and rolling back flows.

use super::tutorial::FLOW;
use super::{World, json, summary};
use crate::catalog::{EntityKind, Op, Refusal};
use crate::limits::PLANS_MAX;
use crate::model::flow::Node;
use crate::value::Value;

fn publish(world: &mut World, id: &str) -> Result<crate::catalog::Changed, Refusal> {
    world.apply(Op::PublishFlow { id: id.to_owned() })
}

fn draft(world: &mut World, nodes: &str) -> (&'static str, Vec<String>) {
    let patch = format!(r#"{{"draftConfig":{{"version":2,"nodes":[{nodes}]}}}}"#);
    world.update(EntityKind::Flow, "flow_base", &patch).unwrap();
    match publish(world, "flow_base") {
        Ok(_) => ("fine", Vec::new()),
        Err(refusal) => summary(&refusal),
    }
}

const INVENTORY: &str = r#"{"id":"inv","type":"inventory","phase":1,"position":0}"#;

#[test]
fn every_fault_of_a_draft_is_told_at_once() {
    let mut world = World::furnished();
    let patch = r#"{"draftConfig":{"version":1,"flowConfig":{"experiment":{"holdoutPercent":101}},"nodes":[
      {"id":"a","type":"score","phase":1,"position":0,"config":{"method":"formula","formula":{"propensityWeight":0.5}}},
      {"id":"a","type":"extension_point","phase":1,"position":0},
      {"id":"c","type":"conditional","phase":1,"position":2},
      {"id":"d","type":"rank","phase":2,"position":3,"config":{"maxCandidates":0,"x":1}}]}}"#;
    world.update(EntityKind::Flow, "flow_base", patch).unwrap();
    let (what, pointers) = summary(&publish(&mut world, "flow_base").unwrap_err());
    assert_eq!(what, "invalid");
    assert_eq!(
        pointers,
        [
            "/draftConfig/flowConfig/experiment/holdoutPercent",
            "/draftConfig/nodes",
            "/draftConfig/nodes/0/config/formula",
            "/draftConfig/nodes/0/phase",
            "/draftConfig/nodes/0/position",
            "/draftConfig/nodes/1/id",
            "/draftConfig/nodes/1/position",
            "/draftConfig/nodes/1/type",
            "/draftConfig/nodes/2/config/branches",
            "/draftConfig/nodes/3/config/maxCandidates",
            "/draftConfig/nodes/3/config/x",
            "/draftConfig/version",
        ]
    );
    assert!(world.tenant().flow_versions(world.tenant().flows().key_of("flow_base").unwrap()).is_empty());
}

#[test]
fn node_configs_are_checked_against_the_catalogue() {
    let mut world = World::furnished();
    let cases = [
        (r#""type":"enrich","phase":1,"config":{"sources":[{"schemaId":"customer","lookupKey":"customer_id"}]}"#, None),
        (
            r#""type":"enrich","phase":1,"config":{"sources":[{"schemaId":"customer","lookupKey":"age"}]}"#,
            Some("sources/0/lookupKey"),
        ),
        (
            r#""type":"enrich","phase":1,"config":{"sources":[{"schemaId":"x","lookupKey":"customer_id"}]}"#,
            Some("sources/0/schemaId"),
        ),
        (
            r#""type":"enrich","phase":1,
               "config":{"sources":[{"schemaId":"customer","lookupKey":"customer_id","fields":["zz"]}]}"#,
            Some("sources/0/fields/0"),
        ),
        (r#""type":"qualify","phase":1,"config":{"mode":"selected","ids":["r1"]}"#, None),
        (r#""type":"qualify","phase":1,"config":{"mode":"selected","ids":["p1"]}"#, Some("ids/0")),
        (r#""type":"contact_policy","phase":1,"config":{"mode":"selected","ids":[]}"#, Some("ids")),
        (r#""type":"score","phase":2,"config":{"impact":{"margin":0.9}}"#, Some("impact")),
        (
            r#""type":"score","phase":2,"config":{"formula":{"propensityWeight":1,"upliftWeight":2.1}}"#,
            Some("formula/upliftWeight"),
        ),
        (
            r#""type":"score","phase":2,"config":{"overrides":[{"channel":"nope","method":"propensity"}]}"#,
            Some("overrides/0/channel"),
        ),
        (r#""type":"score","phase":2,"config":{"method":"expression","formula":"P * E + customer.age"}"#, None),
        (r#""type":"score","phase":2,"config":{"method":"expression","formula":"P >"}"#, Some("formula")),
        (r#""type":"score","phase":2,"config":{"method":"expression","formula":"P > 1"}"#, Some("formula")),
        (
            r#""type":"score","phase":2,"config":{"method":"expression","formula":"P","overrides":[]}"#,
            Some("overrides"),
        ),
        (r#""type":"score","phase":2,"config":{"method":"expression"}"#, Some("formula")),
        (r#""type":"optimize","phase":2,"config":{"objectives":{"score":0.5,"margin":0.5}}"#, None),
        (r#""type":"optimize","phase":2,"config":{"objectives":{"score":0.5,"margin":0.6}}"#, Some("objectives")),
        (r#""type":"optimize","phase":2,"config":{"objectives":{"score":1,"joy":1}}"#, Some("objectives/joy")),
        (
            r#""type":"optimize","phase":2,"config":{"objectives":{"score":1,"margin":-0.5,"impact":0.5}}"#,
            Some("objectives/margin"),
        ),
        (
            r#""type":"set_properties","phase":3,"config":{"set":{"a":"customer.age + 1","b":"concat('x', rate)"}}"#,
            None,
        ),
        (r#""type":"set_properties","phase":3,"config":{"set":{}}"#, Some("set")),
        (r#""type":"set_properties","phase":3,"config":{"set":{"a b":"1"}}"#, Some("set/a b")),
        (r#""type":"set_properties","phase":3,"config":{"set":{"a":"1 +"}}"#, Some("set/a")),
        (r#""type":"set_properties","phase":3,"config":{"set":{"a":"metric.clicks"}}"#, Some("set/a")),
        (r#""type":"compute","phase":3,"config":{"fields":["rate"]}"#, None),
        (r#""type":"compute","phase":3,"config":{"fields":["base_rate"]}"#, Some("fields/0")),
    ];
    for (node, fault) in cases {
        let nodes = format!(r#"{INVENTORY},{{"id":"n","position":1,{node}}}"#);
        let (what, pointers) = draft(&mut world, &nodes);
        match fault {
            None => assert_eq!(what, "fine", "{node}: {pointers:?}"),
            Some(fault) => assert_eq!(pointers, [format!("/draftConfig/nodes/1/config/{fault}")], "{node}"),
        }
    }
    let inactive = r#"{"id":"inv","type":"inventory","phase":1,"position":0,"config":{"includeStatuses":["draft"]}}"#;
    assert_eq!(draft(&mut world, inactive).1, ["/draftConfig/nodes/0/config/includeStatuses"]);
}

#[test]
fn every_fault_of_a_filter_is_told_with_its_pointer() {
    let mut world = World::furnished();
    let mut filter = |config: &str| {
        let node = format!(r#"{{"id":"f","type":"filter","phase":1,"position":1,"config":{config}}}"#);
        draft(&mut world, &format!("{INVENTORY},{node}"))
    };
    let fine = r#"{"combinator":"or","conditions":[
        {"field":"priority","operator":"gte","value":50},{"field":"customer.tier","operator":"is_null"},
        {"combinator":"and","conditions":[{"field":"offer.name","operator":"regex","value":"^g.ld"},
            {"field":"context.city","operator":"not_in","value":["Bonn"]}]}]}"#;
    assert_eq!(filter(fine), ("fine", Vec::new()));
    let faulty = r#"{"conditions":[
        {"field":"nope","operator":"eq","value":1},{"field":"priority","operator":"regex","value":"("},
        {"field":"priority","operator":"gt","value":"a"},{"field":"customer.tier","operator":"is_null","value":1},
        {"combinator":"or","conditions":[]},{"field":"a-b","operator":"is_null"},
        {"field":"metric.clicks","operator":"gt","value":1},{"field":"name","operator":"in","value":[]}]}"#;
    let (what, pointers) = filter(faulty);
    let at = |pointer: &str| format!("/draftConfig/nodes/1/config/conditions/{pointer}");
    assert_eq!(what, "invalid");
    let expected = [
        "0/field",
        "1/operator",
        "1/value",
        "2/value",
        "3/value",
        "4/conditions",
        "5/field",
        "5/field",
        "6/field",
        "7/value",
    ];
    assert_eq!(pointers, expected.map(at));
    let unknown = r#"{"conditions":[{"field":"name","operator":"like","value":"x"}]}"#;
    assert_eq!(filter(unknown).1, [at("0/operator")]);
    let many = format!(
        r#"{{"conditions":[{}]}}"#,
        vec![r#"{"field":"name","operator":"is_null"}"#; crate::limits::FILTER_CONDITIONS_MAX + 1].join(",")
    );
    assert_eq!(filter(&many).1, ["/draftConfig/nodes/1/config/conditions"]);
}

#[test]
fn arbitration_is_greedy_or_optimal() {
    let mut world = World::furnished();
    for (arbitration, pointers) in [("greedy", vec![]), ("optimal", vec![]), ("fair", vec!["arbitration"])] {
        let node =
            format!(r#"{{"id":"g","type":"group","phase":2,"position":1,"config":{{"arbitration":"{arbitration}"}}}}"#);
        let expected: Vec<String> =
            pointers.iter().map(|pointer| format!("/draftConfig/nodes/1/config/{pointer}")).collect();
        assert_eq!(draft(&mut world, &format!("{INVENTORY},{node}")).1, expected, "{arbitration}");
    }
}

#[test]
fn every_fault_in_a_branch_is_told_with_its_pointer() {
    let mut world = World::furnished();
    let mut conditional = |config: &str| {
        let node = format!(r#"{{"id":"c","type":"conditional","phase":1,"position":1,"config":{config}}}"#);
        draft(&mut world, &format!("{INVENTORY},{node}"))
    };
    let fine = r#"{"branches":[{"when":"customer.age > 30","nodes":[
        {"id":"f","type":"filter","phase":1,"position":0,"config":{"conditions":[{"field":"name","operator":"is_not_null"}]}},
        {"id":"d","type":"conditional","phase":1,"position":1,"config":{"branches":[{"when":"true","nodes":[]}]}}]}]}"#;
    assert_eq!(conditional(fine), ("fine", Vec::new()));
    let faulty = r#"{"branches":[
        {"when":"offer.priority > 3","nodes":[{"id":"inv","type":"filter","phase":1,"position":0,
            "config":{"conditions":[{"field":"nope","operator":"is_null"}]}}]},
        {"when":"1 +","nodes":[{"id":"x","type":"inventory","phase":1,"position":0}]},
        {"when":"'a'","nodes":[{"id":"y","type":"score","phase":2,"position":0}]}],
      "else":[{"id":"z","type":"call_flow","phase":1,"position":0,"config":{"flowKey":"nobody"}}]}"#;
    let (what, pointers) = conditional(faulty);
    let at = |pointer: &str| format!("/draftConfig/nodes/1/config/{pointer}");
    assert_eq!(what, "invalid");
    let expected = [
        "branches/0/nodes/0/config/conditions/0/field",
        "branches/0/nodes/0/id",
        "branches/0/when",
        "branches/1/nodes/0/type",
        "branches/1/when",
        "branches/2/nodes/0/phase",
        "branches/2/when",
        "else/0/config/flowKey",
    ];
    assert_eq!(pointers, expected.map(at));
    assert_eq!(conditional(r#"{"branches":[]}"#).1, [at("branches")]);
    // A node that cannot be read hides no fault of its siblings.
    let unreadable = r#"{"branches":[{"when":"true","nodes":[
        {"id":"x","type":"extension_point","phase":1,"position":0},
        {"id":"y","type":"call_flow","phase":1,"position":1,"config":{"flowKey":"nobody"}}]}]}"#;
    let expected = ["branches/0/nodes/0/type", "branches/0/nodes/1/config/flowKey"];
    assert_eq!(conditional(unreadable).1, expected.map(at));
}

/// Creates (or changes) and publishes a flow of an inventory and calls of these flows.
fn publish_caller(world: &mut World, key: &str, called: &[&str]) -> Result<(), String> {
    let calls: Vec<String> = called
        .iter()
        .zip(1..)
        .map(|(called, position)| {
            format!(
                r#"{{"id":"c{position}","type":"call_flow","phase":1,"position":{position},
                   "config":{{"flowKey":"{called}"}}}}"#
            )
        })
        .collect();
    let nodes = [&[INVENTORY.to_owned()], &calls[..]].concat().join(",");
    let draft = format!(r#""draftConfig":{{"version":2,"nodes":[{nodes}]}}"#);
    let id = format!("flow_{key}");
    if world.tenant().flow_by_key(key).is_some() {
        world.update(EntityKind::Flow, &id, &format!("{{{draft}}}")).unwrap();
    } else {
        world.create(EntityKind::Flow, &id, json(&format!(r#"{{"key":"{key}","name":"{key}",{draft}}}"#))).unwrap();
    }
    publish(world, &id).map(drop).map_err(|refusal| format!("{refusal:?}"))
}

#[test]
fn cycles_of_calls_are_refused_by_name_and_calls_go_four_deep() {
    let mut world = World::furnished();
    publish_caller(&mut world, "e", &[]).unwrap();
    for (key, called) in [("d", "e"), ("c", "d"), ("b", "c"), ("a", "b")] {
        publish_caller(&mut world, key, &[called]).unwrap();
    }
    let cycle = publish_caller(&mut world, "e", &["c"]).unwrap_err();
    assert!(cycle.contains("e -> c -> d -> e"), "{cycle}");
    let itself = publish_caller(&mut world, "e", &["e"]).unwrap_err();
    assert!(itself.contains("e -> e"), "{itself}");
    let deep = publish_caller(&mut world, "top", &["a"]).unwrap_err();
    assert!(deep.contains("top -> a -> b -> c -> d -> e"), "{deep}");
    // A called flow cannot make its callers' calls too deep either.
    publish_caller(&mut world, "z", &[]).unwrap();
    let below = publish_caller(&mut world, "e", &["z"]).unwrap_err();
    assert!(below.contains("a -> b -> c -> d -> e -> z"), "{below}");
    publish_caller(&mut world, "e", &[]).unwrap();
}

#[test]
fn a_called_flow_stays_and_must_have_been_published() {
    let mut world = World::furnished();
    world.create(EntityKind::Flow, "flow_x", json(r#"{"key":"x","name":"x"}"#)).unwrap();
    assert!(publish_caller(&mut world, "y", &["x"]).unwrap_err().contains("was never published"));
    publish_caller(&mut world, "x", &[]).unwrap();
    publish_caller(&mut world, "y", &["x"]).unwrap();
    assert_eq!(summary(&world.delete(EntityKind::Flow, "flow_x", true).unwrap_err()).0, "conflict");
    world.delete(EntityKind::Flow, "flow_y", false).unwrap();
    world.delete(EntityKind::Flow, "flow_x", false).unwrap();
}

#[test]
fn a_flow_has_so_many_ways_and_no_more() {
    let mut world = World::furnished();
    let fork = |position: usize| {
        format!(
            r#"{{"id":"c{position}","type":"conditional","phase":1,"position":{position},
               "config":{{"branches":[{{"when":"customer.age > {position}","nodes":[]}}]}}}}"#
        )
    };
    let forks = |count: usize| (1..=count).map(fork).collect::<Vec<_>>().join(",");
    assert_eq!(draft(&mut world, &format!("{INVENTORY},{}", forks(6))).0, "fine");
    assert_eq!(draft(&mut world, &format!("{INVENTORY},{}", forks(7))).1, ["/draftConfig/nodes"]);
}

#[test]
fn versions_are_immutable_and_a_roll_back_appends() {
    let mut world = World::furnished();
    publish(&mut world, "base").unwrap();
    let rank = r#"{"id":"rank","type":"rank","phase":2,"position":5,"config":{"maxCandidates":7}}"#;
    assert_eq!(draft(&mut world, &format!("{INVENTORY},{rank}")).0, "fine");
    world.apply(Op::RollbackFlow { id: "flow_base".to_owned(), version: 1 }).unwrap();
    let tenant = world.tenant();
    let key = tenant.flow_by_key("base").unwrap().key;
    let versions = tenant.flow_versions(key);
    assert_eq!(versions.iter().map(|version| version.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(versions[2].config, versions[0].config);
    assert!(matches!(&versions[1].config.nodes[1].node, Node::Rank(rank) if rank.max_candidates == 7));
    assert_eq!(tenant.current_version(key).unwrap().number, 3);
    let missing = Op::RollbackFlow { id: "base".to_owned(), version: 9 };
    assert_eq!(summary(&world.apply(missing).unwrap_err()).0, "not found");
    world.update(EntityKind::Flow, "flow_base", r#"{"status":"archived"}"#).unwrap();
    assert_eq!(summary(&publish(&mut world, "base").unwrap_err()).0, "conflict");
}

#[test]
fn what_a_published_flow_reads_stays() {
    let mut world = World::furnished();
    let body = FLOW.replace("sch_1", "customer").replace(
        r#""fields": ["tier", "tenureMonths", "hasChecking", "hasCreditCard", "avgMonthlyBalance"]"#,
        r#""fields": ["tier"]"#,
    );
    world.create(EntityKind::Flow, "flow_x", json(&body)).unwrap();
    publish(&mut world, "flow_x").unwrap();
    assert_eq!(summary(&world.delete(EntityKind::Schema, "sch_customer", true).unwrap_err()).0, "conflict");
    let without_tier = r#"{"fields":[{"name":"customer_id","dataType":"varchar","isUnique":true}]}"#;
    let refusal = world.update(EntityKind::Schema, "sch_customer", without_tier).unwrap_err();
    assert_eq!(summary(&refusal), ("conflict", vec!["/fields".to_owned()]));
    world.delete(EntityKind::Flow, "flow_x", false).unwrap();
    world.update(EntityKind::Schema, "sch_customer", without_tier).unwrap();
    assert_eq!(world.tenant().get(EntityKind::Flow, "flow_x"), None::<Value>);
}

#[test]
fn flows_in_force_score_in_so_many_ways_and_no_more() {
    let mut world = World::furnished();
    let mut ways = 0;
    let mut flow = |world: &mut World, number: usize| {
        let id = format!("flow_{number}");
        let half_life = number + 1;
        let nodes = format!(
            r#"{INVENTORY},{{"id":"s","type":"score","phase":2,"position":1,"config":{{"method":"propensity",
              "relevance":{{"halfLifeDays":{half_life}}},"overrides":[{{"channel":"web","method":"propensity"}}]}}}}"#
        );
        let body = format!(r#"{{"key":"{id}","name":"{id}","draftConfig":{{"version":2,"nodes":[{nodes}]}}}}"#);
        world.create(EntityKind::Flow, &id, json(&body)).unwrap();
        ways += 2;
        publish(world, &id)
    };
    for number in 0..PLANS_MAX / 2 {
        flow(&mut world, number).unwrap();
    }
    let refusal = flow(&mut world, PLANS_MAX).unwrap_err();
    assert_eq!(summary(&refusal), ("invalid", vec!["/draftConfig/nodes".to_owned()]));
    assert_eq!(ways, PLANS_MAX + 2);
}
