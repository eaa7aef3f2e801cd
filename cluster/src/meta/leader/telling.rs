//! Totals that shards are to hear, told again until they have.

use std::collections::BTreeMap;

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::AccountState;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{EscrowMessage, Leader, Position, SoftTerms};

use super::MetaLeader;
use crate::group::Group;
use crate::limits::ESCROW_MESSAGES_MAX;
use crate::meta::command::MetaOutcome;
use crate::planted::{Bug, is};
use crate::shard::ask::{Ask, Lane, Notice};

impl MetaLeader {
    /// Sends totals to shards, and to one that they answer which of its reports are booked. What is lost on the way is asked for again by
    /// their rounds.
    pub(super) fn tell(&self, told: Vec<(ShardId, EscrowMessage)>, booked: Option<(ShardId, Vec<EscrowReport>)>) {
        let mut by_shard: BTreeMap<ShardId, Vec<EscrowMessage>> = BTreeMap::new();
        for (shard, message) in told {
            by_shard.entry(shard).or_default().push(message);
        }
        for (shard, messages) in by_shard {
            let Some(door) = self.around.shards.get(usize::from(shard.0)) else { continue };
            for messages in messages.chunks(ESCROW_MESSAGES_MAX) {
                let generation = self.state.roster().generation(Group::Shard(shard));
                let is_answered = |report: &&EscrowReport| messages.iter().any(|told| told.account == report.account);
                let booked = match &booked {
                    Some((of, reports)) if *of == shard => reports.iter().filter(is_answered).copied().collect(),
                    Some(_) | None => Vec::new(),
                };
                let notice = Notice { generation, messages: messages.to_vec(), booked };
                // The cluster's own is never refused.
                let _ = door.send(Lane::Own, Ask::Notice(notice));
            }
        }
    }

    /// Tells shards what the entry under way will give them.
    pub(super) fn tell_in_flight(&self, leader: Leader) {
        let (mut state, index) = (self.state.clone(), self.applied.index + 1);
        for (command, _) in &self.in_flight {
            if let MetaOutcome::Told(told) = state.apply(Position { leader, index }, command) {
                self.tell(told, None);
            }
        }
    }

    /// Tells again what shards have not confirmed: messages are lost, and so are answers of the log that would have sent them.
    pub(super) fn tell_again(&mut self) {
        if is(Bug::SaidOnce) {
            return;
        }
        let mut again = Vec::new();
        let mut unheard = std::mem::take(&mut self.unheard);
        unheard.retain(|id| {
            let before = again.len();
            let Some(account) = self.state.ledger().account(*id) else { return false };
            for shard in (0..self.around.shards.len()).map(|shard| ShardId(shard as u16)) {
                let Some(message) = self.state.message(*id, shard) else { continue };
                let report = account.reports().find(|(of, _)| *of == shard).map(|(_, report)| report);
                if report.is_none_or(|report| !has_heard(report, &message)) {
                    again.push((shard, message));
                }
            }
            again.len() > before && account.state() != AccountState::Closed
        });
        self.unheard.append(&mut unheard);
        self.tell(again, None);
    }
}

/// Whether a shard that reports this knows what the message says, as far as it has to.
fn has_heard(report: &EscrowReport, message: &EscrowMessage) -> bool {
    // Once a soft cap is used up, everybody has to know; before, who counts is told in answer to that.
    let counts = |soft: &SoftTerms| soft.taken_elsewhere.saturating_sub(soft.returned_elsewhere) < soft.limit;
    let knows_others = match (report.soft, message.soft) {
        (Some(heard), Some(soft)) => counts(&soft) || heard >= soft.taken_elsewhere,
        (None, _) | (_, None) => true,
    };
    report.granted_seen == message.granted && report.version == message.version && knows_others
}
