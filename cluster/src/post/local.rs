//! Asking what this node leads.

use std::sync::Arc;

use proffer_engine::keys::{OfferKey, ShardId};
use proffer_engine::profile::command::Counted;
use proffer_engine::profile::state::Profile;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::message::{Answer, ToMeta, ToShard};
use crate::error::Error;
use crate::groups::Groups;
use crate::handle::{answered, of_generation};
use crate::lease::{Grantor, LocalGrantor};
use crate::limits::CUSTOMERS_PAGE;
use crate::meta::ask::{Enrolled, MetaAsk, Verdict};
use crate::meta::door::MetaDoor;
use crate::meta::roster::Roster;
use crate::ports::offload::{self, Offload};
use crate::shard::ask::{Ask, Lane, Notice, ReadAsk, Reply, WriteAsk};
use crate::shard::door::ShardDoor;

use super::failure::Failure;

/// The doors of this node.
pub(crate) struct Local {
    pub(crate) shards: Vec<Arc<ShardDoor>>,
    pub(crate) meta: Arc<MetaDoor>,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) groups: Arc<dyn Groups>,
    /// The roster as it is applied here.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
}

impl Local {
    pub(crate) fn door(&self, shard: ShardId) -> Result<&Arc<ShardDoor>, Error> {
        let door = self.shards.get(usize::from(shard.0));
        door.ok_or_else(|| Error::NotFound(format!("shard {}", shard.0)))
    }

    /// Asks a shard that is led here.
    pub(super) async fn shard(&self, shard: ShardId, ask: ToShard, deadline: Instant) -> Result<Answer, Error> {
        let door = self.door(shard)?;
        match ask {
            ToShard::Notice { generation, messages, booked } => {
                if !door.is_up() {
                    return Err(super::not_led("the shard"));
                }
                let sent = door.send(Lane::Own, Ask::Notice(Notice { generation, messages, booked }));
                sent.map(|()| Answer::Heard)
            }
            ToShard::Order(ops) => {
                if !door.is_up() {
                    return Err(super::not_led("the shard"));
                }
                let make = |reply| Ask::Write(WriteAsk { ops, deadline: None, reply });
                self.put(door, Lane::Own, make, deadline).await.map(|count: usize| Answer::Applied(count as u64))
            }
            ToShard::Write { tenant, ops } => {
                let make = |reply| Ask::Write(WriteAsk { ops, deadline: Some(deadline), reply });
                let applied: usize = self.put(door, Lane::Bulk(tenant), make, deadline).await?;
                Ok(Answer::Applied(applied as u64))
            }
            ToShard::Held { tenant, accounts } => {
                let make = |reply| Ask::Read(ReadAsk::Escrow { accounts, reply });
                self.put(door, Lane::Request(tenant), make, deadline).await.map(Answer::Held)
            }
            ToShard::History { tenant, offer } => {
                let lane = Lane::Bulk(tenant.clone());
                let (state, _) = self.put(door, lane, |reply| Ask::Read(ReadAsk::State { reply }), deadline).await?;
                let search = move || state.profiles_of(&tenant).any(|(_, profile)| has_seen(profile, offer));
                let found = offload::call(&*self.offload, offload::Lane::Bulk, search).await;
                found.map(Answer::Seen).map_err(|_lost| Error::Poisonous)
            }
            ToShard::Customers { tenant, segment, part } => {
                let lane = Lane::Bulk(tenant.clone());
                let (state, _) = self.put(door, lane, |reply| Ask::Read(ReadAsk::State { reply }), deadline).await?;
                let list = move || state.customers_of(&tenant, segment.as_deref(), part, CUSTOMERS_PAGE);
                let found = offload::call(&*self.offload, offload::Lane::Bulk, list).await;
                found.map(|(some, next)| Answer::Customers(some, next)).map_err(|_lost| Error::Poisonous)
            }
            ToShard::Experiment { tenant, experiment, slice } => {
                // One at a time: whoever asks again while one goes on, or has given up waiting for it, does not add another.
                let counting = timeout_at(deadline, door.begin_to_count()).await.map_err(|_late| Error::Expired)?;
                let lane = Lane::Bulk(tenant.clone());
                let (state, _) = self.put(door, lane, |reply| Ask::Read(ReadAsk::State { reply }), deadline).await?;
                let count = move || {
                    let tally = state.experiment(&tenant, experiment, slice);
                    drop(counting);
                    tally
                };
                // A count that nobody waits for goes to its end, and holds its place until then.
                let counted = timeout_at(deadline, offload::call(&*self.offload, offload::Lane::Bulk, count)).await;
                counted.map_err(|_late| Error::Expired)?.map(Answer::Experiment).map_err(|_lost| Error::Poisonous)
            }
        }
    }

