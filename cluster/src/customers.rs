//! Calls about one customer: each is for the leader of the customer's shard.

use std::sync::Arc;

use proffer_engine::decide::request::Request;
use proffer_engine::keys::{CustomerId, TenantId};
use proffer_engine::profile::command::{PutProfile, Release, ShardOp};
use proffer_engine::profile::measuring::EventRequest;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::calls::{Call, Decided, ProfileView, ProfileWrite, ReleaseRequest, RespondRequest, Responded};
use crate::error::Error;
use crate::handle::{Handle, answered, of_generation};
use crate::limits::EXCLUDED_TRIES;
use crate::shard::ask::{Ask, DecideAsk, Lane, ReadAsk, Reply, RespondAsk, Told, WriteAsk};
use crate::shard::door::ShardDoor;

impl Handle {
    /// Decides, and takes what is proposed (unless it is a dry run). The answer stands: what it took is committed.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Unknown`] if the deadline passed while its units were being taken.
    pub async fn decide(&self, mut request: Request, mut call: Call) -> Result<Decided, Error> {
        self.leased(call.deadline).await?;
        self.known(&request.tenant)?;
        let shard = self.shard_of(&request.tenant, &request.customer);
        if call.dry_run {
            let lane = Lane::Request(request.tenant.clone());
            let ask = |reply| Ask::Read(ReadAsk::Inputs { request, reply });
            let decided = self.ask(shard, call.deadline, lane, ask).await.map(|inputs| inputs.try_out(call.trace))?;
            return self.leased(call.deadline).await.map(|()| decided);
        }
        let (mut tries, founder) = (0, shard.founder());
        loop {
            let lane = Lane::Request(request.tenant.clone());
            let ask = |reply| Ask::Decide(Box::new(DecideAsk::new(request, call, reply)));
            // What the answer that was overtaken took is held still.
            let doubt = |error: Error| if tries > 0 { error.in_doubt() } else { error };
            let mut raw = self.ask(shard, call.deadline, lane, ask).await.map_err(doubt)?;
            // A node that was stopped meanwhile may not know what has been excluded since; and what was taken is taken.
            self.leased(call.deadline).await.map_err(Error::in_doubt)?;
            of_generation(shard, founder)?;
            match raw.request.take() {
                Some(again) if tries < EXCLUDED_TRIES && self.excludes(&again.tenant, &raw.decided) => {
                    // Excluded since it was decided: decided again, and what was taken for it is given back. A key leads to
                    // the first answer, without the offer.
                    (request, tries) = (*again, tries + 1);
                    call.supersedes = Some(raw.decided.id);
                }
                Some(_) | None => return Ok(raw.finish()),
            }
        }
    }

    /// Whether the catalogue now in force excludes an offer that the answer proposes and shows.
    fn excludes(&self, tenant: &TenantId, decided: &Decided) -> bool {
        let Some(newest) = self.inner.views.tenant(tenant) else { return false };
        let shown = |rank: &u16| !decided.excluded.contains(rank);
        !Arc::ptr_eq(&newest, &decided.view)
            && (decided.decision.propositions.iter().zip(1..))
                .any(|(proposition, rank)| shown(&rank) && newest.snapshot.is_excluded(proposition.offer))
    }

    /// Records an outcome. `call.idempotency` is required.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn respond(&self, request: RespondRequest, call: Call) -> Result<Responded, Error> {
        self.tell(Told::Outcome(request), call).await
    }

    /// Records an event: what the tenant's metrics make of it. Whether it was recorded before under the same key is answered.
    /// `call.idempotency` is required.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn event(&self, request: EventRequest, call: Call) -> Result<bool, Error> {
        self.tell(Told::Event(request), call).await.map(|responded| responded.duplicate)
    }

    async fn tell(&self, told: Told, call: Call) -> Result<Responded, Error> {
        self.leased(call.deadline).await?;
        self.known(told.tenant())?;
        if call.idempotency.is_none() {
            return Err(Error::Invalid("what happened needs an idempotency key".to_owned()));
        }
        let shard = self.shard_of(told.tenant(), told.customer());
        self.ask(shard, call.deadline, Lane::Request(told.tenant().clone()), |reply| {
            Ask::Respond(Box::new(RespondAsk { told, call, reply, proposed: 0 }))
        })
        .await
    }

    /// Gives unshown units of a decision back. Harmless when repeated.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, request: ReleaseRequest, call: Call) -> Result<(), Error> {
        let ReleaseRequest { tenant, customer, decision, ranks } = request;
        let op = ShardOp::Release(Release { tenant: tenant.clone(), customer: customer.clone(), decision, ranks });
        self.write_one(tenant, customer, op, call.deadline).await
    }

    /// Replaces attributes and segments of a profile. Visible to the next decision once answered.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put_profile(&self, write: ProfileWrite, deadline: Instant) -> Result<(), Error> {
        let ProfileWrite { tenant, customer, attributes, segments } = write;
        let op = ShardOp::PutProfile(PutProfile {
            tenant: tenant.clone(),
            customer: customer.clone(),
            attributes,
            segments,
        });
        self.write_one(tenant, customer, op, deadline).await
    }

    /// A profile; `None` for a customer never seen.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_profile(
        &self,
        tenant: &TenantId,
        customer: &CustomerId,
        deadline: Instant,
    ) -> Result<Option<ProfileView>, Error> {
        self.known(tenant)?;
        let shard = self.shard_of(tenant, customer);
        self.ask(shard, deadline, Lane::Request(tenant.clone()), |reply| {
            Ask::Read(ReadAsk::Profile { tenant: tenant.clone(), customer: customer.clone(), reply })
        })
        .await
    }

    /// Removes a profile with all it owns. Harmless when repeated.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete_profile(
        &self,
        tenant: &TenantId,
        customer: &CustomerId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let op = ShardOp::DeleteProfile { tenant: tenant.clone(), customer: customer.clone() };
        self.write_one(tenant.clone(), customer.clone(), op, deadline).await
    }

    /// Lifts a profile's opt-outs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn clear_opt_outs(
        &self,
        tenant: &TenantId,
        customer: &CustomerId,
        deadline: Instant,
    ) -> Result<(), Error> {
        let op = ShardOp::ClearOptOuts { tenant: tenant.clone(), customer: customer.clone() };
        self.write_one(tenant.clone(), customer.clone(), op, deadline).await
    }

    fn shard_of(&self, tenant: &TenantId, customer: &CustomerId) -> &Arc<ShardDoor> {
        &self.inner.shards[usize::from(self.inner.router.shard(tenant, customer).0)]
    }

    async fn ask<T>(
        &self,
        shard: &ShardDoor,
        deadline: Instant,
        lane: Lane,
        make: impl FnOnce(Reply<T>) -> Ask,
    ) -> Result<T, Error> {
        self.open()?;
        let founder = shard.founder();
        let (reply, answer) = oneshot::channel();
        shard.send(lane, make(Reply::new(reply)))?;
        let answer = answered(deadline, answer).await?;
        of_generation(shard, founder).map(|()| answer)
    }

    async fn write_one(
        &self,
        tenant: TenantId,
        customer: CustomerId,
        op: ShardOp,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.known(&tenant)?;
        let shard = self.shard_of(&tenant, &customer);
        self.ask(shard, deadline, Lane::Request(tenant), |reply| {
            Ask::Write(WriteAsk { ops: vec![op], deadline: Some(deadline), reply })
        })
        .await
        .map(|_| ())
    }
}
