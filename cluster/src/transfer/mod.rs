//! Units between the ledger and the shards: who asks, who gives, and what is sent again (architecture.md §4).
//!
//! Totals only travel, so that a message may be lost, doubled or overtaken; the giver commits before the receiver does. The
//! ledger's side is a part of the meta group's state machine ([`crate::meta`]); here is the shard's.

pub(crate) mod taker;
