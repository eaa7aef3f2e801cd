//! The shard's side: what it reports, when it asks for more, and what it gives back.
//!
//! Nothing here is replicated or stored: all of it can be derived again from the shard's state by reporting that whole, which
//! is what a new leader does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proffer_engine::budget::escrow::{EscrowAccount, EscrowReport};
use proffer_engine::keys::{CustomerId, ShardId, TenantId};
use proffer_engine::profile::cells::{Look, ProfileId};
use proffer_engine::profile::command::{
    AccountId, EscrowMessage, Recall, Respond, ShardCommand, ShardCommandV1, ShardOp, Take, TakeAccount,
};
use proffer_engine::profile::measured::{Measured, MeasuredOp};
use proffer_engine::profile::shard::ShardState;
use proffer_engine::time::Timestamp;
use tokio::time::Instant;

use crate::limits::{ESCROW_MESSAGES_MAX, LEDGER_ROUND_MS, SOFT_SHARES};
use crate::meta::door::MetaDoor;
use crate::planted::{Bug, is};
use crate::shard::ask::Notice;

/// One shard's dealings with the ledger.
pub(crate) struct Taker {
    shard: ShardId,
    /// Written since the last report.
    touched: BTreeSet<AccountId>,
    /// Units were taken here since the last report: only then is more asked for ahead of need. A shard that gave units back
    /// to others who starve would otherwise ask for them again, for ever.
    used: BTreeSet<AccountId>,
    /// Those of them in which something may have become free.
    freed: BTreeSet<AccountId>,
    /// Changed, and not known to be booked by the ledger.
    unbooked: BTreeSet<AccountId>,
    /// Decisions looked here in vain.
    wanted: BTreeSet<AccountId>,
    /// Asked for: one question in flight per account, until what it brought is committed. What the shard reports meanwhile would not
    /// show it, and the ledger, which adds nothing while a grant is on its way, would seem to have nothing.
    asked: BTreeSet<AccountId>,
    /// The pool had nothing: not asked again until it has, or until the next round.
    empty: BTreeSet<AccountId>,
    /// Of soft accounts: the total counted here that was last reported.
    told: BTreeMap<AccountId, u64>,
    /// Others starve, or the limit was lowered: what becomes free goes back.
    recalled: BTreeMap<AccountId, EscrowMessage>,
    last_round: Instant,
}

impl Taker {
    pub(crate) fn new(shard: ShardId) -> Self {
        Taker {
            shard,
            touched: BTreeSet::new(),
            used: BTreeSet::new(),
            freed: BTreeSet::new(),
            unbooked: BTreeSet::new(),
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            empty: BTreeSet::new(),
            told: BTreeMap::new(),
            recalled: BTreeMap::new(),
            last_round: Instant::now(),
        }
    }

    /// A new leader reports everything.
    pub(crate) fn report_all(&mut self, state: &ShardState) {
        self.unbooked.extend(state.accounts().map(|(id, _)| id));
    }

    /// `command` is about to be applied: notes the accounts that it may change.
    pub(crate) fn note(&mut self, state: &ShardState, command: &ShardCommand) {
        let ShardCommand::V1(ShardCommandV1 { op, now, .. }) = command;
        match op {
            ShardOp::Take(take) => self.note_take(state, take),
            ShardOp::Respond(respond) => self.note_respond(state, respond),
            ShardOp::Measured(measured) => self.note_measured(state, measured),
            ShardOp::Enrolled(enrolled) => self.note_measured(state, &enrolled.measured),
            ShardOp::Release(release) => self.note_held(state, &release.tenant, &release.customer),
            ShardOp::PutProfile(put) => self.note_held(state, &put.tenant, &put.customer),
            ShardOp::PutRow(put) => self.note_held(state, &put.tenant, &put.customer),
            ShardOp::DeleteProfile { tenant, customer } | ShardOp::ClearOptOuts { tenant, customer } => {
                self.note_held(state, tenant, customer);
            }
            ShardOp::Tick => self.note_due(state, (*now).max(state.log_time())),
            ShardOp::Lapse(through) => self.note_due(state, (*now).max(state.log_time()).min(*through)),
            ShardOp::Escrow(messages) | ShardOp::EscrowOf { messages, .. } => {
                for message in messages {
                    self.touched.insert(message.account);
                    self.asked.remove(&message.account);
                    self.note_recall(message);
                }
            }
            ShardOp::Fence(_) | ShardOp::Level(_) => {}
        }
    }

