//! Regular expressions of filters. Matching takes time linear in the text, whatever the pattern.

use regex::{Regex, RegexBuilder};

use crate::value::Value;

/// Bytes that one compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 256 * 1_024;
/// Bytes that its automaton may cache while matching.
const CACHE_BYTES_MAX: usize = 256 * 1_024;

/// A compiled regular expression; equal if its text is.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles `text`, in the syntax of the crate `regex`: no look-around and no back-references.
    ///
    /// # Errors
    /// Why it is no pattern, or that it would be too large.
    pub fn new(text: &str) -> Result<Self, String> {
        let built = RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(CACHE_BYTES_MAX).build();
        built.map(Pattern).map_err(|error| {
            if matches!(error, regex::Error::CompiledTooBig(_)) {
                return "is too large a regular expression".to_owned();
            }
            // The message shows the pattern over several lines; the last one says what is wrong.
            let message = error.to_string();
            let what = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("is no regular expression: {what}")
        })
    }

    /// Whether `value` is a text that the pattern matches anywhere.
    pub fn is_in(&self, value: &Value) -> bool {
        value.as_text().is_some_and(|text| self.0.is_match(text))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_anywhere_in_a_text_and_in_nothing_else() {
        let pattern = Pattern::new("g.ld").unwrap();
        assert!(pattern.is_in(&Value::text("marigold card")));
        assert!(!pattern.is_in(&Value::text("silver")));
        assert!(!pattern.is_in(&Value::list([Value::text("gold")])));
        assert!(!pattern.is_in(&Value::Null));
        assert!(!Pattern::new("^gold$").unwrap().is_in(&Value::text("marigold")));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused_with_the_reason() {
        assert_eq!(Pattern::new("(").unwrap_err(), "is no regular expression: unclosed group");
        assert!(Pattern::new(r"(a)\1").unwrap_err().contains("backreferences"));
        assert!(Pattern::new(r"(\w{1000}){1000}").unwrap_err().contains("too large"));
    }

    #[test]
    fn a_pattern_that_others_backtrack_over_takes_linear_time() {
        let pattern = Pattern::new("(a+)+$").unwrap();
        let text: String = std::iter::repeat_n('a', 50_000).chain(['b']).collect();
        assert!(!pattern.is_in(&Value::text(&text)));
    }
}
