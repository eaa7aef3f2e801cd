//! The lines of a file that is imported: JSON, NDJSON or CSV, each bad line told with its number, the others kept.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{anyhow, bail, ensure};
use proffer_api::limits::{CATALOGUE_DEPTH_MAX, JSON_DEPTH_MAX};
use proffer_api::wire::value;
use serde_json::{Map, Value, json};

/// Lines of one kind, each with its number in the file it came from.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) kind: String,
    pub(crate) lines: Vec<(usize, Value)>,
}

/// What a file says, and what of it cannot be read: `LINE: WHAT`.
#[derive(Debug)]
pub(crate) struct Lines {
    pub(crate) batches: Vec<Batch>,
    pub(crate) bad: Vec<String>,
}

/// Separates the items of a list in a CSV cell.
const LIST_SEPARATOR: char = '|';

/// Reads a file. Of kinds that are not named in it, it is `kind`, or what its name says up to the first dot. CSV columns in
/// `texts` are text whatever they look like.
///
/// # Errors
/// When it cannot be read at all.
pub(crate) fn read(file: &Path, kind: Option<&str>, texts: &BTreeSet<String>) -> anyhow::Result<Lines> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let kind = kind.unwrap_or(stem).to_owned();
    match extension.rsplit('.').next().unwrap_or_default() {
        "csv" => read_csv(&std::fs::read(file)?, kind, texts),
        "ndjson" | "jsonl" => Ok(read_ndjson(&std::fs::read(file)?, kind)),
        "json" => Ok(Lines { batches: read_json(&std::fs::read(file)?, kind)?, bad: Vec::new() }),
        other => bail!("unknown extension {other:?}: use .json, .ndjson, .jsonl or .csv"),
    }
}

fn read_ndjson(text: &[u8], kind: String) -> Lines {
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for (text, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match parse(text, JSON_DEPTH_MAX) {
            Ok(line) => lines.push((number, line)),
            Err(error) => bad.push(format!("{number}: {error}")),
        }
    }
    Lines { batches: vec![Batch { kind, lines }], bad }
}

fn read_json(text: &[u8], kind: String) -> anyhow::Result<Vec<Batch>> {
    match parse(text, CATALOGUE_DEPTH_MAX)? {
        Value::Array(items) => Ok(vec![numbered(kind, items)]),
        Value::Object(kinds) => {
            let mut batches = Vec::with_capacity(kinds.len());
            for (kind, items) in kinds {
                let Value::Array(items) = items else { bail!("member {kind:?} must be a list") };
                batches.push(numbered(kind, items));
            }
            Ok(batches)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            bail!("must be a list, or an object of lists by kind")
        }
    }
}

/// JSON as the node reads it: what it would refuse (a member that appears twice, a number out of range) is no JSON here either.
fn parse(text: &[u8], levels: usize) -> anyhow::Result<Value> {
    value::read_nested(text, levels).map_err(|problem| anyhow!(problem.detail()))?;
    Ok(serde_json::from_slice(text)?)
}

fn numbered(kind: String, items: Vec<Value>) -> Batch {
    Batch { kind, lines: (1..).zip(items).collect() }
}

/// A header and rows. Cells that are JSON numbers, booleans, null, lists or objects are read as such, others as text; empty
/// cells are left out. Of profiles, `customerId` and `segments` are themselves, every other column an attribute.
fn read_csv(text: &[u8], kind: String, texts: &BTreeSet<String>) -> anyhow::Result<Lines> {
    let mut reader = csv::Reader::from_reader(text);
    let headers = reader.headers()?.clone();
    check_headers(&headers)?;
    let (mut lines, mut bad) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let line_of = |position: Option<&csv::Position>| position.map_or(0, |position| position.line() as usize);
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                bad.push(format!("{}: {}", line_of(error.position()), said(&error)));
                continue;
            }
        };
        let number = line_of(record.position());
        let cells = headers.iter().zip(&record).filter(|(_, cell)| !cell.is_empty());
        let mut faults = Vec::new();
        let line = if kind == "profiles" { profile(cells, &mut faults) } else { object(cells, texts, &mut faults) };
        if faults.is_empty() {
            lines.push((number, Value::Object(line)));
        }
        bad.extend(faults.into_iter().map(|fault| format!("{number}: {fault}")));
    }
    Ok(Lines { batches: vec![Batch { kind, lines }], bad })
}

fn check_headers(headers: &csv::StringRecord) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = headers.iter().filter(|name| !seen.insert(*name)).collect();
    let names: Vec<String> = twice.into_iter().map(|name| format!("{name:?}")).collect();
    ensure!(names.is_empty(), "the header names columns more than once: {}", names.join(", "));
    ensure!(headers.iter().all(|name| !name.is_empty()), "the header has a column without a name");
    Ok(())
}

fn said(error: &csv::Error) -> String {
    if let csv::ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() {
        return format!("has {len} cells, the header names {expected_len} columns");
    }
    if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) { "is not UTF-8".to_owned() } else { error.to_string() }
}

type Cells<'a> = (&'a str, &'a str);

fn object<'a>(
    cells: impl Iterator<Item = Cells<'a>>,
    texts: &BTreeSet<String>,
    faults: &mut Vec<String>,
) -> Map<String, Value> {
    let value = |(name, cell)| {
        let value = if texts.contains(name) { json!(cell) } else { cell_value(name, cell, faults) };
        (name.to_owned(), value)
    };
    cells.map(value).collect()
}

