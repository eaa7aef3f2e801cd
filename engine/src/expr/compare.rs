//! Comparing values: shared by the operators of the language and by the conditions of rules. Nothing is coerced.

use std::cmp::Ordering;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::model::rule::{OnMissing, Operator};
use crate::value::Value;

/// Whether two values are the same: numbers by size, strings by bytes or, when both are ISO dates, as instants; lists and
/// maps member by member. Values of different kinds differ.
pub fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => left == right || order_texts(left, right).is_eq(),
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| equal(left, right))
        }
        (Value::Map(left), Value::Map(right)) => {
            left.len() == right.len()
                && left.iter().zip(right.iter()).all(|(left, right)| left.0 == right.0 && equal(left.1, right.1))
        }
        _ => left == right,
    }
}

/// Which of two values comes first: numbers by size, strings by bytes or, when both are ISO dates, as instants. `None` for
/// every other pair.
pub fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.partial_cmp(right),
        (Value::Text(left), Value::Text(right)) => Some(order_texts(left, right)),
        _ => None,
    }
}

/// Whether `list` has a member equal to `item`.
pub fn has_member(list: &[Value], item: &Value) -> bool {
    list.iter().any(|member| equal(member, item))
}

/// Whether the condition `actual operator expected` of a rule holds. A missing (null) `actual` fails every operator but
/// `not_exists`, unless `on_missing` lets it pass; `exists` and `not_exists` ask only whether it is there.
pub fn condition_holds(actual: &Value, operator: Operator, expected: &Value, on_missing: OnMissing) -> bool {
    let there = !actual.is_null();
    let asks_presence = matches!(operator, Operator::Exists | Operator::NotExists);
    if !asks_presence && !there {
        return on_missing == OnMissing::Pass;
    }
    if !asks_presence && expected.is_null() {
        return false;
    }
    let ordered = |holds: fn(Ordering) -> bool| order(actual, expected).is_some_and(holds);
    match operator {
        Operator::Exists => there,
        Operator::NotExists => !there,
        Operator::Eq => equal(actual, expected),
        Operator::Neq => !equal(actual, expected),
        Operator::Gt => ordered(Ordering::is_gt),
        Operator::Gte => ordered(Ordering::is_ge),
        Operator::Lt => ordered(Ordering::is_lt),
        Operator::Lte => ordered(Ordering::is_le),
        Operator::In => expected.as_list().is_some_and(|list| has_member(list, actual)),
        Operator::NotIn => expected.as_list().is_some_and(|list| !has_member(list, actual)),
        Operator::Contains => contains(actual, expected).unwrap_or(false),
        Operator::StartsWith => match (actual, expected) {
            (Value::Text(text), Value::Text(prefix)) => text.starts_with(&**prefix),
            _ => false,
        },
        Operator::Between => match expected.as_list() {
            Some([low, high]) => {
                order(actual, low).is_some_and(Ordering::is_ge) && order(actual, high).is_some_and(Ordering::is_le)
            }
            _ => false,
        },
    }
}

/// Substring of a string, or member of a list; `None` for other kinds.
pub(super) fn contains(whole: &Value, part: &Value) -> Option<bool> {
    match (whole, part) {
        (Value::Text(text), Value::Text(part)) => Some(text.contains(&**part)),
        (Value::List(list), part) => Some(has_member(list, part)),
        _ => None,
    }
}

