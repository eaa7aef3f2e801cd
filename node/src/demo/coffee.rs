//! A coffee-house rewards programme: ten offers on four channels, rules over income, age and membership, and members made by
//! a seeded generator shaped like the teaching data sets of such programmes (a share of unknown ages, income in thousands).

use anyhow::Context;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{create, load_profiles, patiently};
use crate::client::Client;

/// Members that `proffer demo` loads.
pub const DEMO_MEMBERS: usize = 1_000;
/// Age that programmes of this kind record for "not told".
const AGE_UNKNOWN: u64 = 118;

struct Sample {
    name: &'static str,
    product_type: &'static str,
    channels: &'static [&'static str],
    reward: u32,
    difficulty: u32,
    days: u32,
    priority: u32,
    business_value: u32,
}

const CHANNELS: [&str; 4] = ["web", "email", "mobile", "social"];

#[rustfmt::skip]
const OFFERS: [Sample; 10] = [
    Sample { name: "Double espresso, second one free", product_type: "bogo", channels: &["email", "mobile", "social"], reward: 9, difficulty: 9, days: 7, priority: 70, business_value: 80 },
    Sample { name: "Weekend brunch for two", product_type: "bogo", channels: &CHANNELS, reward: 12, difficulty: 12, days: 5, priority: 75, business_value: 85 },
    Sample { name: "Cold brew, buy one get one", product_type: "bogo", channels: &["web", "email", "mobile"], reward: 5, difficulty: 5, days: 7, priority: 60, business_value: 60 },
    Sample { name: "Afternoon tea, buy one get one", product_type: "bogo", channels: &CHANNELS, reward: 5, difficulty: 5, days: 5, priority: 55, business_value: 60 },
    Sample { name: "5 off a bag of beans", product_type: "discount", channels: &["web", "email"], reward: 5, difficulty: 20, days: 10, priority: 65, business_value: 75 },
    Sample { name: "3 off breakfast", product_type: "discount", channels: &CHANNELS, reward: 3, difficulty: 7, days: 7, priority: 60, business_value: 55 },
    Sample { name: "2 off lunch", product_type: "discount", channels: &CHANNELS, reward: 2, difficulty: 10, days: 10, priority: 55, business_value: 50 },
    Sample { name: "2 off pastries", product_type: "discount", channels: &["web", "email", "mobile"], reward: 2, difficulty: 8, days: 7, priority: 50, business_value: 45 },
    Sample { name: "New: single-origin flight", product_type: "informational", channels: &["web", "email", "mobile"], reward: 0, difficulty: 0, days: 4, priority: 35, business_value: 25 },
    Sample { name: "New shop in your quarter", product_type: "informational", channels: &["email", "mobile", "social"], reward: 0, difficulty: 0, days: 3, priority: 30, business_value: 20 },
];

/// One draw of a stream: a function of (seed, member, purpose), never of the order of draws.
fn draw(seed: u64, member: usize, purpose: &str) -> u64 {
    xxh3_64_with_seed(format!("{purpose} {member}").as_bytes(), seed)
}

/// Member `number` as a profile: one in eight has told neither age nor income.
pub fn member(seed: u64, number: usize) -> Value {
    let told = !draw(seed, number, "told").is_multiple_of(8);
    let age = 18 + (draw(seed, number, "age a") % 42) + (draw(seed, number, "age b") % 42);
    let income = 30_000 + (draw(seed, number, "income a") % 46) * 1_000 + (draw(seed, number, "income b") % 46) * 1_000;
    let gender = ["F", "M", "M", "F", "O"][(draw(seed, number, "gender") % 5) as usize];
    let year = 2013 + draw(seed, number, "year") % 6;
    let (month, day) = (1 + draw(seed, number, "month") % 12, 1 + draw(seed, number, "day") % 28);
    json!({
        "customerId": format!("member-{number}"),
        "attributes": {
            "age": if told { age } else { AGE_UNKNOWN },
            "income": if told { json!(income) } else { Value::Null },
            "gender": if told { json!(gender) } else { Value::Null },
            "memberSince": format!("{year}-{month:02}-{day:02}"),
            "membershipYears": 2019 - year,
        },
        "segments": if draw(seed, number, "gold").is_multiple_of(5) { json!(["gold"]) } else { json!([]) },
    })
}

/// A member as the teaching data set of such programmes records one: a line with id, age, gender, income, became_member_on.
///
/// # Errors
/// When the line is not such an object.
pub fn recorded_member(line: &str) -> anyhow::Result<Value> {
    let member: Value = serde_json::from_str(line)?;
    let since = member["became_member_on"].as_str().context("became_member_on must be text like 20170715")?;
    let since =
        jiff::civil::Date::strptime("%Y%m%d", since).context("became_member_on must be a date like 20170715")?;
    member["id"].as_str().filter(|id| !id.is_empty()).context("id must be text that is not empty")?;
    Ok(json!({
        "customerId": member["id"],
        "attributes": {"age": member["age"], "income": member["income"], "gender": member["gender"],
                       "memberSince": since.to_string(), "membershipYears": 2019 - since.year()},
    }))
}

