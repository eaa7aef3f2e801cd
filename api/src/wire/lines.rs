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
    listed: Vec<BadLine>,
    count: usize,
}

impl BadLines {
    /// Adds a line with what is wrong with it.
    pub fn add(&mut self, line: usize, faults: Vec<Fault>) {
        self.count += 1;
        if self.listed.len() < BAD_LINES_MAX {
            self.listed.push(BadLine { line, errors: faults.into_iter().map(Into::into).collect() });
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

    /// Fine if no line is bad.
    ///
    /// # Errors
    /// [`Problem::InvalidLines`].
    pub fn into_result(mut self) -> Result<(), Problem> {
        if self.count == 0 {
            return Ok(());
        }
        self.listed.sort_by_key(|bad| bad.line);
        Err(Problem::InvalidLines { lines: self.listed, count: self.count })
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
