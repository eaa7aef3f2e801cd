//! What an update leaves alone: columns that do not follow from what was written are the same ones, not equal ones.

use std::sync::Arc;

use super::Snapshot;
use super::bitset::Bits;
use super::columns::PlanColumns;
use super::segment::Segment;
use crate::catalog::tests::{World, json};
use crate::catalog::{EntityKind, Op};
use crate::keys::TenantId;

/// A base of three offers and a fallback one, a wide rule that looks at offers, and a flow whose scores blend the margin.
fn scene() -> (World, Snapshot) {
    let mut world = World::empty();
    let mut create = |kind, id: &str, body: &str| {
        world.create(kind, id, json(body)).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
    };
    create(EntityKind::Channel, "web", r#"{"name":"web"}"#);
    create(EntityKind::Placement, "top", r#"{"name":"top","channelId":"web"}"#);
    create(EntityKind::Category, "", r#"{"name":"Cards","customFields":[{"name":"rate","type":"number"}]}"#);
    create(EntityKind::Category, "", r#"{"name":"Loans"}"#);
    create(EntityKind::Offer, "rescue", r#"{"name":"rescue","kind":"fallback","status":"active"}"#);
    for (id, category, margin) in [("a", "Cards", 1), ("b", "Cards", 9), ("c", "Loans", 5)] {
        let body = format!(
            r#"{{"name":"{id}","status":"active","categoryId":"{category}","tags":["red"],"margin":{margin}}}"#
        );
        create(EntityKind::Offer, id, &body);
    }
    for id in ["rescue", "a", "b", "c"] {
        let body = format!(r#"{{"name":"{id}","offerId":"{id}","channelId":"web","status":"active"}}"#);
        create(EntityKind::Creative, &format!("creative_{id}"), &body);
    }
    create(EntityKind::Collection, "reds", r#"{"name":"reds","allOf":["red"]}"#);
    create(EntityKind::Rule, "wide", &wide_rule("wide", "priority", 1));
    let nodes = ["inventory", "qualify", "contact_policy", "score", "rank", "compute", "response"];
    let nodes = nodes.iter().zip([1, 1, 1, 2, 2, 3, 3]).enumerate().map(|(position, (kind, phase))| {
        let config = match *kind {
            "score" => {
                r#"{"method":"formula","formula":{"impactWeight":1},"impact":{"businessValue":0.5,"margin":0.5}}"#
            }
            _ => "{}",
        };
        format!(r#"{{"id":"{kind}","type":"{kind}","phase":{phase},"position":{position},"config":{config}}}"#)
    });
    let nodes = nodes.collect::<Vec<_>>().join(",");
    let flow = format!(r#"{{"key":"blend","name":"blend","draftConfig":{{"version":2,"nodes":[{nodes}]}}}}"#);
    create(EntityKind::Flow, "flow", &flow);
    world.apply(Op::PublishFlow { id: "flow".to_owned() }).unwrap();
    let snapshot = Snapshot::compile(&TenantId::new("t"), world.tenant(), world.tenant().revision());
    (world, snapshot)
}

fn wide_rule(name: &str, field: &str, least: u8) -> String {
    let config = format!(r#"{{"field":"{field}","operator":"gte","value":{least}}}"#);
    format!(r#"{{"name":"{name}","scope":"global","ruleType":"offer_attribute","config":{config}}}"#)
}

/// The next snapshot after a write.
fn after(world: &mut World, snapshot: &Snapshot, op: Op) -> Snapshot {
    let changed = world.apply(op).expect("the write is valid");
    snapshot.update(world.tenant(), &changed.effect, world.tenant().revision())
}

fn create(kind: EntityKind, id: &str, body: &str) -> Op {
    Op::Create { kind, id: id.to_owned(), body: json(body) }
}

fn edit(kind: EntityKind, id: &str, patch: &str) -> Op {
    Op::Update { kind, id: id.to_owned(), patch: json(patch), expected: None }
}

/// The base of each of two snapshots.
fn bases<'a>(before: &'a Snapshot, after: &'a Snapshot) -> (&'a Segment, &'a Segment) {
    (&before.parts[0].segment, &after.parts[0].segment)
}

/// The pieces that follow from something beside the offers, by name, with whether both segments have the same.
fn kept(before: &Segment, after: &Segment) -> Vec<(&'static str, bool)> {
    fn same<T>(before: &[Arc<T>], after: &[Arc<T>]) -> bool {
        before.iter().zip(after).all(|(before, after)| Arc::ptr_eq(before, after))
    }
    let wide = |segment: &Segment| segment.wide.iter().flatten().cloned().collect::<Vec<_>>();
    vec![
        ("hours", Arc::ptr_eq(&before.hours, &after.hours) && Arc::ptr_eq(&before.schedules, &after.schedules)),
        ("fatigue", Arc::ptr_eq(&before.fatigue, &after.fatigue)),
        ("collections", same::<Bits>(&before.collections, &after.collections)),
        ("stocks", same::<Bits>(&before.stocks, &after.stocks)),
        ("plans", same::<PlanColumns>(&before.plans, &after.plans)),
        ("fields", same(&before.fields, &after.fields)),
        ("wide", same(&wide(before), &wide(after))),
        ("rules", same(&before.rule_columns, &after.rule_columns)),
        ("offers", Arc::ptr_eq(&before.offers, &after.offers) && Arc::ptr_eq(&before.tagged, &after.tagged)),
    ]
}

fn made_anew(before: &Snapshot, after: &Snapshot) -> Vec<&'static str> {
    let (before, after) = bases(before, after);
    kept(before, after).into_iter().filter(|(_, kept)| !kept).map(|(name, _)| name).collect()
}

#[test]
fn a_write_makes_anew_what_follows_from_it_and_nothing_else() {
    let activity = r#"{"name":"hero","collectionId":"reds","placementId":"top","fallbackOfferId":"rescue"}"#;
    let policy = r#"{"name":"p","ruleType":"cooldown","config":{"cooldownHours":1}}"#;
    let request_rule =
        r#"{"name":"r","scope":"global","ruleType":"expression","config":{"expression":"customer.x > 1"}}"#;
    let computed = r#"{"customFields":[{"name":"rate","type":"number"},
        {"name":"priority","type":"computed","formula":"rate * 2","outputType":"number"}]}"#;
    let writes: [(Op, &[&str]); 14] = [
        (create(EntityKind::Activity, "hero", activity), &[]),
        (create(EntityKind::Placement, "side", r#"{"name":"side","channelId":"web"}"#), &[]),
        (create(EntityKind::Policy, "p", policy), &[]),
        (create(EntityKind::Guardrail, "g", r#"{"name":"g","expression":"customer.x > 1"}"#), &[]),
        (create(EntityKind::Rule, "r", request_rule), &[]),
        (create(EntityKind::Category, "", r#"{"name":"Phones"}"#), &[]),
        (create(EntityKind::Collection, "blues", r#"{"name":"blues","allOf":["blue"]}"#), &[]),
        (edit(EntityKind::Category, "cat_cards", r#"{"name":"Plastic"}"#), &[]),
        (edit(EntityKind::Category, "cat_cards", r#"{"status":"paused"}"#), &[]),
        (edit(EntityKind::Category, "cat_cards", computed), &["fields", "wide", "rules"]),
        (edit(EntityKind::Collection, "reds", r#"{"name":"crimsons"}"#), &["collections"]),
        (create(EntityKind::Rule, "wide_2", &wide_rule("wide_2", "margin", 5)), &["rules"]),
        (Op::UpdateSettings { patch: json(r#"{"fatigueStrength":0.9}"#) }, &["fatigue"]),
        (Op::UpdateSettings { patch: json(r#"{"timeZone":"Europe/Berlin"}"#) }, &["hours"]),
    ];
    for (write, stale) in writes {
        let (mut world, before) = scene();
        let shown = format!("{write:?}");
        let after = after(&mut world, &before, write);
        assert_eq!(made_anew(&before, &after), stale, "{shown}");
        assert_eq!(after.parts.len(), 1, "{shown}");
    }
}

#[test]
fn a_new_plan_comes_beside_those_that_are_there() {
    let (mut world, before) = scene();
    let shown = world.tenant().get(EntityKind::Flow, "flow").unwrap();
    let draft = shown.as_map().unwrap()["draftConfig"].clone();
    let body = json(r#"{"key":"other","name":"other"}"#);
    let mut members = crate::value::Members::clone(body.as_map().unwrap());
    members.insert(Arc::from("draftConfig"), draft);
    let body = crate::value::Value::Map(Arc::new(members));
    let drafted = after(&mut world, &before, Op::Create { kind: EntityKind::Flow, id: "two".to_owned(), body });
    let published = after(&mut world, &drafted, Op::PublishFlow { id: "two".to_owned() });
    assert_eq!(made_anew(&before, &published), Vec::<&str>::new());
    assert_eq!(before.parts[0].segment.plans.len(), published.parts[0].segment.plans.len(), "equal plans are one");
}

#[test]
fn a_new_largest_margin_makes_only_the_plans_anew_that_blend_it() {
    let (mut world, before) = scene();
    let after = after(&mut world, &before, edit(EntityKind::Offer, "a", r#"{"margin":40}"#));
    assert_eq!(made_anew(&before, &after), ["plans"]);
    let (old, new) = bases(&before, &after);
    let plans = after.shared.parts.plans.values();
    for (number, plan) in plans.iter().enumerate() {
        assert_eq!(Arc::ptr_eq(&old.plans[number], &new.plans[number]), !plan.is_relative());
    }
    assert_eq!(plans.iter().filter(|plan| plan.is_relative()).count(), 1);
    assert!(Arc::ptr_eq(&before.policies, &after.policies) && Arc::ptr_eq(&before.names, &after.names));
}

#[test]
fn an_edit_of_one_offer_leaves_the_base_alone() {
    let (mut world, before) = scene();
    let after = after(&mut world, &before, edit(EntityKind::Offer, "c", r#"{"priority":7}"#));
    assert!(Arc::ptr_eq(&before.parts[0].segment, &after.parts[0].segment));
    assert!(Arc::ptr_eq(&before.shared, &after.shared));
    assert!(Arc::ptr_eq(&before.policies, &after.policies) && Arc::ptr_eq(&before.names, &after.names));
    assert_eq!(after.parts[1].segment.len, 1);
}

#[test]
fn a_snapshot_whose_offers_are_sorted_by_a_plan_no_longer_default_wants_a_rebuild() {
    let (mut world, before) = scene();
    assert!(!before.wants_rebuild());
    let after = after(&mut world, &before, Op::UpdateSettings { patch: json(r#"{"defaultFlowKey":"blend"}"#) });
    assert!(after.wants_rebuild());
    assert!(!Snapshot::compile(&TenantId::new("t"), world.tenant(), world.tenant().revision()).wants_rebuild());
}

#[test]
fn names_that_nothing_reads_any_more_ask_for_a_rebuild_in_the_end() {
    let (mut world, mut snapshot) = scene();
    let body = r#"{"name":"r","scope":"global","ruleType":"expression","config":{"expression":"true"}}"#;
    snapshot = after(&mut world, &snapshot, create(EntityKind::Rule, "r", body));
    for round in 0..=10 {
        assert!(!snapshot.wants_rebuild(), "{round}");
        let names: Vec<String> = (0..100).map(|number| format!(r#""s{round}_{number}""#)).collect();
        let config = format!(r#"{{"requiredSegments":[{}]}}"#, names.join(","));
        let patch = format!(r#"{{"ruleType":"segment_required","config":{config}}}"#);
        snapshot = after(&mut world, &snapshot, edit(EntityKind::Rule, "r", &patch));
    }
    assert!(snapshot.wants_rebuild());
}
