//! Which nodes should hold a group's replicas, and which of them should lead: a pure function of the nodes and of what is, so that every
//! leader of the meta group plans the same, and no more moves than it must.
//!
//! A plan starts from what is: members on nodes that take none go; groups that lack members get them on the node with the fewest (in a
//! zone of its own if there is one); then one member at a time moves from the fullest node to the emptiest until no two differ by more
//! than one. Among equals rendezvous hashing decides, so that different groups prefer different nodes. Source of the hashing: Thaler
//! and Ravishankar, *Using name-based mappings to increase hit rates*, 1998.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// Replicas of a group where there are nodes enough.
pub const REPLICAS: usize = 3;

/// A node as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeat {
    /// Its id.
    pub node: u64,
    /// Nodes of one zone fail together.
    pub zone: String,
    /// Whether it may hold replicas: it is up, and not being drained.
    pub takes: bool,
}

/// Where a group's replicas are, or should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Nodes of its voters.
    pub voters: BTreeSet<u64>,
    /// Nodes of replicas that do not vote: with two nodes, so that one can be lost without losing what it held.
    pub learners: BTreeSet<u64>,
    /// The node that leads, or should.
    pub leader: Option<u64>,
}

/// Groups by number.
pub type Placement = BTreeMap<u64, Placed>;

/// What the placement should be, from what it is. O(groups × nodes) for each member that moves.
///
/// With one node every group has one voter, with two a voter and a learner, from three on three voters. Nodes differ by at most one in
/// members and, where their voters allow it, in leaders. Planning twice changes nothing more.
pub fn plan(nodes: &[NodeSeat], now: &Placement) -> Placement {
    let nodes: Vec<&NodeSeat> = nodes.iter().filter(|node| node.takes).collect();
    if nodes.is_empty() {
        return now.clone();
    }
    let mut members = Members { nodes: &nodes, of_group: BTreeMap::new() };
    for (group, placed) in now {
        let kept = placed.voters.iter().chain(&placed.learners).copied().filter(|node| members.takes(*node)).collect();
        members.of_group.insert(*group, kept);
    }
    members.fill(REPLICAS.min(nodes.len()));
    members.level();
    lead(&members, now)
}

struct Members<'a> {
    nodes: &'a [&'a NodeSeat],
    of_group: BTreeMap<u64, BTreeSet<u64>>,
}

impl Members<'_> {
    fn takes(&self, node: u64) -> bool {
        self.nodes.iter().any(|seat| seat.node == node)
    }

    fn zone(&self, node: u64) -> &str {
        self.nodes.iter().find(|seat| seat.node == node).map_or("", |seat| seat.zone.as_str())
    }

    fn loads(&self) -> BTreeMap<u64, usize> {
        let mut loads: BTreeMap<u64, usize> = self.nodes.iter().map(|seat| (seat.node, 0)).collect();
        for node in self.of_group.values().flatten() {
            *loads.entry(*node).or_default() += 1;
        }
        loads
    }

    /// How many of a group's members, but for one, are in the zone of `node`.
    fn neighbours(&self, members: &BTreeSet<u64>, node: u64, but: Option<u64>) -> usize {
        members.iter().filter(|other| Some(**other) != but && self.zone(**other) == self.zone(node)).count()
    }

    /// Gives every group so many members.
    fn fill(&mut self, replicas: usize) {
        let groups: Vec<u64> = self.of_group.keys().copied().collect();
        let mut loads = self.loads();
        for group in groups {
            let mut members = self.of_group.remove(&group).unwrap_or_default();
            while members.len() > replicas {
                // More than are wanted: the fullest node's goes, of a crowded zone first.
                let Some(gone) = members.iter().copied().max_by_key(|node| {
                    (self.neighbours(&members, *node, Some(*node)), loads[node], weight(group, *node))
                }) else {
                    break;
                };
                members.remove(&gone);
                *loads.entry(gone).or_default() -= 1;
            }
            while members.len() < replicas {
                let free = self.nodes.iter().map(|seat| seat.node).filter(|node| !members.contains(node));
                let Some(best) = free.min_by_key(|node| {
                    (self.neighbours(&members, *node, None), loads[node], u64::MAX - weight(group, *node))
                }) else {
                    break;
                };
                members.insert(best);
                *loads.entry(best).or_default() += 1;
            }
            self.of_group.insert(group, members);
        }
    }

    /// Moves members until no two nodes differ by more than one, as long as no zone gets crowded by it.
    fn level(&mut self) {
        loop {
            let loads = self.loads();
            let mut by_load: Vec<(usize, u64)> = loads.iter().map(|(node, load)| (*load, *node)).collect();
            by_load.sort_unstable();
            let pairs = by_load.iter().rev().flat_map(|full| by_load.iter().map(move |empty| (*full, *empty)));
            let mut wanted = pairs.filter(|((full, _), (empty, _))| *full > empty + 1);
            let Some((group, from, to)) = wanted.find_map(|((_, from), (_, to))| self.movable(from, to)) else {
                return;
            };
            let members = self.of_group.entry(group).or_default();
            members.remove(&from);
            members.insert(to);
        }
    }

    /// The group whose member may best move from one node to another.
    fn movable(&self, from: u64, to: u64) -> Option<(u64, u64, u64)> {
        let has_one = |members: &BTreeSet<u64>| members.contains(&from) && !members.contains(&to);
        let candidates = self.of_group.iter().filter(|(_, members)| {
            has_one(members) && self.neighbours(members, to, Some(from)) <= self.neighbours(members, from, Some(from))
        });
        candidates.max_by_key(|(group, _)| weight(**group, to)).map(|(group, _)| (*group, from, to))
    }
}

