//! Adapters of the [`Propose`](crate::ports::propose::Propose) port.

pub(crate) mod handover;
pub mod hostile;
pub mod local;
pub mod memory;
