//! Lengths, ranges and sizes: checks that need nothing but the value.

use std::collections::BTreeSet;

use crate::catalog::refusal::Refusal;
use crate::limits;
use crate::model::fault::Faults;
use crate::value::Value;

/// A required name: 1–255 characters, not only white space.
pub(crate) fn check_name(member: &str, text: &str, faults: &mut Faults) {
    if text.trim().is_empty() {
        faults.add_at(member, "must not be empty");
    } else {
        check_length(member, text, limits::NAME_CHARS_MAX, faults);
    }
}

/// Free text of at most `most` characters.
pub(crate) fn check_length(member: &str, text: &str, most: usize, faults: &mut Faults) {
    // Bytes are at least as many as characters: counting is for texts near the limit only.
    if text.len() > most && text.chars().count() > most {
        faults.add_at(member, format!("must have at most {most} characters"));
    }
}

/// A description.
pub(crate) fn check_description(text: &str, faults: &mut Faults) {
    check_length("description", text, limits::DESCRIPTION_CHARS_MAX, faults);
}

/// A list of at most `most` items.
pub(crate) fn check_count<T>(member: &str, items: &[T], most: usize, faults: &mut Faults) {
    if items.len() > most {
        faults.add_at(member, format!("must have at most {most} items"));
    }
}

/// A list of words (tags, segments): not empty, not too long, at most `most` of them.
pub(crate) fn check_words(member: &str, words: &[String], most: usize, faults: &mut Faults) {
    faults.within(member, |faults| {
        if words.len() > most {
            faults.add(format!("must have at most {most} items"));
            return;
        }
        for (index, word) in words.iter().enumerate() {
            check_name(&index.to_string(), word, faults);
        }
    });
}

/// Each item once.
pub(crate) fn check_distinct<T: Ord>(member: &str, items: &[T], faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    faults.within(member, |faults| {
        for (index, item) in items.iter().enumerate() {
            if !seen.insert(item) {
                faults.add_at(&index.to_string(), "is given twice");
            }
        }
    });
}

/// A number from `least` to `most`.
pub(crate) fn check_range(member: &str, number: f64, least: f64, most: f64, faults: &mut Faults) {
    if !(least..=most).contains(&number) {
        faults.add_at(member, format!("must be from {least} to {most}"));
    }
}

/// A number above 0, at most `most`.
pub(crate) fn check_positive(member: &str, number: f64, most: f64, faults: &mut Faults) {
    if !(number > 0.0 && number <= most) {
        faults.add_at(member, format!("must be greater than 0 and at most {most}"));
    }
}

/// How long a reservation holds.
pub(crate) fn check_reservation_seconds(seconds: Option<u32>, faults: &mut Faults) {
    if let Some(seconds) = seconds {
        check_range("reservationSeconds", f64::from(seconds), 1.0, f64::from(limits::RESERVATION_SECONDS_MAX), faults);
    }
}

/// Weekdays 0–6, each once.
pub(crate) fn check_weekdays(member: &str, days: &[u8], faults: &mut Faults) {
    check_distinct(member, days, faults);
    faults.within(member, |faults| {
        for (index, day) in days.iter().enumerate() {
            if *day > 6 {
                faults.add_at(&index.to_string(), "must be a weekday from 0 (Sunday) to 6");
            }
        }
    });
}

/// A word that requests and formulas use: `[A-Za-z0-9_-]`, 1–64 bytes.
pub(crate) fn check_key(member: &str, key: &str, faults: &mut Faults) {
    let fits = (1..=64).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if !fits {
        faults.add_at(member, "must be 1 to 64 letters, digits, - or _");
    }
}

/// Whether a text is `[A-Za-z_][A-Za-z0-9_]*` of at most 255 bytes.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= limits::WORD_CHARS_MAX
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An id from a proposer: 1–128 bytes of `[A-Za-z0-9._:-]`.
pub(crate) fn check_id(id: &str) -> Result<(), Refusal> {
    let fits = (1..=limits::ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
    if fits {
        return Ok(());
    }
    let most = limits::ID_BYTES_MAX;
    Err(Refusal::invalid("/id", format!("must be 1 to {most} letters, digits, dots, colons, dashes or underscores")))
}

/// The size of a body as a whole: levels, values, text. Everything behind it may then walk the body freely.
pub(crate) fn check_body(body: &Value) -> Result<(), Refusal> {
    let mut size = Size { values: 0, text_bytes: 0 };
    size.count(body, 0).map_err(|message| Refusal::invalid("", message))
}

struct Size {
    values: usize,
    text_bytes: usize,
}

impl Size {
    fn count(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        if depth > limits::BODY_DEPTH_MAX {
            return Err(format!("must have at most {} levels", limits::BODY_DEPTH_MAX));
        }
        self.values += 1;
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if !number.is_finite() {
                    return Err("numbers must be finite".to_owned());
                }
            }
            Value::Text(text) => self.text_bytes += text.len(),
            Value::List(items) => {
                for item in items.iter() {
                    self.count(item, depth + 1)?;
                }
            }
            Value::Map(members) => {
                for (name, member) in members.iter() {
                    self.text_bytes += name.len();
                    self.count(member, depth + 1)?;
                }
            }
        }
        if self.values > limits::BODY_VALUES_MAX {
            return Err(format!("must have at most {} values", limits::BODY_VALUES_MAX));
        }
        if self.text_bytes > limits::BODY_TEXT_BYTES_MAX {
            return Err(format!("must have at most {} bytes of text", limits::BODY_TEXT_BYTES_MAX));
        }
        Ok(())
    }
}
