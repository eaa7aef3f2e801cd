//! What channels may send: bodies, lines, ids, and what nodes forward of them; right, wrong, or with faults.

use axum::http::{HeaderMap, Method};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proffer_engine::catalog::{Actor, Catalog, Command, CommandV1, Op};
use proffer_engine::decide::decision::PropositionKind;
use proffer_engine::keys::{ChannelKey, CreativeKey, CustomerId, FlowKey, OfferKey, PlacementKey, Revision, TenantId};
use proffer_engine::model::fault::Faults;
use proffer_engine::model::record::Field;
use proffer_engine::profile::command::DecisionId;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;
use proffer_fuzz::Choices;

use crate::forwarding::wire::{ForwardedAnswer, ForwardedCall, Forwarding};
use crate::limits::{BULK_LINES_MAX, RECOMMENDATION_ID_BYTES_MAX};
use crate::problem::Problem;
use crate::recommendation::{Refused, Token, TokenArm, TokenKey, TokenKeys, TokenProposition, customer_hash};
use crate::v1::import::read_catalogue;
use crate::wire::lines::{self, BadLines};
use crate::wire::profile::PutProfile;
use crate::wire::recommend::Recommend;
use crate::wire::respond::{Release, Respond};
use crate::wire::value::{self, Json};

proffer_fuzz::targets!(json, bodies, catalogue, any_id, damaged_id, forwarded);

/// Text that is nearly JSON: what is read is what another reader reads, and reads back as it is written.
fn json(bytes: &[u8]) {
    const WORDS: [&str; 32] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"b\"",
        "\"",
        "\\",
        "\\u0041",
        "\\ud83d",
        "é",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-",
        ".5",
        "e9",
        "1e400",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "1.7976931348623157e308",
        "5e-324",
        " ",
        "\n",
        "\u{0}",
        "{\"a\":",
    ];
    understand(bytes);
    let nearly: String = bytes.iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]).collect();
    understand(nearly.as_bytes());
    let mut choices = Choices::new(bytes);
    let mut text = serde_json::to_vec(&Json(&any_value(&mut choices, 3))).expect("values are JSON");
    understand(&text);
    choices.damage(&mut text);
    understand(&text);
}

fn understand(text: &[u8]) {
    match value::read(text) {
        Ok(read) => {
            let other: serde_json::Value = serde_json::from_slice(text).expect("what is JSON to us is JSON");
            assert!(is_same(&read, &other), "{read:?} is not {other}");
            let written = serde_json::to_vec(&Json(&read)).expect("values are JSON");
            assert_eq!(value::read(&written).expect("what is written is read"), read);
        }
        Err(Problem::Malformed { line, column, message }) => {
            let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&line) && column >= 1 && !message.is_empty());
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn is_same(ours: &Value, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(ours), serde_json::Value::Bool(theirs)) => ours == theirs,
        (Value::Number(ours), serde_json::Value::Number(theirs)) => theirs.as_f64() == Some(*ours),
        (Value::Text(ours), serde_json::Value::String(theirs)) => **ours == **theirs,
        (Value::List(ours), serde_json::Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Value::Map(ours), serde_json::Value::Object(theirs)) => {
            let known = |name: &str, theirs| ours.get(name).is_some_and(|ours| is_same(ours, theirs));
            ours.len() == theirs.len() && theirs.iter().all(|(name, theirs)| known(name, theirs))
        }
        (_, _) => false,
    }
}

/// Objects with members that bodies have, and others: a body is read or its faults are named; one that is read reads back as written.
fn bodies(bytes: &[u8]) {
    let body = any_body(&mut Choices::new(bytes));
    reads_back::<Recommend>(&body);
    reads_back::<Respond>(&body);
    reads_back::<Release>(&body);
    reads_back::<PutProfile>(&body);
}

fn reads_back<T: Field + PartialEq + std::fmt::Debug>(body: &Value) {
    let mut faults = Faults::new();
    let Some(read) = T::read(body, &mut faults) else {
        assert!(!faults.is_empty(), "what is refused has faults");
        return;
    };
    if faults.is_empty() {
        let again = T::read(&read.write(), &mut faults);
        assert_eq!((again.as_ref(), faults.is_empty()), (Some(&read), true));
    }
}

