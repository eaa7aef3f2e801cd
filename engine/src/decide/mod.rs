//! The decision: which offers, for this customer, here, now.
//!
//! [`decide`] is the fast evaluation, [`take_of`] what it takes. One stage a file, in the order they are applied:
//! `slots`, `candidates`, `qualify`, `suppress`, `contact`, `mandatory`, `rank`, `compute`, `explain`, `effects`. Of what calls
//! them, `pools` finds what survives, `filling` chooses from it slot by slot, `sharing` for all slots at once, and `kernel` is the whole.

mod assignment;
mod candidates;
mod case;
mod compute;
mod contact;
pub mod counting;
pub mod decision;
mod effects;
mod explain;
mod filling;
mod funnel;
pub mod holdout;
mod kernel;
mod mandatory;
pub mod oracle;
mod pools;
mod qualify;
mod rank;
pub mod request;
pub mod schedule;
pub mod score;
mod screen;
mod sharing;
mod slots;
pub mod stable_hash;
mod suppress;
pub mod trace;
pub mod variant;
pub mod view;
pub mod what_if;

pub use case::Scratch;
pub use effects::{Taking, enrolment_of, take_of};
pub use kernel::decide;
