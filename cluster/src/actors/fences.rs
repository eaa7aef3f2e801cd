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
}

/// What all shards are to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct News {
    fence: Revision,
    level: Level,
}

impl Fences {
    /// Begins with a fence that all know; the telling ends with `tasks`.
    pub(super) fn new(around: &Surroundings, tasks: &mut JoinSet<()>) -> Self {
        let fences = Fences { newest: watch::Sender::new(News::default()) };
        for shard in 0..around.shards.len() {
            tasks.spawn(tell(around.clone(), shard, fences.newest.subscribe()));
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
}

async fn tell(around: Surroundings, shard: usize, mut newest: watch::Receiver<News>) {
    let id = ShardId(u16::try_from(shard).expect("at most 65,535 shards"));
    let mut known = News::default();
    loop {
        let Ok(news) = newest.wait_for(|newest| *newest != known).await.map(|news| *news) else { return };
        let fence = (news.fence > known.fence).then_some(ShardOp::Fence(news.fence));
        let level = (news.level > known.level).then_some(ShardOp::Level(news.level));
        if matches!(order(&around, id, fence.into_iter().chain(level).collect()).await, Ok(Ok(_))) {
            known = news;
        } else {
            tokio::time::sleep(Duration::from_millis(TELL_SHARDS_AGAIN_MS)).await;
        }
    }
}
