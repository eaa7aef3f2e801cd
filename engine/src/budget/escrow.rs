//! The shard's side of a global account: the units it was granted and may spend without asking anyone.

use std::collections::VecDeque;

use bincode::{Decode, Encode};

use crate::limits::COOLING_BUCKETS;
use crate::profile::command::{AccountId, EscrowMessage, Recall};
use crate::time::{SECOND_MS, Span, Timestamp};

/// Units of one account held by one shard. Invariant: `returned + reserved + spent + cooling ≤ granted_seen`; the rest is
/// free. `granted_seen` and `returned` only grow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EscrowAccount {
    span: Span,
    unit: u64,
    cooling_ms: i64,
    granted_seen: u64,
    returned: u64,
    reserved: u64,
    spent: u64,
    /// Spent units of a rolling cap by the instant they are free again, earliest first.
    cooling: VecDeque<(Timestamp, u64)>,
    /// Size of the last grant: the shard asks for more when half of it is used.
    last_grant: u64,
    /// Units used in the second that starts at the instant, and in the one before it.
    recent: (Timestamp, u64, u64),
}

/// What a shard tells the ledger of an account. Totals only: it may be lost, doubled or overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EscrowReport {
    /// Which account.
    pub account: AccountId,
    /// Largest total of grants received.
    pub granted_seen: u64,
    /// Total ever given back.
    pub returned: u64,
    /// May be taken.
    pub free: u64,
    /// Held for propositions not yet counted.
    pub reserved: u64,
    /// Counted, those of a rolling window that are not yet free again included.
    pub spent: u64,
    /// Units the shard would like, 0 for none.
    pub wish: u64,
}

impl EscrowAccount {
    /// An account as the first message about it describes it.
    pub fn open(message: &EscrowMessage, now: Timestamp) -> Self {
        let mut account = EscrowAccount {
            span: message.span,
            unit: message.unit.max(1),
            cooling_ms: message.cooling_ms.max(0),
            granted_seen: 0,
            returned: 0,
            reserved: 0,
            spent: 0,
            cooling: VecDeque::new(),
            last_grant: 0,
            recent: (Timestamp(i64::MIN), 0, 0),
        };
        account.receive(message, now);
        account
    }

    /// Takes in the ledger's totals: the larger one holds, so an old or doubled message changes nothing. An earlier end
    /// (archived, deleted) holds against a later one.
    pub fn receive(&mut self, message: &EscrowMessage, now: Timestamp) {
        if message.granted > self.granted_seen {
            self.last_grant = message.granted - self.granted_seen;
            self.granted_seen = message.granted;
        }
        self.span.until = self.span.until.min(message.span.until);
        self.unit = message.unit.max(1);
        self.settle(now);
        match message.recall {
            Recall::Nothing => {}
            Recall::Spare => self.give_back(self.free().saturating_sub(self.used_last_second(now))),
            Recall::All => self.give_back(self.free()),
        }
    }

    /// Period of the account.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Units that may be taken, the account's period permitting.
    pub fn free(&self) -> u64 {
        self.granted_seen - self.returned - self.reserved - self.spent - self.cooling_units()
    }

    /// Units held by reservations.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Confirmed units, cooling ones included.
    pub fn spent(&self) -> u64 {
        self.spent + self.cooling_units()
    }

    /// Total ever given back to the ledger.
    pub fn returned(&self) -> u64 {
        self.returned
    }

    /// Largest total of grants received.
    pub fn granted_seen(&self) -> u64 {
        self.granted_seen
    }

    /// Whether nothing is left that could still move.
    pub fn is_settled(&self) -> bool {
        self.free() == 0 && self.reserved == 0 && self.cooling.is_empty()
    }

    /// Holds `amount`; `false`, and nothing changed, if the period is not on or so many are not free.
    pub fn reserve(&mut self, amount: u64, now: Timestamp) -> bool {
        let can = self.span.contains(now) && amount <= self.free();
        if can {
            self.reserved += amount;
        }
        can
    }

