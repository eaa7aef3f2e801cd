//! The last steps of a change, once its snapshot decides: shards learn their totals, refuse older decisions, give back; and no node
//! decides without an exclusion any more.

use std::collections::BTreeMap;
use std::time::Duration;

use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{EscrowMessage, ShardOp};
use tokio::sync::oneshot;

use crate::limits::{ESCROW_MESSAGES_MAX, OVER_READ_MS, OVER_READS_MAX};
use crate::meta::ask::MetaAsk;
use crate::meta::job::Acknowledgement;
use crate::meta::leader::Surroundings;
use crate::shard::ask::{Ask, Lane, Reply, WriteAsk};

/// Does what is left to do, then answers. It does not give up: a change that is in force is never answered before its duties
/// are done, however long a shard takes; the caller's own deadline ends the waiting there.
pub(super) async fn acknowledge(around: Surroundings, ready: Acknowledgement) {
    let Acknowledgement { mut answers, reply, duties, room, fenced } = ready;
    let mut ops: BTreeMap<ShardId, Vec<ShardOp>> = BTreeMap::new();
    let mut messages: BTreeMap<ShardId, Vec<EscrowMessage>> = BTreeMap::new();
    for (shard, message) in duties.told {
        messages.entry(shard).or_default().push(message);
    }
    for (shard, messages) in messages {
        let escrow = messages.chunks(ESCROW_MESSAGES_MAX).map(|messages| ShardOp::Escrow(messages.to_vec()));
        ops.entry(shard).or_default().extend(escrow);
    }
    if duties.fence {
        for shard in 0..around.shards.len() {
            let shard = ShardId(u16::try_from(shard).expect("at most 65,535 shards"));
            ops.entry(shard).or_default().push(ShardOp::Fence(duties.revision));
        }
    }
    let mut waiting: Vec<_> =
        ops.into_iter().map(|(shard, ops)| (shard, order(&around, shard, ops.clone()), ops)).collect();
    while let Some((shard, answer, ops)) = waiting.pop() {
        if !matches!(answer.await, Ok(Ok(_))) {
            tokio::time::sleep(Duration::from_millis(OVER_READ_MS)).await;
            waiting.push((shard, order(&around, shard, ops.clone()), ops));
        }
    }
    let over_by = give_back(&around, duties.over).await;
    for changed in answers.iter_mut().flatten() {
        changed.over_by = over_by;
    }
    if let Some(fenced) = fenced
        && fenced.await.is_err()
    {
        // Whoever knew what had been granted is gone: nobody can say that the exclusion holds everywhere.
        return;
    }
    // The caller may have stopped waiting.
    let _ = reply.send(Ok(answers));
    drop(room);
}

fn order(
    around: &Surroundings,
    shard: ShardId,
    ops: Vec<ShardOp>,
) -> oneshot::Receiver<Result<usize, crate::error::Error>> {
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Write(WriteAsk { ops, deadline: None, reply: Reply::new(reply) });
    // The cluster's own is never refused.
    let _ = around.shards[usize::from(shard.0)].send(Lane::Own, ask);
    answer
}

/// Waits a little for shards to give back what a lowered limit no longer covers; says what is still out.
async fn give_back(around: &Surroundings, over: Vec<proffer_engine::profile::command::AccountId>) -> u64 {
    let mut over_by = 0;
    for _ in 0..OVER_READS_MAX {
        if over.is_empty() {
            break;
        }
        let (reply, answer) = oneshot::channel();
        if around.door.send(MetaAsk::Over { accounts: over.clone(), reply }).is_err() {
            break;
        }
        let Ok(Ok(units)) = answer.await else { break };
        over_by = units;
        if over_by == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(OVER_READ_MS)).await;
    }
    over_by
}