    async fn put<T>(
        &self,
        door: &ShardDoor,
        lane: Lane,
        make: impl FnOnce(Reply<T>) -> Ask,
        deadline: Instant,
    ) -> Result<T, Error> {
        let founder = door.founder();
        let (reply, answer) = oneshot::channel();
        door.send(lane, make(Reply::new(reply)))?;
        let answer = answered(deadline, answer).await?;
        of_generation(door, founder).map(|()| answer)
    }

    /// Asks the meta group, if it is led here.
    pub(super) async fn meta(&self, ask: ToMeta, deadline: Instant) -> Result<Answer, Error> {
        match ask {
            ToMeta::Report { shard, generation, reports } => {
                if !self.meta.is_up() {
                    return Err(super::not_led("the catalogue"));
                }
                self.door(shard)?;
                self.meta.report(shard, generation, reports);
                Ok(Answer::Heard)
            }
            ToMeta::Change(commands) => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Change { commands, deadline, reply })?;
                let changed = answered(deadline, answer).await?;
                let told = changed.into_iter().map(|changed| changed.map_err(|error| Failure::from(&error)));
                Ok(Answer::Changed(told.collect()))
            }
            ToMeta::Budget { tenant, offer } => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Budget { tenant, offer, reply })?;
                answered(deadline, answer).await.map(Answer::Rows)
            }
            ToMeta::Enroll(info) => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Enroll { info, reply })?;
                answered(deadline, answer).await.map(enrolled)
            }
            ToMeta::Replace { disk, given_up } => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Replace { disk, given_up, reply })?;
                answered(deadline, answer).await.map(enrolled)
            }
            ToMeta::Able { disk, level } => {
                self.meta.send(MetaAsk::Able { disk, level })?;
                Ok(Answer::Heard)
            }
            ToMeta::Configured(report) => {
                self.meta.send(MetaAsk::Configured(report))?;
                Ok(Answer::Heard)
            }
            ToMeta::Operate(operation) => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Operate { operation, reply })?;
                Ok(match answered(deadline, answer).await? {
                    Ok(words) => Answer::Operated(words),
                    Err(reason) => Answer::Barred(reason),
                })
            }
            ToMeta::Renew { renew, .. } => {
                if !self.meta.is_up() {
                    return Err(super::not_led("the catalogue"));
                }
                let granted = LocalGrantor(Arc::clone(&self.meta));
                granted.renew(renew).await.map(Answer::Granted).ok_or_else(|| super::not_led("the catalogue"))
            }
            ToMeta::InForce(report) => {
                LocalGrantor(Arc::clone(&self.meta)).report(report);
                Ok(Answer::Heard)
            }
            ToMeta::Everywhere(revision) => {
                let (reply, answer) = oneshot::channel();
                self.meta.send(MetaAsk::Everywhere { revision, reply })?;
                answered(deadline, answer).await.map(|()| Answer::Heard)
            }
        }
    }
}

fn enrolled(verdict: Verdict<Enrolled>) -> Answer {
    match verdict {
        Ok(Enrolled { node, replica }) => Answer::Enrolled { node, replica },
        Err(reason) => Answer::Barred(reason),
    }
}

/// Whether a profile has an impression or outcome of the offer, also one of which only the count is left.
fn has_seen(profile: &Profile, offer: OfferKey) -> bool {
    let older = profile.dealings.iter().flat_map(|dealings| &dealings.older);
    profile.exposures.iter().any(|seen| seen.offer == offer)
        || profile.outcomes().iter().any(|outcome| outcome.offer == offer)
        || older.into_iter().any(|(counted, _)| *counted == Counted::Offer(offer))
}
