//! Random catalogues, made by commands: what the catalogue refuses is left out, so that every state is one that can be.
//!
//! Domains are tiny on purpose: scores tie, caps close, policies bite, creatives run out.

use proffer_engine::catalog::{Actor, Catalog, Command, CommandV1, EntityKind, Op, Touched};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;

use super::dice::Dice;
use flows::draft;
use models::{MODELS, create_model, edit_model};
use offers::{create_creative, create_offer, create_slot_part, edit_offer};
use rules::{METRICS, create_guardrail, create_metric, create_policy, create_rule, edit_metric};

mod filters;
mod flows;
mod models;
mod offers;
mod rules;

/// Friday, 2026-06-05T21:30:00Z.
pub const START: Timestamp = Timestamp(1_780_695_000_000);
pub const SEGMENTS: [&str; 3] = ["vip", "young", "loyal"];
const CATEGORIES: [&str; 3] = ["cat_cards", "cat_loans", "cat_phones"];
const SUB_CATEGORIES: [&str; 3] = ["sub_0", "sub_1", "sub_2"];
const CHANNELS: [&str; 3] = ["chn_web", "chn_app", "chn_mail"];
const PLACEMENTS: [&str; 5] = ["plc_0", "plc_1", "plc_2", "plc_3", "plc_4"];
const CONTENT_TYPES: [&str; 3] = ["text", "html", "image"];
const FLOWS: [&str; 3] = ["main", "other", "third"];

/// The seeds of a catalogue: each makes one command, in sections, so that shrinking drops commands.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Offer ids are drawn from so many, so that their order is not the order of making.
    pub offer_ids: u64,
    pub settings: u64,
    pub frame: Vec<u64>,
    pub offers: Vec<u64>,
    pub creatives: Vec<u64>,
    pub slots: Vec<u64>,
    pub rules: Vec<u64>,
    pub policies: Vec<u64>,
    pub flows: Vec<u64>,
    pub routing: Option<u64>,
}

/// A catalogue with what was refused on the way.
pub struct Made {
    pub catalog: Catalog,
    pub tenant: TenantId,
    pub accepted: usize,
    pub refused: Vec<String>,
    offer_ids: u64,
    revision: u64,
}

impl Made {
    /// A tenant with nothing in it.
    pub fn empty(offer_ids: u64) -> Self {
        let tenant = TenantId::new("acme");
        let mut made =
            Made { catalog: Catalog::new(), tenant, accepted: 0, refused: Vec::new(), offer_ids, revision: 0 };
        made.apply(Op::CreateTenant);
        made
    }

    pub fn build(plan: &Plan) -> Self {
        let mut made = Made::empty(plan.offer_ids);
        made.apply(Op::UpdateSettings { patch: settings(&mut Dice(plan.settings)) });
        made.lay_ground(&mut Dice(plan.settings ^ 1));
        for seed in &plan.frame {
            made.apply(frame_edit(&mut Dice(*seed)));
        }
        for seed in &plan.offers {
            made.apply(create_offer(plan.offer_ids, &mut Dice(*seed)));
        }
        for seed in &plan.creatives {
            let known = made.known();
            made.apply(create_creative(&known, &mut Dice(*seed)));
        }
        for seed in &plan.rules {
            let known = made.known();
            made.apply(create_rule(&known, &mut Dice(*seed)));
        }
        for seed in &plan.policies {
            let known = made.known();
            made.apply(create_policy(&known, &mut Dice(*seed)));
        }
        for seed in &plan.policies {
            let mut dice = Dice(seed ^ 0x6a7d);
            if dice.chance(15) {
                made.apply(create_guardrail(&mut dice));
            }
        }
        for seed in &plan.flows {
            made.write_flow(&mut Dice(*seed));
        }
        for seed in &plan.slots {
            let known = made.known();
            made.apply(create_slot_part(&known, &mut Dice(*seed)));
        }
        if let Some(seed) = plan.routing {
            let known = made.known();
            made.apply(routing(&known, &mut Dice(seed)));
        }
        made
    }