    /// Spends `amount` that no reservation holds; `false`, and nothing changed, if the period is not on or so many are not
    /// free.
    pub fn spend(&mut self, amount: u64, now: Timestamp) -> bool {
        let can = self.reserve(amount, now);
        if can {
            self.confirm(amount, now);
        }
        can
    }

    /// Turns held units into spent ones: in this account, also after its period.
    pub fn confirm(&mut self, amount: u64, now: Timestamp) {
        let amount = amount.min(self.reserved);
        self.reserved -= amount;
        self.note_use(amount, now);
        if self.cooling_ms == 0 {
            self.spent += amount;
            return;
        }
        let width = self.cooling_ms.div_euclid(COOLING_BUCKETS).max(1);
        let free_at = now.plus_ms(self.cooling_ms).plus_ms(width - 1);
        let due = Timestamp(free_at.0.div_euclid(width).saturating_mul(width));
        match self.cooling.back_mut() {
            Some((last, units)) if *last >= due => *units += amount,
            Some(_) | None => self.cooling.push_back((due, amount)),
        }
    }

    /// Lets held units go.
    pub fn release(&mut self, amount: u64, now: Timestamp) {
        self.reserved -= amount.min(self.reserved);
        self.settle(now);
    }

    /// What time does: cooled units are free again, free units return after the period, and so does a rest that is
    /// smaller than one action costs.
    pub fn settle(&mut self, now: Timestamp) {
        while self.cooling.front().is_some_and(|(due, _)| *due <= now) {
            self.cooling.pop_front();
        }
        if now >= self.span.until || self.free() < self.unit {
            self.give_back(self.free());
        }
    }

    /// When [`EscrowAccount::settle`] has something to do.
    pub fn due(&self) -> Option<Timestamp> {
        let end = (self.free() > 0 && self.span.until < Timestamp::FOREVER).then_some(self.span.until);
        let cooled = self.cooling.front().map(|(due, _)| *due);
        end.into_iter().chain(cooled).min()
    }

    /// The report to the ledger.
    pub fn report(&self, account: AccountId, now: Timestamp) -> EscrowReport {
        EscrowReport {
            account,
            granted_seen: self.granted_seen,
            returned: self.returned,
            free: self.free(),
            reserved: self.reserved,
            spent: self.spent(),
            wish: self.wish(now),
        }
    }

    /// Units to ask for: none while more than half of the last grant is free.
    pub fn wish(&self, now: Timestamp) -> u64 {
        if now >= self.span.until || self.free() > self.last_grant / 2 {
            return 0;
        }
        self.last_grant.saturating_sub(self.free()).max(self.unit)
    }

    /// Whether the parts fit into the whole: of bytes from outside, nothing is taken for granted.
    pub(crate) fn is_sound(&self) -> bool {
        let parts = [self.returned, self.reserved, self.spent].into_iter();
        let used = parts.chain(self.cooling.iter().map(|(_, units)| *units)).map(u128::from);
        used.sum::<u128>() <= u128::from(self.granted_seen) && self.unit > 0 && self.cooling_ms >= 0
    }

    fn cooling_units(&self) -> u64 {
        self.cooling.iter().map(|(_, units)| units).sum()
    }

    fn give_back(&mut self, amount: u64) {
        self.returned += amount;
    }

    fn note_use(&mut self, amount: u64, now: Timestamp) {
        let second = Timestamp(now.0.div_euclid(SECOND_MS).saturating_mul(SECOND_MS));
        let (start, used, _) = self.recent;
        self.recent = match second.since_ms(start) {
            0 => (start, used.saturating_add(amount), self.recent.2),
            SECOND_MS => (second, amount, used),
            _ => (second, amount, 0),
        };
    }

    fn used_last_second(&self, now: Timestamp) -> u64 {
        let (start, used, before) = self.recent;
        match now.since_ms(start) {
            0..SECOND_MS => used.saturating_add(before),
            age if age < 2 * SECOND_MS => used,
            _ => 0,
        }
    }
}
