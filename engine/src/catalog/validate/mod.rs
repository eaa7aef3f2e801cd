//! What makes a body valid, beyond its shape: one file a subject.

mod activity;
pub(crate) mod algorithm;
mod category;
mod channel;
mod collection;
pub(crate) mod condition;
mod creative;
mod custom_fields;
pub(crate) mod fallback;
pub(crate) mod filter;
pub(crate) mod flow;
pub(crate) mod formula;
mod guardrail;
pub(crate) mod metric;
pub(crate) mod node;
mod offer;
mod placement;
mod policy;
pub(crate) mod rule;
mod schema;
pub(crate) mod scope;
pub(crate) mod settings;
pub(crate) mod text;
