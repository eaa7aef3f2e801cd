//! Adapters of the [`Propose`](crate::ports::propose::Propose) port.

pub mod hostile;
pub mod memory;
