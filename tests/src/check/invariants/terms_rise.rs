//! Along a group's log terms never fall.

use std::collections::BTreeMap;

use proffer_cluster::group::Group;

use crate::check::{Invariant, Seen};

/// See the module.
#[derive(Default)]
pub struct TermsRise {
    terms: BTreeMap<Group, BTreeMap<u64, u64>>,
}

impl Invariant for TermsRise {
    fn sentence(&self) -> &'static str {
        "terms never fall along a log"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let (index, term) = (seen.position.index, seen.position.leader.term);
        let terms = self.terms.entry(seen.group).or_default();
        let before = terms.range(..index).next_back().filter(|(_, before)| **before > term);
        let after = terms.range(index + 1..).next().filter(|(_, after)| **after < term);
        if let Some((other, other_term)) = before.or(after) {
            return Err(format!("{}: entry {index} is of term {term}, entry {other} of {other_term}", seen.group));
        }
        terms.insert(index, term);
        Ok(())
    }
}
