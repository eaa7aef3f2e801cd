//! What a replica does not go on from.

use openraft::storage::{RaftLogStorage, RaftStateMachine};

use super::super::types::{Entry, LogId, Payload, Proposal, leader_id};
use super::conformance::build;
use super::world::Marks;
use proffer_engine::profile::command::Leader;

fn at(index: u64) -> LogId {
    LogId::new(leader_id(Leader { term: 1, replica: 1 }), index)
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_ends_its_replica_and_that_is_said() {
    let marks = Marks::default();
    let (_, mut machine, _) = build(&marks).await;
    // One command, of a version that is not known here.
    let unknown = Entry { log_id: at(1), payload: Payload::Normal(Proposal::received(vec![1, 77])) };
    let after = Entry { log_id: at(2), payload: Payload::Blank };
    let entries = futures_util::stream::iter([unknown, after].map(|entry| Ok((entry, None))));
    let error = machine.apply(entries).await.unwrap_err().to_string();
    assert!(error.contains("entry 1 is of another release"), "{error}");
    assert_eq!(*marks.abandoned.lock().unwrap(), [error]);
    assert_eq!(machine.applied_state().await.unwrap().0, None, "nothing after it is applied either");
}

#[tokio::test(start_paused = true)]
async fn what_was_applied_is_not_taken_back() {
    let (mut store, mut machine, applied) = build(&Marks::default()).await;
    let blanks = |indices: std::ops::RangeInclusive<u64>| {
        indices.map(|index| Entry { log_id: at(index), payload: Payload::Blank }).collect::<Vec<_>>()
    };
    let entries = futures_util::stream::iter(blanks(0..=5).into_iter().map(|entry| Ok((entry, None))));
    machine.apply(entries).await.unwrap();
    assert!(store.truncate_after(Some(at(5))).await.is_ok() && applied.breach().is_none());
    let error = store.truncate_after(Some(at(4))).await.unwrap_err().to_string();
    assert!(error.contains("has forgotten"), "{error}");
    assert_eq!(applied.breach(), Some(error));
}
