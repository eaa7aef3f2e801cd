//! Conditions of filter nodes.

use proffer_engine::value::Value;

use super::super::dice::Dice;
use super::{number, text};

fn condition(dice: &mut Dice) -> Value {
    let numeric = dice.chance(50);
    let field = if numeric {
        dice.pick(&[
            "priority",
            "offer.priority",
            "rate",
            "price",
            "margin",
            "customer.age",
            "context.stock",
            "b.age",
            "metric.clicks",
            "metric.views_in",
            "metric.brands.acme",
        ])
    } else {
        dice.pick(&["colour", "productType", "label", "offer.category", "status", "customer.tier", "attributes.tier"])
    };
    let operators: &[&str] = if numeric {
        &["eq", "neq", "gt", "gte", "lt", "lte", "in", "not_in", "is_null", "is_not_null"]
    } else {
        &["eq", "neq", "in", "not_in", "contains", "starts_with", "regex", "is_null", "is_not_null"]
    };
    let operator = dice.pick(operators);
    let mut members = vec![("field", text(field)), ("operator", text(operator))];
    let words = ["gold", "silver", "red", "card", "Cards", "active", "loan"];
    let one = |dice: &mut Dice| if numeric { number(dice, &[0.0, 20.0, 50.0]) } else { text(dice.pick(&words)) };
    match operator {
        "is_null" | "is_not_null" => {}
        "in" | "not_in" => {
            let list: Vec<Value> = (0..1 + dice.below(3)).map(|_| one(dice)).collect();
            members.push(("value", Value::list(list)));
        }
        "regex" => members.push(("value", text(dice.pick(&["^c", "a|o", "[rg].+d?$", "(?i)CARD"])))),
        _ => members.push(("value", one(dice))),
    }
    Value::map(members)
}

/// A group of conditions and groups, not deeper than so many.
pub(super) fn filter(dice: &mut Dice, depth: usize) -> Value {
    let terms: Vec<Value> = (0..1 + dice.below(3))
        .map(|_| if depth > 1 && dice.chance(30) { filter(dice, depth - 1) } else { condition(dice) })
        .collect();
    // Most filters let something through.
    let combinator = if dice.chance(65) { "or" } else { "and" };
    Value::map([("combinator", text(combinator)), ("conditions", Value::list(terms))])
}
