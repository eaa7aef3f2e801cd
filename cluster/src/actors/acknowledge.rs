//! The last steps of a change, once its snapshot decides: shards learn their totals, refuse older decisions, give back; and no node
//! decides without an exclusion any more.

use std::collections::BTreeMap;
use std::time::Duration;

use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::profile::command::{AccountId, EscrowMessage, ShardOp};
use tokio::sync::oneshot;

use super::fences::Heard;
use crate::calls::Changed;
use crate::error::Error;
use crate::limits::{ESCROW_MESSAGES_MAX, OVER_READ_MS, OVER_READS_MAX, TELL_SHARDS_AGAIN_MS};
use crate::meta::ask::MetaAsk;
use crate::meta::job::{Acknowledgement, Duties};
use crate::meta::leader::Surroundings;
use crate::planted::{Bug, is};
use crate::shard::ask::{Ask, Lane, Reply, WriteAsk};

/// Does what is left to do, then answers. A change that is in force is never answered before its duties are done, however long a shard
/// takes; when the caller stops waiting, nobody was promised anything. What shards have to know all the same they are told by others:
/// of fences by [`Fences`](super::fences::Fences), of totals by the ledger's rounds.
pub(super) async fn acknowledge(around: Surroundings, ready: Acknowledgement, heard: Heard) {
    let Acknowledgement { answers, mut reply, duties, generations, room, fence, fenced } = ready;
    let answers = tokio::select! {
        biased;
        answers = see_to(&around, answers, (duties, generations), (fence, heard), fenced) => answers,
        () = reply.closed() => None,
    };
    if let Some(answers) = answers {
        // The caller may have stopped waiting.
        let _ = reply.send(Ok(answers));
    }
    drop(room);
}

/// The answers, once everything is done. `None`: whoever knew what had been granted is gone, and nobody can say that an exclusion holds
/// everywhere.
async fn see_to(
    around: &Surroundings,
    mut answers: Vec<Result<Changed, Error>>,
    (duties, generations): (Duties, BTreeMap<ShardId, u64>),
    (fence, mut heard): (Option<Revision>, Heard),
    fenced: Option<oneshot::Receiver<()>>,
) -> Option<Vec<Result<Changed, Error>>> {
    let mut messages: BTreeMap<ShardId, Vec<EscrowMessage>> = BTreeMap::new();
    for (shard, message) in duties.told {
        messages.entry(shard).or_default().push(message);
    }
    let ops = messages.into_iter().map(|(shard, messages)| {
        // A later generation leaves it be: it holds nothing that it could give back.
        let generation = generations.get(&shard).copied().unwrap_or(0);
        let messages = messages.chunks(ESCROW_MESSAGES_MAX);
        let escrow = messages.map(|messages| ShardOp::escrow(generation, messages.to_vec()));
        (shard, escrow.collect::<Vec<_>>())
    });
    let mut waiting: Vec<_> = ops.map(|(shard, ops)| (shard, order(around, shard, ops.clone()), ops)).collect();
    while let Some((shard, answer, ops)) = waiting.pop() {
        if !matches!(answer.await, Ok(Ok(_))) {
            tokio::time::sleep(Duration::from_millis(TELL_SHARDS_AGAIN_MS)).await;
            waiting.push((shard, order(around, shard, ops.clone()), ops));
        }
    }
    if let Some(fence) = fence.filter(|_| !is(Bug::ExclusionNotAwaited)) {
        heard.of(fence).await;
    }
    let over_by = give_back(around, duties.over).await;
    for changed in answers.iter_mut().flatten() {
        changed.over_by = over_by;
    }
    match fenced {
        Some(fenced) => fenced.await.ok().map(|()| answers),
        None => Some(answers),
    }
}

/// Has a shard do something, wherever it is led.
pub(super) fn order(
    around: &Surroundings,
    shard: ShardId,
    ops: Vec<ShardOp>,
) -> oneshot::Receiver<Result<usize, Error>> {
    let (reply, answer) = oneshot::channel();
    let ask = Ask::Write(WriteAsk { ops, deadline: None, reply: Reply::new(reply) });
    // The cluster's own is never refused.
    let _ = around.shards[usize::from(shard.0)].send(Lane::Own, ask);
    answer
}

