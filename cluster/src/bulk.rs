//! Writes of many profiles at once: split by shard, each shard's share chunk by chunk behind its own door, waiting its turn. And lists
//! of whom there is.

use std::collections::BTreeMap;
use std::time::Duration;

use proffer_engine::codec;
use proffer_engine::keys::{CustomerId, SchemaKey, ShardId, TenantId};
use proffer_engine::profile::command::{PutProfile, PutRow, ShardOp};
use tokio::time::Instant;

use crate::calls::{CustomerRow, Listing, ProfileWrite};
use crate::error::Error;
use crate::handle::Handle;
use crate::limits::{BULK_WAIT_MS, ENTRY_BYTES_MAX};
use crate::post::{Answer, Post, ToShard};

impl Handle {
    /// Replaces many profiles of one tenant, in bulk. Later ones of the same customer win.
    ///
    /// # Errors
    /// [`Error::Partial`] says how many were applied and which were refused; repeating is harmless.
    pub async fn put_profiles(
        &self,
        tenant: &TenantId,
        writes: Vec<ProfileWrite>,
        deadline: Instant,
    ) -> Result<usize, Error> {
        let ops = writes.into_iter().map(|write| {
            let customer = write.customer.clone();
            let op = ShardOp::PutProfile(PutProfile {
                tenant: tenant.clone(),
                customer: write.customer,
                attributes: write.attributes,
                segments: write.segments,
            });
            (customer, op)
        });
        self.write_bulk(tenant, ops.collect(), deadline).await
    }

    /// Upserts rows of a customer schema, each whole. The caller has validated all of them. Answers how many were applied.
    ///
    /// # Errors
    /// [`Error::Partial`] says how many were applied and which were refused; repeating is harmless.
    pub async fn put_rows(
        &self,
        tenant: &TenantId,
        schema: SchemaKey,
        rows: Vec<CustomerRow>,
        deadline: Instant,
    ) -> Result<usize, Error> {
        let ops = rows.into_iter().map(|row| {
            let customer = row.customer.clone();
            let op = ShardOp::PutRow(PutRow {
                tenant: tenant.clone(),
                customer: row.customer,
                schema,
                columns: row.columns,
            });
            (customer, op)
        });
        self.write_bulk(tenant, ops.collect(), deadline).await
    }

    /// Where listings of customers begin, one a shard.
    pub fn listings(&self) -> Vec<Listing> {
        self.inner.router.all().map(|shard| Listing { shard, part: 0 }).collect()
    }

    /// Some customers of a tenant in one shard, of those in a segment if one is named; and where to go on. Who was there when their part of
    /// the shard was read is listed, once.
    ///
    /// # Errors
    /// See [`Error`]: if the shard cannot answer in time.
    pub async fn customers(
        &self,
        tenant: &TenantId,
        segment: Option<&str>,
        at: Listing,
        deadline: Instant,
    ) -> Result<(Vec<CustomerId>, Option<Listing>), Error> {
        self.known(tenant)?;
        let ask = ToShard::Customers { tenant: tenant.clone(), segment: segment.map(str::to_owned), part: at.part };
        let answer = self.inner.post.shard(at.shard, ask, deadline).await?;
        let Answer::Customers(customers, part) = answer else { return Err(Error::Unknown) };
        Ok((customers, part.map(|part| Listing { part, ..at })))
    }

    /// Writes in order, chunk by chunk: the shards work side by side, a shard on one chunk at a time.
    async fn write_bulk(
        &self,
        tenant: &TenantId,
        ops: Vec<(CustomerId, ShardOp)>,
        deadline: Instant,
    ) -> Result<usize, Error> {
        self.known(tenant)?;
        let asked = ops.len();
        let mut by_shard: BTreeMap<ShardId, Vec<(usize, ShardOp)>> = BTreeMap::new();
        for (index, (customer, op)) in ops.into_iter().enumerate() {
            by_shard.entry(self.inner.router.shard(tenant, &customer)).or_default().push((index, op));
        }
        let mut tasks = Vec::new();
        for (shard, ops) in by_shard {
            let post = self.inner.post.clone();
            tasks.push(tokio::spawn(write_chunks(post, shard, tenant.clone(), ops, deadline)));
        }
        let mut whole = Written::default();
        for task in tasks {
            let part = task.await.unwrap_or(Written { stopped: Some(Error::Unknown), ..Written::default() });
            whole.applied += part.applied;
            whole.refused.extend(part.refused);
            whole.stopped = whole.stopped.or(part.stopped);
        }
        let Written { applied, mut refused, stopped } = whole;
        refused.sort_by_key(|(index, _)| *index);
        match stopped.or_else(|| refused.first().map(|(_, error)| error.clone())) {
            None => Ok(applied),
            Some(cause) => Err(Error::Partial { applied, asked, refused, cause: Box::new(cause) }),
        }
    }
}

/// What became of one shard's share of a bulk write.
#[derive(Default)]
struct Written {
    applied: usize,
    /// By index in the whole.
    refused: Vec<(usize, Error)>,
    /// Why the rest was not tried, or is not known of: a retry may cure it.
    stopped: Option<Error>,
}

impl Written {
    /// Counts what became of a chunk. `false`: to go on is no use now.
    fn count(&mut self, chunk: &[usize], result: Result<usize, Error>) -> bool {
        match result {
            Ok(applied) => self.applied += applied,
            Err(Error::Partial { applied, refused, .. }) => {
                self.applied += applied;
                for (index, error) in refused {
                    self.refuse(chunk[index], error);
                }
            }
            Err(error) => match chunk {
                [only] => self.refuse(*only, error),
                _ => self.stopped = Some(error),
            },
        }
        self.stopped.is_none()
    }

    fn refuse(&mut self, index: usize, error: Error) {
        if error.retryable() {
            self.stopped.get_or_insert(error);
        } else {
            self.refused.push((index, error));
        }
    }
}

/// Sends one shard's share of a bulk write, waiting its turn while the shard is busy.
async fn write_chunks(
    post: Post,
    shard: ShardId,
    tenant: TenantId,
    ops: Vec<(usize, ShardOp)>,
    deadline: Instant,
) -> Written {
    let mut written = Written::default();
    let mut ops = ops.into_iter().peekable();
    while ops.peek().is_some() {
        let (mut indices, mut chunk) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        while let Some((index, op)) = ops.next_if(|(_, op)| {
            let size = codec::encode(op).len();
            let fits = bytes == 0 || bytes + size <= ENTRY_BYTES_MAX / 4;
            if fits {
                bytes += size;
            }
            fits
        }) {
            indices.push(index);
            chunk.push(op);
        }
        let result = loop {
            let ask = ToShard::Write { tenant: tenant.clone(), ops: chunk.clone() };
            match post.shard(shard, ask, deadline).await {
                Ok(Answer::Applied(applied)) => break Ok(usize::try_from(applied).unwrap_or(usize::MAX)),
                Ok(_) => break Err(Error::Unknown),
                Err(Error::Overloaded { .. }) => {}
                Err(error) => break Err(error),
            }
            if Instant::now() >= deadline {
                break Err(Error::Expired);
            }
            tokio::time::sleep(Duration::from_millis(BULK_WAIT_MS)).await;
        };
        if !written.count(&indices, result) {
            break;
        }
    }
    written
}
