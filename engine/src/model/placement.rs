//! Placements: slots of a channel, and what content fits.

use crate::model::record::record;
use crate::model::{Ref, Status};

record! {
    /// A slot of a channel.
    pub struct Placement {
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// A placement that is not active stays empty.
        pub status: Status => "status" = Status::Active,
        /// What requests call it; default: slug of the name; unique in its channel.
        pub key: Option<String> => "key" = None,
        /// The channel it belongs to.
        pub channel_id: Ref => "channelId",
        /// Content types that fit; empty = any.
        pub content_types: Vec<String> => "contentTypes" = Vec::new(),
    }
}
