//! The decide workload (architecture.md §10), made from a seed by catalogue commands: 20 attributes, three indexable
//! conditions per offer with distinct thresholds, a wide slot (half of the offers, about 16 % of them eligible), PRIE-U,
//! eight policies of five types, profile caps on every fifth offer, ten exposures in each profile.

#![allow(dead_code, reason = "each bench uses its part")]

use std::sync::Arc;

use proffer_engine::catalog::{Actor, Catalog, Command, CommandV1, EntityKind, Op, TenantCatalog, Touched};
use proffer_engine::decide::request::{Duplicates, Explain, Request, SlotRequest, SlotTarget};
use proffer_engine::decide::view::{EscrowView, Free, Instant};
use proffer_engine::keys::{CapKey, CustomerId, Revision, TenantId};
use proffer_engine::profile::command::Window;
use proffer_engine::profile::state::{CapUse, Dealings, Exposure, Profile, Used};
use proffer_engine::profile::symbols::Symbols;
use proffer_engine::time::{Calendar, DAY_MS, HOUR_MS, Timestamp};
use proffer_engine::value::Value;

/// The node's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Attributes of a profile.
pub const ATTRIBUTES: usize = 20;
/// Conditions of an offer.
pub const CONDITIONS: usize = 3;
/// Slots of the largest request.
pub const ACTIVITIES: usize = 30;
/// Exposures of a profile.
const EXPOSURES: u64 = 10;
/// Part of the range of an attribute that a threshold is drawn from: each condition holds for 54 % of customers, so three
/// hold for 16 %.
const THRESHOLDS: f64 = 0.92;

/// Wednesday, 2026-06-03T10:00:00Z.
pub const NOW: Timestamp = Timestamp(1_780_480_800_000);

/// splitmix64: the same numbers on every machine.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Uniform in [0, 1).
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One condition of one offer.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    pub attribute: usize,
    /// At least the threshold, else at most.
    pub at_least: bool,
    pub threshold: f64,
}

impl Condition {
    /// In the notation that expression languages share.
    pub fn text(&self, prefix: &str) -> String {
        format!("{prefix}a{} {} {:?}", self.attribute, if self.at_least { ">=" } else { "<=" }, self.threshold)
    }
}

/// What else an offer's rules may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    Nothing,
    /// Every tenth offer carries an expression over its own fields.
    Expressions,
    /// Flows score by models, over the offers of a slot or over all there are.
    Models,
}

/// A tenant's catalogue with all that is asked of it.
#[derive(Clone)]
pub struct Workload {
    pub tenant: TenantId,
    pub catalog: Catalog,
    pub conditions: Vec<[Condition; CONDITIONS]>,
    pub symbols: Symbols,
    revision: u64,
}

fn object(members: &[(&str, Value)]) -> Value {
    Value::map(members.iter().map(|(name, value)| (*name, value.clone())))
}

fn number(number: u64) -> Value {
    Value::Number(number as f64)
}

impl Workload {
    /// A catalogue of `offers` active offers.
    pub fn new(offers: usize, extra: Extra) -> Self {
        let mut symbols = Symbols::default();
        for attribute in 0..ATTRIBUTES {
            symbols.intern(&format!("a{attribute}"));
        }
        let tenant = TenantId::new("bench");
        let mut made = Workload { tenant, catalog: Catalog::new(), conditions: Vec::new(), symbols, revision: 0 };
        made.apply(Op::CreateTenant);
        made.frame();
        let mut dice = Dice(7);
        for index in 0..offers {
            made.offer(index, extra, &mut dice);
        }
        made.slots();
        made.policies();
        made.flow();
        if extra == Extra::Models {
            made.publish_models();
        }
        made
    }

    pub fn tenant_catalog(&self) -> &TenantCatalog {
        self.catalog.tenant(&self.tenant).expect("the workload made it")
    }

    pub fn revision(&self) -> Revision {
        Revision(self.revision)
    }

    /// Applies a change; what it made stale.
    pub fn apply(&mut self, op: Op) -> Vec<Touched> {
        self.revision += 1;
        let actor = Actor { name: "bench".to_owned(), admin: true };
        let command = Command::V1(CommandV1 { tenant: self.tenant.clone(), actor, at: NOW, op });
        match self.catalog.apply(Revision(self.revision), &command) {
            Ok(changed) => changed.effect,
            Err(refusal) => panic!("the workload is valid: {refusal}"),
        }
    }

