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
/// Longest wait of a node that starts for everything in its cluster to be led: then it serves what is.
pub const SETTLE_MAX: Duration = Duration::from_secs(15);
/// Longest wait for the first tenant and key to be written.
pub const ADMIT_MAX: Duration = Duration::from_secs(10);
/// Pause before that is tried again.
pub const ADMIT_PAUSE: Duration = Duration::from_millis(100);
/// Nodes of a cluster on one machine.
pub const CLUSTER_NODES_MAX: u16 = 9;
/// Longest time for such a node to start, and for all of them to be whole.
pub const CLUSTER_READY_MAX: Duration = Duration::from_secs(60);
/// Longest time for such a node to stop when asked to.
pub const CLUSTER_STOP_MAX: Duration = Duration::from_secs(15);
/// Pause between two looks at how it stands.
pub const CLUSTER_LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Longest that sample data waits for a cluster that asks for patience.
pub const LOAD_PATIENCE: Duration = Duration::from_secs(15);
/// Pause before it asks again.
pub const LOAD_PAUSE: Duration = Duration::from_millis(100);
/// Lines that are shown of what a node said before it ended.
pub const LOG_TAIL_LINES: usize = 5;
/// Requests a second that `bench` can be asked for.
pub const BENCH_RATE_MAX: u64 = 1_000_000;
/// Offers of a node that it starts.
pub const BENCH_OFFERS_MAX: u64 = 1_000_000;
/// Seconds of each of its runs.
pub const BENCH_SECONDS_MAX: u64 = 3_600;
/// Its connections at full load; there are four times as many at half load.
pub const BENCH_CLIENTS_MAX: u64 = 1_000;
