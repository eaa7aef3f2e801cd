//! Holders and granters under every schedule that the assumptions allow: messages late, twice, in any order or never, clocks of
//! different rates, leaders that change and old ones that do not know it, nodes that stop for as long as they like and start anew.
//!
//! Time here is the true one, in milliseconds; each node sees it through its own clock.

use std::sync::Arc;
use std::time::Duration;

use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;
use proptest::prelude::*;

use super::{Grant, Granter, Lease, Renew, Report};
use crate::limits::LEASE_MS;
use crate::ports::clock::ManualClock;
use crate::ports::entropy::{Entropy, SeededEntropy};

const NODES: u64 = 3;

/// What is left out, to see that it is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// The lease counts from when the answer came.
    CountedFromTheAnswer,
    /// It was not the leader any more when the question came.
    Unconfirmed,
    /// A grant is noted some time after its answer has gone.
    NotedLater,
    /// A new leader does not wait for what others granted.
    NoWindow,
    /// A holder goes by time alone.
    FenceIgnored,
    /// Exclusions are acknowledged as soon as they are committed.
    NothingAwaited,
}

struct Node {
    clock: Arc<ManualClock>,
    /// Its clock runs so many thousandths as fast as it should.
    rate: u64,
    boots: u64,
    lease: Lease,
    in_force: u64,
    granter: Granter,
    /// When it began to lead, counted in elections; `None` if it knows that it does not.
    term: Option<u64>,
    /// What it knows to be committed, while it leads.
    applied: u64,
    waiting: Vec<(Question, Renew)>,
    /// A round under way: whether it was the leader when that began, and for whom it is.
    round: Option<(bool, Vec<(Question, Renew)>)>,
    /// Exclusions that it has committed, each with when.
    pending: Vec<(u64, Duration)>,
    /// Grants whose answers are gone and which are not noted: of [`Flaw::NotedLater`].
    unnoted: Vec<(Renew, u64)>,
}

#[derive(Clone, Copy)]
struct Question {
    node: usize,
    boots: u64,
    asked_at: Duration,
}

struct World {
    flaw: Flaw,
    draws: SeededEntropy,
    /// Leaders learn late what they have committed.
    is_sluggish: bool,
    nodes: Vec<Node>,
    leader: usize,
    term: u64,
    /// Fences that are committed: 1, 2, 3 …
    committed: u64,
    /// The highest that was acknowledged.
    acknowledged: u64,
    questions: Vec<(Question, Renew)>,
    answers: Vec<(Question, Grant)>,
    reports: Vec<Report>,
    seen: Seen,
}

/// What a schedule came upon, so that nobody is content with one in which nothing happens.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    decided: u64,
    refused_for_time: u64,
    refused_for_fence: u64,
    acknowledged: u64,
    longest_wait_ms: u64,
    lost_leaders: u64,
}

