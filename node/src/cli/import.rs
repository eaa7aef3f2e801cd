//! `proffer import FILE…`: entities, profiles and rows from JSON, NDJSON or CSV.
//!
//! Each file is validated whole by the node (a dry run on a copy of its catalogue) before its first write; a line applies
//! wholly or not at all; a line that names an existing thing updates it, so a rerun is harmless. Kinds of one file may refer to
//! each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::lines::{self, Batch, Lines};
use crate::client::{Client, LineFault, Problem, Target};

/// Arguments of `proffer import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Files, imported in this order: `.json` (a list, or an object kind → list), `.ndjson`/`.jsonl`, `.csv` (a header and rows; of
    /// profiles, `segments` are separated by `|`, every column but that and `customerId` is an attribute; a cell that is a JSON
    /// number, boolean, null, list or object is read as such, and a number that would lose digits is refused).
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the lines are (categories, offers, creatives, channels, placements, collections, activities,
    /// qualification-rules, contact-policies, guardrails, behavioral-metrics, algorithm-models, schemas, decision-flows, profiles, or rows:SCHEMA). Default: the file's name up to its first dot.
    #[arg(long)]
    kind: Option<String>,
    /// Validate only.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

/// Most bytes written in one call: small enough to show progress and to be done in time.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes validated in one call; below the node's limit for bulk bodies.
const VALIDATE_BYTES_MAX: usize = 30 * 1024 * 1024;
/// Most faulty lines printed for one file.
const REPORTED_LINES_MAX: usize = 50;

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, the node refuses a line, or cannot be reached. Nothing of a refused file has been written, unless
/// somebody else changed the catalogue between validation and write.
pub async fn run(args: ImportArgs) -> anyhow::Result<()> {
    let client = Client::new(args.target)?;
    for file in &args.files {
        let texts = text_columns(&client, args.kind.as_deref()).await?;
        let read = lines::read(file, args.kind.as_deref(), &texts);
        let Lines { mut batches, bad } = read.with_context(|| format!("cannot read {}", file.display()))?;
        batches.sort_by_key(|batch| place(&batch.kind));
        let batches = Batches { client: &client, file, batches, bad };
        batches.validate().await?;
        if !args.dry_run {
            batches.write().await?;
        }
    }
    Ok(())
}

/// The columns of `rows:SCHEMA` that hold text: of these a CSV cell is never anything else, whatever it looks like.
async fn text_columns(client: &Client, kind: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let Some(schema) = kind.and_then(|kind| kind.strip_prefix("rows:")) else { return Ok(BTreeSet::new()) };
    let schemas = client.get("/schemas?limit=1000").await?;
    let is_meant = |known: &&Value| known["id"] == schema || known["name"] == schema;
    let found = schemas["items"].as_array().into_iter().flatten().find(is_meant);
    let fields = found.and_then(|schema| schema["fields"].as_array()).into_iter().flatten();
    let texts =
        fields.filter(|field| ["varchar", "text", "date", "timestamp"].iter().any(|kind| field["dataType"] == *kind));
    Ok(texts.filter_map(|field| field["name"].as_str()).map(str::to_owned).collect())
}

/// One file's lines on their way.
struct Batches<'a> {
    client: &'a Client,
    file: &'a Path,
    batches: Vec<Batch>,
    /// Lines that cannot be read.
    bad: Vec<String>,
}

impl Batches<'_> {
    /// Asks the node what it would say: all kinds in one call, so that they may refer to each other and nothing appears twice.
    /// What does not fit one call with the rest is what refers to nothing but schemas: profiles and rows, chunk by chunk.
    async fn validate(&self) -> anyhow::Result<()> {
        let size = |batch: &Batch| batch.lines.iter().map(|(_, line)| line.to_string().len() + 1).sum::<usize>();
        let fits = self.batches.iter().map(size).sum::<usize>() <= VALIDATE_BYTES_MAX;
        let (together, apart): (Vec<&Batch>, Vec<&Batch>) =
            self.batches.iter().partition(|batch| fits || !is_of_customers(&batch.kind));
        let mut refused = self.bad.clone();
        if !together.is_empty() {
            let items = |batch: &&Batch| batch.lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>();
            let body: BTreeMap<&str, Vec<Value>> =
                together.iter().map(|batch| (batch.kind.as_str(), items(batch))).collect();
            let sent = self.client.post("/import?dryRun=true", &serde_json::to_value(body)?).await;
            let lines = together.iter().map(|batch| (batch.kind.as_str(), batch.lines.as_slice())).collect();
            refused.extend(faults_of(sent, &lines)?);
        }
        for batch in apart {
            refused.extend(self.send(batch, true).await?);
        }
        refused.sort_by_key(|fault| fault.split(':').next().and_then(|line| line.parse::<usize>().ok()));
        self.report(&refused, "; nothing of it was written")?;
        for batch in &self.batches {
            eprintln!("{}: {} {} valid", self.file.display(), batch.lines.len(), batch.kind);
        }
        Ok(())
    }

    async fn write(&self) -> anyhow::Result<()> {
        for batch in &self.batches {
            let refused = self.send(batch, false).await?;
            self.report(&refused, "; what was written before stays")?;
            eprintln!("{}: {} {} written", self.file.display(), batch.lines.len(), batch.kind);
        }
        Ok(())
    }

    /// Sends a batch in calls of bounded size; the faults the node found.
    async fn send(&self, batch: &Batch, dry_run: bool) -> anyhow::Result<Vec<String>> {
        let verb = if dry_run { "validating" } else { "writing" };
        let style = ProgressStyle::with_template("{msg:40} {bar:30} {pos}/{len} {per_sec}")?;
        let progress = ProgressBar::new(batch.lines.len() as u64).with_style(style).with_message(format!(
            "{verb} {} from {}",
            batch.kind,
            self.file.display()
        ));
        let path = match batch.kind.strip_prefix("rows:") {
            Some(schema) => format!("/schemas/{}/rows?dryRun={dry_run}", segment(schema)),
            None => format!("/import/{}?dryRun={dry_run}", segment(&batch.kind)),
        };
        let mut refused = Vec::new();
        let mut rest = batch.lines.as_slice();
        while !rest.is_empty() {
            let (body, taken) = ndjson(rest)?;
            let (lines, after) = rest.split_at(taken);
            let sent = self.client.send(reqwest::Method::POST, &path, "application/x-ndjson", body, &[]).await;
            refused.extend(faults_of(sent, &BTreeMap::from([(batch.kind.as_str(), lines)]))?);
            progress.inc(taken as u64);
            rest = after;
        }
        progress.finish_and_clear();
        Ok(refused)
    }

    /// Prints the faults and ends the import if there are any.
    fn report(&self, refused: &[String], consequence: &str) -> anyhow::Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        for fault in refused.iter().take(REPORTED_LINES_MAX) {
            eprintln!("{}:{fault}", self.file.display());
        }
        if refused.len() > REPORTED_LINES_MAX {
            eprintln!("… and {} more", refused.len() - REPORTED_LINES_MAX);
        }
        bail!("{} faults in {}{consequence}", refused.len(), self.file.display())
    }
}

