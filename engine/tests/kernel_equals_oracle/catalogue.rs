//! Random catalogues, made by commands: what the catalogue refuses is left out, so that every state is one that can be.
//!
//! Domains are tiny on purpose: scores tie, caps close, policies bite, creatives run out.

use proffer_engine::catalog::{Actor, Catalog, Command, CommandV1, EntityKind, Op, Touched};
use proffer_engine::keys::{Revision, TenantId};
use proffer_engine::time::{DAY_MS, HOUR_MS, Timestamp};
use proffer_engine::value::Value;

use super::dice::Dice;

/// Friday, 2026-06-05T21:30:00Z.
pub const START: Timestamp = Timestamp(1_780_695_000_000);
pub const SEGMENTS: [&str; 3] = ["vip", "young", "loyal"];
const CATEGORIES: [&str; 3] = ["cat_cards", "cat_loans", "cat_phones"];
const SUB_CATEGORIES: [&str; 3] = ["sub_0", "sub_1", "sub_2"];
const CHANNELS: [&str; 3] = ["chn_web", "chn_app", "chn_mail"];
const PLACEMENTS: [&str; 5] = ["plc_0", "plc_1", "plc_2", "plc_3", "plc_4"];
const TAGS: [&str; 3] = ["red", "blue", "green"];
const FLOWS: [&str; 3] = ["main", "other", "third"];
const OUTCOMES: [&str; 4] = ["click", "dismiss", "conversion", "installed"];

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
        }
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// A random change of an existing catalogue.
    pub fn change(&mut self, seed: u64) -> Vec<Touched> {
        let mut dice = Dice(seed);
        let known = self.known();
        let op = match dice.below(20) {
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
            _ => edit_offer(&known, &mut dice),
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

/// Switches one thing of the ground off (or on again).
fn frame_edit(dice: &mut Dice) -> Op {
    let status = text(dice.pick(&["active", "active", "paused", "archived"]));
    let (kind, id) = match dice.below(6) {
        0 => (EntityKind::Channel, dice.pick(&CHANNELS)),
        1 | 2 => (EntityKind::Placement, dice.pick(&PLACEMENTS)),
        3 => (EntityKind::Category, dice.pick(&CATEGORIES)),
        4 => (EntityKind::SubCategory, dice.pick(&SUB_CATEGORIES)),
        _ => (EntityKind::Schema, dice.pick(&["sch_a", "sch_b"])),
    };
    Op::Update { kind, id: id.to_owned(), patch: Value::map([("status", status)]), expected: None }
}

fn edit_category(dice: &mut Dice) -> Op {
    let patch = Value::map([("customFields", custom_fields(dice))]);
    Op::Update { kind: EntityKind::Category, id: dice.pick(&CATEGORIES).to_owned(), patch, expected: None }
}

fn iso(at: Timestamp) -> Value {
    text(&proffer_engine::calendar::iso(at))
}

fn moment(dice: &mut Dice) -> Value {
    if dice.chance(30) {
        return text(dice.pick(&["2026-06-05T23:59:59", "2026-06-06", "2026-06-05T22:00:00"]));
    }
    let days = dice.pick(&[-40, -1, 0, 1, 3, 9]);
    let hours = dice.pick(&[0, 1, -1]);
    iso(START.plus_ms(days * DAY_MS + hours * HOUR_MS))
}

fn schedule(dice: &mut Dice) -> Value {
    let mut members = Vec::new();
    if dice.chance(40) {
        members.push(("startDate", moment(dice)));
    }
    if dice.chance(40) {
        members.push(("endDate", moment(dice)));
    }
    if dice.chance(40) {
        let days = dice.some_of(60, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        members.push(("daysOfWeek", Value::list(days.into_iter().map(Value::Number))));
    }
    if dice.chance(40) {
        members.push(("timeWindow", time_window(dice)));
    }
    Value::map(members)
}

fn time_window(dice: &mut Dice) -> Value {
    let (start, end) = dice.pick(&[("08:00", "20:00"), ("22:00", "02:00"), ("21:30", "21:31"), ("00:00", "12:00")]);
    Value::map([("start", text(start)), ("end", text(end))])
}

fn count_on(dice: &mut Dice) -> Value {
    text(dice.pick(&["impression", "impression", "decision", "click", "installed"]))
}

fn cap(dice: &mut Dice) -> Value {
    let mut members = vec![
        ("scope", text(dice.pick(&["profile", "profile", "global"]))),
        ("limit", number(dice, &[0.0, 1.0, 1.0, 2.0, 3.0])),
        ("countOn", count_on(dice)),
    ];
    match dice.below(5) {
        0 => members.push(("per", Value::map([("hours", number(dice, &[1.0, 48.0]))]))),
        1 => {}
        _ => {
            members.push(("per", text(dice.pick(&["day", "week", "month"]))));
            if dice.chance(40) {
                members.push(("window", text(dice.pick(&["rolling", "calendar"]))));
            }
        }
    }
    if dice.chance(25) {
        members.push(("placementId", text(dice.pick(&PLACEMENTS))));
    }
    if dice.chance(25) {
        members.push(("enforcement", text(dice.pick(&["strict", "soft"]))));
    }
    if dice.chance(20) {
        members.push(("reservationSeconds", Value::Number(30.0)));
    }
    Value::map(members)
}

fn limits(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let mut members = Vec::new();
    if dice.chance(35) {
        let caps: Vec<Value> = (0..1 + dice.below(2)).map(|_| cap(dice)).collect();
        members.push(("caps", Value::list(caps)));
    }
    if dice.chance(15) {
        let budget = [
            ("maxImpressions", number(dice, &[0.0, 1.0, 5.0])),
            ("maxDailyBudget", number(dice, &[0.0, 2.5, 10.0])),
            ("costPerAction", number(dice, &[1.0, 2.5])),
            ("countOn", count_on(dice)),
        ];
        members.push(("budget", Value::map(budget)));
    }
    if dice.chance(15) {
        let daily = dice.pick(&["daily", "weekly", "monthly"]);
        let per_customer = Value::map([(daily, number(dice, &[1.0, 2.0]))]);
        members.push(("frequencyCaps", Value::map([("perCustomer", per_customer)])));
    }
    members
}

fn eligibility(dice: &mut Dice) -> Value {
    let mut members = Vec::new();
    if dice.chance(30) {
        members.push(("propensityThreshold", number(dice, &[0.4, 0.5, 0.6])));
    }
    if dice.chance(40) {
        members.push(("recency", number(dice, &[0.5, 1.0, 7.0])));
    }
    if dice.chance(40) {
        members.push(("requiredSegments", texts(&dice.some_of(40, &SEGMENTS))));
    }
    Value::map(members)
}

fn offer_members(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let mut members = vec![
        ("priority", number(dice, &[0.0, 50.0, 50.0, 80.0, 100.0])),
        ("businessValue", number(dice, &[0.0, 50.0, 50.0, 100.0])),
        ("tags", texts(&dice.some_of(50, &TAGS))),
        ("productType", text(dice.pick(&["", "card", "loan"]))),
    ];
    if dice.chance(40) {
        members.push(("margin", number(dice, &[-1.0, 3.0, 10.0])));
        members.push(("revenueValue", number(dice, &[-2.0, 5.0, 7.0])));
    }
    if dice.chance(35) {
        members.push(("schedule", schedule(dice)));
    }
    if dice.chance(20) {
        members.push(("eligibility", eligibility(dice)));
    }
    if dice.chance(25) {
        members.push(("preferredSegments", texts(&dice.some_of(60, &["vip", "vip", "young", "other"]))));
    }
    if dice.chance(20) {
        let fatigue = [("strength", number(dice, &[0.0, 0.5])), ("halfLifeHours", number(dice, &[2.0, 100.0]))];
        members.push(("fatigue", Value::map(fatigue)));
    }
    members.extend(limits(dice));
    members
}

fn create_offer(ids: u64, dice: &mut Dice) -> Op {
    let id = format!("offer_{}", dice.roll() % ids);
    let name = format!("Offer {id}");
    let mut members = vec![("name", text(&name)), ("status", status(dice, 88))];
    members.extend(offer_members(dice));
    if dice.chance(75) {
        let category = dice.below(CATEGORIES.len());
        members.push(("categoryId", text(CATEGORIES[category])));
        if category < 2 && dice.chance(50) {
            members.push(("subCategoryId", text(SUB_CATEGORIES[category])));
        }
        let mut values = vec![("rate", number(dice, &[0.0, 12.5, 80.0]))];
        if dice.chance(50) {
            values.push(("colour", text(dice.pick(&["red", "blue"]))));
        }
        members.push(("customFields", Value::map(values)));
    }
    if dice.chance(12) {
        members.extend([
            ("mandatory", Value::Bool(true)),
            ("mandatoryReason", text("law")),
            ("mandatoryApprovedBy", text("board")),
            ("mandatoryExpiresAt", moment(dice)),
        ]);
    }
    if dice.chance(6) {
        members.push(("emergencyExcluded", Value::Bool(true)));
    }
    Op::Create { kind: EntityKind::Offer, id, body: Value::map(members) }
}

fn edit_offer(known: &Known, dice: &mut Dice) -> Op {
    let patch = match dice.below(6) {
        0 => Value::map([("status", text(dice.pick(&["active", "paused"])))]),
        1 => Value::map([("emergencyExcluded", Value::Bool(dice.chance(50)))]),
        2 => Value::map(limits(dice)),
        3 => Value::map([("customFields", Value::map([("rate", number(dice, &[1.0, 2.0]))]))]),
        4 => {
            let category = dice.pick(&[Value::Null, text(CATEGORIES[0]), text(CATEGORIES[2])]);
            Value::map([("categoryId", category), ("subCategoryId", Value::Null), ("customFields", Value::Null)])
        }
        _ => Value::map(offer_members(dice)),
    };
    Op::Update { kind: EntityKind::Offer, id: one_of(dice, &known.offers), patch, expected: None }
}

fn edit(dice: &mut Dice, kind: EntityKind, ids: &[String], members: &[&str]) -> Op {
    let patch = match dice.pick(members) {
        "status" => ("status", text(dice.pick(&["active", "active", "paused"]))),
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

fn create_creative(known: &Known, dice: &mut Dice) -> Op {
    let channel = dice.below(CHANNELS.len());
    let id = format!("crt_{}", dice.below(24));
    let mut members = vec![
        ("name", text(&id)),
        ("offerId", text(&one_of(dice, &known.offers))),
        ("channelId", text(CHANNELS[channel])),
        ("status", status(dice, 90)),
        ("weight", number(dice, &[0.0, 50.0, 100.0, 100.0])),
        ("split", number(dice, &[0.0, 1.0, 1.0, 3.0])),
    ];
    if dice.chance(50) {
        let placement = if channel < 2 && dice.chance(50) { channel + 3 } else { channel };
        members.push(("placementId", text(PLACEMENTS[placement])));
    }
    Op::Create { kind: EntityKind::Creative, id, body: Value::map(members) }
}

fn create_slot_part(known: &Known, dice: &mut Dice) -> Op {
    let number = dice.below(4);
    if dice.chance(50) {
        let id = format!("col_{number}");
        let mut members = vec![("name", text(&id)), ("status", status(dice, 93))];
        match dice.below(4) {
            0 => members.push(("allOf", texts(&dice.some_of(50, &TAGS)))),
            1 => members.push(("anyOf", texts(&dice.some_of(60, &TAGS)))),
            2 => {
                let ids: Vec<String> = (0..1 + dice.below(5)).map(|_| one_of(dice, &known.offers)).collect();
                members.push(("offerIds", texts(&ids)));
            }
            _ => {}
        }
        return Op::Create { kind: EntityKind::Collection, id, body: Value::map(members) };
    }
    let id = format!("act_{number}");
    let mut members = vec![
        ("name", text(&id)),
        ("collectionId", text(&one_of(dice, &known.collections))),
        ("placementId", text(dice.pick(&PLACEMENTS))),
        ("fallbackOfferId", text(dice.pick(&["fall_0", "fall_1"]))),
        ("status", status(dice, 90)),
    ];
    if dice.chance(25) && !known.flows.is_empty() {
        members.push(("decisionFlowKey", text(&one_of(dice, &known.flows))));
    }
    Op::Create { kind: EntityKind::Activity, id, body: Value::map(members) }
}

fn one_scope(known: &Known, dice: &mut Dice) -> Value {
    let (kind, id) = match dice.below(12) {
        0..=2 => return Value::map([("scope", text("global"))]),
        3 => ("segment", dice.pick(&SEGMENTS).to_owned()),
        4 => ("channel", dice.pick(&CHANNELS).to_owned()),
        5 => ("category", dice.pick(&CATEGORIES).to_owned()),
        6 => ("subcategory", dice.pick(&SUB_CATEGORIES).to_owned()),
        7 | 8 => ("offer", one_of(dice, &known.offers)),
        9 | 10 => ("creative", one_of(dice, &known.creatives)),
        _ => ("placement", dice.pick(&PLACEMENTS).to_owned()),
    };
    Value::map([("scope", text(kind)), ("scopeId", text(&id))])
}

fn scopes(known: &Known, dice: &mut Dice) -> Value {
    let count = if dice.chance(25) { 2 } else { 1 };
    let scopes: Vec<Value> = (0..count).map(|_| one_scope(known, dice)).collect();
    Value::list(scopes)
}

fn condition(dice: &mut Dice, name: &str, numeric: bool) -> Vec<(&'static str, Value)> {
    let member = if name == "field" { "field" } else { "attribute" };
    let (attributes, fields) = if numeric {
        (["age", "customer.age", "attributes.age", "context.stock"], ["priority", "rate", "price", "margin"])
    } else {
        (["tier", "customer.tier", "attributes.tier", "context.city"], ["colour", "productType", "label", "tags"])
    };
    let attribute = if member == "field" { dice.pick(&fields) } else { dice.pick(&attributes) };
    let mut members = vec![(member, text(attribute))];
    let operators: &[&str] = if numeric {
        &["eq", "neq", "gt", "gte", "lt", "lte", "in", "not_in", "between", "exists", "not_exists"]
    } else {
        &["eq", "neq", "in", "not_in", "contains", "starts_with", "exists", "not_exists"]
    };
    let operator = dice.pick(operators);
    members.push(("operator", text(operator)));
    let numbers = [Value::Number(20.0), Value::Number(30.0), Value::Number(50.0)];
    let words = [text("gold"), text("silver"), text("red"), text("card")];
    let pool: &[Value] = if numeric { &numbers } else { &words };
    match operator {
        "exists" | "not_exists" => {}
        "in" | "not_in" => {
            let first = dice.pick(pool);
            let mut list = vec![first];
            list.extend(dice.some_of(40, pool));
            members.push(("value", Value::list(list)));
        }
        "between" => members.push(("value", Value::list([Value::Number(20.0), number(dice, &[30.0, 50.0])]))),
        _ => members.push(("value", dice.pick(pool))),
    }
    if dice.chance(20) {
        members.push(("onMissing", text("pass")));
    }
    members
}

fn create_rule(known: &Known, dice: &mut Dice) -> Op {
    let id = format!("rule_{}", dice.below(12));
    let expressions = [
        "customer.age > 25 && attributes.age != 3",
        "offer.priority >= 50 || customer.tier == 'gold'",
        "rate > customer.age",
        "coalesce(price, 0) > 100",
        "!isNull(customer.tier)",
        "offer.id in ['offer_1', 'offer_3', 'offer_5', 'offer_7', 'offer_9', 'offer_11']",
        "attributes.channel == 'web'",
        "b.age > 20",
        "size(offer.tags) > 1 ? true : context.stock > 2",
        "true",
        "daysSince(customer.since) > 100",
    ];
    let (kind, mut config) = match dice.below(12) {
        0 => ("segment_required", vec![("requiredSegments", texts(&[dice.pick(&SEGMENTS)]))]),
        1..=4 => ("attribute_condition", {
            let numeric = dice.chance(60);
            condition(dice, "attribute", numeric)
        }),
        5 | 6 => ("offer_attribute", {
            let numeric = dice.chance(60);
            condition(dice, "field", numeric)
        }),
        7..=9 => ("expression", vec![("expression", text(dice.pick(&expressions)))]),
        10 => ("recency_check", vec![("minDays", number(dice, &[0.5, 1.0, 7.0]))]),
        _ => ("propensity_threshold", vec![("minPropensity", number(dice, &[0.4, 0.5, 0.6]))]),
    };
    if dice.chance(40) {
        config.push(("multiplier", number(dice, &[0.1, 0.3, 1.0])));
    }
    if dice.chance(40) {
        config.push(("boost", number(dice, &[0.0, 0.7, 2.0, 10.0])));
    }
    let mut members = vec![
        ("name", text(&id)),
        ("ruleType", text(kind)),
        ("config", Value::map(config)),
        ("scopes", scopes(known, dice)),
        ("priority", number(dice, &[10.0, 50.0, 50.0, 90.0])),
        ("status", status(dice, 92)),
    ];
    if dice.chance(75) {
        members.push(("stage", text(dice.pick(&["eligibility", "fit", "match", "ranking"]))));
    }
    Op::Create { kind: EntityKind::Rule, id, body: Value::map(members) }
}

fn create_policy(known: &Known, dice: &mut Dice) -> Op {
    let id = format!("pol_{}", dice.below(12));
    let strict = |dice: &mut Dice, members: &mut Vec<(&'static str, Value)>| {
        if dice.chance(20) {
            members.push(("enforcement", text("strict")));
        }
        if dice.chance(30) {
            members.push(("window", text("rolling")));
        }
    };
    let (kind, config) = match dice.below(14) {
        0..=2 => {
            let mut config = vec![(
                dice.pick(&["maxPerDay", "maxPerWeek", "maxPerMonth", "maxTotal"]),
                number(dice, &[0.0, 1.0, 2.0, 3.0]),
            )];
            strict(dice, &mut config);
            ("frequency_cap", config)
        }
        3 | 4 => ("cooldown", vec![("cooldownHours", number(dice, &[1.0, 24.0, 100.0]))]),
        5 => ("budget_exhausted", vec![("checkDailyBudget", Value::Bool(dice.chance(70)))]),
        6 => {
            let action = dice.pick(&["suppress_offer", "suppress_category", "suppress_all"]);
            let outcomes = [dice.pick(&OUTCOMES), dice.pick(&OUTCOMES)];
            let outcomes = if outcomes[0] == outcomes[1] { &outcomes[..1] } else { &outcomes[..] };
            let lookback = number(dice, &[0.5, 3.0, 30.0]);
            ("outcome_based", vec![("outcomes", texts(outcomes)), ("lookbackDays", lookback), ("action", text(action))])
        }
        7 => ("segment_exclusion", vec![("excludeSegments", texts(&[dice.pick(&SEGMENTS)]))]),
        8 => {
            let (start, end) = dice.pick(&[("08:00", "22:00"), ("20:00", "04:00")]);
            ("time_window", vec![("start", text(start)), ("end", text(end))])
        }
        9 => {
            let ids: Vec<String> = (0..4).map(|_| one_of(dice, &known.offers)).collect();
            ("mutual_exclusion", vec![("offerIds", texts(&ids)), ("lookbackDays", number(dice, &[1.0, 10.0]))])
        }
        10 => {
            let mut config =
                vec![("maxTotal", number(dice, &[0.0, 1.0, 2.0])), ("periodDays", number(dice, &[1.0, 20.0]))];
            if dice.chance(20) {
                config.push(("enforcement", text("strict")));
            }
            ("cross_channel_cap", config)
        }
        11 => {
            let mut config = vec![
                ("maxTotal", number(dice, &[1.0, 2.0, 4.0, 9.0])),
                ("periodType", text(dice.pick(&["daily", "weekly", "monthly", "alltime"]))),
            ];
            strict(dice, &mut config);
            ("customer_total_cap", config)
        }
        12 => ("category_suppression", vec![("lookbackDays", number(dice, &[1.0, 10.0]))]),
        _ => ("allow_override", vec![("requiredSegments", texts(&dice.some_of(30, &SEGMENTS)))]),
    };
    let mut members = vec![
        ("name", text(&id)),
        ("ruleType", text(kind)),
        ("config", Value::map(config)),
        ("scopes", scopes(known, dice)),
        ("priority", number(dice, &[10.0, 50.0, 90.0])),
        ("status", status(dice, 92)),
    ];
    if dice.chance(20) {
        members.push(("bypassable", Value::Bool(dice.chance(50))));
    }
    Op::Create { kind: EntityKind::Policy, id, body: Value::map(members) }
}

fn weights(dice: &mut Dice) -> Value {
    let [p, r, i, e] = dice.pick(&[
        [0.25, 0.25, 0.25, 0.25],
        [0.4, 0.15, 0.35, 0.1],
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]);
    Value::map([
        ("propensityWeight", Value::Number(p)),
        ("relevanceWeight", Value::Number(r)),
        ("impactWeight", Value::Number(i)),
        ("emphasisWeight", Value::Number(e)),
        ("upliftWeight", number(dice, &[0.0, 0.5])),
    ])
}

fn score(dice: &mut Dice) -> Value {
    let mut members = vec![
        ("method", text(dice.pick(&["priority_weighted", "propensity", "formula", "formula"]))),
        ("formula", weights(dice)),
    ];
    if dice.chance(60) {
        let mut relevance = Vec::new();
        for signal in ["channelMatch", "freshness", "segmentMatch"] {
            if dice.chance(60) {
                relevance.push((signal, number(dice, &[0.0, 1.0, 2.0])));
            }
        }
        relevance.push(("halfLifeDays", number(dice, &[1.0, 7.0])));
        members.push(("relevance", Value::map(relevance)));
    }
    if dice.chance(50) {
        let [b, m, r] = dice.pick(&[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]);
        let blend =
            [("businessValue", Value::Number(b)), ("margin", Value::Number(m)), ("revenueValue", Value::Number(r))];
        members.push(("impact", Value::map(blend)));
    }
    let mut overrides = Vec::new();
    for _ in 0..dice.below(3) {
        let mut one = vec![match dice.below(3) {
            0 => ("channel", text(dice.pick(&CHANNELS))),
            1 => ("category", text(dice.pick(&CATEGORIES))),
            _ => ("productType", text(dice.pick(&["card", "loan"]))),
        }];
        if dice.chance(60) {
            one.push(("method", text(dice.pick(&["priority_weighted", "propensity", "formula"]))));
        }
        if dice.chance(60) {
            one.push(("formula", weights(dice)));
        }
        overrides.push(Value::map(one));
    }
    members.push(("overrides", Value::list(overrides)));
    Value::map(members)
}

fn selection(dice: &mut Dice, ids: &[String]) -> Value {
    if ids.is_empty() || dice.chance(70) {
        return Value::map([("mode", text("all"))]);
    }
    let ids: Vec<String> = (0..1 + dice.below(3)).map(|_| one_of(dice, ids)).collect();
    Value::map([("mode", text("selected")), ("ids", texts(&ids))])
}

fn inventory(known: &Known, dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => Value::map([("scope", text("category")), ("categoryIds", texts(&dice.some_of(60, &CATEGORIES)))]),
        1 => {
            let ids: Vec<String> = (0..6).map(|_| one_of(dice, &known.offers)).collect();
            Value::map([("scope", text("manual")), ("offerIds", texts(&ids))])
        }
        2 => Value::map([
            ("scope", text("category")),
            ("categoryIds", texts(&[CATEGORIES[2]])),
            ("subCategoryIds", texts(&[dice.pick(&SUB_CATEGORIES)])),
        ]),
        _ => Value::map([("scope", text("all"))]),
    }
}

fn draft(known: &Known, dice: &mut Dice) -> Value {
    let mut nodes: Vec<(&str, f64, Value)> = vec![("inventory", 1.0, inventory(known, dice))];
    if dice.chance(50) {
        let config = Value::map([
            ("requireCreative", Value::Bool(dice.chance(60))),
            ("placementMatchMode", text(dice.pick(&["exact", "any", "any", "none"]))),
        ]);
        nodes.push(("match_creatives", 1.0, config));
    }
    for _ in 0..dice.below(3) {
        let mut source = vec![("schemaId", text(dice.pick(&["sch_a", "sch_b"]))), ("lookupKey", text("customer"))];
        if dice.chance(40) {
            source.push(("fields", texts(&[dice.pick(&["age", "tier"])])));
        }
        if dice.chance(30) {
            source.push(("prefix", text("b")));
        }
        nodes.push(("enrich", 1.0, Value::map([("sources", Value::list([Value::map(source)]))])));
    }
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2]) {
        nodes.push(("qualify", 1.0, selection(dice, &known.rules)));
    }
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2]) {
        nodes.push(("contact_policy", 1.0, selection(dice, &known.policies)));
    }
    if dice.chance(85) {
        nodes.push(("score", 2.0, score(dice)));
    }
    if dice.chance(60) {
        let most = number(dice, &[1.0, 2.0, 4.0, 50.0]);
        nodes.push(("rank", 2.0, Value::map([("maxCandidates", most)])));
    }
    if dice.chance(60) {
        let fields = if dice.chance(30) { texts(&["price"]) } else { Value::list([]) };
        nodes.push(("compute", 3.0, Value::map([("fields", fields)])));
    }
    if dice.chance(60) {
        let format = text(dice.pick(&["standard", "compact"]));
        nodes.push(("response", 3.0, Value::map([("responseFormat", format)])));
    }
    let nodes = nodes.into_iter().enumerate().map(|(position, (kind, phase, config))| {
        Value::map([
            ("id", text(&format!("n{position}"))),
            ("type", text(kind)),
            ("phase", Value::Number(phase)),
            ("position", Value::Number(position as f64)),
            ("config", config),
        ])
    });
    let mut members = vec![("version", Value::Number(2.0)), ("nodes", Value::list(nodes))];
    if dice.chance(35) {
        let mut experiment = vec![
            ("enabled", Value::Bool(dice.chance(90))),
            ("holdoutPercent", number(dice, &[0.0, 50.0, 100.0])),
            ("controlGroupAction", text(dice.pick(&["no_offers", "priority_only"]))),
        ];
        if dice.chance(30) {
            experiment.push(("key", text("spring")));
        }
        members.push(("flowConfig", Value::map([("experiment", Value::map(experiment))])));
    }
    Value::map(members)
}
