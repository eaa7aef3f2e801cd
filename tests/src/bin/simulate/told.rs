//! What a run came to, for people and for the process that started it.

use std::fmt::Write;

use proffer_tests::run::Report;
use serde_json::{Value, json};

/// A report as the batch reads it.
pub fn as_json(report: &Report) -> Value {
    let struck: serde_json::Map<String, Value> =
        report.struck.iter().map(|(kind, count)| (format!("{kind:?}"), (*count).into())).collect();
    let tally = report.tally;
    json!({
        "seed": report.seed,
        "hash": format!("{:016x}", report.hash),
        "nodes": report.nodes,
        "shards": report.shards,
        "simulatedMs": report.simulated_ms,
        "struck": struck,
        "ok": tally.ok,
        "failed": tally.failed,
        "unknown": tally.unknown,
        "repeated": tally.repeated,
        "looks": report.looks,
        "sometimes": report.sometimes,
        "violations": report.violations,
    })
}

/// A report for people.
pub fn in_words(report: &Report) -> String {
    let mut words = String::new();
    let tally = report.tally;
    let _ = writeln!(
        words,
        "seed {}: {} nodes, {} shards, {:.1} simulated seconds, trace {:016x} of {} events",
        report.seed,
        report.nodes,
        report.shards,
        report.simulated_ms as f64 / 1e3,
        report.hash,
        report.events,
    );
    let _ = writeln!(words, "faults: {:?}", report.struck);
    let _ = writeln!(
        words,
        "calls: {} answered, {} refused, {} unknown, {} attempts repeated; {} states looked at",
        tally.ok, tally.failed, tally.unknown, tally.repeated, report.looks
    );
    for reached in &report.sometimes {
        let _ = writeln!(words, "reached: {reached}");
    }
    for violation in &report.violations {
        let _ = writeln!(words, "VIOLATION: {violation}");
    }
    if report.violations.is_empty() {
        words.push_str("everything held");
    }
    words
}
