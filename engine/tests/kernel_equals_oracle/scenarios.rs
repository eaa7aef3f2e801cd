//! Small worlds with answers worked out by hand from the documents, so that both evaluations are not wrong alike.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::decision::{EmptyReason, RemovalReason};
use proffer_engine::decide::request::{SlotRequest, SlotTarget};
use proffer_engine::keys::CreativeKey;
use proffer_engine::learn::{PropensitySource, Tallies};
use proffer_engine::limits::COMPUTED_DEPTH_MAX;
use proffer_engine::profile::command::{Counted, Window};
use proffer_engine::profile::evidence::Tally;
use proffer_engine::time::{DAY_MS, HOUR_MS};
use proffer_engine::value::Value;

use super::catalogue::START;
use super::scene::{Members, Scene, close, number, text};
use super::*;

#[test]
fn equal_scores_go_by_priority_then_business_value_then_id() {
    let mut scene = Scene::new();
    scene.offer("d", &[("priority", number(50.0)), ("businessValue", number(10.0))]);
    scene.offer("c", &[("priority", number(50.0)), ("businessValue", number(20.0))]);
    scene.offer("b", &[("priority", number(50.0)), ("businessValue", number(10.0))]);
    scene.offer("a", &[("priority", number(90.0)), ("businessValue", number(0.0))]);
    let decision = scene.decide(&scene.request());
    assert_eq!(scene.proposed(&scene.request()), ["a", "c", "b", "d"]);
    assert!(close(decision.propositions[0].score, 0.9));
}

#[test]
fn failed_match_rules_halve_and_passed_ranking_rules_boost() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(80.0))]).offer("b", &[("priority", number(60.0))]);
    let condition = |config: Members<'_>, stage: &str| {
        [("ruleType", text("attribute_condition")), ("config", Value::map(config.to_vec())), ("stage", text(stage))]
    };
    let older = [("attribute", text("age")), ("operator", text("gt")), ("value", number(30.0))];
    scene.rule("soft", ("offer", "a"), &condition(&older, "match"));
    let mut younger = older.to_vec();
    younger[1].1 = text("lt");
    younger.push(("boost", number(3.0)));
    scene.rule("lift", ("offer", "b"), &condition(&younger, "ranking"));
    scene.has("age", number(25.0));
    let decision = scene.decide(&scene.request());
    assert_eq!(scene.proposed(&scene.request()), ["b", "a"]);
    assert!(close(decision.propositions[0].score, 0.6 * 3.0));
    assert!(close(decision.propositions[1].score, 0.8 * 0.5));
}

#[test]
fn a_missing_attribute_fails_every_operator_but_not_exists() {
    for (operator, passes) in [("neq", false), ("not_in", false), ("exists", false), ("not_exists", true)] {
        let mut scene = Scene::new();
        scene.offer("a", &[]);
        let mut config = vec![("attribute", text("tier")), ("operator", text(operator))];
        match operator {
            "neq" => config.push(("value", text("gold"))),
            "not_in" => config.push(("value", Value::list([text("gold")]))),
            _ => {}
        }
        scene.rule("r", ("global", ""), &[("ruleType", text("attribute_condition")), ("config", Value::map(config))]);
        assert_eq!(scene.proposed(&scene.request()).len(), usize::from(passes), "{operator}");
    }
}

#[test]
fn fatigue_lowers_by_exposures_that_halve() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(100.0))]);
    // Two exposures, one half-life (72 h) and none ago: value 1.5, factor 1 / (1 + 0.3 · 1.5).
    scene.saw("a", 72).saw("a", 0);
    assert!(close(scene.decide(&scene.request()).propositions[0].score, 1.0 / 1.45));
}