    fn note_measured(&mut self, state: &ShardState, measured: &Measured) {
        match &measured.op {
            MeasuredOp::Take(take) => self.note_take(state, take),
            MeasuredOp::Respond(respond) => self.note_respond(state, respond),
            MeasuredOp::Event(event) => self.note_held(state, &event.tenant, &event.customer),
        }
    }

    fn note_take(&mut self, state: &ShardState, take: &Take) {
        self.note_held(state, &take.tenant, &take.customer);
        let takes = take.propositions.iter().flat_map(|proposition| &proposition.takes);
        self.used.extend(takes.chain(&take.counts).filter_map(|take| global(&take.account)));
    }

    fn note_respond(&mut self, state: &ShardState, respond: &Respond) {
        self.note_held(state, &respond.tenant, &respond.customer);
        self.used.extend(respond.counts.iter().filter_map(|take| global(&take.account)));
    }

    /// Decisions found nothing free in these accounts.
    pub(crate) fn want(&mut self, missed: &[AccountId]) {
        self.wanted.extend(missed);
    }

    /// Whether the pool of one of these accounts may have units.
    pub(crate) fn may_have(&self, accounts: &[AccountId]) -> bool {
        accounts.iter().any(|account| !self.empty.contains(account))
    }

    /// Whether no question is open.
    pub(crate) fn is_settled(&self) -> bool {
        self.asked.is_empty()
    }

    /// Reports what the ledger has to know now: units that went back, units wished for.
    pub(crate) fn send(&mut self, state: &ShardState, meta: &MetaDoor) {
        let used = std::mem::take(&mut self.used);
        let mut touched = std::mem::take(&mut self.touched);
        touched.extend(&used);
        let mut reports = Vec::new();
        for id in touched.union(&self.wanted) {
            let Some(account) = state.account(*id) else { continue };
            let mut report = account.report(*id, state.log_time());
            let is_open = !self.asked.contains(id) && !self.empty.contains(id);
            report.wish = match (is_open, self.wanted.contains(id)) {
                (true, true) => report.wish.max(1),
                (true, false) if used.contains(id) && !self.recalled.contains_key(id) => report.wish,
                (_, _) => 0,
            };
            let returns = self.recalled.contains_key(id) || account.span().until <= state.log_time();
            if touched.contains(id) {
                self.unbooked.insert(*id);
            }
            if report.wish > 0 || is_open && self.is_news(*id, account) {
                self.asked.insert(*id);
                self.told.insert(*id, account.minted());
                reports.push(report);
            } else if returns && touched.contains(id) {
                reports.push(report);
            }
        }
        meta.report(self.shard, state.generation(), reports);
    }

    /// Whether so much was counted in a soft account since the last report that others should not be left to count on without
    /// knowing of it: a share of what is left, as small as a grant would be.
    fn is_news(&self, id: AccountId, account: &EscrowAccount) -> bool {
        let Some(left) = account.left() else { return false };
        let untold = account.minted().saturating_sub(self.told.get(&id).copied().unwrap_or(0));
        untold > 0 && untold >= left / SOFT_SHARES
    }

