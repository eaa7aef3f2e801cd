//! The last steps of a change, once its snapshot decides: shards learn their totals, refuse older decisions, give back; and no node
//! decides without an exclusion any more.

use std::collections::BTreeMap;
use std::time::Duration;

use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{AccountId, EscrowMessage, ShardOp};
use tokio::sync::oneshot;

use crate::calls::Changed;
use crate::error::Error;
use crate::limits::{ESCROW_MESSAGES_MAX, OVER_READ_MS, OVER_READS_MAX, SHARDS_TOLD_MS, TELL_SHARDS_AGAIN_MS};
use crate::meta::ask::MetaAsk;
use crate::meta::job::{Acknowledgement, Duties};
use crate::meta::leader::Surroundings;
use crate::planted::{Bug, is};
use crate::shard::ask::{Ask, Lane, Reply, WriteAsk};

/// Does what is left to do, then answers. Shards are waited for a little, that the next decision finds units where there are some, and what a
/// lowered limit no longer covers is given back; one that nobody leads is told by the ledger's rounds, and of fences by
/// [`Fences`](super::fences::Fences): what holds of an answer does not hang on it, for no node decides without an exclusion, and its answers are
/// looked through once more when they go. When the caller stops waiting, nobody was promised anything.
pub(super) async fn acknowledge(around: Surroundings, ready: Acknowledgement) {
    let Acknowledgement { answers, mut reply, duties, generations, room, fenced, .. } = ready;
    let answers = tokio::select! {
        biased;
        answers = see_to(&around, answers, (duties, generations), fenced) => answers,
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
    fenced: Option<oneshot::Receiver<()>>,
) -> Option<Vec<Result<Changed, Error>>> {
    let told = tell(around, duties.told, &generations);
    // The ledger's rounds go on with whom this leaves out.
    let _ = tokio::time::timeout(Duration::from_millis(SHARDS_TOLD_MS), told).await;
    let over_by = give_back(around, duties.over).await;
    for changed in answers.iter_mut().flatten() {
        changed.over_by = over_by;
    }
    match fenced.filter(|_| !is(Bug::ExclusionNotAwaited)) {
        Some(fenced) => fenced.await.ok().map(|()| answers),
        None => Some(answers),
    }
}

/// Returns when every shard has committed its totals.
async fn tell(around: &Surroundings, told: Vec<(ShardId, EscrowMessage)>, generations: &BTreeMap<ShardId, u64>) {
    let mut messages: BTreeMap<ShardId, Vec<EscrowMessage>> = BTreeMap::new();
    for (shard, message) in told {
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

    use proffer_engine::keys::{CapKey, Revision};
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

    /// Of a change of which a shard that nobody leads has to be told; and where its answer comes.
    fn ready(
        around: &Surroundings,
        fenced: Option<oneshot::Receiver<()>>,
    ) -> (Acknowledgement, oneshot::Receiver<Result<Vec<Result<Changed, Error>>, Error>>) {
        let (sent, _) = oneshot::channel();
        around.door.send(MetaAsk::Over { accounts: Vec::new(), reply: sent }).unwrap();
        let room = around.door.next_call().unwrap().room;
        let account = AccountId { tenant: 0, cap: CapKey(1), ordinal: 0 };
        let mut duties = Duties::default();
        duties.told.push((ShardId(0), message(account)));
        let (reply, answer) = oneshot::channel();
        let (answers, generations) = (Vec::new(), BTreeMap::new());
        (Acknowledgement { answers, reply, duties, generations, room, fence: Some(Revision(7)), fenced }, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_nobody_leads_delays_an_answer_and_no_more() {
        let around = around(1);
        let (fence, fenced) = oneshot::channel();
        let (ready, mut answer) = ready(&around, Some(fenced));
        tokio::spawn(acknowledge(around.clone(), ready));
        tokio::time::sleep(Duration::from_millis(2 * SHARDS_TOLD_MS)).await;
        assert!(answer.try_recv().is_err(), "a node may decide without the exclusion");
        fence.send(()).unwrap();
        tokio::time::timeout(Duration::from_millis(1), answer)
            .await
            .expect("nothing else is waited for")
            .unwrap()
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_gone_leaves_its_room_and_nothing_goes_on_for_it() {
        let around = around(1);
        let (_fence, fenced) = oneshot::channel();
        let (ready, answer) = ready(&around, Some(fenced));
        let acknowledging = tokio::spawn(acknowledge(around.clone(), ready));
        tokio::time::sleep(Duration::from_millis(2 * SHARDS_TOLD_MS)).await;
        assert!(!acknowledging.is_finished(), "a node may decide without the exclusion");
        drop(answer);
        tokio::time::timeout(Duration::from_millis(1), acknowledging).await.expect("nobody waits for it").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_is_told_of_the_newest_fence_until_it_has_heard_of_it_and_by_one_order_at_a_time() {
        let around = around(2);
        let mut tasks = JoinSet::new();
        let fences = Fences::new(&around, &mut tasks);
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
            let (ops, reply) = asked(&around, shard).unwrap();
            assert_eq!(ops, [ShardOp::Fence(Revision(100))]);
            reply.send(Ok(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(asked(&around, 0).is_none(), "it has heard");
        fences.raise_level(Level(2));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(asked(&around, 1).unwrap().0, [ShardOp::Level(Level(2))]);
    }
}
