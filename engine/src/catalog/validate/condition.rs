//! `attribute operator value`: the shape of the value, and its type where the attribute's is known.

use crate::catalog::tenant::TenantCatalog;
use crate::limits;
use crate::model::category::{CustomField, CustomFieldType, OutputType};
use crate::model::fault::Faults;
use crate::model::moment::Moment;
use crate::model::record::Field;
use crate::model::rule::Operator;
use crate::model::schema::{DataType, SchemaEntity};
use crate::value::Value;

/// What is known of the values of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Number,
    Text,
    Boolean,
    /// ISO dates and date-times, as text.
    Moment,
    /// A list of texts.
    Texts,
    /// Nothing is known, or anything goes.
    Any,
}

impl Kind {
    /// The least in order.
    pub(crate) const FIRST: Kind = Kind::Number;

    /// Of a category's custom field.
    pub(crate) fn of_field(field: &CustomField) -> Self {
        match (field.field_type, field.output_type) {
            (CustomFieldType::Number, _) | (CustomFieldType::Computed, Some(OutputType::Number)) => Kind::Number,
            (CustomFieldType::Text | CustomFieldType::Select, _)
            | (CustomFieldType::Computed, Some(OutputType::Text) | None) => Kind::Text,
            (CustomFieldType::Boolean, _) => Kind::Boolean,
            (CustomFieldType::Date, _) => Kind::Moment,
        }
    }

    fn of_column(data_type: DataType) -> Self {
        match data_type {
            DataType::Varchar | DataType::Text => Kind::Text,
            DataType::Integer | DataType::Bigint | DataType::Decimal | DataType::Float => Kind::Number,
            DataType::Boolean => Kind::Boolean,
            DataType::Date | DataType::Timestamp => Kind::Moment,
            DataType::Json => Kind::Any,
        }
    }

    fn admits(self, value: &Value) -> bool {
        match self {
            Kind::Number => value.as_number().is_some(),
            Kind::Text | Kind::Texts => value.as_text().is_some(),
            Kind::Boolean => matches!(value, Value::Bool(_)),
            Kind::Moment => is_moment(value),
            Kind::Any => true,
        }
    }

    /// Whether a value may be a string.
    pub(crate) fn may_be_text(self) -> bool {
        match self {
            Kind::Text | Kind::Moment | Kind::Any => true,
            Kind::Number | Kind::Boolean | Kind::Texts => false,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Text => "a string",
            Kind::Boolean => "a boolean",
            Kind::Moment => "an ISO 8601 date or date-time",
            Kind::Texts => "a list of strings",
            Kind::Any => "any value",
        }
    }
}

fn is_moment(value: &Value) -> bool {
    Moment::read(value, &mut Faults::new()).is_some()
}

/// What the tenant's customer schemas say of an attribute as a condition names it; bare names are `customer.x`. Columns
/// of the same name and different types leave it open.
pub(crate) fn kind_of_attribute(tenant: &TenantCatalog, attribute: &str) -> Kind {
    let column = match attribute.split_once('.') {
        None => attribute,
        Some(("customer", column)) => column,
        Some(_) => return Kind::Any,
    };
    let columns = tenant
        .schemas()
        .iter()
        .filter(|schema| schema.body.entity_type == SchemaEntity::Customer)
        .flat_map(|schema| schema.body.fields.iter())
        .filter(|field| field.name == column)
        .map(|field| Kind::of_column(field.data_type));
    common(columns)
}

/// What is known of an offer's field: built-in, else custom in any category.
pub(crate) fn kind_of_offer_field(tenant: &TenantCatalog, field: &str) -> Option<Kind> {
    let built_in = match field {
        "id" | "name" | "description" | "status" | "kind" | "categoryId" | "category" | "subCategoryId"
        | "productType" | "shortDesc" => Some(Kind::Text),
        "priority" | "businessValue" | "margin" | "revenueValue" => Some(Kind::Number),
        "mandatory" => Some(Kind::Boolean),
        "tags" | "preferredSegments" => Some(Kind::Texts),
        _ => None,
    };
    if built_in.is_some() {
        return built_in;
    }
    let mut kinds = tenant.index.kinds_of_field(field).peekable();
    kinds.peek()?;
    Some(common(kinds))
}

fn common(kinds: impl Iterator<Item = Kind>) -> Kind {
    kinds.reduce(|one, other| if one == other { one } else { Kind::Any }).unwrap_or(Kind::Any)
}

