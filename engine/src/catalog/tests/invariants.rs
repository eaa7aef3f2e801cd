//! What must hold after any commands whatever.

use proptest::prelude::*;

use super::{World, json};
use crate::catalog::stored::reindex_all;
use crate::catalog::{Catalog, EntityKind, Op};
use crate::model::activity::Activity;
use crate::model::algorithm::AlgorithmModel;
use crate::model::category::{Category, SubCategory};
use crate::model::channel::Channel;
use crate::model::collection::Collection;
use crate::model::creative::Creative;
use crate::model::flow::DecisionFlow;
use crate::model::guardrail::Guardrail;
use crate::model::metric::BehavioralMetric;
use crate::model::offer::Offer;
use crate::model::placement::Placement;
use crate::model::policy::ContactPolicy;
use crate::model::record::Record;
use crate::model::rule::QualificationRule;
use crate::model::schema::Schema;
use crate::value::Value;

fn any_value() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "",
        "a",
        "o1",
        "o2",
        "fb",
        "c1",
        "Loans",
        "cat_cards",
        "sub_house",
        "web",
        "email",
        "plc_hero",
        "active",
        "paused",
        "archived",
        "global",
        "profile",
        "offer",
        "creative",
        "day",
        "rolling",
        "decision",
        "click",
        "2026-01-01",
        "08:00",
        "attribute_condition",
        "expression",
        "frequency_cap",
        "mutual_exclusion",
        "customer.age > 1",
        "base",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop::sample::select(vec![-1.0, 0.0, 0.5, 1.0, 2.0, 50.0, 1e9, 1e300, f64::NAN, f64::INFINITY])
            .prop_map(Value::Number),
        words.prop_map(Value::text),
        "\\PC{0,8}".prop_map(Value::text),
    ];
    let names = prop::sample::select(vec![
        "name",
        "type",
        "id",
        "limit",
        "scope",
        "per",
        "hours",
        "key",
        "offerIds",
        "nodes",
        "version",
        "fields",
        "dataType",
        "formula",
        "operator",
        "value",
        "attribute",
        "scopeId",
        "placementId",
        "start",
        "end",
        "x/y~z",
    ]);
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(Value::map),
        ]
    })
}

fn members(kind: EntityKind) -> &'static [&'static str] {
    match kind {
        EntityKind::Category => Category::MEMBERS,
        EntityKind::SubCategory => SubCategory::MEMBERS,
        EntityKind::Offer => Offer::MEMBERS,
        EntityKind::Creative => Creative::MEMBERS,
        EntityKind::Channel => Channel::MEMBERS,
        EntityKind::Placement => Placement::MEMBERS,
        EntityKind::Collection => Collection::MEMBERS,
        EntityKind::Activity => Activity::MEMBERS,
        EntityKind::Rule => QualificationRule::MEMBERS,
        EntityKind::Policy => ContactPolicy::MEMBERS,
        EntityKind::Schema => Schema::MEMBERS,
        EntityKind::Flow => DecisionFlow::MEMBERS,
        EntityKind::Guardrail => Guardrail::MEMBERS,
        EntityKind::Metric => BehavioralMetric::MEMBERS,
        EntityKind::Model => AlgorithmModel::MEMBERS,
    }
}

const IDS: [&str; 20] = [
    "o1",
    "o2",
    "o3",
    "fb",
    "c1",
    "cfb",
    "cat_loans",
    "cat_cards",
    "sub_house",
    "chn_web",
    "chn_email",
    "plc_hero",
    "plc_top",
    "col_all",
    "act_hero",
    "r1",
    "p1",
    "sch_customer",
    "flow_base",
    "new",
];

/// A write with mostly known members and arbitrary values.
fn any_op() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(EntityKind::ALL.to_vec());
    let body = kind.prop_flat_map(|kind| {
        let member = prop::sample::select(members(kind).to_vec());
        (Just(kind), prop::collection::vec((member, any_value()), 0..6), any_value(), any::<u8>())
    });
    let body = body.prop_map(|(kind, members, whole, dice)| {
        let named = [("name", Value::text(format!("name {dice}")))];
        (kind, if dice < 10 { whole } else { Value::map(named.into_iter().chain(members)) })
    });
    let id = prop::sample::select(IDS.to_vec());
    prop_oneof![
        4 => (body.clone(), "[a-z]{1,3}").prop_map(|((kind, body), id)| Op::Create { kind, id, body }),
        6 => (body, id.clone()).prop_map(|((kind, patch), id)| {
            Op::Update { kind, id: id.to_owned(), patch, expected: None }
        }),
        2 => (prop::sample::select(EntityKind::ALL.to_vec()), id.clone(), any::<bool>()).prop_map(|(kind, id, force)| {
            Op::Delete { kind, id: id.to_owned(), force, has_history: false }
        }),
        1 => id.clone().prop_map(|id| Op::PublishFlow { id: id.to_owned() }),
        1 => (id, 0_u32..3).prop_map(|(id, version)| Op::RollbackFlow { id: id.to_owned(), version }),
        1 => any_value().prop_map(|patch| Op::UpdateSettings { patch }),
    ]
}

