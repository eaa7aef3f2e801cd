//! The next step of a group towards what it should be: a pure function of what its leader sees and of the roster.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::Group;
use crate::limits::CAUGHT_UP_ENTRIES;
use crate::meta::roster::{self, Configured, GroupRecord, Roster};
use crate::raft::{Members, Seat, Step};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// All is as it should be.
    Nothing,
    /// Something has to be awaited: a commit, or a replica that lacks too much still.
    Wait,
    /// Change the members.
    Step(Step),
    /// Another replica is to lead.
    HandOver(u64),
    /// Tell the meta group what was reached.
    Report(Configured),
}

/// Which replicas have everything, or nearly: not in one look by chance, but in two after each other.
#[derive(Debug, Default)]
pub struct CaughtUp {
    last: BTreeSet<u64>,
    steady: BTreeSet<u64>,
}

impl CaughtUp {
    /// Takes note of a look.
    pub fn look(&mut self, members: &Members) {
        let now: BTreeSet<u64> = members
            .behind
            .iter()
            .filter(|(_, behind)| **behind <= CAUGHT_UP_ENTRIES)
            .map(|(replica, _)| *replica)
            .collect();
        self.steady = &now & &self.last;
        self.last = now;
    }
}

/// What a group's leader, replica `own`, does next. `is_fit`: whether a node may lead. O(replicas).
pub fn next_step(
    own: u64,
    group: Group,
    members: &Members,
    roster: &Roster,
    caught_up: &CaughtUp,
    is_fit: impl Fn(u64) -> bool,
) -> Doing {
    let Some(record) = roster.group(group) else { return Doing::Nothing };
    if roster.has_left(own) {
        // It is about to end: what the group is to become now is no concern of its generation's.
        return Doing::Nothing;
    }
    let seen = Seen { own, members, roster, record, caught_up, is_fit: &is_fit };
    if !members.is_committed {
        return Doing::Wait;
    }
    if members.is_joint {
        return seen.finish();
    }
    match &record.target {
        Some(target) => seen.towards(target).unwrap_or_else(|| seen.report(group)),
        // Without a target nothing is changed: this node's roster may be older than the configuration. What is, is told.
        None if members.at > record.at || record.heard < record.targets => seen.report(group),
        None => seen.lead_as_wanted(group),
    }
}

struct Seen<'a> {
    own: u64,
    members: &'a Members,
    roster: &'a Roster,
    record: &'a GroupRecord,
    caught_up: &'a CaughtUp,
    is_fit: &'a dyn Fn(u64) -> bool,
}