/// Waits a little for shards to give back what a lowered limit no longer covers; says what is still out.
async fn give_back(around: &Surroundings, over: Vec<AccountId>) -> u64 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proffer_engine::keys::CapKey;
    use proffer_engine::level::Level;
    use tokio::task::JoinSet;

    use super::super::fences::Fences;
    use super::*;
    use crate::lease::Tenure;
    use crate::meta::command::Founding;
    use crate::meta::door::MetaDoor;
    use crate::meta::keeper::Whereabouts;
    use crate::meta::roster::NodeInfo;
    use crate::ports::clock::ManualClock;
    use crate::shard::door::ShardDoor;
    use crate::view::Views;

    /// A meta group's surroundings, with shards that nobody leads.
    fn around(shards: u16) -> Surroundings {
        let views = Arc::new(Views::new());
        let clock = Arc::new(ManualClock::new(proffer_engine::time::Timestamp(0)));
        let door = Arc::new(MetaDoor::default());
        door.open(Arc::new(|| {}));
        Surroundings {
            door,
            shards: (0..shards).map(|_| Arc::new(ShardDoor::new())).collect(),
            tenure: Arc::new(Tenure::new(Arc::clone(&clock) as _, Arc::clone(&views))),
            views,
            clock,
            founding: Founding { secret: [1; 16], shards },
            whereabouts: Whereabouts::of(NodeInfo::default()),
            can: Level::NEWEST,
        }
    }

    fn message(account: AccountId) -> EscrowMessage {
        EscrowMessage {
            account,
            granted: 1,
            span: proffer_engine::time::Span::ALWAYS,
            unit: 1,
            cooling_ms: 0,
            recall: proffer_engine::profile::command::Recall::Nothing,
            closed: false,
            version: 0,
            soft: None,
        }
    }

    /// What a shard was asked to do.
    fn asked(around: &Surroundings, shard: usize) -> Option<(Vec<ShardOp>, Reply<usize>)> {
        match around.shards[shard].next()? {
            Ask::Write(WriteAsk { ops, reply, .. }) => Some((ops, reply)),
            Ask::Decide(_) | Ask::Respond(_) | Ask::Read(_) | Ask::Notice(_) => {
                panic!("it is ordered, and nothing else")
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_gone_leaves_its_room_and_nothing_goes_on_for_it() {
        let around = around(1);
        let mut tasks = JoinSet::new();
        let fences = Fences::new(&around, &mut tasks);
        fences.raise(Revision(7));
        let (sent, _) = oneshot::channel();
        around.door.send(MetaAsk::Over { accounts: Vec::new(), reply: sent }).unwrap();
        let room = around.door.next_call().unwrap().room;
        let account = AccountId { tenant: 0, cap: CapKey(1), ordinal: 0 };
        let mut duties = Duties::default();
        duties.told.push((ShardId(0), message(account)));
        let (reply, answer) = oneshot::channel();
        let ready = Acknowledgement {
            answers: Vec::new(),
            reply,
            duties,
            generations: BTreeMap::new(),
            room,
            fence: Some(Revision(7)),
            fenced: None,
        };
        let acknowledging = tokio::spawn(acknowledge(around.clone(), ready, fences.heard()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!acknowledging.is_finished(), "the shard has not answered");
        drop(answer);
        tokio::time::timeout(Duration::from_millis(1), acknowledging).await.expect("nobody waits for it").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_told_of_the_newest_fence_until_it_has_heard_of_it_and_by_one_order_at_a_time() {
        let around = around(2);
        let mut tasks = JoinSet::new();
        let fences = Fences::new(&around, &mut tasks);
        let mut heard = fences.heard();
        for fence in 1..=100 {
            fences.raise(Revision(fence));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for shard in 0..2 {
            let (ops, reply) = asked(&around, shard).unwrap();
            assert_eq!(ops, [ShardOp::Fence(Revision(1))]);
            assert!(asked(&around, shard).is_none(), "shard {shard} has not answered the first");
            reply.send(Err(Error::Unknown));
        }
        tokio::time::sleep(Duration::from_millis(TELL_SHARDS_AGAIN_MS - 10)).await;
        assert!(asked(&around, 0).is_none(), "not again at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
        for shard in 0..2 {
            assert!(futures_util::poll!(Box::pin(heard.of(Revision(1)))).is_pending());
            let (ops, reply) = asked(&around, shard).unwrap();
            assert_eq!(ops, [ShardOp::Fence(Revision(100))]);
            reply.send(Ok(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::timeout(Duration::from_millis(1), heard.of(Revision(100))).await.unwrap();
        fences.raise_level(Level(2));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(asked(&around, 1).unwrap().0, [ShardOp::Level(Level(2))]);
    }
}
