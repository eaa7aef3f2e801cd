//! Records: authored objects as typed structs that read from and write to [`Value`] by one declaration.
//!
//! `record!` declares a struct once: field, type, wire name, default. From it come the struct, its reader (which collects
//! *all* faults with their pointers, unknown members included) and its writer. `choice!` does the same for word enums.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::fault::Faults;
use crate::value::{Members, Value};

/// A type that can be read from and written to a [`Value`].
pub trait Field: Sized {
    /// Reads `value`, adding every fault found; `None` if there was any.
    fn read(value: &Value, faults: &mut Faults) -> Option<Self>;

    /// The value that reads back as `self`.
    fn write(&self) -> Value;
}

/// A [`Field`] that is an object with named members.
pub trait Record: Field {
    /// Wire names of all members, in declaration order.
    const MEMBERS: &'static [&'static str];
}

/// Reads member `name`; absent or null gives `default`, or a fault if there is none.
pub fn read_member<T: Field>(
    members: &Members,
    name: &str,
    default: Option<fn() -> T>,
    faults: &mut Faults,
) -> Option<T> {
    match (members.get(name), default) {
        (None | Some(Value::Null), Some(default)) => Some(default()),
        (None | Some(Value::Null), None) => {
            faults.add_at(name, "is required");
            None
        }
        (Some(value), _) => faults.within(name, |faults| T::read(value, faults)),
    }
}

/// Adds a fault for each member that is not in `known`.
pub fn refuse_unknown(members: &Members, known: &[&str], faults: &mut Faults) {
    for name in members.keys() {
        if !known.contains(&&**name) {
            faults.add_at(name, "unknown field");
        }
    }
}

fn wrong_kind(expected: &str, value: &Value, faults: &mut Faults) {
    faults.add(format!("must be {expected}, not {}", value.kind()));
}

/// Declares a record: `pub name: Type => "wireName" [= default],`. Without a default the member is required. Exported, so
/// that `api` reads its requests by the same declaration.
#[macro_export]
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident {
        $($(#[$field_doc:meta])* pub $field:ident : $ty:ty => $wire:literal $(= $default:expr)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }

        impl $crate::model::record::Record for $name {
            const MEMBERS: &'static [&'static str] = &[$($wire),*];
        }

        impl $crate::model::record::Field for $name {
            fn read(value: &$crate::value::Value, faults: &mut $crate::model::fault::Faults) -> Option<Self> {
                let Some(members) = value.as_map() else {
                    faults.add(format!("must be an object, not {}", value.kind()));
                    return None;
                };
                $crate::model::record::refuse_unknown(
                    members, <Self as $crate::model::record::Record>::MEMBERS, faults);
                let before = faults.count();
                $(let $field: Option<$ty> = $crate::model::record::read_member(
                    members, $wire, $crate::record!(@default $ty $(, $default)?), faults);)*
                if faults.count() > before { return None; }
                Some($name { $($field: $field?,)* })
            }

            fn write(&self) -> $crate::value::Value {
                $crate::value::Value::map([
                    $(($wire, $crate::model::record::Field::write(&self.$field)),)*
                ])
            }
        }
    };
    (@default $ty:ty) => { None };
    (@default $ty:ty, $default:expr) => { Some((|| $default) as fn() -> $ty) };
}
pub(crate) use record;

/// Declares an enum whose values are words on the wire.
#[macro_export]
macro_rules! choice {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $wire:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $wire,)+ }
            }

            /// The value of a word, if it is one.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($wire => Some($name::$variant),)+ _ => None }
            }
        }

        impl $crate::model::record::Field for $name {
            fn read(value: &$crate::value::Value, faults: &mut $crate::model::fault::Faults) -> Option<Self> {
                let found = value.as_text().and_then($name::parse);
                if found.is_none() {
                    faults.add(concat!("must be one of" $(, " ", $wire)+));
                }
                found
            }

            fn write(&self) -> $crate::value::Value {
                $crate::value::Value::text(self.as_str())
            }
        }
    };
}
pub(crate) use choice;

impl Field for Value {
    fn read(value: &Value, _: &mut Faults) -> Option<Self> {
        Some(value.clone())
    }

    fn write(&self) -> Value {
        self.clone()
    }
}

impl Field for bool {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        if let Value::Bool(flag) = value {
            return Some(*flag);
        }
        wrong_kind("a boolean", value, faults);
        None
    }

    fn write(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Field for f64 {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let number = value.as_number().filter(|number| number.is_finite());
        if number.is_none() {
            wrong_kind("a finite number", value, faults);
        }
        number
    }

    fn write(&self) -> Value {
        Value::Number(*self)
    }
}

/// Largest integer that every JSON reader keeps exact (2^53 − 1).
pub const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

macro_rules! integer {
    ($($ty:ty),+) => {$(
        impl Field for $ty {
            fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
                let least = <$ty>::MIN as f64;
                let most = (<$ty>::MAX as f64).min(MAX_SAFE_INTEGER);
                match value.as_number() {
                    Some(number) if number.fract() == 0.0 && number >= least && number <= most => Some(number as $ty),
                    Some(_) => { faults.add(format!("must be a whole number from {least} to {most}")); None }
                    None => { wrong_kind("a whole number", value, faults); None }
                }
            }

            fn write(&self) -> Value {
                Value::Number(*self as f64)
            }
        }
    )+};
}
integer!(u8, u16, u32, u64);

impl Field for String {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        if let Value::Text(text) = value {
            return Some(text.to_string());
        }
        wrong_kind("a string", value, faults);
        None
    }

    fn write(&self) -> Value {
        Value::text(self)
    }
}

impl<T: Field> Field for Option<T> {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::read(value, faults).map(Some) }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Field::write)
    }
}

impl<T: Field> Field for Box<T> {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        T::read(value, faults).map(Box::new)
    }

    fn write(&self) -> Value {
        (**self).write()
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let Value::List(items) = value else {
            wrong_kind("a list", value, faults);
            return None;
        };
        let before = faults.count();
        let mut read = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            read.extend(faults.within(&index.to_string(), |faults| T::read(item, faults)));
        }
        (faults.count() == before).then_some(read)
    }

    fn write(&self) -> Value {
        Value::list(self.iter().map(Field::write))
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let Value::Map(members) = value else {
            wrong_kind("an object", value, faults);
            return None;
        };
        let before = faults.count();
        let mut read = BTreeMap::new();
        for (name, item) in members.iter() {
            if let Some(item) = faults.within(name, |faults| T::read(item, faults)) {
                read.insert(name.to_string(), item);
            }
        }
        (faults.count() == before).then_some(read)
    }

    fn write(&self) -> Value {
        Value::Map(Arc::new(self.iter().map(|(name, item)| (Arc::from(name.as_str()), item.write())).collect()))
    }
}
