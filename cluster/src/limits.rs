//! Every maximum of this crate, in one place. Bytes and counts unless the name says otherwise.

/// Largest payload of one log record. Entries are at most 256 KiB (architecture.md §2); the rest is headroom.
pub const LOG_RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes written and synced together.
pub const LOG_BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most requests written and synced together.
pub const LOG_BATCH_REQUESTS_MAX: usize = 4_096;
/// Requests that may wait for the log's writer; further callers wait for room.
pub const LOG_QUEUE_REQUESTS_MAX: usize = 4_096;
/// Payload bytes that may wait for the log's writer; further callers wait for room.
pub const LOG_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A segment is closed before a batch would take it past this.
pub const LOG_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// No segment of ours is longer: a file that is, is not read.
pub const LOG_SEGMENT_BYTES_MAX: u64 = 2 * LOG_SEGMENT_BYTES;
/// Most bytes that one read of the log returns (one entry is returned whatever its size).
pub const LOG_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An idle writer marks what it synced after this long: half of the 10 ms promised, so that the promise holds.
pub const LOG_IDLE_MARK_MS: u64 = 5;
/// How often a full disk is tried for room, in milliseconds.
pub const LOG_FULL_PROBE_MS: u64 = 1_000;
/// How much room there has to be then.
pub const LOG_PROBE_BYTES: usize = ENTRY_BYTES_MAX;
/// Largest payload of a group's state record (a Raft vote and the like). Every segment begins with all of them.
pub const LOG_STATE_BYTES_MAX: usize = 16 * 1024;
/// Groups of one node's log: the shards (≤ 256), the meta group, and as many again that are being destroyed.
pub const LOG_GROUPS_MAX: usize = 1_024;
/// A group's log bytes since its last snapshot that make the next snapshot due.
pub const LOG_BYTES_BEFORE_SNAPSHOT: u64 = 64 * 1024 * 1024;
/// Log bytes of the whole node above which the group that holds the oldest segment is due for a snapshot too.
pub const LOG_BYTES_BEFORE_UNPINNING: u64 = 2 * 1024 * 1024 * 1024;

/// Largest chunk of a snapshot file.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest description that a caller may keep in a snapshot's header.
pub const SNAPSHOT_META_BYTES_MAX: usize = 64 * 1024;
/// Snapshots kept for each group: the newest and the one to fall back to.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Longest name of a file on a [`Disk`](crate::ports::disk::Disk).
pub const FILE_NAME_BYTES_MAX: usize = 100;