#[test]
fn prieu_weighs_the_factors_that_the_flow_names() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(80.0)), ("businessValue", number(80.0))]);
    let weights =
        [("propensityWeight", 0.4), ("relevanceWeight", 0.15), ("impactWeight", 0.35), ("emphasisWeight", 0.1)];
    let weights = Value::map(weights.map(|(name, weight)| (name, number(weight))));
    let score = Value::map([("method", text("formula")), ("formula", weights)]);
    scene.flow(Value::map::<&str>([]), &[("score", 2.0, score)]);
    // The reference value of (.5, 1, .8, .8) with these weights.
    assert!((scene.decide(&scene.request()).propositions[0].score - 0.685454).abs() < 5e-7);
}

#[test]
fn what_came_of_earlier_propositions_ranks_qualifies_and_is_told() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(90.0))]).offer("b", &[]).offer("c", &[]);
    let score = Value::map([("method", text("propensity"))]);
    scene.flow(Value::map::<&str>([]), &[("qualify", 1.0, Value::map::<&str>([])), ("score", 2.0, score)]);
    assert_eq!(scene.proposed(&scene.request()), ["a", "b", "c"], "without evidence by priority");

    let tally = |shown, positive| Tally { shown, positive };
    scene.tallies = Tallies {
        all: tally(30, 6),
        offers: vec![(scene.key("a"), tally(20, 0)), (scene.key("b"), tally(10, 6))],
        categories: Vec::new(),
    };
    // All: (6 + 5) / 40 = 0.275. b: (6 + 2.75) / 20, c: that of all, a: (0 + 2.75) / 30.
    let decision = scene.decide(&scene.request());
    let expected = [("b", 0.4375, PropensitySource::Offer), ("c", 0.275, PropensitySource::Global)];
    let expected = expected.into_iter().chain([("a", 2.75 / 30.0, PropensitySource::Offer)]);
    let factors = &decision.explanation.as_ref().expect("asked for").factors;
    assert_eq!(decision.propositions.len(), 3);
    for ((proposition, factors), (id, value, source)) in decision.propositions.iter().zip(factors).zip(expected) {
        assert_eq!((proposition.offer, factors.source), (scene.key(id), source));
        assert!(close(proposition.score, value) && close(factors.propensity, value), "{id}");
    }

    let least = |least| Value::map([("minPropensity", number(least))]);
    let rule = |stage, config| [("ruleType", text("propensity_threshold")), ("stage", text(stage)), ("config", config)];
    scene.rule("soft", ("global", ""), &rule("match", least(0.3)));
    let scores: Vec<f64> = scene.decide(&scene.request()).propositions.iter().map(|one| one.score).collect();
    assert!(close(scores[0], 0.4375) && close(scores[1], 0.1375), "a failed match rule halves: {scores:?}");
    scene.rule("hard", ("global", ""), &rule("eligibility", least(0.2)));
    assert_eq!(scene.proposed(&scene.request()), ["b", "c"]);
    assert!(matches!(scene.why(&scene.request(), "a"), Some(RemovalReason::Rule(_))));
    let choosy = Value::map([("propensityThreshold", number(0.28))]);
    scene.offer("d", &[("eligibility", choosy)]);
    assert_eq!(scene.why(&scene.request(), "d"), Some(RemovalReason::Eligibility));
    scene.tallies.all = tally(10, 9);
    // All: (9 + 5) / 20 = 0.7, b: (6 + 7) / 20, a: (0 + 7) / 30, and halved.
    assert_eq!(scene.proposed(&scene.request()), ["c", "d", "b", "a"]);
}

#[test]
fn a_formula_scores_with_factors_and_facts_and_what_is_no_number_comes_last() {
    let mut scene = Scene::new();
    let score = |formula: &str| Value::map([("method", text("expression")), ("formula", text(formula))]);
    scene.flow(Value::map::<&str>([]), &[("score", 2.0, score("customer.age > 30 ? E : P + 0.5 - E"))]);
    scene.offer("a", &[("priority", number(90.0))]).offer("b", &[("priority", number(60.0))]).has("age", number(20.0));
    assert_eq!(scene.proposed(&scene.request()), ["b", "a"]);
    assert!(close(scene.decide(&scene.request()).propositions[0].score, 0.4));
}

