//! What entries do to the roster, and its bytes.

use proffer_engine::codec;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::command::Leader;

use super::*;
use crate::identity::{FIRST_REPLICA, FOUNDER};

/// What a node on this disk says at this start.
pub(in crate::meta) fn says(disk: u128, boots: u64) -> NodeInfo {
    let (peer_address, http_address) = (format!("n{disk}:7000"), format!("n{disk}:8000"));
    NodeInfo { disk, boots, peer_address, http_address, zone: String::new() }
}

/// A roster of a node, found in entry 2.
pub(in crate::meta) fn founded(shards: u16) -> Roster {
    let mut roster = Roster::default();
    assert_eq!(roster.enroll(&says(101, 1), shards, 2), Ok((1, 1)));
    roster
}

/// What a group's leader would report once the group is as it is meant to be.
pub(in crate::meta) fn as_meant(roster: &Roster, group: Group, index: u64) -> Configured {
    let record = roster.group(group).unwrap();
    let at = Position { leader: Leader { term: 1, replica: 1 }, index };
    Configured { group, members: record.meant().clone(), at, targets: record.targets }
}

const SHARD: Group = Group::Shard(ShardId(0));

fn set<const N: usize>(nodes: [u64; N]) -> BTreeSet<u64> {
    nodes.into()
}

