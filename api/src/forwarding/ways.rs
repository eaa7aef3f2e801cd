//! What forwarding needs of the cluster.

use proffer_cluster::calls::Place;
use proffer_cluster::peers::Lane;
use proffer_cluster::ports::propose::Pending;
use proffer_cluster::{Error, Handle};
use proffer_engine::keys::{CustomerId, TenantId};
use tokio::time::Instant;

/// The ways to the nodes that lead. The cluster's [`Handle`] knows them; tests put others in its place.
pub trait Ways: Send + Sync + 'static {
    /// Where calls about a customer are answered, as far as is known.
    fn place(&self, tenant: &TenantId, customer: &CustomerId) -> Place;

    /// Returns when they may be answered elsewhere than at `was`, at the latest at the deadline.
    fn place_changes<'a>(
        &'a self,
        tenant: &'a TenantId,
        customer: &'a CustomerId,
        was: Place,
        deadline: Instant,
    ) -> Pending<'a, ()>;

    /// Has another node answer a call, which may have `came` from another node already, on the lane that takes both it and its answer.
    ///
    /// [`Error::NotLed`]: there is no way to it now, nothing was begun. [`Error::Unknown`]: it may have been.
    fn forward(
        &self,
        node: u64,
        lane: Lane,
        call: Vec<u8>,
        came: bool,
        deadline: Instant,
    ) -> Pending<'_, Result<Vec<u8>, Error>>;
}

impl Ways for Handle {
    fn place(&self, tenant: &TenantId, customer: &CustomerId) -> Place {
        Handle::place(self, tenant, customer)
    }

    fn place_changes<'a>(
        &'a self,
        tenant: &'a TenantId,
        customer: &'a CustomerId,
        was: Place,
        deadline: Instant,
    ) -> Pending<'a, ()> {
        Box::pin(Handle::place_changes(self, tenant, customer, was, deadline))
    }

    fn forward(
        &self,
        node: u64,
        lane: Lane,
        call: Vec<u8>,
        came: bool,
        deadline: Instant,
    ) -> Pending<'_, Result<Vec<u8>, Error>> {
        Box::pin(Handle::forward(self, node, lane, call, came, deadline))
    }
}
