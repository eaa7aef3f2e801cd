//! Global caps as counters.

use std::collections::BTreeMap;

use super::Verdict;
use super::linearizable::{Counter, CounterOp, Found, Timed, search};
use crate::history::{Answer, Call, Operation};
use crate::limits::SEARCH_STEPS_MAX;

/// `spent`, where it is asked for as of one instant, is a counter: what reads see and impressions add has an order that agrees with all of them.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("spent is linearizable");
    let mut offers: BTreeMap<&str, Vec<Timed<CounterOp>>> = BTreeMap::new();
    for operation in history {
        let (offer, op, returned_us) = match (&operation.call, operation.answered()) {
            (Call::Respond { offer, .. }, Some((returned_us, Answer::Responded(responded)))) if responded.counts() => {
                (offer, CounterOp::Add, Some(returned_us))
            }
            (Call::Respond { offer, .. }, None) if operation.is_unknown() => (offer, CounterOp::Add, None),
            (Call::ReadBudget { offer, linearizable: true, .. }, Some((returned_us, Answer::Budget(budget)))) => {
                verdict.examined += 1;
                (offer, CounterOp::Read(budget.spent), Some(returned_us))
            }
            (_, _) => continue,
        };
        let timed = Timed { id: operation.id, invoked_us: operation.invoked_us, returned_us, op };
        offers.entry(offer).or_default().push(timed);
    }
    for (offer, calls) in offers {
        match search(&Counter, &calls, SEARCH_STEPS_MAX) {
            Found::Order => {}
            Found::None { stuck } => verdict.violated(format!("{offer}: no order explains these"), stuck),
            Found::GivenUp { steps } => verdict.undecided = Some(format!("{offer}: not decided in {steps} steps")),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{budget, create, respond, shown, spent, unknown};
    use super::*;

    #[test]
    fn a_count_that_goes_back_or_forgets_is_seen() {
        let history = |first, second| {
            vec![
                create(Some(9), None),
                shown(20, "a"),
                unknown(40, respond("b")),
                budget(60, false, spent(9, first)),
                budget(80, false, spent(9, second)),
            ]
        };
        for fine in [(1, 1), (1, 2), (2, 2)] {
            assert!(check(&history(fine.0, fine.1)).holds());
        }
        for wrong in [(0, 1), (2, 1), (1, 3)] {
            assert_eq!(check(&history(wrong.0, wrong.1)).violations, 1, "{wrong:?}");
        }
    }
}
