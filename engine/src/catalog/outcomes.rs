//! Outcome types: the ten built-in ones and a tenant's own.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use crate::keys::OutcomeKey;
use crate::model::settings::{CustomOutcome, Sentiment};

/// Built-in outcomes; an outcome's place here is its [`OutcomeKey`].
pub const BUILT_IN: [(&str, Sentiment); 10] = [
    ("impression", Sentiment::Neutral),
    ("click", Sentiment::Positive),
    ("conversion", Sentiment::Positive),
    ("not_interested", Sentiment::Negative),
    ("opt_out", Sentiment::Negative),
    ("defer", Sentiment::Neutral),
    ("dismiss", Sentiment::Negative),
    ("share", Sentiment::Positive),
    ("save", Sentiment::Positive),
    ("complaint", Sentiment::Negative),
];

/// The key of `impression`.
pub const IMPRESSION: OutcomeKey = OutcomeKey(0);
/// The key of `opt_out`.
pub const OPT_OUT: OutcomeKey = OutcomeKey(4);

/// What the system knows of an outcome type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct OutcomeType {
    /// Number for state and log.
    pub key: OutcomeKey,
    /// How it counts as evidence and for fatigue.
    pub sentiment: Sentiment,
}

/// A tenant's outcome types. A removed custom outcome keeps its key: the same word added again is the same outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Outcomes {
    custom: BTreeMap<String, (OutcomeType, bool)>,
}

impl Outcomes {
    /// The outcome type of a word in force.
    pub fn get(&self, word: &str) -> Option<OutcomeType> {
        if let Some(index) = BUILT_IN.iter().position(|(name, _)| *name == word) {
            return Some(OutcomeType { key: OutcomeKey(index as u16), sentiment: BUILT_IN[index].1 });
        }
        self.custom.get(word).filter(|(_, in_force)| *in_force).map(|(outcome, _)| *outcome)
    }

    /// The word of a key, also of one that is no longer in force.
    pub fn word(&self, key: OutcomeKey) -> Option<&str> {
        match BUILT_IN.get(usize::from(key.0)) {
            Some((word, _)) => Some(word),
            None => self.custom.iter().find(|(_, (outcome, _))| outcome.key == key).map(|(word, _)| word.as_str()),
        }
    }

    /// All outcome types in force: built-in ones by key, then custom ones by word.
    pub fn iter(&self) -> impl Iterator<Item = (&str, OutcomeType)> {
        let built_in = BUILT_IN.iter().enumerate().map(|(index, (word, sentiment))| {
            (*word, OutcomeType { key: OutcomeKey(index as u16), sentiment: *sentiment })
        });
        let custom = self.custom.iter().filter(|(_, (_, in_force))| *in_force);
        built_in.chain(custom.map(|(word, (outcome, _))| (word.as_str(), *outcome)))
    }

    /// How many custom words have ever been given a key.
    pub(crate) fn custom_count(&self) -> usize {
        self.custom.len()
    }

    /// Whether `word` would need a new key.
    pub(crate) fn is_new(&self, word: &str) -> bool {
        !self.custom.contains_key(word)
    }

    /// Puts exactly `authored` in force beside the built-in ones.
    pub(crate) fn set(&mut self, authored: &[CustomOutcome]) {
        for (_, in_force) in self.custom.values_mut() {
            *in_force = false;
        }
        for outcome in authored {
            let next = OutcomeKey((BUILT_IN.len() + self.custom.len()) as u16);
            let fresh = (OutcomeType { key: next, sentiment: outcome.sentiment }, true);
            let entry = self.custom.entry(outcome.key.clone()).or_insert(fresh);
            entry.0.sentiment = outcome.sentiment;
            entry.1 = true;
        }
    }
}