impl World {
    fn new(seed: u64, flaw: Flaw) -> Self {
        let draws = SeededEntropy::new(seed);
        let nodes = (0..NODES).map(|_| {
            let clock = Arc::new(ManualClock::new(Timestamp(0)));
            clock.advance(Duration::from_millis(draws.u64() % 1_000_000));
            Node {
                lease: Lease::new(Arc::clone(&clock) as _),
                clock,
                rate: [950, 1_000, 1_050, 950 + draws.u64() % 101][(draws.u64() % 4) as usize],
                boots: 1,
                in_force: 0,
                granter: Granter::new(LEASE_MS),
                term: None,
                applied: 0,
                waiting: Vec::new(),
                round: None,
                pending: Vec::new(),
                unnoted: Vec::new(),
            }
        });
        let mut world = World {
            flaw,
            is_sluggish: seed % 2 == 1,
            nodes: nodes.collect(),
            draws,
            leader: 0,
            term: 0,
            committed: 0,
            acknowledged: 0,
            questions: Vec::new(),
            answers: Vec::new(),
            reports: Vec::new(),
            seen: Seen::default(),
        };
        world.elect(0);
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draws.u64() % bound.max(1) as u64) as usize
    }

    /// One of a list: mostly taken out, sometimes left there to come again.
    fn deliver<T: Clone>(&mut self, from: fn(&mut World) -> &mut Vec<T>) -> Option<T> {
        let (count, again) = (from(self).len(), self.below(8) == 0);
        // The newest come soon as a rule, and the others at some time.
        let at = match self.below(3) {
            0 => self.below(count),
            _ => count.saturating_sub(1),
        };
        if count == 0 {
            return None;
        }
        Some(if again { from(self)[at].clone() } else { from(self).swap_remove(at) })
    }

    /// Time goes on for all, on each node's clock as it runs.
    fn pass(&mut self, ms: u64) {
        for node in &self.nodes {
            node.clock.advance(Duration::from_micros(ms * node.rate));
        }
    }

    fn now(&self, node: usize) -> Duration {
        self.nodes[node].lease.before_asking()
    }

    fn elect(&mut self, node: usize) {
        self.leader = node;
        self.term += 1;
        let now = self.now(node);
        let (term, committed, flaw) = (self.term, self.committed, self.flaw);
        let node = &mut self.nodes[node];
        (node.term, node.applied) = (Some(term), committed);
        (node.round, node.pending, node.unnoted) = (None, Vec::new(), Vec::new());
        let since = if flaw == Flaw::NoWindow { Duration::ZERO } else { now };
        node.granter.lead(since);
    }

    fn depose(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        (node.term, node.round) = (None, None);
        node.waiting.clear();
        node.granter.stop();
    }

    fn restart(&mut self, at: usize) {
        if self.leader == at {
            let next = (at + 1) % self.nodes.len();
            self.elect(next);
            self.seen.lost_leaders += 1;
        }
        self.depose(at);
        let kept = self.below(self.nodes[at].in_force as usize + 1) as u64;
        let node = &mut self.nodes[at];
        node.boots += 1;
        node.in_force = kept;
        (node.granter, node.pending, node.unnoted) = (Granter::new(LEASE_MS), Vec::new(), Vec::new());
        node.lease = Lease::new(Arc::clone(&node.clock) as _);
    }

    fn report_of(&self, at: usize) -> Report {
        let node = &self.nodes[at];
        Report { node: at as u64, boots: node.boots, in_force: Revision(node.in_force) }
    }

    fn ask(&mut self, at: usize) {
        let question = Question { node: at, boots: self.nodes[at].boots, asked_at: self.now(at) };
        self.questions.push((question, Renew { report: self.report_of(at), wall: Timestamp(0) }));
    }

    fn begin_round(&mut self, at: usize) {
        let is_leader = self.nodes[at].term == Some(self.term);
        let node = &mut self.nodes[at];
        if node.term.is_some() && node.round.is_none() && !node.waiting.is_empty() {
            node.round = Some((is_leader, std::mem::take(&mut node.waiting)));
        }
    }

    fn end_round(&mut self, at: usize) {
        let now = self.now(at);
        // One that was still the leader when the round began may yet hear so from a quorum, or not.
        let hears = self.below(4) > 0;
        let node = &mut self.nodes[at];
        let Some((was_leader, round)) = node.round.take() else { return };
        if !(was_leader && hears || self.flaw == Flaw::Unconfirmed) {
            return;
        }
        for (question, renew) in round {
            let told = (Revision(node.applied), Revision(node.applied));
            if self.flaw == Flaw::NotedLater {
                let (revision, fence) = told;
                let grant = Grant { fence, revision, wall: Timestamp(0), lease_ms: LEASE_MS };
                self.answers.push((question, grant));
                node.unnoted.push((renew, node.applied));
            } else if let Some(grant) = node.granter.grant(&renew, told, Timestamp(0), now) {
                self.answers.push((question, grant));
            }
        }
    }

    fn note(&mut self, at: usize) {
        let now = self.now(at);
        let node = &mut self.nodes[at];
        for (renew, fence) in node.unnoted.drain(..) {
            node.granter.grant(&renew, (Revision(fence), Revision(fence)), Timestamp(0), now);
        }
    }

    fn answer(&mut self, question: Question, grant: Grant) {
        let node = &self.nodes[question.node];
        if node.boots == question.boots {
            let since = match self.flaw {
                Flaw::CountedFromTheAnswer => self.now(question.node),
                Flaw::None
                | Flaw::Unconfirmed
                | Flaw::NotedLater
                | Flaw::NoWindow
                | Flaw::FenceIgnored
                | Flaw::NothingAwaited => question.asked_at,
            };
            let ignored = self.flaw == Flaw::FenceIgnored;
            node.lease.granted(since, if ignored { Grant { fence: Revision(0), ..grant } } else { grant });
        }
    }

    /// An exclusion is committed by the leader. It learns so at once, or a little later than others do.
    fn commit(&mut self) {
        self.committed += 1;
        if !self.is_sluggish && self.below(4) > 0 {
            self.catch_up();
        }
    }

    fn catch_up(&mut self) {
        let (now, committed) = (self.now(self.leader), self.committed);
        let leader = &mut self.nodes[self.leader];
        leader.pending.extend((leader.applied + 1..=committed).map(|fence| (fence, now)));
        leader.applied = committed;
    }

    fn put_in_force(&mut self, at: usize) {
        let lacks = self.committed - self.nodes[at].in_force;
        let gains = if self.below(2) == 0 { lacks } else { self.below(lacks as usize + 1) as u64 };
        self.nodes[at].in_force += gains;
        self.reports.push(self.report_of(at));
    }

    fn acknowledge(&mut self, at: usize) {
        let now = self.now(at);
        let all: Vec<u64> = (0..NODES).collect();
        let node = &mut self.nodes[at];
        let pending = std::mem::take(&mut node.pending);
        for (fence, since) in pending {
            let until = node.granter.may_decide_without(Revision(fence), &all, now);
            let until = until.filter(|_| self.flaw != Flaw::NothingAwaited);
            if let Some(until) = until {
                let wait = (until - since).as_millis() as u64;
                self.seen.longest_wait_ms = self.seen.longest_wait_ms.max(wait);
                node.pending.push((fence, since));
            } else {
                self.acknowledged = self.acknowledged.max(fence);
                self.seen.acknowledged += 1;
            }
        }
    }

    /// A request comes, and is answered if it may be. Says whether that was wrong.
    fn decide(&mut self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        if node.lease.is_held(Revision(node.in_force)) {
            self.seen.decided += 1;
            if node.in_force < self.acknowledged {
                let (has, needs) = (node.in_force, self.acknowledged);
                return Err(format!("node {at} decides under {has}, and {needs} was acknowledged before"));
            }
        } else if node.lease.is_held(Revision(u64::MAX)) {
            self.seen.refused_for_fence += 1;
        } else {
            self.seen.refused_for_time += 1;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let ms = match self.below(12) {
            0 => 100 + self.below(400),
            1 if self.below(4) == 0 => 1_500 + self.below(1_000),
            2..=5 => self.below(30),
            _ => 0,
        };
        self.pass(ms as u64);
        let at = self.below(self.nodes.len());
        match self.below(100) {
            0..=11 => self.ask(at),
            12..=26 => {
                if let Some(question) = self.deliver(|world| &mut world.questions) {
                    let leader = if self.below(4) == 0 { at } else { self.leader };
                    if self.nodes[leader].term.is_some() {
                        self.nodes[leader].waiting.push(question);
                    }
                }
            }
            27..=36 => {
                let at = if self.below(3) == 0 { at } else { self.leader };
                self.begin_round(at);
            }
            37..=48 => {
                let at = if self.below(3) == 0 { at } else { self.leader };
                self.end_round(at);
            }
            49..=60 => {
                if let Some((question, grant)) = self.deliver(|world| &mut world.answers) {
                    self.answer(question, grant);
                }
            }
            61..=63 => self.commit(),
            64 if !self.is_sluggish || self.below(4) == 0 => self.catch_up(),
            65..=71 => self.put_in_force(at),
            72..=79 => {
                if let Some(report) = self.deliver(|world| &mut world.reports) {
                    let leader = if self.below(4) == 0 { at } else { self.leader };
                    self.nodes[leader].granter.reported(report);
                }
            }
            80..=86 => {
                for at in 0..self.nodes.len() {
                    self.acknowledge(at);
                }
            }
            87..=88 => self.note(at),
            89 if at != self.leader => {
                self.elect(at);
                self.seen.lost_leaders += 1;
            }
            90 if self.nodes[at].term != Some(self.term) => self.depose(at),
            91 => self.restart(at),
            _ => {
                for at in 0..self.nodes.len() {
                    self.decide(at)?;
                }
            }
        }
        Ok(())
    }
}

