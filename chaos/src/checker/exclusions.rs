//! Emergency exclusions.

use std::collections::BTreeMap;

use super::Verdict;
use crate::history::{Answer, Call, Operation, Outcome};

/// No answer to a request that was sent after an exclusion was acknowledged has the offer: not from any node, nor as the repetition of an
/// earlier answer.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("an acknowledged exclusion binds every request sent after it");
    let mut excluded: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for operation in history {
        if let (Call::Exclude { offer }, Some((returned_us, Answer::Done))) = (&operation.call, operation.answered()) {
            let known = excluded.entry(offer).or_insert((returned_us, operation.id));
            *known = (*known).min((returned_us, operation.id));
        }
    }
    let earliest = excluded.values().map(|(returned_us, _)| *returned_us).min().unwrap_or(u64::MAX);
    for operation in history {
        let Outcome::Ok { sent_us, answer: Answer::Decided { offers }, .. } = &operation.outcome else { continue };
        if *sent_us <= earliest {
            continue;
        }
        verdict.examined += 1;
        for offer in offers {
            if let Some((returned_us, exclusion)) = excluded.get(offer.as_str())
                && sent_us > returned_us
            {
                let after = sent_us - returned_us;
                verdict.violated(format!("{offer}, sent {after} µs after it was excluded"), [*exclusion, operation.id]);
            }
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{ok, unknown};
    use super::*;

    fn recommend(at: u64, sent_us: u64, offer: &str) -> Operation {
        let call = Call::Recommend { customer: "a".to_owned(), key: None };
        let answer = Answer::Decided { offers: vec!["other".to_owned(), offer.to_owned()] };
        let outcome = Outcome::Ok { sent_us, returned_us: sent_us + 9, answer };
        Operation { id: at, client: 0, invoked_us: at, call, outcome }
    }

    fn exclude(offer: &str) -> Call {
        Call::Exclude { offer: offer.to_owned() }
    }

    #[test]
    fn what_was_sent_before_the_acknowledgement_may_still_be_answered_with_it() {
        let excluded = ok(100, exclude("o"), Answer::Done);
        assert_eq!(check(&[recommend(50, 50, "o"), excluded.clone(), recommend(105, 105, "o")]).violations, 0);
        assert_eq!(check(&[excluded.clone(), recommend(120, 120, "o")]).violations, 1);
        // The first try was before, the one that was answered was not.
        assert_eq!(check(&[recommend(50, 120, "o"), excluded.clone()]).violations, 1);
        assert!(check(&[excluded, recommend(120, 120, "p")]).holds());
    }

    #[test]
    fn an_exclusion_that_was_not_acknowledged_binds_nobody() {
        assert_eq!(check(&[unknown(100, exclude("o")), recommend(120, 120, "o")]).violations, 0);
        // The second time it was: from then on.
        let history = [unknown(100, exclude("o")), ok(200, exclude("o"), Answer::Done), recommend(205, 205, "o")];
        assert_eq!(check(&history).violations, 0);
        assert_eq!(check(&[&history[..], &[recommend(220, 220, "o")]].concat()).violations, 1);
    }
}
