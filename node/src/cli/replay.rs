//! `proffer replay`: decides again what a trace holds, and says whether it comes to the same.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::client::{Client, Target};

/// Arguments of `proffer replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// A file that holds a trace, or an answer with one; `-` for standard input; or the id of a trace that the node keeps.
    trace: String,
    #[command(flatten)]
    target: Target,
}

/// The trace in a text: itself, or in an answer's `meta.trace.record`, or in what `GET /traces/{id}` says.
fn trace_in(text: &str) -> Option<String> {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return Some(text.trim().to_owned()) };
    let found = value.pointer("/meta/trace/record").or_else(|| value.get("trace")).unwrap_or(&value);
    found.as_str().map(str::to_owned)
}

/// Runs the command.
///
/// # Errors
/// When there is no such trace, the node refuses or cannot be reached, or the decision comes to something else.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let client = Client::new(args.target.clone())?;
    let path = PathBuf::from(&args.trace);
    let trace = if args.trace == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        trace_in(&text)
    } else if path.exists() {
        trace_in(&std::fs::read_to_string(&path).with_context(|| args.trace.clone())?)
    } else {
        let kept = client.get(&format!("/traces/{}", args.trace)).await?;
        kept["trace"].as_str().map(str::to_owned)
    };
    let Some(trace) = trace else { bail!("{} holds no trace", args.trace) };
    let answer = client.post("/replay", &json!({"trace": trace})).await?;
    let text = |member: &str| answer[member].as_str().unwrap_or("?").to_owned();
    let mut out = std::io::stdout().lock();
    writeln!(out, "customer  {}", text("customerId"))?;
    writeln!(out, "decided   {} under revision {}", text("decidedAt"), answer["revision"])?;
    writeln!(out, "recorded  {}", text("recorded"))?;
    writeln!(out, "replayed  {}", text("replayed"))?;
    if answer["same"] == json!(true) {
        writeln!(out, "the same bytes")?;
        return Ok(());
    }
    let at = &answer["difference"];
    let part = |member: &str| at[member].as_str().unwrap_or("?").to_owned();
    bail!("differs at {}: recorded {}, replayed {}", part("path"), part("recorded"), part("replayed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_found_in_an_answer_in_a_listing_and_alone() {
        for text in ["abc\n", r#""abc""#, r#"{"trace": "abc"}"#, r#"{"meta": {"trace": {"record": "abc"}}}"#] {
            assert_eq!(trace_in(text).as_deref(), Some("abc"), "{text}");
        }
        assert_eq!(trace_in(r#"{"meta": {"trace": {"record": null}}}"#), None);
    }
}
