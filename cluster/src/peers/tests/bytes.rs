//! Whatever a peer sends, a node lives on and stays within its limits.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::world::*;
use crate::limits::{PEER_CALLS_OPEN_MAX, PEER_RAFT_OPEN_MAX, PEER_STRANGERS_MAX};
use crate::peers::framing::Ended;
use crate::peers::greet::{Met, introduce, receive};
use crate::peers::wire::{Failure, Frame, MAGIC, Message, pack, unpack};
use crate::peers::{Class, Common, Lane};
use crate::ports::entropy::SeededEntropy;
use crate::ports::memory_network::{MemoryHost, MemoryNetwork};
use crate::ports::network::{Network, Stream};

/// How far a hostile peer behaves.
#[derive(Clone, Copy, Debug)]
enum Manners {
    None,
    Magic,
    Hello,
    Frames,
}

fn manners() -> impl Strategy<Value = Manners> {
    prop_oneof![Just(Manners::None), Just(Manners::Magic), Just(Manners::Hello), Just(Manners::Frames)]
}

/// Bytes as they come, and frames whose heads are nearly right.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let raw = proptest::collection::vec(any::<u8>(), 0..300);
    let frame = (proptest::collection::vec(0_u8..6, 0..8), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(head, body)| {
            let length = u8::try_from(1 + head.len() + body.len()).unwrap();
            [&[length, 0, 0, 0, u8::try_from(head.len()).unwrap()], &head[..], &body].concat()
        },
    );
    prop_oneof![raw, proptest::collection::vec(frame, 0..20).prop_map(|frames| frames.concat())]
}

fn common(network: &MemoryNetwork, node: u64) -> (Arc<MemoryHost>, Common) {
    let host = Arc::new(network.host(&format!("n{node}")));
    let network: Arc<dyn Network> = Arc::<MemoryHost>::clone(&host);
    (host, Common::new(config(node), network, Arc::new(SeededEntropy::new(node)), porter()))
}

/// A node 2 that knows how to begin, made known to node 1.
async fn met(network: &MemoryNetwork) -> Met {
    let (host, common) = common(network, 2);
    let stream = host.dial("n1").await.unwrap();
    introduce(&common, stream, Lane::Control, Some(1)).await.unwrap()
}