#[test]
fn a_zero_factor_with_weight_removes_only_under_formula() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(0.0))]);
    assert_eq!(scene.decide(&scene.request()).propositions[0].score, 0.0);
    let weights = Value::map([("emphasisWeight", number(1.0))]);
    let score = Value::map([("method", text("formula")), ("formula", weights)]);
    scene.flow(Value::map::<&str>([]), &[("score", 2.0, score)]);
    assert_eq!(scene.why(&scene.request(), "a"), Some(RemovalReason::ZeroFactor));
}

#[test]
fn a_slot_takes_its_own_creative_before_a_general_one_and_each_offer_once() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(90.0))]).offer("b", &[]).offer("bare", &[("priority", number(100.0))]);
    scene.creative("a_any", "a", None).creative("a_side", "a", Some("side")).creative("b_any", "b", None);
    let both = scene.placed(&[0, 1]);
    assert_eq!(scene.proposed(&both), ["a", "b"]);
    assert_eq!(scene.why(&both, "bare"), Some(RemovalReason::Creative));
    let side = scene.decide(&scene.placed(&[1]));
    assert_eq!(side.propositions[0].creative, CreativeKey(1));
    let funnel = side.funnel;
    assert_eq!((funnel.total_candidates, funnel.after_contact_policy), (2, 2));
}

#[test]
fn a_failing_creative_rule_takes_the_creative_and_the_offer_only_with_the_last() {
    let mut scene = Scene::new();
    scene.offer("a", &[]);
    scene.creative("one", "a", Some("top")).creative("two", "a", None);
    let never = [("ruleType", text("expression")), ("config", Value::map([("expression", text("false"))]))];
    scene.rule("r1", ("creative", "one"), &never);
    assert_eq!(scene.decide(&scene.placed(&[0])).propositions[0].creative, CreativeKey(1));
    scene.rule("r2", ("creative", "two"), &never);
    let last = scene.catalog().rules().key_of("r2").expect("it was made");
    assert_eq!(scene.why(&scene.placed(&[0]), "a"), Some(RemovalReason::Rule(last)));
}

#[test]
fn the_last_unit_of_a_profile_cap_fills_one_of_two_slots() {
    let mut scene = Scene::new();
    let cap = Value::map([("scope", text("profile")), ("limit", number(1.0)), ("countOn", text("decision"))]);
    scene.offer("a", &[("caps", Value::list([cap]))]).creative("c", "a", None);
    let request = Request { duplicates: Duplicates::Anywhere, ..scene.placed(&[0, 1]) };
    let decision = scene.decide(&request);
    assert_eq!(decision.propositions.len(), 1);
    assert_eq!(decision.propositions[0].takes.len(), 1);
    assert_eq!(decision.slots[1].empty, Some(EmptyReason::NoCandidate));
}

#[test]
fn a_global_cap_without_units_is_passed_over_and_said() {
    let mut scene = Scene::new();
    scene.offer("a", &[("budget", Value::map([("maxImpressions", number(5.0))]))]).offer("b", &[]);
    let decision = scene.decide(&scene.request());
    assert!(decision.remarks.budget_limited);
    assert_eq!(scene.proposed(&scene.request()), ["b"]);
}

#[test]
fn choices_of_one_answer_exclude_each_other_and_count_as_contact() {
    let mut scene = Scene::new();
    scene.offer("a", &[("priority", number(90.0))]).offer("b", &[("priority", number(80.0))]).offer("c", &[]);
    scene.policy(
        "m",
        "mutual_exclusion",
        &[("offerIds", Value::list([text("a"), text("b")])), ("lookbackDays", number(1.0))],
    );
    assert_eq!(scene.proposed(&scene.request()), ["a", "c"]);
    assert_eq!(scene.decide(&scene.request()).funnel.after_contact_policy, 3);
    scene.policy("t", "customer_total_cap", &[("maxTotal", number(2.0)), ("periodType", text("daily"))]);
    scene.saw("c", 1);
    assert_eq!(scene.proposed(&scene.request()), ["a"]);
}

