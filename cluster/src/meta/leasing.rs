//! The meta leader's part in catalogue leases (docs/adr/0013): who asks is granted one after a round that confirms the leader, and
//! whoever waits for a fence or a revision is told when nobody can decide without it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Error;
use crate::group::Group;
use crate::lease::{Clocks, Grant, Granter, Renew};
use crate::limits::{CLOCK_WARNING_MS, LEASE_LOOK_MS, LEASE_MS};
use crate::meta::ask::{LeaseAsk, Reply};
use crate::meta::door::Room;
use crate::meta::roster::Roster;
use crate::meta::state::MetaState;
use crate::ports::clock::Clock;

/// Who asked, with where the answer goes; of each node the newest.
type Asked = BTreeMap<u64, (Renew, oneshot::Sender<Grant>)>;

/// What the leader has before its eyes: its state and the time.
pub(super) struct Sight<'a> {
    pub(super) state: &'a MetaState,
    pub(super) clock: &'a dyn Clock,
}

impl Sight<'_> {
    /// All nodes that were ever let in: one that was removed may hold a lease for a while.
    fn nodes(&self) -> Vec<u64> {
        let roster = self.state.roster();
        roster.nodes().map(|(node, _)| node).chain(roster.removed().map(|(node, _)| node)).collect()
    }

    /// The nodes that vote in the meta group, as far as that is known.
    fn voters(&self) -> Vec<u64> {
        let roster = self.state.roster();
        let voters = roster.group(Group::Meta).into_iter().flat_map(|group| &group.now.voters);
        voters.filter_map(|replica| roster.node_of(*replica)).collect()
    }
}

/// See the module.
pub(super) struct Leasing {
    granter: Granter,
    /// Who waits for the next round.
    asked: Asked,
    /// The round under way.
    round: Option<Asked>,
    fences: Vec<(Revision, oneshot::Sender<()>)>,
    everywhere: Vec<(Revision, Reply<()>, Room)>,
    warned_at: Option<Instant>,
}

impl Leasing {
    pub(super) fn new() -> Self {
        Leasing {
            granter: Granter::new(LEASE_MS),
            asked: Asked::new(),
            round: None,
            fences: Vec::new(),
            everywhere: Vec::new(),
            warned_at: None,
        }
    }

    /// This replica leads from now on.
    pub(super) fn lead(&mut self, now: Duration) {
        self.granter.lead(now);
    }

    /// It does not lead, and grants nothing any more: nor to those of the round under way.
    pub(super) fn stop(&mut self) {
        self.granter.stop();
        self.asked.clear();
        if let Some(round) = &mut self.round {
            round.clear();
        }
        for (_, reply, _) in self.everywhere.drain(..) {
            let _ = reply.send(Err(Error::NotLed { reason: "the catalogue".to_owned() }));
        }
    }

    /// A node has something to say.
    pub(super) fn hear(&mut self, ask: LeaseAsk, roster: &Roster) {
        // The founder asks before it has enrolled itself.
        let is_known = |node| roster.node(node).is_some() || roster.nodes().next().is_none();
        match ask {
            LeaseAsk::Renew { renew, reply } if is_known(renew.report.node) => {
                self.granter.reported(renew.report);
                self.asked.insert(renew.report.node, (renew, reply));
            }
            LeaseAsk::Report(report) if is_known(report.node) => self.granter.reported(report),
            // It was removed. Without an answer it has no lease.
            LeaseAsk::Renew { .. } | LeaseAsk::Report(_) => {}
        }
    }

    /// Whether a round is to begin: for all who have asked so far. Those who ask while it is under way are for the next one.
    pub(super) fn begin_round(&mut self) -> bool {
        if self.round.is_some() || self.asked.is_empty() {
            return false;
        }
        self.round = Some(std::mem::take(&mut self.asked));
        true
    }

