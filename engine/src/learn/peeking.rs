//! Experiments without any difference, looked at again and again: how often p says that there is one.

use super::EFFECT;
use super::statistics::{Share, always_valid, two_proportions};
use crate::decide::stable_hash::draw;
use crate::keys::{CustomerId, TenantId};

const LEVEL: f64 = 0.05;
const EXPERIMENTS: u32 = 300;
const CUSTOMERS: u32 = 3_000;
const LOOK_EVERY: u32 = 25;
/// Outcomes come up to so many customers later.
const DELAY: f64 = 400.0;

/// Of the experiments in which both arms have `rate`, how many were ever called significant: by the fixed-sample p, and by the one for
/// all times.
fn ever_significant(rate: [f64; 2], held_out: f64) -> [u32; 2] {
    let tenant = TenantId::new("t");
    let mut significant = [0, 0];
    for experiment in 0..EXPERIMENTS {
        let name = format!("{experiment} {rate:?} {held_out}");
        // When an outcome comes, and in which arm.
        let mut due = vec![[0_u64; 2]; (CUSTOMERS + DELAY as u32 + 1) as usize];
        let mut shares = [Share { hits: 0, of: 0 }; 2];
        let mut ever = [false; 2];
        for customer in 0..CUSTOMERS {
            let id = CustomerId::new(customer.to_string());
            let dice = |what: &str| draw(&tenant, what, &name, &id);
            let arm = usize::from(dice("arm") < held_out);
            shares[arm].of += 1;
            if dice("hit") < rate[arm] {
                due[(f64::from(customer) + dice("delay") * DELAY) as usize][arm] += 1;
            }
            for (share, hits) in shares.iter_mut().zip(due[customer as usize]) {
                share.hits += hits;
            }
            if customer % LOOK_EVERY == 0 {
                ever[0] |= two_proportions(shares[0], shares[1]).is_some_and(|test| test.p <= LEVEL);
                ever[1] |= always_valid(shares[0], shares[1], EFFECT).is_some_and(|test| test.p <= LEVEL);
            }
        }
        for (count, ever) in significant.iter_mut().zip(ever) {
            *count += u32::from(ever);
        }
    }
    significant
}

#[test]
fn whoever_looks_again_and_again_is_misled_by_the_fixed_p_and_not_by_the_sequential_one() {
    for (rate, held_out) in [(0.05, 0.1), (0.02, 0.5), (0.5, 0.3)] {
        let [fixed, always] = ever_significant([rate, rate], held_out);
        assert!(f64::from(always) <= LEVEL * f64::from(EXPERIMENTS), "{rate} {held_out}: {always} of {EXPERIMENTS}");
        assert!(f64::from(fixed) > 3.0 * LEVEL * f64::from(EXPERIMENTS), "{rate} {held_out}: {fixed} of {EXPERIMENTS}");
    }
}

#[test]
fn a_difference_is_found_at_any_time_too() {
    let [fixed, always] = ever_significant([0.14, 0.05], 0.5);
    assert!(always > EXPERIMENTS * 9 / 10 && fixed >= always, "{always} {fixed}");
}
