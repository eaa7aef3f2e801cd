//! Bytes of all that nodes say to each other in protocol 1. A change here needs a new protocol: nodes of two releases talk while a cluster
//! is upgraded.

use proffer_engine::budget::escrow::EscrowReport;
use proffer_engine::budget::ledger::Totals;
use proffer_engine::catalog::{Actor, Changed as Effect, Command, CommandV1, Op, Refusal};
use proffer_engine::codec::{decode, encode};
use proffer_engine::keys::{CapKey, CategoryKey, CustomerId, OfferKey, OutcomeKey, Revision, ShardId, TenantId};
use proffer_engine::learn::{ArmTally, ExperimentTally, Tallies};
use proffer_engine::level::Level;
use proffer_engine::profile::command::{AccountId, EscrowMessage, Leader, Position, Recall, ShardOp};
use proffer_engine::profile::evidence::Tally;
use proffer_engine::profile::trials::{ExperimentId, Slice};
use proffer_engine::time::{Span, Timestamp};

use super::failure::{Failure, Plain};
use super::message::{Answer, Message, ToMeta, ToRecover, ToShard};
use crate::calls::{Changed, Operation};
use crate::directory::Claim;
use crate::group::Group;
use crate::identity::Reach;
use crate::learning::{Counted, Mark};
use crate::lease::{Grant, Renew, Report};
use crate::meta::ask::LedgerRow;
use crate::meta::roster::{Configured, Members, NodeInfo};
use crate::peers::PROTOCOLS;
use crate::raft::Remains;
use crate::shard::ask::Held;

const ACCOUNT: AccountId = AccountId { tenant: 1, cap: CapKey(2), ordinal: 3 };
const SPAN: Span = Span { from: Timestamp(0), until: Timestamp(1_000) };
const AT: Position = Position { leader: Leader { term: 2, replica: 3 }, index: 4 };
const GROUP: Group = Group::Shard(ShardId(5));

const MARK: Mark = Mark { generation: 1, count: 9 };

fn counted() -> Counted {
    let tally = |shown, positive| Tally { shown, positive };
    let tallies = Tallies {
        all: tally(7, 2),
        offers: vec![(OfferKey(6), tally(7, 2))],
        categories: vec![(CategoryKey(8), tally(3, 1))],
    };
    Counted { shard: ShardId(5), mark: MARK, tenants: [(tenant(), tallies)].into() }
}

fn arm(customers: u64) -> ArmTally {
    ArmTally { customers, moved: 1, converted: 3, revenue: -2, squares: 4 }
}

fn tenant() -> TenantId {
    TenantId::new("t")
}

fn report() -> EscrowReport {
    EscrowReport {
        account: ACCOUNT,
        granted_seen: 10,
        returned: 1,
        free: 2,
        reserved: 3,
        spent: 4,
        wish: 0,
        minted: 5,
        version: 6,
        soft: Some(7),
        as_of: Timestamp(8),
    }
}

fn info() -> NodeInfo {
    let text = |text: &str| text.to_owned();
    NodeInfo { disk: 1, boots: 2, peer_address: text("p"), http_address: text("h"), zone: text("z") }
}

fn shard(ask: ToShard) -> Message {
    Message::Shard(ShardId(5), ask)
}

/// One of each: the name makes whoever adds a kind add its bytes.
fn name(message: &Message) -> &'static str {
    match message {
        Message::Leading(_) => "leading",
        Message::Shard(_, ask) => match ask {
            ToShard::Notice { .. } => "notice",
            ToShard::Order(_) => "order",
            ToShard::Write { .. } => "write",
            ToShard::Held { .. } => "held",
            ToShard::History { .. } => "history",
            ToShard::Customers { .. } => "customers",
            ToShard::Experiment { .. } => "experiment",
        },
        Message::Meta(ask) => match ask {
            ToMeta::Report { .. } => "report",
            ToMeta::Change(_) => "change",
            ToMeta::Budget { .. } => "budget",
            ToMeta::Enroll(_) => "enroll",
            ToMeta::Replace { .. } => "replace",
            ToMeta::Able { .. } => "able",
            ToMeta::Configured(_) => "configured",
            ToMeta::Operate(operation) => match operation {
                Operation::Drain { .. } => "drain",
                Operation::Undrain { .. } => "undrain",
                Operation::Remove { .. } => "remove",
                Operation::Transfer { .. } => "transfer",
                Operation::Rebalance => "rebalance",
            },
            ToMeta::Renew { .. } => "renew",
            ToMeta::InForce(_) => "in force",
            ToMeta::Everywhere(_) => "everywhere",
        },
        Message::Pass { .. } => "pass",
        Message::Remains(_) => "remains",
        Message::Recover(_) => "recover",
        Message::Reached(_) => "reached",
        Message::Learn(_) => "learn",
    }
}

