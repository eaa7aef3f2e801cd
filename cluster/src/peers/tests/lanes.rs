//! What goes first, and what is too much.

use futures_of::all;
use tokio::time::{Instant, sleep};

use super::world::*;
use crate::limits::PEER_CALLS_OPEN_MAX;
use crate::peers::outbox::{Outbox, Outgoing};
use crate::peers::wire::{Frame, LENGTH_BYTES, Message, unpack};
use crate::peers::{Class, Lane, Unreached};
use crate::ports::memory_network::MemoryNetwork;

mod futures_of {
    /// Runs futures at once, in one task.
    pub(super) async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
        let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
        std::future::poll_fn(|context| {
            for (future, done) in &mut futures {
                if done.is_none()
                    && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
                {
                    *done = Some(value);
                }
            }
            if futures.iter().all(|(_, done)| done.is_some()) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        futures.into_iter().filter_map(|(_, done)| done).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn raft_is_written_first_then_the_clusters_own_then_calls() {
    let outbox = Outbox::default();
    let deadline = Instant::now() + ms(100);
    for (id, class) in [(1, Class::Call), (2, Class::Own), (3, Class::Raft), (4, Class::Call), (5, Class::Raft)] {
        outbox.push(id, class, Outgoing::Request { class, deadline, body: vec![0; 100] });
    }
    outbox.push(9, Class::Raft, Outgoing::Request { class: Class::Raft, deadline: Instant::now(), body: Vec::new() });
    let mut order = Vec::new();
    while let Some(frame) = outbox.next_within(1_000) {
        let (Frame::V1(message), _) = unpack(frame[LENGTH_BYTES..].to_vec()).unwrap();
        let Message::Request { id, .. } = message else { panic!("{message:?}") };
        order.push(id);
    }
    assert_eq!(order, [3, 5, 2, 1, 4], "what is late already is not written at all");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_waits_for_one_call_at_most() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Raft, "hello", 100).await.unwrap();
    // 64 KiB are under way at a time, so one largest frame takes four times so long.
    network.slow("n1", "n2", ms(20));
    let start = Instant::now();
    let body = vec![b'x'; Lane::Control.body_bytes_max()];
    let calls = (0..20).map(|_| nodes[0].peers.ask(2, Class::Call, body.clone(), ms(10_000))).collect();
    let (calls, heartbeat) = tokio::join!(all(calls), async {
        sleep(ms(105)).await;
        let start = Instant::now();
        nodes[0].ask(2, Class::Raft, "hello", 1_000).await.unwrap();
        start.elapsed()
    });
    assert!(calls.iter().all(Result::is_ok));
    assert!(start.elapsed() > ms(1_500), "the calls took {:?}", start.elapsed());
    assert!(heartbeat <= ms(125), "the heartbeat took {heartbeat:?}");
}

#[tokio::test(start_paused = true)]
async fn bulk_does_not_delay_control() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Raft, "hello", 100).await.unwrap();
    network.slow("n1", "n2", ms(20));
    let bulk = vec![b'x'; Lane::Bulk.body_bytes_max()];
    let start = Instant::now();
    let (bulk, ()) = tokio::join!(nodes[0].peers.ask(2, Class::Raft, bulk, ms(60_000)), async {
        for _ in 0..50 {
            sleep(ms(10)).await;
            let start = Instant::now();
            nodes[0].ask(2, Class::Raft, "hello", 1_000).await.unwrap();
            assert_eq!(start.elapsed(), ms(20));
        }
    });
    bulk.unwrap();
    assert!(start.elapsed() > ms(2_000), "it was slow: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_told() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    let max = Lane::Bulk.body_bytes_max();
    let large = nodes[0].peers.ask(2, Class::Own, vec![0; max + 1], ms(100)).await;
    assert_eq!(large, Err(Unreached::TooLarge { bytes: max + 1, max }));
    let answer = nodes[0].ask(2, Class::Own, "large 300000", 100).await;
    assert_eq!(answer, Err(Unreached::AnswerTooLarge));
    let asked = b"large 300000".to_vec();
    let answer = nodes[0].peers.ask_on(2, Lane::Bulk, Class::Own, asked, ms(100)).await.unwrap();
    assert_eq!(answer.len(), 300_000);
}

#[tokio::test(start_paused = true)]
async fn beyond_its_room_a_class_is_busy_and_the_others_pass() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Raft, "hello", 100).await.unwrap();
    let hang = || nodes[0].ask(2, Class::Call, "hang", 1_000);
    let calls = (0..PEER_CALLS_OPEN_MAX + 3).map(|_| hang()).collect();
    let (calls, ()) = tokio::join!(all(calls), async {
        sleep(ms(500)).await;
        assert_eq!(nodes[1].under_way(), PEER_CALLS_OPEN_MAX);
        assert_eq!(hang().await, Err(Unreached::Busy));
        nodes[0].ask(2, Class::Raft, "hello", 100).await.unwrap();
        nodes[0].ask(2, Class::Own, "hello", 100).await.unwrap();
    });
    let busy = calls.iter().filter(|call| **call == Err(Unreached::Busy)).count();
    assert_eq!(busy, 3);
    nodes[0].ask(2, Class::Call, "hello", 100).await.expect("there is room again");
}