fn order_texts(left: &str, right: &str) -> Ordering {
    match (instant(left), instant(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.cmp(right),
    }
}

/// The instant that an ISO date `2026-01-31` or date-time `2026-01-31T09:30[:15[.25]][Z|±hh:mm]` names. A date is its
/// midnight; without an offset, UTC. Refuses other texts after a look at their first bytes.
pub fn instant(text: &str) -> Option<jiff::Timestamp> {
    let bytes = text.as_bytes();
    let dated = bytes.len() >= 10
        && bytes[..10].iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    // A time zone in brackets would be read, and then ignored.
    if !dated || bytes.contains(&b'[') {
        return None;
    }
    if bytes.len() == 10 {
        let date: Date = text.parse().ok()?;
        return TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    }
    text.parse::<jiff::Timestamp>().ok().or_else(|| TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: f64) -> Value {
        Value::Number(number)
    }

    fn words(words: &[&str]) -> Value {
        Value::list(words.iter().map(|word| Value::from(*word)))
    }

    fn holds(actual: impl Into<Value>, operator: Operator, expected: impl Into<Value>) -> bool {
        condition_holds(&actual.into(), operator, &expected.into(), OnMissing::Fail)
    }

    #[test]
    fn eq_and_neq_compare_without_coercion() {
        assert!(holds("gold", Operator::Eq, "gold"));
        assert!(!holds("gold", Operator::Eq, "Gold"));
        assert!(!holds("5", Operator::Eq, 5.0));
        assert!(holds(true, Operator::Eq, true));
        assert!(holds("5", Operator::Neq, 5.0));
        assert!(!holds(5.0, Operator::Neq, 5.0));
        assert!(holds(words(&["a", "b"]), Operator::Eq, words(&["a", "b"])));
    }

    #[test]
    fn order_operators_are_strict_or_inclusive() {
        for (operator, below, same, above) in [
            (Operator::Gt, false, false, true),
            (Operator::Gte, false, true, true),
            (Operator::Lt, true, false, false),
            (Operator::Lte, true, true, false),
        ] {
            let found = [9.0, 10.0, 11.0].map(|actual| holds(actual, operator, 10.0));
            assert_eq!(found, [below, same, above], "{operator:?}");
            assert!(!holds("9", operator, 10.0), "{operator:?} does not coerce");
            assert!(!holds(true, operator, false), "{operator:?} does not order booleans");
        }
        assert!(holds("b", Operator::Gt, "a"));
    }

    #[test]
    fn dates_compare_as_instants() {
        assert!(holds("2026-03-01T00:30:00+02:00", Operator::Lt, "2026-03-01"));
        assert!(holds("2026-03-01T02:00+02:00", Operator::Eq, "2026-03-01T00:00:00Z"));
        assert!(!holds("2026-03-01T02:00+02:00", Operator::Neq, "2026-03-01T00:00:00Z"));
        assert!(holds("2026-03-01T02:00+02:00", Operator::In, words(&["2026-03-01"])));
        assert!(holds("2026-03-02", Operator::Between, words(&["2026-03-01T00:00:00Z", "2026-03-02T00:00"])));
        assert!(!holds("2026-03-01x", Operator::Eq, "2026-03-01"));
    }

    #[test]
    fn in_and_not_in_are_membership() {
        let list = || words(&["a", "b"]);
        assert!(holds("a", Operator::In, list()));
        assert!(!holds("c", Operator::In, list()));
        assert!(!holds("a", Operator::NotIn, list()));
        assert!(holds("c", Operator::NotIn, list()));
        assert!(!holds("a", Operator::In, "a"));
        assert!(!holds("c", Operator::NotIn, "a"));
    }

    #[test]
    fn contains_is_substring_or_member() {
        assert!(holds("premium", Operator::Contains, "emi"));
        assert!(!holds("premium", Operator::Contains, "x"));
        assert!(holds(words(&["a", "b"]), Operator::Contains, "b"));
        assert!(!holds(words(&["ab"]), Operator::Contains, "b"));
        assert!(!holds(12.0, Operator::Contains, 1.0));
    }

    #[test]
    fn starts_with_is_a_prefix_of_a_string() {
        assert!(holds("premium", Operator::StartsWith, "pre"));
        assert!(!holds("premium", Operator::StartsWith, "mium"));
        assert!(!holds(words(&["premium"]), Operator::StartsWith, "pre"));
    }

    #[test]
    fn between_includes_both_ends() {
        let range = || Value::list([number(1.0), number(3.0)]);
        let found = [0.9, 1.0, 2.0, 3.0, 3.1].map(|actual| holds(actual, Operator::Between, range()));
        assert_eq!(found, [false, true, true, true, false]);
        assert!(!holds(2.0, Operator::Between, Value::list([number(1.0)])));
        assert!(!holds("2", Operator::Between, range()));
    }

    #[test]
    fn missing_fails_everything_but_not_exists() {
        let expected = Value::list([number(1.0), number(2.0)]);
        for operator in Operator::ALL.iter().copied() {
            let missing = |on_missing| condition_holds(&Value::Null, operator, &expected, on_missing);
            assert_eq!(missing(OnMissing::Fail), operator == Operator::NotExists, "{operator:?}");
            assert_eq!(missing(OnMissing::Pass), operator != Operator::Exists, "{operator:?}");
        }
        assert!(holds(false, Operator::Exists, Value::Null));
        assert!(!holds(false, Operator::NotExists, Value::Null));
    }

    #[test]
    fn nothing_compares_with_a_null_expectation() {
        for operator in Operator::ALL.iter().copied().filter(|operator| *operator != Operator::Exists) {
            assert!(!holds("a", operator, Value::Null), "{operator:?}");
        }
    }

    #[test]
    fn instants_are_read_from_iso_dates_only() {
        for text in ["2026-01-31", "2026-01-31T09:30", "2026-01-31T09:30:15.25Z", "2026-01-31T09:30-05:00"] {
            assert!(instant(text).is_some(), "{text}");
        }
        for text in
            ["", "2026-1-31", "20260131", "2026-02-30", "2026-01-31T09:30[Europe/Berlin]", "2026-01-31 x", "größe-10-1"]
        {
            assert!(instant(text).is_none(), "{text}");
        }
    }
}
