//! Custom fields: a category's schema of them, and an offer's values for it.

use std::collections::BTreeSet;

use crate::catalog::entity::shown;
use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::{formula, text};
use crate::limits;
use crate::model::category::{CustomField, CustomFieldType};
use crate::model::fault::Faults;
use crate::model::moment::Moment;
use crate::model::offer::Offer;
use crate::model::record::Field;
use crate::model::{Entity, Status};
use crate::value::Value;

/// Words that expressions read as something else than a field.
const RESERVED: [&str; 9] = ["customer", "attributes", "context", "metric", "offer", "true", "false", "null", "in"];

/// Checks a category's schema: names, types, formulas, cycles.
pub(crate) fn check_schema(tenant: &TenantCatalog, fields: &[CustomField], faults: &mut Faults) {
    faults.within("customFields", |faults| {
        if fields.len() > limits::CUSTOM_FIELDS_MAX {
            faults.add(format!("must have at most {} items", limits::CUSTOM_FIELDS_MAX));
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, field) in fields.iter().enumerate() {
            faults.within(&index.to_string(), |faults| {
                if !text::is_identifier(&field.name) {
                    faults.add_at("name", "must be letters, digits and _, not starting with a digit");
                } else if RESERVED.contains(&field.name.as_str()) {
                    faults.add_at("name", format!("{:?} is a word of the expression language", field.name));
                } else if !seen.insert(&field.name) {
                    faults.add_at("name", "is given twice");
                }
                text::check_length("label", &field.label, limits::NAME_CHARS_MAX, faults);
                check_type(field, faults);
            });
        }
        formula::check_fields(tenant, fields, faults);
    });
}

fn check_type(field: &CustomField, faults: &mut Faults) {
    match field.field_type {
        CustomFieldType::Select => {
            text::check_words("options", &field.options, limits::LIST_ITEMS_MAX, faults);
            text::check_distinct("options", &field.options, faults);
            if field.options.is_empty() {
                faults.add_at("options", "a select field needs options");
            }
        }
        CustomFieldType::Text
        | CustomFieldType::Number
        | CustomFieldType::Boolean
        | CustomFieldType::Date
        | CustomFieldType::Computed => {
            if !field.options.is_empty() {
                faults.add_at("options", "only a select field has options");
            }
        }
    }
    let computed = field.field_type == CustomFieldType::Computed;
    if computed {
        if field.formula.as_ref().is_none_or(|formula| formula.trim().is_empty()) {
            faults.add_at("formula", "a computed field needs a formula");
        }
        if field.output_type.is_none() {
            faults.add_at("outputType", "a computed field needs an output type: number or text");
        }
        if field.required {
            faults.add_at("required", "a computed field cannot be required");
        }
    } else {
        if field.formula.is_some() {
            faults.add_at("formula", "only a computed field has a formula");
        }
        if field.output_type.is_some() {
            faults.add_at("outputType", "only a computed field has an output type");
        }
    }
}

/// Checks an offer's values against its category's schema. Without a category there is no schema: values left from a
/// deleted category may stay as they are, new ones are refused.
pub(crate) fn check_values<K>(
    offer: &Offer,
    schema: Option<&[CustomField]>,
    before: Option<&Entity<K, Offer>>,
    faults: &mut Faults,
) {
    faults.within("customFields", |faults| {
        let Some(schema) = schema else {
            for (name, value) in &offer.custom_fields {
                if before.is_none_or(|row| row.body.custom_fields.get(name) != Some(value)) {
                    faults.add_at(name, "an offer without a category has no custom fields");
                }
            }
            return;
        };
        for (name, value) in &offer.custom_fields {
            match schema.iter().find(|field| field.name == *name) {
                None => faults.add_at(name, "is no custom field of the category"),
                Some(field) => faults.within(name, |faults| check_value(field, value, faults)),
            }
        }
        if offer.status != Status::Draft {
            for field in schema.iter().filter(|field| field.required) {
                if offer.custom_fields.get(&field.name).is_none_or(Value::is_null) {
                    faults.add_at(&field.name, "is required unless the offer is a draft");
                }
            }
        }
    });
}

fn check_value(field: &CustomField, value: &Value, faults: &mut Faults) {
    if field.field_type == CustomFieldType::Computed {
        faults.add("is computed and cannot be set");
        return;
    }
    if value.is_null() {
        return;
    }
    match field.field_type {
        CustomFieldType::Computed => {}
        CustomFieldType::Text => {
            if let Some(text) = String::read(value, faults)
                && text.chars().count() > limits::DESCRIPTION_CHARS_MAX
            {
                faults.add(format!("must have at most {} characters", limits::DESCRIPTION_CHARS_MAX));
            }
        }
        CustomFieldType::Number => {
            f64::read(value, faults);
        }
        CustomFieldType::Boolean => {
            bool::read(value, faults);
        }
        CustomFieldType::Date => {
            Moment::read(value, faults);
        }
        CustomFieldType::Select => {
            let chosen = value.as_text();
            if !chosen.is_some_and(|chosen| field.options.iter().any(|option| option == chosen)) {
                let options = field.options.join(", ");
                faults.add(format!("must be one of {}", shown(&options)));
            }
        }
    }
}
