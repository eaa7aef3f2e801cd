//! What people author, one entity a file, as typed records. Each entity is a body (`Offer`, `Creative` …) wrapped in
//! [`Entity`], which carries what the system gives: key, id, times, revision.
//!
//! References between entities are [`Ref`]: an id (in a write also an exact name, which `catalog` resolves and stores as id).

use std::fmt;

use bincode::{Decode, Encode};

use crate::keys::Revision;
use crate::time::Timestamp;
use crate::value::Value;

pub mod activity;
pub mod algorithm;
pub mod branch;
pub mod category;
pub mod channel;
pub mod collection;
pub mod creative;
pub mod fault;
pub mod filter;
pub mod flow;
pub mod guardrail;
pub mod metric;
pub mod moment;
pub mod objective;
pub mod offer;
pub mod placement;
pub mod policy;
pub mod property;
pub mod record;
pub mod rest;
pub mod rule;
pub mod schema;
pub mod scoring;
pub mod settings;
pub mod template;

use fault::Faults;
use record::{Field, choice};

/// An authored body with what the system adds to it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Entity<K, T> {
    /// Small number for state and log; never reused.
    pub key: K,
    /// Public id; never reused.
    pub id: String,
    /// When the create command was made.
    pub created_at: Timestamp,
    /// When the last change was made.
    pub updated_at: Timestamp,
    /// Revision of the last change.
    pub revision: Revision,
    /// What was authored.
    pub body: T,
}

/// A reference to another entity. Stored references are ids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Ref(pub String);

impl Field for Ref {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        String::read(value, faults).map(Ref)
    }

    fn write(&self) -> Value {
        Value::text(&self.0)
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

choice! {
    /// Where an entity is in its life. Only `Active` ones take part in decisions.
    pub enum Status {
        /// Being written.
        Draft => "draft",
        /// In force.
        Active => "active",
        /// Out of force for a while.
        Paused => "paused",
        /// Retired for good.
        Archived => "archived",
    }
}

/// A number from 0 to 100 (whole): priorities, business values, weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Percent(pub u8);

impl Field for Percent {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        match value.as_number() {
            Some(number) if number.fract() == 0.0 && (0.0..=100.0).contains(&number) => Some(Percent(number as u8)),
            _ => {
                faults.add("must be a whole number from 0 to 100");
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::Number(f64::from(self.0))
    }
}
