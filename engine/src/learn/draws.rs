//! Random draws that are none: functions of a decision's seed, of what they are for, and of the offer, so that whatever is
//! evaluated in whatever order, and however often, draws the same.

use crate::keys::OfferKey;

/// What is drawn: different purposes of one decision draw independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// P of an offer from what outcomes leave open.
    Posterior,
    /// Whether a decision explores.
    Explores,
    /// P of an offer in a decision that does.
    Explored,
}

/// An endless sequence of numbers: SplitMix64 (Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA
/// 2014), begun at a hash of what it belongs to.
#[derive(Clone, Debug)]
pub struct Draws(u64);

/// 2^−53: the distance of the numbers that are drawn from (0, 1).
const STEP: f64 = 1.0 / 9_007_199_254_740_992.0;

impl Draws {
    /// The sequence of an offer in the decision of `seed`.
    pub fn of_offer(seed: u64, purpose: Purpose, offer: OfferKey) -> Self {
        Draws::begin(seed, purpose, offer.0)
    }

    /// The sequence of a whole decision.
    pub fn of_decision(seed: u64, purpose: Purpose) -> Self {
        Draws::begin(seed, purpose, u32::MAX)
    }

    fn begin(seed: u64, purpose: Purpose, offer: u32) -> Self {
        let purpose: u64 = match purpose {
            Purpose::Posterior => 1,
            Purpose::Explores => 2,
            Purpose::Explored => 3,
        };
        // Neighbouring offers of neighbouring seeds have nothing in common after being mixed twice.
        Draws(mix(seed ^ mix(purpose << 32 | u64::from(offer))))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// The next number above 0 and below 1, evenly distributed.
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) * STEP
    }

    /// The next two of a normal distribution of mean 0 and deviation 1, by the polar method (Marsaglia and Bray, *A convenient
    /// method for generating normal variables*, SIAM Review 6, 1964).
    fn normals(&mut self) -> (f64, f64) {
        loop {
            let (x, y) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let square = x * x + y * y;
            if square < 1.0 && square > 0.0 {
                let factor = libm::sqrt(-2.0 * libm::log(square) / square);
                return (x * factor, y * factor);
            }
        }
    }

    /// The next number of a gamma distribution of this shape (≥ 1) and scale 1, by Marsaglia and Tsang, *A simple method for
    /// generating gamma variables*, ACM TOMS 26, 2000. `normal` is the first that is tried.
    fn gamma(&mut self, shape: f64, mut normal: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / libm::sqrt(9.0 * d);
        loop {
            let root = 1.0 + c * normal;
            if root > 0.0 {
                let v = root * root * root;
                let (u, square) = (self.uniform(), normal * normal);
                // The first test settles almost all without a logarithm.
                if u < 1.0 - 0.0331 * square * square || libm::log(u) < 0.5 * square + d * (1.0 - v + libm::log(v)) {
                    return d * v;
                }
            }
            normal = self.normals().0;
        }
    }

    /// The logarithm of one of any shape (> 0): below 1, of one more times u^(1/shape), as the authors say. It may be too small to be
    /// written without.
    fn log_gamma(&mut self, shape: f64, normal: f64) -> f64 {
        if shape >= 1.0 {
            return libm::log(self.gamma(shape, normal));
        }
        libm::log(self.gamma(shape + 1.0, normal)) + libm::log(self.uniform()) / shape
    }

    /// The next number of a beta distribution, as the share of one gamma in the sum of two. In [0, 1]: shapes that are tiny or far apart
    /// leave nothing of one of them.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (first, second) = self.normals();
        if a >= 1.0 && b >= 1.0 {
            let (x, y) = (self.gamma(a, first), self.gamma(b, second));
            return x / (x + y);
        }
        let (x, y) = (self.log_gamma(a, first), self.log_gamma(b, second));
        1.0 / (1.0 + libm::exp(y - x))
    }
}