/// Most calls that may wait for one shard (architecture.md §3).
pub const SHARD_WAITING_MAX: usize = 256;
/// Most calls of one shard that are admitted and not answered yet, whatever they wait for.
pub const SHARD_OPEN_MAX: usize = 4_096;
/// How often calls that nobody waits for any more are dropped, in milliseconds.
pub const WAITERS_SWEEP_MS: u64 = 1_000;
/// How long a group's own commands wait after the log did not take one, in milliseconds.
pub const OWN_RETRY_MS: u64 = 1_000;
/// Most estimated work that may wait for one shard, in nanoseconds: 5 ms.
pub const SHARD_WORK_NS_MAX: u64 = 5_000_000;
/// What the estimate of one deed starts with, in nanoseconds.
pub const WORK_NS_START: u64 = 20_000;
/// Share of a shard's room that bulk writes may use, as a divisor.
pub const BULK_SHARE_DIVISOR: usize = 4;
/// How long a call waits before it looks again who leads its shard, if it hears nothing, in milliseconds.
pub const PLACE_LOOK_MS: u64 = 20;
/// What `Retry-After` says to a caller who was not admitted, in milliseconds.
pub const RETRY_AFTER_BUSY_MS: u64 = 50;
/// What `Retry-After` says while a part is starting, in milliseconds.
pub const RETRY_AFTER_START_MS: u64 = 1_000;
/// How long a bulk write waits before it asks a busy shard again, in milliseconds.
pub const BULK_WAIT_MS: u64 = 2;
/// Calls decided in one turn before the mailbox is looked at again.
pub const TURN_ASKS_MAX: usize = 16;
/// Largest entry that a proposer makes of what is waiting (architecture.md §2).
pub const ENTRY_BYTES_MAX: usize = 256 * 1024;
/// Commands in one entry.
pub const ENTRY_COMMANDS_MAX: usize = 4_096;
/// Bytes added to each of the commands' own when an entry is made.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;
/// How often a decision is made again because `apply` refused what it takes (architecture.md §3).
pub const CONTENTION_TRIES: u8 = 3;
/// How often a call is proposed again because the leader changed or the log refused.
pub const PROPOSE_TRIES: u8 = 8;
/// How many terms a generation of a group has before those of the next begin: more than elections can be held.
pub const TERMS_PER_GENERATION: u64 = 1 << 32;
/// How long after the entry that begins a group anew a node may still have decided for the lost generation, in milliseconds: the rest of
/// a lease, on clocks that differ.
pub const GENERATION_GRACE_MS: i64 = 5_000;
/// How long a node is waited for that is asked what is left of a group, in milliseconds.
pub const REMAINS_MS: u64 = 1_000;
/// Longest name of who wants a group begun anew.
pub const RECOVERED_BY_BYTES_MAX: usize = 1_024;
/// Longest wait of a decision for escrow, in milliseconds (architecture.md §4).
pub const ESCROW_WAIT_MS: u64 = 20;
/// Caps of one decision that are remembered as missing units.
pub const MISSES_MAX: usize = 4_096;
/// A retried decision is recognised for so long (domain.md §5).
pub const DECISION_KEY_MS: i64 = 15 * 60 * 1_000;
/// A retried outcome is recognised for so long (domain.md §5).
pub const RESPONSE_KEY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Calls to the catalogue that are admitted and not answered yet.
pub const META_OPEN_MAX: usize = 4_096;
/// Bytes of those calls.
pub const META_OPEN_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The ledger's round: opening periods, sending again what was not confirmed, in milliseconds.
pub const LEDGER_ROUND_MS: u64 = 1_000;
/// Escrow totals in one entry or message.
pub const ESCROW_MESSAGES_MAX: usize = 4_096;
/// Deaths of one actor within [`ACTOR_DEATHS_WITHIN_MS`] that end the process.
pub const ACTOR_DEATHS_MAX: usize = 3;
/// See [`ACTOR_DEATHS_MAX`].
pub const ACTOR_DEATHS_WITHIN_MS: u64 = 60_000;
/// Wait before an actor's first restart, doubled for each further one, in milliseconds.
pub const ACTOR_BACK_OFF_MS: u64 = 50;
/// Longest wait for what is under way at shutdown, in milliseconds.
pub const DRAIN_MS_MAX: u64 = 10_000;
/// Most nodes of a cluster.
pub const NODES_MAX: usize = 256;
/// Removed nodes whose disks are remembered, so that they are not let in again.
pub const REMOVED_NODES_MAX: usize = 1_024;
/// Shards whose members are changed at the same time (architecture.md §3).
pub const SHARDS_MOVING_MAX: usize = 2;
/// Shards whose leader alone is changed in one round of the planner.
pub const LEADERS_MOVED_PER_ROUND: usize = 16;
/// How often the placement is looked at, in milliseconds.
pub const PLANNER_ROUND_MS: u64 = 200;
/// A node that was not heard for so long is gone, as far as an operator who removes it is concerned, in milliseconds.
pub const NODE_GONE_MS: u64 = 2_000;
/// What a node holds that was not heard for so long is replaced while there is a quorum, in milliseconds (architecture.md §3).
pub const REPLACE_AFTER_MS: u64 = 600_000;
/// The most that one look adds to how long a node was not heard: a process that was stopped itself does not count that.
pub const SILENCE_STEP_MS_MAX: u64 = 1_000;
/// How soon it looks where nothing changes, in milliseconds.
pub const RECONCILE_IDLE_MS: u64 = 1_000;
/// How soon it tells again what the meta group has not booked, in milliseconds.
pub const REPORT_AGAIN_MS: u64 = 500;
/// How long new replicas of one group may keep those of others waiting, in milliseconds.
pub const CATCH_UP_MS_MAX: u64 = 60_000;
/// Groups of a node that bring new replicas up to date at a time.
pub const FILLING_MAX: usize = 2;
/// How often a leader tries to hand over before it takes a pause.
pub const HAND_OVER_TRIES: usize = 2;
/// Wait between those tries, in milliseconds.
pub const HAND_OVER_RETRY_MS: u64 = 20;
/// Longest name of a zone.
pub const ZONE_BYTES_MAX: usize = 64;
/// Most shards of a cluster.
pub const SHARDS_MAX: u16 = 256;
/// How often the sides of a budget that do not fit together are read again.
pub const BUDGET_READS_MAX: usize = 16;
/// A shard that has counted this part of what is left of a soft cap says so at once: four to each shard of a usual cluster.
pub const SOFT_SHARES: u64 = 64;
/// How often a change that lowered a limit looks whether the shards have given enough back.
pub const OVER_READS_MAX: usize = 10;
/// Wait between those looks, in milliseconds.
pub const OVER_READ_MS: u64 = 5;
/// How long an answer to a change of the catalogue waits for shards to have heard of their totals, in milliseconds.
pub const SHARDS_TOLD_MS: u64 = 300;
/// How soon a shard is told again what it did not confirm, in milliseconds.
pub const TELL_SHARDS_AGAIN_MS: u64 = 50;
/// How often it is looked whether snapshots are due, in milliseconds.
pub const SNAPSHOT_ROUND_MS: u64 = 1_000;
/// How often a draining node looks whether it is idle, in milliseconds.
pub const DRAIN_POLL_MS: u64 = 5;
/// Profiles and accounts that have fallen due and are seen to by one entry.
pub const TICK_DUE_MAX: usize = 2_048;
/// How often a decision is made again because an offer in it was excluded before the answer left the node.
pub const EXCLUDED_TRIES: u8 = 3;
/// Commands formed and not yet proposed: beyond, callers wait in the door.
pub const FORMING_BYTES_MAX: usize = 2 * ENTRY_BYTES_MAX;
/// How soon a call that needs a newer catalogue looks again, in milliseconds.
pub const BEHIND_MS: u64 = 5;
/// Bytes of a replica's newest entries that stay decoded in memory beside those that are not durable yet.
pub const RECENT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of entries in one message to a follower (one entry goes whatever its size).
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// How long the news that a shard's entries are committed wait for the next entries to go with, in milliseconds: nobody reads at a
/// follower, and heartbeats bring them too.
pub const COMMIT_NEWS_MS: u64 = 20;
/// Writes of one replica that may wait for its writer.
pub const APPENDS_WAITING_MAX: usize = 256;
/// Bytes of a snapshot in one message (architecture.md §2).
pub const SNAPSHOT_PART_BYTES_MAX: usize = 256 * 1024;
/// So many customers of a shard are listed at a time, and those of the part of it in which they are reached.
pub const CUSTOMERS_PAGE: usize = 1_000;
/// How fast snapshots leave a node, all together: half of what a gigabit carries.
pub const SNAPSHOT_SEND_BYTES_PER_S: usize = 64 * 1024 * 1024;
/// Longest wait for the answer to a part of a snapshot, the last of which installs it, in milliseconds.
pub const SNAPSHOT_INSTALL_MS: u64 = 10_000;
/// Log bytes of a group since its newest snapshot below which another is not worth writing: a start replays them in no time.
pub const SNAPSHOT_WORTH_BYTES: u64 = 512;
/// How soon a leader whose lease has run out looks whether it has another, in milliseconds.
pub const LEASE_RETRY_MS: u64 = 10;

