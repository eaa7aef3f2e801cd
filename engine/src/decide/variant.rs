//! Which of several creatives of one offer a customer sees (domain.md §1, creative).

use crate::decide::stable_hash::draw;
use crate::keys::{CustomerId, TenantId};

/// Index of the variant for (offer, customer) among creatives with these `splits`, given in creative key order. Each gets
/// its share of customers; a customer keeps the variant while the set is the same. All splits 0: the first.
///
/// `None` only for an empty list.
pub fn choose(tenant: &TenantId, offer_id: &str, customer: &CustomerId, splits: &[f64]) -> Option<usize> {
    if splits.len() < 2 {
        return (!splits.is_empty()).then_some(0);
    }
    let total: f64 = splits.iter().sum();
    let drawn = draw(tenant, "creative", offer_id, customer) * total;
    let mut cumulative = 0.0;
    let mut last_shown = 0;
    for (index, split) in splits.iter().enumerate() {
        cumulative += split;
        if drawn < cumulative {
            return Some(index);
        }
        if *split > 0.0 {
            last_shown = index;
        }
    }
    // All splits are 0, or the draw rounded up to the total.
    Some(last_shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(splits: &[f64]) -> Vec<usize> {
        let tenant = TenantId::new("t");
        let mut counts = vec![0; splits.len()];
        for n in 0..8_000 {
            let customer = CustomerId::new(n.to_string());
            counts[choose(&tenant, "offer-1", &customer, splits).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn variants_get_their_share_of_customers() {
        let counts = shares(&[1.0, 3.0]);
        assert!((1_800..2_200).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_split_of_0_is_never_shown_beside_others() {
        assert_eq!(shares(&[0.0, 1.0, 0.0]), [0, 8_000, 0]);
    }

    #[test]
    fn all_splits_0_show_the_first() {
        assert_eq!(shares(&[0.0, 0.0]), [8_000, 0]);
    }

    #[test]
    fn without_creatives_there_is_no_variant() {
        assert_eq!(choose(&TenantId::new("t"), "o", &CustomerId::new("c"), &[]), None);
        assert_eq!(choose(&TenantId::new("t"), "o", &CustomerId::new("c"), &[0.0]), Some(0));
    }
}
