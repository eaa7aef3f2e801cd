//! Answers as tables for people.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    table
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |number| format!("{number:.3}"))
}

/// A decision with its explanation: one row per proposition, the funnel, and why other offers are absent.
pub fn decision(answer: &Value) -> String {
    let mut out = String::new();
    let mut table = new_table(&["#", "offer", "placement", "score", "P", "R", "I", "E", "match", "fatigue", "boost", "how"]);
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
        match &answer["decisionFlowKey"] {
            Value::String(key) => key,
            _ => "base",
        },
        text(&answer["decisionFlowVersion"]),
        text(&meta["totalCandidates"]),
        text(&meta["afterQualification"]),
        text(&meta["afterSuppression"]),
        text(&meta["afterContactPolicy"]),
        text(&answer["count"]),
    );
    let _ = writeln!(out, "{table}");
    if let Some(removed) = answer["explanation"]["removed"].as_array().filter(|removed| !removed.is_empty()) {
        let mut table = new_table(&["not proposed", "removed at", "by", "detail"]);
        for entry in removed {
            let name = if entry["offerName"].is_string() { &entry["offerName"] } else { &entry["offerId"] };
            table.add_row([text(name), text(&entry["stage"]), text(&entry["ruleId"]), text(&entry["detail"])]);
        }
        let _ = writeln!(out, "{table}");
    }
    out
}
