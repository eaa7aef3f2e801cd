//! What the meta leader does about the roster: admits nodes, books what groups report, does what operators want, and lets the planner
//! go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::calls::Operation;
use crate::error::Error;
use crate::group::Group;
use crate::limits::PLANNER_ROUND_MS;
use crate::meta::ask::{Enrolled, Reply, Verdict};
use crate::meta::command::{MetaOp, MetaOutcome};
use crate::meta::door::Room;
use crate::meta::hearing::{Hearing, Silences};
use crate::meta::planner;
use crate::meta::roster::{Configured, GroupRecord, NodeInfo, NodeStanding, Recover, Roster};

/// What the keeper needs of its node.
#[derive(Clone)]
pub(crate) struct Whereabouts {
    /// What this node says of itself.
    pub(crate) info: NodeInfo,
    /// Who has been heard.
    pub(crate) hearing: Arc<Hearing>,
    /// The roster as it is applied here, whoever leads.
    pub(crate) roster: watch::Sender<Arc<Roster>>,
    /// Index of the entry that the published one stands at.
    pub(crate) published: Arc<AtomicU64>,
}

impl Whereabouts {
    /// Of a node that says this.
    pub(crate) fn of(info: NodeInfo) -> Self {
        Whereabouts {
            info,
            hearing: Arc::default(),
            roster: watch::Sender::new(Arc::default()),
            published: Arc::default(),
        }
    }
}

/// Who waits for a command about the roster.
pub(super) enum Errand {
    Enroll(Reply<Verdict<Enrolled>>, Room),
    Operate { words: String, reply: Reply<Verdict<String>>, room: Room },
    Own,
}

/// Something asked, that is not proposed yet.
enum Asked {
    Enroll(MetaOp, Reply<Verdict<Enrolled>>, Room),
    Report(Configured, Room),
    Own(MetaOp, Room),
    Operate(Operation, Reply<Verdict<String>>, Room),
    Recover(Recover, Reply<Verdict<String>>, Room),
}

/// The meta leader's part that sees to the roster.
pub(super) struct Keeper {
    around: Whereabouts,
    asked: VecDeque<Asked>,
    silences: Silences,
    next_round: Instant,
    /// The roster that the planner has nothing to add to, and who was silent then.
    settled: Option<(Arc<Roster>, std::collections::BTreeSet<u64>)>,
    /// This start was refused: it is not said again.
    is_barred: bool,
}

impl Keeper {
    pub(super) fn new(around: Whereabouts, roster: &Arc<Roster>, applied: u64) -> Self {
        let keeper = Keeper {
            around,
            asked: VecDeque::new(),
            silences: Silences::default(),
            next_round: Instant::now(),
            settled: None,
            is_barred: false,
        };
        keeper.publish(roster, applied);
        keeper
    }

    /// Tells the node what is applied, if that is another roster than before. Where it stands in the log never goes back: an actor that
    /// recovers begins with an older one.
    pub(super) fn publish(&self, roster: &Arc<Roster>, applied: u64) {
        if self.around.published.fetch_max(applied, Ordering::SeqCst) > applied {
            return;
        }
        self.around.roster.send_if_modified(|known| {
            let is_news = !Arc::ptr_eq(known, roster);
            if is_news {
                *known = Arc::clone(roster);
            }
            is_news
        });
    }

    /// This replica leads from now on: who is silent is found out anew.
    pub(super) fn lead(&mut self) {
        self.silences = Silences::default();
        self.settled = None;
    }

    /// A node says what it is, or what it holds no more.
    pub(super) fn enroll(&mut self, op: MetaOp, reply: Reply<Verdict<Enrolled>>, room: Room) {
        self.asked.push_back(Asked::Enroll(op, reply, room));
    }

    /// A node says what it can. It is said again while the roster does not know it.
    pub(super) fn enable(&mut self, op: MetaOp, room: Room) {
        self.asked.push_back(Asked::Own(op, room));
    }

    pub(super) fn report(&mut self, report: Configured, room: Room) {
        self.asked.push_back(Asked::Report(report, room));
    }

