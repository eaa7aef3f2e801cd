//! Asking the other nodes what shards have counted that is not known here (docs/adr/0020).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Answer, Message, Post};
use crate::learning::Learning;
use crate::limits::{COURIER_MS, LEARN_ASK_MS, LEARN_BULK_BYTES_MAX, LEARN_CONTROL_BYTES_MAX};
use crate::peers::Lane;

/// Asks a few times a second. Runs for ever: stop it by dropping its task.
pub(crate) async fn learn_from_others(post: Post, learning: Arc<Learning>) {
    loop {
        tokio::time::sleep(Duration::from_millis(LEARN_ASK_MS)).await;
        let nodes = post.ways.load().as_ref().map_or_else(Vec::new, |peers| peers.nodes());
        // What one of them answers late keeps nobody from asking the others again for long.
        join_all(nodes.into_iter().map(|node| learn_from(&post, &learning, node))).await;
    }
}

/// Asks one node; if it knows more than goes where heartbeats go, once again where there is room.
async fn learn_from(post: &Post, learning: &Learning, node: u64) {
    for (lane, within) in [(Lane::Control, LEARN_ASK_MS), (Lane::Bulk, COURIER_MS)] {
        let deadline = Instant::now() + Duration::from_millis(within);
        let message = Message::Learn(learning.marks());
        // Safe to lose: it is asked again.
        let Ok(Answer::Learned(told, has_more)) = post.send(node, lane, &message, deadline).await else { return };
        learning.hear(told);
        if !has_more {
            return;
        }
    }
}

/// How much may be answered on a lane.
pub(super) fn room_on(lane: Lane) -> usize {
    match lane {
        Lane::Control => LEARN_CONTROL_BYTES_MAX,
        Lane::Bulk => LEARN_BULK_BYTES_MAX,
    }
}