#[test]
fn the_first_node_founds_with_a_replica_of_each_group() {
    let roster = founded(3);
    assert_eq!(roster.replicas_of(1).map(|(replica, _)| replica).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(roster.replica_on(Group::Shard(ShardId(2)), 1), Some(4));
    assert_eq!(roster.group(SHARD).unwrap().now.voters, set([2]));
    assert_eq!(roster.group(SHARD).unwrap().leader, Some(1));
    assert!(Roster::default().enroll(&says(1, 1), 0, 1).unwrap_err().contains("not founded"));
}

#[test]
fn a_later_node_gets_ids_of_its_entry_and_a_learner_of_the_catalogue() {
    let mut roster = founded(3);
    assert_eq!(roster.enroll(&says(102, 1), 3, 9), Ok((9 * 65_536, 9 * 65_536 + 1)));
    assert_eq!(roster.enroll(&says(103, 1), 3, 9), Ok((9 * 65_536 + 2, 9 * 65_536 + 3)));
    let target = roster.group(Group::Meta).unwrap().target.clone().unwrap();
    assert_eq!((target.voters, target.learners), (set([1]), set([9 * 65_536 + 1, 9 * 65_536 + 3])));
    assert!(!roster.has_left(9 * 65_536 + 1) && roster.has_left(9 * 65_536) && !roster.has_left(9 * 65_536 + 4));
}

#[test]
fn a_disk_is_the_same_node_while_its_starts_count_up() {
    let mut roster = founded(1);
    let joined = roster.enroll(&says(102, 3), 1, 5);
    let before = roster.clone();
    assert_eq!(roster.enroll(&says(102, 3), 1, 6), joined);
    assert_eq!(roster, before, "said twice");
    let moved = NodeInfo { peer_address: "elsewhere:7000".to_owned(), zone: "z".to_owned(), ..says(102, 4) };
    assert_eq!(roster.enroll(&moved, 1, 7), joined);
    assert_eq!(roster.node(joined.clone().unwrap().0).unwrap().info, moved);
    assert!(roster.knows_start(102, 4) && !roster.knows_start(102, 3));
    assert!(roster.enroll(&says(102, 3), 1, 8).unwrap_err().contains("older copy"));
    assert!(roster.enroll(&says(102, 4), 1, 8).unwrap_err().contains("copied"));
}

#[test]
fn addresses_that_are_none_are_barred() {
    let mut roster = founded(1);
    for wrong in ["", "nowhere", ":1", "a:0", "a:70000", "a b:1", &format!("{}:1", "a".repeat(255))] {
        let info = NodeInfo { peer_address: wrong.to_owned(), ..says(7, 1) };
        assert!(roster.enroll(&info, 1, 9).unwrap_err().contains("peer address"), "{wrong}");
        let info = NodeInfo { http_address: wrong.to_owned(), ..says(7, 1) };
        assert!(roster.enroll(&info, 1, 9).unwrap_err().contains("http address"), "{wrong}");
    }
    let info = NodeInfo { zone: "a\nb".to_owned(), ..says(7, 1) };
    assert!(roster.enroll(&info, 1, 9).unwrap_err().contains("zone"));
    assert_eq!(roster, founded(1));
    let alone = NodeInfo { peer_address: String::new(), http_address: String::new(), ..says(101, 2) };
    assert_eq!(roster.enroll(&alone, 1, 9), Ok((1, 1)), "one that is alone need not be reached");
}

#[test]
fn a_target_places_replicas_and_the_leaders_report_ends_it() {
    let mut roster = founded(1);
    let (node, _) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    assert!(roster.retarget(SHARD, &set([1]), &set([77]), (None, false), 6).unwrap_err().contains("no node 77"));
    assert!(roster.retarget(SHARD, &set([]), &set([1]), (None, false), 6).is_err());
    assert!(roster.retarget(SHARD, &set([1]), &set([1]), (None, false), 6).is_err());
    assert!(roster.retarget(Group::Shard(ShardId(9)), &set([1]), &set([]), (None, false), 6).is_err());
    assert!(roster.retarget(SHARD, &set([1]), &set([node]), (Some(node), false), 6).unwrap_err().contains("no voter"));
    roster.retarget(SHARD, &set([1, node]), &set([]), (Some(node), false), 7).unwrap();
    let placed = roster.replica_on(SHARD, node).unwrap();
    assert_eq!(placed, 7 * 65_536);
    assert_eq!(roster.group(SHARD).unwrap().target.as_ref().unwrap().voters, set([2, placed]));
    roster.configure(&as_meant(&roster, SHARD, 4)).unwrap();
    let record = roster.group(SHARD).unwrap();
    assert_eq!((record.target.as_ref(), &record.now.voters), (None, &set([2, placed])));
    assert!(roster.configure(&as_meant(&roster, SHARD, 4)).is_err(), "said already");
    assert!(roster.configure(&as_meant(&roster, SHARD, 3)).is_err(), "older");
    roster.retarget(SHARD, &set([1, node]), &set([]), (None, false), 8).unwrap();
    assert_eq!(roster.group(SHARD).unwrap().target, None, "it is so already");
}

#[test]
fn replicas_leave_only_when_a_leader_that_knew_of_the_newest_target_says_so() {
    let mut roster = founded(1);
    let (node, _) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    roster.retarget(SHARD, &set([1]), &set([node]), (None, false), 6).unwrap();
    let old = as_meant(&roster, SHARD, 4);
    let placed = roster.replica_on(SHARD, node).unwrap();
    roster.retarget(SHARD, &set([1]), &set([]), (None, false), 7).unwrap();
    assert_eq!(roster.group(SHARD).unwrap().target, None);
    roster.configure(&old).unwrap();
    assert_eq!(roster.node_of(placed), Some(node), "the leader had not heard that it should go");
    roster.retarget(SHARD, &set([1]), &set([]), (None, false), 8).unwrap();
    roster.configure(&as_meant(&roster, SHARD, 5)).unwrap();
    assert!(roster.has_left(placed));
    roster.retarget(SHARD, &set([1]), &set([node]), (None, false), 9).unwrap();
    roster.retarget(SHARD, &set([1]), &set([]), (None, false), 10).unwrap();
    let same = as_meant(&roster, SHARD, 5);
    roster.configure(&same).unwrap();
    assert_eq!(roster.replicas_of(node).count(), 1, "nothing was changed, but the leader knows that nothing is to be");
}

#[test]
fn a_leader_that_knew_an_older_target_only_is_not_judged_by_the_newest_one() {
    let mut roster = founded(1);
    let (node, _) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    roster.retarget(SHARD, &set([1]), &set([node]), (None, false), 6).unwrap();
    let placed = roster.replica_on(SHARD, node).unwrap();
    let older = roster.group(SHARD).unwrap().targets;
    roster.retarget(SHARD, &set([1]), &set([]), (None, false), 7).unwrap();
    let (third, _) = roster.enroll(&says(103, 1), 1, 8).unwrap();
    roster.retarget(SHARD, &set([1]), &set([third]), (None, false), 9).unwrap();
    let added = roster.replica_on(SHARD, third).unwrap();
    roster.configure(&as_meant(&roster, SHARD, 4)).unwrap();
    assert!(roster.has_left(placed), "the leader knew of the newest target");
    // Another leader, whose roster is behind, does what that says: the replica is taken in that has left, the other one put out.
    let behind = Configured {
        group: SHARD,
        members: Members { voters: set([2]), learners: set([placed]) },
        at: Position { leader: Leader { term: 2, replica: 1 }, index: 6 },
        targets: older,
    };
    roster.configure(&behind).unwrap();
    assert_eq!(roster.node_of(added), Some(third), "its leader has not heard that it should go, or stay");
    let record = roster.group(SHARD).unwrap();
    assert_eq!(record.now.learners, set([placed]));
    assert_eq!(record.meant(), &Members { voters: set([2]), learners: set([]) }, "what is nowhere is configured out");
    let at = Position { index: 8, ..behind.at };
    roster.configure(&Configured { at, ..as_meant(&roster, SHARD, 8) }).unwrap();
    let record = roster.group(SHARD).unwrap();
    assert_eq!((record.target.as_ref(), &record.now.learners), (None, &set([])));
    assert!(roster.has_left(added), "a leader that knows the newest target says so");
}

#[test]
fn what_a_node_has_given_up_is_replaced_on_it_once_and_leaves_when_the_leader_says_so() {
    let mut roster = founded(2);
    let (two, meta) = roster.enroll(&says(102, 1), 2, 5).unwrap();
    let (three, _) = roster.enroll(&says(103, 1), 2, 5).unwrap();
    for group in [SHARD, Group::Shard(ShardId(1))] {
        roster.retarget(group, &set([1, two, three]), &set([]), (None, false), 6).unwrap();
        roster.configure(&as_meant(&roster, group, 7)).unwrap();
    }
    roster.configure(&as_meant(&roster, Group::Meta, 7)).unwrap();
    let held = |roster: &Roster| roster.replicas_of(two).collect::<Vec<_>>();
    let olds = held(&roster);
    let given_up: BTreeMap<Group, u64> = olds.iter().map(|(replica, group)| (*group, *replica)).collect();
    assert!(roster.replace(999, &given_up, 9).unwrap_err().contains("no node"));
    assert_eq!(roster.replace(103, &given_up, 9).map(|(node, _)| node), Ok(three));
    assert_eq!(held(&roster), olds, "each node speaks for itself");
    let (node, new) = roster.replace(102, &given_up, 9).unwrap();
    assert_eq!((node, roster.replica_on(Group::Meta, two)), (two, Some(new)));
    assert!(new > meta && roster.group(Group::Meta).unwrap().meant().learners.contains(&new));
    assert_eq!(held(&roster).len(), 6, "the old ones are members still");
    let target = roster.group(SHARD).unwrap().target.clone().unwrap();
    let newest = roster.replica_on(SHARD, two).unwrap();
    assert!(target.voters.contains(&newest) && !target.voters.contains(&given_up[&SHARD]) && target.voters.len() == 3);
    let once = roster.clone();
    assert_eq!(roster.replace(102, &given_up, 10), Ok((two, new)));
    assert_eq!(roster, once, "said twice");
    roster.retarget(SHARD, &set([1, two, three]), &set([]), (Some(two), false), 11).unwrap();
    assert_eq!(roster.group(SHARD).unwrap().target.as_ref().map(|target| &target.voters), Some(&target.voters));
    // It was started again before the new ones were taken in: these are given up too.
    let again: BTreeMap<Group, u64> = [(SHARD, newest)].into();
    roster.replace(102, &again, 12).unwrap();
    assert!(roster.replica_on(SHARD, two).unwrap() > newest);
    roster.configure(&as_meant(&roster, SHARD, 20)).unwrap();
    assert!(roster.has_left(given_up[&SHARD]) && roster.has_left(newest));
    assert_eq!(roster.group(SHARD).unwrap().now.voters.len(), 3);
}

#[test]
fn a_group_is_not_asked_to_go_on_without_its_only_voter() {
    let mut roster = founded(1);
    let (two, _) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    roster.retarget(SHARD, &set([1]), &set([two]), (None, false), 6).unwrap();
    roster.configure(&as_meant(&roster, SHARD, 7)).unwrap();
    let before = roster.clone();
    assert!(roster.replace(101, &[(SHARD, 2)].into(), 8).unwrap_err().contains("no voter but replica 2"));
    assert_eq!(roster, before);
    let learner = roster.replica_on(SHARD, two).unwrap();
    roster.replace(102, &[(SHARD, learner)].into(), 9).unwrap();
    assert_eq!(roster.group(SHARD).unwrap().meant().learners, set([9 * 65_536]));
}

#[test]
fn a_removed_node_is_forgotten_when_it_holds_nothing_and_never_comes_back() {
    let mut roster = founded(1);
    let (node, replica) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    roster.configure(&as_meant(&roster, Group::Meta, 4)).unwrap();
    assert!(roster.forget(node).unwrap_err().contains("not being removed"));
    roster.set_standing(node, NodeStanding::Draining).unwrap();
    roster.set_standing(node, NodeStanding::Removing).unwrap();
    assert!(roster.set_standing(node, NodeStanding::Up).is_err());
    assert!(roster.forget(node).unwrap_err().contains("holds replica"));
    roster.retarget(Group::Meta, &set([1]), &set([]), (None, false), 6).unwrap();
    assert!(roster.forget(node).is_err(), "the group's leader has not said that it is out");
    roster.configure(&as_meant(&roster, Group::Meta, 5)).unwrap();
    assert!(roster.has_left(replica));
    assert!(roster.enroll(&says(102, 2), 1, 6).unwrap_err().contains("is being removed"));
    roster.forget(node).unwrap();
    assert_eq!((roster.node(node), roster.removed().collect::<Vec<_>>()), (None, vec![(node, 102)]));
    assert!(roster.enroll(&says(102, 2), 1, 9).unwrap_err().contains("which was removed"));
    assert!(roster.enroll(&says(103, 1), 1, 9).is_ok());
}

#[test]
fn a_level_is_raised_when_every_node_can_it_and_never_lowered() {
    let mut roster = founded(1);
    let (two, _) = roster.enroll(&says(102, 1), 1, 5).unwrap();
    assert_eq!((roster.level(), roster.able_all()), (Level::FIRST, Level::FIRST));
    roster.enable(101, Level(3)).unwrap();
    assert!(roster.raise(Level(2)).unwrap_err().contains("this release can 1"));
    roster.enable(102, Level(2)).unwrap();
    assert_eq!(roster.able_all(), Level(2));
    assert!(roster.raise(Level(3)).is_err());
    roster.raise(Level(2)).unwrap();
    roster.raise(Level(1)).unwrap();
    assert_eq!(roster.level(), Level(2));
    assert!(roster.enable(102, Level(1)).unwrap_err().contains("upgrade it"));
    assert!(roster.enable(999, Level(2)).is_err());
    let pieces: Vec<_> = roster.encode_pieces().collect();
    let bytes = &pieces[0];
    assert_eq!(bytes[bytes.len() - 12..], [&[5, 2, 6, 1, 3, 6, 252, 0, 0, 5, 0, 2][..]].concat());
    let restored = Roster::decode_pieces(roster.len(), roster.last_id(), &mut pieces.into_iter()).unwrap();
    assert_eq!(restored, roster);
    roster.set_standing(two, NodeStanding::Removing).unwrap();
    roster.retarget(Group::Meta, &set([1]), &set([]), (None, false), 6).unwrap();
    roster.configure(&as_meant(&roster, Group::Meta, 7)).unwrap();
    roster.forget(two).unwrap();
    assert_eq!(roster.able_all(), Level(3), "who is gone does not hold the others back");
}

#[test]
fn parts_that_are_cut_short_or_come_twice_are_no_roster() {
    let mut roster = founded(256);
    for disk in 1_000..1_250 {
        let zone = "a zone with a long name".to_owned();
        let host = "h".repeat(240);
        let info =
            NodeInfo { peer_address: format!("{host}:7"), http_address: format!("{host}:8"), zone, ..says(disk, 1) };
        roster.enroll(&info, 256, 9).unwrap();
    }
    let pieces: Vec<_> = roster.encode_pieces().collect();
    let decode = |pieces: Vec<Vec<u8>>| Roster::decode_pieces(roster.len(), roster.last_id(), &mut pieces.into_iter());
    assert_eq!(decode(pieces.clone()).unwrap(), roster);
    assert!(decode(Vec::new()).is_err());
    let other = founded(1).encode_pieces().next().unwrap();
    assert!(Roster::decode_pieces(9, 2, &mut [other.clone(), other].into_iter()).is_err());
}

#[test]
fn golden_bytes() {
    let mut roster = founded(1);
    let alone = NodeInfo { disk: 5, boots: 7, zone: "z".to_owned(), ..NodeInfo::default() };
    roster.nodes.insert(1, NodeRecord { info: alone, standing: NodeStanding::Draining });
    let meta = roster.groups.get_mut(&Group::Meta).unwrap();
    meta.target = Some(Members { voters: set([1]), learners: set([6]) });
    (meta.targets, meta.heard) = (2, 1);
    meta.at = Some(Position { leader: Leader { term: 3, replica: 1 }, index: 4 });
    roster.groups.get_mut(&SHARD).unwrap().pinned = true;
    roster.removed.insert(8, 9);
    let pieces: Vec<_> = roster.encode_pieces().collect();
    let expected = [
        &[0, 6][..],
        &[0, 1, 5, 7, 0, 0, 1, b'z', 1],
        &[1, 1, 0, 1],
        &[1, 2, 1, 0, 1],
        &[2, 0, 1, 1, 0, 1, 3, 1, 4, 1, 1, 1, 1, 6, 2, 1, 0, 0],
        &[2, 1, 0, 1, 2, 0, 0, 0, 0, 0, 1, 1, 1],
        &[3, 8, 9],
    ];
    assert_eq!(pieces, [expected.concat()]);
    assert_eq!(Roster::decode_pieces(6, roster.last_id(), &mut pieces.into_iter()).unwrap(), roster);
    assert_eq!(codec::encode(&NodeStanding::Removing), [2]);
}

#[test]
fn a_group_begun_anew_has_one_new_replica_and_hears_nothing_of_those_before() {
    let mut roster = founded(1);
    let survivor = roster.replica_on(SHARD, FOUNDER).unwrap();
    let last = Position { leader: Leader { term: 3, replica: survivor }, index: 40 };
    let recover = Recover { group: SHARD, generation: 1, survivor, last, by: "me".to_owned() };
    let refused = |roster: &Roster, recover: Recover| {
        let mut changed = roster.clone();
        changed.recover(&recover, Timestamp(5), Revision(7)).unwrap_err()
    };
    assert!(refused(&roster, Recover { group: Group::Meta, ..recover.clone() }).contains("catalogue"));
    assert!(refused(&roster, Recover { generation: 2, ..recover.clone() }).contains("meanwhile"));
    assert!(refused(&roster, Recover { survivor: FIRST_REPLICA, ..recover.clone() }).contains("none of"));
    let targets = roster.group(SHARD).unwrap().targets;
    roster.recover(&recover, Timestamp(5), Revision(7)).unwrap();
    let recovery = roster.recovery(SHARD).unwrap().clone();
    assert!(roster.has_left(survivor) && recovery.founder > survivor);
    assert_eq!((recovery.term_floor(), roster.generation(SHARD)), (1 << 32, 1));
    assert_eq!(roster.replica(recovery.founder), Some(ReplicaRecord { group: SHARD, node: FOUNDER }));
    let record = roster.group(SHARD).unwrap();
    assert_eq!((record.now.voters.clone(), &record.target), (set([recovery.founder]), &None));
    assert!(roster.is_unborn(SHARD));
    assert!(refused(&roster, recover.clone()).contains("meanwhile"), "twice");
    // The lost generation has a leader still, in however late a term; it knew of an earlier target, or of this one.
    for targets in [targets, targets + 1] {
        let members = Members { voters: set([survivor]), ..Members::default() };
        let at = Position { leader: Leader { term: 1 << 20, replica: survivor }, index: 90 };
        assert!(roster.configure(&Configured { group: SHARD, members, at, targets }).unwrap_err().contains("anew"));
    }
    let members = Members { voters: set([recovery.founder]), ..Members::default() };
    let at = Position { leader: Leader { term: (1 << 32) + 1, replica: recovery.founder }, index: 41 };
    roster.configure(&Configured { group: SHARD, members, at, targets: targets + 1 }).unwrap();
    assert!(!roster.is_unborn(SHARD));
    let pieces: Vec<_> = roster.encode_pieces().collect();
    let part = [&[4, 1, 0, 1, 0, 1][..], &codec::encode(&survivor), &codec::encode(&last), &[2, b'm', b'e']].concat();
    let part = [part, codec::encode(&recovery.founder), vec![10, 7]].concat();
    assert!(pieces.concat().ends_with(&part), "{pieces:?}");
    assert_eq!(Roster::decode_pieces(roster.len(), roster.last_id(), &mut pieces.into_iter()).unwrap(), roster);
}
