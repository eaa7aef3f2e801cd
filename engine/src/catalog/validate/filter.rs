//! Conditions of filter nodes, and what flows read.

use std::collections::BTreeSet;

use crate::catalog::entity::shown;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{condition, metric, rule};
use crate::expr::{Namespace, Pattern};
use crate::limits;
use crate::model::fault::Faults;
use crate::model::filter::{FilterCondition, FilterGroup, FilterOperator, FilterTerm};

/// Checks a filter with all its groups.
pub(crate) fn check(tenant: &TenantCatalog, filter: &FilterGroup, faults: &mut Faults) {
    if filter.conditions().len() > limits::FILTER_CONDITIONS_MAX {
        faults.add_at("conditions", format!("must have at most {} conditions", limits::FILTER_CONDITIONS_MAX));
        return;
    }
    check_group(tenant, filter, faults);
}

fn check_group(tenant: &TenantCatalog, group: &FilterGroup, faults: &mut Faults) {
    faults.within("conditions", |faults| {
        if group.conditions.is_empty() {
            faults.add("must not be empty");
        }
        for (index, term) in group.conditions.iter().enumerate() {
            faults.within(&index.to_string(), |faults| match term {
                FilterTerm::Condition(condition) => check_condition(tenant, condition, faults),
                FilterTerm::Group(group) => check_group(tenant, group, faults),
            });
        }
    });
}

fn check_condition(tenant: &TenantCatalog, condition: &FilterCondition, faults: &mut Faults) {
    rule::check_attribute("field", &condition.field, faults);
    let name = condition.name();
    let kind = match &name.namespace {
        Namespace::Offer | Namespace::Bare => match condition::kind_of_offer_field(tenant, &name.path) {
            Some(kind) => kind,
            None => {
                faults.add_at("field", format!("no offer has a field {:?}", shown(&name.path)));
                return;
            }
        },
        Namespace::Metric => match metric::misread(tenant, &name.path) {
            Some(why) => {
                faults.add_at("field", why);
                return;
            }
            None => condition::Kind::Number,
        },
        Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Other(_) => {
            condition::kind_of_attribute(tenant, &name.to_string())
        }
    };
    match (condition.operator, condition.operator.as_rule_operator()) {
        (FilterOperator::IsNull | FilterOperator::IsNotNull, _) => {
            if !condition.value.is_null() {
                faults.add_at("value", format!("{} takes no value", condition.operator.as_str()));
            }
        }
        (_, Some(operator)) => condition::check(operator, &condition.value, kind, faults),
        (_, None) => check_pattern(condition, kind, faults),
    }
}

fn check_pattern(condition: &FilterCondition, kind: condition::Kind, faults: &mut Faults) {
    if !kind.may_be_text() {
        faults.add_at("operator", "needs a string");
    }
    match condition.value.as_text() {
        None => faults.add_at("value", format!("must be a regular expression, not {}", condition.value.kind())),
        Some(pattern) if pattern.chars().count() > limits::TEXT_CHARS_MAX => {
            faults.add_at("value", format!("must have at most {} characters", limits::TEXT_CHARS_MAX));
        }
        Some(pattern) => {
            if let Err(why) = Pattern::new(pattern) {
                faults.add_at("value", why);
            }
        }
    }
}

/// The names that a filter reads.
pub(crate) fn names_read(filter: &FilterGroup) -> BTreeSet<String> {
    filter.conditions().into_iter().map(|condition| condition.name().to_string()).collect()
}
