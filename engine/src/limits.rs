//! Every named maximum of the engine, by owner.

use crate::time::{DAY_MS, SECOND_MS};

// Profiles (profile/).

/// Impressions, outcomes and the like stay in a profile's history for this long; windows are shorter.
pub const RETENTION_MS: i64 = 400 * DAY_MS;
/// Impressions in a profile's history. More within [`RETENTION_MS`] are refused, never forgotten early.
pub const EXPOSURES_PER_PROFILE: usize = 4_096;
/// Entries in each other list of a profile's dealings: outcomes, reservations, decisions, opt-outs, ghosts, cap uses.
pub const DEALINGS_PER_PROFILE: usize = 4_096;
/// Times kept for a rolling profile cap: its limit is at most this.
pub const ROLLING_TIMES: u64 = 1_000;
/// Attributes of a profile, and columns of a row.
pub const ATTRIBUTES_PER_PROFILE: usize = 1_000;
/// Segments of a profile.
pub const SEGMENTS_PER_PROFILE: usize = 1_000;
/// Rows of a profile: one a schema.
pub const ROWS_PER_PROFILE: usize = 100;
/// Bytes of a profile's attributes, or of one row, as encoded.
pub const ATTRIBUTE_BYTES: usize = 64 * 1_024;
/// Attribute, column and segment names of a tenant in one shard.
pub const NAMES_PER_TENANT: usize = 100_000;
/// Bytes of answered idempotency keys in one shard. When it is full, keyed calls are refused (429).
pub const KEYED_BYTES_PER_SHARD: u64 = 256 * 1_024 * 1_024;
/// Propositions, ghosts and policy holds in one command.
pub const PROPOSITIONS_PER_TAKE: usize = 10_000;
/// Size at which a piece of an encoded shard is closed; one profile may exceed it.
pub const PIECE_BYTES: usize = 1_024 * 1_024;

// Global caps (budget/).

/// A rolling window's spent units become free in this many steps a window.
pub const COOLING_BUCKETS: i64 = 64;
/// The next period's account is opened this long before the last one ends.
pub const OPEN_AHEAD_MS: i64 = 60 * SECOND_MS;
/// Shards of a cluster.
pub const SHARDS: usize = 256;