/// Largest frame on the control lane of two nodes. What is larger goes on the bulk lane, so that nothing stands long before a
/// heartbeat.
pub const PEER_CONTROL_FRAME_BYTES_MAX: usize = 256 * 1024;
/// Largest frame on the bulk lane.
pub const PEER_BULK_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room of a frame that is not its body's.
pub const PEER_FRAME_OVERHEAD_BYTES: usize = 256;
/// Largest frame before two nodes know each other.
pub const PEER_HELLO_BYTES_MAX: usize = PEER_ABOUT_BYTES_MAX + 1_024;
/// What the layer above may say of itself in a hello.
pub const PEER_ABOUT_BYTES_MAX: usize = 16 * 1024;
/// Longest address of a node.
pub const PEER_ADDRESS_BYTES_MAX: usize = 256;
/// Longest reason that is sent or logged.
pub const PEER_REASON_BYTES_MAX: usize = 500;
/// A frame's buffer grows by so much, and is written in such steps.
pub const PEER_STEP_BYTES: usize = 64 * 1024;
/// Small frames are written together up to this.
pub const PEER_TOGETHER_BYTES_MAX: usize = 16 * 1024;
/// Raft's requests that one lane of a link has open: a few for each of a node's groups.
pub const PEER_RAFT_OPEN_MAX: usize = 4_096;
/// Bytes of those.
pub const PEER_RAFT_OPEN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The cluster's own requests that one lane of a link has open.
pub const PEER_OWN_OPEN_MAX: usize = 256;
/// Bytes of those.
pub const PEER_OWN_OPEN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Channels' calls that one lane of a link has open.
pub const PEER_CALLS_OPEN_MAX: usize = 512;
/// Bytes of those.
pub const PEER_CALLS_OPEN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Refusals that wait to be written: a peer that asks on and does not read them is disconnected.
pub const PEER_REFUSALS_WAITING_MAX: usize = 1_024;
/// Connections that other nodes (or whoever finds the port) have open at a time.
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
/// Of those, connections that have not said yet who they are.
pub const PEER_STRANGERS_MAX: usize = 128;
/// Nodes remembered with their disk and boots.
pub const PEER_NODES_SEEN_MAX: usize = 1_024;
/// What a stranger may go on sending before it is left, so that it can read why.
pub const PEER_STRANGER_BYTES_MAX: usize = 64 * 1024;
/// How long it is listened to, in milliseconds.
pub const PEER_STRANGER_MS: u64 = 500;
/// Wait after a connection could not be accepted, in milliseconds.
pub const PEER_ACCEPT_PAUSE_MS: u64 = 20;
/// How long a start waits for groups to be led while nothing can be written, in milliseconds; then it says what is missing.
pub const START_IN_TROUBLE_MS: u64 = 10_000;
/// How long a catalogue lease is, in milliseconds (docs/adr/0013).
pub const LEASE_MS: u32 = 2_000;
/// How often a node renews it, in milliseconds.
pub const LEASE_RENEW_MS: u64 = 300;
/// How soon a node that was granted nothing asks again, in milliseconds.
pub const LEASE_ASK_AGAIN_MS: u64 = 20;
/// How long a call waits for a node's lease that has run out, in milliseconds: a renewal is asked for at once.
pub const LEASE_WAIT_MS: u64 = 250;
/// Fences that are told apart in what was granted to one node.
pub const LEASE_FENCES_MAX: usize = 16;
/// A meta leader whose clock is further from the median of those reported to it hands over, in milliseconds.
pub const CLOCK_OFF_MS: i64 = 1_000;
/// Renewals and reports that may wait for the meta group's leader: what is dropped is said again.
pub const LEASE_ASKS_MAX: usize = 4_096;
/// Longest wait for the answer to a renewal before another is asked for, in milliseconds.
pub const LEASE_ANSWER_MS: u64 = 600;
/// How often it is looked whether a revision is in force everywhere, beside when a node reports, in milliseconds.
pub const LEASE_LOOK_MS: u64 = 100;
/// How often it is said at most that the leader's clock is wrong, in milliseconds.
pub const CLOCK_WARNING_MS: u64 = 60_000;

