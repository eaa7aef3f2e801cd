//! What is wrong with an input, and where: every fault of a bad write is collected before anything is answered.

use std::fmt;

use bincode::{Decode, Encode};

/// One fault of an input: an RFC 6901 JSON pointer into it and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Fault {
    /// Where: `""` is the whole document, `/caps/0/limit` a member.
    pub pointer: String,
    /// What, as a lower-case sentence without a full stop.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

/// Collects faults while walking an input. Holds the pointer of the place being read.
#[derive(Debug, Default)]
pub struct Faults {
    path: String,
    found: Vec<Fault>,
}

/// More faults than this in one input are not listed.
pub const MAX_FAULTS: usize = 100;

impl Faults {
    /// No faults yet, at the document's root.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault at the current place.
    pub fn add(&mut self, message: impl Into<String>) {
        if self.found.len() < MAX_FAULTS {
            self.found.push(Fault { pointer: self.path.clone(), message: message.into() });
        }
    }

    /// Adds a fault at member `name` of the current place.
    pub fn add_at(&mut self, name: &str, message: impl Into<String>) {
        self.within(name, |faults| faults.add(message));
    }

    /// Runs `read` with the place moved to member (or index) `name`.
    pub fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push('/');
        for character in name.chars() {
            match character {
                '~' => self.path.push_str("~0"),
                '/' => self.path.push_str("~1"),
                other => self.path.push(other),
            }
        }
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// How many faults so far.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// Whether none was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The faults in the order found.
    pub fn into_vec(self) -> Vec<Fault> {
        self.found
    }
}
