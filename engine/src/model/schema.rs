//! Schemas: the shape of rows that customers bring (entity type customer) or all nodes share (reference).

use crate::model::Status;
use crate::model::record::{choice, record};

record! {
    /// A table's shape.
    pub struct Schema {
        /// Unique in the tenant.
        pub name: String => "name",
        /// Display name.
        pub display_name: String => "displayName" = String::new(),
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active schemas are enriched from.
        pub status: Status => "status" = Status::Active,
        /// Columns; exactly one is unique.
        pub fields: Vec<SchemaField> => "fields",
        /// Whose rows these are.
        pub entity_type: SchemaEntity => "entityType" = SchemaEntity::Customer,
    }
}

record! {
    /// A column.
    pub struct SchemaField {
        /// Name, unique in the schema.
        pub name: String => "name",
        /// What it holds.
        pub data_type: DataType => "dataType",
        /// The key of the row.
        pub is_unique: bool => "isUnique" = false,
        /// Whether null is allowed.
        pub is_nullable: bool => "isNullable" = true,
    }
}

choice! {
    /// What a column holds.
    pub enum DataType {
        /// Text.
        Varchar => "varchar",
        /// Text.
        Text => "text",
        /// Whole number.
        Integer => "integer",
        /// Whole number.
        Bigint => "bigint",
        /// Number.
        Decimal => "decimal",
        /// Number.
        Float => "float",
        /// true or false.
        Boolean => "boolean",
        /// ISO date.
        Date => "date",
        /// ISO date-time.
        Timestamp => "timestamp",
        /// Anything.
        Json => "json",
    }
}

choice! {
    /// Whose rows a schema holds.
    pub enum SchemaEntity {
        /// One row per customer, in the customer's shard.
        Customer => "customer",
        /// Rows on all nodes, ≤ 100,000.
        Reference => "reference",
    }
}
