//! Models as they are written, named and stored.

use super::{World, json, summary};
use crate::catalog::{Catalog, EntityKind, Op, Refusal};
use crate::keys::{Revision, TenantId};
use crate::snapshot::Snapshot;

const REGRESSION: &str = r#"{"name":"Churn model","modelType":"logistic_regression",
    "config":{"features":[{"expression":"customer.age","coefficient":0.1}]}}"#;

/// A model as a record of a stored catalogue.
const GOLDEN: &str = "001400016dfd2ad0ca9f17030000fd2ad0ca9f17030000150b436875726e206d6f64656c0001010b636875726e2d6d6f64656c010502\
    086665617475726573040105050b636f656666696369656e74029a9999999999b93f0a65787072657373696f6e030c637573746f6d65\
    722e616765046d65616e020000000000000000076d697373696e6700057363616c6502000000000000f03f09696e74657263657074020000000000000000";

fn faults(refusal: &Refusal) -> Vec<String> {
    summary(refusal).1
}

#[test]
fn every_fault_of_a_model_is_told_with_its_pointer() {
    let mut world = World::furnished();
    let mut create = |kind: &str, config: &str| {
        let body = format!(r#"{{"name":"m","modelType":"{kind}","config":{config}}}"#);
        world.create(EntityKind::Model, "m", json(&body)).map_or_else(|refusal| faults(&refusal), |_| Vec::new())
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("neural", "{}", &["/modelType"]),
        ("online_learner", "{}", &["/modelType"]),
        ("logistic_regression", "{}", &["/config/features"]),
        ("logistic_regression", r#"{"features":[]}"#, &["/config/features"]),
        (
            "logistic_regression",
            r#"{"intercept":"1","features":[{"expression":"customer.age >","coefficient":1,"scale":0},{"expression":"x"}],"bias":1}"#,
            &["/config/bias", "/config/features/1/coefficient", "/config/intercept"],
        ),
        (
            "logistic_regression",
            r#"{"features":[{"expression":"customer.age >","coefficient":1,"scale":0},{"expression":"'a'","coefficient":1},
                {"expression":"metric.nothing","coefficient":1}]}"#,
            &[
                "/config/features/0/expression",
                "/config/features/0/scale",
                "/config/features/1/expression",
                "/config/features/2/expression",
            ],
        ),
        (
            "scorecard",
            r#"{"targetOdds":0,"pointsToDoubleOdds":0,"characteristics":[{"expression":"customer.age","bins":[]}]}"#,
            &["/config/characteristics/0/bins", "/config/pointsToDoubleOdds", "/config/targetOdds"],
        ),
        (
            "scorecard",
            r#"{"characteristics":[{"expression":"[1]","bins":[{"points":1},{"from":5,"to":5,"points":1},{"from":5,"to":1,"values":[1],"points":1},
                {"values":[[1]],"points":1}]}]}"#,
            &[
                "/config/characteristics/0/bins/0",
                "/config/characteristics/0/bins/1",
                "/config/characteristics/0/bins/2/to",
                "/config/characteristics/0/bins/3/values/0",
                "/config/characteristics/0/expression",
            ],
        ),
        (
            "scorecard",
            r#"{"characteristics":[{"expression":"customer.age","bins":[{"to":5,"points":1},{"from":4,"points":1},{"values":["a"],"points":1},
                {"values":["b","a"],"points":1}]},
                {"expression":"customer.age","bins":[{"from":1,"to":5,"points":1},{"values":[4],"points":1},{"values":[5],"points":1}]}]}"#,
            &[
                "/config/characteristics/0/bins/1",
                "/config/characteristics/0/bins/3",
                "/config/characteristics/1/bins/1",
            ],
        ),
        ("bayesian", r#"{"prior":1,"predictors":[]}"#, &["/config/predictors", "/config/prior"]),
        (
            "bayesian",
            r#"{"predictors":[{"expression":"customer.age","bins":[{"values":[1],"positive":0,"negative":1.5}],"otherwise":{"positive":1,"negative":-1}},
                {"expression":"customer.age","bins":[{"values":[1],"positive":1,"negative":1}],
                 "gaussian":{"positive":{"mean":1,"deviation":0},"negative":{"mean":1,"deviation":2}}},
                {"expression":"customer.age"}]}"#,
            &[
                "/config/predictors/0/bins/0/negative",
                "/config/predictors/0/bins/0/positive",
                "/config/predictors/0/otherwise/negative",
                "/config/predictors/1/gaussian",
                "/config/predictors/1/gaussian/positive/deviation",
                "/config/predictors/2/bins",
            ],
        ),
        ("thompson_bandit", r#"{"priorWeight":0}"#, &["/config/priorWeight"]),
        ("epsilon_greedy", r#"{"epsilon":1.1,"seed":7}"#, &["/config/epsilon", "/config/seed"]),
        ("epsilon_greedy", r#"{"epsilon":1.1}"#, &["/config/epsilon"]),
        (
            "champion_challenger",
            r#"{"champion":"nobody","challenger":"nobody","percent":101}"#,
            &["/config/challenger", "/config/challenger", "/config/champion", "/config/percent"],
        ),
        ("epsilon_greedy", "{}", &[]),
    ];
    for (kind, config, expected) in cases {
        assert_eq!(create(kind, config), *expected, "{kind} {config}");
    }
}

#[test]
fn bins_have_so_many_values_and_no_more() {
    let mut world = World::furnished();
    let body = |count: usize| {
        let values: Vec<String> = (0..count).map(|value| value.to_string()).collect();
        let bins = format!(r#"[{{"values":[{}],"points":1}}]"#, values.join(","));
        json(&format!(
            r#"{{"name":"m","modelType":"scorecard","config":{{"characteristics":[{{"expression":"customer.age","bins":{bins}}}]}}}}"#
        ))
    };
    let refusal = world.create(EntityKind::Model, "m", body(201)).unwrap_err();
    assert_eq!(faults(&refusal), ["/config/characteristics/0/bins"]);
    world.create(EntityKind::Model, "m", body(200)).unwrap();
}

#[test]
fn a_model_is_named_by_its_key_which_is_unique_and_stays() {
    let mut world = World::furnished();
    world.create(EntityKind::Model, "m", json(REGRESSION)).unwrap();
    assert_eq!(world.member(EntityKind::Model, "m", "key").as_text(), Some("churn-model"));
    assert_eq!(world.tenant().model_by_key("churn-model").map(|row| row.id.as_str()), Some("m"));
    let other = r#"{"name":"Other","key":"churn-model","modelType":"thompson_bandit"}"#;
    assert_eq!(
        summary(&world.create(EntityKind::Model, "n", json(other)).unwrap_err()),
        ("conflict", vec!["/key".into()])
    );
    let renamed = world.update(EntityKind::Model, "m", r#"{"key":"churn"}"#).unwrap_err();
    assert_eq!(summary(&renamed), ("conflict", vec!["/key".into()]));
    world.update(EntityKind::Model, "m", r#"{"name":"Churn, second"}"#).unwrap();
    assert_eq!(world.member(EntityKind::Model, "m", "key").as_text(), Some("churn-model"));
    // Another type needs its own config.
    let other = world.update(EntityKind::Model, "m", r#"{"modelType":"scorecard"}"#).unwrap_err();
    assert_eq!(faults(&other), ["/config/characteristics", "/config/features", "/config/intercept"]);
    world.delete(EntityKind::Model, "m", false).unwrap();
    assert!(world.tenant().model_by_key("churn-model").is_none());
}

#[test]
fn what_is_named_exists_and_what_exists_and_is_named_stays() {
    let mut world = World::furnished();
    world.create(EntityKind::Model, "m", json(REGRESSION)).unwrap();
    let eligibility = |model: &str| format!(r#"{{"eligibility":{{"modelReference":{model}}}}}"#);
    let unknown = world.update(EntityKind::Offer, "o1", &eligibility(r#""nobody""#)).unwrap_err();
    assert_eq!(summary(&unknown), ("invalid", vec!["/eligibility/modelReference".into()]));
    let draft = |config: &str| {
        json(&format!(
            r#"{{"key":"k","name":"k","draftConfig":{{"version":2,"nodes":[
                {{"id":"i","type":"inventory","phase":1,"position":0,"config":{{}}}},
                {{"id":"s","type":"score","phase":2,"position":1,"config":{config}}}]}}}}"#
        ))
    };
    let by_model = r#"{"modelKey":"churn-model"}"#;
    let by_override = r#"{"overrides":[{"productType":"card","modelKey":"churn-model"}]}"#;
    let by_formula = r#"{"method":"expression","formula":"P","modelKey":"churn-model"}"#;
    for (number, config) in [by_model, by_override, by_formula].into_iter().enumerate() {
        let unknown = config.replace("churn-model", "nobody");
        let id = format!("flow_k{number}");
        let body = |config: &str| {
            let mut body = draft(config);
            if let crate::value::Value::Map(members) = &mut body {
                let members = std::sync::Arc::make_mut(members);
                members.insert("key".into(), crate::value::Value::text(&id));
            }
            body
        };
        world.create(EntityKind::Flow, &id, body(&unknown)).unwrap();
        let refusal = world.apply(Op::PublishFlow { id: id.clone() }).unwrap_err();
        assert!(faults(&refusal).iter().any(|pointer| pointer.ends_with("/modelKey")), "{refusal}");
        let published = format!(r#"{{"draftConfig":{}}}"#, text_of(config));
        world.update(EntityKind::Flow, &id, &published).unwrap();
        world.apply(Op::PublishFlow { id: id.clone() }).unwrap();
        let named = world.delete(EntityKind::Model, "m", true).unwrap_err();
        assert!(named.to_string().contains(&format!("decision flow {id} scores by it")), "{named}");
        world.delete(EntityKind::Flow, &id, true).unwrap();
    }
    world.update(EntityKind::Offer, "o1", &eligibility(r#""churn-model""#)).unwrap();
    let named = world.delete(EntityKind::Model, "m", true).unwrap_err();
    assert!(named.to_string().contains("the eligibility of offer o1 refers to it"), "{named}");
    world.update(EntityKind::Offer, "o1", &eligibility("null")).unwrap();
    world.delete(EntityKind::Model, "m", false).unwrap();
}

fn text_of(config: &str) -> String {
    format!(
        r#"{{"version":2,"nodes":[{{"id":"i","type":"inventory","phase":1,"position":0,"config":{{}}}},
            {{"id":"s","type":"score","phase":2,"position":1,"config":{config}}}]}}"#
    )
}

#[test]
fn a_model_leaves_scoring_to_two_that_score_themselves_and_stay() {
    let mut world = World::furnished();
    for name in ["old", "new"] {
        let body = REGRESSION.replace("Churn model", name);
        world.create(EntityKind::Model, name, json(&body)).unwrap();
    }
    let both = |name: &str, champion: &str| {
        json(&format!(
            r#"{{"name":"{name}","modelType":"champion_challenger","config":{{"champion":"{champion}","challenger":"new"}}}}"#
        ))
    };
    world.create(EntityKind::Model, "both", both("both", "old")).unwrap();
    let nested = world.create(EntityKind::Model, "more", both("more", "both")).unwrap_err();
    assert_eq!(faults(&nested), ["/config/champion"]);
    let turned = r#"{"modelType":"champion_challenger","config":{"champion":"old","challenger":"both"}}"#;
    assert_eq!(faults(&world.update(EntityKind::Model, "new", turned).unwrap_err()), ["/config", "/config/challenger"]);
    let named = world.delete(EntityKind::Model, "old", true).unwrap_err();
    assert!(named.to_string().contains("algorithm model both leaves scoring to it"), "{named}");
    world.delete(EntityKind::Model, "both", false).unwrap();
    world.delete(EntityKind::Model, "old", false).unwrap();
}

#[test]
fn a_metric_that_a_feature_reads_stays() {
    let mut world = World::furnished();
    world.create(EntityKind::Metric, "met", json(r#"{"name":"clicks","outcomes":["click"]}"#)).unwrap();
    let config = r#"{"features":[{"expression":"metric.clicks","coefficient":0.1}]}"#;
    let body = format!(r#"{{"name":"m","modelType":"logistic_regression","config":{config}}}"#);
    world.create(EntityKind::Model, "m", json(&body)).unwrap();
    assert_eq!(summary(&world.delete(EntityKind::Metric, "met", true).unwrap_err()).0, "conflict");
    world.delete(EntityKind::Model, "m", false).unwrap();
    world.delete(EntityKind::Metric, "met", true).unwrap();
}

#[test]
fn what_names_a_model_from_when_none_had_to_exist_goes_on_without_one() {
    let mut world = World::furnished();
    world.create(EntityKind::Model, "m", json(REGRESSION)).unwrap();
    world.update(EntityKind::Offer, "o1", r#"{"eligibility":{"modelReference":"churn-model"}}"#).unwrap();
    let draft = text_of(r#"{"method":"propensity","modelKey":"churn-model"}"#);
    world.create(EntityKind::Flow, "k", json(&format!(r#"{{"key":"k","name":"k","draftConfig":{draft}}}"#))).unwrap();
    world.apply(Op::PublishFlow { id: "k".to_owned() }).unwrap();
    let plans_by_models = |world: &World| {
        let snapshot = Snapshot::compile(&TenantId::new("t"), world.tenant(), Revision(99));
        let plans = snapshot.shared.parts.plans.values();
        plans.iter().filter(|plan| plan.models().next().is_some()).count()
    };
    assert_eq!(plans_by_models(&world), 1);
    let tenant = world.catalog.tenants.get_mut(&TenantId::new("t")).unwrap();
    tenant.models = Default::default();
    tenant.index.model_keys.clear();
    assert_eq!(plans_by_models(&world), 0);
    world.update(EntityKind::Offer, "o1", r#"{"priority":7}"#).unwrap();
    let other = world.update(EntityKind::Offer, "o1", r#"{"eligibility":{"modelReference":"other"}}"#).unwrap_err();
    assert_eq!(faults(&other), ["/eligibility/modelReference"]);
}

#[test]
fn a_catalogue_with_models_reads_back_and_one_without_is_stored_as_ever() {
    let mut world = World::furnished();
    let without: Vec<Vec<u8>> = world.catalog.records().collect();
    world.create(EntityKind::Model, "m", json(REGRESSION)).unwrap();
    world.update(EntityKind::Offer, "o1", r#"{"eligibility":{"modelReference":"churn-model"}}"#).unwrap();
    let records: Vec<Vec<u8>> = world.catalog.records().collect();
    assert_eq!(records.len(), without.len() + 2, "its table and itself");
    let bytes = records.last().unwrap().iter().map(|byte| format!("{byte:02x}"));
    assert_eq!(bytes.collect::<String>(), GOLDEN, "the stored format: a change is a new version");
    let restored = Catalog::from_records(&records).unwrap();
    assert!(restored.records().eq(records));
    let tenant = restored.tenant(&TenantId::new("t")).unwrap();
    assert_eq!(tenant.get(EntityKind::Model, "m"), world.tenant().get(EntityKind::Model, "m"));
    assert_eq!(tenant.index, world.tenant().index, "nothing that is looked up depends on the way here");
    assert_eq!(without, World::furnished().catalog.records().collect::<Vec<_>>());
}
