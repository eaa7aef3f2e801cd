//! What if: recorded decisions made again under two catalogues, and what that would change. Nothing is read but traces and
//! catalogues, so nothing can be counted.

use std::collections::BTreeMap;

use crate::catalog::TenantCatalog;
use crate::decide::decision::{Decision, Funnel, PropositionKind};
use crate::decide::trace::Trace;
use crate::keys::OfferKey;
use crate::snapshot::Snapshot;

/// What decisions come to together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// Decisions that propose anything.
    pub filled: u64,
    /// Propositions, fallback ones included.
    pub propositions: u64,
    /// Of these, fallback ones.
    pub fallbacks: u64,
    /// Sum of the scores.
    pub score: f64,
    /// Sum of the proposed offers' `revenueValue`.
    pub revenue: f64,
    /// Decisions that passed an offer over for want of a unit of a global cap.
    pub budget_limited: u64,
    /// Sums of the funnels.
    pub funnel: Funnel,
    /// How often each offer is proposed.
    pub offers: BTreeMap<OfferKey, u64>,
}

impl Totals {
    fn add(&mut self, catalog: &TenantCatalog, decision: &Decision) {
        self.filled += u64::from(!decision.propositions.is_empty());
        self.budget_limited += u64::from(decision.remarks.budget_limited);
        let Funnel { total_candidates, after_qualification, after_suppression, after_contact_policy } = decision.funnel;
        self.funnel.total_candidates += total_candidates;
        self.funnel.after_qualification += after_qualification;
        self.funnel.after_suppression += after_suppression;
        self.funnel.after_contact_policy += after_contact_policy;
        for proposition in &decision.propositions {
            self.propositions += 1;
            self.fallbacks += u64::from(proposition.kind == PropositionKind::Fallback);
            self.score += proposition.score;
            self.revenue += catalog.offers().get(proposition.offer).map_or(0.0, |offer| offer.body.revenue_value);
            *self.offers.entry(proposition.offer).or_default() += 1;
        }
    }
}

/// How decisions would move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// How many were made again.
    pub decisions: u64,
    /// How many of them propose other offers, or in another order.
    pub changed: u64,
    /// As the catalogue is.
    pub before: Totals,
    /// As it would be.
    pub after: Totals,
}

/// A catalogue with its snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Under<'a> {
    /// What was authored.
    pub catalog: &'a TenantCatalog,
    /// The same, compiled.
    pub snapshot: &'a Snapshot,
}

/// Makes the decisions of `traces` again under both catalogues. A cap that a trace has not looked up counts as having units. O(traces ·
/// decision).
pub fn compare<'t>(traces: impl IntoIterator<Item = &'t Trace>, before: Under<'_>, after: Under<'_>) -> Comparison {
    let mut found = Comparison::default();
    let offers = |decision: &Decision| -> Vec<_> {
        decision.propositions.iter().map(|proposed| (proposed.offer, proposed.slot, proposed.creative)).collect()
    };
    for trace in traces {
        let (is, would_be) = (trace.decide_under(before.snapshot), trace.decide_under(after.snapshot));
        found.decisions += 1;
        found.changed += u64::from(offers(&is) != offers(&would_be));
        found.before.add(before.catalog, &is);
        found.after.add(after.catalog, &would_be);
    }
    found
}
