//! The decision: which offers, for this customer, here, now.

pub mod decision;
pub mod request;
pub mod view;
