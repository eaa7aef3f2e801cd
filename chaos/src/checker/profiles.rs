//! Caps of each customer.

use std::collections::BTreeMap;

use super::{Verdict, limits};
use crate::history::{Answer, Call, Operation};

/// No customer is acknowledged more impressions of an offer than its cap allows.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("no customer's cap is exceeded");
    let limits = limits(history);
    let mut counted: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for operation in history {
        if let (Call::Respond { customer, offer, .. }, Some((_, Answer::Responded(responded)))) =
            (&operation.call, operation.answered())
            && responded.counts()
        {
            counted.entry((offer, customer)).or_default().push(operation.id);
        }
    }
    for ((offer, customer), ids) in counted {
        let Some((_, Some(limit))) = limits.get(offer) else { continue };
        verdict.examined += 1;
        if ids.len() as u64 > *limit {
            verdict.violated(format!("{customer} saw {offer} {} times, the limit is {limit}", ids.len()), ids);
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{COUNTED, create, ok, respond, shown, unknown};
    use super::*;
    use crate::history::Responded;

    #[test]
    fn one_impression_more_than_allowed_is_seen_whoever_else_had_some() {
        let mut history = vec![create(None, Some(2)), shown(20, "a"), shown(40, "b"), shown(60, "a")];
        assert!(check(&history).holds());
        history.push(unknown(80, respond("a")));
        history.push(ok(100, respond("a"), Answer::Responded(Responded { over_cap: true, ..COUNTED })));
        assert!(check(&history).holds());
        history.push(shown(120, "a"));
        let verdict = check(&history);
        assert_eq!((verdict.violations, &verdict.told[0].operations), (1, &vec![20, 60, 120]));
    }

    #[test]
    fn without_a_cap_there_is_nothing_to_exceed() {
        assert_eq!(check(&[create(Some(1), None), shown(20, "a"), shown(40, "a")]).examined, 0);
    }
}
