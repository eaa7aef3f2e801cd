//! Drafts of decision flows.

use proffer_engine::value::Value;

use super::super::dice::Dice;
use super::filters::filter;
use super::models::MODELS;
use super::{CATEGORIES, CHANNELS, Known, SUB_CATEGORIES, number, one_of, text, texts};

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

fn expression_score(dice: &mut Dice) -> Value {
    let formulas = [
        "P * R * I",
        "0.5 * E + 0.5 * offer.margin / 40",
        "customer.age > 25 ? E : I * 2",
        "max(E - tau, 0) + coalesce(price, 0) / 1000",
        "rate",
        "customer.tier",
        "R",
        "E + metric.views_of / 10",
        "E * (1 + metric.clicks)",
    ];
    let mut members = vec![("method", text("expression")), ("formula", text(dice.pick(&formulas)))];
    if dice.chance(40) {
        members.push(("modelKey", text(dice.pick(&MODELS))));
    }
    if dice.chance(60) {
        members.push(("relevance", Value::map([("freshness", number(dice, &[1.0, 2.0]))])));
    }
    if dice.chance(30) {
        members.push(("impact", Value::map([("margin", Value::Number(1.0))])));
    }
    Value::map(members)
}

fn score(dice: &mut Dice) -> Value {
    if dice.chance(20) {
        return expression_score(dice);
    }
    let mut members = vec![
        ("method", text(dice.pick(&["priority_weighted", "propensity", "formula", "formula"]))),
        ("formula", weights(dice)),
    ];
    if dice.chance(45) {
        members.push(("modelKey", text(dice.pick(&MODELS))));
    }
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
        if dice.chance(40) {
            one.push(("modelKey", text(dice.pick(&MODELS))));
        }
        overrides.push(Value::map(one));
    }
    members.push(("overrides", Value::list(overrides)));
    Value::map(members)
}

fn optimize(dice: &mut Dice) -> Value {
    let aims = dice.pick(&[
        [("score", 1.0), ("margin", 0.0)],
        [("score", 0.5), ("revenueValue", 0.5)],
        [("relevance", 0.25), ("priority", 0.75)],
        [("margin", 1.0), ("businessValue", 0.0)],
        [("propensity", 0.5), ("impact", 0.5)],
    ]);
    let aims = aims.map(|(name, weight)| (name, Value::Number(weight)));
    Value::map([("objectives", Value::map(aims))])
}

fn set_properties(dice: &mut Dice) -> Value {
    let all = [
        ("greeting", "concat('Dear ', coalesce(customer.tier, 'customer'))"),
        ("price", "price * 2"),
        ("worth", "offer.businessValue / (customer.age - 30)"),
        ("where", "attributes.channel"),
        ("limited", "context.stock < 5"),
    ];
    let some: Vec<_> = all.iter().filter(|_| dice.chance(40)).chain(&all[..1]).collect();
    Value::map([("set", Value::map(some.into_iter().map(|(name, expression)| (*name, text(expression)))))])
}

fn selection(dice: &mut Dice, ids: &[String]) -> Value {
    if ids.is_empty() || dice.chance(70) {
        return Value::map([("mode", text("all"))]);
    }
    let ids: Vec<String> = (0..1 + dice.below(3)).map(|_| one_of(dice, ids)).collect();
    Value::map([("mode", text("selected")), ("ids", texts(&ids))])
}

