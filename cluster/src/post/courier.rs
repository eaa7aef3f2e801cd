//! What the cluster itself left at doors that are not led here is brought to where they are.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::keys::ShardId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Answer, Post, ToMeta, ToShard};
use crate::error::Error;
use crate::limits::COURIER_MS;
use crate::shard::ask::{Ask, Notice, WriteAsk};

/// Runs for ever: stop it by dropping its task.
pub(crate) async fn run_courier(post: Post) {
    let bell = Arc::new(Notify::new());
    let ring = || {
        let bell = Arc::clone(&bell);
        Arc::new(move || bell.notify_one())
    };
    for door in &post.local.shards {
        door.when_not_led(ring());
    }
    post.local.meta.when_not_led(ring());
    loop {
        bell.notified().await;
        for (door, shard) in post.local.shards.iter().zip((0..).map(ShardId)) {
            for ask in door.take_own_unless_led() {
                tokio::spawn(bring(post.clone(), shard, ask));
            }
        }
        while let Some((shard, generation, reports)) = post.local.meta.take_reports_unless_led() {
            let post = post.clone();
            tokio::spawn(async move {
                // A shard reports again what it is not told to be booked.
                let _ = post.meta_once(ToMeta::Report { shard, generation, reports }, soon()).await;
            });
        }
    }
}

async fn bring(post: Post, shard: ShardId, ask: Ask) {
    match ask {
        Ask::Notice(notice) => {
            let Notice { generation, messages, booked } = notice;
            let told = ToShard::Notice { generation, messages, booked };
            // The ledger tells again what a shard does not confirm.
            let _ = post.shard_once(shard, told, soon()).await;
        }
        Ask::Write(WriteAsk { ops, reply, .. }) => {
            let done = post.shard_once(shard, ToShard::Order(ops), soon()).await;
            reply.send(match done {
                Ok(Answer::Applied(count)) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
                Ok(_) => Err(Error::Unknown),
                Err(error) => Err(error),
            });
        }
        ask @ (Ask::Decide(_) | Ask::Respond(_) | Ask::Read(_)) => {
            ask.fail(Error::NotLed { reason: "the shard".to_owned() });
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(COURIER_MS)
}
