//! How a node gets its catalogue lease: from itself if it leads the meta group, from the node that does, or through any that has a way.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Message, Post, ToMeta};
use crate::groups::Group;
use crate::lease::{Grant, Grantor, Renew, Report};
use crate::limits::LEASE_ANSWER_MS;
use crate::ports::propose::Pending;

/// See the module.
pub(crate) struct NearestGrantor {
    post: Post,
    /// Counts relays: one that has no way to the leader either is not asked twice in a row.
    relays: AtomicUsize,
}

impl NearestGrantor {
    /// Of the node that `post` is of.
    pub(crate) fn new(post: Post) -> Self {
        NearestGrantor { post, relays: AtomicUsize::new(0) }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(LEASE_ANSWER_MS)
    }
}

impl Grantor for NearestGrantor {
    fn renew(&self, renew: Renew) -> Pending<'_, Option<Grant>> {
        Box::pin(async move {
            let (post, deadline) = (&self.post, Self::soon());
            let answer = if post.local.meta.is_up() {
                post.local.meta(ToMeta::Renew { renew, relayed: true }, deadline).await
            } else {
                let message = Message::Meta(ToMeta::Renew { renew, relayed: false });
                let leader = post.leader_elsewhere(Group::Meta);
                let peers = post.ways.load_full()?;
                let direct = leader.filter(|node| peers.is_up(*node));
                let relay = || {
                    let up: Vec<u64> = peers.nodes().into_iter().filter(|node| peers.is_up(*node)).collect();
                    let turn = self.relays.fetch_add(1, Ordering::Relaxed).checked_rem(up.len())?;
                    Some(up[turn])
                };
                // Who cannot reach the leader, or does not know it, asks somebody who may.
                post.ask_directly(direct.or_else(relay)?, &message, deadline).await
            };
            let Ok(Answer::Granted(grant)) = answer else { return None };
            Some(grant)
        })
    }

    fn report(&self, report: Report) {
        let post = self.post.clone();
        tokio::spawn(async move {
            // The next renewal says it again.
            let _ = post.meta_once(ToMeta::InForce(report), Self::soon()).await;
        });
    }
}
