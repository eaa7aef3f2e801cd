//! Any bytes as what replicas send and keep.

use openraft::entry::RaftEntry;
use proffer_engine::codec::encode;
use proffer_engine::profile::command::{Leader, Position};
use proffer_fuzz::Choices;

use super::stored::{Head, decode_entry, decode_meta, encode_entry, encode_meta};
use super::types::{Commands, Kind};
use super::wire::{Append, RaftAnswer, RaftMessage};
use crate::fuzz::{read_beginnings, reads};

proffer_fuzz::targets!(messages, damaged_appends, stored);

/// As a message or an answer.
fn messages(bytes: &[u8]) {
    read_beginnings::<(u64, RaftMessage)>(bytes, |(_, message)| take(message));
    read_beginnings::<RaftAnswer>(bytes, |answer| {
        if let RaftAnswer::Append(appended) = answer {
            let _ = appended.read();
        }
    });
}

/// Entries as a leader sends them, with faults: what is taken is what openraft may be given.
fn damaged_appends(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let position = |choices: &mut Choices<'_>| {
        let leader = Leader { term: choices.below(4) as u64, replica: choices.below(3) as u64 };
        Position { leader, index: choices.below(6) as u64 }
    };
    let (previous, committed) = (position(&mut choices), position(&mut choices));
    let first = if choices.flag() { previous.index + 1 } else { choices.below(6) as u64 };
    let entries: Vec<Vec<u8>> = (0..choices.below(4))
        .map(|_| {
            let leader = position(&mut choices).leader;
            let payload: &[u8] =
                choices.pick::<&[u8]>(&[&[0][..], &[1, 2, 8, 9], &[2, 1, 2, 1, 2, 2, 1, 4, 2, 5], &[2, 0, 0]]);
            [&encode(&(0_u32, leader)), payload].concat()
        })
        .collect();
    let vote = (position(&mut choices).leader, choices.flag());
    let previous = choices.flag().then_some(previous);
    let mut bytes = encode(&(7_u64, 0_u32, vote, previous, (first, entries, Some(committed))));
    let whole = reads::<(u64, RaftMessage)>(&bytes).expect("it is one");
    take(whole.1);
    choices.damage(&mut bytes);
    if let Some((_, message)) = reads::<(u64, RaftMessage)>(&bytes) {
        take(message);
    }
}

fn take(message: RaftMessage) {
    match message {
        RaftMessage::Append(append) => {
            let Ok(request) = append.read() else { return };
            let first = request.prev_log_id.map_or(0, |previous| previous.index + 1);
            for (entry, index) in request.entries.iter().zip(first..) {
                assert_eq!(entry.index(), index);
                assert!(entry.log_id.leader_id <= request.vote.leader_id);
            }
            drop(Append::new(&request));
        }
        RaftMessage::Vote(ballot) | RaftMessage::PreVote(ballot) => drop(ballot.read()),
        RaftMessage::Transfer { .. } => {}
        RaftMessage::Snapshot(part) => drop(decode_meta(&part.meta)),
    }
}

/// As an entry, a vote, a snapshot's description, and the commands of an entry.
fn stored(bytes: &[u8]) {
    let small: Vec<u8> = bytes.iter().map(|byte| byte % 4).collect();
    for bytes in [bytes, &small] {
        for end in 0..=bytes.len().min(48) {
            let bytes = &bytes[..end];
            if let Ok(entry) = decode_entry(9, bytes) {
                assert_eq!(decode_entry(9, &encode_entry(&entry)).expect("what is written is read"), entry);
            }
            if let Ok(head) = Head::decode(bytes) {
                assert_eq!(Head::decode(&head.encode()).expect("what is written is read"), head);
            }
            if let Ok(meta) = decode_meta(bytes) {
                assert_eq!(decode_meta(&encode_meta(&meta)).expect("what is written is read"), meta);
            }
            for kind in [Kind::Meta, Kind::Shard] {
                if let Ok(commands) = Commands::decode(kind, bytes) {
                    assert!(Commands::decode(kind, &commands.encode()).is_ok());
                }
            }
        }
    }
}
