//! The statistics of comparing two groups: intervals, tests and the distributions behind them, with `libm` alone, so that every node
//! gives the same bytes.
//!
//! Sources are named where they are used. DLMF: NIST Digital Library of Mathematical Functions. A&S: Abramowitz and Stegun,
//! *Handbook of Mathematical Functions*, 1964.

use std::f64::consts::SQRT_2;

/// 0.975 quantile of the standard normal distribution.
pub const NORMAL_975: f64 = 1.959_963_984_540_054;
/// From so many degrees of freedom on, quantiles of t follow from an expansion around the normal one, whose error is below 1e-13.
const MANY_DEGREES: f64 = 1_000.0;
/// Least number that divides in the continued fraction of the incomplete beta function.
const TINY: f64 = 1e-300;
/// Terms of that fraction; with at most [`MANY_DEGREES`] it needs a few dozen.
const TERMS_MAX: u32 = 1_000;
/// Halvings of an interval of f64: more change nothing.
const HALVINGS: u32 = 1_100;

/// A stretch of numbers, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub lower: f64,
    /// Its upper end.
    pub upper: f64,
}

/// How many did, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// At most `of`.
    pub hits: u64,
    /// How many there are.
    pub of: u64,
}

/// Size, mean and variance of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How many numbers.
    pub size: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared deviations from it, divided by one less than their number.
    pub variance: f64,
}

/// A statistic and how likely one as far from 0 is where there is no difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// Standard normal where there is no difference.
    pub z: f64,
    /// Two-sided.
    pub p: f64,
}

/// A difference of means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanDifference {
    /// First less second.
    pub value: f64,
    /// 95 %; `None` where nothing varies, or a sample has fewer than two numbers.
    pub interval: Option<(Interval, f64)>,
}

/// What may be looked at after every observation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlwaysValid {
    /// Where there is no difference, the chance that it is ever α or less is at most α.
    pub p: f64,
    /// 95 % for all times together.
    pub interval: Interval,
}

impl Share {
    /// The rate; `None` of nothing.
    pub fn rate(self) -> Option<f64> {
        (self.of > 0).then(|| self.hits.min(self.of) as f64 / self.of as f64)
    }

    /// Wilson's 95 % interval of the rate (E. B. Wilson, JASA 22, 1927, p. 209); `None` of nothing.
    pub fn wilson(self) -> Option<Interval> {
        let (rate, size) = (self.rate()?, self.of as f64);
        let square = NORMAL_975 * NORMAL_975;
        let middle = rate + square / (2.0 * size);
        let half = NORMAL_975 * libm::sqrt(rate * (1.0 - rate) / size + square / (4.0 * size * size));
        let scale = 1.0 + square / size;
        // Rounding must not leave the rate outside.
        let (lower, upper) = ((middle - half) / scale, (middle + half) / scale);
        Some(Interval { lower: lower.clamp(0.0, rate), upper: upper.clamp(rate, 1.0) })
    }

    /// The rate with one success and one failure more, so that a few observations that are all alike do not pass for certainty;
    /// and how many those are.
    fn smoothed(self) -> (f64, f64) {
        let size = self.of as f64 + 2.0;
        ((self.hits.min(self.of) as f64 + 1.0) / size, size)
    }

    fn cautious_variance(self) -> f64 {
        let (rate, size) = self.smoothed();
        rate * (1.0 - rate) / size
    }
}

/// Variance of a difference of rates as it is estimated for a look at any time; neither is empty. Each group's own would follow its hits:
/// a small group that has none yet would look all but certain of a rate near 0, while the other is known well. Where there is no difference
/// both have the pooled rate, so it is never less than that makes it.
fn cautious_variance(first: Share, second: Share) -> f64 {
    let both = Share { hits: first.hits.saturating_add(second.hits), of: first.of.saturating_add(second.of) };
    let (pooled, _) = both.smoothed();
    let of_one_rate = pooled * (1.0 - pooled) * (1.0 / first.of as f64 + 1.0 / second.of as f64);
    (first.cautious_variance() + second.cautious_variance()).max(of_one_rate)
}

/// Pooled z-test of two rates (for instance D. S. Moore et al., *Introduction to the Practice of Statistics*, 8.2); `None` if a group is
/// empty or all did the same.
pub fn two_proportions(first: Share, second: Share) -> Option<Test> {
    let difference = first.rate()? - second.rate()?;
    let size = first.of as f64 + second.of as f64;
    let pooled = (first.hits.min(first.of) as f64 + second.hits.min(second.of) as f64) / size;
    let variance = pooled * (1.0 - pooled) * (1.0 / first.of as f64 + 1.0 / second.of as f64);
    let z = difference / libm::sqrt(variance);
    (variance > 0.0).then(|| Test { z, p: two_sided(z) })
}

