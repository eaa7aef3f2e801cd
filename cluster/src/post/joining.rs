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
use crate::timing::Timing;

/// What a newcomer asks.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Request {
    V1(Newcomer),
}

/// A node that is of no cluster yet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Newcomer {
    pub(crate) info: NodeInfo,
    /// The highest feature level that it can.
    pub(crate) can: Level,
    /// How long it waits for a leader.
    pub(crate) timing: Timing,
}

/// What it is answered.
#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) enum Reply {
    Admitted(Admitted),
    /// For good.
    Barred(String),
    /// For now.
    Later(String),
}

#[derive(Debug, PartialEq, Encode, Decode)]
pub(super) struct Admitted {
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
    /// What the nodes of the cluster run with.
    pub(crate) timing: Timing,
}

impl Admission {
    /// Answers a newcomer.
    pub(super) async fn answer(&self, body: &[u8], deadline: Instant) -> Vec<u8> {
        let reply = match codec::decode::<Request>("a request to join", body) {
            Ok(Request::V1(newcomer)) => self.admit(newcomer, deadline).await,
            Err(error) => Reply::Barred(error.to_string()),
        };
        codec::encode(&reply)
    }

    async fn admit(&self, Newcomer { info, can, timing }: Newcomer, deadline: Instant) -> Reply {
        let level = self.roster.borrow().level();
        if can < level {
            return Reply::Barred(too_old(can, level));
        }
        if timing != self.timing {
            return Reply::Barred(self.timing.unlike(timing));
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
    newcomer: Newcomer,
    network: Arc<dyn Network>,
    entropy: Arc<dyn Entropy>,
) -> Result<Belonging, StartError> {
    let until = Instant::now() + Duration::from_millis(JOIN_MS_MAX);
    let failed = |reason: String| StartError::Join { reason };
    let (info, timing) = (newcomer.info.clone(), newcomer.timing);
    let body = codec::encode(&Request::V1(newcomer));
    let mut last = String::new();
    while Instant::now() < until {
        for address in addresses {
            let config = PeersConfig::new(None, 0, info.disk, info.boots, &info.peer_address).with(timing);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PROTOCOLS;

    #[test]
    fn bytes_of_protocol_1() {
        assert_eq!(PROTOCOLS, (1, 1), "a new protocol has golden bytes of its own beside these");
        let text = |text: &str| text.to_owned();
        let info = NodeInfo { disk: 1, boots: 2, peer_address: text("p"), http_address: text("h"), zone: text("z") };
        let request = Request::V1(Newcomer { info, can: Level(3), timing: Timing::Slow });
        let bytes = [0, 1, 2, 1, b'p', 1, b'h', 1, b'z', 3, 1];
        assert_eq!(codec::encode(&request), bytes);
        assert_eq!(codec::decode::<Request>("request", &bytes).unwrap(), request);
        let founding = Founding { secret: [9; 16], shards: 16 };
        let admitted = Admitted { founding, node: 3, replica: 11, peers: [(1, text("p"))].into() };
        let welcome = [&[0][..], &[9; 16], &[16, 3, 11, 1, 1, 1, b'p']].concat();
        let replies: [(Reply, &[u8]); 3] = [
            (Reply::Admitted(admitted), &welcome),
            (Reply::Barred(text("no")), &[1, 2, b'n', b'o']),
            (Reply::Later(text("no")), &[2, 2, b'n', b'o']),
        ];
        for (reply, bytes) in replies {
            assert_eq!(codec::encode(&reply), bytes, "{reply:?}");
            assert_eq!(codec::decode::<Reply>("reply", bytes).unwrap(), reply);
        }
    }
}
