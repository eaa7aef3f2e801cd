//! Why a call to the cluster failed, and what is known of its effect.

use proffer_engine::catalog::Refusal;

use crate::limits::RETRY_AFTER_START_MS;

/// What is known of the effect of a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect wholly.
    Applied,
    /// It took no effect and never will.
    NotApplied,
    /// Either; ask again with the same idempotency key.
    Unknown,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The catalogue refused a change.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No tenant of that name.
    #[error("tenant {0} does not exist")]
    UnknownTenant(String),
    /// No profile, decision or offer of that name.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The call contradicts itself or the catalogue; says how.
    #[error("{0}")]
    Invalid(String),
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The shard remembers as many idempotency keys as it may: none is forgotten early.
    #[error("too many idempotency keys are remembered")]
    KeysFull,
    /// Too much is waiting.
    #[error("too many calls are waiting; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When it may be worth trying again.
        retry_after_ms: u64,
    },
    /// The node (or the part of it that is needed) is not ready.
    #[error("not ready: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// When it may be worth trying again.
        retry_after_ms: u64,
    },
    /// Another node leads what the call is about, or nobody does for the moment: nothing was done.
    #[error("not led here: {reason}")]
    NotLed {
        /// What is not led.
        reason: String,
    },
    /// The deadline passed before the call was begun.
    #[error("the deadline passed before the call was begun")]
    Expired,
    /// The deadline passed, or the leader was lost, while the call was under way.
    #[error("it is not known whether the call took effect")]
    Unknown,
    /// A bulk write was not applied wholly.
    #[error("applied {applied} of {asked}: {cause}")]
    Partial {
        /// How many items are known to be applied: any, not the first ones.
        applied: usize,
        /// How many were asked for.
        asked: usize,
        /// Items that were refused, by their index in what was asked, each with its reason. The rest was not tried, or it is not
        /// known what became of it.
        refused: Vec<(usize, Error)>,
        /// Why not all were: what a retry can cure, if there is such a reason, else the first refusal.
        cause: Box<Error>,
    },
    /// The command cannot be applied: applying it panics. It did not enter the log.
    #[error("the command cannot be applied (a fault of this program, reported in its log)")]
    Poisonous,
}

impl Error {
    /// The same failure of a call whose earlier attempt may have been applied.
    pub(crate) fn in_doubt(self) -> Error {
        match self {
            Error::Partial { applied, asked, cause, refused } => {
                Error::Partial { applied, asked, cause: Box::new(cause.in_doubt()), refused }
            }
            Error::Refused(_)
            | Error::UnknownTenant(_)
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::KeyReused
            | Error::KeysFull
            | Error::Overloaded { .. }
            | Error::Unavailable { .. }
            | Error::NotLed { .. }
            | Error::Expired
            | Error::Unknown
            | Error::Poisonous => Error::Unknown,
        }
    }

    /// What is known of the effect.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Unknown => Outcome::Unknown,
            Error::Partial { applied: 0, cause, .. } => cause.outcome(),
            Error::Partial { .. } => Outcome::Unknown,
            Error::Refused(_)
            | Error::UnknownTenant(_)
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::KeyReused
            | Error::KeysFull
            | Error::Overloaded { .. }
            | Error::Unavailable { .. }
            | Error::NotLed { .. }
            | Error::Expired
            | Error::Poisonous => Outcome::NotApplied,
        }
    }

    /// Whether the same call may succeed later. One whose outcome is unknown needs its idempotency key for that.
    pub fn retryable(&self) -> bool {
        match self {
            Error::KeysFull
            | Error::Overloaded { .. }
            | Error::Unavailable { .. }
            | Error::NotLed { .. }
            | Error::Expired
            | Error::Unknown => true,
            Error::Partial { cause, .. } => cause.retryable(),
            Error::Refused(_)
            | Error::UnknownTenant(_)
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::KeyReused
            | Error::Poisonous => false,
        }
    }

    /// Milliseconds after which a retry is worth it, for `Retry-After`; `None` if it is not retryable.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Error::Overloaded { retry_after_ms } | Error::Unavailable { retry_after_ms, .. } => Some(*retry_after_ms),
            Error::Partial { cause, .. } => cause.retry_after_ms(),
            Error::KeysFull => Some(60_000),
            Error::NotLed { .. } => Some(RETRY_AFTER_START_MS),
            Error::Expired | Error::Unknown => Some(100),
            Error::Refused(_)
            | Error::UnknownTenant(_)
            | Error::NotFound(_)
            | Error::Invalid(_)
            | Error::KeyReused
            | Error::Poisonous => None,
        }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself or what is stored.
    #[error("configuration: {0}")]
    Config(String),
    /// The log or a snapshot cannot be read.
    #[error("cannot recover {what}: {reason}")]
    Recovery {
        /// Which part.
        what: String,
        /// Why.
        reason: String,
    },
    /// The cluster did not let the node in.
    #[error("cannot join: {reason}")]
    Join {
        /// Why.
        reason: String,
    },
    /// An actor did not start.
    #[error("cannot start {what}: {reason}")]
    Spawn {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
}
