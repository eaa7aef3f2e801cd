//! The operating system's random generator.

use proffer_cluster::ports::entropy::Entropy;

/// `getrandom`: fit for ids and secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the system has no random bytes: going on with ids that repeat would be worse.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        let draws: std::collections::BTreeSet<u64> = (0..100).map(|_| SystemEntropy.u64()).collect();
        assert_eq!(draws.len(), 100);
    }
}
