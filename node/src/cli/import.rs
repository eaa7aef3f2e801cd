//! `proffer import FILE…`: entities, profiles and rows from JSON, NDJSON or CSV.
//!
//! Each file is validated whole by the node (a dry run on a copy of its catalogue) before its first write; a line applies
//! wholly or not at all; a line that names an existing thing updates it, so a rerun is harmless. Kinds of one file may refer to
//! each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use crate::client::{Client, LineFault, Problem, Target};

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
        let batches =
            read(file, args.kind.as_deref(), &texts).with_context(|| format!("cannot read {}", file.display()))?;
        let batches = Batches { client: &client, file, batches };
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
}

impl Batches<'_> {
    /// Asks the node what it would say: all kinds in one call, so that they may refer to each other and nothing appears twice.
    /// What does not fit one call with the rest is what refers to nothing but schemas: profiles and rows, chunk by chunk.
    async fn validate(&self) -> anyhow::Result<()> {
        let size = |batch: &Batch| batch.lines.iter().map(|(_, line)| line.to_string().len() + 1).sum::<usize>();
        let fits = self.batches.iter().map(size).sum::<usize>() <= VALIDATE_BYTES_MAX;
        let (together, apart): (Vec<&Batch>, Vec<&Batch>) =
            self.batches.iter().partition(|batch| fits || !is_of_customers(&batch.kind));
        let mut refused = Vec::new();
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
    const REFERRED_FIRST: [&str; 13] = [
        "channels",
        "placements",
        "categories",
        "sub-categories",
        "schemas",
        "offers",
        "creatives",
        "collections",
        "qualification-rules",
        "contact-policies",
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

fn read(file: &Path, kind: Option<&str>, texts: &BTreeSet<String>) -> anyhow::Result<Vec<Batch>> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let kind = kind.unwrap_or(stem).to_owned();
    match extension.rsplit('.').next().unwrap_or_default() {
        "csv" => Ok(vec![read_csv(file, kind, texts)?]),
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
            Value::Object(kinds) => {
                let mut batches = Vec::with_capacity(kinds.len());
                for (kind, items) in kinds {
                    let Value::Array(items) = items else { bail!("member {kind:?} must be a list") };
                    batches.push(numbered(kind, items));
                }
                batches.sort_by_key(|batch| place(&batch.kind));
                Ok(batches)
            }
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
/// cells are left out. Columns in `texts` are text whatever they look like. Of profiles, `customerId` and `segments` (split at `|`) are themselves, every other column an attribute.
fn read_csv(file: &Path, kind: String, texts: &BTreeSet<String>) -> anyhow::Result<Batch> {
    let mut reader = csv::Reader::from_path(file)?;
    let headers = reader.headers()?.clone();
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record?;
        let number = record.position().map_or(0, |position| position.line() as usize);
        let cells = headers.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
        let line = if kind == "profiles" { profile(cells) } else { object(cells, texts) };
        lines.push((number, Value::Object(line)));
    }
    Ok(Batch { kind, lines })
}

fn object<'a>(cells: impl Iterator<Item = (&'a str, &'a str)>, texts: &BTreeSet<String>) -> Map<String, Value> {
    let value = |name, cell| if texts.contains(name) { json!(cell) } else { cell_value(cell) };
    cells.map(|(name, cell)| (name.to_owned(), value(name, cell))).collect()
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
