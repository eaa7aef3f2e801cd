//! Ids that this node makes: of entities, and of requests that bring none.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderValue;
use proffer_cluster::ports::entropy::Entropy;
use proffer_engine::time::Timestamp;

use crate::limits::REQUEST_ID_BYTES_MAX;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A new id: `prefix`, 48 bits of time, 80 bits of chance, in Crockford's base 32. Ids made later sort later.
pub fn entity_id(prefix: &str, now: Timestamp, entropy: &dyn Entropy) -> String {
    let mut chance = [0; 16];
    entropy.fill(&mut chance[6..]);
    let bits = (now.0.max(0) as u128) << 80 | u128::from_be_bytes(chance);
    let digits = (0..26).rev().map(|place| char::from(ALPHABET[(bits >> (place * 5)) as usize & 31]));
    prefix.chars().chain(digits).collect()
}

/// Makes request ids: a node's own number and a count, so that none costs a draw.
#[derive(Debug)]
pub struct RequestIds {
    node: u64,
    count: AtomicU64,
}

impl RequestIds {
    /// Draws the node's number.
    pub fn new(entropy: &dyn Entropy) -> Self {
        RequestIds { node: entropy.u64(), count: AtomicU64::new(0) }
    }

    /// The client's id if it is sane (1–128 visible ASCII characters), else a new one.
    pub fn take_or_make(&self, given: Option<&HeaderValue>) -> HeaderValue {
        match given {
            Some(id) if is_sane(id.as_bytes()) => id.clone(),
            _ => self.make(),
        }
    }

    fn make(&self) -> HeaderValue {
        let mut id = String::with_capacity(33);
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        write!(id, "{:016x}-{count:x}", self.node).expect("a String takes everything");
        HeaderValue::from_str(&id).expect("hex digits are visible")
    }
}

fn is_sane(id: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proffer_cluster::ports::entropy::SeededEntropy;

    use super::*;

    #[test]
    fn entity_ids_differ_and_sort_by_time() {
        let entropy = SeededEntropy::new(1);
        let early = entity_id("offer_", Timestamp(1_780_000_000_000), &entropy);
        let late = entity_id("offer_", Timestamp(1_780_000_000_001), &entropy);
        assert!(early < late && early.len() == 32, "{early} {late}");
        assert_ne!(late, entity_id("offer_", Timestamp(1_780_000_000_001), &entropy));
    }

    #[test]
    fn only_sane_request_ids_are_taken() {
        let ids = RequestIds::new(&SeededEntropy::new(1));
        let kept = HeaderValue::from_static("abc-1");
        assert_eq!(ids.take_or_make(Some(&kept)), kept);
        let long = HeaderValue::from_str(&"x".repeat(REQUEST_ID_BYTES_MAX + 1)).unwrap();
        assert_ne!(ids.take_or_make(Some(&long)), long);
        assert_ne!(ids.take_or_make(None), ids.take_or_make(None));
    }
}
