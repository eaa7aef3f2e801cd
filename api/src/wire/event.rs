//! The body of `events`.

use proffer_engine::record;

use crate::wire::field::{Customer, Name, NamedValues};

record! {
    /// Something that happened to a customer, for metrics to count.
    pub struct Event {
        /// Whom it happened to.
        pub customer_id: Customer => "customerId",
        /// What happened: a word that metrics listen to.
        pub event_type: Name => "type",
        /// Its number: money, minutes, items.
        pub value: Option<f64> => "value" = None,
        /// The offer it is about, by id or exact name.
        pub offer_id: Option<Name> => "offerId" = None,
        /// The channel it happened on, by name.
        pub channel: Option<Name> => "channel" = None,
        /// The channel, by id or exact name.
        pub channel_id: Option<Name> => "channelId" = None,
        /// More about it, for filters and groups.
        pub properties: NamedValues => "properties" = NamedValues::default(),
        /// Counts once under this key; the header `Idempotency-Key` says the same.
        pub idempotency_key: Option<Name> => "idempotencyKey" = None,
        /// When it happened; checked, and then dropped.
        pub timestamp: Option<String> => "timestamp" = None,
    }
}
