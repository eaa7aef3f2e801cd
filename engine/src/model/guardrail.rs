//! Guardrails: what must hold of every candidate of a tenant, whatever the flow (domain.md §4).

use crate::model::record::{choice, record};
use crate::model::{Percent, Status};

record! {
    /// An expression over offer, customer and request that every general offer must meet, or scores less.
    pub struct Guardrail {
        /// Unique in the tenant.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active ones bind.
        pub status: Status => "status" = Status::Active,
        /// What must be true.
        pub expression: String => "expression",
        /// What happens where it is not.
        pub mode: GuardrailMode => "mode" = GuardrailMode::Hard,
        /// Soft ones multiply the score by it, 0.1–1.
        pub multiplier: f64 => "multiplier" = 0.5,
        /// Order, 0–100, highest first: the first hard one that fails is named.
        pub priority: Percent => "priority" = Percent(50),
    }
}

choice! {
    /// What a guardrail does to an offer that does not meet it.
    pub enum GuardrailMode {
        /// Removes it.
        Hard => "hard",
        /// Multiplies its score.
        Soft => "soft",
    }
}
