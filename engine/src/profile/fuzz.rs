//! Any bytes as commands of a shard, and as the pieces that one is stored in.

use proffer_fuzz::Choices;

use super::golden::{LEADER, command, commands};
use crate::codec::{decode, encode};
use crate::keys::OfferKey;
use crate::profile::apply::{Outcome, apply};
use crate::profile::command::{Position, ShardCommand, ShardCommandV1, ShardOp};
use crate::profile::shard::ShardState;
use crate::profile::trials::{Enrolment, ExperimentId};
use crate::time::Timestamp;

proffer_fuzz::targets!(command_bytes, damaged_command, stored_pieces);

/// Bytes of nobody's making.
fn command_bytes(bytes: &[u8]) {
    // Small numbers are lengths and variants that there are, more often than not.
    let small: Vec<u8> = bytes.iter().map(|byte| if *byte < 240 { byte % 12 } else { *byte }).collect();
    for bytes in [bytes, &small] {
        // A command ends where it ends: its length is found by trying.
        for end in 0..=bytes.len().min(64) {
            run(&bytes[..end]);
        }
    }
}

/// A command as it is sent and stored, with faults.
fn damaged_command(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut bytes = encode(&command(choices.pick(&deeds()).clone()));
    choices.damage(&mut bytes);
    run(&bytes);
}

/// Whatever can be read is written alike, and can be applied.
fn run(bytes: &[u8]) {
    let Ok(read) = decode::<ShardCommand>("a command", bytes) else { return };
    let written = encode(&read);
    let again: ShardCommand = decode("a command", &written).expect("what is written is read");
    assert_eq!(encode(&again), written);
    let ShardCommand::V1(ShardCommandV1 { leader, .. }) = &read;
    let mut state = state();
    let before = state.hash();
    let outcome = apply(&mut state, Position { leader: *leader, index: 1 }, &read);
    if let Outcome::Refused(_) = outcome {
        assert_eq!(state.hash(), before, "a refusal changes nothing");
    }
    go_on(state);
}

/// The pieces of a shard that holds one of each, with faults.
fn stored_pieces(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pieces: Vec<Vec<u8>> = state().encode_chunks().collect();
    for _ in 0..=choices.below(2) {
        let at = choices.below(pieces.len());
        match choices.below(6) {
            0 => drop(pieces.remove(at)),
            1 => pieces.insert(at, pieces[at].clone()),
            _ => choices.damage(&mut pieces[at]),
        }
        if pieces.is_empty() {
            break;
        }
    }
    if let Ok(read) = ShardState::decode_chunks(&pieces) {
        go_on(read);
    }
}

/// A state is stored, read, reported and moved on in time.
fn go_on(mut state: ShardState) {
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    let restored = ShardState::decode_chunks(&pieces).expect("what is stored is read");
    assert!(restored.encode_chunks().eq(pieces), "as it was stored");
    for report in state.reports() {
        assert!(u128::from(report.free) <= u128::from(report.granted_seen) + u128::from(report.minted));
    }
    for now in [state.next_due().unwrap_or_default(), Timestamp::FOREVER] {
        let ShardCommand::V1(tick) = command(ShardOp::Tick);
        let tick = ShardCommand::V1(ShardCommandV1 { now, ..tick });
        apply(&mut state, Position { leader: LEADER, index: 2 }, &tick);
    }
}

/// One of each, with a place in an experiment for whoever takes something.
fn deeds() -> Vec<ShardOp> {
    let (experiment, offers) = (ExperimentId::of("spring"), vec![OfferKey(70), OfferKey(72)]);
    let enrolment = Enrolment { experiment, control: true, window_days: 30, offers };
    commands().into_iter().map(|(_, op)| op.enrolling(enrolment.clone())).collect()
}

/// What the commands make.
fn state() -> ShardState {
    let mut state = ShardState::new();
    for op in deeds() {
        apply(&mut state, Position { leader: LEADER, index: 1 }, &command(op));
    }
    state
}