/// The finaliser of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of so many numbers.
    fn moments(count: u32, mut draw: impl FnMut(u32) -> f64) -> (f64, f64) {
        let drawn: Vec<f64> = (0..count).map(&mut draw).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(count);
        let variance = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(count);
        (mean, variance)
    }

    fn close(found: f64, expected: f64, within: f64, what: &str) {
        assert!((found - expected).abs() <= within, "{what}: {found}, expected {expected} ± {within}");
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for the state 0, as the reference implementation gives them.
        let mut draws = Draws(0);
        let first = [draws.next(), draws.next(), draws.next()];
        assert_eq!(first, [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn draws_of_one_seed_and_offer_are_pinned() {
        // Changing any of these changes what replayed decisions come to.
        let mut posterior = Draws::of_offer(7, Purpose::Posterior, OfferKey(3));
        let mut explored = Draws::of_offer(7, Purpose::Explored, OfferKey(3));
        let mut explores = Draws::of_decision(7, Purpose::Explores);
        let drawn = [posterior.beta(3.5, 12.5), explored.uniform(), explores.uniform()];
        assert_eq!(drawn, [0.27897838775855854, 0.12173935955131981, 0.023103549109131094]);
    }

    #[test]
    fn beta_has_the_mean_and_variance_of_its_shapes() {
        for (a, b) in [(0.1, 9.9), (0.5, 0.5), (1.0, 1.0), (5.0, 5.0), (12.0, 3.5), (2_000.0, 48_000.0)] {
            let (mean, variance) =
                moments(40_000, |offer| Draws::of_offer(11, Purpose::Posterior, OfferKey(offer)).beta(a, b));
            let expected = a * b / ((a + b) * (a + b) * (a + b + 1.0));
            // Five standard errors of the mean; a tenth of the variance.
            close(mean, a / (a + b), 5.0 * libm::sqrt(expected / 40_000.0), "mean");
            close(variance, expected, 0.1 * expected, "variance");
        }
    }

    #[test]
    fn half_of_what_a_symmetric_beta_draws_is_below_half_and_quartiles_are_where_they_belong() {
        // Beta(2, 2) has the distribution function 3x² − 2x³.
        let mut below = [0u32; 3];
        for offer in 0..40_000 {
            let drawn = Draws::of_offer(5, Purpose::Posterior, OfferKey(offer)).beta(2.0, 2.0);
            for (place, bound) in [0.25, 0.5, 0.75].into_iter().enumerate() {
                below[place] += u32::from(drawn < bound);
            }
        }
        for (count, bound) in below.into_iter().zip([0.25f64, 0.5, 0.75]) {
            let expected = 3.0 * bound * bound - 2.0 * bound * bound * bound;
            close(f64::from(count) / 40_000.0, expected, 0.0125, "share below");
        }
    }

    #[test]
    fn seeds_offers_and_purposes_draw_independently() {
        let draw = |seed, purpose, offer| Draws::of_offer(seed, purpose, OfferKey(offer)).uniform();
        let both_low = |left: &dyn Fn(u32) -> f64, right: &dyn Fn(u32) -> f64| {
            let low = (0..10_000).filter(|n| left(*n) < 0.5 && right(*n) < 0.5).count();
            assert!((2_300..2_700).contains(&low), "{low} of 10000, expected about 2500");
        };
        let of_offer = |n| draw(1, Purpose::Posterior, n);
        both_low(&of_offer, &|n| draw(1, Purpose::Posterior, n + 1));
        both_low(&of_offer, &|n| draw(1, Purpose::Explored, n));
        both_low(&of_offer, &|n| draw(2, Purpose::Posterior, n));
        both_low(&|n| draw(n.into(), Purpose::Posterior, 1), &|n| draw(u64::from(n) + 1, Purpose::Posterior, 1));
    }

    #[test]
    fn extreme_shapes_stay_in_range() {
        for (a, b) in [(1e-9, 1.0), (1.0, 1e-9), (1e-9, 1e-9), (1e19, 1.0), (1.0, 1e19), (1e19, 1e19)] {
            for offer in 0..200 {
                let drawn = Draws::of_offer(3, Purpose::Posterior, OfferKey(offer)).beta(a, b);
                assert!((0.0..=1.0).contains(&drawn), "{a} {b}: {drawn}");
            }
        }
    }
}
