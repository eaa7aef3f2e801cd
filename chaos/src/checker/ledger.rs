//! The ledger's identity.

use super::Verdict;
use crate::history::{Answer, Call, Operation};

/// Every unit of a limit is in exactly one place: `pool + inFlight + free + reserved + spent = limit`, in every answer.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("every unit of a limit is in exactly one place");
    for operation in history {
        if let (Call::ReadBudget { offer, .. }, Some((_, Answer::Budget(budget)))) =
            (&operation.call, operation.answered())
        {
            verdict.examined += 1;
            let placed = budget.pool + budget.in_flight + budget.free + budget.reserved + budget.spent;
            if placed != budget.limit {
                verdict.violated(format!("{offer}: {placed} units of {}: {budget:?}", budget.limit), [operation.id]);
            }
            let least = budget.in_flight.min(budget.free).min(budget.reserved).min(budget.spent);
            if least < 0 {
                verdict.violated(format!("{offer}: fewer than none: {budget:?}"), [operation.id]);
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::planted::budget;
    use super::*;
    use crate::history::Budget;

    proptest! {
        #[test]
        fn a_unit_more_or_less_anywhere_is_seen(
            pool in -5..50_i64, in_flight in 0..9_i64, free in 0..9_i64, reserved in 0..9_i64, spent in 0..9_i64,
            place in 0..5_usize, by in prop_oneof![Just(-1_i64), Just(1)],
        ) {
            let whole = Budget { limit: pool + in_flight + free + reserved + spent, pool, in_flight, free, reserved, spent };
            prop_assert!(check(&[budget(20, false, whole)]).holds());
            let mut wrong = whole;
            *[&mut wrong.pool, &mut wrong.in_flight, &mut wrong.free, &mut wrong.reserved, &mut wrong.spent][place] += by;
            prop_assert!(check(&[budget(20, false, wrong)]).violations > 0);
        }
    }

    #[test]
    fn fewer_than_none_is_seen_though_it_adds_up() {
        let wrong = Budget { limit: 10, pool: 10, in_flight: -1, free: 1, reserved: 0, spent: 0 };
        assert_eq!(check(&[budget(20, false, wrong)]).violations, 1);
    }
}