    /// Applies a change; what it made stale.
    pub fn apply(&mut self, op: Op) -> Vec<Touched> {
        let actor = Actor { name: "test".to_owned(), admin: true };
        let command = CommandV1 { tenant: self.tenant.clone(), actor, at: START, op };
        self.revision += 1;
        match self.catalog.apply(Revision(self.revision), &Command::V1(command.clone())) {
            Ok(changed) => {
                self.accepted += 1;
                changed.effect
            }
            Err(refusal) => {
                self.revision -= 1;
                self.refused.push(format!("{refusal} <= {:?}", command.op));
                Vec::new()
            }
        }
    }

    fn known(&self) -> Known {
        let tenant = self.catalog.tenant(&self.tenant).expect("the plan makes the tenant");
        let general = |id: &String| id.starts_with("offer_");
        Known {
            offers: tenant.offers().iter().map(|row| row.id.clone()).filter(general).collect(),
            creatives: tenant.creatives().iter().map(|row| row.id.clone()).collect(),
            rules: tenant.rules().iter().map(|row| row.id.clone()).collect(),
            policies: tenant.policies().iter().map(|row| row.id.clone()).collect(),
            collections: tenant.collections().iter().map(|row| row.id.clone()).collect(),
            flows: tenant.flows().iter().map(|row| row.body.key.clone()).collect(),
            guardrails: tenant.guardrails().iter().map(|row| row.id.clone()).collect(),
        }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// A random change of an existing catalogue.
    pub fn change(&mut self, seed: u64) -> Vec<Touched> {
        let mut dice = Dice(seed);
        let known = self.known();
        let op = match dice.below(29) {
            0..=4 => edit_offer(&known, &mut dice),
            5 => create_offer(self.offer_ids, &mut dice),
            6 => create_creative(&known, &mut dice),
            7 => edit(&mut dice, EntityKind::Creative, &known.creatives, &["status", "weight", "split"]),
            8 => create_rule(&known, &mut dice),
            9 => edit(&mut dice, EntityKind::Rule, &known.rules, &["status", "priority"]),
            10 => create_policy(&known, &mut dice),
            11 => edit(&mut dice, EntityKind::Policy, &known.policies, &["status", "priority"]),
            12 => delete(&known, &mut dice),
            13 => frame_edit(&mut dice),
            14 => create_slot_part(&known, &mut dice),
            15 => Op::UpdateSettings { patch: settings(&mut dice) },
            16 => edit_category(&mut dice),
            17 => routing(&known, &mut dice),
            18 => {
                return self.write_flow(&mut dice);
            }
            19 => edit_collection(&known, &mut dice),
            20 => edit_activity(&known, &mut dice),
            21 => rename_category(&mut dice),
            22 => edit_margin(&known, &mut dice),
            24 => create_guardrail(&mut dice),
            25 => edit(&mut dice, EntityKind::Guardrail, &known.guardrails, &["status", "priority"]),
            23 => Op::RollbackFlow { id: format!("flow_{}", dice.pick(&FLOWS)), version: 1 + dice.below(3) as u32 },
            26 | 27 => edit_model(&mut dice),
            _ => edit(&mut dice, EntityKind::Rule, &known.rules, &["scope"]),
        };
        self.apply(op)
    }

    /// Channels, placements, categories, a schema, and fallback offers that can stand in everywhere.
    fn lay_ground(&mut self, dice: &mut Dice) {
        for (index, id) in CHANNELS.iter().enumerate() {
            let mut members = vec![("name", text(["web", "app", "mail"][index]))];
            if dice.chance(15) {
                members.push(("couplingMode", text("atomic")));
            }
            if dice.chance(20) {
                members.push(("reservationSeconds", Value::Number(60.0)));
            }
            self.create(EntityKind::Channel, id, &members);
        }
        for (index, id) in PLACEMENTS.iter().enumerate() {
            let channel = CHANNELS[index % CHANNELS.len()];
            self.create(EntityKind::Placement, id, &[("name", text(id)), ("channelId", text(channel))]);
        }
        for metric in METRICS {
            self.apply(create_metric(dice, metric));
        }
        for name in ["Cards", "Loans", "Phones"] {
            let members = [("name", text(name)), ("customFields", custom_fields(dice))];
            self.create(EntityKind::Category, "", &members);
        }
        for (index, id) in SUB_CATEGORIES.iter().enumerate() {
            let parent = CATEGORIES[index % 2];
            self.create(EntityKind::SubCategory, id, &[("name", text(id)), ("categoryId", text(parent))]);
        }
        for (id, name) in [("sch_a", "a"), ("sch_b", "b")] {
            let field = |name: &str, kind: &str, unique: bool| {
                Value::map([("name", text(name)), ("dataType", text(kind)), ("isUnique", Value::Bool(unique))])
            };
            let fields =
                [field("customer", "varchar", true), field("age", "integer", false), field("tier", "text", false)];
            self.create(EntityKind::Schema, id, &[("name", text(name)), ("fields", Value::list(fields))]);
        }
        for id in ["fall_0", "fall_1"] {
            let members = [("name", text(id)), ("kind", text("fallback")), ("status", text("active"))];
            self.create(EntityKind::Offer, id, &members);
            for channel in CHANNELS {
                let members = [
                    ("name", text(id)),
                    ("offerId", text(id)),
                    ("channelId", text(channel)),
                    ("status", text("active")),
                ];
                self.create(EntityKind::Creative, &format!("crt_{id}_{channel}"), &members);
            }
        }
        for placement in PLACEMENTS {
            if dice.chance(20) {
                self.apply(narrow(placement, dice));
            }
        }
        for key in MODELS {
            self.apply(create_model(dice, key));
        }
    }

    pub fn create(&mut self, kind: EntityKind, id: &str, members: &[(&str, Value)]) {
        let op = Op::Create { kind, id: id.to_owned(), body: Value::map(members.to_vec()) };
        self.apply(op);
    }

    fn write_flow(&mut self, dice: &mut Dice) -> Vec<Touched> {
        let key = dice.pick(&FLOWS);
        let id = format!("flow_{key}");
        let draft = draft(&self.known(), dice);
        let members = [("key", text(key)), ("name", text(key)), ("draftConfig", draft.clone())];
        let known = self.catalog.tenant(&self.tenant).is_some_and(|tenant| tenant.flow_by_key(key).is_some());
        let mut touched = if known {
            let patch = Value::map([("draftConfig", draft)]);
            self.apply(Op::Update { kind: EntityKind::Flow, id: id.clone(), patch, expected: None })
        } else {
            self.apply(Op::Create { kind: EntityKind::Flow, id: id.clone(), body: Value::map(members) })
        };
        if dice.chance(90) {
            touched.extend(self.apply(Op::PublishFlow { id: id.clone() }));
        }
        if dice.chance(10) {
            let patch = Value::map([("status", text("paused"))]);
            touched.extend(self.apply(Op::Update { kind: EntityKind::Flow, id, patch, expected: None }));
        }
        touched
    }
}

fn text(text: &str) -> Value {
    Value::text(text)
}

fn texts<S: AsRef<str>>(items: &[S]) -> Value {
    Value::list(items.iter().map(|item| text(item.as_ref())))
}

fn number(dice: &mut Dice, numbers: &[f64]) -> Value {
    Value::Number(dice.pick(numbers))
}

/// What there is to refer to.
struct Known {
    offers: Vec<String>,
    creatives: Vec<String>,
    rules: Vec<String>,
    policies: Vec<String>,
    collections: Vec<String>,
    flows: Vec<String>,
    guardrails: Vec<String>,
}

/// One of `ids`; a name of nothing if there are none.
fn one_of(dice: &mut Dice, ids: &[String]) -> String {
    if ids.is_empty() { "none".to_owned() } else { dice.pick(ids) }
}

fn settings(dice: &mut Dice) -> Value {
    let mut members = vec![
        ("timeZone", text(dice.pick(&["UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu"]))),
        ("weekStart", text(dice.pick(&["monday", "sunday", "thursday"]))),
        ("mandatoryPerDay", number(dice, &[0.0, 1.0, 2.0, 5.0])),
        ("fatigueStrength", number(dice, &[0.0, 0.3, 1.0])),
        ("fatigueHalfLifeHours", number(dice, &[1.0, 72.0])),
        ("outcomes", Value::list([Value::map([("key", text("installed")), ("sentiment", text("positive"))])])),
    ];
    if dice.chance(50) {
        members.push(("reservationSeconds", Value::Number(300.0)));
    }
    Value::map(members)
}

fn routing(known: &Known, dice: &mut Dice) -> Op {
    if known.flows.is_empty() {
        return Op::UpdateSettings { patch: Value::map([("mandatoryPerDay", Value::Number(1.0))]) };
    }
    let mut members = Vec::new();
    if dice.chance(50) {
        members.push(("defaultFlowKey", text(&one_of(dice, &known.flows))));
    }
    let mut routes = Vec::new();
    for _ in 0..dice.below(3) {
        let index = dice.below(CHANNELS.len());
        let mut route =
            vec![("channelId", text(CHANNELS[index])), ("decisionFlowKey", text(&one_of(dice, &known.flows)))];
        if dice.chance(50) {
            route.push(("placementId", text(PLACEMENTS[index])));
        }
        routes.push(Value::map(route));
    }
    members.push(("routes", Value::list(routes)));
    Op::UpdateSettings { patch: Value::map(members) }
}

fn custom_fields(dice: &mut Dice) -> Value {
    let plain = |name: &str, kind: &str| Value::map([("name", text(name)), ("type", text(kind))]);
    let computed = |name: &str, formula: &str, output: &str| {
        Value::map([
            ("name", text(name)),
            ("type", text("computed")),
            ("formula", text(formula)),
            ("outputType", text(output)),
        ])
    };
    let formulas = [
        "rate * (1 - customer.age * 0.01)",
        "customer.age > 30 ? 500 : customer.age > 20 ? 250 : 100",
        "coalesce(customer.age, attributes.age, 7) + offer.priority",
        "round(rate / context.stock, 2)",
        "metric.views_of + metric.clicks * 10",
    ];
    let labels = [
        "concat(attributes.channel, \" - \", coalesce(customer.tier, \"none\"))",
        "customer.tier + offer.name",
        "customer.age",
    ];
    let mut fields = vec![plain("rate", "number"), plain("colour", "text")];
    if dice.chance(80) {
        fields.push(computed("price", dice.pick(&formulas), "number"));
        if dice.chance(60) {
            fields.push(computed("twice", "price * 2", "number"));
        }
    }
    if dice.chance(60) {
        fields.push(computed("label", dice.pick(&labels), "text"));
    }
    Value::list(fields)
}

fn status(dice: &mut Dice, usually: u64) -> Value {
    text(if dice.chance(usually) { "active" } else { dice.pick(&["draft", "paused"]) })
}

/// Lets a placement take some content types, or all.
fn narrow(placement: &str, dice: &mut Dice) -> Op {
    let patch = Value::map([("contentTypes", texts(&dice.some_of(50, &CONTENT_TYPES)))]);
    Op::Update { kind: EntityKind::Placement, id: placement.to_owned(), patch, expected: None }
}

/// Switches one thing of the ground off (or on again).
fn frame_edit(dice: &mut Dice) -> Op {
    let status = text(dice.pick(&["active", "active", "paused", "archived"]));
    if dice.chance(15) {
        return edit_metric(dice);
    }
    let (kind, id) = match dice.below(6) {
        0 => (EntityKind::Channel, dice.pick(&CHANNELS)),
        1 | 2 => (EntityKind::Placement, dice.pick(&PLACEMENTS)),
        3 => (EntityKind::Category, dice.pick(&CATEGORIES)),
        4 => (EntityKind::SubCategory, dice.pick(&SUB_CATEGORIES)),
        _ => (EntityKind::Schema, dice.pick(&["sch_a", "sch_b"])),
    };
    if kind == EntityKind::Placement && dice.chance(40) {
        return narrow(id, dice);
    }
    Op::Update { kind, id: id.to_owned(), patch: Value::map([("status", status)]), expected: None }
}

fn edit_category(dice: &mut Dice) -> Op {
    let patch = Value::map([("customFields", custom_fields(dice))]);
    Op::Update { kind: EntityKind::Category, id: dice.pick(&CATEGORIES).to_owned(), patch, expected: None }
}

/// Another name, which no column holds, and perhaps another status, which one does.
fn rename_category(dice: &mut Dice) -> Op {
    let mut members = vec![("name", text(dice.pick(&["Cards", "Loans", "Phones", "More"])))];
    if dice.chance(30) {
        members.push(("status", status(dice, 60)));
    }
    let (kind, id) = if dice.chance(70) {
        (EntityKind::Category, dice.pick(&CATEGORIES))
    } else {
        (EntityKind::SubCategory, dice.pick(&SUB_CATEGORIES))
    };
    Op::Update { kind, id: id.to_owned(), patch: Value::map(members), expected: None }
}

fn edit_collection(known: &Known, dice: &mut Dice) -> Op {
    let patch = match dice.below(4) {
        0 => ("status", status(dice, 60)),
        1 => ("name", text(dice.pick(&["one", "two", "three"]))),
        2 => ("allOf", texts(&dice.some_of(50, &offers::TAGS))),
        _ => ("anyOf", texts(&dice.some_of(60, &offers::TAGS))),
    };
    let id = one_of(dice, &known.collections);
    Op::Update { kind: EntityKind::Collection, id, patch: Value::map([patch]), expected: None }
}

fn edit_activity(known: &Known, dice: &mut Dice) -> Op {
    let patch = match dice.below(3) {
        0 => ("collectionId", text(&one_of(dice, &known.collections))),
        1 => ("placementId", text(dice.pick(&PLACEMENTS))),
        _ => ("status", status(dice, 60)),
    };
    let (kind, id) = (EntityKind::Activity, format!("act_{}", dice.below(4)));
    if dice.chance(20) {
        return Op::Delete { kind, id, force: true, has_history: false };
    }
    Op::Update { kind, id, patch: Value::map([patch]), expected: None }
}

/// Often a new largest one.
fn edit_margin(known: &Known, dice: &mut Dice) -> Op {
    let patch = Value::map([
        ("margin", number(dice, &[-1.0, 10.0, 12.0, 40.0])),
        ("revenueValue", number(dice, &[7.0, 8.0, 90.0])),
    ]);
    Op::Update { kind: EntityKind::Offer, id: one_of(dice, &known.offers), patch, expected: None }
}

fn edit(dice: &mut Dice, kind: EntityKind, ids: &[String], members: &[&str]) -> Op {
    let patch = match dice.pick(members) {
        "status" => ("status", text(dice.pick(&["active", "active", "paused"]))),
        "scope" => ("scopes", Value::list([Value::map([("scope", text("global"))])])),
        "split" => ("split", number(dice, &[0.0, 1.0, 4.0])),
        member => (if member == "weight" { "weight" } else { "priority" }, number(dice, &[0.0, 50.0, 100.0])),
    };
    Op::Update { kind, id: one_of(dice, ids), patch: Value::map([patch]), expected: None }
}

fn delete(known: &Known, dice: &mut Dice) -> Op {
    let (kind, id) = match dice.below(8) {
        0 | 1 => (EntityKind::Offer, one_of(dice, &known.offers)),
        2 => (EntityKind::Creative, one_of(dice, &known.creatives)),
        3 => (EntityKind::Rule, one_of(dice, &known.rules)),
        4 => (EntityKind::Policy, one_of(dice, &known.policies)),
        5 => (EntityKind::Category, dice.pick(&CATEGORIES).to_owned()),
        6 => (EntityKind::Collection, one_of(dice, &known.collections)),
        _ => (EntityKind::SubCategory, dice.pick(&SUB_CATEGORIES).to_owned()),
    };
    Op::Delete { kind, id, force: true, has_history: false }
}
