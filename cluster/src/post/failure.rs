//! Errors as they travel between nodes: as deep as they get here, and no deeper, whatever a peer sends.

use bincode::{Decode, Encode};
use proffer_engine::catalog::Refusal;

use crate::error::Error;

/// An [`Error`] of another node.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Failure {
    /// Of one thing.
    Plain(Plain),
    /// See [`Error::Partial`].
    Partial { applied: u64, asked: u64, refused: Vec<(u64, Plain)>, cause: Plain },
}

/// Every other [`Error`].
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Plain {
    Refused(Refusal),
    UnknownTenant(String),
    NotFound(String),
    Invalid(String),
    KeyReused,
    KeysFull,
    Overloaded { retry_after_ms: u64 },
    Unavailable { reason: String, retry_after_ms: u64 },
    NotLed { reason: String },
    Expired,
    Unknown,
    Poisonous,
}

impl From<&Error> for Plain {
    fn from(error: &Error) -> Self {
        match error {
            Error::Refused(refusal) => Plain::Refused(refusal.clone()),
            Error::UnknownTenant(name) => Plain::UnknownTenant(name.clone()),
            Error::NotFound(what) => Plain::NotFound(what.clone()),
            Error::Invalid(reason) => Plain::Invalid(reason.clone()),
            Error::KeyReused => Plain::KeyReused,
            Error::KeysFull => Plain::KeysFull,
            Error::Overloaded { retry_after_ms } => Plain::Overloaded { retry_after_ms: *retry_after_ms },
            Error::Unavailable { reason, retry_after_ms } => {
                Plain::Unavailable { reason: reason.clone(), retry_after_ms: *retry_after_ms }
            }
            Error::NotLed { reason } => Plain::NotLed { reason: reason.clone() },
            Error::Expired => Plain::Expired,
            // A partial failure within a partial failure says no more than that.
            Error::Unknown | Error::Partial { .. } => Plain::Unknown,
            Error::Poisonous => Plain::Poisonous,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let Error::Partial { applied, asked, refused, cause } = error else { return Failure::Plain(error.into()) };
        let refused = refused.iter().map(|(index, error)| (*index as u64, error.into())).collect();
        Failure::Partial { applied: *applied as u64, asked: *asked as u64, refused, cause: (&**cause).into() }
    }
}

impl From<Plain> for Error {
    fn from(plain: Plain) -> Self {
        match plain {
            Plain::Refused(refusal) => Error::Refused(refusal),
            Plain::UnknownTenant(name) => Error::UnknownTenant(name),
            Plain::NotFound(what) => Error::NotFound(what),
            Plain::Invalid(reason) => Error::Invalid(reason),
            Plain::KeyReused => Error::KeyReused,
            Plain::KeysFull => Error::KeysFull,
            Plain::Overloaded { retry_after_ms } => Error::Overloaded { retry_after_ms },
            Plain::Unavailable { reason, retry_after_ms } => Error::Unavailable { reason, retry_after_ms },
            Plain::NotLed { reason } => Error::NotLed { reason },
            Plain::Expired => Error::Expired,
            Plain::Unknown => Error::Unknown,
            Plain::Poisonous => Error::Poisonous,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Plain(plain) => plain.into(),
            Failure::Partial { applied, asked, refused, cause } => {
                let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
                let refused = refused.into_iter().map(|(index, plain)| (count(index), plain.into())).collect();
                let cause = Box::new(cause.into());
                Error::Partial { applied: count(applied), asked: count(asked), refused, cause }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_the_same_on_the_other_side() {
        let errors = [
            Error::Refused(Refusal::NotFound("offer x".to_owned())),
            Error::KeyReused,
            Error::Overloaded { retry_after_ms: 7 },
            Error::NotLed { reason: "shard".to_owned() },
            Error::Unknown,
            Error::Partial {
                applied: 3,
                asked: 5,
                refused: vec![(4, Error::Invalid("why".to_owned()))],
                cause: Box::new(Error::Expired),
            },
        ];
        for error in errors {
            assert_eq!(Error::from(Failure::from(&error)), error);
        }
    }
}
