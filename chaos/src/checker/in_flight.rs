//! Reconciliation comes to an end.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Answer, Call, Operation};

/// So long a unit may be on its way, if nothing is in the way.
const LONGEST_US: u64 = 5_000_000;

/// Once everything was healed long enough ago, nothing is in flight between ledger and shards for longer than five seconds: of the answers of such a
/// time one at least says so. A unit may still move; then the account is read again.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("nothing is in flight for five seconds once everything is healed");
    // Since when something was seen in flight each time, and by which operation first.
    let mut moving: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for operation in history {
        if let (Call::ReadBudget { offer, settled: true, .. }, Some((returned_us, Answer::Budget(budget)))) =
            (&operation.call, operation.answered())
        {
            verdict.examined += 1;
            if budget.in_flight == 0 {
                moving.remove(offer.as_str());
                continue;
            }
            let (since_us, first) = *moving.entry(offer).or_insert((returned_us, operation.id));
            if operation.invoked_us >= since_us.saturating_add(LONGEST_US) {
                let what = format!("{offer}: {} units were in flight all the time", budget.in_flight);
                verdict.violated(what, [first, operation.id]);
                moving.remove(offer.as_str());
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{budget, spent};
    use super::*;
    use crate::history::Budget;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn units_may_move_but_not_stay_in_flight_once_all_is_healed() {
        let moving = Budget { in_flight: 2, pool: 7, ..spent(10, 1) };
        let at = |second: u64, settled, of| budget(second * SECOND_US, settled, of);
        assert_eq!(check(&[at(1, false, moving), at(9, false, moving)]).examined, 0);
        assert!(check(&[at(1, true, moving), at(4, true, moving)]).holds());
        assert!(check(&[at(1, true, moving), at(4, true, spent(10, 1)), at(7, true, moving)]).holds());
        let verdict = check(&[at(1, true, moving), at(4, true, moving), at(7, true, moving)]);
        assert_eq!((verdict.violations, &verdict.told[0].operations), (1, &vec![SECOND_US, 7 * SECOND_US]));
    }
}