#[test]
fn rolling_days_and_calendar_days_differ() {
    // 21:30 UTC: an impression 22 hours ago was yesterday, and within the last 24 hours.
    for (window, blocked) in [("calendar", false), ("rolling", true)] {
        let mut scene = Scene::new();
        scene.offer("a", &[]).saw("a", 22);
        scene.policy("f", "frequency_cap", &[("maxPerDay", number(1.0)), ("window", text(window))]);
        assert_eq!(scene.proposed(&scene.request()).is_empty(), blocked, "{window}");
    }
}

#[test]
fn an_override_lifts_policies_and_not_caps() {
    let mut scene = Scene::new();
    let cap = Value::map([("scope", text("profile")), ("limit", number(0.0))]);
    scene.offer("a", &[]).offer("b", &[("caps", Value::list([cap]))]).saw("a", 1);
    scene.policy("cool", "cooldown", &[("cooldownHours", number(24.0))]);
    assert!(scene.proposed(&scene.request()).is_empty());
    scene.policy("let", "allow_override", &[]);
    assert_eq!(scene.proposed(&scene.request()), ["a"]);
}

#[test]
fn what_an_override_lifts_is_taken_and_counts_for_strict_policies() {
    let mut scene = Scene::new();
    scene.offer("a", &[]).offer("b", &[("priority", number(10.0))]).saw("a", 1);
    let strict = ("enforcement", text("strict"));
    scene.policy("cool", "cooldown", &[("cooldownHours", number(24.0)), strict.clone()]);
    scene.policy("cap", "customer_total_cap", &[("maxTotal", number(4.0)), ("periodType", text("daily")), strict]);
    assert!(scene.take(&scene.request()).is_empty());
    scene.policy("let", "allow_override", &[]);
    for held in [1, 3, 5] {
        let all = scene.profile.impressions(Counted::All, Window::Rolling { ms: DAY_MS }, scene.now);
        assert_eq!(all, held);
        assert_eq!(scene.take(&scene.request()), ["a", "b"]);
    }
}

#[test]
fn soft_caps_count_where_the_decision_shows() {
    let mut scene = Scene::new();
    let patch = Value::map([("impressionMode", text("implicit"))]);
    scene.made.apply(Op::Update { kind: EntityKind::Channel, id: "web".to_owned(), patch, expected: None });
    let cap = |count_on: &str| {
        let soft = ("enforcement", text("soft"));
        Value::map([("scope", text("profile")), ("limit", number(2.0)), ("countOn", text(count_on)), soft])
    };
    scene.offer("shown", &[("caps", Value::list([cap("impression")]))]);
    scene.offer("decided", &[("caps", Value::list([cap("decision")]))]);
    for _ in 0..2 {
        assert_eq!(scene.take(&scene.request()).len(), 2);
    }
    assert!(scene.take(&scene.request()).is_empty());
}

#[test]
fn held_out_customers_are_no_evidence() {
    for held_out in [true, false] {
        let mut scene = Scene::new();
        let percent = number(if held_out { 100.0 } else { 0.0 });
        let action = ("controlGroupAction", text("priority_only"));
        let experiment = Value::map([("enabled", Value::Bool(true)), ("holdoutPercent", percent), action]);
        scene.flow(Value::map([("experiment", experiment)]), &[]);
        let patch = Value::map([("impressionMode", text("implicit"))]);
        scene.made.apply(Op::Update { kind: EntityKind::Channel, id: "web".to_owned(), patch, expected: None });
        scene.offer("a", &[]);
        let (catalog, world) = (scene.catalog(), scene.world());
        let snapshot = Snapshot::compile(&scene.made.tenant, catalog, scene.made.revision());
        let (mut kernel, request) = (Kernel::default(), scene.request());
        let decision = kernel.decide(&snapshot, &world, &request);
        let take = kernel.take(&snapshot, &world, &request, &decision).expect("it is shown by being decided");
        assert_eq!(take.propositions[0].evidence, !held_out);
    }
}

