//! The shard's side of a global account: the units it was granted and may spend without asking anyone.

use std::collections::VecDeque;

use bincode::{Decode, Encode};

use crate::budget::ledger::Totals;
use crate::limits::COOLING_BUCKETS;
use crate::profile::command::{AccountId, EscrowMessage, Recall, SoftTerms};
use crate::time::{SECOND_MS, Span, Timestamp};

/// Units of one account held by one shard. Invariant: `returned + reserved + spent + cooling ≤ granted_seen + minted`; the rest
/// is free. `granted_seen`, `minted` and `returned` only grow.
///
/// A soft account holds nothing free: what is counted in it is minted as it is spent, while the shard knows of something
/// left, and the ledger hears of it afterwards.
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
    /// Total that was counted without a unit in hand.
    minted: u64,
    /// See [`EscrowMessage::version`].
    version: u32,
    soft: Option<SoftTerms>,
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
    /// Total that it ever counted without a unit in hand.
    pub minted: u64,
    /// Newest terms it has heard of.
    pub version: u32,
    /// What it has heard that other shards took, while it may count without a unit in hand; `None`: it no longer does.
    pub soft: Option<u64>,
    /// Log time of the shard when it said so.
    pub as_of: Timestamp,
}

impl EscrowReport {
    /// Whether a ledger that has booked `booked` learns nothing from this one, which was made at the same log time: when it was made and what is
    /// wished for aside, and what others took.
    pub fn has_nothing_beyond(&self, booked: &EscrowReport) -> bool {
        let of = |report: &EscrowReport| {
            let EscrowReport { granted_seen, returned, free, reserved, spent, minted, version, .. } = *report;
            (granted_seen, returned, free, reserved, spent, minted, version, report.soft.is_some())
        };
        self.account == booked.account && of(self) == of(booked)
    }
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
            minted: 0,
            version: message.version,
            soft: message.soft,
        };
        account.receive(message, now);
        account
    }

    /// What a new generation of a shard begins with, whose earlier one was lost in part. What is lost may have spent all that it was
    /// granted and the ledger does not know to have come back: all of that counts as spent, at `spent_by` at the latest. `known` is what is
    /// left of the account: of what it says, only what was counted beyond units in hand is believed, for that takes nothing from anybody.
    pub fn inherit(message: &EscrowMessage, given: Totals, known: Option<&EscrowAccount>, spent_by: Timestamp) -> Self {
        let Totals { granted, returned, minted } = given;
        let mut account =
            EscrowAccount::open(&EscrowMessage { granted: 0, recall: Recall::Nothing, ..*message }, spent_by);
        if let Some(known) = known {
            account.span.until = account.span.until.min(known.span.until);
        }
        account.minted = minted.max(known.map_or(0, |known| known.minted));
        // As much as may be out is held, and then spent as any unit is: a rolling cap's cools.
        account.granted_seen = granted;
        account.returned = returned;
        account.reserved = account.free();
        account.confirm(account.reserved, spent_by);
        account.recent = (Timestamp(i64::MIN), 0, 0);
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
        if message.version > self.version {
            self.version = message.version;
            self.unit = message.unit.max(1);
            self.soft = message.soft;
        } else if message.version == self.version
            && let (Some(known), Some(told)) = (&mut self.soft, message.soft)
        {
            known.taken_elsewhere = known.taken_elsewhere.max(told.taken_elsewhere);
            known.returned_elsewhere = known.returned_elsewhere.max(told.returned_elsewhere);
        }
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
        self.granted_seen + self.minted - self.returned - self.reserved - self.spent - self.cooling_units()
    }

    /// Of a soft account: what the shard knows to be left of the limit. `None` for a strict one, where [`EscrowAccount::free`]
    /// is what may be taken.
    pub fn left(&self) -> Option<u64> {
        let soft = self.soft?;
        let here = self.granted_seen + self.minted - self.returned;
        let elsewhere = soft.taken_elsewhere.saturating_sub(soft.returned_elsewhere);
        Some(soft.limit.saturating_sub(here.saturating_add(elsewhere)))
    }

    /// Total that was ever counted without a unit in hand.
    pub fn minted(&self) -> u64 {
        self.minted
    }

    /// Price of one action.
    pub fn unit(&self) -> u64 {
        self.unit
    }

    /// Whether the message's terms, or what it says of other shards, are news.
    pub fn learns_from(&self, message: &EscrowMessage) -> bool {
        let ahead = |known: SoftTerms, told: SoftTerms| {
            told.taken_elsewhere > known.taken_elsewhere || told.returned_elsewhere > known.returned_elsewhere
        };
        message.version > self.version
            || message.version == self.version
                && self.soft.zip(message.soft).is_some_and(|(known, told)| ahead(known, told))
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
        self.free() == 0 && self.reserved == 0 && self.cooling.is_empty() && self.soft.is_none()
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
    /// free (of a soft account: not known to be left).
    pub fn spend(&mut self, amount: u64, now: Timestamp) -> bool {
        if self.span.contains(now) && self.left().is_some_and(|left| amount <= left) {
            self.minted += amount.saturating_sub(self.free());
        }
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
    /// smaller than one action costs, and all that a soft account has no use for. After its period nothing is minted.
    pub fn settle(&mut self, now: Timestamp) {
        while self.cooling.front().is_some_and(|(due, _)| *due <= now) {
            self.cooling.pop_front();
        }
        if now >= self.span.until {
            self.soft = None;
        }
        if now >= self.span.until || self.soft.is_some() || self.free() < self.unit {
            self.give_back(self.free());
        }
    }

    /// When [`EscrowAccount::settle`] has something to do.
    pub fn due(&self) -> Option<Timestamp> {
        let moves = self.free() > 0 || self.soft.is_some();
        let end = (moves && self.span.until < Timestamp::FOREVER).then_some(self.span.until);
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
            minted: self.minted,
            version: self.version,
            soft: self.soft.map(|soft| soft.taken_elsewhere),
            as_of: now,
        }
    }

    /// Units to ask for: none while more than half of the last grant is free, and none of a soft account.
    pub fn wish(&self, now: Timestamp) -> u64 {
        if self.soft.is_some() || now >= self.span.until || self.free() > self.last_grant / 2 {
            return 0;
        }
        self.last_grant.saturating_sub(self.free()).max(self.unit)
    }

    /// Whether the parts fit into the whole: of bytes from outside, nothing is taken for granted.
    pub(crate) fn is_sound(&self) -> bool {
        let parts = [self.returned, self.reserved, self.spent].into_iter();
        let used = parts.chain(self.cooling.iter().map(|(_, units)| *units)).map(u128::from);
        let whole = self.granted_seen.checked_add(self.minted);
        whole.is_some_and(|whole| used.sum::<u128>() <= u128::from(whole)) && self.unit > 0 && self.cooling_ms >= 0
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
