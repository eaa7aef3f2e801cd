//! What was acknowledged is not lost.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Answer, Call, Operation, Responded};

/// An acknowledged outcome that is sent again with its key is known, and answered as it was.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("what was acknowledged is known when it comes again");
    let mut first: BTreeMap<u64, &Responded> = BTreeMap::new();
    for operation in history {
        let Some((_, Answer::Responded(now))) = operation.answered() else { continue };
        if let Call::Respond { .. } = &operation.call {
            first.insert(operation.id, now);
        }
        let Call::Repeat { of } = &operation.call else { continue };
        let Some(then) = first.get(of) else { continue };
        verdict.examined += 1;
        if !now.duplicate {
            verdict.violated("an acknowledged outcome was forgotten".to_owned(), [*of, operation.id]);
        } else if (Responded { duplicate: then.duplicate, ..*now }) != **then {
            verdict.violated(format!("answered {then:?}, later {now:?}"), [*of, operation.id]);
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{COUNTED, ok, shown, unknown};
    use super::*;

    fn history(repeated: Responded) -> [Operation; 2] {
        [shown(20, "a"), ok(40, Call::Repeat { of: 20 }, Answer::Responded(repeated))]
    }

    #[test]
    fn a_repetition_is_known_and_answered_alike() {
        assert!(check(&history(Responded { duplicate: true, ..COUNTED })).holds());
        assert_eq!(check(&history(COUNTED)).violations, 1);
        assert_eq!(check(&history(Responded { duplicate: true, over_cap: true, ..COUNTED })).violations, 1);
    }

    #[test]
    fn an_acknowledgement_that_came_of_a_second_try_is_one() {
        let tried_twice = Responded { duplicate: true, ..COUNTED };
        let [_, again] = history(tried_twice);
        let first = ok(20, super::super::planted::respond("a"), Answer::Responded(tried_twice));
        assert!(check(&[first, again]).holds());
    }

    #[test]
    fn nothing_is_said_of_what_was_not_answered() {
        assert_eq!(check(&[shown(20, "a"), unknown(40, Call::Repeat { of: 20 })]).examined, 0);
    }
}
