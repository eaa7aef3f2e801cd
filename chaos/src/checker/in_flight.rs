//! Reconciliation comes to an end.

use super::Verdict;
use crate::history::{Answer, Call, Operation};

/// Nothing is in flight between ledger and shards once everything was healed long enough ago.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("nothing is in flight five seconds after healing");
    for operation in history {
        if let (Call::ReadBudget { offer, settled: true, .. }, Some((_, Answer::Budget(budget)))) =
            (&operation.call, operation.answered())
        {
            verdict.examined += 1;
            if budget.in_flight != 0 {
                verdict.violated(format!("{offer}: {} units are in flight", budget.in_flight), [operation.id]);
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

    #[test]
    fn units_may_be_in_flight_while_there_are_faults_and_not_afterwards() {
        let moving = Budget { in_flight: 2, pool: 7, ..spent(10, 1) };
        assert_eq!(check(&[budget(20, false, moving)]).examined, 0);
        assert!(check(&[budget(20, false, moving), budget(40, true, spent(10, 1))]).holds());
        assert_eq!(check(&[budget(20, true, moving)]).violations, 1);
    }
}
