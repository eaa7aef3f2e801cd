//! The decision: which offers, for this customer, here, now.

pub mod counting;
pub mod decision;
pub mod holdout;
pub mod oracle;
pub mod request;
pub mod schedule;
pub mod score;
pub mod stable_hash;
pub mod variant;
pub mod view;
