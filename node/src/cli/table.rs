//! Answers as tables for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::client::Client;

/// An empty table.
pub fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

/// A value as a cell shows it: text without quotes, null as nothing.
pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None if value.is_null() => String::new(),
        None => value.to_string(),
    }
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |number| format!("{number:.3}"))
}

/// Most removed offers whose names are looked up for a table.
const NAMES_MAX: usize = 100;

/// A decision with its explanation: one row per proposition, the funnel, and why other offers are absent. Asks the node for
/// the names of those, which an answer gives by id only; a name that cannot be had is left as its id.
pub async fn decision(client: &Client, answer: &Value) -> String {
    let mut names = BTreeMap::new();
    for id in removed(answer).filter_map(|entry| entry["offerId"].as_str()).take(NAMES_MAX) {
        if let Ok(offer) = client.get(&format!("/offers/{id}")).await {
            names.insert(id.to_owned(), text(&offer["name"]));
        }
    }
    render(answer, &names)
}

fn removed(answer: &Value) -> impl Iterator<Item = &Value> {
    answer["explanation"]["removed"].as_array().into_iter().flatten()
}

fn render(answer: &Value, names: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut table =
        new_table(&["#", "offer", "placement", "score", "P", "R", "I", "E", "match", "fatigue", "boost", "how"]);
    for decision in answer["decisions"].as_array().into_iter().flatten() {
        let factors = &decision["explanation"]["rankingScores"];
        let how = match (decision["mandatory"].as_bool(), decision["fallback"].as_bool()) {
            (Some(true), _) => "mandatory",
            (_, Some(true)) => "fallback",
            _ => "ranked",
        };
        table.add_row([
            text(&decision["rank"]),
            text(&decision["offerName"]),
            text(&decision["placement"]),
            number(&decision["score"]),
            number(&factors["propensity"]),
            number(&factors["relevance"]),
            number(&factors["impact"]),
            number(&factors["emphasis"]),
            number(&factors["match"]),
            number(&factors["fatigue"]),
            number(&factors["boost"]),
            how.to_owned(),
        ]);
    }
    let meta = &answer["meta"];
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{} · flow {} v{} · {} candidates → {} qualified → {} not suppressed → {} within contact policy → {} proposed",
        text(&answer["customerId"]),
        answer["decisionFlowKey"].as_str().unwrap_or("base"),
        text(&answer["decisionFlowVersion"]),
        text(&meta["totalCandidates"]),
        text(&meta["afterQualification"]),
        text(&meta["afterSuppression"]),
        text(&meta["afterContactPolicy"]),
        text(&answer["count"]),
    );
    let _ = writeln!(out, "{table}");
    if removed(answer).next().is_some() {
        let mut table = new_table(&["not proposed", "removed at", "detail", "rule or policy"]);
        for entry in removed(answer) {
            let id = text(&entry["offerId"]);
            let name = names.get(&id).cloned().unwrap_or(id);
            table.add_row([name, text(&entry["stage"]), text(&entry["detail"]), text(&entry["ruleId"])]);
        }
        let _ = writeln!(out, "{table}");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removed_offers_are_named_where_a_name_is_known_and_by_id_otherwise() {
        let answer = json!({"customerId": "ann", "decisions": [], "meta": {}, "explanation": {"removed": [
            {"offerId": "offer_1", "stage": "qualification", "ruleId": "rule_1", "detail": "adults"},
            {"offerId": "offer_2", "stage": "rank"}]}});
        let said = render(&answer, &BTreeMap::from([("offer_1".to_owned(), "Free delivery".to_owned())]));
        assert!(said.contains("Free delivery") && said.contains("adults") && said.contains("offer_2"), "{said}");
        assert!(!said.contains("offer_1"), "{said}");
    }
}
