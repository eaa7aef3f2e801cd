//! JSON ↔ [`Value`]: the reader refuses what a value cannot hold (numbers beyond f64, whole ones that would lose digits, members named
//! twice, nesting beyond the limit) with line and column; the writer prints whole numbers without a fraction.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use proffer_engine::value::{Members, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::limits::JSON_DEPTH_MAX;
use crate::problem::Problem;

/// Reads one JSON document, the whole of `bytes`. O(bytes).
///
/// # Errors
/// [`Problem::Malformed`] with line and column.
pub fn read(bytes: &[u8]) -> Result<Value, Problem> {
    read_nested(bytes, JSON_DEPTH_MAX)
}

/// As [`read`], with another limit of nesting.
///
/// # Errors
/// [`Problem::Malformed`] with line and column.
pub fn read_nested(bytes: &[u8], levels: usize) -> Result<Value, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Nested { left: levels, most: levels }.deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    read.map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line().max(1), error.column().max(1));
    let text = error.to_string();
    let message = text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())).unwrap_or(&text);
    Problem::Malformed { line, column, message: message.to_owned() }
}

/// Reads a value with so many levels of lists and objects left.
#[derive(Clone, Copy)]
struct Nested {
    left: usize,
    most: usize,
}

impl Nested {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let left = self.left.checked_sub(1);
        let inner = left.map(|left| Nested { left, ..self });
        inner.ok_or_else(|| E::custom(format!("nested deeper than {} levels", self.most)))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        whole(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        whole(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        if number.is_finite() { Ok(Value::Number(number)) } else { Err(E::custom("number out of range")) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(Arc::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map: Members = BTreeMap::new();
        while let Some(name) = members.next_key_seed(Name)? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("member {name:?} appears twice")));
            }
            map.insert(name, members.next_value_seed(inner)?);
        }
        Ok(Value::Map(Arc::new(map)))
    }
}

/// A whole number, if an f64 is that number: an account's 17 digits must not become another account's.
fn whole<E: serde::de::Error>(number: i128) -> Result<Value, E> {
    let held = number as f64;
    if held as i128 == number {
        return Ok(Value::Number(held));
    }
    Err(E::custom(format!("the number {number} would lose digits: send it as text")))
}

/// Reads a member's name without an intermediate `String`.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, text: &str) -> Result<Arc<str>, E> {
        Ok(Arc::from(text))
    }
}

/// Writes a [`Value`] as JSON, numbers as they are.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, |number| number, serializer)
    }
}

/// Writes a computed [`Value`]: numbers at 12 significant digits.
#[derive(Clone, Copy, Debug)]
pub struct Computed<'a>(pub &'a Value);

impl Serialize for Computed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self.0, round_significant, serializer)
    }
}

fn write<S: Serializer>(value: &Value, rounded: fn(f64) -> f64, serializer: S) -> Result<S::Ok, S::Error> {
    struct Inner<'a>(&'a Value, fn(f64) -> f64);
    impl Serialize for Inner<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            write(self.0, self.1, serializer)
        }
    }
    match value {
        Value::Null => serializer.serialize_unit(),
        Value::Bool(flag) => serializer.serialize_bool(*flag),
        Value::Number(number) => Number(rounded(*number)).serialize(serializer),
        Value::Text(text) => serializer.serialize_str(text),
        Value::List(items) => {
            let mut list = serializer.serialize_seq(Some(items.len()))?;
            for item in items.iter() {
                list.serialize_element(&Inner(item, rounded))?;
            }
            list.end()
        }
        Value::Map(members) => {
            let mut map = serializer.serialize_map(Some(members.len()))?;
            for (name, member) in members.iter() {
                map.serialize_entry(&**name, &Inner(member, rounded))?;
            }
            map.end()
        }
    }
}

/// A number that prints without a fraction when it is whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub f64);

/// Whole numbers up to here are exact in an `f64` and print as integers.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = self.0;
        if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
            serializer.serialize_i64(number as i64)
        } else {
            serializer.serialize_f64(number)
        }
    }
}

/// `score` at 6 decimals, halves away from zero.
pub fn round_score(score: f64) -> f64 {
    let scaled = score * 1e6;
    if scaled.abs() < WHOLE_MAX { scaled.round() / 1e6 } else { score }
}

/// `number` at 12 significant digits.
pub fn round_significant(number: f64) -> f64 {
    if number.fract() == 0.0 && number.abs() < 1e12 {
        return number;
    }
    format!("{number:.11e}").parse().unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(text: &str) -> (usize, usize, String) {
        match read(text.as_bytes()) {
            Err(Problem::Malformed { line, column, message }) => (line, column, message),
            other => panic!("{text} was read as {other:?}"),
        }
    }

    #[test]
    fn whole_numbers_keep_their_digits_or_are_refused() {
        for exact in ["9007199254740992", "-9007199254740992", "18446744073709549568", "0", "-0"] {
            assert!(read(exact.as_bytes()).is_ok(), "{exact}");
        }
        for inexact in ["9007199254740993", "-9007199254740993", "18446744073709551615"] {
            let refused = read(format!("{{\"account\": {inexact}}}").as_bytes());
            let Err(Problem::Malformed { line: 1, message, .. }) = refused else { panic!("{inexact}: {refused:?}") };
            assert!(message.contains("lose digits"), "{message}");
        }
    }

    #[test]
    fn malformed_json_names_line_and_column() {
        assert_eq!((place("{\n  \"a\": x\n}").0, place("{\n  \"a\": x\n}").1), (2, 8));
        assert_eq!(place("").0, 1);
        assert_eq!(place("{} x"), (1, 4, "trailing characters".to_owned()));
    }

    #[test]
    fn a_member_named_twice_is_refused() {
        let (line, _, message) = place("{\"a\": 1,\n \"a\": 2}");
        assert_eq!((line, message.as_str()), (2, "member \"a\" appears twice"));
    }

    #[test]
    fn numbers_that_no_f64_holds_are_refused() {
        for text in ["1e999", "-1e999", "NaN", "Infinity", "[1e400]"] {
            place(text);
        }
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(read(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert!(place(&nested(JSON_DEPTH_MAX + 1)).2.starts_with("nested deeper"));
        place(&"[".repeat(100_000));
    }

    #[test]
    fn whole_numbers_print_without_a_fraction() {
        let printed = |number: f64| serde_json::to_string(&Number(number)).unwrap();
        assert_eq!(printed(80.0), "80");
        assert_eq!(printed(-3.0), "-3");
        assert_eq!(printed(0.79), "0.79");
        assert_eq!(printed(1e20), "1e+20");
    }

    #[test]
    fn computed_numbers_have_twelve_significant_digits() {
        assert_eq!(round_significant(12.5 * (1.0 - 80.0 * 0.01)), 2.5);
        assert_eq!(round_significant(1.0 / 3.0), 0.333_333_333_333);
        assert_eq!(round_score(0.745_251_9), 0.745_252);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::Number),
            ".{0,8}".prop_map(Value::text),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
                prop::collection::btree_map(".{0,4}", inner, 0..4).prop_map(Value::map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in values()) {
            let written = serde_json::to_vec(&Json(&value)).unwrap();
            prop_assert_eq!(read(&written).unwrap(), value);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&bytes);
        }
    }
}