    pub(super) fn operate(&mut self, operation: Operation, reply: Reply<Verdict<String>>, room: Room) {
        self.asked.push_back(Asked::Operate(operation, reply, room));
    }

    pub(super) fn recover(&mut self, recover: Recover, reply: Reply<Verdict<String>>, room: Room) {
        self.asked.push_back(Asked::Recover(recover, reply, room));
    }

    /// Whether something asked is not proposed yet.
    pub(super) fn has_asks(&self) -> bool {
        !self.asked.is_empty()
    }

    /// When the planner looks again though nothing has happened: a node may have fallen silent. One that is alone has nobody to miss.
    pub(super) fn next_round(&self, roster: &Roster) -> Option<Instant> {
        (roster.nodes().count() > 1 || roster.level() < roster.able_all()).then_some(self.next_round)
    }

    /// The start of this node, while the roster does not know it.
    pub(super) fn own_enrolment(&self, roster: &Roster) -> Option<MetaOp> {
        let info = &self.around.info;
        let is_known = roster.knows_start(info.disk, info.boots);
        let is_own = roster.nodes().next().is_none() || roster.node_of_disk(info.disk).is_some();
        (!self.is_barred && !is_known && is_own).then(|| MetaOp::Enroll(info.clone()))
    }

    /// The next thing asked, as commands that go into one entry; those who wait for nothing more are answered.
    pub(super) fn next_asked(&mut self, roster: &Roster) -> Option<Vec<(MetaOp, Errand)>> {
        Some(match self.asked.pop_front()? {
            Asked::Enroll(op, reply, room) => vec![(op, Errand::Enroll(reply, room))],
            Asked::Own(op, _room) => vec![(op, Errand::Own)],
            Asked::Report(report, _room) => {
                let record = roster.group(report.group);
                let is_news = record.is_some_and(|record| is_news(record, &report));
                is_news.then_some((MetaOp::Configured(report), Errand::Own)).into_iter().collect()
            }
            Asked::Recover(recover, reply, room) => match roster.check_recover(&recover) {
                Err(words) => {
                    let _ = reply.send(Ok(Err(words)));
                    Vec::new()
                }
                Ok(node) => {
                    let Recover { group, generation, .. } = &recover;
                    let words = format!("{group} begins anew on node {node}, as generation {generation}");
                    vec![(MetaOp::Recover(recover), Errand::Operate { words, reply, room })]
                }
            },
            Asked::Operate(operation, reply, room) => match self.commands_of(operation, roster) {
                Err(words) => {
                    let _ = reply.send(Ok(Err(words)));
                    Vec::new()
                }
                Ok((words, mut ops)) => {
                    let Some(last) = ops.pop() else {
                        let _ = reply.send(Ok(Ok(words)));
                        return Some(Vec::new());
                    };
                    let own = ops.into_iter().map(|op| (op, Errand::Own));
                    own.chain([(last, Errand::Operate { words, reply, room })]).collect()
                }
            },
        })
    }

    fn commands_of(&self, operation: Operation, roster: &Roster) -> Result<(String, Vec<MetaOp>), String> {
        let gone = self.silences.gone();
        let stand = |node, standing| match roster.node(node) {
            Some(record) if record.standing != standing => vec![MetaOp::SetStanding { node, standing }],
            Some(_) | None => Vec::new(),
        };
        match operation {
            Operation::Drain { node } => {
                let words = planner::check_drain(roster, node, &gone)?;
                Ok((words, stand(node, NodeStanding::Draining)))
            }
            Operation::Undrain { node } => {
                let record = roster.node(node).ok_or_else(|| format!("there is no node {node}"))?;
                if record.standing == NodeStanding::Removing {
                    return Err(format!("node {node} is being removed"));
                }
                Ok((format!("node {node} is up"), stand(node, NodeStanding::Up)))
            }
            Operation::Remove { node, reduce_redundancy } => {
                let words = planner::check_removal(roster, node, &gone, reduce_redundancy)?;
                Ok((words, stand(node, NodeStanding::Removing)))
            }
            Operation::Transfer { group, node } => {
                planner::check_transfer(roster, group, node, &gone)?;
                let record = roster.group(group).ok_or_else(|| format!("there is no {group}"))?;
                let transfer = led_by(roster, group, record, Some(node), true);
                Ok((format!("node {node} is to lead {group}"), vec![transfer]))
            }
            Operation::Rebalance => {
                let pinned = roster.groups().filter(|(_, record)| record.pinned);
                let free = |(group, record): (Group, &GroupRecord)| led_by(roster, group, record, record.leader, false);
                let ops: Vec<MetaOp> = pinned.map(free).collect();
                Ok((planner::outlook(roster, &self.silences.silent(&self.around.hearing)), ops))
            }
        }
    }

