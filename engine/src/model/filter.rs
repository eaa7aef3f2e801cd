//! Filters of flows: conditions on offer, customer and request, joined by and/or to any depth (domain.md §4).

use bincode::Decode;
use bincode::de::Decoder;
use bincode::error::{AllowedEnumVariants, DecodeError};

use crate::codec::Level;
use crate::expr::{Name, Namespace};
use crate::model::fault::Faults;
use crate::model::record::{Field, choice, record};
use crate::model::rule::Operator;
use crate::value::Value;

record! {
    /// Conditions that are joined: the config of a `filter` node, or a part of one.
    pub struct FilterGroup {
        /// How they are joined.
        pub combinator: Combinator => "combinator" = Combinator::And,
        /// What is joined.
        pub conditions: Vec<FilterTerm> => "conditions",
    }
}

choice! {
    /// How conditions are joined.
    pub enum Combinator {
        /// All must hold.
        And => "and",
        /// One must hold.
        Or => "or",
    }
}

/// One of the conditions that a filter joins, or a group of them.
#[derive(Clone, Debug, PartialEq, bincode::Encode)]
pub enum FilterTerm {
    /// `{field, operator, value}`.
    Condition(FilterCondition),
    /// `{combinator, conditions}`.
    Group(FilterGroup),
}

record! {
    /// `field operator value`. A missing field fails every operator but `is_null`.
    pub struct FilterCondition {
        /// Name; a bare one is `offer.x`.
        pub field: String => "field",
        /// How it is compared.
        pub operator: FilterOperator => "operator",
        /// With what; a list for in and not_in; absent for is_null and is_not_null.
        pub value: Value => "value" = Value::Null,
    }
}

choice! {
    /// Operators of filters.
    pub enum FilterOperator {
        /// Equal.
        Eq => "eq",
        /// Not equal.
        Neq => "neq",
        /// Greater.
        Gt => "gt",
        /// Greater or equal.
        Gte => "gte",
        /// Less.
        Lt => "lt",
        /// Less or equal.
        Lte => "lte",
        /// One of a list.
        In => "in",
        /// None of a list.
        NotIn => "not_in",
        /// Substring, or member of a list.
        Contains => "contains",
        /// Prefix of a string.
        StartsWith => "starts_with",
        /// A regular expression matches somewhere in a string.
        Regex => "regex",
        /// Missing or null.
        IsNull => "is_null",
        /// Present and not null.
        IsNotNull => "is_not_null",
    }
}

impl FilterOperator {
    /// The operator of rules that means the same; `None` for `regex`, which rules do not have.
    pub fn as_rule_operator(self) -> Option<Operator> {
        Some(match self {
            FilterOperator::Eq => Operator::Eq,
            FilterOperator::Neq => Operator::Neq,
            FilterOperator::Gt => Operator::Gt,
            FilterOperator::Gte => Operator::Gte,
            FilterOperator::Lt => Operator::Lt,
            FilterOperator::Lte => Operator::Lte,
            FilterOperator::In => Operator::In,
            FilterOperator::NotIn => Operator::NotIn,
            FilterOperator::Contains => Operator::Contains,
            FilterOperator::StartsWith => Operator::StartsWith,
            FilterOperator::Regex => return None,
            FilterOperator::IsNull => Operator::NotExists,
            FilterOperator::IsNotNull => Operator::Exists,
        })
    }
}

impl FilterCondition {
    /// The name it reads: a bare one is a field of the offer.
    pub fn name(&self) -> Name {
        let name = Name::from(self.field.as_str());
        if name.namespace == Namespace::Bare { Name { namespace: Namespace::Offer, ..name } } else { name }
    }
}

/// As if derived, but for the levels counted: what a peer sends must not take the whole stack.
impl<Context> Decode<Context> for FilterTerm {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match u32::decode(decoder)? {
            0 => Decode::decode(decoder).map(FilterTerm::Condition),
            1 => {
                let _level = Level::enter()?;
                Decode::decode(decoder).map(FilterTerm::Group)
            }
            found => {
                let allowed = &AllowedEnumVariants::Range { min: 0, max: 1 };
                Err(DecodeError::UnexpectedVariant { type_name: "FilterTerm", allowed, found })
            }
        }
    }
}

bincode::impl_borrow_decode!(FilterTerm);

impl Field for FilterTerm {
    fn read(value: &Value, faults: &mut Faults) -> Option<Self> {
        let has = |name: &str| value.as_map().is_some_and(|members| members.contains_key(name));
        if has("conditions") || has("combinator") {
            Field::read(value, faults).map(FilterTerm::Group)
        } else {
            Field::read(value, faults).map(FilterTerm::Condition)
        }
    }

    fn write(&self) -> Value {
        match self {
            FilterTerm::Condition(condition) => condition.write(),
            FilterTerm::Group(group) => group.write(),
        }
    }
}

impl FilterGroup {
    /// All conditions, at whatever depth, in the order they are written.
    pub fn conditions(&self) -> Vec<&FilterCondition> {
        let mut found = Vec::new();
        let mut open: Vec<&FilterTerm> = self.conditions.iter().rev().collect();
        while let Some(term) = open.pop() {
            match term {
                FilterTerm::Condition(condition) => found.push(condition),
                FilterTerm::Group(group) => open.extend(group.conditions.iter().rev()),
            }
        }
        found
    }
}