/// Chance that a standard normal variable is at least as far from 0 as `z`.
pub fn two_sided(z: f64) -> f64 {
    libm::erfc(libm::fabs(z) / SQRT_2)
}

/// Difference of two means with Welch's 95 % interval (B. L. Welch, Biometrika 34, 1947) and its degrees of freedom (F. E.
/// Satterthwaite, Biometrics Bulletin 2, 1946).
pub fn welch(first: Sample, second: Sample) -> MeanDifference {
    let value = first.mean - second.mean;
    let part = |sample: Sample| sample.variance / sample.size as f64;
    let (one, two) = (part(first), part(second));
    let sum = one + two;
    if first.size < 2 || second.size < 2 || !(sum > 0.0 && sum.is_finite()) {
        return MeanDifference { value, interval: None };
    }
    // Shares of the sum, so that the squares of tiny variances do not vanish.
    let weight = |part: f64, size: u64| (part / sum) * (part / sum) / (size - 1) as f64;
    let degrees = 1.0 / (weight(one, first.size) + weight(two, second.size));
    let half = student_t_quantile(0.975, degrees) * libm::sqrt(sum);
    MeanDifference { value, interval: Some((Interval { lower: value - half, upper: value + half }, degrees)) }
}

/// p and interval of a difference of rates that hold however often one looks: the likelihood ratio of a normal mixture of effects with
/// standard deviation `effect` against none (R. Johari, P. Koomen, L. Pekelis, D. Walsh, *Always valid inference*, Operations
/// Research 70, 2022, sections 4 and 5; H. Robbins, Ann. Math. Statist. 41, 1970). As there it rests on the difference being
/// about normal; the smallest p seen so far would be valid too, and this one, which forgets, is never smaller. The variance, which is
/// estimated, is the greater of what each group's own rate and what one rate for both makes it.
///
/// `effect` has to be chosen before the data are seen. `None` if a group is empty.
pub fn always_valid(first: Share, second: Share, effect: f64) -> Option<AlwaysValid> {
    let difference = first.rate()? - second.rate()?;
    let variance = cautious_variance(first, second);
    let mixture = effect * effect;
    let total = variance + mixture;
    let exponent = mixture * difference * difference / (2.0 * variance * total);
    let p = libm::exp(0.5 * libm::log(total / variance) - exponent).min(1.0);
    let half = libm::sqrt(variance * total / mixture * (libm::log(total / variance) - 2.0 * libm::log(0.05)));
    Some(AlwaysValid { p, interval: Interval { lower: difference - half, upper: difference + half } })
}

/// I_x(a, b), the regularised incomplete beta function, by its continued fraction (DLMF 8.17.22), evaluated as W. J. Lentz does
/// (Applied Optics 15, 1976) with the care of I. J. Thompson and A. R. Barnett (J. Comput. Phys. 64, 1986). For a, b > 0 up to about
/// [`MANY_DEGREES`]; x outside [0, 1] counts as the nearer end.
pub fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        // The fraction converges fast on the other side (DLMF 8.17.4).
        return 1.0 - front(1.0 - x, b, a) * fraction(1.0 - x, b, a) / b;
    }
    front(x, a, b) * fraction(x, a, b) / a
}

/// x^a (1 − x)^b / B(a, b).
fn front(x: f64, a: f64, b: f64) -> f64 {
    let log_beta = libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    libm::exp(a * libm::log(x) + b * libm::log1p(-x) - log_beta)
}

fn fraction(x: f64, a: f64, b: f64) -> f64 {
    let apart = |number: f64| if libm::fabs(number) < TINY { TINY } else { number };
    let mut c = 1.0;
    let mut d = 1.0 / apart(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for term in 1..=TERMS_MAX {
        let m = f64::from(term);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / apart(1.0 + coefficient * d);
            c = apart(1.0 + coefficient / c);
            change = c * d;
            value *= change;
        }
        if libm::fabs(change - 1.0) < 1e-16 {
            break;
        }
    }
    value
}

/// Chance that Student's t with so many degrees of freedom is above `t` ≥ 0 (A&S 26.7.1).
fn student_t_above(t: f64, degrees: f64) -> f64 {
    0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5)
}

