//! Guardrails, compiled: hard ones are tests like those of filters, soft ones are asked of each offer that is scored.

use super::flows::Parts;
use super::rules::{Question, ask_expression};
use super::screens::{Screen, Test};
use super::slots::Names;
use crate::catalog::TenantCatalog;
use crate::decide::decision::RemovalReason;
use crate::model::Status;
use crate::model::guardrail::GuardrailMode;

/// All that are in force, each kind by priority (highest first), then key.
#[derive(Clone, Debug, Default)]
pub struct Guardrails {
    /// An offer that fails one is removed.
    pub hard: Vec<Screen>,
    /// What is asked, and what a failure multiplies the score by.
    pub soft: Vec<(Question, f64)>,
}

impl Guardrails {
    /// Compiles those of a catalogue.
    pub(crate) fn new(catalog: &TenantCatalog, names: &mut Names, parts: &mut Parts) -> Self {
        let in_force = catalog.guardrails().iter().filter(|row| row.body.status == Status::Active);
        let mut rows: Vec<_> = in_force.collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.body.priority), row.key));
        let mut found = Guardrails::default();
        for row in rows {
            let question = ask_expression(names, &row.body.expression);
            match row.body.mode {
                GuardrailMode::Hard => {
                    let test = parts.tests.number(Test::Ask(question));
                    found.hard.push(Screen { test, reason: RemovalReason::Guardrail(row.key) });
                }
                GuardrailMode::Soft => found.soft.push((question, row.body.multiplier)),
            }
        }
        found
    }
}
