//! Every shard is told of the newest fence, and of the cluster's feature level, until it has heard of it: one duty for each shard, however many exclusions there were and
//! whoever still waits for them.

use std::time::Duration;

use proffer_engine::keys::{Revision, ShardId};
use proffer_engine::level::Level;
use proffer_engine::profile::command::ShardOp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::acknowledge::order;
use crate::limits::TELL_SHARDS_AGAIN_MS;
use crate::meta::leader::Surroundings;

/// See the module.
pub(super) struct Fences {
    newest: watch::Sender<News>,
    /// The newest fence that each shard has heard of.
    heard: watch::Sender<Vec<Revision>>,
}

/// What all shards are to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    fence: Revision,
    level: Level,
}

/// Tells when all shards have heard of a fence.
pub(super) struct Heard(watch::Receiver<Vec<Revision>>);

impl Fences {
    /// Begins with a fence that all know; the telling ends with `tasks`.
    pub(super) fn new(around: &Surroundings, tasks: &mut JoinSet<()>) -> Self {
        let shards = around.shards.len();
        let heard = watch::Sender::new(vec![Revision(0); shards]);
        let fences = Fences { newest: watch::Sender::new(News::default()), heard };
        for shard in 0..shards {
            tasks.spawn(tell(around.clone(), shard, fences.newest.subscribe(), fences.heard.clone()));
        }
        fences
    }

    /// A fence is committed, and in force where the catalogue is led.
    pub(super) fn raise(&self, fence: Revision) {
        self.newest.send_if_modified(|newest| {
            let is_news = newest.fence < fence;
            newest.fence = fence.max(newest.fence);
            is_news
        });
    }

    /// The cluster is at a feature level.
    pub(super) fn raise_level(&self, level: Level) {
        self.newest.send_if_modified(|newest| {
            let is_news = newest.level < level;
            newest.level = level.max(newest.level);
            is_news
        });
    }

    /// A way to wait for the shards.
    pub(super) fn heard(&self) -> Heard {
        Heard(self.heard.subscribe())
    }
}

impl Heard {
    /// Returns when every shard has heard of a fence, or a later one. It must have been raised.
    pub(super) async fn of(&mut self, fence: Revision) {
        // An error means that the actor has ended, and this with it.
        let _ = self.0.wait_for(|heard| heard.iter().all(|heard| *heard >= fence)).await;
    }
}

async fn tell(
    around: Surroundings,
    shard: usize,
    mut newest: watch::Receiver<News>,
    heard: watch::Sender<Vec<Revision>>,
) {
    let id = ShardId(u16::try_from(shard).expect("at most 65,535 shards"));
    let mut known = News::default();
    loop {
        let Ok(news) = newest.wait_for(|newest| *newest != known).await.map(|news| *news) else { return };
        let fence = (news.fence > known.fence).then_some(ShardOp::Fence(news.fence));
        let level = (news.level > known.level).then_some(ShardOp::Level(news.level));
        if matches!(order(&around, id, fence.into_iter().chain(level).collect()).await, Ok(Ok(_))) {
            known = news;
            heard.send_modify(|heard| heard[shard] = news.fence);
        } else {
            tokio::time::sleep(Duration::from_millis(TELL_SHARDS_AGAIN_MS)).await;
        }
    }
}