fn run(seed: u64, steps: usize, flaw: Flaw) -> Result<Seen, String> {
    let mut world = World::new(seed, flaw);
    for step in 0..steps {
        world.step().map_err(|wrong| format!("seed {seed}, step {step}: {wrong}"))?;
    }
    Ok(world.seen)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_node_ever_decides_without_a_fence_that_was_acknowledged(seed: u64) {
        let seen = run(seed, 4_000, Flaw::None).map_err(TestCaseError::fail)?;
        prop_assert!(seen.longest_wait_ms <= 2_100, "an exclusion is acknowledged 1.05 leases after it at the latest");
    }
}

#[test]
fn whatever_is_left_out_is_missed() {
    for flaw in [
        Flaw::CountedFromTheAnswer,
        Flaw::Unconfirmed,
        Flaw::NotedLater,
        Flaw::NoWindow,
        Flaw::FenceIgnored,
        Flaw::NothingAwaited,
    ] {
        let found = (0..400).find_map(|seed| run(seed, 4_000, flaw).err());
        assert!(found.is_some(), "{flaw:?} does no harm here");
    }
}

#[test]
fn schedules_come_upon_everything() {
    let runs: Vec<Seen> = (0..40).map(|seed| run(seed, 4_000, Flaw::None).unwrap()).collect();
    let total = |count: fn(&Seen) -> u64| runs.iter().map(count).sum::<u64>();
    for (what, count) in [
        ("decided", total(|seen| seen.decided)),
        ("refused for time", total(|seen| seen.refused_for_time)),
        ("refused for a fence", total(|seen| seen.refused_for_fence)),
        ("acknowledged", total(|seen| seen.acknowledged)),
        ("lost leaders", total(|seen| seen.lost_leaders)),
    ] {
        assert!(count > 1_000, "{what}: {count}");
    }
    assert!(runs.iter().any(|seen| seen.longest_wait_ms == 2_100), "some wait for as long as one has to");
}
