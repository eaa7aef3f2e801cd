//! Disagreements that were found, each by name.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::decide::view::Instant;
use proffer_engine::keys::CustomerId;
use proffer_engine::time::Calendar;
use proffer_engine::value::Value;

use super::catalogue::{Made, Plan, START};
use super::world::{Escrow, World};
use super::*;

/// The ground of every random catalogue and nothing on it.
fn ground() -> Made {
    Made::build(&Plan {
        offer_ids: 1,
        settings: 0,
        frame: Vec::new(),
        offers: Vec::new(),
        creatives: Vec::new(),
        slots: Vec::new(),
        rules: Vec::new(),
        policies: Vec::new(),
        flows: Vec::new(),
        routing: None,
    })
}

fn stranger(catalog: &TenantCatalog) -> World {
    let at = Instant { now: START, frame: Calendar::of(catalog.settings()).frame(START) };
    World { profile: None, symbols: Symbols::default(), escrow: Escrow::default(), at, learned: Default::default() }
}

fn plain_request(made: &Made) -> Request {
    Request {
        tenant: made.tenant.clone(),
        customer: CustomerId::new("ada"),
        channel: None,
        slots: Vec::new(),
        flow: None,
        limit: None,
        attributes: Vec::new(),
        context: Vec::new(),
        segments: Vec::new(),
        exclude_offers: Vec::new(),
        exclude_creatives: Vec::new(),
        duplicates: Duplicates::Never,
        arbitration: None,
        explain: Explain::Off,
        counters: true,
    }
}

#[test]
fn an_edited_computed_field_reaches_the_updated_snapshot() {
    let mut made = ground();
    let offer = [
        ("name", Value::text("Card")),
        ("status", Value::text("active")),
        ("categoryId", Value::text("cat_cards")),
        ("customFields", Value::map([("rate", Value::Number(12.5))])),
    ];
    made.apply(Op::Create { kind: EntityKind::Offer, id: "offer_0".to_owned(), body: Value::map(offer) });
    let tenant = made.tenant.clone();
    let snapshot =
        Snapshot::compile(&tenant, made.catalog.tenant(&tenant).expect("the ground makes it"), made.revision());
    let field = |name: &str, kind: &str| vec![("name", Value::text(name)), ("type", Value::text(kind))];
    let mut computed = field("price", "computed");
    computed.extend([("formula", Value::text("rate * 3")), ("outputType", Value::text("number"))]);
    let fields = Value::list([Value::map(field("rate", "number")), Value::map(computed)]);
    let patch = Value::map([("customFields", fields)]);
    let touched =
        made.apply(Op::Update { kind: EntityKind::Category, id: "cat_cards".to_owned(), patch, expected: None });
    let catalog = made.catalog.tenant(&tenant).expect("the ground makes it");
    let snapshot = snapshot.update(catalog, &touched, made.revision());
    let decision = Kernel::default().decide(&snapshot, &stranger(catalog), &plain_request(&made));
    assert_eq!(decision.propositions[0].computed, [(1, Value::Number(37.5))]);
    assert_eq!(decision, naive(catalog, &stranger(catalog), &plain_request(&made)));
}

#[test]
fn what_expressions_read_of_status_exclusion_and_texts_reaches_the_updated_snapshot() {
    let expressions = [
        ("offer.status == 'active'", r"status", Value::text("paused"), Value::text("active")),
        ("!offer.emergencyExcluded", "emergencyExcluded", Value::Bool(true), Value::Bool(false)),
        ("offer.description == 'fine'", "description", Value::text("bad"), Value::text("fine")),
    ];
    for (expression, member, first, then) in expressions {
        let mut made = ground();
        let offer = [("name", Value::text("Card")), ("status", Value::text("active"))];
        made.apply(Op::Create { kind: EntityKind::Offer, id: "offer_0".to_owned(), body: Value::map(offer) });
        let rule = [
            ("name", Value::text("r")),
            ("ruleType", Value::text("expression")),
            ("config", Value::map([("expression", Value::text(expression))])),
        ];
        made.apply(Op::Create { kind: EntityKind::Rule, id: "rule_0".to_owned(), body: Value::map(rule) });
        let edit = |made: &mut Made, value: Value| {
            let patch = Value::map([(member, value)]);
            made.apply(Op::Update { kind: EntityKind::Offer, id: "offer_0".to_owned(), patch, expected: None })
        };
        edit(&mut made, first);
        let tenant = made.tenant.clone();
        let catalog = made.catalog.tenant(&tenant).expect("the ground makes it");
        let snapshot = Snapshot::compile(&tenant, catalog, made.revision());
        let decide = |made: &Made, snapshot: &Snapshot| {
            let catalog = made.catalog.tenant(&tenant).expect("the ground makes it");
            let decision = Kernel::default().decide(snapshot, &stranger(catalog), &plain_request(made));
            assert_eq!(decision, naive(catalog, &stranger(catalog), &plain_request(made)), "{expression}");
            decision.propositions.len()
        };
        assert_eq!(decide(&made, &snapshot), 0, "{expression}");
        let touched = edit(&mut made, then);
        let catalog = made.catalog.tenant(&tenant).expect("the ground makes it");
        let snapshot = snapshot.update(catalog, &touched, made.revision());
        assert_eq!(decide(&made, &snapshot), 1, "{expression}");
    }
}
