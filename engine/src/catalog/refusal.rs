//! Answers of `apply`: what a write changed, or why it was refused.

use bincode::{Decode, Encode};

use crate::catalog::command::EntityKind;
use crate::keys::{OfferKey, Revision};
use crate::model::fault::{Fault, Faults};

/// Why a command changed nothing. Encodable, because the proposer may sit on another node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// The input is wrong: every fault found, with pointers into the body (400).
    #[error("invalid: {}", sentence(.0))]
    Invalid(Vec<Fault>),
    /// The actor may not do this (403).
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// No such tenant or entity (404).
    #[error("{0} not found")]
    NotFound(String),
    /// The input is well formed, but clashes with what is stored: duplicates, lifecycle, dependents (409).
    #[error("conflict: {message}")]
    Conflict {
        /// The first clash, as a sentence.
        message: String,
        /// Every clash, with pointers where a member is to blame.
        faults: Vec<Fault>,
    },
    /// The entity has another revision than the one expected (412).
    #[error("revision is {actual}, not {expected}")]
    RevisionMismatch {
        /// What the caller expected.
        expected: Revision,
        /// What is stored.
        actual: Revision,
    },
}

fn sentence(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

impl Refusal {
    /// A conflict that no member of the body is to blame for.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        let message = message.into();
        Refusal::Conflict { faults: vec![Fault { pointer: String::new(), message: message.clone() }], message }
    }

    /// A single fault of the whole body.
    pub(crate) fn invalid(pointer: &str, message: impl Into<String>) -> Self {
        Refusal::Invalid(vec![Fault { pointer: pointer.to_owned(), message: message.into() }])
    }

    /// `Invalid` if anything was found, else `Conflict` if anything clashed, else fine.
    pub(crate) fn from_findings(faults: Faults, conflicts: Faults) -> Result<(), Self> {
        if !faults.is_empty() {
            return Err(Refusal::Invalid(faults.into_vec()));
        }
        let faults = conflicts.into_vec();
        match faults.first() {
            None => Ok(()),
            Some(first) => Err(Refusal::Conflict { message: first.message.clone(), faults }),
        }
    }
}

/// What an accepted command did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    /// Id of the entity, key or tenant written. For categories this is where the derived id is told.
    pub id: String,
    /// Its kind; `None` for tenants, API keys and settings.
    pub kind: Option<EntityKind>,
    /// Other entities made, changed or deleted by the same command: the auto-created category, cascades.
    pub also: Vec<(EntityKind, String)>,
    /// Of an edited offer: keys of the caps that count from 0 from now on.
    pub new_caps: Vec<String>,
    /// What an incremental snapshot compiler has to look at again; empty = nothing that decisions read.
    pub effect: Vec<Touched>,
}

/// A part of the compiled snapshot that a write made stale.
///
/// | Write | Touched |
/// |---|---|
/// | offer: made, deleted, any field but the next two (expressions may read each) | `Offer` |
/// | offer: only `emergencyExcluded` or `status` | `Overlay` |
/// | creative | `Offer` of its offer (of both when it moves) |
/// | rule | `Offer` of each offer, or creative's offer, among its scopes; `Shared` for any other scope |
/// | category, sub-category: made, name, status, custom fields, deleted | `Shared` |
/// | channel, placement, collection, activity, policy, guardrail, metric, model, schema, flow publish or rollback, settings | `Shared` |
/// | flow draft, API keys | nothing |
///
/// A deletion touches what it takes along too. Icons, and descriptions of anything but offers, touch nothing. An `Overlay`
/// may still change the largest margin or revenue of active offers, and columns of the two fields if a rule or formula reads
/// them: whoever compiles knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Touched {
    /// Only status or emergency exclusion of an offer.
    Overlay(OfferKey),
    /// The columns of one offer, with its creatives, caps and the rules scoped to it. It may be gone.
    Offer(OfferKey),
    /// What belongs to no single offer: wide rules, policies, slots, collections, categories, flows, settings. Columns of
    /// offers that follow from it are found by comparing.
    Shared,
    /// More offers than can be listed, or a new tenant.
    Everything,
}

impl Touched {
    /// A write that touches more offers than this says `Everything` instead.
    pub const LISTED_OFFERS_MAX: usize = 4_096;

    /// The fewest parts that say the same: sorted, without doubles or parts that a larger one covers.
    pub(crate) fn normalise(mut effect: Vec<Touched>) -> Vec<Touched> {
        effect.sort_unstable();
        effect.dedup();
        if effect.last() == Some(&Touched::Everything) || effect.len() > Self::LISTED_OFFERS_MAX {
            return vec![Touched::Everything];
        }
        let whole: std::collections::BTreeSet<OfferKey> = effect
            .iter()
            .filter_map(|part| match part {
                Touched::Offer(key) => Some(*key),
                Touched::Overlay(_) | Touched::Shared | Touched::Everything => None,
            })
            .collect();
        effect.retain(|part| !matches!(part, Touched::Overlay(key) if whole.contains(key)));
        effect
    }
}
