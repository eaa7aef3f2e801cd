//! What can happen next, and what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proffer_cluster::meta::command::MetaOp;
use proffer_cluster::meta::roster::Configured;
use proffer_cluster::reconcile::{CaughtUp, Doing, Members, Seat, next_step};
use proffer_engine::profile::command::{Leader, Position};

use super::state::{Configuration, Content, Entry, GROUP, Replica, State};
use super::{Moves, Rule};

/// Something that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The group is to have other members.
    Aim,
    /// A node applies what the meta group has committed.
    Learn(usize),
    /// A node begins the replicas that it should hold, as far as it knows.
    Host(usize),
    /// A node destroys a replica of which it is told that it has left.
    Destroy(u64),
    /// A replica is voted for, by these.
    Elect(u64, BTreeSet<u64>),
    /// A leader sends a member all that it has.
    Replicate(u64, u64),
    /// A leader appends a command.
    Propose(u64),
    /// A leader does what is next, by the roster that its node knows.
    Reconcile(u64),
    /// A report arrives, for the first time or again.
    Deliver(Configured),
}

/// Rounds without a fault after which a group is where it was to be: one each for learners, both sets of voters, the new one, and who leaves.
const ROUNDS: usize = 8;

impl Moves {
    /// The group as it begins: moved to where it is to be by the protocol itself, nothing being lost, and then settled.
    pub(super) fn beginning(&self) -> State {
        let mut state = State::new(&self.bounds);
        if self.bounds.begins != [0] {
            let whole = Moves { left_out: None, ..self.clone() };
            state.aim(&self.bounds.begins, &[]);
            for _ in 0..ROUNDS {
                whole.take_round(&mut state);
            }
            assert!(state.is_settled(), "{state:?}");
            state.lose_reports();
        }
        state.seal();
        state
    }

    /// Everybody does once what is to be done, and hears of it.
    fn take_round(&self, state: &mut State) {
        for place in 0..state.nodes.len() {
            self.take_step(state, Step::Learn(place));
            self.take_step(state, Step::Host(place));
        }
        let leader = state.leaders[0];
        let members = state.replicas[&leader].configuration().map(|(_, of)| of.members.clone()).unwrap_or_default();
        for member in members {
            if member != leader && state.replicas.contains_key(&member) {
                self.take_step(state, Step::Replicate(leader, member));
            }
        }
        self.take_step(state, Step::Reconcile(leader));
        for report in state.reports.clone() {
            self.take_step(state, Step::Deliver(report));
        }
    }

    fn keeps(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    pub(super) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        if state.targets < self.bounds.targets.len() {
            steps.push(Step::Aim);
        }
        for place in 0..state.nodes.len() {
            if !Arc::ptr_eq(&state.known[place].roster, &state.newest.roster) {
                steps.push(Step::Learn(place));
            }
            steps.push(Step::Host(place));
        }
        steps.extend(
            state.replicas.keys().filter(|replica| self.has_to_go(state, **replica)).map(|id| Step::Destroy(*id)),
        );
        if (state.leaders.len() as u64) < self.bounds.terms {
            for (id, replica) in &state.replicas {
                steps.extend(electors(state, *id, replica).into_iter().map(|by| Step::Elect(*id, by)));
            }
        }
        for (leader, of) in state.leading() {
            let members = of.configuration().map(|(_, configuration)| &configuration.members);
            let others = members.into_iter().flatten().filter(|member| **member != leader);
            let able = others.filter(|member| state.replicas.get(member).is_some_and(|other| other.term <= of.term));
            steps.extend(able.map(|member| Step::Replicate(leader, *member)));
            if state.commands < self.bounds.commands {
                steps.push(Step::Propose(leader));
            }
            steps.push(Step::Reconcile(leader));
        }
        steps.extend(state.reports.iter().cloned().map(Step::Deliver));
    }

    pub(super) fn take_step(&self, state: &mut State, step: Step) {
        match step {
            Step::Aim => {
                let (voters, learners) = &self.bounds.targets[state.targets];
                state.targets += 1;
                state.aim(voters, learners);
            }
            Step::Learn(place) => state.known[place] = state.newest.clone(),
            Step::Host(place) => {
                let roster = Arc::clone(&state.known[place].roster);
                for (replica, _) in roster.replicas_of(state.nodes[place]).filter(|(_, group)| *group == GROUP) {
                    if !state.destroyed.contains(&replica) {
                        state.replicas.entry(replica).or_default();
                    }
                }
            }
            Step::Destroy(replica) => {
                state.replicas.remove(&replica);
                state.destroyed.insert(replica);
            }
            Step::Elect(leader, by) => {
                let term = state.leaders.len() as u64 + 1;
                state.leaders.push(leader);
                for voter in by {
                    state.replicas.get_mut(&voter).expect("it is there to vote").term = term;
                }
                let committed = state.history.clone();
                let of = state.replicas.get_mut(&leader).expect("it votes for itself");
                state.is_lost |= of.log.get(..committed.len()) != Some(&committed);
                of.committed = 0;
                of.log.push(Arc::new(Entry { term, content: Content::Blank }));
                state.count(leader);
            }
            Step::Replicate(leader, member) => {
                let of = state.replicas[&leader].clone();
                let other = state.replicas.get_mut(&member).expect("it is there");
                other.term = of.term;
                other.log = of.log;
                state.count(leader);
            }
            Step::Propose(leader) => {
                state.commands += 1;
                append(state, leader, Content::Command);
            }
            Step::Reconcile(leader) => self.reconcile(state, leader),
            Step::Deliver(report) => {
                let newest = state.meta.roster().group(GROUP).expect("it was founded").targets;
                let targets = if self.keeps(Rule::ReportsNameTheirTarget) { report.targets } else { newest };
                state.commit(MetaOp::Configured(Configured { targets, ..report }));
            }
        }
    }

