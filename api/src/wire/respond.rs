//! Bodies of `respond` and `release`.

use proffer_engine::record;
use proffer_engine::value::Value;

use crate::wire::field::{Customer, Name};

record! {
    /// What happened to a proposition.
    pub struct Respond {
        /// Who responded.
        pub customer_id: Customer => "customerId",
        /// The decision that proposed it.
        pub recommendation_id: Option<String> => "recommendationId" = None,
        /// Which of its propositions, from 1.
        pub rank: Option<u16> => "rank" = None,
        /// Which offer, by id or exact name.
        pub offer_id: Option<Name> => "offerId" = None,
        /// Which creative, by id or exact name.
        pub creative_id: Option<Name> => "creativeId" = None,
        /// Outcome key.
        pub outcome: Name => "outcome",
        /// Counts once under this key; the header `Idempotency-Key` says the same.
        pub idempotency_key: Option<Name> => "idempotencyKey" = None,
        /// Money or value of a conversion.
        pub conversion_value: Option<f64> => "conversionValue" = None,
        /// When it happened; stored only.
        pub timestamp: Option<String> => "timestamp" = None,
        /// Free details; `scope` of an opt-out.
        pub outcome_details: Option<Value> => "outcomeDetails" = None,
    }
}

record! {
    /// Units to give back.
    pub struct Release {
        /// Whose.
        pub customer_id: Customer => "customerId",
        /// Of which decision.
        pub recommendation_id: String => "recommendationId",
        /// Of which propositions, from 1; empty = all.
        pub ranks: Vec<u16> => "ranks" = Vec::new(),
    }
}
