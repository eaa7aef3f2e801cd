//! The functions of the language: one table of names, signatures and meanings.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::check::Type;
use super::compare;
use super::limits::TEXT_BYTES_MAX;
use super::numbers;
use crate::time::{DAY_MS, Timestamp};
use crate::value::Value;

/// A function that expressions can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Function {
    /// `min(a, …)`: the smallest number.
    Min,
    /// `max(a, …)`: the largest number.
    Max,
    /// `round(x[, digits])`: half away from zero.
    Round,
    /// `floor(x)`.
    Floor,
    /// `ceil(x)`.
    Ceil,
    /// `abs(x)`.
    Abs,
    /// `coalesce(a, …)`: the first that is not null.
    Coalesce,
    /// `concat(a, …)`: strings, numbers and booleans one after the other, null as "".
    Concat,
    /// `lower(text)`.
    Lower,
    /// `upper(text)`.
    Upper,
    /// `contains(text, part)` or `contains(list, item)`.
    Contains,
    /// `startsWith(text, prefix)`.
    StartsWith,
    /// `endsWith(text, suffix)`.
    EndsWith,
    /// `size(text)` in characters, `size(list)` in items.
    Size,
    /// `isNull(x)`.
    IsNull,
    /// `exists(x)`.
    Exists,
    /// `daysSince(date)`: whole days from the date to now.
    DaysSince,
    /// `pow(base, exponent)`.
    Pow,
    /// `ln(x)`.
    Ln,
    /// `exp(x)`.
    Exp,
}

/// What one argument may be.
pub(super) type Accepts = &'static [Type];

const ANYTHING: Accepts = &[Type::Any];
const NUMBER: Accepts = &[Type::Number];
const TEXT: Accepts = &[Type::Text];
const SCALAR: Accepts = &[Type::Text, Type::Number, Type::Bool];
const SIZED: Accepts = &[Type::Text, Type::List];

impl Function {
    /// Every function.
    pub const ALL: [Function; 20] = [
        Function::Min,
        Function::Max,
        Function::Round,
        Function::Floor,
        Function::Ceil,
        Function::Abs,
        Function::Coalesce,
        Function::Concat,
        Function::Lower,
        Function::Upper,
        Function::Contains,
        Function::StartsWith,
        Function::EndsWith,
        Function::Size,
        Function::IsNull,
        Function::Exists,
        Function::DaysSince,
        Function::Pow,
        Function::Ln,
        Function::Exp,
    ];

