//! Openraft's own suite for stores.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

use super::super::Erased;
use super::super::machine::{RaftMachine, Shelf};
use super::super::store::{Applied, Store};
use super::super::types::Types;
use super::world::{Group, Marks};
use crate::log::GroupId;

struct Builder;

/// A store on an empty disk, and `marks` as the machine over it.
pub(super) async fn build(marks: &Marks) -> (Store, RaftMachine, Arc<Applied>) {
    let mut group = Group::of(0, 1).await;
    group.hosts.insert(1, super::world::Host::new());
    let ports = group.ports(1).await;
    let applied = Arc::new(Applied::default());
    let store = Store::open(ports.log, GroupId(1), Arc::clone(&applied), false).await;
    let (store, _writer) = store.expect("an empty disk");
    let shelf = Shelf {
        group: GroupId(1),
        snapshots: ports.snapshots,
        offload: ports.offload,
        building: Arc::default(),
        failed: Arc::default(),
    };
    let machine = RaftMachine::new(Erased::Shard(Arc::new(marks.clone())), shelf, None, Arc::clone(&applied));
    (store, machine, applied)
}

impl StoreBuilder<Types, Store, RaftMachine, ()> for Builder {
    async fn build(&self) -> Result<((), Store, RaftMachine), StorageError<Types>> {
        let (store, _, _) = build(&Marks::default()).await;
        // The suite takes back what it has applied.
        let (_, machine, _) = build(&Marks::default()).await;
        Ok(((), store, machine))
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_passes_the_suite_of_openraft() {
    let suite = Suite::<Types, Store, RaftMachine, Builder, ()>::test_all(Builder);
    DeterministicRng::<TokioRuntime>::scope(1, suite).await.unwrap();
}
