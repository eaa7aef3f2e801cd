//! What must hold of what clients saw. Each checker is a pure function of the history, O(n) or nearly; calls of which nobody knows what became are
//! taken both ways: as having happened, and as not.

pub mod acknowledged;
pub mod caps;
pub mod counters;
pub mod exclusions;
pub mod in_flight;
pub mod ledger;
pub mod linearizable;
pub mod profiles;
pub mod registers;
pub mod revisions;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{Answer, Call, Operation};
use crate::limits::VIOLATIONS_TOLD_MAX;

/// What one invariant came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What must hold, as a sentence.
    pub invariant: &'static str,
    /// How many answers it was held against: with none it says nothing.
    pub examined: usize,
    /// How often it did not hold.
    pub violations: usize,
    /// The first of them.
    pub told: Vec<Violation>,
    /// Why it was not decided, if it was not.
    pub undecided: Option<String>,
}

/// Where an invariant did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// In words.
    pub what: String,
    /// Ids of the operations that show it.
    pub operations: Vec<u64>,
}

impl Verdict {
    /// Nothing seen yet.
    pub fn new(invariant: &'static str) -> Self {
        Verdict { invariant, examined: 0, violations: 0, told: Vec::new(), undecided: None }
    }

    /// It did not hold here.
    pub fn violated(&mut self, what: String, operations: impl IntoIterator<Item = u64>) {
        self.violations += 1;
        if self.told.len() < VIOLATIONS_TOLD_MAX {
            self.told.push(Violation { what, operations: operations.into_iter().collect() });
        }
    }

    /// Whether it held, was decided, and had something to be held against.
    pub fn holds(&self) -> bool {
        self.violations == 0 && self.undecided.is_none() && self.examined > 0
    }
}

/// All invariants, in the order in which they are told.
pub fn check(history: &[Operation]) -> Vec<Verdict> {
    vec![
        caps::check(history),
        profiles::check(history),
        acknowledged::check(history),
        ledger::check(history),
        in_flight::check(history),
        exclusions::check(history),
        revisions::check(history),
        counters::check(history),
        registers::check(history),
    ]
}

/// The limits that offers were created with: of all customers, and of each.
fn limits(history: &[Operation]) -> BTreeMap<&str, (Option<u64>, Option<u64>)> {
    let created = history.iter().filter_map(|operation| match (&operation.call, operation.answered()) {
        (Call::Create { global, per_customer }, Some((_, Answer::Created { offer }))) => {
            Some((offer.as_str(), (*global, *per_customer)))
        }
        (_, _) => None,
    });
    created.collect()
}

/// Histories to plant faults in.
#[cfg(test)]
mod planted {
    use crate::history::{Budget, Outcome, Responded};

    use super::*;

    /// An operation that begins at `at` and takes 10 µs; its id is `at`.
    pub fn ok(at: u64, call: Call, answer: Answer) -> Operation {
        let outcome = Outcome::Ok { sent_us: at, returned_us: at + 10, answer };
        Operation { id: at, client: 0, invoked_us: at, call, outcome }
    }

    pub fn unknown(at: u64, call: Call) -> Operation {
        Operation { id: at, client: 0, invoked_us: at, call, outcome: Outcome::Unknown }
    }

    pub fn fail(at: u64, call: Call) -> Operation {
        Operation { outcome: Outcome::Fail, ..unknown(at, call) }
    }

    pub fn create(global: Option<u64>, per_customer: Option<u64>) -> Operation {
        ok(0, Call::Create { global, per_customer }, Answer::Created { offer: "o".to_owned() })
    }

    pub fn respond(customer: &str) -> Call {
        Call::Respond { customer: customer.to_owned(), offer: "o".to_owned(), key: String::new() }
    }

    pub const COUNTED: Responded =
        Responded { recorded: true, duplicate: false, late: false, repeat: false, over_cap: false };

    pub fn shown(at: u64, customer: &str) -> Operation {
        ok(at, respond(customer), Answer::Responded(COUNTED))
    }

    pub fn budget(at: u64, settled: bool, budget: Budget) -> Operation {
        let call = Call::ReadBudget { offer: "o".to_owned(), linearizable: true, settled };
        ok(at, call, Answer::Budget(budget))
    }

    /// A budget that adds up.
    pub fn spent(limit: i64, spent: i64) -> Budget {
        Budget { limit, pool: limit - spent, in_flight: 0, free: 0, reserved: 0, spent }
    }

    #[test]
    fn a_verdict_holds_if_something_was_examined_and_nothing_was_wrong() {
        let mut verdict = Verdict::new("it holds");
        assert!(!verdict.holds());
        verdict.examined = 1;
        assert!(verdict.holds());
        let undecided = Verdict { undecided: Some("too long".to_owned()), ..verdict.clone() };
        assert!(!undecided.holds());
        for number in 0..2 * VIOLATIONS_TOLD_MAX {
            verdict.violated("it does not".to_owned(), [number as u64]);
        }
        assert!(!verdict.holds());
        assert_eq!((verdict.violations, verdict.told.len()), (2 * VIOLATIONS_TOLD_MAX, VIOLATIONS_TOLD_MAX));
    }

    #[test]
    fn a_clean_history_satisfies_all() {
        let o = || "o".to_owned();
        let repeated = Responded { duplicate: true, ..COUNTED };
        let history = [
            create(Some(2), Some(1)),
            shown(20, "a"),
            ok(40, Call::Repeat { of: 20 }, Answer::Responded(repeated)),
            ok(60, Call::WriteProfile { customer: "a".to_owned(), value: 1 }, Answer::Done),
            ok(80, Call::ReadProfile { customer: "a".to_owned() }, Answer::Profile { value: Some(1) }),
            ok(100, Call::Recommend { customer: "a".to_owned(), key: None }, Answer::Decided { offers: vec![o()] }),
            ok(120, Call::Exclude { offer: o() }, Answer::Done),
            ok(140, Call::Recommend { customer: "a".to_owned(), key: None }, Answer::Decided { offers: vec![] }),
            ok(160, Call::Edit { offer: o(), value: 1 }, Answer::Revised { revision: 7 }),
            ok(
                180,
                Call::ReadOffer { offer: o(), least: 7 },
                Answer::Offer { catalog: 8, revision: 7, value: Some(1) },
            ),
            budget(200, true, spent(2, 1)),
        ];
        for verdict in check(&history) {
            assert!(verdict.holds(), "{verdict:?}");
        }
    }
}
