//! Every named maximum of the engine, by owner.

use crate::time::{DAY_MS, SECOND_MS};

// Profiles (profile/).

/// Impressions, outcomes and the like stay in a profile's history for this long; windows are shorter.
pub const RETENTION_MS: i64 = 400 * DAY_MS;
/// Impressions in a profile's history. Of more within [`RETENTION_MS`], older ones of the same thing are counted together.
pub const EXPOSURES_PER_PROFILE: usize = 4_096;
/// Entries in each other list of a profile's dealings: outcomes, reservations, holds, decisions, opt-outs, ghosts, cap uses,
/// answered keys. What happens at the limit: see profile/room.rs.
pub const DEALINGS_PER_PROFILE: usize = 4_096;
/// Outcomes of a profile's decisions that are remembered so that each counts once; and as many lapsed units.
pub const ANSWERS_PER_PROFILE: usize = 16_384;
/// Things that a profile's impressions are counted by once they have left the history.
pub const OLDER_PER_PROFILE: usize = 16_384;
/// Distinct mandatory offers that a profile counts in one day, whatever the tenant allows.
pub const MANDATORY_PER_PROFILE: u32 = 1_000;
/// Times kept for all rolling caps of one profile.
pub const ROLLING_TIMES_PER_PROFILE: usize = 65_536;
/// Bytes of one profile's answered keys. When they are full, keyed calls for it are refused (429), but an opt-out.
pub const KEYED_BYTES_PER_PROFILE: u64 = 2 * 1_024 * 1_024;
/// Bytes of a profile's attributes, segments and rows together, in memory.
pub const VALUE_BYTES_PER_PROFILE: usize = 4 * 1_024 * 1_024;
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
/// … of which events may fill so much that outcomes and decisions always find room.
pub const EVENT_KEYED_BYTES_PER_SHARD: u64 = KEYED_BYTES_PER_SHARD / 2;
/// Answered keys of events in one profile: beyond, its events are refused (429) until the oldest are forgotten.
pub const EVENT_KEYS_PER_PROFILE: usize = DEALINGS_PER_PROFILE / 4;
/// Bytes of an answer kept for retries: above, it is kept without its computed fields, which are of any size.
pub const KEPT_ANSWER_BYTES: usize = 128 * 1_024;
/// Series of behavioural metrics in one profile: one for each metric that does not count apart, and as many groups as there
/// is room for. Of more groups, the one that was fed least recently goes.
pub const METRIC_SERIES_PER_PROFILE: usize = 256;
/// Stretches of time that one series of a rolling window keeps apart. Of more, those in one 64th of the window are counted
/// together, at the time of the last.
pub const METRIC_BUCKETS_PER_SERIES: usize = 128;
/// Bytes of the property that a group of a metric is named by; of longer ones nothing is counted.
pub const METRIC_GROUP_BYTES: usize = 255;
/// Experiments that a profile takes part in at a time. Their windows together are at most [`DEALINGS_PER_PROFILE`].
pub const EXPERIMENTS_PER_PROFILE: usize = 64;
/// Kinds of outcomes that are kept of a customer in one experiment: all that a tenant can have.
pub const OUTCOMES_PER_EXPERIMENT: usize = CUSTOM_OUTCOMES_MAX + 24;
/// Kinds of outcomes that are kept offer by offer of a customer in one experiment. More are kept without the offer.
pub const REACTIONS_PER_EXPERIMENT: usize = 512;
/// Most that one customer's revenue counts for in an experiment, either side of 0, in micro-units: sums of squares over 10^8
/// customers stay exact.
pub const TRIAL_REVENUE_MAX: i64 = 1_000_000_000_000_000;
/// Propositions, ghosts, policy holds and units of soft caps, each, in one command.
pub const PROPOSITIONS_PER_TAKE: usize = 10_000;
/// Size in memory at which a piece of an encoded shard is closed; one profile may exceed it.
pub const PIECE_BYTES: usize = 1_024 * 1_024;
/// Ids in one record of an encoded catalogue.
pub const IDS_PER_RECORD: usize = 4_096;

// Global caps (budget/).

/// A rolling window's spent units become free in this many steps a window.
pub const COOLING_BUCKETS: i64 = 64;
/// The next period's account is opened this long before the last one ends.
pub const OPEN_AHEAD_MS: i64 = 60 * SECOND_MS;
/// A shard that found the pool empty counts as waiting for this long; if it still wants units it asks again.
pub const STARVING_MS: i64 = 5 * SECOND_MS;

// Authored input (catalog/). All are inclusive.

