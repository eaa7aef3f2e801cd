//! Values that a flow puts beside each proposition (domain.md §4, `set_properties`).

use std::collections::BTreeMap;

use crate::model::record::record;

record! {
    /// Evaluated for each returned offer.
    pub struct SetProperties {
        /// Expressions over offer, customer and request, by the name their value is answered under.
        pub set: BTreeMap<String, String> => "set",
    }
}