    /// Once a round: what is not known to be booked is reported again, and empty pools are asked again for what is still
    /// wanted. `true`: a round was made.
    pub(crate) fn round(&mut self, state: &ShardState, meta: &MetaDoor, now: Instant) -> bool {
        if now < self.last_round + Duration::from_millis(LEDGER_ROUND_MS) {
            return false;
        }
        self.last_round = now;
        if is(Bug::SaidOnce) {
            return false;
        }
        self.asked.clear();
        self.empty.clear();
        self.freed.extend(self.recalled.keys());
        self.touched.clear();
        self.unbooked.extend(&self.wanted);
        let mut reports = Vec::new();
        for id in &self.unbooked {
            let Some(account) = state.account(*id) else { continue };
            let mut report = account.report(*id, state.log_time());
            if account.left().is_some() {
                self.told.insert(*id, account.minted());
            }
            if self.wanted.contains(id) {
                report.wish = report.wish.max(1);
                self.asked.insert(*id);
            } else {
                report.wish = 0;
            }
            reports.push(report);
        }
        self.unbooked.retain(|id| state.account(*id).is_some());
        self.told.retain(|id, _| state.account(*id).is_some());
        self.wanted.clear();
        meta.report(self.shard, state.generation(), reports);
        true
    }

    /// When the next round is due; `None` while there is nothing to say.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let idle = self.unbooked.is_empty()
            && self.wanted.is_empty()
            && self.asked.is_empty()
            && self.empty.is_empty()
            && self.recalled.is_empty();
        (!idle).then(|| self.last_round + Duration::from_millis(LEDGER_ROUND_MS))
    }

    /// Takes in what the ledger says; returns what of it the shard has to commit.
    pub(crate) fn hear(&mut self, look: &impl Look, notice: Notice) -> Vec<EscrowMessage> {
        let mut told = Vec::new();
        for message in notice.messages {
            let id = message.account;
            let account = look.account(id);
            // What has changed since that report was made is not booked, and the report that said so may be lost.
            let is_all = |report: &EscrowReport| {
                account.is_none_or(|account| account.report(id, report.as_of).has_nothing_beyond(report))
            };
            if notice.booked.iter().any(|report| report.account == id && is_all(report)) {
                self.unbooked.remove(&id);
            }
            let grows = account.is_none_or(|account| message.granted > account.granted_seen());
            if grows {
                self.empty.remove(&id);
                self.wanted.remove(&id);
            } else if self.asked.remove(&id) && message.soft.is_none() {
                self.empty.insert(id);
            }
            // A recall is committed when it is first heard; from then on, when something has become free. Otherwise what a shard
            // may keep would be asked for and reported for ever.
            let known = self.note_recall(&message);
            let is_new = message.recall != Recall::Nothing && known.is_none_or(|known| known.recall != message.recall);
            let news = match account {
                None => !message.closed,
                Some(account) => {
                    grows
                        || message.closed
                        || message.span.until < account.span().until
                        || account.learns_from(&message)
                        || (is_new && account.free() > 0)
                }
            };
            if news {
                told.push(message);
            }
        }
        told
    }

    /// What became free in recalled accounts goes back: the recall is committed again.
    pub(crate) fn give_back_again(&mut self, state: &ShardState) -> Option<ShardOp> {
        let freed = std::mem::take(&mut self.freed);
        let has_free = |message: &&EscrowMessage| {
            freed.contains(&message.account) && state.account(message.account).is_some_and(|held| held.free() > 0)
        };
        let again: Vec<_> = self.recalled.values().filter(has_free).take(ESCROW_MESSAGES_MAX).copied().collect();
        (!again.is_empty()).then(|| ShardOp::escrow(state.generation(), again))
    }

    /// Remembers whether the account is recalled; says what was known of that before.
    fn note_recall(&mut self, message: &EscrowMessage) -> Option<EscrowMessage> {
        if message.closed || message.recall == Recall::Nothing {
            self.recalled.remove(&message.account)
        } else {
            self.recalled.insert(message.account, *message)
        }
    }

    /// Everything due by `through` lapses.
    fn note_due(&mut self, state: &ShardState, through: Timestamp) {
        let due = state.due(through);
        self.touched.extend(&due.accounts);
        self.freed.extend(due.accounts);
        for id in due.profiles {
            self.note_held(state, &id.tenant, &id.customer);
        }
    }

    /// Whatever is done to a profile first takes out what has lapsed.
    fn note_held(&mut self, state: &ShardState, tenant: &TenantId, customer: &CustomerId) {
        let id = ProfileId { tenant: tenant.clone(), customer: customer.clone() };
        let Some(dealings) = state.profile(&id).and_then(|profile| profile.dealings.as_ref()) else { return };
        for account in dealings.reservations.iter().filter_map(|held| global(&held.account)) {
            self.touched.insert(account);
            self.freed.insert(account);
        }
    }
}

