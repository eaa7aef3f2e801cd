//! Bounded pieces of requests: each reads itself, with its range, so that one reading finds every fault.

use std::sync::Arc;

use bincode::{Decode, Encode};
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;
use proffer_engine::value::Value;

use crate::limits::{ATTRIBUTES_MAX, CUSTOMER_ID_BYTES_MAX, EXCLUDES_MAX, NAME_BYTES_MAX, PROPOSITIONS_LIMIT_MAX};

fn bounded(value: &Value, most: usize, faults: &mut Faults) -> Option<Arc<str>> {
    let Value::Text(text) = value else {
        faults.add(format!("must be a string, not {}", value.kind()));
        return None;
    };
    if text.is_empty() || text.len() > most {
        faults.add(format!("must be 1 to {most} bytes long"));
        return None;
    }
    Some(Arc::clone(text))
}

/// Text of 1 to 256 bytes: a name, a key, an id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Name(pub Arc<str>);

impl Field for Name {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        bounded(value, NAME_BYTES_MAX, faults).map(Name)
    }

    fn write(&self) -> Value {
        Value::Text(Arc::clone(&self.0))
    }
}

/// A customer's id: 1 to 256 bytes, opaque.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Customer(pub Arc<str>);

impl Field for Customer {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        bounded(value, CUSTOMER_ID_BYTES_MAX, faults).map(Customer)
    }

    fn write(&self) -> Value {
        Value::Text(Arc::clone(&self.0))
    }
}

/// A `limit`: 1 to 50.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Limit(pub u32);

impl Field for Limit {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        match value.as_number() {
            Some(n) if n.fract() == 0.0 && (1.0..=f64::from(PROPOSITIONS_LIMIT_MAX)).contains(&n) => {
                Some(Limit(n as u32))
            }
            _ => {
                faults.add(format!("must be a whole number from 1 to {PROPOSITIONS_LIMIT_MAX}"));
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::Number(f64::from(self.0))
    }
}

/// Up to 1,000 names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Names(pub Vec<Arc<str>>);

impl Field for Names {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let Value::List(items) = value else {
            faults.add(format!("must be a list of strings, not {}", value.kind()));
            return None;
        };
        if items.len() > EXCLUDES_MAX {
            faults.add(format!("must have at most {EXCLUDES_MAX} items"));
            return None;
        }
        let before = faults.count();
        let mut names = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Value::Text(name) = item
                && fits(name)
            {
                names.push(Arc::clone(name));
            } else {
                names.extend(faults.within(&index.to_string(), |faults| bounded(item, NAME_BYTES_MAX, faults)));
            }
        }
        (faults.count() == before).then_some(Names(names))
    }

    fn write(&self) -> Value {
        Value::list(self.0.iter().map(|name| Value::Text(Arc::clone(name))))
    }
}

fn fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX
}

/// Named values: the members of an object, in name order, at most 1,000.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct NamedValues(pub Vec<(Arc<str>, Value)>);

impl Field for NamedValues {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let Value::Map(members) = value else {
            faults.add(format!("must be an object, not {}", value.kind()));
            return None;
        };
        if members.len() > ATTRIBUTES_MAX {
            faults.add(format!("must have at most {ATTRIBUTES_MAX} members"));
            return None;
        }
        let before = faults.count();
        for name in members.keys().filter(|name| !fits(name)) {
            faults.add_at(name, format!("the name must be 1 to {NAME_BYTES_MAX} bytes long"));
        }
        if faults.count() > before {
            return None;
        }
        Some(NamedValues(members.iter().map(|(name, value)| (Arc::clone(name), value.clone())).collect()))
    }

    fn write(&self) -> Value {
        Value::map(self.0.iter().cloned())
    }
}
