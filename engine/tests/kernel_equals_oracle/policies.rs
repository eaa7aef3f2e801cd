//! Contact policies, each type with an answer worked out by hand.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::decision::RemovalReason;
use proffer_engine::keys::{CategoryKey, ChannelKey, CreativeKey, OutcomeKey, PlacementKey};
use proffer_engine::profile::state::{Dealings, Exposure, OutcomeRecord};
use proffer_engine::time::{DAY_MS, HOUR_MS};
use proffer_engine::value::Value;

use super::catalogue::START;
use super::scene::{Members, Scene, number, text};
use super::*;

/// Offers a, b (of one category) and c, best first; a was seen on web two hours ago, and dismissed.
fn scene() -> Scene {
    let mut scene = Scene::new();
    // Scores stay as they are, whatever was seen.
    scene.made.apply(Op::UpdateSettings { patch: Value::map([("fatigueStrength", number(0.0))]) });
    scene.create(EntityKind::Category, "", &[("name", text("x"))]);
    for (id, priority, category) in [("a", 90.0, true), ("b", 80.0, true), ("c", 70.0, false)] {
        let category = category.then(|| ("categoryId", text("cat_x")));
        scene.offer(id, &[vec![("priority", number(priority))], category.into_iter().collect()].concat());
    }
    let (at, offer, category) = (scene.now.plus_ms(-2 * HOUR_MS), scene.key("a"), Some(CategoryKey(0)));
    let seen = Exposure::new(at, offer, CreativeKey::NONE, ChannelKey(0), PlacementKey::NONE);
    scene.profile.exposures.push(seen.in_category(category));
    let dismissed = OutcomeRecord {
        at,
        offer,
        category,
        outcome: scene.catalog().outcomes().get("dismiss").expect("it is built in").key,
        value: None,
        over_cap: false,
        repeat: false,
        times: 1,
    };
    assert_ne!(dismissed.outcome, OutcomeKey(0));
    let mut dealings = Dealings::default();
    dealings.outcomes.push(dismissed);
    scene.profile.dealings = Some(Box::new(dealings));
    scene
}

/// A policy of a scope (`kind id`, or nothing for global) with these members beside its config.
fn policy(scene: &mut Scene, id: &str, kind: &str, scope: &str, config: Members<'_>, more: Members<'_>) {
    let (scope, of) = scope.split_once(' ').unwrap_or(("global", ""));
    let mut members = vec![
        ("name", text(id)),
        ("ruleType", text(kind)),
        ("config", Value::map(config.to_vec())),
        ("scope", text(scope)),
    ];
    if !of.is_empty() {
        members.push(("scopeId", text(of)));
    }
    members.extend_from_slice(more);
    scene.create(EntityKind::Policy, id, &members);
}

