//! Clusters that grow and shrink, with groups that become what they should in any order.

use proptest::prelude::*;

use super::*;
use crate::meta::roster::NodeInfo;
use crate::meta::roster::tests::{as_meant, founded, says};
use crate::ports::entropy::{Entropy, SeededEntropy};

/// A cluster whose groups do as they are told, in an order that is drawn.
struct World {
    roster: Roster,
    silent: BTreeSet<u64>,
    zones: u128,
    index: u64,
    draws: SeededEntropy,
}

impl World {
    fn of(shards: u16, zones: u128, seed: u64) -> Self {
        let (roster, draws) = (founded(shards), SeededEntropy::new(seed));
        World { roster, silent: BTreeSet::new(), zones, index: 2, draws }
    }

    fn join(&mut self, disk: u128) -> u64 {
        self.index += 1;
        let zone = if self.zones == 1 { String::new() } else { format!("z{}", disk % self.zones) };
        let info = NodeInfo { zone, ..says(disk, 1) };
        self.roster.enroll(&info, 0, self.index).unwrap().0
    }

    fn stand(&mut self, node: u64, standing: NodeStanding) {
        self.roster.set_standing(node, standing).unwrap();
    }

    fn nodes(&self) -> Vec<u64> {
        self.roster.nodes().map(|(node, _)| node).collect()
    }

    fn staying(&self) -> usize {
        self.roster.nodes().filter(|(_, record)| !is_removing(record)).count()
    }

    fn open(&self) -> usize {
        self.roster.groups().filter(|(group, record)| *group != Group::Meta && record.target.is_some()).count()
    }

    /// One round of the planner, and of some group's leader. `false`: nothing is left to do.
    fn step(&mut self) -> bool {
        let ops = next(&self.roster, &self.silent);
        let is_done = ops.is_empty();
        for op in ops {
            self.index += 1;
            if let MetaOp::Forget { node } = op {
                self.roster.forget(node).unwrap();
                continue;
            }
            let MetaOp::Retarget { group, voters, learners, leader, pinned } = op else {
                panic!("{op:?} is not for the planner");
            };
            self.roster.retarget(group, &voters, &learners, (leader, pinned), self.index).unwrap();
        }
        assert!(self.open() <= SHARDS_MOVING_MAX);
        let waiting: Vec<Group> = self
            .roster
            .groups()
            .filter(|(_, record)| record.target.is_some() || record.heard < record.targets)
            .map(|(group, _)| group)
            .collect();
        if waiting.is_empty() {
            return !is_done;
        }
        let group = waiting[(self.draws.u64() % waiting.len() as u64) as usize];
        self.index += 1;
        let (before, after) = (self.roster.group(group).unwrap(), as_meant(&self.roster, group, self.index));
        let must = if self.staying() >= REPLICAS { REPLICAS } else { 1 };
        assert!(after.members.voters.len() >= before.now.voters.len().min(must), "{before:?} to {after:?}");
        self.roster.configure(&after).unwrap();
        true
    }

    fn settle(&mut self) {
        for _ in 0..2_000 {
            if !self.step() {
                self.check();
                return;
            }
        }
        panic!("it goes on and on: {:?}", next(&self.roster, &self.silent));
    }

