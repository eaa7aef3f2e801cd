//! `proffer import FILE…`: entities and profiles from JSON, NDJSON or CSV.
//!
//! Each file is validated whole by the node (a dry run on a copy of its catalogue) before its first write; a line applies
//! wholly or not at all; a line that names an existing thing updates it, so a rerun is harmless.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::client::{Client, Problem, Target};

/// Arguments of `proffer import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Files, imported in this order: `.json` (a list, or an object kind → list), `.ndjson`/`.jsonl`, `.csv`.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the lines are (categories, offers, creatives, channels, placements, collections, activities,
    /// qualification-rules, contact-policies, schemas, decision-flows, profiles, or rows:SCHEMA). Default: the file's name up to its first dot.
    #[arg(long)]
    kind: Option<String>,
    /// Validate only.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// Lines of one kind, each with its number in the file it came from.
struct Batch {
    kind: String,
    lines: Vec<(usize, Value)>,
}

/// Most bytes sent in one call; below the node's limit for bulk bodies.
const CALL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most faulty lines printed for one file.
const REPORTED_LINES_MAX: usize = 50;

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, the node refuses a line, or cannot be reached. Nothing of a refused file has been written.
pub async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let client = Client::new(args.target)?;
    for file in &args.files {
        let batches = read(file, args.kind.as_deref()).with_context(|| format!("cannot read {}", file.display()))?;
        for batch in &batches {
            submit(&client, file, batch, true).await?;
        }
        if !args.dry_run {
            for batch in &batches {
                submit(&client, file, batch, false).await?;
            }
        }
    }
    Ok(())
}

async fn submit(client: &Client, file: &Path, batch: &Batch, dry_run: bool) -> anyhow::Result<()> {
    let verb = if dry_run { "validating" } else { "writing" };
    let style = ProgressStyle::with_template("{msg:40} {bar:30} {pos}/{len} {per_sec}")?;
    let progress = ProgressBar::new(batch.lines.len() as u64).with_style(style).with_message(format!(
        "{verb} {} from {}",
        batch.kind,
        file.display()
    ));
    let mut refused = Vec::new();
    let mut rest = batch.lines.as_slice();
    while !rest.is_empty() {
        let (body, taken) = ndjson(rest)?;
        let (lines, after) = rest.split_at(taken);
        let path = match batch.kind.strip_prefix("rows:") {
            Some(schema) => format!("/schemas/{schema}/rows?dryRun={dry_run}"),
            None => format!("/import/{}?dryRun={dry_run}", batch.kind),
        };
        let sent = client.send(reqwest::Method::POST, &path, "application/x-ndjson", body, &[]).await;
        match sent {
            Ok(_) => {}
            Err(error) => match error.downcast::<Problem>() {
                Ok(problem) => refused.extend(line_faults(&problem, lines)),
                Err(other) => return Err(other),
            },
        }
        progress.inc(taken as u64);
        rest = after;
    }
    progress.finish_and_clear();
    if refused.is_empty() {
        let done = if dry_run { "valid" } else { "written" };
        eprintln!("{}: {} {} {done}", file.display(), batch.lines.len(), batch.kind);
        return Ok(());
    }
    for fault in refused.iter().take(REPORTED_LINES_MAX) {
        eprintln!("{}:{fault}", file.display());
    }
    if refused.len() > REPORTED_LINES_MAX {
        eprintln!("… and {} more", refused.len() - REPORTED_LINES_MAX);
    }
    bail!("{} faults in {}{}", refused.len(), file.display(), if dry_run { "; nothing of it was written" } else { "" })
}

/// As many lines as fit one call, and how many those are (at least one).
fn ndjson(lines: &[(usize, Value)]) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    for (taken, (_, line)) in lines.iter().enumerate() {
        let bytes = serde_json::to_vec(line)?;
        if taken > 0 && body.len() + bytes.len() + 1 > CALL_BYTES_MAX {
            return Ok((body, taken));
        }
        body.extend_from_slice(&bytes);
        body.push(b'\n');
    }
    Ok((body, lines.len()))
}

/// The faults of a call, told by line of the file; those that name no line are told at the call's first.
fn line_faults(problem: &Problem, lines: &[(usize, Value)]) -> Vec<String> {
    let in_file = |line: usize| lines.get(line.saturating_sub(1)).map_or(0, |(number, _)| *number);
    let by_line = problem.line_faults();
    if by_line.is_empty() {
        let faults = problem.faults();
        let faults = if faults.is_empty() { vec![problem.to_string()] } else { faults };
        return faults.into_iter().map(|fault| format!("{}: {fault}", in_file(1))).collect();
    }
    by_line.into_iter().map(|(line, fault)| format!("{}: {fault}", in_file(line))).collect()
}

