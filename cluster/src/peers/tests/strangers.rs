//! Who is let in, and what others are told.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::world::*;
use crate::peers::wire::{LENGTH_BYTES, MAGIC, refusal};
use crate::peers::{Class, Common, Gatekeeper, Hello, Lane, Peers, PeersConfig, Unreached, ask_address};
use crate::ports::entropy::SeededEntropy;
use crate::ports::memory_network::MemoryNetwork;
use crate::ports::network::Network;

/// What node 1 is told when it dials a node 2 of another configuration, and the other way round.
async fn told(change: impl Fn(&mut PeersConfig)) -> [String; 2] {
    let network = MemoryNetwork::new();
    let mut other = config(2);
    change(&mut other);
    let nodes = [start(&network, config(1), 1), start(&network, other, 2)];
    nodes[0].peers.set_route(2, "n2");
    nodes[1].peers.set_route(1, "n1");
    let first = nodes[0].ask(2, Class::Own, "hello", 100).await;
    let second = nodes[1].ask(1, Class::Own, "hello", 100).await;
    assert_eq!(nodes[0].begun() + nodes[1].begun(), 0, "nobody works for strangers");
    [first, second].map(|refused| {
        let Err(Unreached::Unreachable(reason)) = refused else { panic!("{refused:?}") };
        reason
    })
}

#[tokio::test(start_paused = true)]
async fn other_clusters_and_other_nodes_are_refused_on_both_sides() {
    for reason in told(|other| other.cluster = Some(CLUSTER + 1)).await {
        assert!(reason.contains("two different clusters"), "{reason}");
    }
    let [clusterless, _] = told(|other| other.cluster = None).await;
    assert!(clusterless.contains("node 2 says no cluster"), "{clusterless}");
    let [is_other, _] = told(|other| other.node = 1).await;
    assert!(is_other.contains("both are node 1"), "{is_other}");
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 3);
    nodes[0].peers.set_route(2, "n3");
    sleep(ms(100)).await;
    let wrong = nodes[0].ask(2, Class::Own, "hello", 100).await.unwrap_err();
    assert!(wrong.to_string().contains("this is node 3, not 2"), "{wrong}");
    nodes[0].peers.set_route(2, "n1");
    sleep(ms(100)).await;
    let own = nodes[0].ask(2, Class::Own, "hello", 100).await.unwrap_err();
    assert!(own.to_string().contains("itself"), "{own}");
}

#[tokio::test(start_paused = true)]
async fn the_gatekeeper_has_the_last_word_and_both_sides_hear_it() {
    let network = MemoryNetwork::new();
    let first = start(&network, config(1), 1);
    let wiped = Arc::new(Porter { says: b"wiped".to_vec(), unwanted: Vec::new() });
    let host = Arc::new(network.host("n2"));
    let deeds = Arc::new(Deeds::default());
    let second = Peers::start(config(2), host, Arc::new(SeededEntropy::new(2)), wiped, deeds);
    second.set_route(1, "n1");
    let refused = second.ask(1, Class::Raft, Vec::new(), ms(100)).await.unwrap_err();
    assert!(refused.to_string().contains("the other side says: its replicas were wiped"), "{refused}");
    first.peers.set_route(2, "n2");
    let refused = first.ask(2, Class::Raft, "", 100).await.unwrap_err();
    assert!(refused.to_string().contains("refused: its replicas were wiped"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_doubled_disk_is_refused_while_the_first_is_there_and_a_restart_is_not() {
    let network = MemoryNetwork::new();
    let mut nodes = nodes(&network, 2);
    nodes[0].ask(2, Class::Own, "hello", 100).await.unwrap();
    nodes[1].ask(1, Class::Own, "hello", 100).await.unwrap();
    let mut copy = config(2);
    copy.address = "copy".to_owned();
    let doubled = start(&network, copy.clone(), 99);
    doubled.peers.set_route(1, "n1");
    let refused = doubled.ask(1, Class::Own, "hello", 100).await.unwrap_err();
    assert!(refused.to_string().contains("doubled"), "{refused}");
    nodes[1].ask(1, Class::Own, "hello", 100).await.expect("the first is not disturbed");
    drop(doubled);
    // A restart of the disk takes over, also while the old connections seem to stand; what runs on is then an older copy.
    network.silence("n1", "n2");
    let mut restarted = config(2);
    (restarted.boots, restarted.address) = (2, "again".to_owned());
    let restarted = start(&network, restarted, 100);
    restarted.peers.set_route(1, "n1");
    restarted.ask(1, Class::Own, "hello", 100).await.expect("an honest restart");
    network.heal("n1", "n2");
    sleep(ms(2_000)).await;
    let older = nodes.pop().unwrap().ask(1, Class::Own, "hello", 100).await.unwrap_err();
    assert!(older.to_string().contains("older copy"), "{older}");
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_told_in_its_own_words() {
    let network = MemoryNetwork::new();
    let _nodes = nodes(&network, 1);
    let mut stream = network.host("browser").dial("n1").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nThis port is for the nodes of a proffer cluster, not for HTTP.\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn another_protocol_is_refused_in_words() {
    let network = MemoryNetwork::new();
    let _nodes = nodes(&network, 1);
    let hello = Hello {
        lowest: 7,
        highest: 9,
        cluster: Some(CLUSTER),
        node: 2,
        disk: 2,
        boots: 1,
        nonce: 5,
        lane: Lane::Control,
        address: "new".to_owned(),
        about: Vec::new(),
    };
    let mut stream = network.host("new").dial("n1").await.unwrap();
    stream.write_all(&[&MAGIC[..], &hello.pack()].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let reason = "protocol 1 to 1 is spoken here, 7 to 9 there: upgrade the older node";
    assert_eq!(answer, [&MAGIC[..], &refusal(reason)].concat());
    assert!(answer.len() > MAGIC.len() + LENGTH_BYTES);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_id_yet_may_ask_if_the_gatekeeper_lets_it() {
    let network = MemoryNetwork::new();
    let nodes = nodes(&network, 1);
    let joining = |says: &[u8]| {
        let porter: Arc<dyn Gatekeeper> = Arc::new(Porter { says: says.to_vec(), unwanted: Vec::new() });
        let config = PeersConfig::new(None, 0, 5, 1, "n7");
        let host = Arc::new(network.host("n7"));
        ask_address(config, host, Arc::new(SeededEntropy::new(7)), porter, "n1", b"join".to_vec(), ms(100))
    };
    let answers = tokio::join!(joining(b"new"), joining(b"newer"));
    assert_eq!(answers.0.unwrap(), b"n1 heard from 0: join");
    assert_eq!(answers.1.unwrap(), b"n1 heard from 0: join");
    let refused = joining(b"wiped").await.unwrap_err();
    assert!(refused.to_string().contains("wiped"), "{refused}");
    drop(nodes);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_oneself_is_cut_to_its_limit() {
    let says = Arc::new(Porter { says: vec![1; 1_000_000], unwanted: Vec::new() });
    let host = Arc::new(MemoryNetwork::new().host("n1"));
    let mut config = config(1);
    config.address = "ä".repeat(1_000);
    let common = Common::new(config, host, Arc::new(SeededEntropy::new(1)), says);
    let frame = common.hello(Lane::Bulk).pack();
    assert!(frame.len() <= crate::limits::PEER_HELLO_BYTES_MAX, "{}", frame.len());
}
