//! Channels: where content goes.

use crate::model::Status;
use crate::model::record::{choice, record};

record! {
    /// A way to reach a customer.
    pub struct Channel {
        /// Unique in the tenant.
        pub name: String => "name",
        /// Free text.
        pub description: String => "description" = String::new(),
        /// Slots of a channel that is not active stay empty.
        pub status: Status => "status" = Status::Active,
        /// Nature of the channel; no effect on deciding.
        pub channel_type: String => "channelType" = "email".to_owned(),
        /// Whether a decision already counts as shown.
        pub impression_mode: ImpressionMode => "impressionMode" = ImpressionMode::Explicit,
        /// Whether one empty placement empties all of the channel's.
        pub coupling_mode: CouplingMode => "couplingMode" = CouplingMode::Partial,
        /// How long a proposition here holds its units, 1–86,400; overrides the tenant's.
        pub reservation_seconds: Option<u32> => "reservationSeconds" = None,
    }
}

choice! {
    /// How impressions come about.
    pub enum ImpressionMode {
        /// By a `respond` with outcome impression.
        Explicit => "explicit",
        /// At the decision.
        Implicit => "implicit",
    }
}

choice! {
    /// What an empty placement does to its siblings.
    pub enum CouplingMode {
        /// Nothing.
        Partial => "partial",
        /// Empties them.
        Atomic => "atomic",
    }
}
