//! Any text, and any expression whatever: parsed, printed, checked, compiled and evaluated.

use std::borrow::Cow;

use proffer_fuzz::Choices;

use super::ast::NodeKind;
use super::compile::{Folding, compile_with};
use super::eval::{binary, may_be_yielded, unary};
use super::limits::{SOURCE_BYTES_MAX, TEXT_BYTES_MAX};
use super::properties::{NAMES, Surroundings};
use super::*;
use crate::value::Value;

proffer_fuzz::targets!(text, words, tree);

/// Text from anywhere, right or wrong.
fn text(bytes: &[u8]) {
    examine(&String::from_utf8_lossy(bytes), &surroundings(&mut Choices::new(bytes)));
}

/// Words of the language in any order.
fn words(bytes: &[u8]) {
    const WORDS: [&str; 44] = [
        "(",
        ")",
        "[",
        "]",
        "?",
        ":",
        ",",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "||",
        "&&",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        " in ",
        " ",
        "\n",
        "true",
        "false",
        "null",
        "1",
        "0.5",
        "1e308",
        "1e-320",
        "'x'",
        "\"",
        "'",
        "\\u12",
        "\\ud83d\\ude00",
        "é",
        "customer.a",
        "offer.d",
        "e",
        "coalesce(",
        "concat(",
        "daysSince(",
        "pow(",
    ];
    let mut choices = Choices::new(bytes);
    let surroundings = surroundings(&mut choices);
    let source: String = choices.rest().iter().map(|byte| WORDS[usize::from(*byte) % WORDS.len()]).collect();
    examine(&source, &surroundings);
}

/// Expressions that parse, unless they are too large.
fn tree(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let surroundings = surroundings(&mut choices);
    let mut source = String::new();
    write_expression(&mut choices, &mut source, 24);
    examine(&source, &surroundings);
}

/// What holds for every source.
fn examine(source: &str, surroundings: &Surroundings) {
    let ast = match parse(source) {
        Ok(ast) => ast,
        Err(error) => {
            let line = source.split('\n').nth(error.line as usize - 1).expect("a fault lies in a line of the source");
            assert!((1..=line.chars().count() + 1).contains(&(error.column as usize)), "{error}");
            return;
        }
    };
    let printed = ast.to_string();
    if printed.len() <= SOURCE_BYTES_MAX {
        let again = parse(&printed).expect("what is printed parses");
        assert_eq!(again, ast);
        assert_eq!(again.to_string(), printed);
    }
    let mut resolver = surroundings.clone();
    let value = compile(&ast, &mut resolver).eval(surroundings);
    assert_eq!(value, compile_with(&ast, &mut resolver, Folding::Off).eval(surroundings), "folding changes nothing");
    assert_eq!(value, by_hand(&ast, surroundings), "the program computes what the tree says");
    assert!(
        value.as_number().is_none_or(f64::is_finite) && value.as_text().is_none_or(|text| text.len() <= TEXT_BYTES_MAX)
    );
    let types = |name: &Name| Type::of(&surroundings.value_of(name));
    if let Ok(known) = check(&ast, &types) {
        assert!(value.is_null() || known == Type::Any || Type::of(&value) == known, "{value:?} is no {known}");
    }
}

/// The value of a tree, node by node, both sides of everything: the language without slots, jumps and folding.
fn by_hand(ast: &Ast, surroundings: &Surroundings) -> Value {
    let mut values: Vec<Value> = Vec::with_capacity(ast.nodes().len());
    for node in ast.nodes() {
        let of = |id: &NodeId| values[id.index()].clone();
        let value = match &node.kind {
            NodeKind::Literal(value) => value.clone(),
            NodeKind::Name(name) => surroundings.value_of(name),
            NodeKind::List(items) => Value::list(items.iter().map(of)),
            NodeKind::Unary(operator, operand) => unary(*operator, &of(operand)),
            NodeKind::Binary(operator, left, right) => binary(*operator, &of(left), &of(right)),
            NodeKind::Conditional(condition, then, otherwise) => {
                of(if of(condition) == Value::Bool(true) { then } else { otherwise })
            }
            NodeKind::Call(function, arguments) => {
                let arguments: Vec<Cow<'_, Value>> = arguments.iter().map(|id| Cow::Owned(of(id))).collect();
                function.apply(&arguments, surroundings.now())
            }
        };
        values.push(value);
    }
    values.pop().filter(may_be_yielded).unwrap_or_default()
}

