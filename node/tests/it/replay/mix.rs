//! What the run is mixed of: the catalogue, what customers ask for, and what an answer shows of how it came about.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Decisions for each customer, about: some are asked about often enough to be under caps, and no history grows with the run.
const DECISIONS_EACH: u64 = 10;
const OFFERS: u64 = 16;

/// What a run has to contain, else it would show less than it says.
pub const KINDS: [&str; 24] = [
    "treated in an experiment",
    "held out",
    "nothing eligible",
    "limited by a budget",
    "fallback",
    "mandatory",
    "ranked by what was learned",
    "scored by a model",
    "a model could not score",
    "with computed fields",
    "with properties of the flow",
    "over several slots",
    "over activities",
    "shown by being decided",
    "erased just before",
    "simulated",
    "repeated under its key",
    "superseding another",
    "of a batch",
    "some removed by: qualification",
    "some removed by: profile_cap",
    "some removed by: global_cap",
    "some removed by: contact_policy",
    "some removed by: filter",
];

/// One of `of`, by the number of a decision and what it is drawn for.
pub fn draw(number: u64, what: &str, of: u64) -> u64 {
    xxh3_64_with_seed(what.as_bytes(), number) % of
}

/// Whom a decision is about, of a run of so many.
pub fn customer(number: u64, decisions: u64) -> String {
    format!("c{}", draw(number, "customer", customers(decisions)))
}

fn customers(decisions: u64) -> u64 {
    decisions.div_ceil(DECISIONS_EACH)
}

fn flow(key: &str, config: &Value, nodes: &[Value]) -> Value {
    let mut all = vec![json!({"id": "inventory", "type": "inventory", "phase": 1, "position": 0})];
    all.extend(nodes.iter().cloned());
    json!({"key": key, "name": key, "draftConfig": {"version": 2, "flowConfig": config, "nodes": all}})
}

