//! Global caps: never more than the limit, and what is counted is what was acknowledged, give or take what is unknown.

use std::collections::BTreeMap;

use super::{Verdict, limits};
use crate::history::{Answer, Call, Operation};

/// What is known of an offer's impressions.
#[derive(Default)]
struct Seen<'a> {
    counted: u64,
    unknown: u64,
    settled: Vec<(u64, &'a crate::history::Budget)>,
}

/// Acknowledged impressions never exceed a global limit, nor do confirmed and reserved units; once all is settled, `spent` lies between
/// what was acknowledged, and that with all that is unknown.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("no global cap is exceeded, and it counts exactly what was acknowledged");
    let mut offers: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    for operation in history {
        match (&operation.call, operation.answered()) {
            (Call::Respond { offer, .. }, Some((_, Answer::Responded(responded)))) => {
                offers.entry(offer).or_default().counted += u64::from(responded.counts());
            }
            (Call::Respond { offer, .. }, None) => {
                offers.entry(offer).or_default().unknown += u64::from(operation.is_unknown());
            }
            (Call::ReadBudget { offer, settled, .. }, Some((_, Answer::Budget(budget)))) => {
                verdict.examined += 1;
                if budget.spent + budget.reserved > budget.limit {
                    let what = format!(
                        "{offer}: {} confirmed and {} reserved of {}",
                        budget.spent, budget.reserved, budget.limit
                    );
                    verdict.violated(what, [operation.id]);
                }
                if *settled {
                    offers.entry(offer).or_default().settled.push((operation.id, budget));
                }
            }
            (_, _) => {}
        }
    }
    for (offer, (global, _)) in limits(history) {
        let (Some(limit), Some(seen)) = (global, offers.get(offer)) else { continue };
        verdict.examined += 1;
        let (counted, unknown) = (seen.counted, seen.unknown);
        if counted > limit {
            verdict.violated(format!("{offer}: {counted} impressions were acknowledged, the limit is {limit}"), []);
        }
        for (id, budget) in &seen.settled {
            let spent = budget.spent;
            if spent < counted as i64 {
                verdict
                    .violated(format!("{offer}: {counted} impressions were acknowledged, {spent} are counted"), [*id]);
            }
            if spent > (counted + unknown) as i64 {
                let what =
                    format!("{offer}: {spent} are counted, {counted} were acknowledged and {unknown} are unknown");
                verdict.violated(what, [*id]);
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::planted::{COUNTED, budget, create, fail, ok, respond, shown, spent, unknown};
    use super::*;
    use crate::history::{Budget, Responded};

    #[test]
    fn what_is_not_counted_takes_nothing_and_what_is_unknown_may() {
        let over = Responded { over_cap: true, ..COUNTED };
        let history = |counted| {
            vec![
                create(Some(2), None),
                shown(20, "a"),
                ok(40, respond("b"), Answer::Responded(over)),
                unknown(60, respond("c")),
                fail(80, respond("d")),
                budget(100, true, spent(2, counted)),
            ]
        };
        assert!(check(&history(1)).holds() && check(&history(2)).holds());
        // An acknowledged one is lost; one is counted that nobody made.
        assert_eq!((check(&history(0)).violations, check(&history(3)).violations), (1, 2));
    }

    #[test]
    fn a_cap_that_is_exceeded_is_seen_by_its_acknowledgements_and_by_its_account() {
        let history = [create(Some(1), None), shown(20, "a"), shown(40, "b")];
        assert_eq!(check(&history).violations, 1);
        let over = Budget { reserved: 2, spent: 9, ..spent(10, 9) };
        assert_eq!(check(&[create(Some(10), None), budget(20, false, over)]).violations, 1);
        // In the midst of things an account may lag behind, whatever was acknowledged.
        assert!(check(&[create(Some(9), None), shown(20, "a"), budget(40, false, spent(9, 0))]).holds());
    }

    proptest! {
        #[test]
        fn any_count_but_a_possible_one_is_a_violation(
            limit in 1..20_u64, counted in 0..20_u64, unknowns in 0..5_u64, total in 0..30_i64,
        ) {
            let mut history = vec![create(Some(limit), None)];
            history.extend((0..counted).map(|at| shown(20 + at, "a")));
            history.extend((0..unknowns).map(|at| unknown(50 + at, respond("a"))));
            history.push(budget(100, true, spent(limit as i64, total)));
            let is_possible = counted <= limit && total <= limit as i64 && total >= counted as i64
                && total <= (counted + unknowns) as i64;
            prop_assert_eq!(check(&history).holds(), is_possible);
        }
    }
}