    fn create(&mut self, kind: EntityKind, id: &str, members: &[(&str, Value)]) {
        self.apply(Op::Create { kind, id: id.to_owned(), body: object(members) });
    }

    fn frame(&mut self) {
        self.create(EntityKind::Channel, "chn_web", &[("name", Value::text("web"))]);
        for index in 0..3 {
            let id = format!("plc_{index}");
            let channel = Value::text("chn_web");
            self.create(EntityKind::Placement, &id, &[("name", Value::text(&id)), ("channelId", channel)]);
        }
        for index in 0..10 {
            self.create(EntityKind::Category, "", &[("name", Value::text(format!("c{index}")))]);
        }
        let fallback =
            [("name", Value::text("fallback")), ("kind", Value::text("fallback")), ("status", Value::text("active"))];
        self.create(EntityKind::Offer, "off_fallback", &fallback);
        self.creative("off_fallback");
    }

    fn creative(&mut self, offer: &str) {
        let members = [
            ("name", Value::text(offer)),
            ("status", Value::text("active")),
            ("offerId", Value::text(offer)),
            ("channelId", Value::text("chn_web")),
        ];
        self.create(EntityKind::Creative, &format!("crt_{offer}"), &members);
    }

    fn offer(&mut self, index: usize, extra: Extra, dice: &mut Dice) {
        let id = format!("off_{index}");
        let mut tags: Vec<String> =
            (0..ACTIVITIES).filter(|_| dice.below(2) == 0).map(|tag| format!("t{tag}")).collect();
        if dice.below(2) == 0 {
            tags.push("wide".to_owned());
        }
        if dice.below(100) == 0 {
            tags.push("narrow".to_owned());
        }
        let mut members = vec![
            ("name", Value::text(&id)),
            ("status", Value::text("active")),
            ("categoryId", Value::text(format!("cat_c{}", dice.below(10)))),
            ("priority", number(1 + dice.below(100))),
            ("businessValue", number(1 + dice.below(100))),
            ("tags", Value::list(tags.iter().map(Value::text))),
        ];
        if index.is_multiple_of(5) {
            let cap = [("scope", Value::text("profile")), ("limit", number(3)), ("per", Value::text("week"))];
            members.push(("caps", Value::list([object(&cap)])));
        }
        self.create(EntityKind::Offer, &id, &members);
        self.creative(&id);
        let conditions = std::array::from_fn(|_| {
            let at_least = dice.below(2) == 0;
            let threshold = dice.share() * THRESHOLDS;
            let threshold = if at_least { threshold } else { 1.0 - threshold };
            Condition { attribute: dice.below(ATTRIBUTES as u64) as usize, at_least, threshold }
        });
        for (part, condition) in conditions.iter().enumerate() {
            let config = [
                ("attribute", Value::text(format!("a{}", condition.attribute))),
                ("operator", Value::text(if condition.at_least { "gte" } else { "lte" })),
                ("value", Value::Number(condition.threshold)),
            ];
            self.rule(&id, &part.to_string(), "attribute_condition", object(&config));
        }
        if extra == Extra::Expressions && index.is_multiple_of(10) {
            let text = "offer.priority / 100 + customer.a0 > 0.2 && offer.businessValue > 5";
            self.rule(&id, "x", "expression", object(&[("expression", Value::text(text))]));
        }
        self.conditions.push(conditions);
    }

    fn rule(&mut self, offer: &str, part: &str, rule_type: &str, config: Value) {
        let id = format!("rule_{offer}_{part}");
        let members = [
            ("name", Value::text(&id)),
            ("scope", Value::text("offer")),
            ("scopeId", Value::text(offer)),
            ("ruleType", Value::text(rule_type)),
            ("config", config),
        ];
        self.create(EntityKind::Rule, &id, &members);
    }

