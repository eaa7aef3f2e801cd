//! Several aims of a flow weighed against each other (domain.md §4, `optimize`).

use crate::model::record::record;

record! {
    /// What takes the place of the method's score.
    pub struct Optimize {
        /// The aims.
        pub objectives: Objectives => "objectives",
    }
}

record! {
    /// Weights of aims, each of which is a number from 0 (or what the method scores) for an offer; they sum to 1.
    pub struct Objectives {
        /// What the score node's method gives, before match, fatigue and boost.
        pub score: f64 => "score" = 0.0,
        /// P.
        pub propensity: f64 => "propensity" = 0.0,
        /// R.
        pub relevance: f64 => "relevance" = 0.0,
        /// I.
        pub impact: f64 => "impact" = 0.0,
        /// priority/100.
        pub priority: f64 => "priority" = 0.0,
        /// businessValue/100.
        pub business_value: f64 => "businessValue" = 0.0,
        /// margin over the largest.
        pub margin: f64 => "margin" = 0.0,
        /// revenueValue over the largest.
        pub revenue_value: f64 => "revenueValue" = 0.0,
    }
}

impl Objectives {
    /// Each aim's wire name and weight, in the order they are summed.
    pub fn weights(&self) -> [(&'static str, f64); 8] {
        let Objectives { score, propensity, relevance, impact, priority, business_value, margin, revenue_value } = self;
        [
            ("score", *score),
            ("propensity", *propensity),
            ("relevance", *relevance),
            ("impact", *impact),
            ("priority", *priority),
            ("businessValue", *business_value),
            ("margin", *margin),
            ("revenueValue", *revenue_value),
        ]
    }

    /// Whether an aim is a share of the largest margin or revenue value.
    pub fn is_relative(&self) -> bool {
        self.margin != 0.0 || self.revenue_value != 0.0
    }
}
