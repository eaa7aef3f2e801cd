//! A group with one replica, on this node's write-ahead log: an entry is acknowledged when it is synced and applied. The syncs
//! of all groups are shared by the log.

use std::sync::Arc;

use bincode::{Decode, Encode};
use proffer_engine::codec::{self, DecodeError};
use proffer_engine::profile::command::Leader;
use tokio::sync::watch;

use crate::log::{GroupId, Log};
use crate::ports::propose::{Machine, Pending, Propose, Proposed};
use crate::propose::handover::{Closer, Handover};

/// One log entry as stored, by format version.
#[derive(Debug, PartialEq, Encode, Decode)]
enum StoredEntry {
    /// The leader that wrote it, and its commands: an encoded list, each of them versioned itself.
    V1(Leader, Vec<u8>),
}

/// The bytes of an entry.
pub(crate) fn encode_entry<C: Encode + 'static>(leader: Leader, commands: &Vec<C>) -> Vec<u8> {
    codec::encode(&StoredEntry::V1(leader, codec::encode(commands)))
}

/// The entry of these bytes.
///
/// # Errors
/// If they are none.
pub(crate) fn decode_entry<C: Decode<()> + 'static>(bytes: &[u8]) -> Result<(Leader, Vec<C>), DecodeError> {
    let StoredEntry::V1(leader, commands) = codec::decode("log entry", bytes)?;
    Ok((leader, codec::decode("log entry's commands", &commands)?))
}

/// See the module.
pub struct LocalPropose<C, R> {
    log: Log,
    group: GroupId,
    handover: Handover<C, R>,
}

impl<C, R> std::fmt::Debug for LocalPropose<C, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPropose").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<C, R> LocalPropose<C, R> {
    /// The group's log from `next_index` on, led by `leader`, under a `machine` that has applied everything before.
    pub fn new(log: Log, group: GroupId, leader: Leader, machine: Arc<dyn Machine<C, R>>, next_index: u64) -> Self {
        LocalPropose { log, group, handover: Handover::new(leader, machine, next_index) }
    }

    /// A way to close it, without its types.
    pub(crate) fn closer(&self) -> Closer {
        self.handover.closer()
    }
}

impl<C, R> Propose<C, R> for LocalPropose<C, R>
where
    C: Encode + Send + Sync + 'static,
    R: Send + 'static,
{
    fn propose(&self, commands: Vec<C>, expected: Leader) -> Pending<'_, Proposed<R>> {
        Box::pin(async move {
            let turn = match self.handover.begin(expected).await {
                Ok(turn) => turn,
                Err(refused) => return refused,
            };
            let payload = encode_entry(expected, &commands);
            match self.log.append(self.group, turn.position().index, payload).await {
                Ok(_) => turn.apply(commands).await,
                Err(error) if error.nothing_written() => {
                    turn.give_back();
                    Proposed::NotApplied(error.to_string())
                }
                Err(_) => Proposed::Unknown,
            }
        })
    }

    fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.handover.leader()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{LogOptions, LogPorts};
    use crate::ports::entropy::SeededEntropy;
    use crate::ports::fatal::RecordedFatal;
    use crate::ports::memory_disk::MemoryDisk;
    use crate::ports::offload::InlineOffload;
    use crate::ports::propose_conformance::propose_conformance;

    #[tokio::test]
    async fn local_keeps_the_contract() {
        tokio::time::pause();
        propose_conformance(|machine| async move {
            let ports = LogPorts {
                disk: Arc::new(MemoryDisk::new()),
                offload: Arc::new(InlineOffload),
                fatal: Arc::new(RecordedFatal::default()),
                entropy: Arc::new(SeededEntropy::new(1)),
            };
            let (log, _) = Log::open(LogOptions::default(), ports).await.unwrap();
            Arc::new(LocalPropose::new(log, GroupId(3), Leader { term: 7, replica: 3 }, machine, 1))
        })
        .await;
    }

    #[test]
    fn entries_are_stored_as_ever() {
        let leader = Leader { term: 7, replica: 300 };
        let bytes = encode_entry(leader, &vec![1_u64, 1_000]);
        assert_eq!(bytes, [0, 7, 251, 44, 1, 5, 2, 1, 251, 232, 3]);
        assert_eq!(decode_entry::<u64>(&bytes).unwrap(), (leader, vec![1, 1_000]));
        assert!(decode_entry::<u64>(&bytes[1..]).is_err());
    }
}