    /// What holds once nothing is left to do.
    fn check(&self) {
        let taking: BTreeSet<u64> =
            self.nodes().into_iter().filter(|node| takes(&self.roster, &self.silent, *node)).collect();
        let wanted = REPLICAS.min(self.staying());
        let mut held: BTreeMap<u64, usize> = taking.iter().map(|node| (*node, 0)).collect();
        for (group, record) in self.roster.groups() {
            let placed = on_nodes(&self.roster, &record.now);
            assert_eq!(record.target, None);
            let all: BTreeSet<u64> = placed.voters.union(&placed.learners).copied().collect();
            assert_eq!(all.len(), record.now.all().count(), "each on a node of its own");
            if group == Group::Meta {
                assert_eq!(all, self.nodes().into_iter().collect());
                assert_eq!(placed.voters.len(), [0, 1, 1, 3, 3, 5][self.staying().min(5)]);
            } else {
                assert_eq!(all.len(), wanted, "{group}");
                assert_eq!(placed.voters.len(), if wanted < REPLICAS { 1 } else { REPLICAS });
                let leader = record.leader.unwrap();
                assert!(placed.voters.contains(&leader));
                assert!(taking.contains(&leader) || placed.voters.is_disjoint(&taking), "{group} is led by {leader}");
                if taking.len() >= wanted {
                    assert!(all.is_subset(&taking), "{group} is on {all:?}");
                    all.iter().for_each(|node| *held.get_mut(node).unwrap() += 1);
                }
            }
        }
        for (replica, record) in self.roster.replicas() {
            assert!(self.roster.group(record.group).unwrap().now.contains(replica), "{record:?} has not left");
            assert!(!is_removing(self.roster.node(record.node).unwrap()));
        }
        if taking.len() >= wanted && self.zones == 1 {
            let (most, least) = (held.values().max().unwrap(), held.values().min().unwrap());
            assert!(most - least <= 1, "{held:?}");
        }
    }

    /// Whether every group could go on without those.
    fn has_quorums_without(&self, gone: &BTreeSet<u64>) -> bool {
        let all = now(&self.roster)
            .into_values()
            .chain(self.roster.groups().map(|(_, of)| on_nodes(&self.roster, of.meant())));
        all.into_iter().all(|placed| has_quorum(&placed.voters, |node| !gone.contains(&node)))
    }
}

#[test]
fn one_node_is_left_alone() {
    assert_eq!(next(&founded(16), &BTreeSet::new()), []);
}

#[test]
fn a_cluster_grows_from_one_node_to_five_drains_two_and_removes_them() {
    let mut world = World::of(16, 1, 7);
    for disk in 1..5 {
        world.join(disk);
        world.settle();
    }
    let five = world.nodes();
    for node in &five[3..] {
        let words = check_drain(&world.roster, *node, &BTreeSet::new()).unwrap();
        assert!(words.contains("replicas"), "{words}");
        world.stand(*node, NodeStanding::Draining);
    }
    world.settle();
    for node in &five[3..] {
        assert_eq!(world.roster.replicas_of(*node).count(), 1, "of the catalogue");
        let words = check_removal(&world.roster, *node, &BTreeSet::new(), false).unwrap();
        assert!(words.contains("0 replicas"), "{words}");
        world.stand(*node, NodeStanding::Removing);
    }
    world.settle();
    assert_eq!(world.nodes(), five[..3]);
    assert_eq!(world.roster.removed().count(), 2);
}

#[test]
fn with_nowhere_to_go_a_drained_node_keeps_its_replicas_and_leads_nothing() {
    for others in 1..3 {
        let mut world = World::of(8, 1, 3);
        for disk in 0..others {
            world.join(disk);
        }
        world.settle();
        let words = check_drain(&world.roster, 1, &BTreeSet::new()).unwrap();
        assert!(words.contains("nowhere"), "{words}");
        world.stand(1, NodeStanding::Draining);
        world.settle();
        assert_eq!(world.roster.replicas_of(1).count(), 9);
        assert!(world.roster.groups().all(|(_, record)| record.leader != Some(1)));
        let meta = world.roster.group(Group::Meta).unwrap();
        assert!(others == 1 || meta.leader.is_some(), "a voter that should not lead is not left to chance");
        let refused = check_removal(&world.roster, 1, &BTreeSet::new(), false).unwrap_err();
        assert!(refused.contains("--reduce-redundancy"), "{refused}");
        check_removal(&world.roster, 1, &BTreeSet::new(), true).unwrap();
        world.stand(1, NodeStanding::Removing);
        world.settle();
        assert_eq!(world.nodes().len() as u128, others);
    }
}

