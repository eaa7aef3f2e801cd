//! How a node gets its catalogue lease: from itself if it leads the meta group, from the node that does, or through any that has a way.

use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Message, Post, ToMeta};
use crate::groups::Group;
use crate::lease::{Grant, Grantor, Renew, Report};
use crate::limits::LEASE_ANSWER_MS;
use crate::ports::propose::Pending;

/// See the module.
pub(crate) struct NearestGrantor(pub(crate) Post);

impl NearestGrantor {
    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(LEASE_ANSWER_MS)
    }
}

impl Grantor for NearestGrantor {
    fn renew(&self, renew: Renew) -> Pending<'_, Option<Grant>> {
        Box::pin(async move {
            let (post, deadline) = (&self.0, Self::soon());
            let answer = if post.local.meta.is_up() {
                post.local.meta(ToMeta::Renew { renew, relayed: true }, deadline).await
            } else {
                let message = Message::Meta(ToMeta::Renew { renew, relayed: false });
                let leader = post.directory.leader_elsewhere(Group::Meta);
                let peers = post.ways.load_full()?;
                let direct = leader.filter(|node| peers.is_up(*node));
                let any = || peers.nodes().into_iter().find(|node| peers.is_up(*node));
                post.ask(direct.or_else(any)?, &message, deadline).await
            };
            let Ok(Answer::Granted(grant)) = answer else { return None };
            Some(grant)
        })
    }

    fn report(&self, report: Report) {
        let post = self.0.clone();
        tokio::spawn(async move {
            // The next renewal says it again.
            let _ = post.meta_once(ToMeta::InForce(report), Self::soon()).await;
        });
    }
}