fn messages() -> Vec<Message> {
    let claim = Claim {
        node: 1,
        word: (2, 3),
        leads: vec![(Group::Meta, 4), (GROUP, 5)],
        takes_leads: true,
        in_force: Revision(6),
        age_ms: 7,
    };
    let escrow = EscrowMessage {
        account: ACCOUNT,
        granted: 4,
        span: SPAN,
        unit: 1,
        cooling_ms: 0,
        recall: Recall::Nothing,
        closed: false,
        version: 5,
        soft: None,
    };
    let fence = ShardOp::Fence(Revision(9));
    let actor = Actor { name: "a".to_owned(), admin: true };
    let command = Command::V1(CommandV1 { tenant: tenant(), actor, at: Timestamp(8), op: Op::CreateTenant });
    let in_force = Report { node: 3, boots: 2, in_force: Revision(7) };
    let members = Members { voters: [1, 2].into(), learners: [3].into() };
    let slice = Slice { offer: Some(OfferKey(6)), outcome: Some(OutcomeKey(2)) };
    let operate = |operation| Message::Meta(ToMeta::Operate(operation));
    vec![
        Message::Leading(vec![claim]),
        shard(ToShard::Notice { generation: 1, messages: vec![escrow], booked: vec![report()] }),
        shard(ToShard::Order(vec![fence.clone()])),
        shard(ToShard::Write { tenant: tenant(), ops: vec![fence] }),
        shard(ToShard::Held { tenant: tenant(), accounts: vec![ACCOUNT] }),
        shard(ToShard::History { tenant: tenant(), offer: OfferKey(6) }),
        shard(ToShard::Customers { tenant: tenant(), segment: Some("s".to_owned()), part: 7 }),
        shard(ToShard::Experiment { tenant: tenant(), experiment: ExperimentId(9), slice }),
        Message::Meta(ToMeta::Report { shard: ShardId(5), generation: 1, reports: vec![report()] }),
        Message::Meta(ToMeta::Change(vec![command])),
        Message::Meta(ToMeta::Budget { tenant: tenant(), offer: OfferKey(6) }),
        Message::Meta(ToMeta::Enroll(info())),
        Message::Meta(ToMeta::Replace { disk: 1, given_up: [(GROUP, 9)].into() }),
        Message::Meta(ToMeta::Able { disk: 1, level: Level(2) }),
        Message::Meta(ToMeta::Configured(Configured { group: GROUP, members, at: AT, targets: 7 })),
        operate(Operation::Drain { node: 3 }),
        operate(Operation::Undrain { node: 3 }),
        operate(Operation::Remove { node: 3, reduce_redundancy: true }),
        operate(Operation::Transfer { group: GROUP, node: 3 }),
        operate(Operation::Rebalance),
        Message::Meta(ToMeta::Renew { renew: Renew { report: in_force, wall: Timestamp(5) }, relayed: true }),
        Message::Meta(ToMeta::InForce(in_force)),
        Message::Meta(ToMeta::Everywhere(Revision(7))),
        Message::Pass { to: 3, message: vec![1, 2] },
        Message::Remains(GROUP),
        Message::Recover(ToRecover { shard: ShardId(5), accept_loss: true, by: "me".to_owned() }),
        Message::Reached(vec![(11, Reach { term: 2, last: Some(AT) })]),
        Message::Learn(vec![(ShardId(5), MARK)]),
    ]
}

/// As [`name`].
fn name_of(answer: &Result<Answer, Failure>) -> &'static str {
    match answer {
        Ok(answer) => match answer {
            Answer::Heard => "heard",
            Answer::Applied(_) => "applied",
            Answer::Held(_) => "held",
            Answer::Seen(_) => "seen",
            Answer::Changed(_) => "changed",
            Answer::Rows(_) => "rows",
            Answer::Enrolled { .. } => "enrolled",
            Answer::Barred(_) => "barred",
            Answer::Operated(_) => "operated",
            Answer::Granted(_) => "granted",
            Answer::Passed(_) => "passed",
            Answer::Remains(_) => "remains",
            Answer::Customers(..) => "customers",
            Answer::Learned(..) => "learned",
            Answer::Experiment(_) => "experiment",
        },
        Err(Failure::Partial { .. }) => "partial",
        Err(Failure::Plain(plain)) => match plain {
            Plain::Refused(_) => "refused",
            Plain::UnknownTenant(_) => "unknown tenant",
            Plain::NotFound(_) => "not found",
            Plain::Invalid(_) => "invalid",
            Plain::KeyReused => "key reused",
            Plain::KeysFull => "keys full",
            Plain::Overloaded { .. } => "overloaded",
            Plain::Unavailable { .. } => "unavailable",
            Plain::NotLed { .. } => "not led",
            Plain::Expired => "expired",
            Plain::Unknown => "unknown",
            Plain::Poisonous => "poisonous",
        },
    }
}

