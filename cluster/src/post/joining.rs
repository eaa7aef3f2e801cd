//! How a disk that is of no cluster becomes a node of one: it asks any node, which asks the meta group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bincode::{Decode, Encode};
use proffer_engine::codec;
use proffer_engine::level::Level;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Answer, Post, ToMeta};
use crate::error::StartError;
use crate::groups::Group;
use crate::identity::Belonging;
use crate::limits::{COURIER_MS, JOIN_MS_MAX, JOIN_RETRY_MS};
use crate::meta::command::Founding;
use crate::meta::roster::change::too_old;
use crate::meta::roster::{NodeInfo, Roster};
use crate::peers::{Gatekeeper, Hello, PeersConfig, ask_address};
use crate::ports::entropy::Entropy;
use crate::ports::network::Network;

/// What a newcomer asks.
#[derive(Encode, Decode)]
enum Request {
    V1(NodeInfo),
    /// With the highest feature level that it can.
    V2(NodeInfo, Level),
}

/// What it is answered.
#[derive(Encode, Decode)]
enum Reply {
    Admitted(Admitted),
    /// For good.
    Barred(String),
    /// For now.
    Later(String),
}

#[derive(Encode, Decode)]
struct Admitted {
    founding: Founding,
    node: u64,
    /// Its replica of the meta group.
    replica: u64,
    /// The others, and where they are.
    peers: BTreeMap<u64, String>,
}

/// The side that lets in.
pub(crate) struct Admission {
    pub(crate) post: Post,
    pub(crate) founding: Founding,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
}

impl Admission {
    /// Answers a newcomer.
    pub(super) async fn answer(&self, body: &[u8], deadline: Instant) -> Vec<u8> {
        let reply = match codec::decode::<Request>("a request to join", body) {
            Ok(Request::V1(info)) => self.admit(info, Level::FIRST, deadline).await,
            Ok(Request::V2(info, can)) => self.admit(info, can, deadline).await,
            Err(error) => Reply::Barred(error.to_string()),
        };
        codec::encode(&reply)
    }

    async fn admit(&self, info: NodeInfo, can: Level, deadline: Instant) -> Reply {
        let level = self.roster.borrow().level();
        if can < level {
            return Reply::Barred(too_old(can, level));
        }
        match self.post.meta(ToMeta::Enroll(info), deadline).await {
            Ok(Answer::Enrolled { node, replica }) => {
                let roster = self.roster.borrow();
                let others = roster.nodes().filter(|(other, _)| *other != node);
                let peers = others.map(|(other, record)| (other, record.info.peer_address.clone())).collect();
                Reply::Admitted(Admitted { founding: self.founding, node, replica, peers })
            }
            Ok(Answer::Barred(reason)) => Reply::Barred(reason),
            Ok(answer) => Reply::Later(format!("the meta group answered {answer:?}")),
            Err(error) => Reply::Later(error.to_string()),
        }
    }
}

/// Takes nobody in and lets nobody wait: a newcomer has nothing to judge by.
struct Stranger;

impl Gatekeeper for Stranger {
    fn about(&self) -> Vec<u8> {
        Vec::new()
    }

    fn judge(&self, _: &Hello, _: bool) -> Result<(), String> {
        Ok(())
    }
}

/// Asks the nodes at `addresses`, one after the other and again, to be let in.
///
/// # Errors
/// If the cluster says no, or nobody says yes for a minute.
pub(crate) async fn join(
    addresses: &[String],
    (info, can): (NodeInfo, Level),
    network: Arc<dyn Network>,
    entropy: Arc<dyn Entropy>,
) -> Result<Belonging, StartError> {
    let until = Instant::now() + Duration::from_millis(JOIN_MS_MAX);
    let failed = |reason: String| StartError::Join { reason };
    let body = codec::encode(&Request::V2(info.clone(), can));
    let mut last = String::new();
    while Instant::now() < until {
        for address in addresses {
            let config = PeersConfig::new(None, 0, info.disk, info.boots, &info.peer_address);
            let (network, entropy) = (Arc::clone(&network), Arc::clone(&entropy));
            let within = Duration::from_millis(COURIER_MS);
            let asked = ask_address(config, network, entropy, Arc::new(Stranger), address, body.clone(), within).await;
            let reply = match asked {
                Ok(reply) => {
                    codec::decode("the answer to a request to join", &reply).map_err(|e| failed(e.to_string()))?
                }
                Err(unreached) => Reply::Later(unreached.to_string()),
            };
            match reply {
                Reply::Admitted(Admitted { founding, node, replica, peers }) => {
                    tracing::info!(node, "joined the cluster");
                    return Ok(Belonging {
                        founding,
                        node,
                        seats: [(Group::Meta, replica)].into(),
                        left: BTreeMap::new(),
                        leaving: BTreeSet::new(),
                        peers,
                    });
                }
                Reply::Barred(reason) => return Err(failed(format!("the node at {address} says: {reason}"))),
                Reply::Later(reason) => {
                    tracing::info!(%address, %reason, "not let in yet");
                    last = format!("{address}: {reason}");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(JOIN_RETRY_MS)).await;
    }
    Err(failed(format!("nobody let this node in for {} s, last {last}", JOIN_MS_MAX / 1_000)))
}

/// Says at each start of a node where it is, until the cluster has taken note of it.
pub(crate) async fn enroll(post: Post, info: NodeInfo) {
    loop {
        let deadline = Instant::now() + Duration::from_millis(COURIER_MS);
        match post.meta(ToMeta::Enroll(info.clone()), deadline).await {
            Ok(Answer::Barred(reason)) => tracing::error!(%reason, "the cluster does not take this node back"),
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the cluster has not taken note of this start yet"),
        }
        tokio::time::sleep(Duration::from_millis(JOIN_RETRY_MS)).await;
    }
}
