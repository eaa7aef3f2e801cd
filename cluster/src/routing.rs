//! Which shard a profile lives in: a function of the cluster's secret, tenant and customer, the same for ever.

use std::hash::Hasher;

use proffer_engine::keys::{CustomerId, ShardId, TenantId};
use siphasher::sip::SipHasher13;

/// The cluster's routing secret and number of shards, both fixed when the cluster is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    key: (u64, u64),
    shards: u16,
}

impl Router {
    /// A router for `shards` shards, at least one.
    ///
    /// # Panics
    /// If there are none: a cluster is never created so.
    pub fn new(secret: [u8; 16], shards: u16) -> Self {
        assert!(shards > 0, "a cluster has at least one shard");
        let half = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| secret[at + index]));
        Router { key: (half(0), half(8)), shards }
    }

    /// The cluster's secret, from which other secrets of the whole cluster can be derived.
    pub fn secret(&self) -> [u8; 16] {
        let (low, high) = (self.key.0.to_le_bytes(), self.key.1.to_le_bytes());
        std::array::from_fn(|index| if index < 8 { low[index] } else { high[index - 8] })
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The shard of a profile: SipHash-1-3 of tenant, NUL, customer, modulo the number of shards.
    pub fn shard(&self, tenant: &TenantId, customer: &CustomerId) -> ShardId {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(tenant.0.as_bytes());
        hasher.write(&[0]);
        hasher.write(customer.0.as_bytes());
        ShardId((hasher.finish() % u64::from(self.shards)) as u16)
    }

    /// All shards.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_of(router: &Router, tenant: &str, customer: &str) -> u16 {
        router.shard(&TenantId::new(tenant), &CustomerId::new(customer)).0
    }

    /// Computed with another implementation. A change would lose every profile.
    #[test]
    fn profiles_lie_where_they_always_did() {
        let secret = std::array::from_fn(|index| index as u8);
        let golden =
            [("default", "customer-1", 11, 107), ("default", "customer-2", 1, 177), ("acme", "customer-1", 0, 96)];
        for (tenant, customer, of_16, of_256) in golden {
            assert_eq!(shard_of(&Router::new(secret, 16), tenant, customer), of_16);
            assert_eq!(shard_of(&Router::new(secret, 256), tenant, customer), of_256);
        }
    }

    #[test]
    fn every_shard_gets_its_share() {
        let router = Router::new([7; 16], 16);
        let mut count = [0_u32; 16];
        for customer in 0..16_000 {
            count[usize::from(shard_of(&router, "default", &customer.to_string()))] += 1;
        }
        assert!(count.iter().all(|n| (850..1_150).contains(n)), "{count:?}");
    }

    #[test]
    fn tenant_and_customer_do_not_run_together() {
        let router = Router::new([7; 16], 251);
        let differ =
            (0..100).filter(|n| shard_of(&router, &format!("a{n}"), "b") != shard_of(&router, "a", &format!("{n}b")));
        assert!(differ.count() > 90);
    }
}