fn on_a_paused_clock(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

async fn send(mut stream: Stream, first: &[u8], noise: &[u8]) {
    let _ = stream.write_all(&[first, noise].concat()).await;
    let mut heard = [0; 64];
    let _ = timeout(ms(5), stream.read(&mut heard)).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_server_outlives_arbitrary_bytes(manners in manners(), noise in noise()) {
        on_a_paused_clock(async {
            let network = MemoryNetwork::new();
            let nodes = [start(&network, config(1), 1), start(&network, config(3), 3)];
            nodes[1].peers.set_route(1, "n1");
            let stream = network.host("x").dial("n1").await.unwrap();
            match manners {
                Manners::None => send(stream, b"", &noise).await,
                Manners::Magic => send(stream, &MAGIC, &noise).await,
                Manners::Hello => {
                    let (_, common) = common(&network, 2);
                    let hello = [&MAGIC[..], &common.hello(Lane::Control).pack()].concat();
                    send(stream, &hello, &noise).await;
                }
                Manners::Frames => {
                    let mut met = met(&network).await;
                    let _ = met.writer.write(&noise).await;
                    sleep(ms(5)).await;
                }
            }
            nodes[1].ask(1, Class::Call, "hello", 100).await.expect("others are served");
        });
    }

    #[test]
    fn a_link_outlives_arbitrary_bytes(manners in manners(), noise in noise()) {
        on_a_paused_clock(async {
            let network = MemoryNetwork::new();
            let node = start(&network, config(1), 1);
            let (host, common) = common(&network, 2);
            node.peers.set_route(2, "n2");
            let (stream, _) = host.accept().await.unwrap();
            let asked = node.ask(2, Class::Call, "hello", 300);
            let answering = async {
                match manners {
                    Manners::None => send(stream, b"", &noise).await,
                    Manners::Magic => send(stream, &MAGIC, &noise).await,
                    Manners::Hello => {
                        let hello = [&MAGIC[..], &common.hello(Lane::Control).pack()].concat();
                        send(stream, &hello, &noise).await;
                    }
                    Manners::Frames => {
                        let mut met = receive(&common, stream).await.unwrap();
                        let _ = met.writer.write(&noise).await;
                        sleep(ms(5)).await;
                    }
                }
                drop(host);
            };
            // An answer may be among the noise; that it ends is what counts.
            let (_, ()) = tokio::join!(asked, answering);
            let second = start(&network, { let mut second = config(2); second.boots = 2; second }, 22);
            let mut standing = node.peers.watch(2);
            timeout(ms(2_500), standing.wait_for(|standing| standing.is_up)).await.expect("dialled again").unwrap();
            node.ask(2, Class::Call, "hello", 100).await.expect("the link works again");
            drop(second);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_claims_too_much_ends_the_connection_unread() {
    let network = MemoryNetwork::new();
    let _node = start(&network, config(1), 1);
    let mut met = met(&network).await;
    met.writer.write(&u32::MAX.to_le_bytes()).await.unwrap();
    let start = Instant::now();
    assert!(matches!(met.reader.next(1_000).await, Err(Ended::Closed)));
    assert_eq!(start.elapsed(), ms(0));
}

async fn failures(met: &mut Met) -> Vec<(u64, Failure)> {
    let mut failures = Vec::new();
    while let Ok(Ok(frame)) = timeout(ms(10), met.reader.next(1_000)).await {
        let (Frame::V1(message), _) = unpack(frame).unwrap();
        if let Message::Failed { id, why } = message {
            failures.push((id, why));
        }
    }
    failures
}

#[tokio::test(start_paused = true)]
async fn a_greedy_peer_is_answered_busy_and_its_raft_messages_pass() {
    let network = MemoryNetwork::new();
    let node = start(&network, config(1), 1);
    let mut met = met(&network).await;
    let calls = u64::try_from(PEER_CALLS_OPEN_MAX).unwrap();
    for id in 0..calls + 5 {
        let message = Message::Request { id, class: Class::Call, within_ms: 60_000 };
        met.writer.write(&pack(&Frame::V1(message), b"hang")).await.unwrap();
    }
    let busy: Vec<_> = (calls..calls + 5).map(|id| (id, Failure::Busy)).collect();
    assert_eq!(failures(&mut met).await, busy);
    for id in 0..u64::try_from(PEER_RAFT_OPEN_MAX).unwrap() + 100 {
        let message = Message::Request { id: 10_000 + id, class: Class::Raft, within_ms: 60_000 };
        met.writer.write(&pack(&Frame::V1(message), b"hang")).await.unwrap();
    }
    assert_eq!(failures(&mut met).await, [], "Raft is never busy");
    assert_eq!(node.under_way(), PEER_CALLS_OPEN_MAX + PEER_RAFT_OPEN_MAX, "what is beyond is lost");
    drop(met);
    sleep(ms(10)).await;
    assert_eq!(node.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_and_never_reads_is_left() {
    let network = MemoryNetwork::new();
    let node = start(&network, config(1), 1);
    let mut met = met(&network).await;
    let asking = async {
        for id in 0.. {
            let message = Message::Request { id, class: Class::Call, within_ms: 60_000 };
            if met.writer.write(&pack(&Frame::V1(message), b"large 200000")).await.is_err() {
                return id;
            }
        }
        0
    };
    let asked = timeout(ms(5_000), asking).await.expect("it is disconnected");
    assert!(asked < 100_000, "after {asked} requests");
    sleep(ms(10)).await;
    assert_eq!(node.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_say_nothing_are_few_and_soon_gone() {
    let network = MemoryNetwork::new();
    let nodes = [start(&network, config(1), 1), start(&network, config(2), 2)];
    let host = network.host("x");
    let mut silent = Vec::new();
    for _ in 0..PEER_STRANGERS_MAX + 10 {
        silent.push(host.dial("n1").await.unwrap());
        sleep(ms(1)).await;
    }
    sleep(ms(1_000)).await;
    let mut byte = [0];
    for stream in &mut silent {
        assert!(matches!(stream.read(&mut byte).await, Ok(0) | Err(_)), "closed");
    }
    nodes[1].peers.set_route(1, "n1");
    nodes[1].ask(1, Class::Own, "hello", 100).await.unwrap();
}