fn read(file: &Path, kind: Option<&str>) -> anyhow::Result<Vec<Batch>> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let kind = kind.unwrap_or(stem).to_owned();
    match extension.rsplit('.').next().unwrap_or_default() {
        "csv" => Ok(vec![read_csv(file, kind)?]),
        "ndjson" | "jsonl" => {
            let text = std::fs::read_to_string(file)?;
            let mut lines = Vec::new();
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                lines.push((index + 1, serde_json::from_str(line).with_context(|| format!("line {}", index + 1))?));
            }
            Ok(vec![Batch { kind, lines }])
        }
        "json" => match serde_json::from_slice(&std::fs::read(file)?)? {
            Value::Array(items) => Ok(vec![numbered(kind, items)]),
            Value::Object(kinds) => kinds
                .into_iter()
                .map(|(kind, items)| {
                    let Value::Array(items) = items else { bail!("member {kind:?} must be a list") };
                    Ok(numbered(kind, items))
                })
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                bail!("must be a list, or an object of lists by kind")
            }
        },
        other => bail!("unknown extension {other:?}: use .json, .ndjson, .jsonl or .csv"),
    }
}

fn numbered(kind: String, items: Vec<Value>) -> Batch {
    Batch { kind, lines: items.into_iter().enumerate().map(|(index, item)| (index + 1, item)).collect() }
}

/// A header and rows. Cells that are JSON numbers, booleans, null, lists or objects are read as such, others as text; empty
/// cells are left out. Of profiles, `customerId` and `segments` (split at `|`) are themselves, every other column an attribute.
fn read_csv(file: &Path, kind: String) -> anyhow::Result<Batch> {
    let mut reader = csv::Reader::from_path(file)?;
    let headers = reader.headers()?.clone();
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record?;
        let number = record.position().map_or(0, |position| position.line() as usize);
        let cells = headers.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
        let line = if kind == "profiles" { profile(cells) } else { object(cells) };
        lines.push((number, Value::Object(line)));
    }
    Ok(Batch { kind, lines })
}

fn object<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    cells.map(|(name, cell)| (name.to_owned(), cell_value(cell))).collect()
}

fn profile<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let mut line = Map::new();
    let mut attributes = Map::new();
    for (name, cell) in cells {
        match name {
            "customerId" => {
                line.insert(name.to_owned(), json!(cell));
            }
            "segments" => {
                line.insert(name.to_owned(), json!(cell.split('|').collect::<Vec<_>>()));
            }
            _ => {
                attributes.insert(name.to_owned(), cell_value(cell));
            }
        }
    }
    line.insert("attributes".to_owned(), Value::Object(attributes));
    line
}

fn cell_value(cell: &str) -> Value {
    match serde_json::from_str(cell) {
        Ok(Value::String(_)) | Err(_) => Value::String(cell.to_owned()),
        Ok(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_become_the_json_they_look_like_and_text_otherwise() {
        assert_eq!(cell_value("12.5"), json!(12.5));
        assert_eq!(cell_value("true"), json!(true));
        assert_eq!(cell_value("[\"a\"]"), json!(["a"]));
        assert_eq!(cell_value("0123"), json!("0123"));
        assert_eq!(cell_value("\"quoted\""), json!("\"quoted\""));
    }

    #[test]
    fn columns_of_a_profile_are_attributes_but_for_id_and_segments() {
        let line = profile([("customerId", "c 1"), ("segments", "gold|new"), ("age", "41")].into_iter());
        assert_eq!(
            Value::Object(line),
            json!({"customerId": "c 1", "segments": ["gold", "new"], "attributes": {"age": 41}})
        );
    }

    #[test]
    fn faults_of_a_call_are_told_by_line_of_the_file() {
        let problem = Problem {
            status: reqwest::StatusCode::BAD_REQUEST,
            problem: json!({"lines": [{"line": 2, "errors": [{"pointer": "/name", "detail": "is required"}]}]}),
        };
        let lines = [(10, Value::Null), (12, Value::Null)];
        assert_eq!(line_faults(&problem, &lines), ["12: /name: is required"]);
    }

    #[test]
    fn a_call_takes_at_least_one_line_and_no_more_than_fit() {
        let long = Value::String("x".repeat(CALL_BYTES_MAX));
        let lines = [(1, long.clone()), (2, long)];
        assert_eq!(ndjson(&lines).unwrap().1, 1);
        let short = [(1, json!(1)), (2, json!(2))];
        assert_eq!(ndjson(&short).unwrap(), (b"1\n2\n".to_vec(), 2));
    }
}
