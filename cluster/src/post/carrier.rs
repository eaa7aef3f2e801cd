//! Raft's messages to replicas on other nodes.

use std::time::Duration;

use proffer_engine::codec;

use super::Ways;
use crate::peers::{self, Class};
use crate::ports::propose::Pending;
use crate::raft::{Carrier, RaftAnswer, RaftMessage, Seat, Unreached};

/// Carries them over the links of this node.
pub(crate) struct PeerCarrier(pub(crate) Ways);

impl Carrier for PeerCarrier {
    fn ask(
        &self,
        to: u64,
        seat: Seat,
        message: RaftMessage,
        within: Duration,
    ) -> Pending<'_, Result<RaftAnswer, Unreached>> {
        Box::pin(async move {
            let no_way = || Unreached::Unreachable(format!("this node has no way to replica {to}"));
            let peers = self.0.load_full().ok_or_else(no_way)?;
            let body = codec::encode(&(to, message));
            let answer = peers.ask(seat.node, Class::Raft, body, within).await;
            let answer = answer.map_err(|unreached| match unreached {
                peers::Unreached::Unreachable(why) => Unreached::Unreachable(why),
                peers::Unreached::TimedOut => Unreached::TimedOut,
                peers::Unreached::Busy
                | peers::Unreached::TooLarge { .. }
                | peers::Unreached::AnswerTooLarge
                | peers::Unreached::Broken(_) => Unreached::Broken(unreached.to_string()),
            })?;
            codec::decode("a replica's answer", &answer).map_err(|error| Unreached::Broken(error.to_string()))
        })
    }
}