/// Bulk bodies: lines of one kind, and objects of lists by kind. What can be read is tried on a catalogue, as an import does.
fn catalogue(bytes: &[u8]) {
    let mut bad = BadLines::default();
    let read = lines::read(bytes, &mut bad);
    assert!(read.len() <= BULK_LINES_MAX && read.iter().all(|line| !line.members().contains_key("\n")));
    drop(bad.into_result());
    let mut choices = Choices::new(bytes);
    let kinds = ["offers", "categories", "rules", "channels", "flows", "profiles", "rows:x", "policies", "x"];
    let lists = (0..choices.below(4)).map(|_| {
        let kind = *choices.pick(&kinds);
        let items: Vec<Value> = (0..choices.below(3)).map(|_| any_body(&mut choices)).collect();
        (kind, Value::list(items))
    });
    let body = Value::map(lists.collect::<Vec<_>>());
    let mut text = serde_json::to_vec(&Json(&body)).expect("values are JSON");
    if choices.below(4) == 0 {
        choices.damage(&mut text);
    }
    let Ok(batches) = read_catalogue(&text, &mut BadLines::default()) else { return };
    let tenant = TenantId::new("t");
    let mut catalog = Catalog::default();
    let actor = || Actor { name: "test".to_owned(), admin: true };
    let command = |op| Command::V1(CommandV1 { tenant: tenant.clone(), actor: actor(), at: Timestamp(5), op });
    catalog.apply(Revision(1), &command(Op::CreateTenant)).expect("it is the first");
    for (batch, place) in batches.into_iter().zip(2..) {
        let Some(kind) = proffer_engine::catalog::EntityKind::parse(&batch.name) else { continue };
        for line in batch.lines {
            let create = Op::Create { kind, id: format!("{}{}", kind.id_prefix(), line.number), body: line.value };
            drop(catalog.apply(Revision(place), &command(create)));
        }
    }
    let again = Catalog::from_records(catalog.records()).expect("what is stored is read");
    assert!(again.records().eq(catalog.records()));
}

const CUSTOMER: &str = "cust_42";

fn keys() -> TokenKeys {
    TokenKeys::new(TokenKey::new(2, &[2; 32]), vec![TokenKey::new(1, &[1; 32])])
}

fn open(id: &str) -> Result<Token, Refused> {
    keys().open(id, &TenantId::new("default"), &CustomerId::new(CUSTOMER), Timestamp(5))
}

/// Text that is no id.
fn any_id(bytes: &[u8]) {
    assert_eq!(open(&String::from_utf8_lossy(bytes)), Err(Refused::Foreign));
    assert_eq!(open(&URL_SAFE_NO_PAD.encode(bytes)), Err(Refused::Foreign));
    // Also one that begins as an id does, with a key that there is.
    assert_eq!(open(&URL_SAFE_NO_PAD.encode([&[1, 0, 0, 0, 2][..], bytes].concat())), Err(Refused::Foreign));
}

