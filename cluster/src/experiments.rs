//! Results of experiments: what the customers of all shards say together.

use std::time::Duration;

use futures_util::future::join_all;
use proffer_engine::keys::{ShardId, TenantId};
use proffer_engine::learn::ExperimentTally;
use proffer_engine::profile::trials::{ExperimentId, Slice};
use tokio::time::{Instant, sleep};

use crate::calls::ExperimentReport;
use crate::error::Error;
use crate::handle::Handle;
use crate::limits::BULK_WAIT_MS;
use crate::post::{Answer, ToShard};

impl Handle {
    /// What came of an experiment, or of a slice of it. All shards are asked at once, each where it is led, for what is
    /// committed: everything that was acknowledged before is in it, each thing once. A shard that cannot be asked, or has not counted, in four
    /// fifths of the time left is named. O(profiles) of every shard, on copies outside their turns, one such count at a time in each.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn experiment(
        &self,
        tenant: &TenantId,
        experiment: ExperimentId,
        slice: Slice,
        deadline: Instant,
    ) -> Result<ExperimentReport, Error> {
        self.known(tenant)?;
        let now = Instant::now();
        let patience = now + deadline.saturating_duration_since(now) * 4 / 5;
        let asks = self.inner.router.all().map(|shard| async move {
            (
                shard,
                self.experiment_in(shard, ToShard::Experiment { tenant: tenant.clone(), experiment, slice }, patience)
                    .await,
            )
        });
        let mut report = ExperimentReport::default();
        for (shard, answer) in join_all(asks).await {
            match answer {
                Ok(tally) => report.tally.add(&tally),
                Err(error) if error.retryable() => report.unreachable.push(shard),
                Err(error) => return Err(error),
            }
        }
        Ok(report)
    }

    /// One shard's part. A busy one is asked again: it is a long way to O(profiles) for nothing.
    async fn experiment_in(&self, shard: ShardId, ask: ToShard, patience: Instant) -> Result<ExperimentTally, Error> {
        loop {
            match self.inner.post.shard(shard, ask.clone(), patience).await {
                Ok(Answer::Experiment(tally)) => return Ok(tally),
                Ok(_) => return Err(Error::Unknown),
                Err(Error::Overloaded { .. }) if Instant::now() < patience => {
                    sleep(Duration::from_millis(BULK_WAIT_MS)).await
                }
                Err(error) => return Err(error),
            }
        }
    }
}