/// The catalogue as one import; some units for each of `decisions`, too few for all.
pub fn catalogue(decisions: u64) -> Value {
    let unit_caps = json!([{"scope": "global", "limit": decisions / 5, "per": "lifetime", "countOn": "decision"}]);
    let shown_caps = json!([{"scope": "global", "limit": decisions / 5, "per": "lifetime"},
        {"scope": "profile", "limit": 3, "per": "day"}]);
    let profile_caps = json!([{"scope": "profile", "limit": 2, "per": "day", "countOn": "decision"}]);
    let mut offers: Vec<Value> = (0..OFFERS)
        .map(|number| {
            let caps = match number % 4 {
                0 => unit_caps.clone(),
                1 => shown_caps.clone(),
                2 => profile_caps.clone(),
                _ => json!([]),
            };
            json!({"name": format!("O{number}"), "status": "active", "priority": 95 - 4 * number, "businessValue": 20 + 5 * number,
                "category": if number % 2 == 0 { "Loans" } else { "Cards" }, "tags": if number < 2 { json!(["rare"]) } else { json!([]) },
                "margin": number, "customFields": if number % 2 == 0 { json!({"rate": number}) } else { json!({}) }, "caps": caps})
        })
        .collect();
    offers.push(json!({"name": "Notice", "status": "active", "mandatory": true, "mandatoryReason": "law",
        "mandatoryApprovedBy": "jane", "mandatoryExpiresAt": "2090-01-01", "category": "Cards"}));
    offers.push(json!({"name": "Last", "kind": "fallback", "status": "active"}));
    let shown = offers.iter().filter_map(|offer| offer["name"].as_str());
    let creatives = shown.flat_map(|name| {
        ["Hero", "Side"].map(|placement| {
            json!({"name": format!("{name} {placement}"), "offerId": name, "channelId": "web", "placementId": placement,
                "contentType": "text", "content": "…", "status": "active", "weight": 50 + name.len()})
        })
    });
    let rule = |name: &str, offer: &str, expression: &str| json!({"name": name, "ruleType": "expression", "scope": "offer", "scopeId": offer, "config": {"expression": expression}});
    let policy = |name: &str, kind: &str, offer: &str, config: Value| json!({"name": name, "ruleType": kind, "scope": "offer", "scopeId": offer, "config": config});
    let prieu = json!({"propensityWeight": 0.4, "relevanceWeight": 0.15, "impactWeight": 0.35, "emphasisWeight": 0.1, "upliftWeight": 0.5});
    let cheap = json!({"combinator": "and", "conditions": [{"field": "margin", "operator": "lt", "value": 12}]});
    json!({
        "channels": [{"name": "web"}, {"name": "kiosk", "impressionMode": "implicit"}, {"name": "mail", "couplingMode": "atomic"}],
        "placements": [{"name": "Hero", "channelId": "web"}, {"name": "Side", "channelId": "web"}],
        "categories": [{"name": "Cards"}, {"name": "Loans", "customFields": [{"name": "rate", "type": "number"},
            {"name": "title", "type": "computed", "formula": "concat('For ', coalesce(customer.name, 'you'))", "outputType": "text"},
            {"name": "cost", "type": "computed", "formula": "offer.rate * coalesce(customer.age, 18) / 7", "outputType": "number"}]}],
        "schemas": [{"name": "customer", "fields": [{"name": "customer_id", "dataType": "varchar", "isUnique": true},
            {"name": "tenure", "dataType": "integer"}]}],
        "rows:customer": (0..customers(decisions)).step_by(3).map(|number| json!({"customer_id": format!("c{number}"), "tenure": number % 40})).collect::<Vec<_>>(),
        "profiles": (0..customers(decisions)).step_by(2).map(profile).collect::<Vec<_>>(),
        "behavioral-metrics": [{"name": "views", "events": ["view"], "groupBy": ["offer"], "per": {"hours": 24}}],
        "offers": offers,
        "creatives": creatives.collect::<Vec<_>>(),
        "collections": [{"name": "Rare", "allOf": ["rare"]}, {"name": "All"}],
        "activities": [{"name": "Rare", "collectionId": "Rare", "placementId": "Hero", "fallbackOfferId": "Last"},
            {"name": "All", "collectionId": "All", "placementId": "Side", "fallbackOfferId": "Last"}],
        "qualification-rules": [rule("adults", "O1", "customer.age >= 18"), rule("new to it", "O3", "metric.views < 2"),
            rule("tenured", "O5", "customer.tenure > 12"), rule("young", "O7", "coalesce(customer.age, 0) < 40")],
        "contact-policies": [policy("often", "frequency_cap", "O3", json!({"maxPerDay": 1})),
            policy("seen", "frequency_cap", "O7", json!({"maxPerDay": 2}))],
        "guardrails": [{"name": "dear", "expression": "offer.margin < 14", "mode": "soft", "multiplier": 0.5}],
        "algorithm-models": [
            {"name": "drawn", "modelType": "thompson_bandit", "config": {}},
            {"name": "fitted", "modelType": "logistic_regression", "config": {"intercept": 1, "features": [
                {"expression": "customer.age", "coefficient": 0.5, "mean": 30, "scale": 10},
                {"expression": "offer.priority", "coefficient": -0.02}]}},
            {"name": "both", "modelType": "champion_challenger", "config": {"champion": "fitted", "challenger": "drawn", "percent": 40}}],
        "decision-flows": [
            flow("modelled", &json!({}), &[
                json!({"id": "qualify", "type": "qualify", "phase": 1, "position": 1}),
                json!({"id": "score", "type": "score", "phase": 2, "position": 2, "config": {"method": "propensity", "modelKey": "both"}})]),
            flow("spring", &json!({"experiment": {"enabled": true, "holdoutPercent": 20, "windowDays": 7}}), &[
                json!({"id": "enrich", "type": "enrich", "phase": 1, "position": 1, "config": {"sources":
                    [{"schemaId": "customer", "lookupKey": "customer_id", "fields": ["tenure"]}]}}),
                json!({"id": "qualify", "type": "qualify", "phase": 1, "position": 2}),
                json!({"id": "policies", "type": "contact_policy", "phase": 1, "position": 3}),
                json!({"id": "score", "type": "score", "phase": 2, "position": 4, "config": {"method": "formula", "formula": prieu}}),
                json!({"id": "rank", "type": "rank", "phase": 2, "position": 5, "config": {"method": "topN", "maxCandidates": 5}})]),
            flow("likely", &json!({}), &[
                json!({"id": "filter", "type": "filter", "phase": 1, "position": 1, "config": cheap}),
                json!({"id": "qualify", "type": "qualify", "phase": 1, "position": 2}),
                json!({"id": "score", "type": "score", "phase": 2, "position": 3, "config": {"method": "propensity"}}),
                json!({"id": "group", "type": "group", "phase": 2, "position": 4, "config": {"arbitration": "optimal"}}),
                json!({"id": "set", "type": "set_properties", "phase": 3, "position": 5, "config": {"set": {"worth": "offer.margin / 3"}}})]),
        ],
    })
}

