//! What should become of the roster, and the next entries towards it: a pure function, so that every leader of the meta group plans the
//! same. Few groups change at a time; which replicas they get is decided by [`placement`](crate::placement).
//!
//! Nodes that are drained or silent give up what they hold, as long as that leaves no group with fewer replicas than there are nodes
//! for; where it would, they keep it and give up their leaderships only. Nodes that are removed keep nothing.

use std::collections::{BTreeMap, BTreeSet};

use proffer_engine::keys::ShardId;

use crate::group::Group;
use crate::limits::{LEADERS_MOVED_PER_ROUND, SHARDS_MOVING_MAX};
use crate::meta::command::MetaOp;
use crate::meta::roster::{Members, NodeRecord, NodeStanding, Roster};
use crate::placement::{self, NodeSeat, Placed, Placement, REPLICAS};

/// What each group's members and leader should be, by nodes.
pub type Wanted = BTreeMap<Group, Placed>;

/// The next entries towards what is wanted; none if nothing is to be done, or nothing can be begun before something has ended.
/// `silent`: nodes that have not been heard for so long that what they hold is to be replaced. O(groups × nodes) for each replica that moves.
pub fn next(roster: &Roster, silent: &BTreeSet<u64>) -> Vec<MetaOp> {
    let wanted = wanted(roster, silent);
    let mut ops: Vec<MetaOp> = roster
        .nodes()
        .filter(|(node, record)| is_removing(record) && roster.replicas_of(*node).next().is_none())
        .map(|(node, _)| MetaOp::Forget { node })
        .collect();
    ops.extend(Some(roster.able_all()).filter(|level| *level > roster.level()).map(MetaOp::Level));
    let mut differing = Vec::new();
    let mut led_otherwise = Vec::new();
    for (group, placed) in &wanted {
        let Some(record) = roster.group(*group) else { continue };
        let meant = on_nodes(roster, record.meant());
        if !has_quorum(&roster.nodes_of(&record.now.voters), |node| !silent.contains(&node)) {
            // Nobody could carry it out.
            continue;
        }
        if (&placed.voters, &placed.learners) != (&meant.voters, &meant.learners) {
            let is_open = record.target.is_some();
            let is_hurt = meant.voters.iter().any(|node| !takes(roster, silent, *node));
            differing.push((!is_open, !is_hurt, *group, placed));
        } else if placed.leader != record.leader {
            let is_led_by_unfit = record.leader.is_some_and(|leader| !takes(roster, silent, leader));
            led_otherwise.push((is_led_by_unfit, *group, placed));
        }
    }
    // Targets that are open already need no room; then those that lack something go first.
    differing.sort_by_key(|(is_new, is_whole, group, _)| (*is_new, *is_whole, *group));
    let is_moving = !differing.iter().all(|(.., group, _)| *group == Group::Meta);
    let open = roster.groups().filter(|(group, record)| *group != Group::Meta && record.target.is_some()).count();
    let mut room = SHARDS_MOVING_MAX.saturating_sub(open);
    for (is_new, _, group, placed) in differing {
        if is_new && group != Group::Meta {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        ops.push(retarget(roster, group, placed));
    }
    // Who leads is levelled once everybody is in place; only who should not lead at all goes before.
    let led = led_otherwise.into_iter().filter(|(is_led_by_unfit, ..)| *is_led_by_unfit || !is_moving && open == 0);
    ops.extend(led.take(LEADERS_MOVED_PER_ROUND).map(|(_, group, placed)| retarget(roster, group, placed)));
    ops
}

fn retarget(roster: &Roster, group: Group, placed: &Placed) -> MetaOp {
    let Placed { voters, learners, leader } = placed.clone();
    let pinned = roster.group(group).is_some_and(|record| record.pinned && record.leader == leader);
    MetaOp::Retarget { group, voters, learners, leader, pinned }
}

/// What everything comes to in the end, if no node changes meanwhile.
pub fn wanted(roster: &Roster, silent: &BTreeSet<u64>) -> Wanted {
    let mut wanted = shards(roster, silent);
    wanted.extend(meta(roster, silent).map(|placed| (Group::Meta, placed)));
    wanted
}

fn is_removing(record: &NodeRecord) -> bool {
    record.standing == NodeStanding::Removing
}

/// Whether a node may be given replicas and leaderships.
fn takes(roster: &Roster, silent: &BTreeSet<u64>, node: u64) -> bool {
    roster.node(node).is_some_and(|record| record.standing == NodeStanding::Up) && !silent.contains(&node)
}

fn on_nodes(roster: &Roster, members: &Members) -> Placed {
    Placed { voters: roster.nodes_of(&members.voters), learners: roster.nodes_of(&members.learners), leader: None }
}

/// Whether those of the voters that are alive are more than half.
fn has_quorum(voters: &BTreeSet<u64>, is_alive: impl Fn(u64) -> bool) -> bool {
    2 * voters.iter().filter(|node| is_alive(**node)).count() > voters.len()
}

/// How little a node is fit to hold or lead anything: what is smaller is better.
fn unfitness(record: &NodeRecord, is_silent: bool) -> u8 {
    match (record.standing, is_silent) {
        (NodeStanding::Up, false) => 0,
        (NodeStanding::Draining, false) => 1,
        (NodeStanding::Up | NodeStanding::Draining, true) => 2,
        (NodeStanding::Removing, _) => 3,
    }
}

fn shards(roster: &Roster, silent: &BTreeSet<u64>) -> Wanted {
    let mut now = Placement::new();
    for (group, record) in roster.groups() {
        let Group::Shard(shard) = group else { continue };
        let placed = Placed { leader: record.leader, ..on_nodes(roster, record.meant()) };
        now.insert(u64::from(shard.0), placed);
    }
    let mut held: BTreeMap<u64, usize> = BTreeMap::new();
    for node in now.values().flat_map(|placed| placed.voters.iter().chain(&placed.learners)) {
        *held.entry(*node).or_default() += 1;
    }
    // The fittest, and of the others only so many that no group gets fewer replicas for want of nodes.
    let mut holding: Vec<(u8, usize, u64)> = roster
        .nodes()
        .filter(|(_, record)| !is_removing(record))
        .map(|(node, record)| {
            let most_first = usize::MAX - held.get(&node).copied().unwrap_or(0);
            (unfitness(record, silent.contains(&node)), most_first, node)
        })
        .collect();
    holding.sort_unstable();
    let needed = REPLICAS.min(holding.len());
    let chosen: BTreeSet<u64> = holding
        .iter()
        .enumerate()
        .filter(|(place, (unfitness, ..))| *unfitness == 0 || *place < needed)
        .map(|(_, (.., node))| *node)
        .collect();
    let seats: Vec<NodeSeat> = roster
        .nodes()
        .map(|(node, record)| NodeSeat { node, zone: record.info.zone.clone(), takes: chosen.contains(&node) })
        .collect();
    let mut plan = placement::plan(&seats, &now);
    let is_fit = |node: &u64| takes(roster, silent, *node);
    for (group, record) in roster.groups().filter(|(_, record)| record.pinned) {
        let Group::Shard(shard) = group else { continue };
        let Some(placed) = plan.get_mut(&u64::from(shard.0)) else { continue };
        placed.leader = record.leader.filter(|leader| placed.voters.contains(leader)).or(placed.leader);
    }
    lead_by_fit(&mut plan, is_fit, |node| silent.contains(node));
    plan.into_iter()
        .filter_map(|(number, placed)| Some((Group::Shard(ShardId(u16::try_from(number).ok()?)), placed)))
        .collect()
}

/// Takes leaderships from nodes that should not lead, where another member can.
fn lead_by_fit(plan: &mut Placement, is_fit: impl Fn(&u64) -> bool, is_silent: impl Fn(&u64) -> bool) {
    let mut leads: BTreeMap<u64, usize> = BTreeMap::new();
    for leader in plan.values().filter_map(|placed| placed.leader) {
        *leads.entry(leader).or_default() += 1;
    }
    for placed in plan.values_mut() {
        if placed.leader.as_ref().is_some_and(&is_fit) {
            continue;
        }
        let voter = placed.voters.first().copied().filter(|voter| placed.voters.len() == 1 && !is_silent(voter));
        if let (Some(voter), Some(other)) = (voter, placed.learners.iter().copied().find(&is_fit)) {
            // Of two, the other votes from now on.
            placed.voters = [other].into();
            placed.learners.remove(&other);
            placed.learners.insert(voter);
        }
        let fit = placed.voters.iter().copied().filter(&is_fit);
        if let Some(next) = fit.min_by_key(|node| leads.get(node).copied().unwrap_or(0)) {
            *leads.entry(next).or_default() += 1;
            placed.leader = Some(next);
        }
    }
}

/// The meta group: every node has a replica, as long as it has any other; one, three or five of them vote.
fn meta(roster: &Roster, silent: &BTreeSet<u64>) -> Option<Placed> {
    let record = roster.group(Group::Meta)?;
    let meant = on_nodes(roster, record.meant());
    let staying = roster.nodes().filter(|(_, record)| !is_removing(record)).count();
    let wanted = match staying {
        // What is left of a cluster that is given up stays as it is.
        0 => return None,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    };
    let unfitness_of =
        |node: u64| roster.node(node).map_or(u8::MAX, |record| unfitness(record, silent.contains(&node)));
    let zone_of = |node: u64| roster.node(node).map_or("", |record| record.info.zone.as_str());
    let holds_shards = |node| roster.replicas_of(node).any(|(_, group)| group != Group::Meta);
    let mut others: BTreeSet<u64> = roster
        .nodes()
        .filter(|(node, record)| !is_removing(record) || holds_shards(*node))
        .map(|(node, _)| node)
        .collect();
    let mut voters = BTreeSet::new();
    while voters.len() < wanted {
        let neighbours = |node: u64| voters.iter().filter(|voter| zone_of(**voter) == zone_of(node)).count();
        let rank = |node: &u64| (unfitness_of(*node), !meant.voters.contains(node), neighbours(*node), *node);
        let Some(best) = others.iter().copied().min_by_key(rank) else { break };
        others.remove(&best);
        voters.insert(best);
    }
    let is_fit = |node: &u64| takes(roster, silent, *node);
    let kept = record.leader.filter(|leader| voters.contains(leader) && is_fit(leader));
    // Anybody may lead it, unless there are voters that should not.
    let leader = kept.or_else(|| if voters.iter().all(is_fit) { None } else { voters.iter().copied().find(is_fit) });
    Some(Placed { voters, learners: others, leader })
}

/// Whether a node may be drained, and what that comes to, in words for an operator. `gone`: nodes that are not heard at present.
///
/// # Errors
/// Why not.
pub fn check_drain(roster: &Roster, node: u64, gone: &BTreeSet<u64>) -> Result<String, String> {
    let record = roster.node(node).ok_or_else(|| format!("there is no node {node}"))?;
    match record.standing {
        NodeStanding::Removing => return Err(format!("node {node} is being removed")),
        NodeStanding::Draining | NodeStanding::Up => {}
    }
    check_company(roster, node, gone)?;
    let is_alive = |voter: u64| !gone.contains(&voter);
    check_quorums(&now(roster), is_alive, |group| format!("{group} has no quorum: nothing of it can be moved"))?;
    let after = settled(roster, node, NodeStanding::Draining, gone);
    let without = |voter: u64| is_alive(voter) && voter != node;
    check_quorums(&after, without, |group| format!("without node {node}, {group} would lose its quorum"))?;
    let holds = |wanted: &Wanted| {
        shards_with(wanted, |placed| placed.voters.contains(&node) || placed.learners.contains(&node))
    };
    let leads = roster.groups().filter(|(_, record)| record.leader == Some(node)).count();
    Ok(match (holds(&now(roster)), holds(&after)) {
        (_, 1..) => format!(
            "there is nowhere to move the replicas of node {node}: it gives up {leads} leaderships, and nothing else"
        ),
        (replicas, 0) => format!("node {node} gives up {leads} leaderships and {replicas} replicas"),
    })
}

/// Whether a node may be removed, and what that comes to, in words for an operator. `gone`: nodes that are not heard at present.
///
/// # Errors
/// Why not.
pub fn check_removal(
    roster: &Roster,
    node: u64,
    gone: &BTreeSet<u64>,
    reduce_redundancy: bool,
) -> Result<String, String> {
    let record = roster.node(node).ok_or_else(|| format!("there is no node {node}"))?;
    let is_dead = gone.contains(&node);
    match record.standing {
        NodeStanding::Removing => return Ok(format!("node {node} is being removed already")),
        NodeStanding::Up if !is_dead => return Err(format!("node {node} is up: drain it first")),
        NodeStanding::Up | NodeStanding::Draining => {}
    }
    check_company(roster, node, gone)?;
    let (before, after) = (now(roster), settled(roster, node, NodeStanding::Removing, gone));
    let members = |placed: &Placed| placed.voters.len() + placed.learners.len();
    let fewer = before
        .iter()
        .filter(|(group, placed)| {
            **group != Group::Meta && after.get(*group).is_some_and(|after| members(after) < members(placed))
        })
        .count();
    let held = shards_with(&before, |placed| placed.voters.contains(&node) || placed.learners.contains(&node));
    if fewer > 0 && !reduce_redundancy {
        return Err(format!(
            "{fewer} shards would have fewer replicas than now: add a node first, or accept that with --reduce-redundancy"
        ));
    }
    if fewer == 0 && held > 0 && !is_dead {
        return Err(format!("node {node} is being drained still: {held} replicas are left"));
    }
    let is_alive = |voter: u64| !gone.contains(&voter);
    let words = |group: Group| format!("without node {node}, {group} would lose its quorum");
    check_quorums(&before, is_alive, words)?;
    check_quorums(&after, |voter| is_alive(voter) && voter != node, words)?;
    Ok(format!("node {node} is removed, with {held} replicas"))
}

/// Whether a node may be made a group's leader. `gone`: nodes that are not heard at present.
///
/// # Errors
/// Why not.
pub fn check_transfer(roster: &Roster, group: Group, node: u64, gone: &BTreeSet<u64>) -> Result<(), String> {
    let record = roster.group(group).ok_or_else(|| format!("there is no {group}"))?;
    roster.node(node).ok_or_else(|| format!("there is no node {node}"))?;
    if !takes(roster, gone, node) {
        return Err(format!("node {node} is not fit to lead: it is drained, removed or not heard"));
    }
    let votes = |members: &Members| roster.nodes_of(&members.voters).contains(&node);
    if votes(&record.now) && votes(record.meant()) {
        Ok(())
    } else {
        Err(format!("node {node} has no voter of {group}"))
    }
}

/// What there is to do until all is even, in words for an operator.
pub fn outlook(roster: &Roster, silent: &BTreeSet<u64>) -> String {
    let mut free = roster.clone();
    free.unpin();
    let (mut moving, mut led) = (0, 0);
    for (group, placed) in wanted(&free, silent).into_iter().filter(|(group, _)| *group != Group::Meta) {
        let Some(record) = roster.group(group) else { continue };
        let is = on_nodes(roster, &record.now);
        moving += usize::from((&is.voters, &is.learners) != (&placed.voters, &placed.learners));
        led += usize::from(record.leader != placed.leader);
    }
    match (moving, led) {
        (0, 0) => "everything is even".to_owned(),
        (moving, led) => format!("replicas of {moving} shards move, and the leaderships of {led}"),
    }
}

/// Somebody has to be there besides.
fn check_company(roster: &Roster, node: u64, gone: &BTreeSet<u64>) -> Result<(), String> {
    let is_company =
        |(other, record): (u64, &NodeRecord)| other != node && !is_removing(record) && !gone.contains(&other);
    if roster.nodes().any(is_company) { Ok(()) } else { Err(format!("node {node} is the only one that is there")) }
}

fn check_quorums(
    groups: &Wanted,
    is_alive: impl Fn(u64) -> bool,
    words: impl Fn(Group) -> String,
) -> Result<(), String> {
    match groups.iter().find(|(_, placed)| !has_quorum(&placed.voters, &is_alive)) {
        Some((group, _)) => Err(words(*group)),
        None => Ok(()),
    }
}

fn shards_with(groups: &Wanted, is_one: impl Fn(&Placed) -> bool) -> usize {
    groups.iter().filter(|(group, placed)| **group != Group::Meta && is_one(placed)).count()
}

fn now(roster: &Roster) -> Wanted {
    roster.groups().map(|(group, record)| (group, on_nodes(roster, &record.now))).collect()
}

/// What all comes to if that became of a node.
fn settled(roster: &Roster, node: u64, standing: NodeStanding, gone: &BTreeSet<u64>) -> Wanted {
    let mut roster = roster.clone();
    match roster.set_standing(node, standing) {
        Ok(()) => wanted(&roster, gone),
        Err(_) => now(&roster),
    }
}

#[cfg(test)]
mod tests;
