//! Creatives (representations): an offer's content for a channel and, optionally, a placement.

use crate::model::record::record;
use crate::model::{Percent, Ref, Status};
use crate::value::Value;

record! {
    /// Content of one offer.
    pub struct Creative {
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Only active creatives are shown.
        pub status: Status => "status" = Status::Draft,
        /// The offer.
        pub offer_id: Ref => "offerId",
        /// The channel.
        pub channel_id: Ref => "channelId",
        /// The placement, or null for any of the channel's.
        pub placement_id: Option<Ref> => "placementId" = None,
        /// Type of the content, for the placement's check.
        pub content_type: String => "contentType" = "text".to_owned(),
        /// The content itself.
        pub content: Value => "content" = Value::Null,
        /// Names of computed fields that fill the content.
        pub personalization: Vec<String> => "personalization" = Vec::new(),
        /// Score multiplier, percent.
        pub weight: Percent => "weight" = Percent(100),
        /// Share among variants of the same (offer, placement), ≥ 0.
        pub split: f64 => "split" = 1.0,
    }
}
