//! Activities (decision scopes): collection + placement + fallback offer (+ flow).

use crate::model::record::record;
use crate::model::{Ref, Status};

record! {
    /// "Fill this slot".
    pub struct Activity {
        /// Display name.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// An inactive activity's slot stays empty.
        pub status: Status => "status" = Status::Active,
        /// What requests call it; default: slug of the name; unique in the tenant.
        pub key: Option<String> => "key" = None,
        /// Offers that compete.
        pub collection_id: Ref => "collectionId",
        /// Where the winner goes.
        pub placement_id: Ref => "placementId",
        /// What is shown when nothing qualifies.
        pub fallback_offer_id: Ref => "fallbackOfferId",
        /// Flow that decides, by key.
        pub decision_flow_key: Option<String> => "decisionFlowKey" = None,
    }
}