fn profile<'a>(cells: impl Iterator<Item = Cells<'a>>, faults: &mut Vec<String>) -> Map<String, Value> {
    let mut line = Map::new();
    let mut attributes = Map::new();
    for (name, cell) in cells {
        match name {
            "customerId" => {
                line.insert(name.to_owned(), json!(cell));
            }
            "segments" => {
                line.insert(name.to_owned(), json!(cell.split(LIST_SEPARATOR).collect::<Vec<_>>()));
            }
            _ => {
                attributes.insert(name.to_owned(), cell_value(name, cell, faults));
            }
        }
    }
    line.insert("attributes".to_owned(), Value::Object(attributes));
    line
}

fn cell_value(name: &str, cell: &str, faults: &mut Vec<String>) -> Value {
    if is_number(cell) && !is_kept(cell) {
        faults.push(format!(
            "column {name:?}: a number cannot keep {cell}; where it is a name, not a quantity, write it as text in NDJSON"
        ));
        return Value::Null;
    }
    match serde_json::from_str(cell) {
        Ok(Value::String(_)) | Err(_) => Value::String(cell.to_owned()),
        Ok(value) => value,
    }
}

/// Whether the cell is a number as JSON writes it, however large.
fn is_number(cell: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match cell.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (cell, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

/// Whether the number, once read, is the one that was written, to the last digit: numbers are kept as 64-bit floats, which
/// hold 15 digits of anything and 17 of some.
fn is_kept(number: &str) -> bool {
    let Some(read) = number.parse::<f64>().ok().filter(|read| read.is_finite()) else { return false };
    let written = significant(number);
    let again = format!("{:.*e}", written.len().max(1) - 1, read);
    significant(&again) == written
}

/// The digits of a number between the zeros around them.
fn significant(number: &str) -> String {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_start_matches('0').trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &str) -> Result<Value, String> {
        let mut faults = Vec::new();
        let value = cell_value("age", text, &mut faults);
        faults.pop().map_or(Ok(value), Err)
    }

    #[test]
    fn csv_cells_become_the_json_they_look_like_and_text_otherwise() {
        assert_eq!(cell("12.5"), Ok(json!(12.5)));
        assert_eq!(cell("true"), Ok(json!(true)));
        assert_eq!(cell("[\"a\"]"), Ok(json!(["a"])));
        assert_eq!(cell("0123"), Ok(json!("0123")));
        assert_eq!(cell("\"quoted\""), Ok(json!("\"quoted\"")));
    }

    #[test]
    fn a_number_is_kept_to_its_last_digit_or_refused() {
        for kept in
            ["9007199254740992", "-0.1", "1.50000000000000000000", "1e300", "0", "-0.000", "123456789012345", "5e-324"]
        {
            assert!(cell(kept).is_ok_and(|value| value.is_number()), "{kept}");
        }
        for lost in ["9007199254740993", "-12345678901234567890", "0.12345678901234567890", "1e400", "-1e999", "1e-400"]
        {
            let refused = cell(lost).expect_err(lost);
            assert!(refused.contains("\"age\"") && refused.contains(lost), "{refused}");
        }
        for text in ["1.", ".5", "+1", "1e", "NaN", "0x10", "-", "1_000", "٣"] {
            assert_eq!(cell(text), Ok(json!(text)));
        }
    }

    #[test]
    fn columns_of_a_profile_are_attributes_but_for_id_and_segments() {
        let cells = [("customerId", "c 1"), ("segments", "gold|new"), ("age", "41")].into_iter();
        assert_eq!(
            Value::Object(profile(cells, &mut Vec::new())),
            json!({"customerId": "c 1", "segments": ["gold", "new"], "attributes": {"age": 41}})
        );
    }

    #[test]
    fn columns_that_hold_text_stay_text_whatever_they_look_like() {
        let texts = BTreeSet::from(["customer_id".to_owned()]);
        let line = object([("customer_id", "42"), ("tenure", "36")].into_iter(), &texts, &mut Vec::new());
        assert_eq!(Value::Object(line), json!({"customer_id": "42", "tenure": 36}));
    }

    #[test]
    fn every_line_that_cannot_be_read_is_told_and_the_others_are_kept() {
        let read = read_ndjson(b"{\"a\": 1}\n{\"a\": }\n\n{\"a\": 1, \"a\": 2}\n\xff\n[1]\n", "offers".to_owned());
        assert_eq!(read.batches[0].lines, [(1, json!({"a": 1})), (6, json!([1]))]);
        let starts: Vec<&str> = read.bad.iter().map(|bad| &bad[..3]).collect();
        assert_eq!(starts, ["2: ", "4: ", "5: "]);
        assert!(read.bad[1].contains("appears twice"), "{:?}", read.bad);
    }

    #[test]
    fn every_bad_row_of_a_table_is_told() {
        let text = b"customerId,age\nann,41\nbob\ncid,1e999\ndan,1,2\n\xff,3\neve,5\n";
        let read = read_csv(text, "profiles".to_owned(), &BTreeSet::new()).unwrap();
        assert_eq!(read.batches[0].lines.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 7]);
        let starts: Vec<&str> = read.bad.iter().map(|bad| &bad[..6]).collect();
        assert_eq!(starts, ["3: has", "4: col", "5: has", "6: is "], "{:?}", read.bad);
    }

    #[test]
    fn columns_named_twice_or_not_at_all_are_refused() {
        let refused = |text: &[u8]| read_csv(text, "offers".to_owned(), &BTreeSet::new()).unwrap_err().to_string();
        let twice = refused(b"name,age,name,x,age,age\na,1,b,2,3,4\n");
        assert!(twice.ends_with("\"age\", \"name\""), "{twice}");
        assert!(refused(b"name,,x\na,1,2\n").contains("without a name"));
    }
}
