//! Guardrails.

use std::collections::BTreeSet;

use crate::catalog::command::EntityKind;
use crate::catalog::entity::{Authored, Context, Findings, stored_in};
use crate::catalog::index::Thing;
use crate::catalog::refusal::Touched;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{formula, text};
use crate::keys::GuardrailKey;
use crate::model::guardrail::Guardrail;
use crate::value::Value;

impl Authored for Guardrail {
    // Each is asked of every offer.
    stored_in!(guardrails: GuardrailKey, EntityKind::Guardrail, at most 100);
    const UNIQUE_NAME: bool = true;

    fn stand_in() -> Value {
        Value::map([("name", Value::text("-")), ("expression", Value::text("true"))])
    }

    fn check(&mut self, context: &Context<'_, Self>, findings: &mut Findings) {
        let faults = &mut findings.faults;
        text::check_name("name", &self.name, faults);
        text::check_description(&self.description, faults);
        formula::check_condition(context.tenant, "expression", &self.expression, faults);
        text::check_range("multiplier", self.multiplier, 0.1, 1.0, faults);
        faults.within("expression", |faults| formula::check_reads(context.tenant, &names_read(self), faults));
    }

    fn references(&self, _tenant: &TenantCatalog) -> Vec<Thing> {
        Vec::new()
    }

    fn reindex(tenant: &mut TenantCatalog, _key: GuardrailKey, before: Option<&Self>, after: Option<&Self>) {
        let reads = |body: Option<&Self>| body.map(names_read).unwrap_or_default();
        tenant.index.reread(&reads(before), reads(after));
    }

    fn touched(
        _tenant: &TenantCatalog,
        _key: GuardrailKey,
        _before: Option<&Self>,
        _after: Option<&Self>,
        effect: &mut Vec<Touched>,
    ) {
        effect.push(Touched::Shared);
    }
}

fn names_read(guardrail: &Guardrail) -> BTreeSet<String> {
    formula::names_read(&guardrail.expression).into_iter().collect()
}
