//! A score by an expression (domain.md §4, method `expression`).

use crate::model::flow::{ImpactBlend, Relevance};
use crate::model::record::{choice, record};

record! {
    /// A score node whose method is `expression`.
    pub struct ExpressionScore {
        /// The one method that this is.
        pub method: ExpressionMethod => "method",
        /// Over offer, customer and request, and P, R, I, E and tau.
        pub formula: String => "formula",
        /// Model that gives P.
        pub model_key: Option<String> => "modelKey" = None,
        /// Signals of R; none on = R is 1.
        pub relevance: Relevance => "relevance" = Relevance { channel_match: None, freshness: None, segment_match: None, half_life_days: 7.0 },
        /// Blend of I; none = businessValue.
        pub impact: Option<ImpactBlend> => "impact" = None,
    }
}

choice! {
    /// The method of an [`ExpressionScore`].
    pub enum ExpressionMethod {
        /// Whatever the formula says.
        Expression => "expression",
    }
}

/// The names that stand for factors in a formula, bare, in the order P, R, I, E, τ.
pub const FACTOR_NAMES: [&str; 5] = ["P", "R", "I", "E", "tau"];