/// An id opens to what was sealed in it, and no other text like it opens.
fn damaged_id(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let proposition = TokenProposition {
        offer: OfferKey(choices.number() as u32),
        creative: CreativeKey::NONE,
        channel: ChannelKey::NONE,
        placement: PlacementKey::NONE,
        kind: PropositionKind::Regular,
    };
    let token = Token {
        tenant: TenantId::new("default"),
        customer: customer_hash(&CustomerId::new(CUSTOMER)),
        decision: DecisionId(choices.number()),
        at: Timestamp(1),
        expires_at: Timestamp(9),
        revision: Revision(choices.number()),
        flow: choices.flag().then_some((FlowKey(1), 2)),
        arm: TokenArm::Treated,
        propositions: vec![proposition; choices.below(4)],
        ghosts: Vec::new(),
    };
    let id = keys().seal(token.clone());
    assert!(id.len() <= RECOMMENDATION_ID_BYTES_MAX);
    assert_eq!(open(&id), Ok(token));
    let mut damaged = id.clone().into_bytes();
    if choices.flag() {
        choices.damage(&mut damaged);
    } else {
        // Another character of the alphabet.
        let at = choices.below(damaged.len());
        damaged[at] = *choices.pick(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/");
    }
    let damaged = String::from_utf8_lossy(&damaged).into_owned();
    if damaged != id {
        assert_eq!(open(&damaged), Err(Refused::Foreign), "{damaged} for {id}");
    }
}

/// Calls and answers between nodes.
fn forwarded(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    understand_forwarded(bytes.to_vec());
    let target = choices.pick(&["/", "/api/v1/recommend?x=1", "/%20"]).parse().expect("a path");
    let call = ForwardedCall {
        forwards: choices.byte(),
        least_revision: Revision(choices.number()),
        method: Method::POST,
        target,
        headers: HeaderMap::new(),
        body: vec![7; choices.below(40)].into(),
    };
    let mut bytes = call.encode().expect("it is small");
    assert_eq!(Forwarding::decode(bytes.clone()), Ok(Forwarding::Call(Box::new(call))));
    choices.damage(&mut bytes);
    understand_forwarded(bytes);
}

fn understand_forwarded(bytes: Vec<u8>) {
    if let Ok(Forwarding::Call(call)) = Forwarding::decode(bytes.clone()) {
        let again = Forwarding::decode(call.encode().expect("it was small"));
        assert_eq!(again, Ok(Forwarding::Call(call)));
    }
    if let Ok(answer) = ForwardedAnswer::decode(bytes) {
        assert_eq!(ForwardedAnswer::decode(answer.encode()), Ok(answer));
    }
}

/// An object with members of requests and of what is authored.
fn any_body(choices: &mut Choices<'_>) -> Value {
    const MEMBERS: [&str; 54] = [
        "customerId",
        "channel",
        "placement",
        "placements",
        "activities",
        "decisionFlowKey",
        "limit",
        "attributes",
        "context",
        "segments",
        "excludeOffers",
        "sessionId",
        "locale",
        "allowDuplicates",
        "arbitration",
        "supersedes",
        "explain",
        "recommendationId",
        "rank",
        "offerId",
        "outcome",
        "idempotencyKey",
        "conversionValue",
        "timestamp",
        "outcomeDetails",
        "ranks",
        "id",
        "name",
        "key",
        "type",
        "status",
        "priority",
        "categoryId",
        "caps",
        "schedule",
        "tags",
        "customFields",
        "config",
        "nodes",
        "conditions",
        "fields",
        "formula",
        "condition",
        "scope",
        "per",
        "window",
        "countOn",
        "from",
        "until",
        "value",
        "operator",
        "attribute",
        "x",
        "",
    ];
    let mut members = Vec::new();
    for _ in 0..1 + choices.below(6) {
        members.push((*choices.pick(&MEMBERS), any_value(choices, 3)));
    }
    if choices.flag() {
        members.push(("customerId", Value::text("c")));
    }
    if choices.flag() {
        members.push(("name", Value::text("n")));
    }
    Value::map(members)
}

fn any_value(choices: &mut Choices<'_>, depth: usize) -> Value {
    const WORDS: [&str; 24] = [
        "",
        "a",
        "c",
        "n",
        "hero",
        "web",
        "active",
        "global",
        "profile",
        "day",
        "rolling",
        "decision",
        "impression",
        "greedy",
        "optimal",
        "2026-01-01T00:00:00Z",
        "08:00",
        "offer.x > 1",
        "customer.age in [1, 2]",
        "attribute_condition",
        "equals",
        "größe",
        "\u{0}",
        "offer_1",
    ];
    const NUMBERS: [f64; 10] = [0.0, -0.0, 1.0, -1.0, 0.5, 50.0, 51.0, 1e9, 1e300, -5e-324];
    match choices.below(if depth == 0 { 5 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(choices.flag()),
        2 => Value::Number(*choices.pick(&NUMBERS)),
        3 => Value::text(choices.pick(&WORDS)),
        4 => Value::text("x".repeat(choices.below(300))),
        5 | 6 => Value::list((0..choices.below(4)).map(|_| any_value(choices, depth - 1)).collect::<Vec<_>>()),
        _ => {
            let body = any_body_of(choices, depth - 1);
            Value::map(body)
        }
    }
}

fn any_body_of(choices: &mut Choices<'_>, depth: usize) -> Vec<(&'static str, Value)> {
    const MEMBERS: [&str; 16] = [
        "placement",
        "activity",
        "limit",
        "x",
        "type",
        "scope",
        "per",
        "name",
        "conditions",
        "operator",
        "value",
        "attribute",
        "formula",
        "id",
        "from",
        "until",
    ];
    (0..choices.below(4)).map(|_| (*choices.pick(&MEMBERS), any_value(choices, depth))).collect()
}