/// Loads catalogue and members.
///
/// # Errors
/// When the node refuses anything.
pub async fn load(client: &Client, members: &[Value]) -> anyhow::Result<()> {
    let mut channels = Vec::new();
    for name in CHANNELS {
        channels.push((name, create(client, "channels", json!({"name": name, "channelType": name})).await?));
    }
    let category = create(
        client,
        "categories",
        json!({"name": "Rewards", "customFields": [
            {"name": "reward", "type": "number", "required": true}, {"name": "difficulty", "type": "number", "required": true},
            {"name": "headline", "type": "computed", "outputType": "text",
             "formula": "reward > 0 ? concat(\"Spend \", difficulty, \", get \", reward) : \"Just so you know\""}]}),
    )
    .await?;
    let mut offers = Vec::new();
    for sample in &OFFERS {
        let offer = create(
            client,
            "offers",
            json!({
                "name": sample.name, "status": "active", "categoryId": category, "productType": sample.product_type,
                "priority": sample.priority, "businessValue": sample.business_value, "revenueValue": sample.difficulty,
                "tags": [sample.product_type], "customFields": {"reward": sample.reward, "difficulty": sample.difficulty},
                "caps": [{"scope": "profile", "limit": 2, "per": {"hours": sample.days * 24}}],
                "budget": {"maxImpressions": 5_000},
            }),
        )
        .await?;
        for (channel, id) in channels.iter().filter(|(channel, _)| sample.channels.contains(channel)) {
            create(
                client,
                "creatives",
                json!({"name": format!("{} on {channel}", sample.name), "status": "active", "offerId": offer, "channelId": id,
                       "contentType": "text", "content": {"title": sample.name, "text": "{{headline}}"}, "personalization": ["headline"]}),
            )
            .await?;
        }
        offers.push(offer);
    }
    let rules = [
        (
            "Beans need an income above 50,000",
            "offer",
            Some(&offers[4]),
            json!({"attribute": "income", "operator": "gte", "value": 50_000}),
        ),
        (
            "Brunch is for those who told their age",
            "offer",
            Some(&offers[1]),
            json!({"attribute": "age", "operator": "lt", "value": AGE_UNKNOWN}),
        ),
        (
            "Brunch needs two years of membership",
            "offer",
            Some(&offers[1]),
            json!({"attribute": "membershipYears", "operator": "gte", "value": 2}),
        ),
        (
            "Espresso deal up to 60 years",
            "offer",
            Some(&offers[0]),
            json!({"attribute": "age", "operator": "between", "value": [18, 60]}),
        ),
    ];
    for (name, scope, target, config) in rules {
        let body = json!({"name": name, "ruleType": "attribute_condition", "scope": scope, "scopeId": target, "stage": "eligibility", "config": config});
        create(client, "qualification-rules", body).await?;
    }
    create(
        client,
        "qualification-rules",
        json!({"name": "Gold members see discounts first", "ruleType": "expression", "scope": "segment", "scopeId": "gold",
               "stage": "ranking", "config": {"expression": "offer.productType == 'discount'", "boost": 1.2}}),
    )
    .await?;
    create(
        client,
        "contact-policies",
        json!({"name": "Three contacts a day", "ruleType": "customer_total_cap", "scope": "global",
               "config": {"maxTotal": 3, "periodType": "daily"}}),
    )
    .await?;
    let flow = create(client, "decision-flows", json!({"key": "rewards", "name": "Rewards", "draftConfig": {
        "version": 2,
        "nodes": [
            {"id": "inventory", "type": "inventory", "phase": 1, "position": 0, "config": {"scope": "all"}},
            {"id": "creatives", "type": "match_creatives", "phase": 1, "position": 1, "config": {"requireCreative": true}},
            {"id": "qualify", "type": "qualify", "phase": 1, "position": 2, "config": {"mode": "all"}},
            {"id": "contact", "type": "contact_policy", "phase": 1, "position": 3, "config": {"mode": "all"}},
            {"id": "score", "type": "score", "phase": 2, "position": 4, "config": {"method": "formula", "formula": {
                "propensityWeight": 0.4, "relevanceWeight": 0.15, "impactWeight": 0.35, "emphasisWeight": 0.1}}},
            {"id": "rank", "type": "rank", "phase": 2, "position": 5, "config": {"method": "topN", "maxCandidates": 3}},
            {"id": "compute", "type": "compute", "phase": 3, "position": 6, "config": {}},
            {"id": "out", "type": "response", "phase": 3, "position": 7, "config": {"responseFormat": "standard"}}]}}))
    .await?;
    patiently(async || client.post("/decision-flows/publish", &json!({"id": flow})).await).await?;
    load_profiles(client, members).await
}

/// The body that asks for the best offers on `channel`.
pub fn request(customer: &str, channel: &str) -> Value {
    json!({"customerId": customer, "channel": channel, "decisionFlowKey": "rewards"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_the_same_for_the_same_seed_and_differ_for_another() {
        assert_eq!(member(1, 7), member(1, 7));
        assert!((0..20).any(|number| member(1, number) != member(2, number)));
    }

    #[test]
    fn recorded_members_become_profiles() {
        let line = r#"{"gender": "F", "age": 55, "id": "m1", "became_member_on": "20170715", "income": 112000}"#;
        let member = recorded_member(line).unwrap();
        assert_eq!(member["attributes"]["memberSince"], "2017-07-15");
        assert_eq!((&member["customerId"], &member["attributes"]["membershipYears"]), (&json!("m1"), &json!(2)));
        assert!(recorded_member("{}").is_err());
    }

    #[test]
    fn about_one_member_in_eight_has_told_nothing() {
        let silent = (0..8_000).filter(|number| member(3, *number)["attributes"]["income"].is_null()).count();
        assert!((850..1_150).contains(&silent), "{silent}");
    }
}