    fn slots(&mut self) {
        for tag in (0..ACTIVITIES).map(|tag| format!("t{tag}")).chain(["wide".to_owned(), "narrow".to_owned()]) {
            let collection = format!("col_{tag}");
            let members = [("name", Value::text(&tag)), ("allOf", Value::list([Value::text(&tag)]))];
            self.create(EntityKind::Collection, &collection, &members);
            let members = [
                ("name", Value::text(&tag)),
                ("collectionId", Value::text(&collection)),
                ("placementId", Value::text(format!("plc_{}", self.revision % 3))),
                ("fallbackOfferId", Value::text("off_fallback")),
            ];
            self.create(EntityKind::Activity, &format!("act_{tag}"), &members);
        }
    }

    fn policies(&mut self) {
        let global: &[(&str, Value)] = &[];
        let category =
            |index: u64| vec![("scope", Value::text("category")), ("scopeId", Value::text(format!("cat_c{index}")))];
        let channel = [("scope", Value::text("channel")), ("scopeId", Value::text("chn_web"))];
        let most = |name: &'static str, most: u64| object(&[(name, number(most))]);
        let total = object(&[("maxTotal", number(1_000)), ("periodType", Value::text("weekly"))]);
        let cross = object(&[("maxTotal", number(2)), ("periodDays", number(7))]);
        let outcomes = [("outcomes", Value::list([Value::text("dismiss")])), ("lookbackDays", number(30))];
        let policies: [(&str, &[(&str, Value)], Value); 8] = [
            ("frequency_cap", global, most("maxPerDay", 100)),
            ("frequency_cap", &category(1), most("maxPerWeek", 2)),
            ("frequency_cap", &channel, most("maxPerMonth", 500)),
            ("customer_total_cap", global, total),
            ("cross_channel_cap", global, cross),
            ("cooldown", &category(2), most("cooldownHours", 12)),
            ("cooldown", &category(3), most("cooldownHours", 48)),
            ("outcome_based", global, object(&outcomes)),
        ];
        for (index, (rule_type, scope, config)) in policies.into_iter().enumerate() {
            let id = format!("pol_{index}");
            let mut members =
                vec![("name", Value::text(&id)), ("ruleType", Value::text(rule_type)), ("config", config)];
            members.extend(scope.iter().cloned());
            self.create(EntityKind::Policy, &id, &members);
        }
    }

    fn flow(&mut self) {
        let formula = object(&[
            ("propensityWeight", Value::Number(0.4)),
            ("relevanceWeight", Value::Number(0.15)),
            ("impactWeight", Value::Number(0.35)),
            ("emphasisWeight", Value::Number(0.1)),
            ("upliftWeight", Value::Number(0.5)),
        ]);
        let score = object(&[("method", Value::text("formula")), ("formula", formula)]);
        self.publish("prieu", score);
        let settings = object(&[("defaultFlowKey", Value::text("prieu"))]);
        self.apply(Op::UpdateSettings { patch: settings });
    }

    /// Three models, each with a flow that asks what the others do, and one in which every offer of the tenant is scored by P.
    fn publish_models(&mut self) {
        // Twenty features: half of the customer, half of the offer, or each of both.
        let facts = (0..ATTRIBUTES / 2).map(|index| format!("customer.a{index}"));
        let fields = ["priority", "businessValue", "margin", "revenueValue"];
        let powers = (1..=5).flat_map(|power| fields.map(|field| format!("pow(offer.{field} / 100, {power})")));
        let apart: Vec<String> = facts.chain(powers.take(ATTRIBUTES / 2)).collect();
        let crossed: Vec<String> =
            (0..ATTRIBUTES).map(|index| format!("customer.a{index} * offer.{} / 100", fields[index % 2])).collect();
        let regression = |features: &[String]| {
            let features = features.iter().zip(0..).map(|(expression, index)| {
                let coefficient = Value::Number(f64::from(index % 7) * 0.3 - 0.9);
                object(&[("expression", Value::text(expression)), ("coefficient", coefficient)])
            });
            object(&[("intercept", Value::Number(-2.0)), ("features", Value::list(features))])
        };
        let models = [
            ("apart", "logistic_regression", regression(&apart)),
            ("crossed", "logistic_regression", regression(&crossed)),
            ("thompson", "thompson_bandit", object(&[])),
        ];
        for (key, model_type, config) in models {
            let members = [("name", Value::text(key)), ("modelType", Value::text(model_type)), ("config", config)];
            self.create(EntityKind::Model, &format!("mdl_{key}"), &members);
            let weights = object(&[
                ("propensityWeight", Value::Number(0.4)),
                ("relevanceWeight", Value::Number(0.15)),
                ("impactWeight", Value::Number(0.35)),
                ("emphasisWeight", Value::Number(0.1)),
            ]);
            let by = |method: &str| vec![("method", Value::text(method)), ("modelKey", Value::text(key))];
            let mut formula = by("formula");
            formula.push(("formula", weights));
            self.publish(key, object(&formula));
            let every = [("inventory", 1, object(&[])), ("score", 2, object(&by("propensity")))];
            self.publish_nodes(&format!("every-{key}"), &every);
        }
    }