/// Whether lines of this kind say something of customers, not of the catalogue.
fn is_of_customers(kind: &str) -> bool {
    kind == "profiles" || kind.starts_with("rows:")
}

/// Place of a kind in the order of writing: each after those that it may refer to. Unknown ones are for the node to refuse.
fn place(kind: &str) -> usize {
    const REFERRED_FIRST: [&str; 16] = [
        "channels",
        "placements",
        "behavioral-metrics",
        "algorithm-models",
        "categories",
        "sub-categories",
        "schemas",
        "offers",
        "creatives",
        "collections",
        "qualification-rules",
        "contact-policies",
        "guardrails",
        "decision-flows",
        "activities",
        "profiles",
    ];
    REFERRED_FIRST.iter().position(|known| *known == kind).unwrap_or(REFERRED_FIRST.len())
}

/// `text` as one segment of a path.
fn segment(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// As many lines as fit one call, and how many those are (at least one).
fn ndjson(lines: &[(usize, Value)]) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    for (taken, (_, line)) in lines.iter().enumerate() {
        let bytes = serde_json::to_vec(line)?;
        if taken > 0 && body.len() + bytes.len() + 1 > WRITE_BYTES_MAX {
            return Ok((body, taken));
        }
        body.extend_from_slice(&bytes);
        body.push(b'\n');
    }
    Ok((body, lines.len()))
}

/// The faults of a call, told by line of the file. `lines` are those sent, by kind.
///
/// # Errors
/// What is no answer of the node.
fn faults_of(sent: anyhow::Result<Value>, lines: &BTreeMap<&str, &[(usize, Value)]>) -> anyhow::Result<Vec<String>> {
    let Err(error) = sent else { return Ok(Vec::new()) };
    let problem: Problem = error.downcast()?;
    let by_line = problem.line_faults();
    if by_line.is_empty() {
        let faults = problem.faults();
        let faults = if faults.is_empty() { vec![problem.to_string()] } else { faults };
        return Ok(faults.into_iter().map(|fault| format!(" {fault}")).collect());
    }
    let told = by_line.into_iter().map(|LineFault { kind, line, fault }| {
        let of_kind = kind.as_deref().or(lines.keys().next().copied()).and_then(|kind| lines.get(kind));
        let number = of_kind.and_then(|lines| lines.get(line.saturating_sub(1))).map_or(line, |(number, _)| *number);
        match kind.filter(|_| lines.len() > 1) {
            Some(kind) => format!("{kind}/{number}: {fault}"),
            None => format!("{number}: {fault}"),
        }
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(problem: Value) -> anyhow::Result<Value> {
        Err(Problem { status: reqwest::StatusCode::BAD_REQUEST, problem }.into())
    }

    #[test]
    fn faults_of_a_call_are_told_by_line_of_the_file() {
        let errors = json!([{"pointer": "/name", "detail": "is required"}]);
        let lines = [(10, Value::Null), (12, Value::Null)];
        let one = BTreeMap::from([("offers", lines.as_slice())]);
        let sent = refused(json!({"lines": [{"line": 2, "errors": errors}]}));
        assert_eq!(faults_of(sent, &one).unwrap(), ["12: /name: is required"]);
        let two = BTreeMap::from([("offers", lines.as_slice()), ("channels", &lines[..1])]);
        let sent = refused(json!({"lines": [{"kind": "offers", "line": 1, "errors": errors}]}));
        assert_eq!(faults_of(sent, &two).unwrap(), ["offers/10: /name: is required"]);
    }

    #[test]
    fn a_segment_of_a_path_is_never_more_than_one() {
        assert_eq!(segment("a b/c?d#é"), "a%20b%2Fc%3Fd%23%C3%A9");
    }

    #[test]
    fn a_call_takes_at_least_one_line_and_no_more_than_fit() {
        let long = Value::String("x".repeat(WRITE_BYTES_MAX));
        let lines = [(1, long.clone()), (2, long)];
        assert_eq!(ndjson(&lines).unwrap().1, 1);
        let short = [(1, json!(1)), (2, json!(2))];
        assert_eq!(ndjson(&short).unwrap(), (b"1\n2\n".to_vec(), 2));
    }
}