#[test]
fn mandatory_offers_come_first_skip_rules_and_use_up_the_limit() {
    let mut scene = Scene::new();
    let mandatory = |days: i64| {
        [
            ("priority", number(1.0)),
            ("mandatory", Value::Bool(true)),
            ("mandatoryReason", text("law")),
            ("mandatoryApprovedBy", text("board")),
            ("mandatoryExpiresAt", text(&proffer_engine::calendar::iso(START.plus_ms(days * DAY_MS)))),
        ]
    };
    scene.offer("law", &mandatory(1)).offer("old_law", &mandatory(-1)).offer("a", &[]).offer("b", &[]);
    let only_others = [("ruleType", text("expression")), ("config", Value::map([("expression", text("false"))]))];
    scene.rule("r", ("offer", "law"), &only_others);
    let request = Request { limit: Some(2), ..scene.request() };
    assert_eq!(scene.proposed(&request), ["law", "a"]);
    let decision = scene.decide(&request);
    assert_eq!(decision.propositions[0].score, 1.0);
    assert_eq!(decision.funnel.after_qualification, 4);
    assert_eq!(scene.why(&request, "old_law"), Some(RemovalReason::Outscored));
}

fn with_activity(scene: &mut Scene) -> SlotRequest {
    scene.offer("rescue", &[("kind", text("fallback"))]).creative("rescue_any", "rescue", None);
    scene.create(EntityKind::Collection, "reds", &[("name", text("reds")), ("allOf", Value::list([text("red")]))]);
    let activity = [
        ("name", text("hero")),
        ("collectionId", text("reds")),
        ("placementId", text("top")),
        ("fallbackOfferId", text("rescue")),
    ];
    scene.create(EntityKind::Activity, "hero", &activity);
    let key = scene.catalog().activities().key_of("hero").expect("it was made");
    SlotRequest { target: SlotTarget::Activity(key), limit: 1 }
}

#[test]
fn a_fallback_offer_steps_in_where_the_collection_leaves_nothing() {
    let mut scene = Scene::new();
    scene.offer("a", &[("tags", Value::list([text("blue")]))]).creative("c", "a", None);
    let slot = with_activity(&mut scene);
    let request = Request { slots: vec![slot], ..scene.request() };
    let decision = scene.decide(&request);
    assert_eq!(scene.proposed(&request), ["rescue"]);
    assert_eq!((decision.propositions[0].score, decision.slots[0].fallback), (0.0, true));
    let without = Request { exclude_offers: vec![scene.key("rescue")], ..request };
    assert_eq!(scene.decide(&without).slots[0].empty, Some(EmptyReason::FallbackUnavailable));
}

#[test]
fn one_empty_slot_empties_an_atomic_channel() {
    let mut scene = Scene::new();
    scene.offer("a", &[]).creative("c", "a", None);
    assert_eq!(scene.proposed(&scene.placed(&[0, 1])), ["a"]);
    let patch = Value::map([("couplingMode", text("atomic"))]);
    scene.made.apply(Op::Update { kind: EntityKind::Channel, id: "web".to_owned(), patch, expected: None });
    let decision = scene.decide(&scene.placed(&[0, 1]));
    assert!(decision.propositions.is_empty());
    let reasons: Vec<_> = decision.slots.iter().map(|slot| slot.empty).collect();
    assert_eq!(reasons, [Some(EmptyReason::Coupling), Some(EmptyReason::NoCandidate)]);
    assert_eq!(scene.why(&scene.placed(&[0, 1]), "a"), Some(RemovalReason::Coupled), "lost, and accounted for");
    assert!(scene.decide(&scene.placed(&[0, 1])).explanation.expect("asked for").factors.is_empty());
}

