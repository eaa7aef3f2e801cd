//! What makes a body valid, beyond its shape: one file a subject.

mod activity;
mod category;
mod channel;
mod collection;
pub(crate) mod condition;
mod creative;
mod custom_fields;
pub(crate) mod fallback;
pub(crate) mod flow;
mod formula;
mod offer;
mod placement;
mod policy;
mod rule;
mod schema;
pub(crate) mod scope;
pub(crate) mod settings;
pub(crate) mod text;
