//! Qualification rules and contact policies of every type and scope.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::value::Value;

use super::super::dice::Dice;
use super::{CATEGORIES, CHANNELS, Known, PLACEMENTS, SEGMENTS, SUB_CATEGORIES, number, one_of, status, text, texts};

const OUTCOMES: [&str; 4] = ["click", "dismiss", "conversion", "installed"];

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
        (&["age", "customer.age", "attributes.age", "context.stock"][..], &["priority", "rate", "price", "margin"][..])
    } else {
        (
            &["tier", "customer.tier", "attributes.tier", "context.city"][..],
            &["colour", "productType", "label", "tags", "category", "status", "description"][..],
        )
    };
    let attribute = if member == "field" { dice.pick(fields) } else { dice.pick(attributes) };
    let mut members = vec![(member, text(attribute))];
    let operators: &[&str] = if numeric {
        &["eq", "neq", "gt", "gte", "lt", "lte", "in", "not_in", "between", "exists", "not_exists"]
    } else {
        &["eq", "neq", "in", "not_in", "contains", "starts_with", "exists", "not_exists"]
    };
    let operator = dice.pick(operators);
    members.push(("operator", text(operator)));
    let numbers = [Value::Number(20.0), Value::Number(30.0), Value::Number(50.0)];
    let words = [text("gold"), text("silver"), text("red"), text("card"), text("Cards"), text("active"), text("dull")];
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

/// Conditions that some offers, customers and requests meet.
const EXPRESSIONS: [&str; 19] = [
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
    "offer.status == 'active' && !offer.emergencyExcluded",
    "offer.emergencyExcluded || offer.description != 'dull'",
    "offer.category in ['Cards', 'cards', 'Loans', 'loans']",
    "size(coalesce(offer.metadata, 'no text')) > 3",
    "metric.clicks > 1 && coalesce(metric.mean_buy, 0) < 30",
    "metric.views_of > 0 || metric.spent > 20",
    "metric.views_in < 2",
    "metric.brands.acme + rate > 20",
];

/// A metric, perhaps one of its groups, compared.
fn metric_condition(dice: &mut Dice) -> Vec<(&'static str, Value)> {
    let metric = dice.pick(&["clicks", "spent", "mean_buy", "views_of", "views_in", "brands", "clicks"]);
    let mut members = vec![("metric", text(metric)), ("operator", text(dice.pick(&["gt", "lt", "gte", "eq", "neq"])))];
    members.push(("value", number(dice, &[0.0, 1.0, 2.0, 20.0])));
    if metric == "brands" {
        members.push(("group", text(dice.pick(&["acme", "other brand"]))));
    }
    members
}

/// Something that customers do, counted.
pub(super) const METRICS: [(&str, &str, &str); 6] = [
    ("met_0", "clicks", r#"count click {"hours":48}"#),
    ("met_1", "spent", "sum buy lifetime"),
    ("met_2", "mean_buy", "avg buy week"),
    ("met_3", "views_of", "count view lifetime offer"),
    ("met_4", "views_in", "count view month category channel"),
    ("met_5", "brands", "sum buy day properties.brand"),
];

pub(super) fn create_metric(dice: &mut Dice, (id, name, means): (&str, &str, &str)) -> Op {
    let words: Vec<&str> = means.split(' ').collect();
    let per = if words[2].starts_with('{') { Value::map([("hours", Value::Number(48.0))]) } else { text(words[2]) };
    let mut members = vec![
        ("name", text(name)),
        ("aggregation", text(words[0])),
        ("events", texts(&words[1..2])),
        ("per", per),
        ("groupBy", texts(&words[3..])),
    ];
    if words[2] == "month" || words[2] == "week" {
        members.push(("window", text(dice.pick(&["rolling", "calendar"]))));
    }
    if dice.chance(30) {
        let condition = [("field", text("value")), ("operator", text("gt")), ("value", Value::Number(5.0))];
        members.push(("filters", Value::map([("conditions", Value::list([Value::map(condition)]))])));
    }
    Op::Create { kind: EntityKind::Metric, id: id.to_owned(), body: Value::map(members) }
}

/// Pauses a metric, lets it go on, or gives it another meaning.
pub(super) fn edit_metric(dice: &mut Dice) -> Op {
    let patch = match dice.below(3) {
        0 => ("status", status(dice, 50)),
        1 => ("aggregation", text(dice.pick(&["sum", "min", "max", "avg", "count"]))),
        _ => ("description", text(dice.pick(&["one", "another"]))),
    };
    let (id, _, _) = dice.pick(&METRICS);
    Op::Update { kind: EntityKind::Metric, id: id.to_owned(), patch: Value::map([patch]), expected: None }
}

pub(super) fn create_guardrail(dice: &mut Dice) -> Op {
    let id = format!("grd_{}", dice.below(4));
    let mut members = vec![
        ("name", text(&id)),
        ("expression", text(dice.pick(&EXPRESSIONS))),
        ("mode", text(dice.pick(&["hard", "soft", "soft"]))),
        ("priority", number(dice, &[10.0, 50.0])),
        ("status", status(dice, 85)),
    ];
    if dice.chance(50) {
        members.push(("multiplier", number(dice, &[0.1, 0.9, 1.0])));
    }
    Op::Create { kind: EntityKind::Guardrail, id, body: Value::map(members) }
}

pub(super) fn create_rule(known: &Known, dice: &mut Dice) -> Op {
    let id = format!("rule_{}", dice.below(12));
    let (kind, mut config) = match dice.below(14) {
        12 | 13 => ("metric_condition", metric_condition(dice)),
        0 => ("segment_required", vec![("requiredSegments", texts(&[dice.pick(&SEGMENTS)]))]),
        1..=4 => ("attribute_condition", {
            let numeric = dice.chance(60);
            condition(dice, "attribute", numeric)
        }),
        5 | 6 => ("offer_attribute", {
            let numeric = dice.chance(60);
            condition(dice, "field", numeric)
        }),
        7..=9 => ("expression", vec![("expression", text(dice.pick(&EXPRESSIONS)))]),
        10 => ("recency_check", vec![("minDays", number(dice, &[0.5, 1.0, 7.0]))]),
        _ => ("propensity_threshold", vec![("minPropensity", number(dice, &[0.1, 0.3, 0.5, 0.6]))]),
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

pub(super) fn create_policy(known: &Known, dice: &mut Dice) -> Op {
    let id = format!("pol_{}", dice.below(12));
    let strict = |dice: &mut Dice, members: &mut Vec<(&'static str, Value)>| {
        if dice.chance(40) {
            members.push(("enforcement", text("strict")));
        }
        if dice.chance(30) {
            members.push(("window", text("rolling")));
        }
    };
    let (kind, config) = match dice.below(16) {
        14 | 15 => ("metric_condition", metric_condition(dice)),
        0..=2 => {
            let mut config = vec![(
                dice.pick(&["maxPerDay", "maxPerWeek", "maxPerMonth", "maxTotal"]),
                number(dice, &[0.0, 1.0, 2.0, 3.0]),
            )];
            strict(dice, &mut config);
            ("frequency_cap", config)
        }
        3 | 4 => {
            let mut config = vec![("cooldownHours", number(dice, &[1.0, 24.0, 100.0]))];
            if dice.chance(40) {
                config.push(("enforcement", text("strict")));
            }
            ("cooldown", config)
        }
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