/// Checks that `value` is what `operator` takes, and of the attribute's kind: nothing is coerced when deciding.
pub(crate) fn check(operator: Operator, value: &Value, kind: Kind, faults: &mut Faults) {
    match operator {
        Operator::Exists | Operator::NotExists => {
            if !value.is_null() {
                faults.add_at("value", format!("{} takes no value", operator.as_str()));
            }
        }
        Operator::Eq | Operator::Neq => {
            if kind == Kind::Texts {
                faults.add_at("operator", "does not apply to a list; use contains");
            } else {
                faults.within("value", |faults| check_scalar(value, kind, faults));
            }
        }
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            check_ordered(operator, kind, faults);
            faults.within("value", |faults| check_bound(value, kind, faults));
        }
        Operator::In | Operator::NotIn => faults.within("value", |faults| check_members(value, kind, faults)),
        Operator::Contains => match kind {
            Kind::Number | Kind::Boolean | Kind::Moment => faults.add_at("operator", "needs a string or a list"),
            Kind::Text | Kind::Texts => faults.within("value", |faults| check_scalar(value, Kind::Text, faults)),
            Kind::Any => faults.within("value", |faults| check_scalar(value, Kind::Any, faults)),
        },
        Operator::StartsWith => {
            if !matches!(kind, Kind::Text | Kind::Any) {
                faults.add_at("operator", "needs a string");
            }
            faults.within("value", |faults| check_scalar(value, Kind::Text, faults));
        }
        Operator::Between => {
            check_ordered(operator, kind, faults);
            faults.within("value", |faults| check_interval(value, kind, faults));
        }
    }
}

fn check_ordered(operator: Operator, kind: Kind, faults: &mut Faults) {
    if matches!(kind, Kind::Boolean | Kind::Texts) {
        faults.add_at("operator", format!("{} does not apply to {}", operator.as_str(), kind.word()));
    }
}

fn check_scalar(value: &Value, kind: Kind, faults: &mut Faults) {
    match value {
        Value::Null | Value::List(_) | Value::Map(_) => {
            faults.add(format!("must be a string, number or boolean, not {}", value.kind()));
        }
        Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
            if !kind.admits(value) {
                faults.add(format!("must be {}: nothing is converted", kind.word()));
            } else if value.as_text().is_some_and(|text| text.chars().count() > limits::TEXT_CHARS_MAX) {
                faults.add(format!("must have at most {} characters", limits::TEXT_CHARS_MAX));
            }
        }
    }
}

/// A number or an ISO date: what has an order.
fn check_bound(value: &Value, kind: Kind, faults: &mut Faults) {
    match kind {
        Kind::Number | Kind::Moment => check_scalar(value, kind, faults),
        Kind::Text | Kind::Any | Kind::Boolean | Kind::Texts => {
            if value.as_number().is_none() && !is_moment(value) {
                faults.add("must be a number or an ISO 8601 date or date-time");
            } else if kind == Kind::Text && value.as_number().is_some() {
                faults.add("must be an ISO 8601 date or date-time: the attribute is a string");
            }
        }
    }
}

fn check_members(value: &Value, kind: Kind, faults: &mut Faults) {
    let Some(items) = value.as_list() else {
        faults.add(format!("must be a list, not {}", value.kind()));
        return;
    };
    if items.is_empty() {
        faults.add("must not be empty");
    }
    if items.len() > limits::LIST_ITEMS_MAX {
        faults.add(format!("must have at most {} items", limits::LIST_ITEMS_MAX));
        return;
    }
    for (index, item) in items.iter().enumerate() {
        faults.within(&index.to_string(), |faults| check_scalar(item, kind, faults));
    }
}

fn check_interval(value: &Value, kind: Kind, faults: &mut Faults) {
    let Some([low, high]) = value.as_list() else {
        faults.add("must be a list of two: lowest and highest");
        return;
    };
    faults.within("0", |faults| check_bound(low, kind, faults));
    faults.within("1", |faults| check_bound(high, kind, faults));
    match (low.as_number(), high.as_number()) {
        (Some(low), Some(high)) => {
            if low > high {
                faults.add("the lowest is above the highest");
            }
        }
        (None, None) => {}
        (Some(_), None) | (None, Some(_)) => faults.add("both ends must be of the same type"),
    }
}