impl Seen<'_> {
    /// A change that another leader has begun, or that was cut off, is ended first.
    fn finish(&self) -> Doing {
        let next = &self.members.next_voters;
        match self.heir(next).filter(|_| !next.contains(&self.own)) {
            Some(heir) => Doing::HandOver(heir),
            None => Doing::Step(Step::SetVoters(next.clone())),
        }
    }

    /// The next step towards a target; `None`: it is reached.
    fn towards(&self, target: &roster::Members) -> Option<Doing> {
        let members = self.members;
        let missing = target.all().filter(|replica| !members.seats.contains_key(replica));
        let missing: BTreeMap<u64, Seat> =
            missing.filter_map(|replica| Some((replica, Seat { node: self.roster.node_of(replica)? }))).collect();
        if !missing.is_empty() {
            return Some(Doing::Step(Step::AddLearners(missing)));
        }
        let mut promoted = target.voters.difference(&members.voters);
        if promoted.any(|replica| !self.caught_up.steady.contains(replica)) {
            // Voting while it lacks much, it would keep commands waiting, in a small group all of them.
            return Some(Doing::Wait);
        }
        if members.voters != target.voters {
            return Some(self.set_voters(target));
        }
        if !members.voters.contains(&self.own) {
            return Some(self.heir(&target.voters).map_or(Doing::Wait, Doing::HandOver));
        }
        let superfluous: BTreeSet<u64> =
            members.seats.keys().copied().filter(|replica| !target.contains(*replica)).collect();
        (!superfluous.is_empty()).then_some(Doing::Step(Step::Remove(superfluous)))
    }

    /// One joint change, by a leader that is a voter before and after.
    fn set_voters(&self, target: &roster::Members) -> Doing {
        if target.voters.contains(&self.own) {
            return Doing::Step(Step::SetVoters(target.voters.clone()));
        }
        if let Some(heir) = self.heir(&target.voters) {
            return Doing::HandOver(heir);
        }
        // None of those that stay can lead: the new ones vote beside this one until one of them does.
        let both: BTreeSet<u64> = target.voters.iter().copied().chain([self.own]).collect();
        if both == self.members.voters { Doing::Wait } else { Doing::Step(Step::SetVoters(both)) }
    }

    /// Who of these leads best in place of this one: a voter that lacks nearly nothing, first one whose node is fit to, then the one that is wanted.
    fn heir(&self, among: &BTreeSet<u64>) -> Option<u64> {
        let is_voter = |replica: &u64| *replica != self.own && self.members.voters.contains(replica);
        let able = among.iter().copied().filter(is_voter).filter(|replica| self.has_caught_up(*replica));
        able.min_by_key(|replica| {
            let node = self.roster.node_of(*replica);
            let is_fit = node.is_some_and(self.is_fit);
            (!is_fit, node != self.record.leader, self.members.behind.get(replica).copied())
        })
    }

    fn has_caught_up(&self, replica: u64) -> bool {
        self.members.behind.get(&replica).is_some_and(|behind| *behind <= CAUGHT_UP_ENTRIES)
    }

    fn report(&self, group: Group) -> Doing {
        let members = self.members;
        let Some(at) = members.at else { return Doing::Wait };
        let learners = members.seats.keys().copied().filter(|replica| !members.voters.contains(replica)).collect();
        let members = roster::Members { voters: members.voters.clone(), learners };
        Doing::Report(Configured { group, members, at, targets: self.record.targets })
    }

    /// The members are as they should be: the node leads that should.
    fn lead_as_wanted(&self, group: Group) -> Doing {
        let wanted = self.record.leader.filter(|node| (self.is_fit)(*node));
        let wanted = wanted.and_then(|node| self.roster.replica_on(group, node));
        match wanted.filter(|replica| *replica != self.own && self.members.voters.contains(replica)) {
            Some(replica) if self.has_caught_up(replica) => Doing::HandOver(replica),
            Some(_) => Doing::Wait,
            None => Doing::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::profile::command::{Leader, Position};

    use super::*;
    use crate::meta::roster::NodeInfo;

    const GROUP: Group = Group::Meta;

    /// Replica 1 on node 1, and 2, 3, 4 joined as learners of the group's target; their replicas and nodes.
    fn roster() -> (Roster, Vec<u64>, Vec<u64>) {
        let mut roster = Roster::default();
        let says = |disk| NodeInfo {
            disk,
            boots: 1,
            peer_address: "a:1".to_owned(),
            http_address: "a:2".to_owned(),
            zone: String::new(),
        };
        let enrolled: Vec<_> = (1..5).map(|disk| roster.enroll(&says(disk), 1, disk as u64).unwrap()).collect();
        let (nodes, replicas) = enrolled.into_iter().unzip();
        (roster, replicas, nodes)
    }

    fn at(index: u64) -> Position {
        Position { leader: Leader { term: 1, replica: 1 }, index }
    }

    /// A committed configuration of these, none of which lacks anything.
    fn members(voters: &[u64], learners: &[u64]) -> Members {
        let all = voters.iter().chain(learners);
        let voters: BTreeSet<u64> = voters.iter().copied().collect();
        Members {
            at: Some(at(7)),
            is_committed: true,
            is_joint: false,
            next_voters: voters.clone(),
            voters,
            seats: all.clone().map(|replica| (*replica, Seat { node: *replica })).collect(),
            behind: all.map(|replica| (*replica, 0)).collect(),
        }
    }

    fn aim(roster: &mut Roster, voters: &[u64], learners: &[u64], leader: Option<u64>) {
        let (voters, learners) = (voters.iter().copied().collect(), learners.iter().copied().collect());
        roster.retarget(GROUP, &voters, &learners, (leader, false), 9).unwrap();
    }

    fn settle(roster: &mut Roster, members: &Members) {
        let seen = Seen {
            own: 1,
            members,
            roster,
            record: roster.group(GROUP).unwrap(),
            caught_up: &CaughtUp::default(),
            is_fit: &|_| true,
        };
        let Doing::Report(report) = seen.report(GROUP) else { panic!("it can be reported") };
        roster.configure(&report).unwrap();
    }

    fn does(own: u64, members: &Members, roster: &Roster) -> Doing {
        let mut caught_up = CaughtUp::default();
        caught_up.look(members);
        caught_up.look(members);
        next_step(own, GROUP, members, roster, &caught_up, |_| true)
    }

    fn set<const N: usize>(replicas: [u64; N]) -> BTreeSet<u64> {
        replicas.into()
    }

    #[test]
    fn one_becomes_three_in_one_joint_change_once_the_new_ones_have_nearly_everything_twice() {
        let (mut roster, of, nodes) = roster();
        aim(&mut roster, &nodes[..3], &[], None);
        let Doing::Step(Step::AddLearners(added)) = does(1, &members(&of[..1], &[]), &roster) else { panic!() };
        assert_eq!(added, [1, 2].map(|which| (of[which], Seat { node: nodes[which] })).into());
        let mut learning = members(&of[..1], &of[1..3]);
        let mut caught_up = CaughtUp::default();
        for (behind, expected) in [
            (CAUGHT_UP_ENTRIES + 1, Doing::Wait),
            (CAUGHT_UP_ENTRIES, Doing::Wait),
            (CAUGHT_UP_ENTRIES, Doing::Step(Step::SetVoters(of[..3].iter().copied().collect()))),
        ] {
            learning.behind.insert(of[2], behind);
            caught_up.look(&learning);
            assert_eq!(next_step(1, GROUP, &learning, &roster, &caught_up, |_| true), expected);
        }
        learning.behind.remove(&of[2]);
        assert_eq!(does(1, &learning, &roster), Doing::Wait, "it is not heard");
        let reached = members(&of[..3], &[]);
        let Doing::Report(report) = does(1, &reached, &roster) else { panic!() };
        assert_eq!((report.members.voters, report.at), (of[..3].iter().copied().collect(), at(7)));
        settle(&mut roster, &reached);
        assert_eq!(does(1, &reached, &roster), Doing::Nothing);
    }

    #[test]
    fn nothing_is_done_before_a_configuration_is_committed_and_a_joint_one_is_finished_first() {
        let (mut roster, of, nodes) = roster();
        aim(&mut roster, &nodes[..1], &[], None);
        let all = members(&of[..3], &[]);
        assert_eq!(does(1, &Members { is_committed: false, ..all.clone() }, &roster), Doing::Wait);
        let joint = Members { is_joint: true, next_voters: set([1, of[1]]), ..all.clone() };
        assert_eq!(does(1, &joint, &roster), Doing::Step(Step::SetVoters(set([1, of[1]]))));
        assert_eq!(does(of[2], &joint, &roster), Doing::HandOver(1), "one that is to go does not finish it");
    }

    #[test]
    fn a_leader_that_is_not_to_vote_hands_over_to_one_that_is_once_the_rest_is_ready() {
        let (mut roster, of, nodes) = roster();
        settle(&mut roster, &members(&of[..3], &[]));
        aim(&mut roster, &nodes[1..4], &[], Some(nodes[2]));
        let Doing::Step(Step::AddLearners(_)) = does(1, &members(&of[..3], &[]), &roster) else { panic!() };
        let mut ready = members(&of[..3], &of[3..4]);
        assert_eq!(does(1, &ready, &roster), Doing::HandOver(of[2]), "the one that should lead");
        ready.behind.insert(of[2], CAUGHT_UP_ENTRIES + 1);
        assert_eq!(does(1, &ready, &roster), Doing::HandOver(of[1]), "or another");
        assert_eq!(does(of[1], &ready, &roster), Doing::Step(Step::SetVoters(of[1..4].iter().copied().collect())));
        let replaced = members(&of[1..4], &of[..1]);
        assert_eq!(does(of[1], &replaced, &roster), Doing::Step(Step::Remove(set([1]))));
        assert_eq!(does(1, &replaced, &roster), Doing::HandOver(of[2]), "a leader that does not vote any more");
    }

    #[test]
    fn a_single_voter_moves_by_way_of_two() {
        let (mut roster, of, nodes) = roster();
        aim(&mut roster, &nodes[1..2], &[], None);
        assert_eq!(does(1, &members(&of[..1], &of[1..2]), &roster), Doing::Step(Step::SetVoters(set([1, of[1]]))));
        let mut both = members(&of[..2], &[]);
        assert_eq!(does(1, &both, &roster), Doing::HandOver(of[1]));
        both.behind.remove(&of[1]);
        assert_eq!(does(1, &both, &roster), Doing::Wait);
        both.behind.insert(of[1], 0);
        assert_eq!(does(of[1], &both, &roster), Doing::Step(Step::SetVoters(set([of[1]]))));
    }

    #[test]
    fn without_a_target_nothing_is_changed_but_what_is_is_told() {
        let (mut roster, of, nodes) = roster();
        aim(&mut roster, &nodes[..1], &[], None);
        let other = members(&of[..3], &of[3..4]);
        let Doing::Report(report) = does(1, &other, &roster) else { panic!("{:?}", does(1, &other, &roster)) };
        assert_eq!(report.members.learners, set([of[3]]));
        roster.configure(&report).unwrap();
        assert_eq!(does(1, &other, &roster), Doing::Nothing);
        aim(&mut roster, &nodes[..2], &[], None);
        aim(&mut roster, &nodes[..3], &nodes[3..4], None);
        assert_eq!(roster.group(GROUP).unwrap().target, None);
        assert!(matches!(does(1, &other, &roster), Doing::Report(_)), "so that what was placed meanwhile can go");
    }

    #[test]
    fn the_node_leads_that_should_if_its_voter_has_everything_and_it_is_fit() {
        let (mut roster, of, nodes) = roster();
        let mut three = members(&of[..3], &[]);
        settle(&mut roster, &three);
        aim(&mut roster, &nodes[..3], &[], Some(nodes[1]));
        settle(&mut roster, &Members { at: Some(at(8)), ..three.clone() });
        three.at = Some(at(8));
        assert_eq!(does(1, &three, &roster), Doing::HandOver(of[1]));
        assert_eq!(does(of[1], &three, &roster), Doing::Nothing);
        let caught_up = CaughtUp::default();
        assert_eq!(next_step(1, GROUP, &three, &roster, &caught_up, |node| node != nodes[1]), Doing::Nothing);
        three.behind.remove(&of[1]);
        assert_eq!(does(1, &three, &roster), Doing::Wait, "it is not heard");
    }
}