#[test]
fn a_list_that_is_empty_says_why() {
    let mut scene = Scene::new();
    assert_eq!(scene.decide(&scene.request()).empty, Some(EmptyReason::NoCandidate));
    scene.offer("a", &[]);
    assert_eq!(scene.decide(&scene.request()).empty, None);
    assert_eq!(scene.decide(&scene.placed(&[0])).empty, None, "each slot says it itself");
    scene.flow(Value::map::<&str>([]), &[]);
    for (kind, id, active_again) in [(EntityKind::Channel, "web", true), (EntityKind::Flow, "main", false)] {
        let update = |status: &str| {
            let patch = Value::map([("status", text(status))]);
            Op::Update { kind, id: id.to_owned(), patch, expected: None }
        };
        scene.made.apply(update("paused"));
        assert_eq!(scene.decide(&scene.request()).empty, Some(EmptyReason::Inactive), "{id}");
        if active_again {
            scene.made.apply(update("active"));
            assert_eq!(scene.decide(&scene.request()).empty, None);
        }
    }
    assert!(scene.made.refused.is_empty(), "{:?}", scene.made.refused);
}

#[test]
fn a_placement_shows_content_of_the_types_it_takes_whoever_it_was_made_for() {
    let mut scene = Scene::new();
    for (offer, content_type, placement) in
        [("words", "text", None), ("image", "image", None), ("side", "image", Some("side"))]
    {
        scene.offer(offer, &[]);
        let mut members = vec![
            ("name", text(offer)),
            ("offerId", text(offer)),
            ("channelId", text("web")),
            ("contentType", text(content_type)),
            ("status", text("active")),
        ];
        members.extend(placement.map(|placement| ("placementId", text(placement))));
        scene.create(EntityKind::Creative, &format!("crt_{offer}"), &members);
    }
    let slot = with_activity(&mut scene);
    let top = |scene: &Scene| {
        let mut request = scene.placed(&[0]);
        request.slots[0].limit = 5;
        request
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(sorted(scene.proposed(&top(&scene))), ["image", "words"]);
    let hero = Request { slots: vec![slot], ..scene.request() };
    assert_eq!(scene.proposed(&hero), ["rescue"]);
    let only = |types: &str| {
        let patch = Value::map([("contentTypes", Value::list([text(types)]))]);
        Op::Update { kind: EntityKind::Placement, id: "top".to_owned(), patch, expected: None }
    };
    scene.made.apply(only("image"));
    assert_eq!(scene.made.refused.len(), 1, "the fallback offer would have nothing to show");
    scene.made.refused.clear();
    scene.made.apply(only("text"));
    assert!(scene.made.refused.is_empty());
    assert_eq!(scene.proposed(&top(&scene)), ["words"]);
    assert_eq!(scene.why(&top(&scene), "image"), Some(RemovalReason::Creative));
    assert_eq!(scene.proposed(&hero), ["rescue"]);
    // A flow that does not look at placements still shows no image where none can be shown.
    let mode = Value::map([("placementMatchMode", text("none"))]);
    scene.flow(Value::map::<&str>([]), &[("match_creatives", 1.0, mode)]);
    assert_eq!(scene.proposed(&top(&scene)), ["words"]);
}

#[test]
fn held_out_customers_get_ghosts_or_priority_alone() {
    for (action, proposed, ghosts) in [("no_offers", 0, 2), ("priority_only", 2, 0)] {
        let mut scene = Scene::new();
        scene.offer("a", &[("priority", number(40.0))]).offer("b", &[]).saw("b", 0);
        let experiment =
            [("enabled", Value::Bool(true)), ("holdoutPercent", number(100.0)), ("controlGroupAction", text(action))];
        scene.flow(Value::map([("experiment", Value::map(experiment))]), &[]);
        let decision = scene.decide(&scene.request());
        assert_eq!((decision.propositions.len(), decision.ghosts.len()), (proposed, ghosts), "{action}");
        assert!(decision.arm.is_some_and(|arm| arm.control && arm.experiment == "main"));
        assert_eq!(decision.funnel.after_contact_policy, 2);
        if let Some(first) = decision.propositions.first() {
            assert!(close(first.score, 0.5), "no fatigue for the control group");
        }
    }
}

#[test]
fn a_wrapping_window_is_open_on_the_night_of_its_day() {
    // START is a Friday, 21:30 UTC.
    let mut scene = Scene::new();
    let schedule = |day: f64| {
        let window = Value::map([("start", text("21:00")), ("end", text("02:00"))]);
        Value::map([("daysOfWeek", Value::list([number(day)])), ("timeWindow", window)])
    };
    scene.offer("friday", &[("schedule", schedule(5.0))]).offer("saturday", &[("schedule", schedule(6.0))]);
    assert_eq!(scene.proposed(&scene.request()), ["friday"]);
    scene.now = START.plus_ms(4 * HOUR_MS);
    assert_eq!(scene.proposed(&scene.request()), ["friday"]);
    scene.now = START.plus_ms(5 * HOUR_MS);
    assert!(scene.proposed(&scene.request()).is_empty());
}

/// A category `cat_chain` whose computed fields f0, f1 … each add the one before to itself.
fn chain(scene: &mut Scene, length: usize) {
    let field = |number: usize| {
        let formula = match number {
            0 => "1".to_owned(),
            _ => format!("f{before} + f{before}", before = number - 1),
        };
        Value::map([
            ("name", text(&format!("f{number}"))),
            ("type", text("computed")),
            ("formula", text(&formula)),
            ("outputType", text("number")),
        ])
    };
    let fields = Value::list((0..length).map(field));
    scene.made.create(EntityKind::Category, "", &[("name", text("chain")), ("customFields", fields)]);
}

#[test]
fn computed_fields_that_build_on_each_other_are_evaluated_once() {
    let mut scene = Scene::new();
    chain(&mut scene, 41);
    scene.offer("a", &[("categoryId", text("cat_chain"))]);
    let expression = Value::map([("expression", text("offer.f40 == offer.f39 * 2"))]);
    scene.rule("r", ("global", ""), &[("ruleType", text("expression")), ("config", expression)]);
    let decision = scene.decide(&scene.request());
    let (field, value) = decision.propositions[0].computed.last().expect("the category has fields");
    assert_eq!((*field, value), (40, &Value::Number((1u64 << 40) as f64)));
}

#[test]
fn computed_fields_may_build_on_each_other_so_deep_and_no_deeper() {
    for (length, allowed) in [(COMPUTED_DEPTH_MAX, true), (COMPUTED_DEPTH_MAX + 1, false)] {
        let mut scene = Scene::new();
        chain(&mut scene, length);
        assert_eq!(scene.made.refused.is_empty(), allowed, "{:?}", scene.made.refused);
        if allowed {
            scene.offer("a", &[("categoryId", text("cat_chain"))]);
            assert_eq!(scene.decide(&scene.request()).propositions[0].computed.len(), length);
        }
    }
}

#[test]
fn a_category_is_read_by_its_name() {
    let mut scene = Scene::new();
    scene.made.create(EntityKind::Category, "", &[("name", text("Loans"))]);
    scene.offer("in", &[("category", text("Loans"))]).offer("out", &[]);
    let config = [("field", text("category")), ("operator", text("eq")), ("value", text("Loans"))];
    scene.rule("r", ("global", ""), &[("ruleType", text("offer_attribute")), ("config", Value::map(config))]);
    assert_eq!(scene.proposed(&scene.request()), ["in"]);
    let renamed = Value::map([("name", text("Credits"))]);
    scene.made.apply(Op::Update {
        kind: EntityKind::Category,
        id: "cat_loans".to_owned(),
        patch: renamed,
        expected: None,
    });
    assert!(scene.proposed(&scene.request()).is_empty());
}

#[test]
fn a_prefix_under_which_no_flow_loads_rows_reads_null() {
    let mut scene = Scene::new();
    scene.offer("a", &[]);
    let config = Value::map([("expression", text("isNull(nowhere1.x) && isNull(nowhere2.x)"))]);
    scene.rule("r", ("global", ""), &[("ruleType", text("expression")), ("config", config)]);
    assert_eq!(scene.proposed(&scene.request()), ["a"]);
}
