//! What a group of replicas does when its members come and go.

use std::time::Duration;

use proffer_engine::profile::command::Leader;

use super::super::members::StepError;
use super::super::stored::{VoteBytes, encode_meta};
use super::super::types::{LogId, SnapshotMeta, Vote, leader_id};
use super::super::wire::Part;
use super::super::{RaftAnswer, RaftMessage, Seat, Step};
use super::world::{Group, Host};
use crate::ports::entropy::{Entropy, SeededEntropy};
use crate::ports::propose::{Proposed, Reason};
use crate::timing::Timing;

/// Proposes marks one after the other; gives those that were applied.
async fn propose_all(group: &Group, marks: impl IntoIterator<Item = i64>) -> Vec<i64> {
    let mut applied = Vec::new();
    for mark in marks {
        let leader = group.led_by(|_| true).await;
        if let Proposed::Applied(_) = group.propose(mark, leader).await {
            applied.push(mark);
        }
    }
    applied
}

#[tokio::test(start_paused = true)]
async fn one_replica_leads_itself_and_comes_back_with_everything() {
    let mut group = Group::of(1, 7).await;
    let first = group.led_by(|_| true).await;
    assert_eq!(propose_all(&group, 0..20).await.len(), 20);
    group.stop(1, true).await;
    group.start(1).await;
    assert_eq!(group.agreed(20).await, (0..20).collect::<Vec<_>>());
    let second = group.led_by(|_| true).await;
    assert!(second.term > first.term, "each start leads under a term of its own");
    assert!(group.replica(1).holds_lease(), "nobody else's word is needed");
}

