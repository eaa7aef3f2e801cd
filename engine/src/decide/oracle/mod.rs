//! The naive evaluation: walks every offer through every stage, for every slot, straight over the authored catalogue.
//!
//! This is the executable form of domain.md §2–§7 and docs/semantics.md. It has no index, no cache and no early stop, and
//! it shares nothing with the kernel but the leaf functions beside it and the expression language; the kernel must give
//! the same [`Decision`] (tests/kernel_equals_oracle.rs). When the two disagree, the documents decide which is wrong.

mod answer;
mod case;
mod choice;
mod creatives;
mod flow;
mod limits;
mod metrics;
mod models;
mod policies;
mod propensity;
mod rules;
mod scoring;
mod slots;
mod stages;

use crate::catalog::TenantCatalog;
use crate::decide::decision::Decision;
use crate::decide::request::Request;
use crate::decide::view::{EscrowView, Instant, Subject};
use crate::learn::Tallies;
use crate::profile::state::Profile;

/// Decides `request`; draws derive from `seed`. O(slots · offers · (rules + policies) · history).
pub fn decide(
    catalog: &TenantCatalog,
    subject: Subject<'_>,
    escrow: &dyn EscrowView,
    tallies: &Tallies,
    request: &Request,
    at: &Instant,
    seed: u64,
) -> Decision {
    let stranger = Profile::default();
    let profile = subject.profile.unwrap_or(&stranger);
    let case = case::Case::new(catalog, profile, subject.symbols, escrow, tallies, request, *at, seed);
    answer::answer(&case)
}
