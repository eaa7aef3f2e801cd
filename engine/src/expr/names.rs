//! Names in expressions: where a value is looked up, and under which path.

use std::fmt;

/// A dotted name, split at its first dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Where to look.
    pub namespace: Namespace,
    /// What to look for: everything after the first dot, or the whole of a bare name.
    pub path: String,
}

/// What stands before the first dot of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Nothing: a custom field of the offer, or a variable the caller knows (`P`, `tau`).
    Bare,
    /// `offer.x`: a built-in field of the offer, else a custom one.
    Offer,
    /// `customer.x`: an attribute of the profile, overlaid by what enrich loads.
    Customer,
    /// `attributes.x`: an attribute of the request.
    Attributes,
    /// `context.x`: the context of the request.
    Context,
    /// `metric.x`: a behavioural metric of the profile.
    Metric,
    /// Another prefix, such as one an enrich node gives to its rows.
    Other(String),
}

impl Namespace {
    /// The prefix as written; `None` for a bare name.
    pub fn prefix(&self) -> Option<&str> {
        match self {
            Namespace::Bare => None,
            Namespace::Offer => Some("offer"),
            Namespace::Customer => Some("customer"),
            Namespace::Attributes => Some("attributes"),
            Namespace::Context => Some("context"),
            Namespace::Metric => Some("metric"),
            Namespace::Other(prefix) => Some(prefix),
        }
    }
}

impl From<&str> for Name {
    /// Splits any text at its first dot; never fails, so that attribute names of conditions can be read the same way.
    fn from(text: &str) -> Self {
        let Some((prefix, path)) = text.split_once('.') else {
            return Name { namespace: Namespace::Bare, path: text.to_owned() };
        };
        let namespace = match prefix {
            "offer" => Namespace::Offer,
            "customer" => Namespace::Customer,
            "attributes" => Namespace::Attributes,
            "context" => Namespace::Context,
            "metric" => Namespace::Metric,
            other => Namespace::Other(other.to_owned()),
        };
        Name { namespace, path: path.to_owned() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.prefix() {
            Some(prefix) => write!(f, "{prefix}.{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}