#[tokio::test(start_paused = true)]
async fn entries_are_applied_everywhere_in_one_order_and_answered_once_applied_here() {
    let group = Group::of(3, 1).await;
    let leader = group.led_by(|_| true).await;
    let proposals = (0..50).map(|mark| group.propose(mark, leader));
    for proposed in futures_util::future::join_all(proposals).await {
        let Proposed::Applied(committed) = proposed else { panic!("{proposed:?}") };
        assert_eq!(committed.position.leader, leader);
    }
    assert_eq!(group.hosts[&leader.replica].marks.list().len(), 50);
    let mut agreed = group.agreed(50).await;
    agreed.sort_unstable();
    assert_eq!(agreed, (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn another_leads_when_the_leader_goes_and_nothing_acknowledged_is_lost() {
    let mut group = Group::of(3, 2).await;
    let old = group.led_by(|_| true).await;
    let mut acknowledged = propose_all(&group, 0..10).await;
    group.stop(old.replica, true).await;
    let new = group.led_by(|leader| leader.replica != old.replica).await;
    assert!(new.term > old.term);
    acknowledged.extend(propose_all(&group, 10..20).await);
    group.start(old.replica).await;
    assert_eq!(group.agreed(20).await, acknowledged);
}

#[tokio::test(start_paused = true)]
async fn proposals_under_another_leader_are_refused_and_write_nothing() {
    let group = Group::of(3, 3).await;
    let leader = group.led_by(|_| true).await;
    let wrong = Leader { term: leader.term + 1, ..leader };
    let refused = group.propose(1, wrong).await;
    assert!(matches!(refused, Proposed::Refused(Reason::NotLeader(Some(now))) if now == leader), "{refused:?}");
    let follower = Leader { replica: leader.replica % 3 + 1, ..leader };
    let refused = group.propose(2, follower).await;
    assert!(matches!(refused, Proposed::Refused(Reason::NotLeader(None))), "{refused:?}");
    propose_all(&group, [3]).await;
    assert_eq!(group.agreed(1).await, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_stops_leading_before_another_does() {
    let group = Group::of(3, 4).await;
    let old = group.led_by(|_| true).await;
    for other in (1..=3).filter(|id| *id != old.replica) {
        group.wires.cut(old.replica, other);
    }
    let mut had_no_lease = false;
    let new = loop {
        let leads = *group.replica(old.replica).leads().borrow();
        let others = (1..=3).filter(|id| *id != old.replica).find_map(|id| *group.replica(id).leads().borrow());
        had_no_lease |= !group.replica(old.replica).holds_lease();
        if let Some(new) = others {
            assert_eq!(leads, None, "the old one leads still");
            break new;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(had_no_lease);
    let unheard = tokio::time::timeout(Duration::from_secs(1), group.propose(1, old)).await;
    assert!(!matches!(unheard, Ok(Proposed::Applied(_))));
    assert!(matches!(group.propose(2, new).await, Proposed::Applied(_)));
    group.wires.heal();
    assert_eq!(group.agreed(1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_that_a_quorum_hears_is_confirmed() {
    let group = Group::of(3, 6).await;
    let leader = group.led_by(|_| true).await;
    for id in 1..=3 {
        assert_eq!(group.replica(id).confirm().await, id == leader.replica);
    }
    let others = (1..=3).filter(|id| *id != leader.replica);
    others.for_each(|other| group.wires.cut(leader.replica, other));
    assert_eq!(*group.replica(leader.replica).leads().borrow(), Some(leader), "it believes to lead still");
    assert!(!group.replica(leader.replica).confirm().await);
    group.wires.heal();
    let leader = group.led_by(|_| true).await;
    assert!(group.replica(leader.replica).confirm().await);
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_wrote_alone_is_unknown_when_another_writes_over_it() {
    let group = Group::of(3, 5).await;
    let old = group.led_by(|_| true).await;
    let others = (1..=3).filter(|id| *id != old.replica);
    others.for_each(|other| group.wires.cut(old.replica, other));
    // It believes to lead still, so it writes.
    let lonely = group.propose(1, old);
    let rest = async {
        let new = group.led_by(|leader| leader.replica != old.replica).await;
        assert!(matches!(group.propose(2, new).await, Proposed::Applied(_)));
        group.wires.heal();
    };
    let (lonely, ()) = tokio::join!(lonely, rest);
    assert!(matches!(lonely, Proposed::Unknown), "{lonely:?}");
    assert_eq!(group.agreed(1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_sent_a_snapshot_then_what_followed_and_becomes_a_voter() {
    let mut group = Group::of(3, 6).await;
    let leader = group.led_by(|_| true).await;
    let mut marks = propose_all(&group, 0..30).await;
    for _ in 0..2 {
        // Two are kept: the log goes through the older one.
        group.agreed(marks.len()).await;
        group.replica(leader.replica).keep_snapshot().await.unwrap();
        marks.extend(propose_all(&group, marks.len() as i64..marks.len() as i64 + 30).await);
    }
    group.hosts.insert(4, Host::new());
    group.join(4).await;
    let before = group.replica(leader.replica).members().unwrap();
    let newcomer = [(4, Seat { node: 4 })].into();
    group.change(leader, Step::AddLearners(newcomer)).await.unwrap();
    assert_eq!(group.agreed(90).await, marks);
    assert!(*group.wires.snapshot_parts.lock().unwrap() > 0);
    let stale = group.replica(leader.replica).change_members(Step::Remove([4].into()), leader, before.at).await;
    assert!(matches!(stale, Err(StepError::Overtaken(_))), "{stale:?}: it was decided on another configuration");
    group.change(leader, Step::SetVoters([1, 2, 3, 4].into())).await.unwrap();
    let members = group.replica(leader.replica).members().unwrap();
    assert_eq!((members.voters.len(), members.is_joint, members.is_committed), (4, false, true));
    group.stop(4, true).await;
    group.join(4).await;
    assert_eq!(group.agreed(90).await, marks, "it begins with what it was sent");
}

#[tokio::test(start_paused = true)]
async fn one_becomes_three_and_the_first_one_can_go() {
    let mut group = Group::of(1, 12).await;
    let first = group.led_by(|_| true).await;
    let mut marks = propose_all(&group, 0..5).await;
    for id in [2, 3] {
        group.hosts.insert(id, Host::new());
        group.join(id).await;
    }
    group.change(first, Step::AddLearners([2, 3].map(|id| (id, Seat { node: id })).into())).await.unwrap();
    group.agreed(5).await;
    group.change(first, Step::SetVoters([1, 2, 3].into())).await.unwrap();
    marks.extend(propose_all(&group, 5..10).await);
    group.agreed(10).await;
    while group.replica(1).hand_over(2).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = group.led_by(|leader| leader.replica != 1).await;
    group.change(second, Step::SetVoters([2, 3].into())).await.unwrap();
    group.change(second, Step::Remove([1].into())).await.unwrap();
    group.stop(1, false).await;
    marks.extend(propose_all(&group, 10..15).await);
    assert_eq!(group.agreed(15).await, marks);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_has_just_started_neither_votes_nor_campaigns() {
    let mut group = Group::of(3, 13).await;
    let leader = group.led_by(|_| true).await;
    propose_all(&group, 0..3).await;
    let (one, other) = (leader.replica % 3 + 1, (leader.replica + 1) % 3 + 1);
    group.stop(one, false).await;
    group.start(one).await;
    // The leader answers reads still: who heard it last must not help another to lead.
    group.wires.cut(leader.replica, one);
    group.wires.cut(leader.replica, other);
    let begun = tokio::time::Instant::now();
    let new = group.led_by(|now| now.replica != leader.replica).await;
    assert!(begun.elapsed() >= Timing::Fast.longest_election(), "{:?}", begun.elapsed());
    assert!(new.term > leader.term);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_has_just_started_does_not_lead_because_it_is_asked_to() {
    let mut group = Group::of(3, 19).await;
    let leader = group.led_by(|_| true).await;
    propose_all(&group, 0..3).await;
    group.agreed(3).await;
    let one = leader.replica % 3 + 1;
    group.stop(one, false).await;
    group.start(one).await;
    let from = VoteBytes::from(&Vote { leader_id: leader_id(leader), committed: true });
    let answer = loop {
        let answer = group.replica(one).answer(RaftMessage::Transfer { from, to: one, last: None }).await;
        if !matches!(&answer, RaftAnswer::Failed(reason) if reason.contains("starting")) {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(matches!(&answer, RaftAnswer::Failed(reason) if reason.contains("just started")), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_a_pause_longer_than_an_election() {
    let group = Group::of(3, 8).await;
    let old = group.led_by(|_| true).await;
    propose_all(&group, 0..5).await;
    group.agreed(5).await;
    let to = old.replica % 3 + 1;
    let begun = tokio::time::Instant::now();
    while group.replica(old.replica).hand_over(to).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let new = group.led_by(|leader| leader.replica == to).await;
    assert!(begun.elapsed() < Duration::from_millis(150), "{:?}", begun.elapsed());
    assert!(matches!(group.propose(9, new).await, Proposed::Applied(_)));
    assert!(!group.replica(old.replica).holds_lease());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_waited_for_and_ends_nothing() {
    let group = Group::of(3, 9).await;
    let leader = group.led_by(|_| true).await;
    propose_all(&group, 0..3).await;
    let follower = leader.replica % 3 + 1;
    group.hosts[&follower].disk.set_capacity(Some(0));
    assert_eq!(propose_all(&group, 3..6).await, [3, 4, 5], "the others are a majority");
    group.hosts[&follower].disk.set_capacity(None);
    assert_eq!(group.agreed(6).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn parts_of_two_snapshots_are_never_mixed() {
    let group = Group::of(1, 14).await;
    group.led_by(|_| true).await;
    let replica = group.replica(1);
    let from = |term, index: u64| {
        let leader = leader_id(Leader { term, replica: 2 });
        let meta = SnapshotMeta { last_log_id: Some(LogId::new(leader, index)), ..SnapshotMeta::default() };
        let vote = VoteBytes::from(&Vote { leader_id: leader, committed: true });
        move |number, is_last| {
            let (meta, bytes) = (encode_meta(&meta), vec![7; 16]);
            RaftMessage::Snapshot(Part { vote, meta, number, bytes, ends_piece: true, is_last })
        }
    };
    let (old, new) = (from(5, 100), from(6, 120));
    assert_eq!(replica.answer(old(0, false)).await, RaftAnswer::Part);
    assert_eq!(replica.answer(new(0, false)).await, RaftAnswer::Part);
    for stray in [old(1, false), old(0, false), old(1, true)] {
        assert!(matches!(replica.answer(stray).await, RaftAnswer::Failed(_)));
    }
    assert_eq!(replica.answer(new(1, false)).await, RaftAnswer::Part, "it goes on where it was");
    assert!(matches!(replica.answer(new(3, false)).await, RaftAnswer::Failed(_)), "one is missing");
}

/// Everything that can happen, drawn from a seed; gives what was acknowledged, and what all agree on in the end.
async fn storm(seed: u64) -> (Vec<i64>, Vec<i64>) {
    let mut group = Group::of(3, seed).await;
    let draws = SeededEntropy::new(seed);
    group.wires.shake(seed);
    let mut acknowledged = Vec::new();
    for mark in 0..40 {
        if let Some(leader) = group.leader() {
            let proposed = tokio::time::timeout(Duration::from_millis(400), group.propose(mark, leader)).await;
            if let Ok(Proposed::Applied(_)) = proposed {
                acknowledged.push(mark);
            }
        }
        let which = 1 + draws.u64() % 3;
        match draws.u64() % 10 {
            0 => {
                group.stop(which, draws.u64().is_multiple_of(2)).await;
                tokio::time::sleep(Duration::from_millis(draws.u64() % 500)).await;
                group.start(which).await;
            }
            1 => group.wires.cut(which, which % 3 + 1),
            2 | 3 => {
                group.wires.heal();
                group.wires.shake(draws.u64());
            }
            4 => {
                let snapshot = group.replica(which).keep_snapshot();
                let _late = tokio::time::timeout(Duration::from_millis(200), snapshot).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(draws.u64() % 100)).await,
        }
    }
    group.wires.heal();
    let leader = group.led_by(|_| true).await;
    let last = loop {
        let leader = group.leader().unwrap_or(leader);
        if let Proposed::Applied(_) = group.propose(1_000, leader).await {
            break group.agreed(acknowledged.len() + 1).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    (acknowledged, last)
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_acknowledged_entries_stay_in_order_and_once() {
    let mut most = 0;
    for seed in 0..8 {
        let (acknowledged, agreed) = storm(seed).await;
        most = most.max(acknowledged.len());
        let kept: Vec<i64> = agreed.iter().copied().filter(|mark| acknowledged.contains(mark)).collect();
        assert_eq!(kept, acknowledged, "seed {seed}: all agree on {agreed:?}");
    }
    assert!(most > 12, "only {most} were ever acknowledged: nothing was tried");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_story() {
    assert_eq!(storm(11).await, storm(11).await);
}
