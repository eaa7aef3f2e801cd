//! Behavioural metrics in rules, policies, formulas, filters and branches, with answers worked out by hand.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::keys::{ChannelKey, CustomerId, Revision};
use proffer_engine::profile::apply::apply;
use proffer_engine::profile::cells::{Cells, Look, ProfileId};
use proffer_engine::profile::command::{Idempotency, Leader, Position, ShardCommand, ShardCommandV1};
use proffer_engine::profile::measuring::{EventRequest, measure_event};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::{Calendar, DAY_MS, HOUR_MS, Timestamp};
use proffer_engine::value::Value;

use super::scene::{Members, Scene, number, text};
use super::*;

fn words(words: &[&str]) -> Value {
    Value::list(words.iter().map(|word| text(word)))
}

/// Something that a customer did some hours ago: type, number, offer, brand.
type Deed<'d> = (i64, &'d str, f64, Option<&'d str>, &'d str);

/// The scene's customer did this, in order of time.
fn did(scene: &mut Scene, deeds: &[Deed<'_>]) {
    let id = ProfileId { tenant: scene.made.tenant.clone(), customer: CustomerId::new("ada") };
    let mut state = ShardState::new();
    state.intern(&id.tenant, scene.symbols.names());
    state.put_profile(&id, scene.profile.clone());
    for (key, (hours, event_type, value, offer, brand)) in (0..).zip(deeds) {
        let now = scene.now.plus_ms(-hours * HOUR_MS);
        let request = EventRequest {
            tenant: id.tenant.clone(),
            customer: id.customer.clone(),
            event_type: (*event_type).to_owned(),
            value: Some(*value),
            offer: offer.map(|offer| scene.key(offer)),
            channel: Some(ChannelKey(0)),
            properties: [("brand".into(), text(brand))].into(),
        };
        let at =
            proffer_engine::decide::view::Instant { now, frame: Calendar::of(scene.catalog().settings()).frame(now) };
        let idempotency = Idempotency { key, body: 1, until: now.plus_ms(DAY_MS) };
        let op = measure_event(scene.catalog(), state.profile(&id), &request, idempotency, &at);
        let leader = Leader::default();
        let command = ShardCommand::V1(ShardCommandV1 { now, leader, revision: Revision(1), op });
        apply(&mut state, Position { leader, index: 1 }, &command);
    }
    scene.profile = state.profile(&id).cloned().unwrap_or_default();
}

/// Offers a, b (of one category) and c, best first, and a metric `m`.
fn scene(metric: Members<'_>) -> Scene {
    let mut scene = Scene::new();
    scene.create(EntityKind::Category, "", &[("name", text("x"))]);
    for (id, priority, category) in [("a", 90.0, true), ("b", 80.0, true), ("c", 70.0, false)] {
        let category = category.then(|| ("categoryId", text("cat_x")));
        scene.offer(id, &[vec![("priority", number(priority))], category.into_iter().collect()].concat());
    }
    measure(&mut scene, metric);
    scene
}

fn measure(scene: &mut Scene, metric: Members<'_>) {
    let all = [vec![("name", text("m")), ("events", words(&["buy"]))], metric.to_vec()].concat();
    scene.create(EntityKind::Metric, "m", &all);
}

/// It is Friday, 21:30 UTC. One purchase within each of day, two days, week, month and year.
const PURCHASES: [Deed<'static>; 5] = [
    (24 * 40, "buy", 100.0, Some("c"), "acme"),
    (24 * 6, "buy", 40.0, Some("a"), "other"),
    (30, "buy", -5.25, Some("a"), "acme"),
    (23, "view", 7.0, Some("b"), "acme"),
    (2, "buy", 10.5, Some("b"), "acme"),
];

#[test]
fn each_aggregation_over_each_window_is_what_it_says() {
    let per = |per: &str| ("per", text(per));
    let hours = |hours: f64| ("per", Value::map([("hours", number(hours))]));
    let rolling = ("window", text("rolling"));
    let table: Vec<(Vec<(&str, Value)>, Value)> = vec![
        (vec![], number(4.0)),
        (vec![per("day")], number(1.0)),
        (vec![per("day"), rolling.clone()], number(1.0)),
        (vec![per("week")], number(2.0)),
        (vec![per("week"), rolling.clone()], number(3.0)),
        (vec![per("month")], number(2.0)),
        (vec![hours(30.0)], number(1.0)),
        (vec![hours(31.0)], number(2.0)),
        (vec![("events", words(&["buy", "view"])), hours(24.0)], number(2.0)),
        (vec![("aggregation", text("sum"))], number(145.25)),
        (vec![("aggregation", text("sum")), per("week")], number(5.25)),
        (vec![("aggregation", text("avg"))], number(36.3125)),
        (vec![("aggregation", text("min"))], number(-5.25)),
        (vec![("aggregation", text("max")), per("week")], number(10.5)),
        (vec![("aggregation", text("max")), hours(1.0)], Value::Null),
        (vec![("aggregation", text("sum")), hours(1.0)], number(0.0)),
    ];
    for (metric, expected) in table {
        let mut scene = scene(&metric);
        did(&mut scene, &PURCHASES);
        scene.flow(
            Value::map::<&str>([]),
            &[("set_properties", 3.0, Value::map([("set", Value::map([("m", text("metric.m"))]))]))],
        );
        let decision = scene.decide(&Request { flow: None, ..scene.request() });
        let found = decision.propositions[0].computed.last().map(|(_, value)| value.clone());
        assert_eq!(found, Some(Value::map([("m", expected)])), "{metric:?}");
    }
}

#[test]
fn metrics_decide_in_rules_policies_guardrails_and_branches() {
    let three = [("metric", text("m")), ("operator", text("gte")), ("value", number(3.0))];
    let config = |config: &[(&'static str, Value)]| ("config", Value::map(config.to_vec()));
    let kind = || ("ruleType", text("metric_condition"));
    let cases: Vec<(EntityKind, Vec<(&str, Value)>, &str, &str)> = vec![
        // What it is with four purchases, and with none.
        (EntityKind::Rule, vec![kind(), config(&three)], "a b c", ""),
        (EntityKind::Rule, vec![kind(), config(&three), ("scopes", scope("offer", "b"))], "a b c", "a c"),
        (EntityKind::Policy, vec![kind(), config(&three)], "", "a b c"),
        (EntityKind::Policy, vec![kind(), config(&three), ("scopes", scope("category", "cat_x"))], "c", "a b c"),
        (EntityKind::Policy, vec![kind(), config(&three), ("scopes", scope("channel", "web"))], "", "a b c"),
        (EntityKind::Guardrail, vec![("expression", text("metric.m >= 3 || offer.priority > 75"))], "a b c", "a b"),
    ];
    for (entity, members, with, without) in cases {
        let mut scene = scene(&[]);
        scene.create(entity, "x", &[vec![("name", text("x"))], members.clone()].concat());
        assert_eq!(scene.proposed(&scene.request()).join(" "), without, "{members:?}");
        did(&mut scene, &PURCHASES);
        assert_eq!(scene.proposed(&scene.request()).join(" "), with, "{members:?}");
    }
    let mut scene = scene(&[]);
    let only_c = Value::map([(
        "conditions",
        Value::list([Value::map([("field", text("priority")), ("operator", text("lt")), ("value", number(75.0))])]),
    )]);
    let node = Value::map([
        ("id", text("f")),
        ("type", text("filter")),
        ("phase", number(1.0)),
        ("position", number(0.0)),
        ("config", only_c),
    ]);
    let branch = Value::map([("when", text("metric.m > 3")), ("nodes", Value::list([node]))]);
    scene.flow(Value::map::<&str>([]), &[("conditional", 1.0, Value::map([("branches", Value::list([branch]))]))]);
    assert_eq!(scene.proposed(&scene.request()).join(" "), "a b c");
    did(&mut scene, &PURCHASES);
    assert_eq!(scene.proposed(&scene.request()).join(" "), "c");
}

fn scope(kind: &str, id: &str) -> Value {
    Value::list([Value::map([("scope", text(kind)), ("scopeId", text(id))])])
}

#[test]
fn what_is_counted_apart_is_read_by_candidate_channel_or_name() {
    let atleast = |group: Option<&str>, least: f64| {
        let mut members = vec![("metric", text("m")), ("operator", text("gte")), ("value", number(least))];
        members.extend(group.map(|group| ("group", text(group))));
        Value::map(members)
    };
    let table: Vec<(&[&str], Option<&str>, f64, &str)> = vec![
        (&["offer"], None, 1.0, "a b c"),
        (&["offer"], None, 2.0, "a"),
        (&["category"], None, 2.0, "a b"),
        (&["category"], None, 0.0, "a b c"),
        (&["channel"], None, 4.0, "a b c"),
        (&["channel"], None, 5.0, ""),
        (&["properties.brand"], Some("acme"), 3.0, "a b c"),
        (&["properties.brand"], Some("acme"), 4.0, ""),
        (&["properties.brand"], Some("nobody"), 0.0, "a b c"),
        (&["offer", "properties.brand"], Some("acme"), 1.0, "a b c"),
        (&["offer", "properties.brand"], Some("other"), 1.0, "a"),
    ];
    for (by, group, least, expected) in table {
        for entity in [EntityKind::Rule, EntityKind::Policy] {
            let mut scene = scene(&[("groupBy", words(by))]);
            let members =
                [("name", text("x")), ("ruleType", text("metric_condition")), ("config", atleast(group, least))];
            scene.create(entity, "x", &members);
            did(&mut scene, &PURCHASES);
            let found = scene.proposed(&scene.request()).join(" ");
            let barred: Vec<&str> = ["a", "b", "c"].into_iter().filter(|id| !expected.contains(id)).collect();
            let expected = if entity == EntityKind::Rule { expected.to_owned() } else { barred.join(" ") };
            assert_eq!(found, expected, "{by:?} {group:?} {least} {entity:?}");
        }
    }
}

#[test]
fn another_meaning_begins_anew_and_another_description_does_not() {
    let mut scene = scene(&[]);
    did(&mut scene, &PURCHASES);
    let value = |scene: &Scene| {
        let least = |least: f64| [("metric", text("m")), ("operator", text("gte")), ("value", number(least))];
        let mut count = 0;
        let mut scene = Scene {
            made: rebuilt(&scene.made),
            profile: scene.profile.clone(),
            symbols: scene.symbols.clone(),
            now: scene.now,
            tallies: scene.tallies.clone(),
        };
        for times in 1..9 {
            let members = [
                ("name", text("x")),
                ("ruleType", text("metric_condition")),
                ("config", Value::map(least(f64::from(times)).to_vec())),
            ];
            scene.create(EntityKind::Rule, &format!("x{times}"), &members);
            count += i32::from(!scene.proposed(&scene.request()).is_empty());
        }
        count
    };
    let edit = |scene: &mut Scene, member: &str, to: Value| {
        let patch = Value::map([(member, to)]);
        scene.made.apply(Op::Update { kind: EntityKind::Metric, id: "m".to_owned(), patch, expected: None });
    };
    assert_eq!(value(&scene), 4);
    edit(&mut scene, "description", text("what was bought"));
    assert_eq!(value(&scene), 4);
    edit(&mut scene, "status", text("paused"));
    assert_eq!(value(&scene), 0, "it has no value");
    edit(&mut scene, "status", text("active"));
    assert_eq!(value(&scene), 0, "what happened meanwhile is not known");
    did(&mut scene, &[(1, "buy", 1.0, None, "")]);
    assert_eq!(value(&scene), 1);
    edit(&mut scene, "per", text("week"));
    assert_eq!(value(&scene), 0);
    let refused = scene.made.refused.len();
    edit(&mut scene, "name", text("n"));
    edit(&mut scene, "groupBy", words(&["offer"]));
    assert_eq!(scene.made.refused.len(), refused + 2, "{:?}", scene.made.refused);
}

/// The same catalogue, to be changed without changing that one.
fn rebuilt(made: &super::catalogue::Made) -> super::catalogue::Made {
    let mut copy = super::catalogue::Made::empty(1);
    copy.catalog = made.catalog.clone();
    copy
}

#[test]
fn a_time_that_is_at_the_windows_edge_is_out_of_it() {
    let mut scene = scene(&[("per", Value::map([("hours", number(2.0))]))]);
    let rule = Value::map([("metric", text("m")), ("operator", text("eq")), ("value", number(1.0))]);
    let members = [("name", text("x")), ("ruleType", text("metric_condition")), ("config", rule)];
    scene.create(EntityKind::Rule, "x", &members);
    did(&mut scene, &[(2, "buy", 1.0, None, "")]);
    assert_eq!(scene.proposed(&scene.request()).len(), 0);
    scene.now = Timestamp(scene.now.0 - 1);
    assert_eq!(scene.proposed(&scene.request()).len(), 3);
}
