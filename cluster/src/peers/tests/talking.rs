//! Requests, deadlines, and links that come and go.

use tokio::time::{Instant, sleep, timeout};

use super::world::*;
use crate::peers::{Class, Unreached};
use crate::ports::memory_network::MemoryNetwork;

#[tokio::test(start_paused = true)]
async fn three_nodes_talk() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 3);
    for (node, actor) in (1..).zip(&nodes) {
        for other in (1..=3).filter(|other| *other != node) {
            for class in [Class::Raft, Class::Own, Class::Call] {
                let answer = actor.ask(other, class, "hello", 100).await.unwrap();
                assert_eq!(answer, format!("n{other} heard from {node}: hello"));
            }
            assert!(actor.peers.is_up(other));
        }
    }
    let unknown = nodes[0].ask(9, Class::Own, "hello", 100).await.unwrap_err();
    assert_eq!(unknown, Unreached::Unreachable("its address is not known".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn idle_links_stay_up() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Raft, "hello", 100).await.unwrap();
    nodes[0].peers.ask(2, Class::Raft, vec![b'x'; 1_000_000], ms(100)).await.unwrap();
    sleep(ms(60_000)).await;
    assert_eq!(nodes[0].peers.watch(2).borrow().times, 1);
    assert!(nodes[0].peers.is_up(2));
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_told_at_once_and_healed_within_the_back_off() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    sleep(ms(2_000)).await;
    let start = Instant::now();
    let (broken, ()) = tokio::join!(nodes[0].ask(2, Class::Call, "hang", 5_000), async {
        sleep(ms(50)).await;
        network.cut("n1", "n2");
    });
    assert!(matches!(broken, Err(Unreached::Broken(_))), "{broken:?}");
    assert_eq!(start.elapsed(), ms(50));
    sleep(ms(5_000)).await;
    let start = Instant::now();
    let refused = nodes[0].ask(2, Class::Raft, "hello", 100).await;
    assert!(matches!(refused, Err(Unreached::Unreachable(_))), "{refused:?}");
    assert_eq!(start.elapsed(), ms(0), "no waiting while there is no way");
    assert!(!nodes[0].peers.is_up(2));
    network.heal("n1", "n2");
    let mut standing = nodes[0].peers.watch(2);
    timeout(ms(1_000), standing.wait_for(|standing| standing.is_up))
        .await
        .expect("within the longest back-off")
        .unwrap();
    assert_eq!(standing.borrow().times, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    // Who is dialled by the other knows that it is there.
    sleep(ms(20)).await;
    assert!(nodes[1].peers.is_up(1));
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_are_noticed_whichever_way_is_silent() {
    for ways in [&[("n1", "n2")][..], &[("n2", "n1")], &[("n1", "n2"), ("n2", "n1")]] {
        let network = MemoryNetwork::new();
        let nodes = nodes(&network, 2);
        nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
        sleep(ms(2_000)).await;
        for (from, to) in ways {
            network.silence(from, to);
        }
        let start = Instant::now();
        let broken = nodes[0].ask(2, Class::Call, "hang", 10_000).await;
        assert!(matches!(broken, Err(Unreached::Broken(_))), "{ways:?}: {broken:?}");
        assert!(start.elapsed() <= ms(900), "{ways:?}: {:?}", start.elapsed());
        sleep(ms(2_000)).await;
        assert!(!nodes[0].peers.is_up(2) && !nodes[1].peers.is_up(1));
        assert_eq!(nodes[1].under_way(), 0, "nobody works for nobody");
        network.heal("n1", "n2");
        sleep(ms(1_100)).await;
        assert!(nodes[0].peers.is_up(2) && nodes[1].peers.is_up(1), "{ways:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_ride_over_a_reconnect() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    sleep(ms(2_000)).await;
    network.sever("n1", "n2");
    sleep(ms(1)).await;
    nodes[0].ask(2, Class::Call, "hello", 100).await.expect("dialled again in time");
    assert_eq!(nodes[0].peers.watch(2).borrow().times, 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    let mut moved = config(2);
    (moved.address, moved.boots) = ("elsewhere".to_owned(), 2);
    let [first, second] = <[Actor; 2]>::try_from(nodes).ok().unwrap();
    drop(second);
    let second = start(&network, moved, 22);
    first.peers.set_route(2, "elsewhere");
    let answer = first.ask(2, Class::Call, "hello", 100).await.unwrap();
    assert_eq!(answer, "elsewhere heard from 1: hello");
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn who_looks_for_another_node_at_an_address_breaks_no_connection_with_the_one_that_is_there() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    // There was a node 9 there, which lost its disk: node 2 is what came of it.
    nodes[0].peers.set_route(9, "n2");
    sleep(ms(30_000)).await;
    assert!(!nodes[0].peers.is_up(9) && nodes[0].peers.is_up(2));
    assert_eq!(nodes[0].peers.watch(2).borrow().times, 1);
}

#[tokio::test(start_paused = true)]
async fn deadlines_end_work_on_both_sides() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    network.slow("n1", "n2", ms(30));
    nodes[0].ask(2, Class::Call, "hello", 1_000).await.unwrap();
    let start = Instant::now();
    assert_eq!(nodes[0].ask(2, Class::Call, "hang", 200).await, Err(Unreached::TimedOut));
    assert_eq!(start.elapsed(), ms(200));
    assert_eq!(*nodes[1].deeds.within.lock().unwrap(), ms(200));
    sleep(ms(50)).await;
    assert_eq!(nodes[1].under_way(), 0);
    // An answer that comes late is nobody's, and does no harm.
    assert_eq!(nodes[0].ask(2, Class::Call, "sleep 10", 35).await, Err(Unreached::TimedOut));
    sleep(ms(200)).await;
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_a_request_cancels_it_there_and_frees_its_room() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    timeout(ms(20), nodes[0].ask(2, Class::Call, "hang", 10_000)).await.expect_err("it hangs");
    sleep(ms(1)).await;
    assert_eq!((nodes[1].begun(), nodes[1].under_way()), (2, 0));
    for _ in 0..3 * crate::limits::PEER_CALLS_OPEN_MAX {
        let hang = nodes[0].ask(2, Class::Call, "hang", 10_000);
        assert!(timeout(ms(1), hang).await.is_err(), "neither busy nor broken");
    }
    assert!(nodes[1].under_way() <= 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_told() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 2);
    let lost = nodes[0].ask(2, Class::Own, "panic", 1_000).await;
    assert!(matches!(lost, Err(Unreached::Broken(_))), "{lost:?}");
    nodes[0].ask(2, Class::Own, "hello", 100).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_ends_with_its_owner() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 3);
    nodes[0].ask(2, Class::Call, "hello", 100).await.unwrap();
    nodes[0].peers.ask(2, Class::Call, vec![b'x'; 1_000_000], ms(100)).await.unwrap();
    let _ = timeout(ms(20), nodes[1].ask(3, Class::Call, "hang", 10_000)).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks() > 0);
    drop(nodes);
    sleep(ms(1)).await;
    assert_eq!(tasks(), 0);
}

#[test]
fn a_seed_names_its_run() {
    let run = |seed: u64| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let network = MemoryNetwork::new();
            let mut nodes = Vec::new();
            for node in 1..=3 {
                nodes.push(start(&network, config(node), seed * 10 + node));
            }
            let begin = Instant::now();
            let mut trace = Vec::new();
            for (node, actor) in (1..).zip(&nodes) {
                for other in (1..=3).filter(|other| *other != node) {
                    actor.peers.set_route(other, &format!("n{other}"));
                }
            }
            for step in 0..60_u64 {
                match step % 20 {
                    5 => network.cut("n1", "n2"),
                    8 => network.silence("n2", "n3"),
                    11 => network.slow("n3", "n1", ms(7)),
                    15 => network.heal("n1", "n2"),
                    16 => network.heal("n2", "n3"),
                    _ => {}
                }
                let from = usize::try_from(step % 3).unwrap();
                let asked = nodes[from].ask((step + 1) % 3 + 1, Class::Call, "sleep 9", 130).await;
                let times: Vec<u64> = (1..=3).map(|node| nodes[from].peers.watch(node).borrow().times).collect();
                trace.push(format!("{:?} {step} {asked:?} {times:?}", begin.elapsed()));
                sleep(ms(37)).await;
            }
            trace
        })
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2), "jitter comes from the seed");
}
