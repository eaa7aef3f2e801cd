//! Categories and sub-categories, and the custom-field schema a category gives its offers (domain.md §3, seed 001).

use crate::model::record::{choice, record};
use crate::model::{Ref, Status};

record! {
    /// A top-level business domain.
    pub struct Category {
        /// Unique in the tenant, 1–255 characters.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Icon name for a user interface.
        pub icon: String => "icon" = String::new(),
        /// Colour name for a user interface.
        pub color: String => "color" = "blue".to_owned(),
        /// Offers of a category that is not active are no candidates.
        pub status: Status => "status" = Status::Active,
        /// Display order.
        pub ordinal: u32 => "ordinal" = 0,
        /// Schema of its offers' `customFields`, ≤ 500.
        pub custom_fields: Vec<CustomField> => "customFields" = Vec::new(),
    }
}

record! {
    /// One custom field of a category's offers.
    pub struct CustomField {
        /// `[A-Za-z_][A-Za-z0-9_]*`, unique, not a namespace or literal.
        pub name: String => "name",
        /// Display label.
        pub label: String => "label" = String::new(),
        /// What values it takes.
        pub field_type: CustomFieldType => "type",
        /// Whether an offer that is not a draft must fill it.
        pub required: bool => "required" = false,
        /// Choices, for `select`.
        pub options: Vec<String> => "options" = Vec::new(),
        /// Expression, for `computed`.
        pub formula: Option<String> => "formula" = None,
        /// What the formula yields, for `computed`.
        pub output_type: Option<OutputType> => "outputType" = None,
    }
}

choice! {
    /// Types of custom fields.
    pub enum CustomFieldType {
        /// Any string.
        Text => "text",
        /// Any finite number.
        Number => "number",
        /// One of `options`.
        Select => "select",
        /// true or false.
        Boolean => "boolean",
        /// ISO 8601 date or date-time.
        Date => "date",
        /// Evaluated per customer at decision time.
        Computed => "computed",
    }
}

choice! {
    /// What a computed field yields; a result of another type is null.
    pub enum OutputType {
        /// A number.
        Number => "number",
        /// Text.
        Text => "text",
    }
}

record! {
    /// Second level of the hierarchy.
    pub struct SubCategory {
        /// Unique within its category.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Parent.
        pub category_id: Ref => "categoryId",
        /// Offers of one that is not active are no candidates.
        pub status: Status => "status" = Status::Active,
        /// Display order within the parent.
        pub ordinal: u32 => "ordinal" = 0,
    }
}
