//! Keyed calls that have been answered: each counts once, and is answered again the same.

use std::sync::Arc;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::profile::command::{DecisionId, FirstAnswer};
use crate::time::Timestamp;

/// A keyed call that has been answered.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Keyed {
    /// Hash of the key.
    pub key: u128,
    /// Hash of the body.
    pub body: u64,
    /// When it is forgotten.
    pub until: Timestamp,
    /// The first answer.
    pub answer: KeyedAnswer,
}

/// What is answered again.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum KeyedAnswer {
    /// Of a `respond`.
    Responded {
        /// See domain.md §5.
        late: bool,
        /// See domain.md §5.
        repeat: bool,
        /// See domain.md §5.
        over_cap: bool,
    },
    /// Of a decision that took something.
    Took {
        /// Which decision.
        decision: DecisionId,
        /// When.
        at: Timestamp,
        /// What it said: shared, because every change of a profile begins with a copy of it.
        answer: Arc<FirstAnswer>,
    },
    /// Of an event: there is nothing to say of it.
    Noted,
}

impl Keyed {
    /// Bytes it counts for: no fewer than it takes in memory, or than reading it claims.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match &self.answer {
            KeyedAnswer::Responded { .. } | KeyedAnswer::Noted => size_of::<Keyed>(),
            KeyedAnswer::Took { answer, .. } => size_of::<Keyed>() + answer.bytes(),
        };
        bytes as u64
    }
}

/// The keyed calls of a profile, in the order they were answered. Their bytes are counted as they come and go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyedCalls {
    calls: Vec<Keyed>,
    bytes: u64,
}

impl KeyedCalls {
    /// Remembers one more.
    pub(crate) fn push(&mut self, keyed: Keyed) {
        self.bytes += keyed.bytes();
        self.calls.push(keyed);
    }

    /// Forgets those whose time is over.
    pub(crate) fn lapse(&mut self, now: Timestamp) {
        let bytes = &mut self.bytes;
        self.calls.retain(|keyed| {
            let stays = now < keyed.until;
            if !stays {
                *bytes -= keyed.bytes();
            }
            stays
        });
    }

    /// Those of outcomes and events.
    pub(crate) fn of_outcomes(self) -> Self {
        let is_outcome = |keyed: &Keyed| match keyed.answer {
            KeyedAnswer::Responded { .. } | KeyedAnswer::Noted => true,
            KeyedAnswer::Took { .. } => false,
        };
        let calls: Vec<Keyed> = self.calls.into_iter().filter(is_outcome).collect();
        let bytes = calls.iter().map(Keyed::bytes).sum();
        KeyedCalls { calls, bytes }
    }

    /// Bytes they count for. O(1).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.calls.shrink_to_fit();
    }
}

impl std::ops::Deref for KeyedCalls {
    type Target = [Keyed];

    fn deref(&self) -> &[Keyed] {
        &self.calls
    }
}

impl Encode for KeyedCalls {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.calls.encode(encoder)
    }
}

impl<C> Decode<C> for KeyedCalls {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let calls = Vec::<Keyed>::decode(decoder)?;
        let bytes = calls.iter().map(Keyed::bytes).sum();
        Ok(KeyedCalls { calls, bytes })
    }
}
bincode::impl_borrow_decode!(KeyedCalls);
