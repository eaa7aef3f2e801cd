use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::{Leader, Position};
use proffer_engine::time::Timestamp;

use super::step::{Doing, next_step};
use crate::group::Group;
use crate::meta::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use crate::meta::roster::{GroupRecord, Members, NodeInfo, Roster};
use crate::meta::state::MetaState;
use crate::raft::{self, Seat, Step};

const GROUP: Group = Group::Shard(ShardId(0));

fn at(index: u64) -> Option<Position> {
    Some(Position { leader: Leader { term: 1, replica: 2 }, index })
}

/// Three nodes; the founder holds replica 2 of the shard, and the shard is meant to have a replica on each.
fn roster() -> (Arc<Roster>, BTreeMap<u64, u64>) {
    let (mut state, leader) = (MetaState::new(), Leader { term: 1, replica: 1 });
    let mut apply = |index, op| {
        let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(5), leader, op });
        let outcome = state.apply(Position { leader, index }, &command);
        (outcome, Arc::clone(state.roster()))
    };
    apply(1, MetaOp::Found(Founding { secret: [1; 16], shards: 1 }));
    let mut nodes = Vec::new();
    for disk in 2..5 {
        let host = format!("h{disk}");
        let (peer_address, http_address) = (format!("{host}:1"), format!("{host}:2"));
        let info = NodeInfo { disk, boots: 1, peer_address, http_address, zone: String::new() };
        let (outcome, _) = apply(disk as u64, MetaOp::Enroll(info));
        let MetaOutcome::Enrolled { node, .. } = outcome else { panic!("{outcome:?}") };
        nodes.push(node);
    }
    let voters = nodes.iter().copied().collect();
    let (_, roster) = apply(
        9,
        MetaOp::Retarget { group: GROUP, voters, learners: BTreeSet::new(), leader: Some(nodes[0]), pinned: false },
    );
    let replicas = nodes.iter().map(|node| (*node, roster.replica_on(GROUP, *node).unwrap())).collect();
    (roster, replicas)
}

fn members(voters: &[u64], learners: &[(u64, u64)], behind: u64) -> raft::Members {
    let seat = |replica: &u64| (*replica, Seat { node: 0 });
    let seats = voters.iter().chain(learners.iter().map(|(replica, _)| replica)).map(seat).collect();
    let lacks = learners.iter().copied().chain(voters.iter().map(|voter| (*voter, behind)));
    raft::Members {
        at: at(7),
        is_committed: true,
        is_joint: false,
        voters: voters.iter().copied().collect(),
        seats,
        behind: lacks.collect(),
    }
}

fn step(own: u64, members: &raft::Members, roster: &Roster, record: &GroupRecord) -> Doing {
    next_step(own, members, record, roster, |_| true)
}

#[test]
fn one_becomes_three_when_the_others_have_caught_up() {
    let (roster, replicas) = roster();
    let record = roster.group(GROUP).unwrap().clone();
    let [own, second, third] = replicas.values().copied().collect::<Vec<_>>()[..] else { panic!("three nodes") };
    let alone = members(&[own], &[], 0);
    let Doing::Change { step: Step::AddLearners(added), twice: false } = step(own, &alone, &roster, &record) else {
        panic!("learners come first")
    };
    assert_eq!(added.keys().copied().collect::<Vec<_>>(), [second, third]);
    let lagging = members(&[own], &[(second, 0), (third, 1_000)], 0);
    assert_eq!(step(own, &lagging, &roster, &record), Doing::Wait, "three of which one lags would stop all commits");
    let near = members(&[own], &[(second, 0), (third, 3)], 0);
    let all: BTreeSet<u64> = [own, second, third].into();
    let promote = Doing::Change { step: Step::SetVoters(all.clone()), twice: true };
    assert_eq!(step(own, &near, &roster, &record), promote, "if it is still so at the next look");
    let done = members(&[own, second, third], &[], 0);
    let report = Doing::Report(Members { voters: all, learners: BTreeSet::new() });
    assert_eq!(step(own, &done, &roster, &record), report);
}

#[test]
fn a_configuration_that_is_half_way_is_finished_first_and_one_that_is_not_committed_waited_for() {
    let (roster, replicas) = roster();
    let record = roster.group(GROUP).unwrap().clone();
    let all: Vec<u64> = replicas.values().copied().collect();
    let joint = raft::Members { is_joint: true, ..members(&all, &[], 0) };
    let finish = Doing::Change { step: Step::SetVoters(all.iter().copied().collect()), twice: false };
    assert_eq!(step(all[0], &joint, &roster, &record), finish);
    let open = raft::Members { is_committed: false, ..members(&all, &[], 0) };
    assert_eq!(step(all[0], &open, &roster, &record), Doing::Wait);
}

#[test]
fn a_leader_that_is_to_go_hands_over_first_to_one_that_has_everything() {
    let (roster, replicas) = roster();
    let all: Vec<u64> = replicas.values().copied().collect();
    let meant = Members { voters: all[1..].iter().copied().collect(), learners: BTreeSet::new() };
    let record = GroupRecord { target: Some(meant.clone()), ..roster.group(GROUP).unwrap().clone() };
    assert_eq!(step(all[0], &members(&all, &[], 0), &roster, &record), Doing::HandOver(all[1]));
    assert_eq!(step(all[0], &members(&all, &[], 5), &roster, &record), Doing::Wait, "the others lack something");
    // Alone, it takes the others in beside itself before.
    let with_itself = Doing::Change { step: Step::SetVoters(all.iter().copied().collect()), twice: true };
    let alone = members(&all[..1], &[(all[1], 0), (all[2], 0)], 0);
    assert_eq!(step(all[0], &alone, &roster, &record), with_itself);
    // The next one takes the last one's vote, then its seat.
    let reduce = Doing::Change { step: Step::SetVoters(meant.voters.clone()), twice: false };
    assert_eq!(step(all[1], &members(&all, &[], 0), &roster, &record), reduce);
    let left = members(&all[1..], &[(all[0], 0)], 0);
    let remove = Doing::Change { step: Step::Remove([all[0]].into()), twice: false };
    assert_eq!(step(all[1], &left, &roster, &record), remove);
    assert_eq!(step(all[1], &members(&all[1..], &[], 0), &roster, &record), Doing::Report(meant));
}

#[test]
fn the_leadership_goes_to_the_node_that_should_have_it_once_that_can_take_it() {
    let (roster, replicas) = roster();
    let nodes: Vec<u64> = replicas.keys().copied().collect();
    let all: Vec<u64> = replicas.values().copied().collect();
    let now = Members { voters: all.iter().copied().collect(), learners: BTreeSet::new() };
    let record = GroupRecord { now, at: at(7), target: None, leader: Some(nodes[1]), ..GroupRecord::default() };
    let members = members(&all, &[], 0);
    assert_eq!(step(all[0], &members, &roster, &record), Doing::HandOver(all[1]));
    let nobody = next_step(all[0], &members, &record, &roster, |_| false);
    assert_eq!(nobody, Doing::Nothing, "that node is away");
    assert_eq!(step(all[1], &members, &roster, &record), Doing::Nothing);
}
