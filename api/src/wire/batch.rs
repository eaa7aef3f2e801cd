//! Body of `POST /batch-decisions`, and the lines that are streamed in answer.

use proffer_engine::record;
use proffer_engine::value::Value;
use serde::Serialize;

use crate::wire::field::Name;

record! {
    /// Decisions for many customers.
    pub struct BatchDecisions {
        /// Those in this segment; without it, everybody.
        pub segment: Option<Name> => "segment" = None,
        /// What is asked for each: the body of `recommend` or `decisions` without `customerId`.
        pub request: Value => "request",
        /// Take and record nothing.
        pub dry_run: bool => "dryRun" = false,
    }
}

/// Lines that are about the whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Word<'a> {
    /// The first.
    Begin {
        /// As an `Idempotency-Key` it makes a repetition give the same answers and take nothing again.
        batch_id: &'a str,
    },
    /// One now and then.
    Progress {
        /// How many customers were answered for.
        profiles: u64,
        /// For how many of them it was decided.
        decided: u64,
        /// For how many not.
        failed: u64,
        /// How much of all shards has been gone through, from 0 to 1.
        share: f64,
    },
    /// The last one, when everybody was answered for.
    Done {
        /// See above.
        profiles: u64,
        /// See above.
        decided: u64,
        /// See above.
        failed: u64,
        /// What it took.
        seconds: f64,
        /// Customers a second.
        profiles_per_second: f64,
    },
}