fn surroundings(choices: &mut Choices<'_>) -> Surroundings {
    Surroundings(std::array::from_fn(|_| value(choices, 2)))
}

fn value(choices: &mut Choices<'_>, depth: usize) -> Value {
    const TEXTS: [&str; 7] =
        ["", "a", "abc", "2026-01-01", "2026-01-01T10:00:00+01:00", "größe", "-9999-12-31T23:59:59Z"];
    match choices.below(8) {
        0 => Value::Null,
        1 => Value::Bool(choices.flag()),
        2 => Value::Number(f64::from(choices.byte()) - 100.0),
        3 => Value::Number(Some(f64::from_bits(choices.number())).filter(|number| number.is_finite()).unwrap_or(-0.0)),
        4 => Value::text("long ".repeat(choices.below(300))),
        6 if depth > 0 => Value::list((0..choices.below(4)).map(|_| value(choices, depth - 1)).collect::<Vec<_>>()),
        7 if depth > 0 => Value::map(
            (0..choices.below(3)).map(|_| (*choices.pick(&["a", "b"]), value(choices, depth - 1))).collect::<Vec<_>>(),
        ),
        _ => Value::text(choices.pick(&TEXTS)),
    }
}

fn write_expression(choices: &mut Choices<'_>, out: &mut String, depth: usize) {
    const OPERATORS: [&str; 14] = ["||", "&&", "==", "!=", "<", "<=", ">", ">=", " in ", "+", "-", "*", "/", "%"];
    const LITERALS: [&str; 12] =
        ["0", "1", "2.5", "1e300", "1e-310", "9007199254740993", "true", "false", "null", "'a'", "''", "'2026-01-01'"];
    let part = |choices: &mut Choices<'_>, out: &mut String| write_expression(choices, out, depth.saturating_sub(1));
    match if depth == 0 { choices.below(2) } else { choices.below(10) } {
        0 => out.push_str(choices.pick::<&str>(&LITERALS)),
        1 | 2 => out.push_str(choices.pick::<&str>(&NAMES)),
        3..=5 => {
            let is_grouped = choices.flag();
            out.push_str(if is_grouped { "(" } else { "" });
            part(choices, out);
            out.push_str(choices.pick::<&str>(&OPERATORS));
            part(choices, out);
            out.push_str(if is_grouped { ")" } else { "" });
        }
        6 => {
            out.push_str(choices.pick::<&str>(&["!(", "-("]));
            part(choices, out);
            out.push(')');
        }
        7 => {
            out.push('(');
            part(choices, out);
            out.push('?');
            part(choices, out);
            out.push(':');
            part(choices, out);
            out.push(')');
        }
        8 => {
            out.push('[');
            write_separated(choices, out, 0..=3, &part);
            out.push(']');
        }
        _ => {
            let function = *choices.pick(&Function::ALL);
            out.push_str(function.name());
            out.push('(');
            let arity = function.arity();
            let most = (*arity.end()).min(*arity.start() + 3);
            write_separated(choices, out, *arity.start()..=most, &part);
            out.push(')');
        }
    }
}

fn write_separated(
    choices: &mut Choices<'_>,
    out: &mut String,
    count: std::ops::RangeInclusive<usize>,
    part: &impl Fn(&mut Choices<'_>, &mut String),
) {
    let count = count.start() + choices.below(count.end() - count.start() + 1);
    for index in 0..count {
        out.push_str(if index > 0 { "," } else { "" });
        part(choices, out);
    }
}
