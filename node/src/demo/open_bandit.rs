//! Open Bandit, men's campaign: 34 real items as offers, 10,000 logged visits replayed over HTTP (data and licence:
//! `node/data/open-bandit-men`).
//!
//! The log says which item *another* policy showed; we decide for ourselves and record an impression of what we proposed at
//! the logged position, and the logged click only where our proposition is the logged item. So the number of matches is
//! all that can be read off; a click rate would be none of ours.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{create, load_profiles, respond};
use crate::client::Client;

const ITEMS: &str = include_str!("../../data/open-bandit-men/items.csv");
const ROWS: &str = include_str!("../../data/open-bandit-men/random.csv");

/// The flow, with the name requests give it.
const FLOW: &str = "open-bandit";
/// The three positions of the page.
const POSITIONS: [&str; 3] = ["left", "center", "right"];
/// Impressions of one item one visitor may have in a day.
pub const DAILY_CAP: usize = 20;
/// Visits that share one customer: users are only known by hashed features, so their visits are split into so many a customer.
const VISITS_PER_CUSTOMER: usize = 50;

/// One logged visit.
#[derive(Debug)]
struct Visit {
    customer: String,
    features: [String; 4],
    item: String,
    position: usize,
    clicked: bool,
}

/// What a replay counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Rows replayed.
    pub rows: usize,
    /// Rows whose item we proposed at its position.
    pub matches: usize,
    /// Clicks recorded for those.
    pub clicks: usize,
    /// Propositions answered.
    pub propositions: usize,
}

fn visits() -> anyhow::Result<Vec<Visit>> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut visits = Vec::new();
    for record in csv::Reader::from_reader(ROWS.as_bytes()).records() {
        let record = record?;
        let features = [4, 5, 6, 7].map(|column| record[column].to_owned());
        let user = features.concat();
        let nth = seen.entry(user.clone()).or_default();
        visits.push(Visit {
            customer: format!("{user}-{}", *nth / VISITS_PER_CUSTOMER),
            features,
            item: record[0].to_owned(),
            position: record[1].parse::<usize>()?.checked_sub(1).context("positions count from 1")?,
            clicked: &record[2] == "1",
        });
        *nth += 1;
    }
    Ok(visits)
}

/// Loads catalogue and profiles.
///
/// # Errors
/// When the node refuses anything.
pub async fn load(client: &Client) -> anyhow::Result<()> {
    let channel = create(client, "channels", json!({"name": "web", "channelType": "web"})).await?;
    let mut placements = Vec::new();
    for position in POSITIONS {
        placements.push(create(client, "placements", json!({"name": position, "channelId": channel})).await?);
    }
    let category = create(
        client,
        "categories",
        json!({"name": "Men's fashion", "customFields": [
            {"name": "feature_0", "type": "number"}, {"name": "feature_1", "type": "text"},
            {"name": "feature_2", "type": "text"}, {"name": "feature_3", "type": "text"}]}),
    )
    .await?;
    for record in csv::Reader::from_reader(ITEMS.as_bytes()).records() {
        let record = record?;
        let item = &record[0];
        let offer = create(
            client,
            "offers",
            json!({
                "name": format!("item {item}"), "status": "active", "categoryId": category,
                "tags": [format!("style-{}", &record[3])],
                "customFields": {"feature_0": record[1].parse::<f64>()?, "feature_1": &record[2], "feature_2": &record[3], "feature_3": &record[4]},
                "caps": [
                    {"scope": "profile", "limit": DAILY_CAP, "per": "day", "countOn": "impression", "reservationSeconds": 60},
                    {"scope": "global", "limit": 100_000, "per": "lifetime", "countOn": "impression", "reservationSeconds": 60}],
            }),
        )
        .await?;
        for (placement, position) in placements.iter().zip(POSITIONS) {
            create(
                client,
                "creatives",
                json!({
                    "name": format!("item {item}, {position}"), "status": "active", "offerId": offer,
                    "channelId": channel, "placementId": placement, "contentType": "image",
                    "content": {"image": format!("/items/{item}/{position}.jpg")},
                }),
            )
            .await?;
        }
    }
    let flow = create(client, "decision-flows", json!({"key": FLOW, "name": "Open Bandit", "draftConfig": {
        "version": 2,
        "nodes": [
            {"id": "inventory", "type": "inventory", "phase": 1, "position": 0, "config": {"scope": "all"}},
            {"id": "creatives", "type": "match_creatives", "phase": 1, "position": 1, "config": {"requireCreative": true, "placementMatchMode": "exact"}},
            {"id": "score", "type": "score", "phase": 2, "position": 2, "config": {"method": "formula", "relevance": {"freshness": 1},
                "formula": {"propensityWeight": 0.5, "relevanceWeight": 0.5}}},
            {"id": "rank", "type": "rank", "phase": 2, "position": 3, "config": {"method": "topN", "maxCandidates": 3}},
            {"id": "out", "type": "response", "phase": 3, "position": 4, "config": {"responseFormat": "standard"}}]}}))
    .await?;
    client.post("/decision-flows/publish", &json!({"id": flow})).await?;

    let profiles: BTreeMap<String, Value> = visits()?
        .into_iter()
        .map(|visit| {
            let attributes: BTreeMap<String, String> =
                visit.features.into_iter().enumerate().map(|(index, feature)| (format!("f{index}"), feature)).collect();
            (visit.customer.clone(), json!({"customerId": visit.customer, "attributes": attributes}))
        })
        .collect();
    load_profiles(client, &profiles.into_values().collect::<Vec<_>>()).await
}