    fn has_to_go(&self, state: &State, replica: u64) -> bool {
        let roster = &state.newest.roster;
        let is_meant = roster.group(GROUP).is_some_and(|record| record.meant().contains(replica));
        roster.has_left(replica) || !self.keeps(Rule::LeftBeforeDestroyed) && !is_meant
    }

    fn reconcile(&self, state: &mut State, leader: u64) {
        let Some(node) = state.meta.roster().node_of(leader).or_else(|| self.node_of(state, leader)) else { return };
        let roster = Arc::clone(&state.known[state.place_of(node)].roster);
        let Some(members) = self.members(state, leader) else { return };
        let mut caught_up = CaughtUp::default();
        caught_up.look(&members);
        caught_up.look(&members);
        match next_step(leader, GROUP, &members, &roster, &caught_up, |_| true) {
            Doing::Nothing | Doing::Wait | Doing::HandOver(_) => {}
            Doing::Step(step) => self.change(state, leader, step),
            Doing::Report(report) => state.report(report),
        }
    }

    /// A leader that has left the tables leads on until it is destroyed; its node is known from a roster before.
    fn node_of(&self, state: &State, replica: u64) -> Option<u64> {
        state.known.iter().find_map(|known| known.roster.node_of(replica))
    }

    /// The group as its leader sees it.
    fn members(&self, state: &State, leader: u64) -> Option<Members> {
        let of = &state.replicas[&leader];
        let (at, configuration) = of.configuration()?;
        let writer = state.leaders[of.log[at - 1].term as usize - 1];
        let seat = |member: &u64| Seat {
            node: state.known.iter().find_map(|known| known.roster.node_of(*member)).unwrap_or(0),
        };
        let is_committed = at <= of.committed;
        let lacks = |other: &Replica| {
            let common = other.log.iter().zip(&of.log).take_while(|(theirs, ours)| theirs == ours).count();
            (of.log.len() - common) as u64
        };
        let heard = configuration.members.iter().filter_map(|member| {
            let other = state.replicas.get(member).filter(|other| other.term == of.term)?;
            Some((*member, lacks(other)))
        });
        Some(Members {
            at: Some(Position { leader: Leader { term: of.log[at - 1].term, replica: writer }, index: at as u64 }),
            is_committed: is_committed || !self.keeps(Rule::CommittedBeforeChanged),
            is_joint: configuration.voters.len() > 1,
            voters: configuration.voters.iter().flatten().copied().collect(),
            next_voters: configuration.voters.last().cloned().unwrap_or_default(),
            seats: configuration.members.iter().map(|member| (*member, seat(member))).collect(),
            behind: heard.collect::<BTreeMap<u64, u64>>(),
        })
    }

    /// Enters the configuration that a step leads to.
    fn change(&self, state: &mut State, leader: u64, step: proffer_cluster::reconcile::Step) {
        use proffer_cluster::reconcile::Step as Change;
        let of = &state.replicas[&leader];
        let (at, now) = of.configuration().expect("it leads by one");
        let entered = state.replicas.values().flat_map(|of| &of.log).collect::<BTreeSet<_>>();
        let configurations = entered.iter().filter(|entry| matches!(entry.content, Content::Members(_))).count();
        // Openraft changes a configuration once it is committed, whatever it is asked.
        let is_early = at > of.committed && self.keeps(Rule::CommittedBeforeChanged);
        if configurations >= self.bounds.configurations || is_early {
            return;
        }
        let mut next: Configuration = now.clone();
        match step {
            Change::AddLearners(learners) => next.members.extend(learners.into_keys()),
            Change::Remove(learners) => next.members.retain(|member| !learners.contains(member)),
            Change::SetVoters(voters) => {
                let is_through = now.voters.last() == Some(&voters);
                let last = now.voters.last().cloned().unwrap_or_default();
                let is_direct = is_through || !self.keeps(Rule::VotersChangeJointly);
                next.voters = if is_direct { vec![voters] } else { vec![last, voters] };
            }
        }
        append(state, leader, Content::Members(next));
    }
}

fn append(state: &mut State, leader: u64, content: Content) {
    let of = state.replicas.get_mut(&leader).expect("it leads");
    let term = of.term;
    of.log.push(Arc::new(Entry { term, content }));
    state.count(leader);
}

/// The smallest sets of voters that can make a replica the leader of the next term. Any more of them would only keep earlier leaders from
/// going on.
fn electors(state: &State, candidate: u64, replica: &Replica) -> Vec<BTreeSet<u64>> {
    let Some((_, configuration)) = replica.configuration().filter(|(_, configuration)| configuration.votes(candidate))
    else {
        return Vec::new();
    };
    let voters: BTreeSet<u64> = configuration.voters.iter().flatten().copied().collect();
    let able = |voter: &u64| state.replicas.get(voter).is_some_and(|voter| replica.is_as_new_as(voter));
    let able: Vec<u64> = voters.into_iter().filter(able).filter(|voter| *voter != candidate).collect();
    let sets = (0..1_u32 << able.len()).map(|bits| {
        let chosen = able.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, voter)| *voter);
        chosen.chain([candidate]).collect::<BTreeSet<u64>>()
    });
    let quorums: Vec<BTreeSet<u64>> = sets.filter(|by| configuration.is_quorum(|voter| by.contains(voter))).collect();
    let is_smallest = |by: &BTreeSet<u64>| !quorums.iter().any(|other| other != by && other.is_subset(by));
    quorums.iter().filter(|by| is_smallest(by)).cloned().collect()
}
