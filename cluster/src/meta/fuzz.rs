//! Any bytes as commands of the meta group, and as the pieces that its state is stored in.

use std::sync::LazyLock;

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::Terms;
use proffer_engine::catalog::{self, Actor, CommandV1, EntityKind, Op};
use proffer_engine::codec::encode;
use proffer_engine::keys::{CapKey, ShardId, TenantId};
use proffer_engine::profile::command::{AccountId, Leader, Position};
use proffer_engine::time::{Span, Timestamp};
use proffer_engine::value::Value;
use proffer_fuzz::Choices;

use super::command::{Founding, MetaCommand, MetaCommandV1, MetaOp, MetaOutcome};
use super::roster::NodeInfo;
use super::state::MetaState;
use crate::fuzz::{read_beginnings, reads};
use crate::group::Group;

proffer_fuzz::targets!(command_bytes, damaged_commands, stored_pieces);

const LEADER: Leader = Leader { term: 1, replica: 1 };

/// Bytes of nobody's making.
fn command_bytes(bytes: &[u8]) {
    read_beginnings::<MetaCommand>(bytes, |command| {
        let mut state = state();
        apply(&mut state, 100, &command);
        go_on(&state);
    });
}

/// Commands as they are sent and stored, with faults, one after the other.
fn damaged_commands(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let (mut state, ops) = (state(), ops());
    for index in 100..=100 + choices.below(4) as u64 {
        let op = choices.pick(&ops).clone();
        let mut bytes = encode(&MetaCommand::V1(MetaCommandV1 { now: Timestamp(6), leader: LEADER, op }));
        choices.damage(&mut bytes);
        if let Some(command) = reads::<MetaCommand>(&bytes) {
            apply(&mut state, index, &command);
        }
    }
    go_on(&state);
}

/// The pieces of a state, with faults.
fn stored_pieces(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pieces: Vec<Vec<u8>> = state().encode_chunks().collect();
    let at = choices.below(pieces.len());
    match choices.below(6) {
        0 => drop(pieces.remove(at)),
        1 => pieces.insert(at, pieces[at].clone()),
        _ => choices.damage(&mut pieces[at]),
    }
    if let Ok(mut read) = MetaState::decode_chunks(pieces.into_iter()) {
        go_on(&read);
        for (op, index) in ops().into_iter().zip(100..) {
            apply(&mut read, index, &MetaCommand::V1(MetaCommandV1 { now: Timestamp(7), leader: LEADER, op }));
        }
        go_on(&read);
    }
}

/// What is refused changes nothing.
fn apply(state: &mut MetaState, index: u64, command: &MetaCommand) {
    let MetaCommand::V1(MetaCommandV1 { leader, .. }) = command;
    let before = (state.revision(), state.fence());
    let outcome = state.apply(Position { leader: *leader, index }, command);
    if let MetaOutcome::Refused(_) | MetaOutcome::Barred(_) = outcome {
        assert_eq!((state.revision(), state.fence()), before);
    }
}

/// Whatever was done to a state, it can be stored, read and gone on with.
fn go_on(state: &MetaState) {
    let pieces: Vec<Vec<u8>> = state.encode_chunks().collect();
    let restored = MetaState::decode_chunks(pieces.iter().cloned()).expect("what is stored is read");
    assert!(restored.encode_chunks().eq(pieces), "as it was stored");
    for (id, account) in state.ledger().accounts() {
        let _ = (account.pool(), account.grant_size(2), account.over_by());
        let _ = (state.message(id, ShardId(0)), state.ledger().recall_plan(id, Timestamp(7)));
    }
}

/// A cluster of two shards and three nodes with an offer that has a cap.
fn state() -> MetaState {
    static STATE: LazyLock<MetaState> = LazyLock::new(|| {
        let mut state = MetaState::new();
        for (op, index) in ops().into_iter().zip(1..) {
            let command = MetaCommand::V1(MetaCommandV1 { now: Timestamp(5), leader: LEADER, op });
            state.apply(Position { leader: LEADER, index }, &command);
        }
        state
    });
    STATE.clone()
}

fn ops() -> Vec<MetaOp> {
    let account = AccountId { tenant: 0, cap: CapKey(0), ordinal: 0 };
    let terms = Terms { limit: 100, span: Span::ALWAYS, unit: 1, cooling_ms: 0, soft: false };
    let node = |disk| {
        let (peer_address, http_address) = (format!("n{disk}:1"), format!("n{disk}:2"));
        MetaOp::Enroll(NodeInfo { disk, boots: 1, peer_address, http_address, zone: String::new() })
    };
    let change = |op| {
        let actor = Actor { name: "test".to_owned(), admin: true };
        MetaOp::Change(catalog::Command::V1(CommandV1 { tenant: TenantId::new("acme"), actor, at: Timestamp(5), op }))
    };
    let cap = Value::map([("scope", Value::text("global")), ("limit", Value::Number(100.0))]);
    let offer = Value::map([("name", Value::text("one")), ("caps", Value::list([cap]))]);
    let report = EscrowReport {
        account,
        granted_seen: 0,
        returned: 0,
        free: 0,
        reserved: 0,
        spent: 0,
        wish: 1,
        minted: 0,
        version: 0,
        soft: None,
        as_of: Timestamp(5),
    };
    vec![
        MetaOp::Found(Founding { secret: [1; 16], shards: 2 }),
        node(1),
        node(2),
        node(3),
        change(Op::CreateTenant),
        change(Op::Create { kind: EntityKind::Offer, id: "one".to_owned(), body: offer }),
        MetaOp::Open(vec![(account, terms)]),
        MetaOp::settle(0, ShardId(1), vec![report]),
        MetaOp::Retarget {
            group: Group::Shard(ShardId(0)),
            voters: [1].into(),
            learners: [3 * 65_536].into(),
            leader: Some(1),
            pinned: false,
        },
        MetaOp::EndPeriods,
    ]
}