/// The number that Student's t with `degrees` ≥ 1 of freedom exceeds with chance 1 − `p`, for p from 0.5 to 0.999: found by halving, and for
/// many degrees by A&S 26.7.5 (p 0.975 only is expanded: others are halved for whatever it costs).
pub fn student_t_quantile(p: f64, degrees: f64) -> f64 {
    if degrees >= MANY_DEGREES && p == 0.975 {
        return expanded(NORMAL_975, degrees);
    }
    let above = 1.0 - p;
    let (mut low, mut high) = (0.0, 1.0);
    while student_t_above(high, degrees) > above && high < 1e9 {
        high *= 2.0;
    }
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if student_t_above(middle, degrees) > above {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// A&S 26.7.5.
fn expanded(z: f64, degrees: f64) -> f64 {
    let square = z * z;
    // Polynomials in z², after z.
    let one = (square + 1.0) / 4.0;
    let two = ((5.0 * square + 16.0) * square + 3.0) / 96.0;
    let three = (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0;
    let four = ((((79.0 * square + 776.0) * square + 1_482.0) * square - 1_920.0) * square - 945.0) / 92_160.0;
    z * (1.0 + (one + (two + (three + four / degrees) / degrees) / degrees) / degrees)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(hits: u64, of: u64) -> Share {
        Share { hits, of }
    }

    fn close(found: f64, expected: f64, within: f64) -> bool {
        libm::fabs(found - expected) <= within
    }

    #[test]
    fn the_reference_of_the_domain() {
        let (treated, held) = (share(540, 9_000), share(40, 1_000));
        let Test { z, p } = two_proportions(treated, held).unwrap();
        assert!(close(z, 2.566_917, 5e-7) && close(p, 0.010_261, 5e-7), "{z} {p}");
        for (of, lower, upper) in [(treated, 0.055_279, 0.065_097), (held, 0.029_511, 0.054_010)] {
            let found = of.wilson().unwrap();
            assert!(close(found.lower, lower, 5e-7) && close(found.upper, upper, 5e-7), "{found:?}");
        }
        let back = two_proportions(held, treated).unwrap();
        assert_eq!((back.z, back.p), (-z, p), "two-sided, and signed");
    }

    #[test]
    fn nothing_and_all_alike_have_no_test_and_rates_stay_between_0_and_1() {
        assert_eq!(two_proportions(share(0, 0), share(1, 2)), None);
        assert_eq!(two_proportions(share(0, 5), share(0, 9)), None);
        assert_eq!(two_proportions(share(5, 5), share(9, 9)), None);
        assert_eq!((share(0, 0).rate(), share(0, 0).wilson()), (None, None));
        // Zero of n: z²/(n + z²) is the upper end.
        let none = share(0, 10).wilson().unwrap();
        assert!(none.lower == 0.0 && close(none.upper, 0.277_532_800, 1e-9), "{none:?}");
        let all = share(10, 10).wilson().unwrap();
        assert!(all.upper == 1.0 && close(all.lower, 1.0 - 0.277_532_800, 1e-9), "{all:?}");
    }

    #[test]
    fn quantiles_of_t_are_those_of_the_printed_tables() {
        // Degrees of freedom, 0.95, 0.975 and 0.995: any statistics textbook's table.
        let table = [
            (1.0, 6.314, 12.706, 63.657),
            (2.0, 2.920, 4.303, 9.925),
            (3.0, 2.353, 3.182, 5.841),
            (5.0, 2.015, 2.571, 4.032),
            (10.0, 1.812, 2.228, 3.169),
            (20.0, 1.725, 2.086, 2.845),
            (30.0, 1.697, 2.042, 2.750),
            (60.0, 1.671, 2.000, 2.660),
            (120.0, 1.658, 1.980, 2.617),
        ];
        for (degrees, of_95, of_975, of_995) in table {
            for (p, expected) in [(0.95, of_95), (0.975, of_975), (0.995, of_995)] {
                let found = student_t_quantile(p, degrees);
                assert!(close(found, expected, 5.1e-4), "{p} {degrees}: {found}");
            }
        }
    }

    #[test]
    fn quantiles_of_t_are_exact_where_they_have_a_formula() {
        // One degree: tan(π (p − ½)). Two: (2p − 1) √(2 / (4p (1 − p))).
        let one = libm::tan(std::f64::consts::PI * 0.475);
        let two = 0.95 * libm::sqrt(2.0 / (4.0 * 0.975 * 0.025));
        assert!(close(student_t_quantile(0.975, 1.0), one, 1e-11), "{one}");
        assert!(close(student_t_quantile(0.975, 2.0), two, 1e-13), "{two}");
    }

    #[test]
    fn the_expansion_for_many_degrees_goes_on_where_halving_ends_and_falls_to_the_normal_quantile() {
        let halved = student_t_quantile(0.975, MANY_DEGREES - 1e-9);
        let expanded = student_t_quantile(0.975, MANY_DEGREES);
        assert!(close(halved, expanded, 1e-11), "{halved} {expanded}");
        assert!(close(expanded, 1.962_339_080_826_409, 1e-11), "{expanded}");
        assert_eq!(student_t_quantile(0.975, 1e300), NORMAL_975);
        let mut last = f64::INFINITY;
        for degrees in (1..3_000).step_by(7) {
            let next = student_t_quantile(0.975, f64::from(degrees));
            assert!(next < last && next > NORMAL_975, "{degrees}: {next} after {last}");
            last = next;
        }
    }

    #[test]
    fn the_incomplete_beta_function_has_its_known_values() {
        // I_x(a, 1) = x^a, I_x(1, b) = 1 − (1 − x)^b, I_½(a, a) = ½; I_x(2, 3) = 6x² − 8x³ + 3x⁴.
        for x in [0.01, 0.2, 0.5, 0.77, 0.999] {
            assert!(close(incomplete_beta(x, 3.5, 1.0), libm::pow(x, 3.5), 1e-14), "{x}");
            assert!(close(incomplete_beta(x, 1.0, 7.0), 1.0 - libm::pow(1.0 - x, 7.0), 1e-14), "{x}");
            let (square, cube) = (x * x, x * x * x);
            assert!(
                close(incomplete_beta(x, 2.0, 3.0), 6.0 * square - 8.0 * cube + 3.0 * square * square, 1e-14),
                "{x}"
            );
        }
        for a in [0.5, 4.0, 300.0] {
            assert!(close(incomplete_beta(0.5, a, a), 0.5, 1e-12), "{a}");
        }
        assert_eq!((incomplete_beta(-1.0, 2.0, 2.0), incomplete_beta(2.0, 2.0, 2.0)), (0.0, 1.0));
    }

    #[test]
    fn welchs_interval_of_a_worked_example() {
        let first = Sample { size: 16, mean: 20.0, variance: 4.0 };
        let second = Sample { size: 9, mean: 17.0, variance: 16.0 };
        // 4/16 + 16/9 = 2.027778; its square / (0.0625/15 + 3.160494/8) = 10.299575.
        let MeanDifference { value, interval } = welch(first, second);
        let (Interval { lower, upper }, degrees) = interval.unwrap();
        let sum = 0.25 + 16.0 / 9.0;
        assert!(value == 3.0 && close(degrees, 10.299_574_8, 1e-6), "{degrees}");
        assert!(close(lower + upper, 6.0, 1e-12));
        let half = (upper - lower) / 2.0;
        assert!(close(half / libm::sqrt(sum), 2.219_385_4, 1e-6));
        // Equal sizes and variances: the degrees of the pooled test, 2 (n − 1); t of 18 is 2.101.
        let one = Sample { size: 10, mean: 1.0, variance: 2.0 };
        let (interval, degrees) = welch(one, Sample { mean: 0.0, ..one }).interval.unwrap();
        assert!(close(degrees, 18.0, 1e-9));
        assert!(close(interval.upper, 1.0 + 2.101 * libm::sqrt(0.4), 1e-3), "{interval:?}");
    }

    #[test]
    fn welch_has_no_interval_of_what_does_not_vary_or_is_one_number() {
        let one = Sample { size: 10, mean: 1.0, variance: 0.0 };
        assert_eq!(welch(one, Sample { mean: 0.5, ..one }), MeanDifference { value: 0.5, interval: None });
        let single = Sample { size: 1, mean: 3.0, variance: 0.0 };
        assert_eq!(welch(single, Sample { variance: 2.0, ..one }).interval, None);
        // One that does not vary against one that does: the degrees are the other's.
        let (_, degrees) = welch(one, Sample { size: 7, mean: 0.0, variance: 2.0 }).interval.unwrap();
        assert!(close(degrees, 6.0, 1e-12));
        assert!(welch(Sample { variance: 1e-200, ..one }, Sample { variance: 1e-200, ..one }).interval.is_some());
    }
}