    /// The best five for the wide slot, by the flow of a model.
    pub fn wide_by(&self, flow: &str) -> Request {
        let flow = self.tenant_catalog().flow_by_key(flow).expect("a flow of the workload");
        Request { flow: Some(flow.key), ..self.wide() }
    }

    /// The best five of all offers, by the flow of a model.
    pub fn every_by(&self, flow: &str) -> Request {
        Request { slots: Vec::new(), limit: Some(5), ..self.wide_by(flow) }
    }

    /// Publishes a flow that scores so.
    fn publish(&mut self, key: &str, score: Value) {
        let nodes = [
            ("inventory", 1, object(&[])),
            ("qualify", 1, object(&[])),
            ("contact_policy", 1, object(&[])),
            ("score", 2, score),
            ("rank", 2, object(&[])),
            ("compute", 3, object(&[])),
            ("response", 3, object(&[])),
        ];
        self.publish_nodes(key, &nodes);
    }

    fn publish_nodes(&mut self, key: &str, nodes: &[(&str, u64, Value)]) {
        let nodes = nodes.iter().enumerate().map(|(position, (kind, phase, config))| {
            object(&[
                ("id", Value::text(kind)),
                ("type", Value::text(kind)),
                ("phase", number(*phase)),
                ("position", number(position as u64)),
                ("config", config.clone()),
            ])
        });
        let draft = object(&[("version", number(2)), ("nodes", Value::list(nodes))]);
        let members = [("key", Value::text(key)), ("name", Value::text(key)), ("draftConfig", draft)];
        let id = format!("flow_{key}");
        self.create(EntityKind::Flow, &id, &members);
        self.apply(Op::PublishFlow { id });
    }

    /// The instant of every decision.
    pub fn at(&self) -> Instant {
        Instant { now: NOW, frame: Calendar::of(self.tenant_catalog().settings()).frame(NOW) }
    }

    /// Customer number `seed`: attributes in the middle range, ten exposures, uses of the caps of what it saw.
    pub fn profile(&self, seed: u64) -> Profile {
        let mut dice = Dice(seed ^ 0x5eed);
        let attributes = (0..ATTRIBUTES).map(|index| {
            let symbol = self.symbols.find(&format!("a{index}")).expect("interned by the workload");
            (symbol, Value::Number(0.3 + 0.4 * dice.share()))
        });
        let mut profile = Profile { attributes: attributes.collect(), ..Profile::default() };
        let catalog = self.tenant_catalog();
        let frame = self.at().frame;
        let mut dealings = Dealings::default();
        let mut ages: Vec<i64> = (0..EXPOSURES).map(|_| dice.below(20 * 24) as i64 * HOUR_MS).collect();
        ages.sort_unstable_by_key(|age| std::cmp::Reverse(*age));
        for age in ages {
            let id = format!("off_{}", dice.below(self.conditions.len() as u64));
            let offer = catalog.offers().by_id(&id).expect("an offer of the workload");
            let creative = catalog.creatives_of(offer.key).next().expect("each offer has one").key;
            let placement = catalog.placements().iter().next().expect("there are three").key;
            let category = offer.body.category_id.as_ref().and_then(|id| catalog.categories().key_of(&id.0));
            let channel = catalog.channel_of(placement).expect("of the channel");
            let exposure = Exposure::new(NOW.plus_ms(-age), offer.key, creative, channel, placement);
            profile.exposures.push(exposure.in_category(category));
            for cap in catalog.caps(offer.key) {
                let used = Used::Calendar(frame.week, 1 + dice.below(3));
                dealings.cap_uses.push(CapUse { cap: cap.cap, used });
            }
        }
        profile.dealings = Some(Box::new(dealings));
        profile
    }

