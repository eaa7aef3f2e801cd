//! The stored format, pinned: a change here is a new version of it, never an edit of this one.

use super::{World, json};
use crate::catalog::{Actor, Command, CommandV1, EntityKind, Op};
use crate::codec;
use crate::keys::{Revision, TenantId};
use crate::time::Timestamp;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn commands_are_written_as_they_always_were() {
    let command = |op| {
        Command::V1(CommandV1 {
            tenant: TenantId::new("t"),
            actor: Actor { name: "a".to_owned(), admin: true },
            at: Timestamp(5),
            op,
        })
    };
    let update = command(Op::Update {
        kind: EntityKind::Offer,
        id: "o".to_owned(),
        patch: json(r#"{"priority":1,"tags":["x",null,true]}"#),
        expected: Some(Revision(7)),
    });
    let delete = command(Op::Delete { kind: EntityKind::Flow, id: "f".to_owned(), force: true, has_history: false });
    assert_eq!(
        hex(&codec::encode(&update)),
        "0001740161010a0402016f0502087072696f7269747902000000000000f03f047461677304030301780001010107"
    );
    assert_eq!(hex(&codec::encode(&delete)), "0001740161010a050b01660100");
    let read: Command = codec::decode("command", &codec::encode(&update)).unwrap();
    assert_eq!(read, update);
}

// The state is that of the golden fixture: a new line there changes this number too.
#[test]
fn a_state_is_written_as_it_always_was() {
    assert_eq!(World::furnished().catalog.hash(), 11_301_439_188_575_918_696);
}