fn global(account: &TakeAccount) -> Option<AccountId> {
    match account {
        TakeAccount::Global { account, .. } => Some(*account),
        TakeAccount::Profile { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::keys::CapKey;
    use proffer_engine::profile::apply::apply;
    use proffer_engine::profile::command::{Leader, Position};
    use proffer_engine::time::Span;

    use super::*;

    const ACCOUNT: AccountId = AccountId { tenant: 1, cap: CapKey(1), ordinal: 0 };

    fn granted(total: u64) -> EscrowMessage {
        EscrowMessage {
            account: ACCOUNT,
            granted: total,
            span: Span::ALWAYS,
            unit: 1,
            cooling_ms: 0,
            recall: Recall::Nothing,
            closed: false,
            version: 0,
            soft: None,
        }
    }

    fn commit(taker: &mut Taker, state: &mut ShardState, message: EscrowMessage) {
        let leader = Leader { term: 1, replica: 1 };
        let op = ShardOp::Escrow(vec![message]);
        let command = ShardCommand::V1(ShardCommandV1 { op, now: Timestamp(1), revision: Default::default(), leader });
        taker.note(state, &command);
        apply(state, Position { leader, index: 1 }, &command);
    }

    #[test]
    fn the_ledger_is_not_asked_again_before_its_answer_is_committed() {
        let (mut taker, mut state, meta) = (Taker::new(ShardId(0)), ShardState::new(), MetaDoor::default());
        commit(&mut taker, &mut state, granted(1));
        taker.want(&[ACCOUNT]);
        taker.send(&state, &meta);
        assert!(!taker.is_settled());
        let told = taker.hear(&state, Notice { messages: vec![granted(2)], ..Notice::default() });
        assert_eq!(told, [granted(2)]);
        taker.want(&[ACCOUNT]);
        taker.send(&state, &meta);
        // An answer to what was said before the grant: it brings nothing, and says nothing of the pool.
        commit(&mut taker, &mut state, granted(2));
        assert!(taker.hear(&state, Notice { messages: vec![granted(2)], ..Notice::default() }).is_empty());
        assert!(taker.may_have(&[ACCOUNT]), "the pool is not taken for empty");
    }

    #[test]
    fn what_changed_after_a_report_is_not_booked_by_its_answer() {
        let (mut taker, mut state, meta) = (Taker::new(ShardId(0)), ShardState::new(), MetaDoor::default());
        commit(&mut taker, &mut state, granted(3));
        taker.send(&state, &meta);
        let report = |state: &ShardState| state.account(ACCOUNT).unwrap().report(ACCOUNT, state.log_time());
        let before = report(&state);
        // All goes back, and the report that says so is lost; the answer to the one before is not.
        commit(&mut taker, &mut state, EscrowMessage { recall: Recall::All, ..granted(3) });
        taker.send(&state, &meta);
        assert_eq!(report(&state).returned, 3);
        let answers = |booked| Notice { messages: vec![granted(3)], booked: vec![booked], ..Notice::default() };
        taker.hear(&state, answers(before));
        assert!(taker.unbooked.contains(&ACCOUNT), "it is reported again");
        taker.hear(&state, answers(report(&state)));
        assert!(!taker.unbooked.contains(&ACCOUNT), "once is enough");
    }

    #[test]
    fn a_pool_that_answers_with_nothing_is_left_alone() {
        let (mut taker, mut state, meta) = (Taker::new(ShardId(0)), ShardState::new(), MetaDoor::default());
        commit(&mut taker, &mut state, granted(1));
        taker.want(&[ACCOUNT]);
        taker.send(&state, &meta);
        taker.hear(&state, Notice { messages: vec![granted(1)], ..Notice::default() });
        assert!(!taker.may_have(&[ACCOUNT]));
        taker.hear(&state, Notice { messages: vec![granted(2)], ..Notice::default() });
        assert!(taker.may_have(&[ACCOUNT]), "until units are announced");
    }
}
