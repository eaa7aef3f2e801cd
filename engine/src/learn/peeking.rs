//! Experiments without any difference, looked at again and again: how often p says that there is one.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::EFFECT;
use super::statistics::{Share, always_valid, two_proportions};

/// Levels at which somebody stops.
const LEVELS: [f64; 2] = [0.05, 0.01];
const EXPERIMENTS: u32 = 300;
const LOOK_EVERY: u32 = 25;
/// From so many looks' customers on, looks come at growing distances: each after so much more of them.
const LOOKS_GROW: u32 = 40;
/// Outcomes come up to so many customers later.
const DELAY: u64 = 400;

/// How many experiments were ever called significant at each of [`LEVELS`].
#[derive(Default)]
struct Ever {
    fixed: [u32; 2],
    always: [u32; 2],
}

/// Experiments of so many customers whose arms have these rates, looked at all the way.
fn ever_significant(rate: [f64; 2], held_out: f64, customers: u32) -> Ever {
    let mut significant = Ever::default();
    for experiment in 0..EXPERIMENTS {
        // When an outcome comes, and in which arm.
        let mut due = vec![[0_u64; 2]; customers as usize + DELAY as usize + 1];
        let mut shares = [Share { hits: 0, of: 0 }; 2];
        let (mut ever, mut next) = ([1.0_f64; 2], 0);
        for customer in 0..customers {
            let drawn = xxh3_64_with_seed(&customer.to_le_bytes(), u64::from(experiment));
            // Three draws of 21 bits each.
            let dice = |which: u32| (drawn >> (21 * which)) & 0x1f_ffff;
            let chance = |which: u32| dice(which) as f64 / f64::from(1 << 21);
            let arm = usize::from(chance(0) < held_out);
            shares[arm].of += 1;
            if chance(1) < rate[arm] {
                due[customer as usize + (dice(2) % DELAY) as usize][arm] += 1;
            }
            for (share, hits) in shares.iter_mut().zip(due[customer as usize]) {
                share.hits += hits;
            }
            if customer == next {
                next += LOOK_EVERY.max(customer / LOOKS_GROW);
                ever[0] = ever[0].min(two_proportions(shares[0], shares[1]).map_or(1.0, |test| test.p));
                ever[1] = ever[1].min(always_valid(shares[0], shares[1], EFFECT).map_or(1.0, |test| test.p));
            }
        }
        for (place, level) in LEVELS.into_iter().enumerate() {
            significant.fixed[place] += u32::from(ever[0] <= level);
            significant.always[place] += u32::from(ever[1] <= level);
        }
    }
    significant
}

#[test]
fn whoever_looks_again_and_again_is_misled_by_the_fixed_p_and_not_by_the_sequential_one() {
    // With few held out and few that do anything, the control has seen none or one when looks begin.
    for (rate, held_out, customers) in
        [(0.05, 0.1, 3_000), (0.02, 0.5, 3_000), (0.5, 0.3, 3_000), (0.02, 0.05, 20_000), (0.005, 0.05, 20_000)]
    {
        let Ever { fixed, always } = ever_significant([rate, rate], held_out, customers);
        for ((level, fixed), always) in LEVELS.into_iter().zip(fixed).zip(always) {
            let allowed = level * f64::from(EXPERIMENTS);
            let told = format!("{rate} {held_out} {level}: {always} and {fixed} of {EXPERIMENTS}");
            assert!(f64::from(always) <= allowed, "{told}");
            assert!(f64::from(fixed) > 3.0 * allowed, "{told}");
        }
    }
}

#[test]
fn a_difference_is_found_at_any_time_too() {
    let Ever { fixed, always } = ever_significant([0.14, 0.05], 0.5, 3_000);
    for (fixed, always) in fixed.into_iter().zip(always) {
        assert!(always > EXPERIMENTS * 9 / 10 && fixed >= always, "{always} {fixed}");
    }
}