    /// The function called `name`, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Function::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Function::Min => "min",
            Function::Max => "max",
            Function::Round => "round",
            Function::Floor => "floor",
            Function::Ceil => "ceil",
            Function::Abs => "abs",
            Function::Coalesce => "coalesce",
            Function::Concat => "concat",
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Contains => "contains",
            Function::StartsWith => "startsWith",
            Function::EndsWith => "endsWith",
            Function::Size => "size",
            Function::IsNull => "isNull",
            Function::Exists => "exists",
            Function::DaysSince => "daysSince",
            Function::Pow => "pow",
            Function::Ln => "ln",
            Function::Exp => "exp",
        }
    }

    /// How many arguments it takes.
    pub fn arity(self) -> RangeInclusive<usize> {
        match self {
            Function::Min | Function::Max | Function::Coalesce | Function::Concat => 1..=usize::MAX,
            Function::Round => 1..=2,
            Function::Contains | Function::StartsWith | Function::EndsWith | Function::Pow => 2..=2,
            Function::Floor
            | Function::Ceil
            | Function::Abs
            | Function::Lower
            | Function::Upper
            | Function::Size
            | Function::IsNull
            | Function::Exists
            | Function::DaysSince
            | Function::Ln
            | Function::Exp => 1..=1,
        }
    }

    /// What argument `index` may be; null always may.
    pub(super) fn accepts(self, index: usize) -> Accepts {
        match self {
            Function::Min
            | Function::Max
            | Function::Round
            | Function::Floor
            | Function::Ceil
            | Function::Abs
            | Function::Pow
            | Function::Ln
            | Function::Exp => NUMBER,
            Function::Lower | Function::Upper | Function::StartsWith | Function::EndsWith | Function::DaysSince => TEXT,
            Function::Concat => SCALAR,
            Function::Size => SIZED,
            Function::Contains if index == 0 => SIZED,
            Function::Contains | Function::Coalesce | Function::IsNull | Function::Exists => ANYTHING,
        }
    }

    /// What it yields, or null; `None` for coalesce, which yields what its arguments are.
    pub(super) fn yields(self) -> Option<Type> {
        Some(match self {
            Function::Min
            | Function::Max
            | Function::Round
            | Function::Floor
            | Function::Ceil
            | Function::Abs
            | Function::Size
            | Function::DaysSince
            | Function::Pow
            | Function::Ln
            | Function::Exp => Type::Number,
            Function::Concat | Function::Lower | Function::Upper => Type::Text,
            Function::Contains | Function::StartsWith | Function::EndsWith | Function::IsNull | Function::Exists => {
                Type::Bool
            }
            Function::Coalesce => return None,
        })
    }

    /// Whether it reads the time of the decision, so that equal arguments may give different results.
    pub(super) fn reads_time(self) -> bool {
        self == Function::DaysSince
    }

    /// Applies it. A missing argument, or one of the wrong kind, gives null. Only functions that make text allocate.
    pub(super) fn apply(self, arguments: &[Cow<'_, Value>], now: Timestamp) -> Value {
        let first = || arguments.first().map(|argument| &**argument);
        let second = || arguments.get(1).map(|argument| &**argument);
        let number = |apply: fn(f64) -> f64| match first() {
            Some(Value::Number(number)) => numbers::value(apply(*number)),
            _ => Value::Null,
        };
        let text = |apply: fn(&str) -> String| match first() {
            Some(Value::Text(text)) => short(apply(text)),
            _ => Value::Null,
        };
        let texts = |apply: fn(&str, &str) -> bool| match (first(), second()) {
            (Some(Value::Text(text)), Some(Value::Text(part))) => Value::Bool(apply(text, part)),
            _ => Value::Null,
        };
        match self {
            Function::Min => extreme(arguments, f64::min),
            Function::Max => extreme(arguments, f64::max),
            Function::Round => round(first(), second()),
            Function::Floor => number(libm::floor),
            Function::Ceil => number(libm::ceil),
            Function::Abs => number(f64::abs),
            Function::Coalesce => {
                arguments.iter().find(|argument| !argument.is_null()).map_or(Value::Null, |found| (**found).clone())
            }
            Function::Concat => concat(arguments),
            Function::Lower => text(str::to_lowercase),
            Function::Upper => text(str::to_uppercase),
            Function::Contains => match (first(), second()) {
                (Some(whole), Some(part)) if !part.is_null() => {
                    compare::contains(whole, part).map_or(Value::Null, Value::Bool)
                }
                _ => Value::Null,
            },
            Function::StartsWith => texts(|text, prefix| text.starts_with(prefix)),
            Function::EndsWith => texts(|text, suffix| text.ends_with(suffix)),
            Function::Size => match first() {
                Some(Value::Text(text)) => numbers::value(text.chars().count() as f64),
                Some(Value::List(items)) => numbers::value(items.len() as f64),
                _ => Value::Null,
            },
            Function::IsNull => Value::Bool(first().is_none_or(Value::is_null)),
            Function::Exists => Value::Bool(first().is_some_and(|argument| !argument.is_null())),
            Function::DaysSince => match first() {
                Some(Value::Text(date)) => days_since(date, now),
                _ => Value::Null,
            },
            Function::Pow => match (first(), second()) {
                (Some(Value::Number(base)), Some(Value::Number(exponent))) => {
                    numbers::value(libm::pow(*base, *exponent))
                }
                _ => Value::Null,
            },
            Function::Ln => number(libm::log),
            Function::Exp => number(libm::exp),
        }
    }
}

fn extreme(arguments: &[Cow<'_, Value>], choose: fn(f64, f64) -> f64) -> Value {
    let mut found: Option<f64> = None;
    for argument in arguments {
        let Value::Number(number) = **argument else { return Value::Null };
        found = Some(found.map_or(number, |so_far| choose(so_far, number)));
    }
    found.map_or(Value::Null, numbers::value)
}

/// More places than this, either way, change no number.
const PLACES_MAX: f64 = 400.0;

fn round(number: Option<&Value>, places: Option<&Value>) -> Value {
    let places = match places {
        None => 0.0,
        Some(Value::Number(places)) if places.fract() == 0.0 => places.clamp(-PLACES_MAX, PLACES_MAX),
        Some(_) => return Value::Null,
    };
    match number {
        Some(Value::Number(number)) => numbers::value(numbers::round(*number, places as i32)),
        _ => Value::Null,
    }
}

fn concat(arguments: &[Cow<'_, Value>]) -> Value {
    let mut whole = String::new();
    for argument in arguments {
        match &**argument {
            Value::Null => {}
            Value::Bool(flag) => whole.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => {
                let written = numbers::write_readable(*number, &mut whole);
                debug_assert!(written.is_ok(), "a String takes everything");
            }
            Value::Text(text) => whole.push_str(text),
            Value::List(_) | Value::Map(_) => return Value::Null,
        }
        if whole.len() > TEXT_BYTES_MAX {
            return Value::Null;
        }
    }
    Value::text(whole)
}

/// `text` as a value, or null if it is longer than a result may be.
fn short(text: String) -> Value {
    if text.len() > TEXT_BYTES_MAX { Value::Null } else { Value::text(text) }
}

fn days_since(date: &str, now: Timestamp) -> Value {
    match compare::instant(date) {
        Some(then) => {
            let elapsed = now.0.saturating_sub(then.as_millisecond());
            numbers::value(elapsed.div_euclid(DAY_MS) as f64)
        }
        None => Value::Null,
    }
}
