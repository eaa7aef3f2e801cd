//! What nodes say to each other beside Raft: calls on their way to the node that answers them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

use crate::calls::Forwarded;
use crate::error::Error;
use crate::peers::{Class, Peers, Unreached};

/// The ways to the other nodes, once there are any.
#[derive(Clone, Default)]
pub(crate) struct Post {
    peers: Arc<ArcSwapOption<Peers>>,
    answerer: Arc<OnceLock<Arc<dyn Forwarded>>>,
}

impl Post {
    /// Calls that other nodes forward are answered by this from now on; only the first one is taken.
    pub(crate) fn answer_with(&self, answerer: Arc<dyn Forwarded>) {
        // The node has one face, and it opens once.
        let _ = self.answerer.set(answerer);
    }

    /// Has another node answer a call.
    pub(crate) async fn forward(&self, node: u64, call: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let Some(peers) = self.peers.load_full() else { return Err(not_led("this node knows no others")) };
        let within = deadline.saturating_duration_since(Instant::now());
        if within < Duration::from_millis(1) {
            return Err(Error::Expired);
        }
        peers.ask(node, Class::Call, call, within).await.map_err(|unreached| match unreached {
            Unreached::Unreachable(_) | Unreached::Busy => not_led("the node that leads cannot be reached"),
            Unreached::TooLarge { bytes, max } => {
                Error::Invalid(format!("a call of {bytes} bytes cannot be forwarded: at most {max}"))
            }
            Unreached::AnswerTooLarge | Unreached::Broken(_) | Unreached::TimedOut => Error::Unknown,
        })
    }
}

fn not_led(reason: &str) -> Error {
    Error::NotLed { reason: reason.to_owned() }
}