#[test]
fn each_type_bars_what_its_scope_and_history_say() {
    let words = |words: &[&str]| Value::list(words.iter().map(|word| text(word)));
    let outcome =
        |action: &str| vec![("outcomes", words(&["dismiss"])), ("lookbackDays", number(1.0)), ("action", text(action))];
    let table: Vec<(&str, &str, Vec<(&str, Value)>, &str)> = vec![
        ("frequency_cap", "", vec![("maxPerDay", number(1.0))], ""),
        ("frequency_cap", "", vec![("maxPerDay", number(2.0))], "a"),
        ("frequency_cap", "offer a", vec![("maxTotal", number(1.0))], "b c"),
        ("frequency_cap", "category cat_x", vec![("maxPerWeek", number(1.0))], "c"),
        ("frequency_cap", "channel web", vec![("maxPerMonth", number(1.0))], ""),
        ("frequency_cap", "placement top", vec![("maxTotal", number(1.0))], "a b c"),
        ("frequency_cap", "segment vip", vec![("maxTotal", number(1.0))], ""),
        ("frequency_cap", "segment young", vec![("maxTotal", number(1.0))], "a b c"),
        ("cooldown", "offer a", vec![("cooldownHours", number(3.0))], "b c"),
        ("cooldown", "offer a", vec![("cooldownHours", number(2.0))], "a b c"),
        ("outcome_based", "", outcome("suppress_offer"), "b c"),
        ("outcome_based", "", outcome("suppress_category"), "c"),
        ("outcome_based", "", outcome("suppress_all"), ""),
        ("outcome_based", "offer b", outcome("suppress_category"), "a c"),
        ("segment_exclusion", "", vec![("excludeSegments", words(&["vip"]))], ""),
        ("segment_exclusion", "", vec![("excludeSegments", words(&["young"]))], "a b c"),
        // It is Friday, 21:30.
        ("time_window", "", vec![("start", text("08:00")), ("end", text("21:30"))], ""),
        ("time_window", "", vec![("start", text("21:30")), ("end", text("08:00"))], "a b c"),
        ("time_window", "offer b", vec![("allowedDays", Value::list([number(6.0)]))], "a c"),
        ("mutual_exclusion", "", vec![("offerIds", words(&["a", "b"])), ("lookbackDays", number(1.0))], "a c"),
        ("mutual_exclusion", "", vec![("offerIds", words(&["b", "c"])), ("lookbackDays", number(1.0))], "a b"),
        ("cross_channel_cap", "", vec![("maxTotal", number(1.0)), ("periodDays", number(1.0))], "b c"),
        ("cross_channel_cap", "", vec![("maxTotal", number(1.0)), ("periodDays", number(0.05))], "a b c"),
        ("customer_total_cap", "offer c", vec![("maxTotal", number(1.0)), ("periodType", text("alltime"))], "a b"),
        ("customer_total_cap", "", vec![("maxTotal", number(3.0)), ("periodType", text("daily"))], "a b"),
        ("category_suppression", "", vec![("lookbackDays", number(1.0))], "a c"),
        ("budget_exhausted", "", vec![], "a b c"),
        ("allow_override", "", vec![], "a b c"),
    ];
    for (kind, scope, config, expected) in table {
        let mut scene = scene();
        policy(&mut scene, "p", kind, scope, &config, &[]);
        let request = Request { segments: vec!["vip".into()], ..scene.request() };
        assert_eq!(scene.proposed(&request).join(" "), expected, "{kind} {scope} {config:?}");
    }
}

#[test]
fn the_first_by_priority_then_age_is_named_and_an_override_of_any_priority_lifts_all() {
    let mut scene = scene();
    let hours = [("cooldownHours", number(24.0))];
    let priority = |of: f64| [("priority", number(of))];
    policy(&mut scene, "low", "cooldown", "", &hours, &priority(10.0));
    policy(&mut scene, "high", "cooldown", "offer a", &hours, &priority(60.0));
    policy(&mut scene, "younger", "cooldown", "offer a", &hours, &priority(60.0));
    let named = |scene: &Scene, offer: &str| match scene.why(&scene.request(), offer) {
        Some(RemovalReason::Policy(key)) => scene.catalog().policies().get(key).expect("it was named").id.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!((named(&scene, "a"), named(&scene, "b")), ("high".to_owned(), "low".to_owned()));
    policy(&mut scene, "let", "allow_override", "category cat_x", &[], &priority(0.0));
    assert_eq!(scene.proposed(&scene.request()), ["a", "b"]);
    assert_eq!(named(&scene, "c"), "low");
}

#[test]
fn mandatory_offers_pass_policies_that_are_bypassable() {
    let exclusion = vec![("excludeSegments", Value::list([text("vip")]))];
    let table = [
        ("segment_exclusion", exclusion.clone(), None, true),
        ("segment_exclusion", exclusion, Some(false), false),
        ("frequency_cap", vec![("maxTotal", number(1.0))], None, false),
        ("frequency_cap", vec![("maxTotal", number(1.0))], Some(true), true),
        ("cross_channel_cap", vec![("maxTotal", number(0.0)), ("periodDays", number(1.0))], None, false),
        ("cooldown", vec![("cooldownHours", number(24.0))], None, true),
    ];
    for (kind, config, bypassable, passes) in table {
        let mut scene = scene();
        let until = proffer_engine::calendar::iso(START.plus_ms(DAY_MS));
        let governed = [
            ("mandatory", Value::Bool(true)),
            ("mandatoryReason", text("law")),
            ("mandatoryApprovedBy", text("board")),
            ("mandatoryExpiresAt", text(&until)),
        ];
        scene.offer("law", &governed);
        let bypassable: Vec<_> = bypassable.map(|passes| ("bypassable", Value::Bool(passes))).into_iter().collect();
        policy(&mut scene, "p", kind, "", &config, &bypassable);
        let request = Request { segments: vec!["vip".into()], ..scene.request() };
        let is_proposed = scene.proposed(&request).contains(&"law".to_owned());
        assert_eq!(is_proposed, passes, "{kind} {bypassable:?}");
    }
}
