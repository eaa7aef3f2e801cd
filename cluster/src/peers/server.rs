//! The side that is dialled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::converse;
use super::framing::Ended;
use super::greet::receive;
use super::link::Node;
use super::serving::Serving;
use super::{Common, Lane, Service};
use crate::limits::{PEER_ACCEPT_PAUSE_MS, PEER_CONNECTIONS_MAX, PEER_STRANGERS_MAX};
use crate::ports::network::Stream;

/// The nodes that are dialled, by id.
pub(super) type Nodes = Mutex<BTreeMap<u64, Arc<Node>>>;

/// Serves whoever dials. Ends never; all of it ends when it is dropped.
pub(super) async fn accept(common: Arc<Common>, service: Arc<dyn Service>, nodes: Arc<Nodes>) {
    let strangers = Arc::new(Semaphore::new(PEER_STRANGERS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = common.network.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a peer's connection was not accepted");
                tokio::time::sleep(Duration::from_millis(PEER_ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let is_full = connections.len() >= PEER_CONNECTIONS_MAX;
        let Ok(stranger) = Arc::clone(&strangers).try_acquire_owned() else {
            tracing::warn!(from, "too many connections that do not say who they are: this one is closed");
            continue;
        };
        if is_full {
            tracing::warn!(from, "{PEER_CONNECTIONS_MAX} connections are open: this one is closed");
            continue;
        }
        let (common, service, nodes) = (Arc::clone(&common), Arc::clone(&service), Arc::clone(&nodes));
        connections.spawn(async move {
            let ended = attend(&common, &service, &nodes, stream, stranger).await;
            match ended {
                Ended::Refused(_) | Ended::Breach(_) => tracing::warn!(from, %ended, "a peer was turned away"),
                Ended::Closed | Ended::Broken(_) | Ended::Silent(_) | Ended::Replaced => {
                    tracing::debug!(from, %ended, "a peer's connection ended");
                }
            }
        });
    }
}

async fn attend<P>(common: &Common, service: &Arc<dyn Service>, nodes: &Nodes, stream: Stream, stranger: P) -> Ended {
    let met = match receive(common, stream).await {
        Ok(met) => met,
        Err(ended) => return ended,
    };
    drop(stranger);
    if met.hello.lane == Lane::Control
        && let Some(node) = nodes.lock().expect("no holder panics").get(&met.hello.node)
    {
        // It is there, so it is worth dialling again at once.
        node.is_there();
    }
    let serving = Serving::new(met.hello.clone(), Arc::clone(service));
    // Also when this future is dropped.
    let _end = End(&serving);
    converse(met, common.config.silence, serving.outbox(), |message, body| serving.hear(message, body)).await
}

struct End<'a>(&'a Serving);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