    /// A profile without attributes: nobody's conditions hold.
    pub fn stranger(&self, seed: u64) -> Profile {
        Profile { attributes: Box::default(), ..self.profile(seed) }
    }

    fn request(&self, slots: Vec<SlotRequest>) -> Request {
        Request {
            tenant: self.tenant.clone(),
            customer: CustomerId::new("customer-1"),
            channel: None,
            slots,
            flow: None,
            limit: None,
            attributes: vec![(Arc::from("page"), Value::text("home"))],
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

    fn slot(&self, activity: &str, limit: u32) -> SlotRequest {
        let activity = self.tenant_catalog().activity(activity).expect("an activity of the workload");
        SlotRequest { target: SlotTarget::Activity(activity.key), limit }
    }

    /// The best five for the wide slot.
    pub fn wide(&self) -> Request {
        self.request(vec![self.slot("act_wide", 5)])
    }

    /// The best five for a slot of one offer in a hundred.
    pub fn narrow(&self) -> Request {
        self.request(vec![self.slot("act_narrow", 5)])
    }

    /// One for each of thirty slots, none twice.
    pub fn thirty(&self) -> Request {
        self.request((0..ACTIVITIES).map(|tag| self.slot(&format!("act_t{tag}"), 1)).collect())
    }

    /// An edit of one offer, for incremental compilation.
    pub fn edit(&mut self, index: u64, priority: u64) -> Vec<Touched> {
        let patch = object(&[("priority", number(priority))]);
        self.update(EntityKind::Offer, &format!("off_{index}"), patch)
    }

    fn update(&mut self, kind: EntityKind, id: &str, patch: Value) -> Vec<Touched> {
        self.apply(Op::Update { kind, id: id.to_owned(), patch, expected: None })
    }

    /// A second flow, whose scores blend in the margin.
    pub fn publish_blend(&mut self) {
        let formula = object(&[("impactWeight", Value::Number(0.6)), ("emphasisWeight", Value::Number(0.4))]);
        let impact = object(&[("businessValue", Value::Number(0.5)), ("margin", Value::Number(0.5))]);
        let score = object(&[("method", Value::text("formula")), ("formula", formula), ("impact", impact)]);
        self.publish("blend", score);
        self.raise_largest_margin();
    }

    /// An offer with a larger margin than any other.
    pub fn raise_largest_margin(&mut self) -> Vec<Touched> {
        self.update(EntityKind::Offer, "off_7", object(&[("margin", number(self.revision))]))
    }

    /// One more slot for the offers of the wide one.
    pub fn add_activity(&mut self) -> Vec<Touched> {
        let members = [
            ("name", Value::text("added")),
            ("collectionId", Value::text("col_wide")),
            ("placementId", Value::text("plc_0")),
            ("fallbackOfferId", Value::text("off_fallback")),
        ];
        self.apply(Op::Create { kind: EntityKind::Activity, id: "act_added".to_owned(), body: object(&members) })
    }

    /// Another name for a category.
    pub fn rename_category(&mut self) -> Vec<Touched> {
        self.update(EntityKind::Category, "cat_c1", object(&[("name", Value::text("renamed"))]))
    }

    /// A rule for all offers that looks at each.
    pub fn add_wide_rule(&mut self) -> Vec<Touched> {
        let config = [("field", Value::text("businessValue")), ("operator", Value::text("gte")), ("value", number(5))];
        let members = [
            ("name", Value::text("wide")),
            ("scope", Value::text("global")),
            ("ruleType", Value::text("offer_attribute")),
            ("config", object(&config)),
        ];
        self.apply(Op::Create { kind: EntityKind::Rule, id: "rule_wide".to_owned(), body: object(&members) })
    }
}

/// An escrow without accounts: the workload has no global caps.
pub struct NoEscrow;

impl EscrowView for NoEscrow {
    fn free(&self, _: CapKey, _: Timestamp) -> Option<Free> {
        None
    }
}

/// A day, for windows.
pub const DAY: Window = Window::Rolling { ms: DAY_MS };
