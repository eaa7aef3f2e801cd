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
    let ordered = |holds: fn(Ordering) -> bool| order(actual, expected).is_some_and(holds);
    match operator {
        Operator::Exists => !actual.is_null(),
        Operator::NotExists => actual.is_null(),
        _ if actual.is_null() => on_missing == OnMissing::Pass,
        _ if expected.is_null() => false,
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
    text.parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok())
}