/// Patches of one plausible member each, so that many are accepted.
fn plausible_op() -> impl Strategy<Value = Op> {
    let patches = vec![
        (EntityKind::Offer, "o1", r#"{"tags":["x","b"],"subCategoryId":"sub_house"}"#),
        (EntityKind::Offer, "o1", r#"{"categoryId":"Cards","subCategoryId":null,"customFields":null}"#),
        (
            EntityKind::Offer,
            "o2",
            r#"{"status":"active","caps":[{"scope":"global","limit":3,"placementId":"plc_top"}]}"#,
        ),
        (EntityKind::Offer, "o2", r#"{"category":"Fresh"}"#),
        (EntityKind::Creative, "c1", r#"{"offerId":"o2"}"#),
        (EntityKind::Creative, "c1", r#"{"placementId":null,"channelId":"email"}"#),
        (EntityKind::Collection, "col_all", r#"{"offerIds":["o1","o2"]}"#),
        (
            EntityKind::Rule,
            "r1",
            r#"{"scopes":[{"scope":"offer","scopeId":"o1"},{"scope":"creative","scopeId":"c1"}]}"#,
        ),
        (
            EntityKind::Policy,
            "p1",
            r#"{"ruleType":"mutual_exclusion","config":{"offerIds":["o1","o2"],"lookbackDays":1}}"#,
        ),
        (EntityKind::Placement, "plc_top", r#"{"channelId":"web","key":"side"}"#),
        (EntityKind::Activity, "act_hero", r#"{"key":"other","decisionFlowKey":"base"}"#),
        (EntityKind::SubCategory, "sub_house", r#"{"categoryId":"Cards"}"#),
        (EntityKind::SubCategory, "sub_house", r#"{"name":"Flat"}"#),
        (
            EntityKind::Category,
            "cat_loans",
            r#"{"customFields":[{"name":"apr","type":"computed","formula":"customer.age * 2","outputType":"number"}]}"#,
        ),
        (EntityKind::Rule, "r1", r#"{"ruleType":"expression","config":{"expression":"customer.age > offer.apr"}}"#),
        (
            EntityKind::Flow,
            "flow_base",
            r#"{"draftConfig":{"version":2,"nodes":[{"id":"inv","type":"inventory","phase":1,"position":0},
              {"id":"q","type":"qualify","phase":1,"position":1,"config":{"mode":"selected","ids":["r1"]}},
              {"id":"p","type":"contact_policy","phase":1,"position":2,"config":{"mode":"selected","ids":["p1"]}}]}}"#,
        ),
    ];
    let deletions = vec![
        (EntityKind::Offer, "o1"),
        (EntityKind::Offer, "o2"),
        (EntityKind::Creative, "c1"),
        (EntityKind::Category, "cat_loans"),
        (EntityKind::Category, "cat_cards"),
        (EntityKind::SubCategory, "sub_house"),
        (EntityKind::Activity, "act_hero"),
    ];
    prop_oneof![
        1 => prop::sample::select(deletions).prop_map(|(kind, id)| {
            Op::Delete { kind, id: id.to_owned(), force: true, has_history: true }
        }),
        1 => Just(Op::PublishFlow { id: "flow_base".to_owned() }),
        4 => prop::sample::select(patches).prop_map(|(kind, id, patch)| {
            Op::Update { kind, id: id.to_owned(), patch: json(patch), expected: None }
        }),
        2 => any_op(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_input_is_answered_and_a_refusal_changes_nothing(ops in prop::collection::vec(any_op(), 1..12)) {
        let mut world = World::furnished();
        let mut hash = world.catalog.hash();
        for op in ops {
            match world.apply(op) {
                Ok(_) => hash = world.catalog.hash(),
                Err(_) => prop_assert_eq!(world.catalog.hash(), hash),
            }
        }
    }

    #[test]
    fn the_same_commands_make_the_same_state_also_from_records(
        ops in prop::collection::vec(plausible_op(), 1..16),
        cut in 0_usize..40,
    ) {
        let mut world = World::furnished();
        for op in ops {
            let _ = world.apply(op);
        }
        let mut replica = Catalog::new();
        for (index, (revision, command)) in world.history.iter().enumerate() {
            if index == cut {
                replica = Catalog::from_records(replica.records()).unwrap();
            }
            let _ = replica.apply(*revision, command);
        }
        prop_assert_eq!(replica.hash(), world.catalog.hash());
    }

    #[test]
    fn indexes_kept_up_to_date_equal_indexes_built_anew(ops in prop::collection::vec(plausible_op(), 1..16)) {
        let mut world = World::furnished();
        for op in ops {
            let _ = world.apply(op);
            let mut rebuilt = world.tenant().clone();
            reindex_all(&mut rebuilt);
            prop_assert_eq!(&rebuilt.index, &world.tenant().index);
        }
    }

    #[test]
    fn corrupt_records_are_errors_not_panics(at in 0_usize..20_000, byte in any::<u8>()) {
        let world = World::furnished();
        let mut records: Vec<Vec<u8>> = world.catalog.records().collect();
        let count = records.len();
        let record = &mut records[at % count];
        let length = record.len();
        record[(at / count) % length] ^= byte;
        if let Ok(catalog) = Catalog::from_records(records) {
            catalog.hash();
        }
    }
}

#[test]
fn a_written_object_is_accepted_as_it_is_shown() {
    let mut world = World::furnished();
    for kind in EntityKind::ALL {
        for id in IDS {
            let Some(shown) = world.tenant().get(*kind, id) else { continue };
            let op = Op::Update { kind: *kind, id: id.to_owned(), patch: shown, expected: None };
            let changed = world.apply(op).unwrap_or_else(|refusal| panic!("{id}: {refusal}"));
            assert_eq!(changed.effect, [], "{id}");
        }
    }
}