/// Chooses voters and leaders: who leads now goes on, unless another node leads too few.
fn lead(members: &Members<'_>, now: &Placement) -> Placement {
    let mut plan = Placement::new();
    for (group, nodes) in &members.of_group {
        let before = now.get(group);
        let leads = before.and_then(|placed| placed.leader).filter(|leader| nodes.contains(leader));
        let mut placed = Placed { voters: nodes.clone(), learners: BTreeSet::new(), leader: leads };
        if nodes.len() == 2 {
            // Two voters would stand still without either: one votes, the other follows.
            let is_voter = |node: &&u64| before.is_some_and(|placed| placed.voters.contains(node));
            let voter = leads.or_else(|| nodes.iter().find(is_voter).copied());
            let voter = voter.or_else(|| nodes.iter().copied().max_by_key(|node| weight(*group, *node)));
            placed.voters = voter.into_iter().collect();
            placed.learners = nodes.difference(&placed.voters).copied().collect();
        }
        placed.leader = placed.leader.filter(|leader| placed.voters.contains(leader));
        plan.insert(*group, placed);
    }
    let mut leaders: BTreeMap<u64, usize> = members.nodes.iter().map(|seat| (seat.node, 0)).collect();
    for placed in plan.values() {
        if let Some(leader) = placed.leader {
            *leaders.entry(leader).or_default() += 1;
        }
    }
    for (group, placed) in plan.iter_mut().filter(|(_, placed)| placed.leader.is_none()) {
        let next = placed.voters.iter().copied().min_by_key(|node| (leaders[node], u64::MAX - weight(*group, *node)));
        placed.leader = next;
        *leaders.entry(next.unwrap_or_default()).or_default() += 1;
    }
    while let Some(chain) = chain(&plan, &leaders) {
        for (group, to) in chain {
            let Some(placed) = plan.get_mut(&group) else { continue };
            if let Some(from) = placed.leader.replace(to) {
                *leaders.entry(from).or_default() -= 1;
            }
            *leaders.entry(to).or_default() += 1;
        }
    }
    plan
}

/// The shortest chain of handings over that takes a leadership from a node that leads two more than the one it ends at.
fn chain(plan: &Placement, leaders: &BTreeMap<u64, usize>) -> Option<Vec<(u64, u64)>> {
    let most = leaders.values().copied().max()?;
    for start in leaders.iter().filter(|(_, count)| **count == most).map(|(node, _)| *node) {
        let mut came_by: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(node) = queue.pop_front() {
            if leaders[&node] + 1 < most {
                let (mut chain, mut at) = (Vec::new(), node);
                while at != start {
                    let (group, from) = came_by[&at];
                    chain.push((group, at));
                    at = from;
                }
                return Some(chain);
            }
            for (group, placed) in plan.iter().filter(|(_, placed)| placed.leader == Some(node)) {
                for to in placed.voters.iter().filter(|to| **to != node && **to != start) {
                    came_by.entry(*to).or_insert_with(|| {
                        queue.push_back(*to);
                        (*group, node)
                    });
                }
            }
        }
    }
    None
}