/// Characters of a name.
pub const NAME_CHARS_MAX: usize = 255;
/// Characters of a description.
pub const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// Characters of any other text: labels, reasons, short descriptions.
pub const TEXT_CHARS_MAX: usize = 1_000;
/// Characters of a key, tag, segment name, attribute name or other word.
pub const WORD_CHARS_MAX: usize = 255;
/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 128;
/// Bytes of a tenant's name.
pub const TENANT_ID_BYTES_MAX: usize = 64;
/// Items of any list that has no tighter limit.
pub const LIST_ITEMS_MAX: usize = 1_000;
/// Tags of one offer.
pub const TAGS_MAX: usize = 100;
/// Caps of one offer.
pub const CAPS_MAX: usize = 50;
/// Scopes of one rule or policy.
pub const SCOPES_MAX: usize = 100;
/// Custom fields of one category.
pub const CUSTOM_FIELDS_MAX: usize = 500;
/// How many computed fields may build on each other, each reading the one before.
pub const COMPUTED_DEPTH_MAX: usize = 64;
/// Explicit members of one collection.
pub const COLLECTION_OFFERS_MAX: usize = 10_000;
/// Columns of one schema.
pub const SCHEMA_FIELDS_MAX: usize = 500;
/// Custom outcomes a tenant ever has.
pub const CUSTOM_OUTCOMES_MAX: usize = 1_000;
/// API keys of one tenant.
pub const API_KEYS_MAX: usize = 1_000;
/// Tenants of one cluster.
pub const TENANTS_MAX: usize = 10_000;
/// Different names that the rules and formulas of one tenant read: each is a slot of every decision, or a column of all
/// offers.
pub const NAMES_READ_MAX: usize = 10_000;
/// Different scoring plans in the published flows of one tenant, one more for each channel that overrides name: each is a
/// column of all offers.
pub const PLANS_MAX: usize = 64;
/// Different prefixes under which the published flows of one tenant load rows.
pub const PREFIXES_MAX: usize = 1_000;
/// Nodes of one flow.
pub const FLOW_NODES_MAX: usize = 100;
/// Conditions of one filter, at whatever depth.
pub const FILTER_CONDITIONS_MAX: usize = 200;
/// Values that one node puts beside propositions.
pub const PROPERTIES_MAX: usize = 100;
/// Different names that filters, conditions and properties of one tenant's published flows read.
pub const FLOW_NAMES_READ_MAX: usize = 1_000;
/// Flows that call each other in a row, the first one not counted.
pub const FLOW_CALLS_DEPTH_MAX: usize = 4;
/// Ways through one flow that its conditionals make, those of the flows it calls included: each is compiled.
pub const FLOW_WAYS_MAX: usize = 64;
/// Nodes on one way through a flow, those of the flows it calls included.
pub const FLOW_STEPS_MAX: usize = 500;
/// Published versions of one flow.
pub const FLOW_VERSIONS_MAX: usize = 1_000;
/// Levels of nesting in a body.
pub const BODY_DEPTH_MAX: usize = 32;
/// Levels of nesting in what is read from a log, a snapshot or a peer: more than anything that is written has. Reading takes the stack.
pub const DECODED_LEVELS_MAX: usize = 64;
const _: () = assert!(DECODED_LEVELS_MAX > BODY_DEPTH_MAX && DECODED_LEVELS_MAX > crate::expr::limits::LIST_DEPTH_MAX);
/// Values (scalars, lists and objects) in a body.
pub const BODY_VALUES_MAX: usize = 50_000;
/// Bytes of all text in a body: a write must fit one log entry of 256 KiB.
pub const BODY_TEXT_BYTES_MAX: usize = 192 * 1024;
/// Limit of any other cap.
pub const CAP_LIMIT_MAX: u64 = 1_000_000_000_000;
/// Longest hold of a reservation.
pub const RESERVATION_SECONDS_MAX: u32 = 86_400;
/// Longest look back of a rule or policy, in days: shorter than [`RETENTION_MS`].
pub const LOOKBACK_DAYS_MAX: f64 = 365.0;
/// Behavioural metrics of one tenant.
pub const METRICS_MAX: usize = 100;
/// Models of one tenant.
pub const MODELS_MAX: usize = 100;
/// Features of one model.
pub const MODEL_FEATURES_MAX: usize = 200;
/// Bins of one feature.
pub const MODEL_BINS_MAX: usize = 100;
/// Values that the bins of one feature list.
pub const MODEL_VALUES_MAX: usize = 200;
/// Conditions in the filters of one metric.
pub const METRIC_CONDITIONS_MAX: usize = 50;
/// Slots in one request that a tenant may allow.
pub const SLOTS_MAX: u32 = 100;
/// Removed offers in one explanation.
pub const EXPLAIN_MAX: u32 = 10_000;
/// Candidates that a rank node may keep.
pub const RANK_CANDIDATES_MAX: u32 = 1_000;
/// Most items one page of a list holds.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Items of a page unless asked otherwise.
pub const PAGE_ITEMS_DEFAULT: usize = 100;
/// Weight of fatigue in the score.
pub const FATIGUE_STRENGTH_MAX: f64 = 100.0;
/// Half-life of an exposure, in hours.
pub const HALF_LIFE_HOURS_MAX: f64 = 87_600.0;
