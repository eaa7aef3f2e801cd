//! Every limit of the HTTP face, named. Limits that a tenant can set are settings, those of authored text lie in `engine`.

use std::time::Duration;

/// Largest body of an ordinary request.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a body that nobody wants which are read all the same: a client that is still writing would lose the answer.
pub const DISCARD_BYTES_MAX: usize = 2 * BULK_BODY_BYTES_MAX;
/// Time that this may take.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// Deepest nesting of a body that holds a whole catalogue: its lines lie in a list in an object.
pub const CATALOGUE_DEPTH_MAX: usize = JSON_DEPTH_MAX + 2;
/// Largest body of a bulk request: rows of a schema, an import.
pub const BULK_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bulk requests that are read, tried or written at a time: each holds its body and what was made of it, and an import a copy of
/// the catalogue's tables.
pub const BULK_REQUESTS_MAX: usize = 4;
/// Batches of decisions on one node at a time.
pub const BATCHES_MAX: usize = 4;
/// Decisions of one batch that are under way at a time: little of what a shard takes.
pub const BATCH_IN_FLIGHT: usize = 8;
/// The same where each copies what it reads: dry runs and explanations.
pub const BATCH_COPIES_IN_FLIGHT: usize = 2;
/// After so many customers a batch tells how far it is.
pub const BATCH_LINES_PROGRESS: u64 = 1_000;
/// Lines of a batch that wait for its client.
pub const BATCH_LINES_WAITING: usize = 64;
/// A batch whose client takes no line for so long ends.
pub const BATCH_STALLED: Duration = Duration::from_secs(30);
/// How often one of its customers is tried while nobody answers, or no more is taken.
pub const BATCH_TRIES: u32 = 6;
/// How long it waits before the second try; twice as long before the third, and so on.
pub const BATCH_RETRY: Duration = Duration::from_millis(100);
/// A batch in which so many customers in a row cannot be decided for, all tries included, ends.
pub const BATCH_UNAVAILABLE_MAX: u32 = 16;
/// When a node that has no room for a bulk request is worth another try.
pub const BULK_RETRY_AFTER_MS: u64 = 1_000;
/// Deepest nesting of lists and objects in a body.
pub const JSON_DEPTH_MAX: usize = 32;
/// Time an ordinary request may take, unless configured.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(2_000);
/// How many times as long a change of the catalogue may take: an exclusion waits for the lease of a node that has stopped, and for an
/// election if that node led the catalogue.
pub const AUTHOR_PATIENCE: u32 = 3;
/// Most times that a call is passed from node to node: to the one that leads, or to one that knows it.
pub const FORWARDS_MAX: u8 = 2;
/// Largest call or answer that travels between nodes.
pub const FORWARDED_BYTES_MAX: usize = 15 * 1024 * 1024;
/// Bytes of answers that wait to be fetched by the nodes that asked, being too large to stand before a heartbeat.
pub const KEPT_ANSWERS_BYTES_MAX: usize = 4 * FORWARDED_BYTES_MAX;
/// Largest head of one: all but its body.
pub const FORWARDED_HEAD_BYTES_MAX: usize = 128 * 1024;
/// Most headers in one.
pub const FORWARDED_HEADERS_MAX: usize = 32;
/// Shortest time between two attempts to find who answers a call.
pub const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// So long before its deadline a call is given up for which nobody was found: time to say that nothing was begun.
pub const LAST_WORD: Duration = Duration::from_millis(20);
/// When a call that was lost under way is worth another try.
pub const LOST_RETRY_AFTER_MS: u64 = 100;
/// Time that a profile which has been written may take to be read back for the answer.
pub const READ_BACK_TIMEOUT: Duration = Duration::from_millis(200);
/// When a node that is recovering is worth another try.
pub const STARTING_RETRY_AFTER_MS: u64 = 1_000;
/// Time a bulk request may take.
pub const BULK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest `customerId`, in bytes.
pub const CUSTOMER_ID_BYTES_MAX: usize = 256;
/// Largest `limit` of an answer or a slot.
pub const PROPOSITIONS_LIMIT_MAX: u32 = 50;
/// Most propositions that one answer can hold over all its slots: so many fit into a `recommendationId`.
pub const PROPOSITIONS_MAX: u32 = 150;
/// Most slots that one request in Adobe's shape may name.
pub const PROPOSITION_REQUESTS_MAX: usize = 30;
/// Largest `xdm:itemCount` of one.
pub const ADOBE_ITEMS_MAX: u32 = 30;
/// Longest `recommendationId`, in characters.
pub const RECOMMENDATION_ID_BYTES_MAX: usize = 4 * 1024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Most attributes, and as many context values, in one request or profile.
pub const ATTRIBUTES_MAX: usize = 1_000;
/// Most segments in one request or profile.
pub const SEGMENTS_MAX: usize = 1_000;
/// Most offers, and as many creatives, that a request may exclude.
pub const EXCLUDES_MAX: usize = 1_000;
/// Longest name of an attribute, segment, session and the like, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest request id taken from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Items in a page of a list unless asked for otherwise.
pub const PAGE_DEFAULT: usize = 100;
/// Most items in a page of a list.
pub const PAGE_MAX: usize = 1_000;
/// Most bad lines of a bulk body that are listed.
pub const BAD_LINES_MAX: usize = 100;
/// Most lines in a bulk body.
pub const BULK_LINES_MAX: usize = 500_000;
/// How far ahead of the cluster's clock the time stamp of an outcome may lie.
pub const TIMESTAMP_AHEAD_MS_MAX: i64 = 5 * 60 * 1_000;

/// Characters of a trace that an answer carries; a larger one is kept on the node that decided.
pub const TRACE_BYTES_ANSWERED: usize = 128 * 1024;
/// Traces that a node keeps.
pub const TRACES_KEPT: usize = 1_000;
/// Characters of them together.
pub const TRACE_BYTES_KEPT: usize = 16 * 1024 * 1024;
/// Traces that are listed at once.
pub const PAGE_TRACES_MAX: usize = 100;
/// Changes that are tried out at once.
pub const WHAT_IF_CHANGES_MAX: usize = 100;
/// Offers of which it is told how often they would be proposed.
pub const WHAT_IF_OFFERS_MAX: usize = 200;