/// A group's liking for a node.
fn weight(group: u64, node: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(group, 0);
    hasher.write_u64(node);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(count: u64, zones: u64) -> Vec<NodeSeat> {
        let seat = |node| NodeSeat { node, zone: format!("z{}", node % zones), takes: true };
        (1..=count).map(seat).collect()
    }

    fn founded(groups: u64) -> Placement {
        let alone = Placed { voters: [1].into(), learners: BTreeSet::new(), leader: Some(1) };
        (0..groups).map(|group| (group, alone.clone())).collect()
    }

    fn spread(counts: impl Iterator<Item = usize>) -> usize {
        let counts: Vec<usize> = counts.collect();
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    fn members(placement: &Placement, node: u64) -> usize {
        placement.values().filter(|placed| placed.voters.contains(&node) || placed.learners.contains(&node)).count()
    }

    fn leads(placement: &Placement, node: u64) -> usize {
        placement.values().filter(|placed| placed.leader == Some(node)).count()
    }

    fn moved(from: &Placement, to: &Placement) -> usize {
        let all = |placed: &Placed| placed.voters.union(&placed.learners).copied().collect::<BTreeSet<u64>>();
        to.iter().map(|(group, placed)| all(placed).difference(&all(&from[group])).count()).sum()
    }

    #[test]
    fn a_cluster_grows_from_one_node_to_five_and_shrinks_again() {
        let one = plan(&nodes(1, 1), &founded(16));
        assert_eq!(one, founded(16));
        let two = plan(&nodes(2, 2), &one);
        assert!(two.values().all(|placed| placed.voters == [1].into() && placed.learners == [2].into()));
        let three = plan(&nodes(3, 3), &two);
        assert!(three.values().all(|placed| placed.voters.len() == 3 && placed.learners.is_empty()));
        assert!(spread((1..=3).map(|node| leads(&three, node))) <= 1);
        let five = plan(&nodes(5, 5), &three);
        assert!(spread((1..=5).map(|node| members(&five, node))) <= 1);
        assert!(spread((1..=5).map(|node| leads(&five, node))) <= 1);
        assert_eq!(moved(&three, &five), members(&five, 4) + members(&five, 5), "only what the new nodes get");
        let mut shrinking = nodes(5, 5);
        shrinking.iter_mut().filter(|seat| seat.node > 3).for_each(|seat| seat.takes = false);
        let back = plan(&shrinking, &five);
        assert!(back.values().all(|placed| placed.voters == [1, 2, 3].into()));
        assert!(spread((1..=3).map(|node| leads(&back, node))) <= 1);
    }

    #[test]
    fn replicas_of_a_group_lie_in_different_zones_while_there_are_zones() {
        let plan = plan(&nodes(6, 3), &founded(32));
        for placed in plan.values() {
            let zones: BTreeSet<u64> = placed.voters.iter().map(|node| node % 3).collect();
            assert_eq!(zones.len(), 3, "{placed:?}");
        }
        assert!(spread((1..=6).map(|node| members(&plan, node))) <= 1);
    }

    proptest! {
        #[test]
        fn plans_are_even_whole_stable_and_touch_only_nodes_that_take(
            count in 1_u64..9,
            zones in 1_u64..5,
            groups in 1_u64..40,
            steps in prop::collection::vec((1_u64..9, any::<bool>()), 0..6),
        ) {
            let mut seats = nodes(count, zones);
            let mut placement = plan(&seats, &founded(groups));
            for (which, takes) in steps {
                if let Some(seat) = seats.iter_mut().find(|seat| seat.node == which) {
                    seat.takes = takes;
                }
                if seats.iter().all(|seat| !seat.takes) {
                    seats[0].takes = true;
                }
                placement = plan(&seats, &placement);
                let taking: Vec<u64> = seats.iter().filter(|seat| seat.takes).map(|seat| seat.node).collect();
                for placed in placement.values() {
                    let expected = match taking.len() { 1 => (1, 0), 2 => (1, 1), _ => (3, 0) };
                    prop_assert_eq!((placed.voters.len(), placed.learners.len()), expected);
                    prop_assert!(placed.voters.iter().chain(&placed.learners).all(|node| taking.contains(node)));
                    prop_assert!(placed.voters.contains(&placed.leader.unwrap()));
                }
                if zones == 1 || taking.len() <= 3 {
                    prop_assert!(spread(taking.iter().map(|node| members(&placement, *node))) <= 1);
                }
                if taking.len() > 2 {
                    let leaders = spread(taking.iter().map(|node| leads(&placement, *node)));
                    // Every node can be reached from every other over groups they share.
                    prop_assert!(zones > 1 || leaders <= 1, "{}", leaders);
                }
                prop_assert_eq!(&plan(&seats, &placement), &placement, "planning again changes nothing");
            }
        }
    }
}
