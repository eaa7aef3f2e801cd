//! Stable draws: which variant, which arm. A pure function of names, so that it survives restarts, moves of shards and
//! changes of the catalogue, and anybody can compute it again.

use xxhash_rust::xxh3::Xxh3Default;

use crate::keys::{CustomerId, TenantId};

/// 2^64 as a float.
const TWO_POW_64: f64 = 18_446_744_073_709_551_616.0;

/// XXH3-64 of `tenant NUL purpose NUL subject NUL customer`, divided by 2^64: in `[0, 1]` (1 only by rounding). Different
/// purposes draw independently of each other.
pub fn draw(tenant: &TenantId, purpose: &str, subject: &str, customer: &CustomerId) -> f64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(tenant.0.as_bytes());
    for part in [purpose, subject, &*customer.0] {
        hasher.update(&[0]);
        hasher.update(part.as_bytes());
    }
    hasher.digest() as f64 / TWO_POW_64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draw_is_xxh3_of_the_joined_names() {
        let drawn = draw(&TenantId::new("acme"), "holdout", "spring", &CustomerId::new("c-1"));
        let hash = xxhash_rust::xxh3::xxh3_64(b"acme\0holdout\0spring\0c-1");
        assert_eq!(drawn, hash as f64 / TWO_POW_64);
    }

    #[test]
    fn purposes_draw_independently() {
        let tenant = TenantId::new("acme");
        let both_low = (0..4_000)
            .map(|n| CustomerId::new(format!("c{n}")))
            .filter(|customer| {
                draw(&tenant, "holdout", "x", customer) < 0.5 && draw(&tenant, "creative", "x", customer) < 0.5
            })
            .count();
        assert!((850..1_150).contains(&both_low), "{both_low} of 4000 are low in both, expected about 1000");
    }
}
