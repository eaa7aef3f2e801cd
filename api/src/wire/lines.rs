//! NDJSON: one JSON object a line, blank lines skipped, faults collected by line.

use proffer_engine::model::fault::{Fault, Faults};
use proffer_engine::value::{Members, Value};

use crate::limits::{BAD_LINES_MAX, BULK_LINES_MAX};
use crate::problem::{BadLine, Problem};
use crate::wire::value;

/// A line that is a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// What it says.
    pub value: Value,
}

impl Line {
    /// Its members.
    pub fn members(&self) -> &Members {
        self.value.as_map().expect("lines are objects")
    }
}

/// Bad lines found so far.
#[derive(Debug, Default)]
pub struct BadLines {
    kind: Option<String>,
    listed: Vec<BadLine>,
    count: usize,
}

impl BadLines {
    /// What is added from now on is of this kind.
    pub fn of_kind(&mut self, kind: &str) {
        self.kind = Some(kind.to_owned());
    }

    /// Adds a line with what is wrong with it.
    pub fn add(&mut self, line: usize, faults: Vec<Fault>) {
        self.count += 1;
        if self.listed.len() < BAD_LINES_MAX {
            let errors = faults.into_iter().map(Into::into).collect();
            self.listed.push(BadLine { kind: self.kind.clone(), line, errors });
        }
    }

    /// Runs `check` on a line and adds it if that found faults.
    pub fn check<T>(&mut self, line: usize, check: impl FnOnce(&mut Faults) -> Option<T>) -> Option<T> {
        let mut faults = Faults::new();
        let result = check(&mut faults);
        if faults.is_empty() {
            return result;
        }
        self.add(line, faults.into_vec());
        None
    }

    /// Those to be listed.
    pub fn into_listed(mut self) -> Vec<BadLine> {
        self.listed.sort_by(|a, b| (&a.kind, a.line).cmp(&(&b.kind, b.line)));
        self.listed
    }

    /// Fine if no line is bad.
    ///
    /// # Errors
    /// [`Problem::InvalidLines`].
    pub fn into_result(self) -> Result<(), Problem> {
        let count = self.count;
        if count == 0 { Ok(()) } else { Err(Problem::InvalidLines { lines: self.into_listed(), count }) }
    }
}

/// Reads all lines; those that are no JSON objects are added to `bad`. O(bytes).
pub fn read(body: &[u8], bad: &mut BadLines) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, text) in body.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if lines.len() >= BULK_LINES_MAX {
            bad.add(number, vec![whole_line(format!("more than {BULK_LINES_MAX} lines"))]);
            break;
        }
        match value::read(text) {
            Ok(value @ Value::Map(_)) => lines.push(Line { number, value }),
            Ok(other) => bad.add(number, vec![whole_line(format!("must be an object, not {}", other.kind()))]),
            Err(problem) => bad.add(number, vec![whole_line(problem.detail())]),
        }
    }
    lines
}

fn whole_line(message: String) -> Fault {
    Fault { pointer: String::new(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_lines_are_listed_by_number_and_good_ones_kept() {
        let mut bad = BadLines::default();
        let lines = read(b"{\"a\": 1}\n\n[1]\n{\"b\": }\r\n{\"c\": 2}\n", &mut bad);
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 5]);
        let Err(Problem::InvalidLines { lines, count }) = bad.into_result() else { panic!("two lines are bad") };
        assert_eq!((lines.iter().map(|line| line.line).collect::<Vec<_>>(), count), (vec![3, 4], 2));
    }

    #[test]
    fn no_more_bad_lines_are_listed_than_the_limit() {
        let mut bad = BadLines::default();
        read("1\n".repeat(BAD_LINES_MAX + 5).as_bytes(), &mut bad);
        let Err(Problem::InvalidLines { lines, count }) = bad.into_result() else { panic!("all lines are bad") };
        assert_eq!((lines.len(), count), (BAD_LINES_MAX, BAD_LINES_MAX + 5));
    }
}