/// The body that asks for all three positions.
pub fn request(customer: &str) -> Value {
    json!({"customerId": customer, "channel": "web", "decisionFlowKey": FLOW, "placements": POSITIONS})
}

/// A customer of the log, for a first look.
///
/// # Errors
/// When the embedded data cannot be read.
pub fn first_customer() -> anyhow::Result<String> {
    Ok(visits()?.into_iter().next().context("the log has rows")?.customer)
}

/// Replays the first `rows` visits of the log.
///
/// # Errors
/// When the node refuses a call, proposes one item twice in an answer, or more often than its cap allows.
pub async fn replay(client: &Client, rows: usize, mut progress: impl FnMut(usize)) -> anyhow::Result<Replayed> {
    let mut replayed = Replayed::default();
    let mut shown: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (index, visit) in visits()?.into_iter().take(rows).enumerate() {
        let answer = client.post("/recommend", &request(&visit.customer)).await?;
        let decisions = answer["decisions"].as_array().context("an answer has decisions")?;
        let offers: BTreeSet<&str> = decisions.iter().filter_map(|decision| decision["offerId"].as_str()).collect();
        ensure!(offers.len() == decisions.len(), "row {index}: an offer twice in one answer: {answer}");
        replayed.propositions += decisions.len();
        let here = decisions.iter().find(|decision| decision["placement"] == POSITIONS[visit.position]);
        if let Some(decision) = here {
            let name = decision["offerName"].as_str().unwrap_or_default().to_owned();
            respond(client, &answer, &decision["rank"], "impression", &format!("row-{index}-seen")).await?;
            let times = shown.entry((visit.customer.clone(), name.clone())).or_default();
            *times += 1;
            ensure!(*times <= DAILY_CAP, "row {index}: {name} shown {times} times to {}", visit.customer);
            if name == format!("item {}", visit.item) {
                replayed.matches += 1;
                if visit.clicked {
                    respond(client, &answer, &decision["rank"], "click", &format!("row-{index}-click")).await?;
                    replayed.clicks += 1;
                }
            }
        }
        replayed.rows += 1;
        progress(replayed.rows);
    }
    Ok(replayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_its_ten_thousand_rows_at_three_positions() {
        let visits = visits().unwrap();
        assert_eq!(visits.len(), 10_000);
        assert!(visits.iter().all(|visit| visit.position < 3 && visit.features.iter().all(|hash| hash.len() == 8)));
        assert_eq!(visits.iter().map(|visit| &visit.item).collect::<BTreeSet<_>>().len(), 34);
    }
}
