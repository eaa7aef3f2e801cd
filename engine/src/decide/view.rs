//! What a decision sees of the world beside snapshot and request.

use bincode::{Decode, Encode};

use crate::keys::CapKey;
use crate::profile::command::AccountId;
use crate::profile::state::Profile;
use crate::profile::symbols::Symbols;
use crate::time::{CalendarFrame, Timestamp};

/// The shard's escrow as a decision sees it.
pub trait EscrowView {
    /// Account of global cap `cap` whose period contains `now`, with what may be taken here; `None` if there is none
    /// (of a strict cap nothing may be taken then).
    fn free(&self, cap: CapKey, now: Timestamp) -> Option<Free>;
}

/// What a shard may still spend of a global cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Free {
    /// Which account: a take names it.
    pub account: AccountId,
    /// Units in hand, or micro-units of money: what a strict cap may take.
    pub amount: u64,
    /// What is known to be left of a soft cap, which needs nothing in hand; `None`: the account is a strict one's.
    pub left: Option<u64>,
}

impl Free {
    /// Whether `amount` more may be taken, of a cap that is strict or not. A soft cap bars only what it knows to be used up.
    pub fn allows(&self, amount: u64, strict: bool) -> bool {
        if strict { amount <= self.amount } else { self.left.is_none_or(|left| amount <= left) }
    }
}

/// The person a decision is for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Stored state; `None` for a customer never seen.
    pub profile: Option<&'a Profile>,
    /// Names of the profile's symbols.
    pub symbols: &'a Symbols,
}

/// The instant of a decision.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instant {
    /// Log time.
    pub now: Timestamp,
    /// The tenant's calendar around it.
    pub frame: CalendarFrame,
}