/// A profile, as a line of an import.
pub fn profile(number: u64) -> Value {
    let segments = if number.is_multiple_of(10) { json!(["vip"]) } else { json!([]) };
    json!({"customerId": format!("c{number}"), "attributes": {"age": 10 + number % 60, "name": format!("n{number}")}, "segments": segments})
}

/// All but the one that wants a long tenure, and the fallback offer.
fn all_but_one() -> Vec<String> {
    let others = (0..OFFERS).filter(|offer| *offer != 5).map(|offer| format!("O{offer}"));
    others.chain(["Notice".to_owned()]).collect()
}

/// What is asked for, by its number: the path, and the body.
pub fn wish(number: u64, decisions: u64) -> (&'static str, Value) {
    let mut body = json!({"customerId": customer(number, decisions), "trace": true, "limit": 1 + draw(number, "limit", 4),
        "explain": draw(number, "explain", 3) == 0, "excludeOffers": ["Notice"], "context": {"number": number}});
    let members = match draw(number, "shape", 9) {
        0 => json!({"channel": "kiosk"}),
        1 => {
            json!({"channel": "web", "placements": ["hero", {"placement": "side", "limit": 2}], "decisionFlowKey": "likely"})
        }
        2 => json!({"channel": "mail", "excludeOffers": []}),
        3 => {
            json!({"activities": ["rare", "all"], "excludeOffers": if number.is_multiple_of(2) { json!(["Notice", "O0", "O1"]) } else { json!(["Notice"]) }})
        }
        4 => json!({"channel": "web", "decisionFlowKey": "likely", "attributes": {"age": 20 + number % 40}}),
        5 => json!({"channel": "web", "excludeOffers": all_but_one()}),
        6 => json!({"channel": "web", "decisionFlowKey": "modelled", "explain": true}),
        _ => json!({"channel": "web", "decisionFlowKey": "spring"}),
    };
    let is_by_activity = members.get("activities").is_some();
    let all = body.as_object_mut().expect("it is one");
    all.extend(members.as_object().expect("they are in one").clone());
    if is_by_activity {
        // The slots say how many.
        all.remove("limit");
    }
    let path = match (draw(number, "path", 10), is_by_activity) {
        (0, _) => "/simulate",
        (_, true) => "/decisions",
        (_, false) => "/recommend",
    };
    (path, body)
}

/// What an answer shows of how it came about.
pub fn kinds_of(answer: &Value, asked: &Value) -> BTreeSet<String> {
    let meta = &answer["meta"];
    let decisions = || answer["decisions"].as_array().into_iter().flatten();
    let any = |is_so: &dyn Fn(&Value) -> bool| decisions().any(is_so);
    let has_members = |value: &Value| value.as_object().is_some_and(|members| !members.is_empty());
    let slots = answer["slots"].as_array();
    let nothing = |empty: &Value| empty == "no_candidate";
    let found = [
        ("treated in an experiment", meta["experiment"]["arm"] == "treatment"),
        ("held out", meta["controlGroup"] == true),
        (
            "nothing eligible",
            nothing(&meta["empty"]) || slots.into_iter().flatten().any(|slot| nothing(&slot["empty"])),
        ),
        ("limited by a budget", meta["budgetLimited"] == true),
        ("degraded by contention", !meta["degraded"].is_null()),
        ("fallback", any(&|one| one["fallback"] == true)),
        ("mandatory", any(&|one| one["mandatory"] == true)),
        (
            "ranked by what was learned",
            any(&|one| {
                let source = &one["explanation"]["rankingScores"]["propensitySource"];
                matches!(source.as_str(), Some("offer" | "category" | "global"))
            }),
        ),
        ("scored by a model", any(&|one| one["explanation"]["rankingScores"]["propensitySource"] == "model")),
        ("a model could not score", meta["degradedScoring"] == true),
        ("with computed fields", any(&|one| has_members(&one["personalization"]))),
        ("with properties of the flow", any(&|one| has_members(&one["properties"]))),
        ("over several slots", slots.is_some_and(|slots| slots.len() > 1)),
        ("over activities", asked.get("activities").is_some()),
        ("shown by being decided", asked["channel"] == "kiosk" && answer["count"] != 0),
        ("superseding another", asked.get("supersedes").is_some()),
        ("simulated", answer["recommendationId"].is_null()),
    ];
    let kinds = found.into_iter().filter(|(_, is_so)| *is_so).map(|(kind, _)| kind.to_owned());
    let removed = answer["explanation"]["removed"].as_array().into_iter().flatten();
    kinds.chain(removed.map(|one| format!("some removed by: {}", one["stage"].as_str().unwrap_or("?")))).collect()
}