fn inventory(known: &Known, dice: &mut Dice) -> Value {
    match dice.below(8) {
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

/// A node of a branch, not deeper than so many.
fn branch_node(known: &Known, dice: &mut Dice, position: usize, depth: usize) -> Value {
    let (kind, config) = match dice.below(8) {
        0 | 1 => ("filter", filter(dice, 2)),
        2 => ("qualify", selection(dice, &known.rules)),
        3 => ("contact_policy", selection(dice, &known.policies)),
        4 => ("enrich", enrich(dice)),
        5 => ("match_creatives", match_creatives(dice)),
        6 if depth > 1 => ("conditional", conditional(known, dice, depth - 1)),
        _ if !known.flows.is_empty() => ("call_flow", call(known, dice)),
        _ => ("filter", filter(dice, 1)),
    };
    Value::map([
        ("id", text(&format!("b{}", dice.below(1_000_000_000)))),
        ("type", text(kind)),
        ("phase", Value::Number(1.0)),
        // Not in the order they are written.
        ("position", Value::Number((position * 7 % 5) as f64)),
        ("config", config),
    ])
}

fn conditional(known: &Known, dice: &mut Dice, depth: usize) -> Value {
    let whens = [
        "customer.age > 25",
        "attributes.tier == 'gold'",
        "context.stock > 2",
        "b.age > 20",
        "!isNull(customer.tier)",
        "true",
        "attributes.channel == 'web'",
        "daysSince(customer.since) > 100",
        "null",
        "metric.spent > 10",
        "metric.brands.acme > 0",
    ];
    let nodes = |dice: &mut Dice| {
        let nodes: Vec<Value> = (0..dice.below(4)).map(|position| branch_node(known, dice, position, depth)).collect();
        Value::list(nodes)
    };
    let branches: Vec<Value> = (0..1 + dice.below(2))
        .map(|_| Value::map([("when", text(dice.pick(&whens))), ("nodes", nodes(dice))]))
        .collect();
    let mut members = vec![("branches", Value::list(branches))];
    if dice.chance(60) {
        members.push(("else", nodes(dice)));
    }
    Value::map(members)
}

fn call(known: &Known, dice: &mut Dice) -> Value {
    Value::map([("flowKey", text(&one_of(dice, &known.flows)))])
}

fn enrich(dice: &mut Dice) -> Value {
    let mut source = vec![("schemaId", text(dice.pick(&["sch_a", "sch_b"]))), ("lookupKey", text("customer"))];
    if dice.chance(40) {
        source.push(("fields", texts(&[dice.pick(&["age", "tier"])])));
    }
    if dice.chance(30) {
        source.push(("prefix", text("b")));
    }
    Value::map([("sources", Value::list([Value::map(source)]))])
}

fn match_creatives(dice: &mut Dice) -> Value {
    Value::map([
        ("requireCreative", Value::Bool(dice.chance(60))),
        ("placementMatchMode", text(dice.pick(&["exact", "any", "any", "none"]))),
    ])
}

pub(super) fn draft(known: &Known, dice: &mut Dice) -> Value {
    let mut nodes: Vec<(&str, f64, Value)> = vec![("inventory", 1.0, inventory(known, dice))];
    if dice.chance(50) {
        nodes.push(("match_creatives", 1.0, match_creatives(dice)));
    }
    for _ in 0..dice.below(3) {
        nodes.push(("enrich", 1.0, enrich(dice)));
    }
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2]) {
        nodes.push(("qualify", 1.0, selection(dice, &known.rules)));
    }
    for _ in 0..dice.pick(&[0, 1, 1, 1, 1, 2]) {
        nodes.push(("contact_policy", 1.0, selection(dice, &known.policies)));
    }
    for _ in 0..dice.pick(&[0, 0, 0, 1, 2]) {
        nodes.push(("filter", 1.0, filter(dice, 3)));
    }
    for _ in 0..dice.pick(&[0, 0, 0, 1, 1, 2]) {
        nodes.push(("conditional", 1.0, conditional(known, dice, 2)));
    }
    let calls = |dice: &mut Dice| dice.chance(12) && !known.flows.is_empty();
    if calls(dice) {
        nodes.push(("call_flow", 1.0, call(known, dice)));
    }
    if calls(dice) {
        nodes.push(("call_flow", 2.0, call(known, dice)));
    }
    if dice.chance(85) {
        nodes.push(("score", 2.0, score(dice)));
    }
    if dice.chance(60) {
        let most = number(dice, &[1.0, 2.0, 4.0, 50.0]);
        nodes.push(("rank", 2.0, Value::map([("maxCandidates", most)])));
    }
    if dice.chance(25) {
        nodes.push(("optimize", 2.0, optimize(dice)));
    }
    if dice.chance(20) {
        nodes.push(("group", 2.0, Value::map([("arbitration", text(dice.pick(&["greedy", "optimal"])))])));
    }
    if calls(dice) {
        nodes.push(("call_flow", 3.0, call(known, dice)));
    }
    if dice.chance(30) {
        nodes.push(("set_properties", 3.0, set_properties(dice)));
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
    if dice.chance(45) {
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
