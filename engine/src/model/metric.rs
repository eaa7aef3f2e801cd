//! Behavioural metrics: what a customer did, counted as it happens (domain.md §4).

use crate::model::Status;
use crate::model::filter::FilterGroup;
use crate::model::offer::{CapPer, CapWindow};
use crate::model::record::{Field, choice, record};

record! {
    /// A number about each customer, kept from outcomes and posted events: `metric.name` in expressions, and what conditions of
    /// rules and policies name.
    pub struct BehavioralMetric {
        /// Unique in the tenant, never changed: letters, digits and _.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active ones count, and have a value.
        pub status: Status => "status" = Status::Active,
        /// What is made of what happened.
        pub aggregation: Aggregation => "aggregation" = Aggregation::Count,
        /// Outcomes that it looks at, by key.
        pub outcomes: Vec<String> => "outcomes" = Vec::new(),
        /// Types of posted events that it looks at.
        pub events: Vec<String> => "events" = Vec::new(),
        /// The number that is aggregated: `value`, or `properties.x` of an event. A count needs none.
        pub field: String => "field" = VALUE.to_owned(),
        /// Stretch of time that it looks back on.
        pub per: CapPer => "per" = CapPer::Lifetime,
        /// Calendar periods or a moving window; default calendar for day, week, month, rolling for hours.
        pub window: Option<CapWindow> => "window" = None,
        /// What an outcome or event must be, beside its type.
        pub filters: Option<FilterGroup> => "filters" = None,
        /// Counts apart by these: `offer`, `category`, `channel`, or one `properties.x`.
        pub group_by: Vec<Dimension> => "groupBy" = Vec::new(),
        /// How often its meaning was changed: each time it begins anew. Not written by clients.
        pub generation: u32 => "generation" = 0,
    }
}

choice! {
    /// What a metric makes of what happened.
    pub enum Aggregation {
        /// How often it did.
        Count => "count",
        /// The sum of its numbers.
        Sum => "sum",
        /// Their mean.
        Avg => "avg",
        /// The smallest.
        Min => "min",
        /// The largest.
        Max => "max",
    }
}

/// The name of an outcome's or event's own number.
pub const VALUE: &str = "value";
/// What stands before the name of a property.
pub const PROPERTIES: &str = "properties.";

/// What a metric counts apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, bincode::Encode, bincode::Decode)]
pub enum Dimension {
    /// The offer: a candidate reads its own.
    Offer,
    /// The offer's category: a candidate reads its own.
    Category,
    /// The channel: a request reads its own.
    Channel,
    /// A property of the event: named where the metric is read.
    Property(String),
}

impl Field for Dimension {
    fn read(value: &crate::value::Value, faults: &mut crate::model::fault::Faults) -> Option<Self> {
        let word = value.as_text().unwrap_or_default();
        let found = match word {
            "offer" => Some(Dimension::Offer),
            "category" => Some(Dimension::Category),
            "channel" => Some(Dimension::Channel),
            _ => word.strip_prefix(PROPERTIES).map(|name| Dimension::Property(name.to_owned())),
        };
        if found.is_none() {
            faults.add("must be one of offer category channel, or properties. and a name");
        }
        found
    }

    fn write(&self) -> crate::value::Value {
        crate::value::Value::text(match self {
            Dimension::Offer => "offer".to_owned(),
            Dimension::Category => "category".to_owned(),
            Dimension::Channel => "channel".to_owned(),
            Dimension::Property(name) => format!("{PROPERTIES}{name}"),
        })
    }
}

impl BehavioralMetric {
    /// Whether its value depends on the offer at hand.
    pub fn is_by_candidate(&self) -> bool {
        self.group_by.iter().any(|by| matches!(by, Dimension::Offer | Dimension::Category))
    }

    /// The property it counts apart by, which is named where it is read.
    pub fn property(&self) -> Option<&str> {
        self.group_by.iter().find_map(|by| match by {
            Dimension::Property(name) => Some(name.as_str()),
            Dimension::Offer | Dimension::Category | Dimension::Channel => None,
        })
    }

    /// Whether `other` counts the same things in the same way.
    pub fn means_the_same(&self, other: &BehavioralMetric) -> bool {
        let meaning =
            |of: &BehavioralMetric| BehavioralMetric { description: String::new(), generation: 0, ..of.clone() };
        meaning(self) == meaning(other)
    }
}
