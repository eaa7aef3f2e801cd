//! Profiles as registers.

use std::collections::BTreeMap;

use super::Verdict;
use super::linearizable::{Found, Register, RegisterOp, Timed, search};
use crate::history::{Answer, Call, Operation};
use crate::limits::SEARCH_STEPS_MAX;

/// Each profile reads as if its reads and writes happened one after the other: no read at a leader of yesterday, no acknowledged write lost.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("profiles are linearizable");
    let mut customers: BTreeMap<&str, Vec<Timed<RegisterOp>>> = BTreeMap::new();
    for operation in history {
        let (customer, op, returned_us) = match (&operation.call, operation.answered()) {
            (Call::WriteProfile { customer, value }, Some((returned_us, Answer::Done))) => {
                (customer, RegisterOp::Write(*value), Some(returned_us))
            }
            (Call::WriteProfile { customer, value }, None) if operation.is_unknown() => {
                (customer, RegisterOp::Write(*value), None)
            }
            (Call::ReadProfile { customer }, Some((returned_us, Answer::Profile { value }))) => {
                verdict.examined += 1;
                (customer, RegisterOp::Read(*value), Some(returned_us))
            }
            (_, _) => continue,
        };
        let timed = Timed { id: operation.id, invoked_us: operation.invoked_us, returned_us, op };
        customers.entry(customer).or_default().push(timed);
    }
    for (customer, calls) in customers {
        match search(&Register, &calls, SEARCH_STEPS_MAX) {
            Found::Order => {}
            Found::None { stuck } => verdict.violated(format!("{customer}: no order explains these"), stuck),
            Found::GivenUp { steps } => verdict.undecided = Some(format!("{customer}: not decided in {steps} steps")),
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{fail, ok, unknown};
    use super::*;

    fn write(value: u64) -> Call {
        Call::WriteProfile { customer: "a".to_owned(), value }
    }

    fn read(at: u64, value: Option<u64>) -> Operation {
        ok(at, Call::ReadProfile { customer: "a".to_owned() }, Answer::Profile { value })
    }

    #[test]
    fn a_stale_read_and_a_lost_write_are_seen() {
        let history = |value| {
            let written = |at, value| ok(at, write(value), Answer::Done);
            vec![written(20, 1), written(40, 2), unknown(60, write(3)), fail(80, write(4)), read(100, value)]
        };
        assert!(check(&history(Some(2))).holds() && check(&history(Some(3))).holds());
        for wrong in [None, Some(1), Some(4), Some(5)] {
            assert_eq!(check(&history(wrong)).violations, 1, "{wrong:?}");
        }
    }
}
