//! Chance: ids, secrets and seeds come from here and from nowhere else.

use std::sync::Mutex;

/// A source of random bytes.
///
/// Contract: safe to call from any thread, never blocks for long and never fails (an adapter whose source fails ends the
/// process: ids that repeat are worse). The real one is the operating system's generator, fit for secrets.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);

    /// Sixty-four random bits.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The same bytes for the same seed (SplitMix64): for tests and simulation, never for secrets.
#[derive(Debug)]
pub struct SeededEntropy {
    state: Mutex<u64>,
}

impl SeededEntropy {
    /// A stream chosen by `seed`.
    pub fn new(seed: u64) -> Self {
        SeededEntropy { state: Mutex::new(seed) }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.state.lock().expect("no holder panics");
        for chunk in bytes.chunks_mut(8) {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = *state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_its_stream() {
        let draw = |seed| {
            let entropy = SeededEntropy::new(seed);
            [entropy.u64(), entropy.u64()]
        };
        assert_eq!(
            draw(0),
            [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4],
            "the published SplitMix64 stream of seed 0"
        );
        assert_ne!(draw(1), draw(2));
    }
}