#[test]
fn what_a_silent_node_held_is_replaced_where_there_are_others_and_kept_where_not() {
    let mut world = World::of(8, 1, 5);
    let (two, three) = (world.join(2), world.join(3));
    world.settle();
    world.silent = [three].into();
    world.settle();
    assert_eq!(world.roster.replicas_of(three).count(), 9, "three nodes, three replicas");
    assert!(world.roster.groups().all(|(_, record)| record.leader != Some(three)));
    let four = world.join(4);
    world.settle();
    assert_eq!(world.roster.replicas_of(three).map(|(_, group)| group).collect::<Vec<_>>(), [Group::Meta]);
    assert_eq!(world.roster.replicas_of(four).count(), 9);
    let meta = &world.roster.group(Group::Meta).unwrap().now;
    assert_eq!(world.roster.nodes_of(&meta.voters), [1, two, four].into());
    world.silent.clear();
    world.settle();
}

#[test]
fn a_node_that_is_up_is_not_removed_and_nobody_costs_a_group_its_quorum() {
    let mut world = World::of(4, 1, 9);
    let nobody = BTreeSet::new();
    assert!(check_drain(&world.roster, 1, &nobody).unwrap_err().contains("only one"));
    assert!(check_drain(&world.roster, 9, &nobody).unwrap_err().contains("no node 9"));
    let two = world.join(2);
    world.settle();
    assert!(check_removal(&world.roster, two, &nobody, true).unwrap_err().contains("drain it first"));
    assert!(
        check_removal(&world.roster, 1, &[1].into(), true).unwrap_err().contains("quorum"),
        "only its own disk has it all"
    );
    let three = world.join(3);
    world.settle();
    let refused = check_drain(&world.roster, 1, &[two].into()).unwrap_err();
    assert!(refused.contains("would lose its quorum"), "{refused}");
    assert!(check_drain(&world.roster, 1, &[two, three].into()).unwrap_err().contains("only one"));
    assert!(check_removal(&world.roster, two, &[two].into(), false).unwrap_err().contains("--reduce-redundancy"));
    check_removal(&world.roster, two, &[two].into(), true).unwrap();
    assert!(check_removal(&world.roster, two, &[two, three].into(), true).unwrap_err().contains("quorum"));
    let four = world.join(4);
    world.settle();
    check_removal(&world.roster, two, &[two].into(), false).unwrap();
    world.stand(four, NodeStanding::Draining);
    let busy = world.roster.replicas_of(four).count() > 1;
    assert!(busy && check_removal(&world.roster, four, &nobody, false).unwrap_err().contains("drained still"));
}

#[test]
fn voters_of_the_catalogue_lie_in_different_zones_and_stay_where_they_are() {
    let mut world = World::of(2, 3, 4);
    for disk in [3, 4, 6, 7, 5] {
        // Zones 0, 1, 0, 1, 2; the founder's has no name.
        world.join(disk);
    }
    world.settle();
    let meta = &world.roster.group(Group::Meta).unwrap().now;
    let zones: Vec<_> = world
        .roster
        .nodes_of(&meta.voters)
        .into_iter()
        .map(|node| world.roster.node(node).unwrap().info.zone.clone())
        .collect();
    assert_eq!(zones.iter().collect::<BTreeSet<_>>().len(), 4, "{zones:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_nodes_do_it_comes_to_rest_evenly_with_few_moves_at_a_time(
        shards in 1_u16..12,
        zones in 1_u128..4,
        seed in any::<u64>(),
        deeds in prop::collection::vec((0_u8..6, any::<prop::sample::Index>(), 0_usize..12), 1..14),
    ) {
        let mut world = World::of(shards, zones, seed);
        for (disk, (deed, which, steps)) in (2_000_u128..).zip(deeds) {
            let nodes = world.nodes();
            let node = nodes[which.index(nodes.len())];
            match deed {
                0 | 1 if nodes.len() < 7 => {
                    world.join(disk);
                }
                2 => {
                    let deed = check_drain(&world.roster, node, &world.silent);
                    if deed.is_ok() {
                        world.stand(node, NodeStanding::Draining);
                    }
                }
                3 => {
                    if check_removal(&world.roster, node, &world.silent, true).is_ok() {
                        world.stand(node, NodeStanding::Removing);
                    }
                }
                4 => {
                    let mut silent = world.silent.clone();
                    silent.insert(node);
                    if world.has_quorums_without(&silent) {
                        world.silent = silent;
                    }
                }
                _ => world.silent.clear(),
            }
            for _ in 0..steps {
                world.step();
            }
        }
        world.settle();
    }
}