/// How long the answer to a change waits for it to be in force also where it was asked for, in milliseconds: that node may be cut off
/// from the catalogue's leader.
pub const CHANGED_HERE_MS: u64 = 500;
/// How long a node that ends tries to hand over what it leads, in milliseconds.
pub const SURRENDER_MS_MAX: u64 = 2_000;
/// Entries that a replica may lack to be handed the leadership: they reach it while nothing new is proposed.
pub const HAND_OVER_ENTRIES_MAX: u64 = 256;
/// Largest part of a change of the catalogue that goes to its leader at a time.
pub const CHANGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a node looks whether it holds the replicas that it should, if it hears of no change, in milliseconds.
pub const HOSTING_ROUND_MS: u64 = 60_000;
/// How long it waits after that failed, in milliseconds.
pub const HOSTING_RETRY_MS: u64 = 1_000;
/// How often the leader of a group looks whether its members are as they should be, in milliseconds.
pub const RECONCILE_MS: u64 = 50;
/// A node that has been there for so long without a break, in milliseconds, may be handed a leadership that it does not have to get.
pub const SETTLED_MS: u64 = 2_000;
/// Entries that a replica may lack when it is made a voter.
pub const CAUGHT_UP_ENTRIES: u64 = 64;
/// How long a node that starts waits for somebody to lead each shard, in milliseconds.
pub const START_UNLED_MS_MAX: u64 = 10_000;
/// How often a node looks whether it leads something else than before, in milliseconds.
pub const CLAIMS_LOOK_MS: u64 = 10;
/// How often a node tells the others what it leads when nothing changes, in milliseconds.
pub const CLAIMS_TELL_MS: u64 = 250;
/// After so long without a word of a node, in milliseconds, nothing is known of what it leads.
pub const CLAIMS_SILENT_MS: u64 = 1_000;
/// A node to which there is no link leads nothing any more, as far as is known, when its last word is so old, in milliseconds.
pub const CLAIMS_UNLINKED_MS: u64 = 300;
/// The same of one that only others hear: its words have two rounds to come.
pub const RUMOURS_UNLINKED_MS: u64 = 2 * CLAIMS_TELL_MS + 100;
/// How often a replica tells its node what it has counted for learning, in milliseconds.
pub const EVIDENCE_POST_MS: u64 = 200;
/// How long a node waits before it adds up again what shards have counted, in milliseconds.
pub const LEARN_MERGE_MS: u64 = 50;
/// How often a node asks the others what they know of that, in milliseconds. With the two above: within a second it is known everywhere.
pub const LEARN_ASK_MS: u64 = 250;
/// Bytes of tallies in an answer where heartbeats go too.
pub const LEARN_CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Bytes of tallies in an answer elsewhere. Of a shard that has more, 350,000 offers' worth, other nodes learn nothing.
pub const LEARN_BULK_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest time that one request of the cluster's own takes on its way, in milliseconds; it is made again.
pub const COURIER_MS: u64 = 2_000;
/// How often a node that wants to join asks again, in milliseconds.
pub const JOIN_RETRY_MS: u64 = 500;
/// How long it asks before it gives up, in milliseconds.
pub const JOIN_MS_MAX: u64 = 60_000;
/// A node without a catalogue lease for so long hands over what it leads, in milliseconds.
pub const SURRENDER_AFTER_MS: u64 = 500;
/// A node that lacks a fence for so long, though others have it, hands over what it leads, in milliseconds.
pub const FENCE_LACKING_MS: u64 = 500;
/// The same of any other revision: compiling one takes its time, and not the same on every node.
pub const REVISION_LACKING_MS: u64 = 3_000;
/// How often it looks, in milliseconds.
pub const SURRENDER_LOOK_MS: u64 = 100;

/// Entries of a log that are looked through at a time, from its end, for the group's configuration.
pub const SURVEY_ENTRIES: u64 = 1_024;

/// How often a node tells the others how far its replicas have come, in milliseconds.
pub const REACH_TELL_MS: u64 = 1_000;
/// Every so many of these rounds what the others told is written down.
pub const REACHES_KEPT_EVERY: u64 = 10;
/// Replicas elsewhere of which that is remembered.
pub const REACHES_MAX: usize = 16_384;

/// Longest that a quorum is asked whether a replica leads, in milliseconds; it is asked again.
pub const CONFIRM_MS_MAX: u64 = 1_000;

/// Catalogues of one tenant that a node keeps after they were in force, so that decisions made under them can be replayed. Bodies are
/// shared between them: each costs a pointer for each thing.
pub const CATALOGUES_KEPT: usize = 16;
