//! Models of every type, over features that read all there is, and miss some of it.

use proffer_engine::catalog::{EntityKind, Op};
use proffer_engine::value::Value;

use super::super::dice::Dice;
use super::{number, text};

/// Keys of models, which are ids of theirs as well.
pub(super) const MODELS: [&str; 5] = ["mdl_0", "mdl_1", "mdl_2", "mdl_3", "mdl_4"];
/// Those that never leave scoring to others, so that the rest may leave it to them.
const SCORING: usize = 3;

/// What features yield: mostly numbers, of the customer, the request, the offer, or several of them; often nothing.
const FEATURES: [&str; 19] = [
    "customer.age",
    "attributes.age",
    "coalesce(customer.age, 30)",
    "customer.age > 25",
    "context.stock",
    "offer.priority",
    "offer.margin",
    "offer.priority >= 50",
    "rate",
    "price",
    "twice / 100",
    "offer.businessValue * coalesce(customer.age, 1) / 50",
    "metric.clicks",
    "metric.views_of",
    "metric.views_in + 0",
    "daysSince(customer.since)",
    "b.age",
    "size(offer.tags)",
    "null * offer.priority",
];

/// What bins hold beside numbers.
const WORDS: [&str; 5] = ["customer.tier", "offer.category", "colour", "attributes.channel", "label"];

fn feature(dice: &mut Dice, bins: bool) -> Value {
    text(if bins && dice.chance(40) { dice.pick(&WORDS) } else { dice.pick(&FEATURES) })
}

/// Bins that do not overlap, each with what `worth` says.
fn bins(dice: &mut Dice, mut worth: impl FnMut(&mut Dice) -> Vec<(&'static str, Value)>) -> Value {
    let mut bins = Vec::new();
    let values = |words: &[&str], numbers: &[f64]| {
        let words = words.iter().map(|word| text(word));
        ("values", Value::list(words.chain(numbers.iter().map(|number| Value::Number(*number)))))
    };
    let all = [
        vec![("to", Value::Number(1.0))],
        vec![("from", Value::Number(1.0)), ("to", Value::Number(28.0))],
        vec![("from", Value::Number(50.0))],
        vec![values(&["gold", "Cards", "web"], &[30.0])],
        vec![values(&["silver", "Loans", "red"], &[]), ("from", Value::Number(31.0)), ("to", Value::Number(50.0))],
        vec![("values", Value::list([Value::Bool(true)]))],
    ];
    for mut one in dice.some_of(60, &all).into_iter().chain([vec![values(&["blue"], &[29.5])]]) {
        one.extend(worth(dice));
        bins.push(Value::map(one));
    }
    Value::list(bins)
}

fn config(dice: &mut Dice, key: &str) -> (&'static str, Value) {
    if !MODELS[..SCORING].contains(&key) && dice.chance(50) {
        let members = [
            ("champion", text(MODELS[dice.below(2)])),
            ("challenger", text(MODELS[2])),
            ("percent", number(dice, &[0.0, 50.0, 100.0])),
        ];
        return ("champion_challenger", Value::map(members));
    }
    let count = 1 + dice.below(4);
    match dice.below(8) {
        0 | 1 => {
            let features = (0..count).map(|_| {
                let mut one = vec![
                    ("expression", feature(dice, false)),
                    ("coefficient", number(dice, &[-1.0, 0.03, 0.5, 2.0])),
                    ("mean", number(dice, &[0.0, 25.0])),
                    ("scale", number(dice, &[1.0, 10.0])),
                ];
                if dice.chance(80) {
                    one.push(("missing", number(dice, &[0.0, 40.0])));
                }
                Value::map(one)
            });
            let features: Vec<Value> = features.collect();
            let members = [("intercept", number(dice, &[-1.0, 0.0, 1e308])), ("features", Value::list(features))];
            ("logistic_regression", Value::map(members))
        }
        2 | 3 => {
            let characteristics = (0..count).map(|_| {
                let mut one = vec![
                    ("expression", feature(dice, true)),
                    ("bins", bins(dice, |dice| vec![("points", number(dice, &[-20.0, 5.0, 30.0]))])),
                    ("otherwise", number(dice, &[0.0, 7.0])),
                ];
                if dice.chance(80) {
                    one.push(("missing", number(dice, &[0.0, -3.0])));
                }
                Value::map(one)
            });
            let characteristics: Vec<Value> = characteristics.collect();
            let members = [
                ("basePoints", number(dice, &[0.0, 10.0])),
                ("targetPoints", number(dice, &[0.0, 20.0])),
                ("targetOdds", number(dice, &[0.25, 1.0])),
                ("pointsToDoubleOdds", number(dice, &[20.0, -15.0])),
                ("characteristics", Value::list(characteristics)),
            ];
            ("scorecard", Value::map(members))
        }
        4 | 5 => {
            let likely = |dice: &mut Dice| {
                vec![("positive", number(dice, &[0.1, 0.4, 0.9])), ("negative", number(dice, &[0.2, 0.5]))]
            };
            let predictors = (0..count).map(|_| {
                if dice.chance(30) {
                    let normal = |dice: &mut Dice| {
                        let members =
                            [("mean", number(dice, &[10.0, 30.0])), ("deviation", number(dice, &[5.0, 12.0]))];
                        Value::map(members)
                    };
                    let normals = Value::map([("positive", normal(dice)), ("negative", normal(dice))]);
                    return Value::map([("expression", feature(dice, false)), ("gaussian", normals)]);
                }
                let mut one = vec![("expression", feature(dice, true)), ("bins", bins(dice, likely))];
                if dice.chance(50) {
                    one.push(("otherwise", Value::map(likely(dice))));
                }
                Value::map(one)
            });
            let predictors: Vec<Value> = predictors.collect();
            let members = [("prior", number(dice, &[0.05, 0.5])), ("predictors", Value::list(predictors))];
            ("bayesian", Value::map(members))
        }
        6 => ("thompson_bandit", Value::map([("priorWeight", number(dice, &[0.1, 10.0, 200.0]))])),
        _ => ("epsilon_greedy", Value::map([("epsilon", number(dice, &[0.0, 0.5, 1.0]))])),
    }
}

pub(super) fn create_model(dice: &mut Dice, key: &str) -> Op {
    let (kind, config) = config(dice, key);
    let members = [
        ("name", text(key)),
        ("key", text(key)),
        ("modelType", text(kind)),
        ("config", config),
        ("status", text(if dice.chance(90) { "active" } else { "paused" })),
    ];
    Op::Create { kind: EntityKind::Model, id: key.to_owned(), body: Value::map(members) }
}

/// Another type with another config, or in and out of force; at times it goes, if nothing names it.
pub(super) fn edit_model(dice: &mut Dice) -> Op {
    let (kind, id) = (EntityKind::Model, dice.pick(&MODELS).to_owned());
    if dice.chance(10) {
        return Op::Delete { kind, id, force: true, has_history: false };
    }
    let patch = match dice.chance(70) {
        true => {
            let (model_type, config) = config(dice, &id);
            Value::map([("modelType", text(model_type)), ("config", config)])
        }
        false => Value::map([("status", text(dice.pick(&["active", "paused"])))]),
    };
    Op::Update { kind, id, patch, expected: None }
}
