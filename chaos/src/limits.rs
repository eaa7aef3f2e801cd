//! What is bounded, and by how much.

use std::time::Duration;

/// Violations of one invariant that are told one by one.
pub const VIOLATIONS_TOLD_MAX: usize = 10;
/// Steps of one search for an order of calls.
pub const SEARCH_STEPS_MAX: u64 = 5_000_000;

/// Most nodes of a cluster, those that come and go included.
pub const NODES_MAX: usize = 7;
/// Fewest calls that must have been answered, for a run to say anything.
pub const OK_MIN: usize = 1_000;

/// Longest wait for one try of a call: a node answers within two seconds, or it cannot.
pub const TRY_MAX: Duration = Duration::from_millis(2_500);
/// Longest wait for a connection.
pub const CONNECT_MAX: Duration = Duration::from_millis(500);
/// Before a call is made again.
pub const TRY_PAUSE: Duration = Duration::from_millis(20);
/// A client gives a call up after this.
pub const CALL_MAX: Duration = Duration::from_secs(10);

/// For a cluster to become whole, on a busy machine.
pub const WHOLE_MAX: Duration = Duration::from_secs(120);
/// For a node to start, or to refuse to.
pub const START_MAX: Duration = Duration::from_secs(60);
/// For a node to end in order.
pub const STOP_MAX: Duration = Duration::from_secs(20);
/// For a node to be emptied and removed.
pub const DRAIN_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what is awaited.
pub const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// After healing, until nothing may be in flight.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Bytes that a proxy holds of each direction of a connection.
pub const PROXY_CHUNK_BYTES: usize = 64 * 1024;
/// Longest first message in which a proxy looks for who dials.
pub const PROXY_HELLO_BYTES_MAX: usize = 64 * 1024;
