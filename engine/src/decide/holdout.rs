//! Holdout: which customers an experiment withholds offers from (domain.md §4).

use crate::decide::stable_hash::draw;
use crate::keys::{CustomerId, TenantId};

/// Whether `customer` is in the control group of `experiment`: the same for ever, and growing the percentage only adds
/// customers.
pub fn is_held_out(tenant: &TenantId, experiment: &str, customer: &CustomerId, percent: f64) -> bool {
    percent >= 100.0 || draw(tenant, "holdout", experiment, customer) * 100.0 < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(tenant: &str, experiment: &str, customer: &str) -> f64 {
        draw(&TenantId::new(tenant), "holdout", experiment, &CustomerId::new(customer))
    }

    #[test]
    fn assignment_of_three_customers_is_pinned() {
        // Changing any of these moves customers between arms of running experiments.
        let vectors = [
            (("default", "spring-sale", "customer-1"), 0.030111043352774494),
            (("default", "spring-sale", "customer-2"), 0.23609465752685493),
            (("acme", "loyalty", "0f3a"), 0.6202028298162987),
        ];
        for ((tenant, experiment, customer), expected) in vectors {
            assert_eq!(drawn(tenant, experiment, customer), expected, "{tenant} {experiment} {customer}");
        }
    }

    #[test]
    fn nobody_is_held_out_at_0_percent_and_everybody_at_100() {
        let tenant = TenantId::new("t");
        for n in 0..1_000 {
            let customer = CustomerId::new(n.to_string());
            assert!(!is_held_out(&tenant, "e", &customer, 0.0));
            assert!(is_held_out(&tenant, "e", &customer, 100.0));
        }
    }

    #[test]
    fn about_the_stated_share_is_held_out_and_a_larger_share_includes_a_smaller() {
        let tenant = TenantId::new("t");
        let mut held = 0;
        for n in 0..10_000 {
            let customer = CustomerId::new(n.to_string());
            let small = is_held_out(&tenant, "e", &customer, 10.0);
            held += u32::from(small);
            assert!(!small || is_held_out(&tenant, "e", &customer, 25.0));
        }
        assert!((900..1_100).contains(&held), "{held} of 10000");
    }
}
