//! Collections: filters over the inventory of general offers.

use crate::model::record::record;
use crate::model::{Ref, Status};

record! {
    /// `allOf` AND `anyOf`; a non-empty `offerIds` wins and tags are ignored; all empty = every general offer.
    pub struct Collection {
        /// Unique in the tenant.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// An inactive collection is empty.
        pub status: Status => "status" = Status::Active,
        /// Tags an offer must all have.
        pub all_of: Vec<String> => "allOf" = Vec::new(),
        /// Tags of which an offer must have one.
        pub any_of: Vec<String> => "anyOf" = Vec::new(),
        /// Explicit members.
        pub offer_ids: Vec<Ref> => "offerIds" = Vec::new(),
    }
}
