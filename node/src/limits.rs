//! Every limit of the process around a node.

use std::time::Duration;

/// Time that a client may take to send the head of a request, from the moment the connection is open or the answer before it is
/// written: so long may a connection be idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections served at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Pause after the system would not accept a connection: it has no more descriptors, or no memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for calls under way when the node stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the first tenant and key to be written.
pub const ADMIT_MAX: Duration = Duration::from_secs(10);
/// Pause before that is tried again.
pub const ADMIT_PAUSE: Duration = Duration::from_millis(100);
/// Requests a second that `bench` can be asked for.
pub const BENCH_RATE_MAX: u64 = 1_000_000;
/// Offers of a node that it starts.
pub const BENCH_OFFERS_MAX: u64 = 1_000_000;
/// Seconds of each of its runs.
pub const BENCH_SECONDS_MAX: u64 = 3_600;
/// Its connections at full load; there are four times as many at half load.
pub const BENCH_CLIENTS_MAX: u64 = 1_000;