    /// The round has ended: whether this was the leader after it had begun; and cluster time as this node knew it, if it did. Each grant is noted before its answer goes. What the clocks of
    /// those who asked say of this node's; `None` if this was not the leader. While nobody knows what time it is, nobody is granted anything.
    pub(super) fn confirmed(&mut self, is_leader: bool, sight: &Sight<'_>, known: Option<Timestamp>) -> Option<Clocks> {
        let round = self.round.take().unwrap_or_default();
        if !is_leader {
            return None;
        }
        let (told, wall, now) =
            ((sight.state.revision(), sight.state.fence()), sight.clock.wall(), sight.clock.boottime());
        for (renew, _) in round.values() {
            self.granter.showed(renew, now);
        }
        let clocks = self.granter.clocks(wall, &sight.voters(), now);
        if let Clocks::Off(off_ms) = clocks {
            self.warn(off_ms);
        }
        let Some(wall) = cluster_time(clocks, wall, known) else { return Some(clocks) };
        for (renew, reply) in round.into_values() {
            if let Some(grant) = self.granter.grant(&renew, told, wall, now) {
                let _ = reply.send(grant);
            }
        }
        Some(clocks)
    }

    fn warn(&mut self, off_ms: i64) {
        let is_news = self.warned_at.is_none_or(|at| at.elapsed() >= Duration::from_millis(CLOCK_WARNING_MS));
        if is_news {
            self.warned_at = Some(Instant::now());
            tracing::error!(off_ms, "this node's clock is not what most others show, and it leads the catalogue");
        }
    }

    /// Tells when nobody can decide without a fence any more, which is committed. Nothing comes if this actor ends before.
    pub(super) fn fenced(&mut self, fence: Revision) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.fences.push((fence, reply));
        answer
    }

    /// Answers when every node that holds a lease has put `revision` in force.
    pub(super) fn everywhere(&mut self, revision: Revision, reply: Reply<()>, room: Room) {
        self.everywhere.push((revision, reply, room));
    }

    /// Tells those whose wait is over.
    pub(super) fn settle(&mut self, sight: &Sight<'_>) {
        if self.fences.is_empty() && self.everywhere.is_empty() {
            return;
        }
        let (granter, nodes, now) = (&self.granter, sight.nodes(), sight.clock.boottime());
        let is_fenced = |fence: &mut (Revision, _)| granter.may_decide_without(fence.0, &nodes, now).is_none();
        for (_, reply) in self.fences.extract_if(.., is_fenced) {
            let _ = reply.send(());
        }
        let is_everywhere = |waiting: &mut (Revision, Reply<()>, Room)| {
            waiting.1.is_closed() || granter.lacking(waiting.0, &nodes, now).is_empty()
        };
        for (_, reply, _room) in self.everywhere.extract_if(.., is_everywhere) {
            let _ = reply.send(Ok(()));
        }
    }

    /// When time alone may end somebody's wait.
    pub(super) fn next_timer(&self, sight: &Sight<'_>) -> Option<Instant> {
        if self.fences.is_empty() && self.everywhere.is_empty() {
            return None;
        }
        let (nodes, now) = (sight.nodes(), sight.clock.boottime());
        let lapses = self.fences.iter().filter_map(|(fence, _)| self.granter.may_decide_without(*fence, &nodes, now));
        let lapses = lapses.filter(|until| *until != Duration::MAX);
        let lapses = lapses.min().map(|until| until.saturating_sub(now));
        let look = (!self.everywhere.is_empty()).then_some(Duration::from_millis(LEASE_LOOK_MS));
        lapses.into_iter().chain(look).min().map(|wait| Instant::now() + wait)
    }
}

/// What time it is, if that is known: what most clocks show; or what was known before, for it goes on by itself. Where nobody knew and those heard
/// disagree, somebody's clock has to do.
fn cluster_time(clocks: Clocks, own: Timestamp, known: Option<Timestamp>) -> Option<Timestamp> {
    match clocks {
        Clocks::Right => Some(own),
        Clocks::Off(off_ms) => Some(own.plus_ms(-off_ms)),
        Clocks::Disagreeing => Some(known.unwrap_or(own)),
        Clocks::TooFewHeard => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_most_do_not_confirm_is_not_the_time_where_that_is_known() {
        let (own, known) = (Timestamp(20_000), Timestamp(500));
        assert_eq!(cluster_time(Clocks::Right, own, Some(known)), Some(own));
        assert_eq!(cluster_time(Clocks::Off(19_000), own, Some(known)), Some(Timestamp(1_000)));
        assert_eq!(cluster_time(Clocks::Disagreeing, own, Some(known)), Some(known));
        assert_eq!(cluster_time(Clocks::TooFewHeard, own, Some(known)), Some(known));
        assert_eq!(cluster_time(Clocks::Disagreeing, own, None), Some(own));
        assert_eq!(cluster_time(Clocks::TooFewHeard, own, None), None);
    }
}
