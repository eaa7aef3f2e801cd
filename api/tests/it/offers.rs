//! What the fields of offers do to an answer, along the vendor's reference for offers and its examples.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::node::Node;

const DAY: Duration = Duration::from_secs(24 * 3_600);

async fn web() -> Node {
    let node = Node::start().await;
    node.create("channels", r#"{"name": "web"}"#).await;
    node
}

async fn decisions(node: &Node, more: Value) -> Vec<Value> {
    let mut body = json!({"customerId": "c", "channel": "web", "limit": 20});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.ok("POST", "/api/v1/recommend", &body.to_string()).await["decisions"].as_array().unwrap().clone()
}

async fn names(node: &Node, more: Value) -> Vec<String> {
    let decisions = decisions(node, more).await;
    decisions.iter().map(|decision| decision["offerName"].as_str().unwrap().to_owned()).collect()
}

async fn put(node: &Node, path: &str, members: Value) -> Value {
    node.ok("PUT", path, &members.to_string()).await
}

#[tokio::test]
async fn the_examples_are_taken_as_they_are_written() {
    let node = web().await;
    for category in ["Beverages", "Compliance"] {
        node.create("categories", &json!({"name": category}).to_string()).await;
    }
    let bogo = json!({
        "name": "BOGO Frappuccino",
        "shortDesc": "Buy one Frappuccino, get one free this weekend",
        "categoryId": "cat_beverages",
        "priority": 70,
        "businessValue": 80,
        "status": "draft",
        "tags": ["bogo", "frappuccino", "weekend"],
        "eligibility": {"propensityThreshold": 0.5, "recency": 7, "requiredSegments": ["rewards_member"]},
        "schedule": {
            "startDate": "2026-04-05T00:00:00Z", "endDate": "2026-04-07T23:59:59Z", "daysOfWeek": [5, 6, 0]
        }
    });
    let disclosure = json!({
        "name": "CFPB Rate Disclosure Q2-2026",
        "status": "active",
        "categoryId": "cat_compliance",
        "priority": 90,
        "mandatory": true,
        "mandatoryReason": "CFPB regulation 2026-04 requires rate disclosure within 30 days",
        "mandatoryApprovedBy": "jane.smith@acme.com",
        "mandatoryExpiresAt": "2026-04-15T23:59:59Z",
        "schedule": {"startDate": "2026-03-15T00:00:00Z", "endDate": "2026-04-15T23:59:59Z"}
    });
    let mut ids = Vec::new();
    for example in [&bogo, &disclosure] {
        let reply = node.call("POST", "/api/v1/offers", &example.to_string()).await;
        assert_eq!(reply.status, StatusCode::CREATED);
        let made = reply.json();
        for (member, given) in example.as_object().unwrap() {
            match given.as_object() {
                None => assert_eq!(&made[member], given),
                Some(given) => given.iter().for_each(|(name, given)| assert_eq!(&made[member][name], given)),
            }
        }
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    for (query, expected) in [
        ("status=draft", vec![&ids[0]]),
        ("categoryId=cat_compliance", vec![&ids[1]]),
        ("tags=weekend", vec![&ids[0]]),
        ("tags=weekend&status=active", vec![]),
        ("", vec![&ids[0], &ids[1]]),
    ] {
        let listed = node.ok("GET", &format!("/api/v1/offers?{query}"), "").await;
        let listed: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect();
        assert_eq!(listed, expected.into_iter().map(|id| json!(id)).collect::<Vec<_>>(), "{query}");
    }
    let excluded = put(&node, "/api/v1/offers", json!({"id": ids[0], "emergencyExcluded": true})).await;
    assert_eq!((&excluded["emergencyExcluded"], &excluded["priority"]), (&json!(true), &json!(70)));
    let gone = node.call("DELETE", &format!("/api/v1/offers?id={}", ids[1]), "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn only_active_offers_of_active_categories_are_recommended() {
    let node = web().await;
    node.create("categories", r#"{"name": "Cards"}"#).await;
    let category = "/api/v1/categories/cat_cards".to_owned();
    let sub = node.ok("POST", &format!("{category}/sub-categories"), r#"{"name": "Travel"}"#).await["id"].clone();
    let offer = json!({"name": "A", "categoryId": "cat_cards", "subCategoryId": sub});
    let offer = format!("/api/v1/offers/{}", node.create("offers", &offer.to_string()).await);
    let sub = format!("{category}/sub-categories/{}", sub.as_str().unwrap());
    assert!(names(&node, json!({})).await.is_empty(), "a draft");
    for (path, status, is_recommended) in [
        (&offer, "active", true),
        (&offer, "paused", false),
        (&offer, "active", true),
        (&category, "paused", false),
        (&category, "active", true),
        (&sub, "archived", false),
        (&sub, "active", true),
        (&offer, "archived", false),
    ] {
        put(&node, path, json!({"status": status})).await;
        assert_eq!(!names(&node, json!({})).await.is_empty(), is_recommended, "{path} {status}");
    }
    assert_eq!(node.ok("GET", &offer, "").await["status"], "archived", "it is kept for reports");
    for status in ["active", "paused", "draft"] {
        let reply = node.call("PUT", &offer, &json!({"status": status}).to_string()).await;
        assert_eq!((reply.status, reply.pointers()), (StatusCode::CONFLICT, vec!["/status".to_owned()]), "{status}");
    }
}

#[tokio::test]
async fn eligibility_lets_through_whom_it_names() {
    let node = web().await;
    let offer = node.create("offers", r#"{"name": "A", "status": "active"}"#).await;
    let offer = format!("/api/v1/offers/{offer}");
    let both = json!(["high_value", "credit_eligible"]);
    // Without evidence every propensity is 0.5; a bandit expects as much.
    let model =
        json!({"name": "model_propensity_cc_v3", "key": "model_propensity_cc_v3", "modelType": "thompson_bandit"});
    node.create("algorithm-models", &model.to_string()).await;
    for (eligibility, segments, passes) in [
        (json!({"propensityThreshold": 0.5}), json!([]), true),
        (json!({"propensityThreshold": 0.65}), json!([]), false),
        (json!({"propensityThreshold": 0.5, "modelReference": "model_propensity_cc_v3"}), json!([]), true),
        (json!({"requiredSegments": both}), json!(["high_value"]), false),
        (json!({"requiredSegments": both}), json!(["credit_eligible", "new", "high_value"]), true),
        (json!({"requiredSegments": []}), json!([]), true),
        (json!({"requiredSegments": both, "propensityThreshold": 0.65}), both.clone(), false),
        (json!({"recency": 30}), json!([]), true),
    ] {
        put(&node, &offer, json!({"eligibility": eligibility})).await;
        let body = json!({"customerId": "c", "channel": "web", "segments": segments}).to_string();
        let answer = node.ok("POST", "/api/v1/recommend", &body).await;
        assert_eq!(answer["meta"]["totalCandidates"], 1);
        assert_eq!(answer["meta"]["afterQualification"], json!(i32::from(passes)), "{eligibility} {segments}");
    }
    let shown = r#"{"customerId": "c", "offerId": "A", "outcome": "impression", "idempotencyKey": "1"}"#;
    node.ok("POST", "/api/v1/respond", shown).await;
    for (later, is_recommended) in [(0, false), (29, false), (1, true)] {
        node.clock.advance(later * DAY);
        assert_eq!(!names(&node, json!({})).await.is_empty(), is_recommended, "{later} days later");
    }
    node.ok("POST", "/api/v1/respond", &shown.replace(r#""1""#, r#""2""#)).await;
    assert_eq!(names(&node, json!({"customerId": "d"})).await, ["A"], "another customer has not seen it");
}

#[tokio::test]
async fn a_schedule_opens_and_closes_on_its_dates_days_and_hours_for_mandatory_offers_too() {
    let node = web().await;
    let governed = json!({"name": "Notice", "status": "active", "mandatory": true, "mandatoryReason": "law",
        "mandatoryApprovedBy": "jane", "mandatoryExpiresAt": "2030-01-01"});
    let notice = format!("/api/v1/offers/{}", node.create("offers", &governed.to_string()).await);
    let offer = format!("/api/v1/offers/{}", node.create("offers", r#"{"name": "A", "status": "active"}"#).await);
    let hours = |start: &str, end: &str| json!({"timeWindow": {"start": start, "end": end}});
    // It is Monday, 1 June 2026, 12:00.
    for (schedule, is_open) in [
        (json!({}), true),
        (json!({"startDate": "2026-06-01T12:00:00Z"}), true),
        (json!({"startDate": "2026-06-01T12:00:01Z"}), false),
        (json!({"startDate": "2026-06-01"}), true),
        (json!({"endDate": "2026-06-01T12:00:00Z"}), false),
        (json!({"endDate": "2026-06-01T12:00:59Z"}), true),
        (json!({"endDate": "2026-06-01T11:59:59Z"}), false),
        (json!({"startDate": "2026-03-15T00:00:00Z", "endDate": "2026-06-15T23:59:59Z"}), true),
        (json!({"daysOfWeek": [1, 2, 3, 4, 5]}), true),
        (json!({"daysOfWeek": [0, 6]}), false),
        (hours("08:00", "20:00"), true),
        (hours("12:00", "12:01"), true),
        (hours("08:00", "12:00"), false),
        (hours("20:00", "08:00"), false),
        (json!({"daysOfWeek": [0], "timeWindow": {"start": "20:00", "end": "12:30"}}), true),
        (json!({"daysOfWeek": [1], "timeWindow": {"start": "20:00", "end": "12:30"}}), false),
    ] {
        for path in [&notice, &offer] {
            put(&node, path, json!({"schedule": schedule})).await;
        }
        let expected: &[&str] = if is_open { &["Notice", "A"] } else { &[] };
        assert_eq!(names(&node, json!({})).await, expected, "{schedule}");
    }
}

#[tokio::test]
async fn a_mandatory_offer_stands_above_all_until_it_ends() {
    let node = web().await;
    node.create("offers", r#"{"name": "Card", "status": "active", "priority": 100, "businessValue": 100}"#).await;
    let disclosure = json!({
        "name": "CFPB Rate Disclosure Q2-2027",
        "status": "active",
        "priority": 1,
        "mandatory": true,
        "mandatoryReason": "CFPB regulation 2027-04 requires rate disclosure within 30 days",
        "mandatoryApprovedBy": "jane.smith@acme.com",
        "mandatoryExpiresAt": "2027-04-15T23:59:59Z",
        "eligibility": {"propensityThreshold": 0.9, "requiredSegments": ["nobody"]},
        "schedule": {"startDate": "2027-03-15T00:00:00Z"}
    });
    let id = node.create("offers", &disclosure.to_string()).await;
    let never = json!({"name": "never", "ruleType": "expression", "scope": "offer", "scopeId": id,
        "config": {"expression": "false"}});
    node.create("qualification-rules", &never.to_string()).await;
    let name = "CFPB Rate Disclosure Q2-2027";
    assert_eq!(names(&node, json!({})).await, ["Card"], "it has not begun");
    // To the 20th of March.
    node.clock.advance(292 * DAY);
    let both = decisions(&node, json!({})).await;
    assert_eq!((&both[0]["offerName"], &both[1]["offerName"]), (&json!(name), &json!("Card")));
    assert_eq!((&both[0]["score"], &both[0]["mandatory"], &both[0]["rank"]), (&json!(1), &json!(true), &json!(1)));
    assert_eq!(names(&node, json!({"limit": 1})).await, [name], "it uses up the limit");
    put(&node, "/api/v1/offers", json!({"id": id, "emergencyExcluded": true})).await;
    assert_eq!(names(&node, json!({})).await, ["Card"]);
    put(&node, "/api/v1/offers", json!({"id": id, "emergencyExcluded": false})).await;
    assert_eq!(names(&node, json!({})).await, [name, "Card"]);
    // To the 16th of April: from then on it is an offer like others, and its rule binds it.
    node.clock.advance(27 * DAY);
    assert_eq!(names(&node, json!({})).await, ["Card"]);
}

#[tokio::test]
async fn five_mandatory_offers_a_customer_and_day_unless_the_tenant_says_otherwise() {
    let node = web().await;
    for number in 0..8 {
        let notice = json!({"name": format!("N{number}"), "status": "active", "priority": 90 - number, "mandatory": true,
            "mandatoryReason": "law", "mandatoryApprovedBy": "jane", "mandatoryExpiresAt": "2030-01-01"});
        node.create("offers", &notice.to_string()).await;
    }
    node.create("offers", r#"{"name": "A", "status": "active"}"#).await;
    let first = ["N0", "N1", "N2", "N3", "N4"];
    assert_eq!(names(&node, json!({})).await, [&first[..], &["A"]].concat());
    let others = json!({"excludeOffers": first});
    assert_eq!(names(&node, others.clone()).await, ["A"], "five of them were proposed today");
    put(&node, "/api/v1/settings", json!({"mandatoryPerDay": 6})).await;
    assert_eq!(names(&node, others.clone()).await, ["N5", "A"]);
    node.clock.advance(DAY);
    assert_eq!(names(&node, others).await, ["N5", "N6", "N7", "A"]);
}

#[tokio::test]
async fn an_exclusion_binds_on_every_channel_and_by_every_flow_and_leaves_the_status_alone() {
    let node = web().await;
    node.create("channels", r#"{"name": "email"}"#).await;
    let id = node.create("offers", r#"{"name": "A", "status": "active"}"#).await;
    let nodes = json!([{"id": "inv", "type": "inventory", "phase": 1, "position": 0}]);
    let flow = json!({"key": "bare", "name": "bare", "draftConfig": {"version": 2, "nodes": nodes}});
    let flow = node.create("decision-flows", &flow.to_string()).await;
    node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": flow}).to_string()).await;
    for (excluded, expected) in [(true, &[][..]), (false, &["A"][..])] {
        let written = put(&node, "/api/v1/offers", json!({"id": id, "emergencyExcluded": excluded})).await;
        assert_eq!(written["status"], "active");
        for asked in [json!({}), json!({"channel": "email", "segments": ["vip"]}), json!({"decisionFlowKey": "bare"})] {
            assert_eq!(names(&node, asked.clone()).await, expected, "{asked}");
        }
    }
}

#[tokio::test]
async fn priority_and_business_value_weigh_as_shares_of_100_and_0_eliminates() {
    let node = web().await;
    for (name, priority, value) in [("Frappuccino", 70, 80), ("no priority", 0, 100), ("no value", 100, 0)] {
        let offer = json!({"name": name, "status": "active", "priority": priority, "businessValue": value});
        node.create("offers", &offer.to_string()).await;
    }
    assert_eq!(names(&node, json!({})).await.len(), 3, "the base flow does not multiply them");
    let formula = json!({"impactWeight": 0.5, "emphasisWeight": 0.5});
    let nodes = json!([{"id": "inv", "type": "inventory", "phase": 1, "position": 0},
        {"id": "score", "type": "score", "phase": 2, "position": 1, "config": {"method": "formula", "formula": formula}}]);
    let flow = json!({"key": "prie", "name": "prie", "draftConfig": {"version": 2, "nodes": nodes}});
    let flow = node.create("decision-flows", &flow.to_string()).await;
    node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": flow}).to_string()).await;
    let left = decisions(&node, json!({"decisionFlowKey": "prie", "explain": true})).await;
    assert_eq!((left.len(), &left[0]["offerName"]), (1, &json!("Frappuccino")));
    let factors = &left[0]["explanation"]["rankingScores"];
    assert_eq!((&factors["emphasis"], &factors["impact"]), (&json!(0.7), &json!(0.8)));
    assert_eq!(left[0]["score"], json!(0.748331), "the root of 0.7 · 0.8");
}

#[tokio::test]
async fn a_flow_draws_from_all_offers_those_of_categories_or_a_list() {
    let node = web().await;
    for (name, category, priority) in [("a", "X", 90), ("b", "X", 80), ("c", "Y", 70)] {
        let offer = json!({"name": name, "status": "active", "category": category, "priority": priority});
        node.create("offers", &offer.to_string()).await;
    }
    node.create("offers", r#"{"name": "draft", "category": "X", "priority": 100}"#).await;
    let sub = node.ok("POST", "/api/v1/categories/cat_y/sub-categories", r#"{"name": "Low"}"#).await["id"].clone();
    let low = json!({"name": "d", "status": "active", "category": "Y", "subCategoryId": sub, "priority": 60});
    node.create("offers", &low.to_string()).await;
    for (key, config, expected) in [
        ("all", json!({"scope": "all", "includeStatuses": ["active"]}), &["a", "b", "c", "d"][..]),
        ("category", json!({"scope": "category", "categoryIds": ["cat_x"]}), &["a", "b"]),
        ("sub", json!({"scope": "category", "subCategoryIds": [sub]}), &["d"]),
        ("list", json!({"scope": "manual", "offerIds": ["c", "a"]}), &["a", "c"]),
    ] {
        let nodes = json!([{"id": "inv", "type": "inventory", "phase": 1, "position": 0, "config": config}]);
        let flow = json!({"key": key, "name": key, "draftConfig": {"version": 2, "nodes": nodes}});
        let flow = node.create("decision-flows", &flow.to_string()).await;
        node.ok("POST", "/api/v1/decision-flows/publish", &json!({"id": flow}).to_string()).await;
        assert_eq!(names(&node, json!({"decisionFlowKey": key})).await, expected, "{key}");
    }
}

/// How many of twenty customers get the offer, asked until it is `limit` or patience ends; units may be in other shards at first.
async fn takers(node: &Node, run: &str, limit: usize) -> usize {
    let mut taken = 0;
    for round in 0..200 {
        for customer in 0..20 {
            taken += names(node, json!({"customerId": format!("{run}-{round}-{customer}")})).await.len();
        }
        if taken >= limit {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for customer in 0..20 {
        taken += names(node, json!({"customerId": format!("{run}-last-{customer}")})).await.len();
    }
    taken
}

#[tokio::test]
async fn a_budget_is_sold_to_its_last_unit_and_no_further() {
    let node = web().await;
    let offer = json!({"name": "A", "status": "active", "budget": {"maxImpressions": 30}});
    let offer = format!("/api/v1/offers/{}", node.create("offers", &offer.to_string()).await);
    assert_eq!(takers(&node, "lifetime", 30).await, 30);
    put(&node, &offer, json!({"status": "archived"})).await;
    let daily = json!({"name": "B", "status": "active", "budget": {"maxDailyBudget": 30, "costPerAction": 1.5}});
    node.create("offers", &daily.to_string()).await;
    assert_eq!(takers(&node, "monday", 20).await, 20);
    node.clock.advance(DAY);
    assert_eq!(takers(&node, "tuesday", 20).await, 20);
}