    /// What the planner wants next, if it is time.
    pub(super) fn plan(&mut self, roster: &Arc<Roster>, now: Instant) -> Vec<MetaOp> {
        if now < self.next_round {
            return Vec::new();
        }
        self.next_round = now + Duration::from_millis(PLANNER_ROUND_MS);
        let own = roster.node_of_disk(self.around.info.disk);
        let others = roster.nodes().map(|(node, _)| node).filter(|node| Some(*node) != own);
        self.silences.look(&self.around.hearing, others, now);
        let silent = self.silences.silent(&self.around.hearing);
        let is_settled =
            self.settled.as_ref().is_some_and(|(known, before)| Arc::ptr_eq(known, roster) && *before == silent);
        if is_settled {
            return Vec::new();
        }
        let ops = planner::next(roster, &silent);
        if ops.is_empty() {
            self.settled = Some((Arc::clone(roster), silent));
        }
        ops
    }

    /// What became of a command.
    pub(super) fn settle(&mut self, errand: Errand, outcome: MetaOutcome) {
        match (errand, outcome) {
            (Errand::Enroll(reply, _room), MetaOutcome::Enrolled { node, replica }) => {
                let _ = reply.send(Ok(Ok(Enrolled { node, replica })));
            }
            (Errand::Enroll(reply, _room), MetaOutcome::Barred(words)) => {
                let _ = reply.send(Ok(Err(words)));
            }
            (Errand::Operate { words, reply, room: _room }, MetaOutcome::Told(_)) => {
                let _ = reply.send(Ok(Ok(words)));
            }
            (Errand::Operate { reply, room: _room, .. }, MetaOutcome::Barred(words)) => {
                let _ = reply.send(Ok(Err(words)));
            }
            (Errand::Own, MetaOutcome::Barred(words)) => tracing::debug!(words, "a change of the roster was refused"),
            (Errand::Own, MetaOutcome::Told(_) | MetaOutcome::Enrolled { .. }) => {}
            (errand, _) => errand.fail(&Error::Unknown),
        }
    }

    /// The start of this node was refused.
    pub(super) fn barred(&mut self, words: &str) {
        tracing::error!(words, "the cluster does not know this start of the node");
        self.is_barred = true;
    }

    /// Another leads: what was asked here is not done.
    pub(super) fn hand_back(&mut self, error: &Error) {
        for asked in self.asked.drain(..) {
            match asked {
                Asked::Enroll(_, reply, room) => Errand::Enroll(reply, room).fail(error),
                Asked::Recover(_, reply, room) | Asked::Operate(_, reply, room) => {
                    Errand::Operate { words: String::new(), reply, room }.fail(error)
                }
                // Whoever leads the group says it again.
                Asked::Report(..) | Asked::Own(..) => {}
            }
        }
    }
}

impl Errand {
    /// It is not done, or not known to be.
    pub(super) fn fail(self, error: &Error) {
        match self {
            Errand::Enroll(reply, _room) => drop(reply.send(Err(error.clone()))),
            Errand::Operate { reply, .. } => drop(reply.send(Err(error.clone()))),
            Errand::Own => {}
        }
    }
}

fn is_news(record: &GroupRecord, report: &Configured) -> bool {
    record.at < Some(report.at) || record.heard < report.targets
}

/// The same members, led by another.
fn led_by(roster: &Roster, group: Group, record: &GroupRecord, leader: Option<u64>, pinned: bool) -> MetaOp {
    let (voters, learners) = (roster.nodes_of(&record.meant().voters), roster.nodes_of(&record.meant().learners));
    MetaOp::Retarget { group, voters, learners, leader, pinned }
}
