//! Offers: lifecycle, categories, caps, what a change touches.

use super::{World, json, summary};
use crate::catalog::{CapOrigin, EntityKind, Op, Touched};
use crate::keys::{CapKey, OfferKey};
use crate::model::offer::{CapScope, CapWindow, Enforcement};
use crate::value::Value;

fn offer_key(world: &World, id: &str) -> OfferKey {
    world.tenant().offers().key_of(id).unwrap()
}

#[test]
fn only_the_listed_transitions_are_allowed() {
    let mut world = World::furnished();
    for (status, allowed) in [
        ("paused", false),
        ("active", true),
        ("draft", false),
        ("paused", true),
        ("draft", false),
        ("active", true),
        ("archived", true),
        ("active", false),
        ("archived", true),
    ] {
        let answer = world.update(EntityKind::Offer, "o2", &format!(r#"{{"status":"{status}"}}"#));
        assert_eq!(answer.is_ok(), allowed, "to {status}: {answer:?}");
        if let Err(refusal) = answer {
            assert_eq!(summary(&refusal), ("conflict", vec!["/status".to_owned()]));
        }
    }
}

#[test]
fn a_patch_replaces_the_members_it_gives_and_null_resets() {
    let mut world = World::furnished();
    let answer = world.update(
        EntityKind::Offer,
        "o1",
        r#"{"id":"x","createdAt":"y","revision":9,"priority":70,"tags":null,"schedule":{"daysOfWeek":[1]}}"#,
    );
    answer.unwrap();
    world.update(EntityKind::Offer, "o1", r#"{"schedule":{"startDate":"2026-01-01"},"priority":null}"#).unwrap();
    assert_eq!(world.member(EntityKind::Offer, "o1", "priority"), Value::Number(50.0));
    assert_eq!(world.member(EntityKind::Offer, "o1", "tags"), json("[]"));
    let schedule = world.member(EntityKind::Offer, "o1", "schedule");
    assert_eq!(schedule.as_map().unwrap().get("daysOfWeek"), Some(&json("[]")));
    assert_eq!(world.member(EntityKind::Offer, "o1", "id"), Value::text("o1"));
    assert_eq!(world.tenant().tags().collect::<Vec<_>>(), [("b", 1)]);
}

#[test]
fn a_stale_revision_is_refused() {
    let mut world = World::furnished();
    let revision = world.tenant().offers().by_id("o1").unwrap().revision;
    let write = |expected| Op::Update {
        kind: EntityKind::Offer,
        id: "o1".to_owned(),
        patch: json(r#"{"priority":1}"#),
        expected: Some(expected),
    };
    world.apply(write(revision)).unwrap();
    let refusal = world.apply(write(revision)).unwrap_err();
    assert_eq!(summary(&refusal).0, "revision mismatch");
}

#[test]
fn a_category_given_by_name_is_found_or_made_and_moves_the_offer() {
    let mut world = World::furnished();
    world.update(EntityKind::Offer, "o3", r#"{"category":"Insurance"}"#).unwrap();
    assert_eq!(world.member(EntityKind::Offer, "o3", "categoryId"), Value::text("cat_insurance"));
    world.update(EntityKind::Offer, "o3", r#"{"category":"Cards"}"#).unwrap();
    assert_eq!(world.member(EntityKind::Offer, "o3", "category"), Value::text("Cards"));
    // A round trip of the whole object changes nothing.
    let whole = world.tenant().get(EntityKind::Offer, "o3").unwrap();
    let op = Op::Update { kind: EntityKind::Offer, id: "o3".to_owned(), patch: whole, expected: None };
    assert_eq!(world.apply(op).unwrap().effect, []);
    world.update(EntityKind::Offer, "o3", r#"{"category":null}"#).unwrap();
    assert_eq!(world.member(EntityKind::Offer, "o3", "categoryId"), Value::Null);
}

#[test]
fn category_ids_are_suffixed_and_never_reused() {
    let mut world = World::furnished();
    let made = |world: &mut World, name: &str| {
        let body = Value::map([("name", Value::text(name))]);
        world.create(EntityKind::Category, "", body).unwrap().id
    };
    assert_eq!(made(&mut world, "loans!"), "cat_loans_2");
    assert_eq!(made(&mut world, "LOANS"), "cat_loans_3");
    world.delete(EntityKind::Category, "cat_loans_3", false).unwrap();
    assert_eq!(made(&mut world, "LOANS"), "cat_loans_4");
    let body = json(r#"{"name":"Again"}"#);
    world.create(EntityKind::Offer, "gone", body.clone()).unwrap();
    world.delete(EntityKind::Offer, "gone", false).unwrap();
    assert_eq!(summary(&world.create(EntityKind::Offer, "gone", body).unwrap_err()).0, "conflict");
}

#[test]
fn caps_are_normalised_from_all_three_places() {
    let mut world = World::furnished();
    world
        .update(
            EntityKind::Offer,
            "o1",
            r#"{"caps":[{"scope":"profile","limit":2,"per":{"hours":12}},
                        {"key":"k","scope":"global","limit":9,"per":"day","countOn":"click","placementId":"plc_hero"}],
                "budget":{"maxImpressions":100,"maxDailyBudget":2500.5,"costPerAction":1.5,"countOn":"conversion"},
                "frequencyCaps":{"perCustomer":{"daily":1,"monthly":5}}}"#,
        )
        .unwrap();
    let caps = world.tenant().caps(offer_key(&world, "o1"));
    let shown: Vec<_> = caps.iter().map(|cap| (cap.origin, cap.key.as_str(), cap.limit, cap.cost)).collect();
    assert_eq!(
        shown,
        [
            (CapOrigin::Caps(0), "profile-12h-impression", 2, 1),
            (CapOrigin::Caps(1), "k", 9, 1),
            (CapOrigin::BudgetImpressions, "budget.maxImpressions", 100, 1),
            (CapOrigin::BudgetDaily, "budget.maxDailyBudget", 2_500_500_000, 1_500_000),
            (CapOrigin::FrequencyDaily, "frequencyCaps.daily", 1, 1),
            (CapOrigin::FrequencyMonthly, "frequencyCaps.monthly", 5, 1),
        ]
    );
    assert_eq!((caps[0].window, caps[0].enforcement), (CapWindow::Rolling, Enforcement::Strict));
    assert_eq!((caps[1].window, caps[1].enforcement), (CapWindow::Calendar, Enforcement::Soft));
    assert_eq!(caps[1].placement, world.tenant().placements().key_of("plc_hero"));
    assert_eq!((caps[3].scope, caps[3].enforcement), (CapScope::Global, Enforcement::Soft));
}

#[test]
fn a_cap_keeps_its_key_until_what_it_counts_changes() {
    let mut world = World::furnished();
    let key_after = |world: &mut World, cap: &str| -> CapKey {
        world.update(EntityKind::Offer, "o1", &format!(r#"{{"caps":[{cap}]}}"#)).unwrap();
        world.tenant().caps(offer_key(world, "o1"))[0].cap
    };
    let first = key_after(&mut world, r#"{"key":"k","scope":"global","limit":5,"per":"day"}"#);
    let same = r#"{"key":"k","scope":"global","limit":500,"per":"day","enforcement":"soft","reservationSeconds":5}"#;
    assert_eq!(key_after(&mut world, same), first);
    let mut given = vec![first];
    for changed in [
        r#"{"key":"k","scope":"global","limit":5,"per":"week"}"#,
        r#"{"key":"k","scope":"global","limit":5,"per":"week","window":"rolling"}"#,
        r#"{"key":"k","scope":"global","limit":5,"per":"week","window":"rolling","countOn":"decision"}"#,
        r#"{"key":"k","scope":"profile","limit":5,"per":"week","window":"rolling","countOn":"decision"}"#,
        r#"{"key":"k","scope":"profile","limit":5,"per":"week","window":"rolling","countOn":"decision","placementId":"plc_top"}"#,
    ] {
        let key = key_after(&mut world, changed);
        assert!(!given.contains(&key), "{changed}");
        given.push(key);
    }
}

#[test]
fn a_change_touches_what_it_makes_stale_and_no_more() {
    let mut world = World::furnished();
    let one = offer_key(&world, "o1");
    let effect = |world: &mut World, kind, id: &str, patch: &str| world.update(kind, id, patch).unwrap().effect;
    let overlay = [Touched::Overlay(one)];
    assert_eq!(effect(&mut world, EntityKind::Offer, "o1", r#"{"emergencyExcluded":true}"#), overlay);
    assert_eq!(effect(&mut world, EntityKind::Offer, "o1", r#"{"status":"paused"}"#), overlay);
    assert_eq!(effect(&mut world, EntityKind::Offer, "o1", r#"{"priority":1}"#), [Touched::Offer(one)]);
    assert_eq!(effect(&mut world, EntityKind::Offer, "o1", r#"{"description":"x"}"#), [Touched::Offer(one)]);
    assert_eq!(effect(&mut world, EntityKind::Creative, "c1", r#"{"weight":50}"#), [Touched::Offer(one)]);
    assert_eq!(effect(&mut world, EntityKind::Category, "cat_loans", r#"{"status":"paused"}"#), [Touched::Shared]);
    assert_eq!(effect(&mut world, EntityKind::Category, "cat_loans", r#"{"icon":"x"}"#), []);
    assert_eq!(effect(&mut world, EntityKind::Rule, "r1", r#"{"priority":9}"#), [Touched::Shared]);
    let scoped = r#"{"scope":"category","scopeId":"Loans"}"#;
    assert_eq!(effect(&mut world, EntityKind::Rule, "r1", scoped), [Touched::Shared]);
    let mixed = r#"{"scope":null,"scopeId":null,"scopes":[{"scope":"creative","scopeId":"c1"},{"scope":"global"}]}"#;
    assert_eq!(effect(&mut world, EntityKind::Rule, "r1", mixed), [Touched::Offer(one), Touched::Shared]);
    assert_eq!(effect(&mut world, EntityKind::Policy, "p1", r#"{"priority":9}"#), [Touched::Shared]);
    let settings =
        |world: &mut World, patch: &str| world.apply(Op::UpdateSettings { patch: json(patch) }).unwrap().effect;
    assert_eq!(settings(&mut world, r#"{"mandatoryPerDay":3}"#), [Touched::Shared]);
    assert_eq!(settings(&mut world, r#"{"timeZone":"Europe/Berlin"}"#), [Touched::Shared]);
    let named = r#"{"category":"Brand new","subCategoryId":null,"customFields":null}"#;
    assert_eq!(effect(&mut world, EntityKind::Offer, "o1", named), [Touched::Offer(one), Touched::Shared]);
}

#[test]
fn fallback_offers_stay_able_to_fill_their_slots() {
    let mut world = World::furnished();
    for (kind, id, patch) in [
        (EntityKind::Offer, "fb", r#"{"status":"paused"}"#),
        (EntityKind::Offer, "fb", r#"{"kind":"general"}"#),
        (EntityKind::Creative, "cfb", r#"{"status":"paused"}"#),
        (EntityKind::Creative, "cfb", r#"{"offerId":"o1"}"#),
        (EntityKind::Creative, "cfb", r#"{"channelId":"email"}"#),
    ] {
        let refusal = world.update(kind, id, patch).unwrap_err();
        assert_eq!(summary(&refusal).0, "conflict", "{patch}");
    }
    assert_eq!(summary(&world.delete(EntityKind::Creative, "cfb", false).unwrap_err()).0, "conflict");
    assert_eq!(summary(&world.delete(EntityKind::Offer, "fb", true).unwrap_err()).0, "conflict");
    let second = r#"{"name":"n","offerId":"fb","channelId":"web","placementId":"plc_hero","contentType":"image","status":"active"}"#;
    world.create(EntityKind::Creative, "cfb2", json(second)).unwrap();
    world.delete(EntityKind::Creative, "cfb", false).unwrap();
}

#[test]
fn mandatory_offers_are_written_by_admins_only() {
    let mut world = World::furnished();
    let mandatory =
        r#"{"mandatory":true,"mandatoryReason":"r","mandatoryApprovedBy":"a","mandatoryExpiresAt":"2030-01-01"}"#;
    assert_eq!(summary(&world.update(EntityKind::Offer, "o1", mandatory).unwrap_err()).0, "forbidden");
    world.admin = true;
    world.update(EntityKind::Offer, "o1", mandatory).unwrap();
    world.admin = false;
    for patch in [r#"{"mandatory":false}"#, r#"{"priority":3}"#] {
        assert_eq!(summary(&world.update(EntityKind::Offer, "o1", patch).unwrap_err()).0, "forbidden");
    }
    assert_eq!(summary(&world.delete(EntityKind::Offer, "o1", true).unwrap_err()).0, "forbidden");
}

#[test]
fn an_edit_says_which_caps_count_from_0() {
    let mut world = World::furnished();
    let mut caps =
        |caps: &str| world.update(EntityKind::Offer, "o1", &format!(r#"{{"caps":[{caps}]}}"#)).unwrap().new_caps;
    let shown = r#"{"key":"shown","scope":"global","limit":3}"#;
    assert_eq!(caps(shown), ["shown"]);
    assert!(caps(r#"{"key":"shown","scope":"global","limit":9,"enforcement":"soft"}"#).is_empty(), "the count is kept");
    assert_eq!(caps(r#"{"key":"shown","scope":"global","limit":9,"per":"day"}"#), ["shown"]);
    assert!(caps("").is_empty());
    assert_eq!(caps(shown), ["shown"], "gone and made again under its key, it is another cap");
    assert!(world.update(EntityKind::Offer, "o1", r#"{"priority":3}"#).unwrap().new_caps.is_empty());
}