fn answers() -> Vec<Result<Answer, Failure>> {
    let held = Held {
        account: ACCOUNT,
        granted_seen: 10,
        returned: 1,
        minted: 5,
        free: 2,
        reserved: 3,
        spent: 4,
        as_of: Timestamp(8),
    };
    let effect = Effect { id: "i".to_owned(), kind: None, also: Vec::new(), new_caps: Vec::new(), effect: Vec::new() };
    let changed = Changed { revision: Revision(7), id: "i".to_owned(), change: effect, over_by: 1 };
    let row = LedgerRow {
        account: ACCOUNT,
        span: SPAN,
        limit: 100,
        pool: -1,
        totals: [(ShardId(5), Totals { granted: 10, returned: 1, minted: 5 })].into(),
        reports: [(ShardId(5), report())].into(),
    };
    let remains = Remains { replica: 11, last: Some(AT), term: 2, voters: vec![[11, 12].into()], leads: true };
    let grant = Grant { fence: Revision(1), revision: Revision(2), wall: Timestamp(-1), lease_ms: 250 };
    let why = || "no".to_owned();
    let plain = |plain| Err(Failure::Plain(plain));
    vec![
        Ok(Answer::Heard),
        Ok(Answer::Applied(3)),
        Ok(Answer::Held(vec![held])),
        Ok(Answer::Seen(true)),
        Ok(Answer::Changed(vec![Ok(changed), Err(Failure::Plain(Plain::Expired))])),
        Ok(Answer::Rows(vec![row])),
        Ok(Answer::Enrolled { node: 3, replica: 11 }),
        Ok(Answer::Barred(why())),
        Ok(Answer::Operated(why())),
        Ok(Answer::Granted(grant)),
        Ok(Answer::Passed(vec![1, 2])),
        Ok(Answer::Remains(Some(remains))),
        Ok(Answer::Customers(vec![CustomerId::new("c")], Some(8))),
        Ok(Answer::Learned(vec![counted()], true)),
        Ok(Answer::Experiment(ExperimentTally { treatment: arm(9), control: arm(1) })),
        Err(Failure::Partial { applied: 3, asked: 5, refused: vec![(4, Plain::KeyReused)], cause: Plain::Expired }),
        plain(Plain::Refused(Refusal::NotFound(why()))),
        plain(Plain::UnknownTenant(why())),
        plain(Plain::NotFound(why())),
        plain(Plain::Invalid(why())),
        plain(Plain::KeyReused),
        plain(Plain::KeysFull),
        plain(Plain::Overloaded { retry_after_ms: 7 }),
        plain(Plain::Unavailable { reason: why(), retry_after_ms: 7 }),
        plain(Plain::NotLed { reason: why() }),
        plain(Plain::Expired),
        plain(Plain::Unknown),
        plain(Plain::Poisonous),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line each: name and bytes. What was read is written as the same bytes again.
fn table<T: bincode::Encode + bincode::Decode<()>>(said: &[T], name: impl Fn(&T) -> &'static str) -> String {
    let lines = said.iter().map(|said| {
        let bytes = encode(said);
        let read: T = decode("what a node says", &bytes).expect("it was just written");
        assert_eq!(encode(&read), bytes);
        format!("{} {}\n", name(said), hex(&bytes))
    });
    lines.collect()
}

#[test]
fn bytes_of_protocol_1() {
    assert_eq!(PROTOCOLS, (1, 1), "a new protocol has golden bytes of its own beside these");
    assert_eq!(table(&messages(), name), MESSAGES);
    assert_eq!(table(&answers(), name_of), ANSWERS);
}

const MESSAGES: &str = "\
leading 0001010203020004010505010607
notice 01050001010102030400fbd007010000000500010102030a01020304000506010710
order 010501010809
write 0105020174010809
held 010503017401010203
history 010504017406
customers 010505017401017307
experiment 01050601740901060102
report 02000501010102030a01020304000506010710
change 0201010001740161011000
budget 0202017406
enroll 0203010201700168017a
replace 02040101010509
able 02050102
configured 02060105020102010302030407
drain 02070003
undrain 02070103
remove 0207020301
transfer 020703010503
rebalance 020704
renew 02080302070a01
in force 0209030207
everywhere 020a07
pass 0303020102
remains 040105
recover 050501026d65
reached 06010b0201020304
learn 0701050109
";

const ANSWERS: &str = "\
heard 0000
applied 000103
held 0002010102030a010502030410
seen 000301
changed 0004020007016901690000000001010009
rows 00050101020300fbd007640101050a010501050102030a01020304000506010710
enrolled 0006030b
barred 0007026e6f
operated 0008026e6f
granted 0009010201fa
passed 000a020102
remains 000b010b010203040201020b0c01
customers 000c0101630108
learned 000d010501090101740702010607020108030101
experiment 000e09010303080101030308
partial 0101030501040409
refused 01000002026e6f
unknown tenant 010001026e6f
not found 010002026e6f
invalid 010003026e6f
key reused 010004
keys full 010005
overloaded 01000607
unavailable 010007026e6f07
not led 010008026e6f
expired 010009
unknown 01000a
poisonous 01000b
";
