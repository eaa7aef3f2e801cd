//! Profiles: what is put and what is read.

use proffer_engine::record;

use crate::wire::field::{Customer, NamedValues, Names};

record! {
    /// Replaces the parts that are given; null empties them.
    pub struct PutProfile {
        /// `customer.*`.
        pub attributes: Option<NamedValues> => "attributes" = None,
        /// Segments.
        pub segments: Option<Names> => "segments" = None,
        /// May repeat the path's.
        pub customer_id: Option<Customer> => "customerId" = None,
    }
}
