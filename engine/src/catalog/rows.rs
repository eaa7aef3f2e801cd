//! Rows that customers bring: checked against their schema.

use crate::catalog::entity::shown;
use crate::catalog::tenant::TenantCatalog;
use crate::keys::SchemaKey;
use crate::limits;
use crate::model::fault::{Fault, Faults};
use crate::model::moment::Moment;
use crate::model::record::{Field, MAX_SAFE_INTEGER};
use crate::model::schema::{DataType, SchemaField};
use crate::value::Value;

/// A row that fits its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whose row it is: the value of the unique column.
    pub customer: String,
    /// All columns of the schema in its order; null where none was given.
    pub columns: Vec<(String, Value)>,
}

/// Bytes of a customer's id.
const CUSTOMER_BYTES_MAX: usize = 256;

impl TenantCatalog {
    /// Checks one row `{column: value}`. O(columns · log).
    ///
    /// # Errors
    /// Every fault, with pointers into the row.
    pub fn check_row(&self, schema: SchemaKey, row: &Value) -> Result<Row, Vec<Fault>> {
        let mut faults = Faults::new();
        let Some(schema) = self.schemas().get(schema) else {
            faults.add("the schema does not exist");
            return Err(faults.into_vec());
        };
        let Value::Map(members) = row else {
            faults.add(format!("must be an object, not {}", row.kind()));
            return Err(faults.into_vec());
        };
        let fields = &schema.body.fields;
        for name in members.keys() {
            if !fields.iter().any(|field| *field.name == **name) {
                faults.add_at(shown(name), "is no column of the schema");
            }
        }
        let mut customer = None;
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let value = members.get(field.name.as_str()).cloned().unwrap_or(Value::Null);
            faults.within(&field.name, |faults| {
                check_column(field, &value, faults);
                if field.is_unique {
                    customer = value.as_text().map(str::to_owned);
                    check_customer(&value, faults);
                }
            });
            columns.push((field.name.clone(), value));
        }
        match customer {
            Some(customer) if faults.is_empty() => Ok(Row { customer, columns }),
            Some(_) | None => Err(faults.into_vec()),
        }
    }
}

fn check_customer(value: &Value, faults: &mut Faults) {
    match value.as_text() {
        Some(id) => {
            if !(1..=CUSTOMER_BYTES_MAX).contains(&id.len()) {
                faults.add(format!("must have 1 to {CUSTOMER_BYTES_MAX} bytes"));
            }
        }
        None => {
            if value.is_null() {
                faults.add("is required: it names the customer");
            }
        }
    }
}

fn check_column(field: &SchemaField, value: &Value, faults: &mut Faults) {
    if value.is_null() {
        if !field.is_nullable && !field.is_unique {
            faults.add("must not be null");
        }
        return;
    }
    match field.data_type {
        DataType::Varchar | DataType::Text => {
            if let Some(text) = String::read(value, faults)
                && text.chars().count() > limits::DESCRIPTION_CHARS_MAX
            {
                faults.add(format!("must have at most {} characters", limits::DESCRIPTION_CHARS_MAX));
            }
        }
        DataType::Integer | DataType::Bigint => {
            if let Some(number) = f64::read(value, faults)
                && (number.fract() != 0.0 || number.abs() > MAX_SAFE_INTEGER)
            {
                faults.add("must be a whole number");
            }
        }
        DataType::Decimal | DataType::Float => drop(f64::read(value, faults)),
        DataType::Boolean => drop(bool::read(value, faults)),
        DataType::Date | DataType::Timestamp => drop(Moment::read(value, faults)),
        DataType::Json => {
            if let Err(refusal) = crate::catalog::validate::text::check_body(value) {
                faults.add(refusal.to_string());
            }
        }
    }
}
