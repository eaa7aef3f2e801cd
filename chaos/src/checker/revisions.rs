//! Reading one's own writes of the catalogue.

use std::collections::{BTreeMap, BTreeSet};

use super::Verdict;
use crate::history::{Answer, Call, Operation};

/// What is known of one offer's edits.
#[derive(Default)]
struct Edits {
    /// Value by revision.
    at: BTreeMap<u64, u64>,
    /// Those in doubt.
    unknown: BTreeSet<u64>,
}

/// A read that asks for a revision is answered by a catalogue that is not older, and with an offer that no acknowledged edit up to there has
/// changed since; no edit is answered with the revision of another of the same offer, nor read with another's value. Edits of two offers
/// may be one revision: an entry of the log is one, and takes what waits for it.
pub fn check(history: &[Operation]) -> Verdict {
    let mut verdict = Verdict::new("a read that asks for a revision sees all writes up to it");
    let mut offers: BTreeMap<&str, Edits> = BTreeMap::new();
    let mut given: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    for operation in history {
        let Call::Edit { offer, value } = &operation.call else { continue };
        let edits = offers.entry(offer).or_default();
        if let Some((_, Answer::Revised { revision })) = operation.answered() {
            edits.at.insert(*revision, *value);
            if let Some(other) = given.insert((offer, *revision), operation.id) {
                verdict.violated(format!("two edits of {offer} are revision {revision}"), [other, operation.id]);
            }
        } else if operation.is_unknown() {
            edits.unknown.insert(*value);
        }
    }
    let none = Edits::default();
    for operation in history {
        let (Call::ReadOffer { offer, least }, Some((_, Answer::Offer { catalog, revision, value }))) =
            (&operation.call, operation.answered())
        else {
            continue;
        };
        verdict.examined += 1;
        if catalog < least {
            verdict.violated(format!("asked for revision {least}, answered at {catalog}"), [operation.id]);
        }
        let edits = offers.get(offer.as_str()).unwrap_or(&none);
        if let Some((missed, _)) = edits.at.range(revision + 1..).next().filter(|(missed, _)| *missed <= least) {
            let what =
                format!("{offer} as of revision {revision}, though {least} was asked for, and {missed} changed it");
            verdict.violated(what, [operation.id]);
        }
        let is_right = match (edits.at.get(revision), value) {
            (Some(known), value) => *value == Some(*known),
            // Before the first edit; or by one of which nobody heard.
            (None, None) => edits.at.range(..revision).next().is_none(),
            (None, Some(value)) => edits.unknown.contains(value),
        };
        if !is_right {
            let known = edits.at.get(revision);
            let what = format!("{offer} has {value:?} at revision {revision}, which made it {known:?}");
            verdict.violated(what, [operation.id]);
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::super::planted::{ok, unknown};
    use super::*;

    fn edit(value: u64) -> Call {
        Call::Edit { offer: "o".to_owned(), value }
    }

    fn edited(at: u64, value: u64, revision: u64) -> Operation {
        ok(at, edit(value), Answer::Revised { revision })
    }

    fn read(least: u64, catalog: u64, revision: u64, value: Option<u64>) -> usize {
        let call = Call::ReadOffer { offer: "o".to_owned(), least };
        let read = ok(80, call, Answer::Offer { catalog, revision, value });
        check(&[edited(20, 1, 5), edited(40, 2, 9), unknown(60, edit(3)), read]).violations
    }

    #[test]
    fn a_read_sees_the_newest_edit_of_its_revision_or_one_in_doubt() {
        assert_eq!(read(5, 5, 5, Some(1)), 0);
        // The second edit is there, and need not be seen.
        assert_eq!((read(8, 8, 5, Some(1)), read(5, 9, 9, Some(2))), (0, 0));
        assert_eq!((read(9, 30, 9, Some(2)), read(9, 30, 12, Some(3))), (0, 0));
        assert_eq!(read(0, 4, 2, None), 0);
    }

    #[test]
    fn an_older_catalogue_or_a_missed_edit_or_another_value_is_seen() {
        assert_eq!(read(9, 8, 9, Some(2)), 1);
        assert_eq!((read(9, 9, 5, Some(1)), read(5, 5, 2, None)), (1, 1));
        for (revision, value) in [(9, Some(1)), (5, Some(2)), (9, None), (7, None), (4, Some(1)), (9, Some(7))] {
            assert_eq!(read(0, 9, revision, value), 1, "{revision} {value:?}");
        }
        assert!(check(&[edited(20, 1, 5), edited(40, 2, 5)]).violations == 1);
    }

    #[test]
    fn edits_of_two_offers_may_be_one_revision() {
        let other = ok(40, Call::Edit { offer: "p".to_owned(), value: 2 }, Answer::Revised { revision: 5 });
        assert_eq!(check(&[edited(20, 1, 5), other]).violations, 0);
    }
}
