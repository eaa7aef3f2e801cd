//! [`Value`]: the one dynamic value that authored objects, attributes, rows and expressions share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::de::Decoder;
use bincode::error::{AllowedEnumVariants, DecodeError};
use bincode::{Decode, Encode};

use crate::codec::Level;

/// A JSON-shaped value. Numbers are finite `f64` (one number type, domain.md §3): whoever constructs a value from
/// outside refuses NaN and infinities. Cloning is O(1): text, lists and maps are shared.
#[derive(Clone, Debug, Default, PartialEq, Encode)]
pub enum Value {
    /// Missing or unknown; spreads through arithmetic and comparison.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A finite number.
    Number(f64),
    /// Unicode text.
    Text(Arc<str>),
    /// An ordered list.
    List(Arc<[Value]>),
    /// String keys in byte order.
    Map(Arc<BTreeMap<Arc<str>, Value>>),
}

/// The members of a [`Value::Map`].
pub type Members = BTreeMap<Arc<str>, Value>;

impl Value {
    /// Text value.
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(Arc::from(text.as_ref()))
    }

    /// List value.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Value::List(items.into_iter().collect())
    }

    /// Map value.
    pub fn map<K: AsRef<str>>(members: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Map(Arc::new(members.into_iter().map(|(name, value)| (Arc::from(name.as_ref()), value)).collect()))
    }

    /// True for [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        if let Value::Number(number) = self { Some(*number) } else { None }
    }

    /// The text, if it is text.
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The members, if it is a map.
    pub fn as_map(&self) -> Option<&Members> {
        if let Value::Map(members) = self { Some(members) } else { None }
    }

    /// The items, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Value::List(items) = self { Some(items) } else { None }
    }

    /// What kind of value this is, as a word for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) => "list",
            Value::Map(_) => "object",
        }
    }
}

/// As if derived, but for the levels counted: what a peer sends must not take the whole stack.
impl<Context> Decode<Context> for Value {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(match u32::decode(decoder)? {
            0 => Value::Null,
            1 => Value::Bool(Decode::decode(decoder)?),
            2 => Value::Number(Decode::decode(decoder)?),
            3 => Value::Text(Decode::decode(decoder)?),
            4 => {
                let _level = Level::enter()?;
                Value::List(Decode::decode(decoder)?)
            }
            5 => {
                let _level = Level::enter()?;
                Value::Map(Decode::decode(decoder)?)
            }
            found => {
                let allowed = &AllowedEnumVariants::Range { min: 0, max: 5 };
                return Err(DecodeError::UnexpectedVariant { type_name: "Value", allowed, found });
            }
        })
    }
}

bincode::impl_borrow_decode!(Value);

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Number(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::text(value)
    }
}
