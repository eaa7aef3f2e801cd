//! Nodes that do what a request's text says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::peers::{Class, Gatekeeper, Hello, Peers, PeersConfig, Request, Service, Unreached};
use crate::ports::entropy::SeededEntropy;
use crate::ports::memory_network::MemoryNetwork;
use crate::ports::propose::Pending;

pub(super) const CLUSTER: u128 = 77;

/// Answers by the text of the body: `sleep N`, `hang`, `panic`, `large N`; anything else is echoed behind the node's name.
#[derive(Default)]
pub(super) struct Deeds {
    pub(super) name: String,
    /// Requests begun.
    pub(super) begun: AtomicUsize,
    /// Requests under way.
    pub(super) under_way: Arc<AtomicUsize>,
    /// The last request's time, as it arrived.
    pub(super) within: Mutex<Duration>,
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service for Deeds {
    fn serve(&self, from: &Hello, request: Request) -> Pending<'static, Vec<u8>> {
        assert_eq!(from.cluster.unwrap_or(CLUSTER), CLUSTER);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        *self.within.lock().unwrap() = request.within;
        let under_way = UnderWay(Arc::clone(&self.under_way));
        let (name, from) = (self.name.clone(), from.node);
        Box::pin(async move {
            let _under_way = under_way;
            let start = String::from_utf8_lossy(&request.body[..request.body.len().min(40)]).into_owned();
            let (deed, number) = start.split_once(' ').unwrap_or((&start, "0"));
            match deed {
                "sleep" => tokio::time::sleep(Duration::from_millis(number.parse().unwrap())).await,
                "hang" => std::future::pending().await,
                "panic" => panic!("as asked"),
                "large" => return vec![7; number.parse().unwrap()],
                _ => {}
            }
            format!("{name} heard from {from}: {start}").into_bytes()
        })
    }
}

/// Lets everybody in but those that say a certain word.
pub(super) struct Porter {
    pub(super) says: Vec<u8>,
    pub(super) unwanted: Vec<u8>,
}

impl Gatekeeper for Porter {
    fn about(&self) -> Vec<u8> {
        self.says.clone()
    }

    fn judge(&self, hello: &Hello, _: bool) -> Result<(), String> {
        if hello.about == self.unwanted { Err("its replicas were wiped".to_owned()) } else { Ok(()) }
    }
}

pub(super) fn porter() -> Arc<Porter> {
    Arc::new(Porter { says: b"well".to_vec(), unwanted: b"wiped".to_vec() })
}

pub(super) struct Actor {
    pub(super) peers: Peers,
    pub(super) deeds: Arc<Deeds>,
}

pub(super) fn config(node: u64) -> PeersConfig {
    PeersConfig::new(Some(CLUSTER), node, 1_000 + u128::from(node), 1, &format!("n{node}"))
}

pub(super) fn start(network: &MemoryNetwork, config: PeersConfig, seed: u64) -> Actor {
    let deeds = Arc::new(Deeds { name: config.address.clone(), ..Deeds::default() });
    let host = Arc::new(network.host(&config.address));
    let entropy = Arc::new(SeededEntropy::new(seed));
    let peers = Peers::start(config, host, entropy, porter(), Arc::<Deeds>::clone(&deeds));
    Actor { peers, deeds }
}

/// Nodes 1 to `count`, each knowing the addresses of all.
pub(super) fn nodes(network: &MemoryNetwork, count: u64) -> Vec<Actor> {
    let nodes: Vec<Actor> = (1..=count).map(|node| start(network, config(node), node)).collect();
    for (node, actor) in (1..).zip(&nodes) {
        for other in (1..=count).filter(|other| *other != node) {
            actor.peers.set_route(other, &format!("n{other}"));
        }
    }
    nodes
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Actor {
    pub(super) async fn ask(&self, node: u64, class: Class, text: &str, within: u64) -> Result<String, Unreached> {
        let answer = self.peers.ask(node, class, text.as_bytes().to_vec(), ms(within)).await?;
        Ok(String::from_utf8(answer).unwrap())
    }

    pub(super) fn under_way(&self) -> usize {
        self.deeds.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn begun(&self) -> usize {
        self.deeds.begun.load(Ordering::Relaxed)
    }
}
