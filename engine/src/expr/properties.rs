//! What holds for every expression.

use proptest::prelude::*;
use proptest::sample::select;

use super::ast::Position;
use super::compile::{Folding, compile_with};
use super::limits::{DEPTH_MAX, LIST_DEPTH_MAX, LIST_VALUES_MAX, NODES_MAX, SOURCE_BYTES_MAX, TEXT_BYTES_MAX};
use super::*;
use crate::keys::Slot;
use crate::time::Timestamp;
use crate::value::Value;

/// Every name the generated expressions use, one for each kind of source.
pub(super) const NAMES: [&str; 6] = ["customer.a", "context.b.c", "offer.d", "e", "unknown.f", "g"];

#[derive(Clone, Debug)]
pub(super) struct Surroundings(pub(super) [Value; NAMES.len()]);

impl Surroundings {
    /// What a name stands for; null if it is not known.
    pub(super) fn value_of(&self, name: &Name) -> Value {
        let known = NAMES.iter().position(|known| *known == name.to_string());
        known.map_or(Value::Null, |index| self.0[index].clone())
    }
}

impl Resolver for Surroundings {
    fn resolve(&mut self, name: &Name) -> Source {
        let written = name.to_string();
        match NAMES.iter().position(|known| *known == written) {
            Some(index @ (0 | 1)) => Source::Fact(Slot(index as u16)),
            Some(index @ (2 | 3 | 5)) => Source::Offer(index as u16),
            Some(_) => Source::Constant(self.0[4].clone()),
            None => Source::Constant(Value::Null),
        }
    }
}

impl Environment for Surroundings {
    fn fact(&self, slot: Slot) -> &Value {
        &self.0[usize::from(slot.0)]
    }

    fn offer(&self, field: u16) -> Value {
        self.0[usize::from(field)].clone()
    }

    fn now(&self) -> Timestamp {
        Timestamp(1_773_576_000_000)
    }
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["a", "abc", "", "2026-01-01", "2026-01-01T10:00:00+01:00", "größe", "x\"'\\\n"])
            .prop_map(str::to_owned),
        "\\PC{0,12}",
    ]
}

fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![0.0, 1.0, 2.5, 0.1, 1e300, 1e-300, 9_007_199_254_740_993.0]),
        0.0..1000.0,
        (0_u64..0x7FF0_0000_0000_0000).prop_map(f64::from_bits),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        numbers().prop_map(Value::Number),
        numbers().prop_map(|number| Value::Number(-number)),
        words().prop_map(Value::text),
        Just(Value::text("long ".repeat(150))),
    ];
    scalar.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            prop::collection::vec(("[a-c]", inner), 0..3).prop_map(Value::map),
        ]
    })
}

fn surroundings() -> impl Strategy<Value = Surroundings> {
    [values(), values(), values(), values(), values(), values()].prop_map(Surroundings)
}

/// Sources that parse, with parentheses more often than needed.
fn sources() -> impl Strategy<Value = String> {
    let quoted = |text: String| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let leaf = prop_oneof![
        numbers().prop_map(|number| format!("{number:e}")),
        words().prop_map(quoted),
        select(vec!["true", "false", "null"]).prop_map(str::to_owned),
        select(NAMES.to_vec()).prop_map(str::to_owned),
    ];
    let operators = vec!["||", "&&", "==", "!=", "<", "<=", ">", ">=", " in ", "+", "-", "*", "/", "%"];
    leaf.prop_recursive(5, 48, 3, move |inner| {
        let several = prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            4 => (inner.clone(), select(operators.clone()), inner.clone())
                .prop_map(|(left, operator, right)| format!("{left}{operator}{right}")),
            2 => (inner.clone(), select(operators.clone()), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left}){operator}({right})")),
            1 => (select(vec!["!", "-", "- -"]), inner.clone()).prop_map(|(sign, operand)| format!("{sign}({operand})")),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(condition, then, otherwise)| format!("({condition} ? {then} : {otherwise})")),
            1 => several.clone().prop_map(|items| format!("[{}]", items.join(","))),
            3 => (select(Function::ALL.to_vec()), several).prop_map(|(function, mut arguments)| {
                let arity = function.arity();
                let count = arguments.len().clamp(*arity.start(), *arity.end());
                arguments.resize(count, "null".to_owned());
                format!("{}({})", function.name(), arguments.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics(source in "\\PC{0,200}") {
        let _ = parse(&source);
    }

    #[test]
    fn parsing_scrambled_tokens_never_panics(
        tokens in prop::collection::vec(
            select(vec!["(", ")", "[", "]", "?", ":", ",", "!", "-", "a", "min", "1", "'x'", "\"", "\\u12", "&&", "in", "é", "\n"]),
            0..120,
        )
    ) {
        if let Ok(ast) = parse(&tokens.concat()) {
            prop_assert_eq!(parse(&ast.to_string()).expect("what is printed parses"), ast);
        }
    }

    #[test]
    fn faults_lie_inside_the_source(source in "[a-c(+'\\n é1]{0,40}") {
        if let Err(error) = parse(&source) {
            let lines: Vec<&str> = source.split('\n').collect();
            let line = lines[error.line as usize - 1];
            prop_assert!((1..=line.chars().count() + 1).contains(&(error.column as usize)), "{}", error);
        }
    }

    #[test]
    fn what_is_printed_parses_back(source in sources()) {
        let ast = parse(&source).expect("generated sources parse");
        let printed = ast.to_string();
        prop_assume!(printed.len() <= SOURCE_BYTES_MAX);
        let again = parse(&printed).expect("what is printed parses");
        prop_assert_eq!(&again, &ast);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn folding_changes_no_value(source in sources(), mut surroundings in surroundings()) {
        let ast = parse(&source).expect("generated sources parse");
        let folded = compile(&ast, &mut surroundings);
        let unfolded = compile_with(&ast, &mut surroundings, Folding::Off);
        let value = folded.eval(&surroundings);
        prop_assert_eq!(&value, &unfolded.eval(&surroundings));
        prop_assert!(folded.facts().iter().all(|slot| unfolded.facts().contains(slot)));
        if let Some(constant) = folded.constant() {
            prop_assert!(*constant == value || value.is_null());
        }
        if let Value::Number(number) = value {
            prop_assert!(number.is_finite());
        }
        if let Value::Text(text) = value {
            prop_assert!(text.len() <= TEXT_BYTES_MAX);
        }
    }

    #[test]
    fn values_are_of_the_checked_type(source in sources(), mut surroundings in surroundings()) {
        let ast = parse(&source).expect("generated sources parse");
        let types = |name: &Name| Type::of(&surroundings.value_of(name));
        if let Ok(known) = check(&ast, &types) {
            let value = compile(&ast, &mut surroundings).eval(&surroundings);
            prop_assert!(value.is_null() || known == Type::Any || Type::of(&value) == known, "{:?} is no {}", value, known);
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_decimal(number in -1e6..1e6_f64, places in 0..6_i32) {
        let rounded = numbers::round(number, places);
        let printed = format!("{rounded}");
        let written = printed.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        prop_assert!(written <= places as usize, "{} has {} places", rounded, written);
        prop_assert!((rounded - number).abs() <= 0.5 * libm::pow(10.0, -f64::from(places)) * (1.0 + 1e-9) + 1e-9);
    }

    #[test]
    fn exact_numbers_read_back(number in numbers()) {
        let mut written = String::new();
        numbers::write_exact(number, &mut written).expect("a String takes everything");
        prop_assert_eq!(written.parse::<f64>().expect("a number"), number);
    }
}

fn refusal(source: &str) -> String {
    parse(source).expect_err("hostile input is refused").message
}

#[test]
fn depth_bombs_are_refused() {
    let too_deep = format!("nested more than {DEPTH_MAX} deep");
    for open in ["(", "!", "-", "[", "min(", "1?", "1?2:", "a?(", "!(", "1+(", "1&&!(", "[-(", "1||1&&1==1<1+1*("] {
        let count = 4_000 / open.len();
        assert_eq!(refusal(&open.repeat(count)), too_deep, "{open}");
        assert!(refusal(&open.repeat(5_000)).starts_with("longer than"), "{open}");
    }
}

#[test]
fn nesting_up_to_the_limit_is_accepted() {
    let nested = |open: &str, close: &str, depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("min(", ")"), ("true ? 2 : ", "")] {
        assert!(parse(&nested(open, close, DEPTH_MAX)).is_ok(), "{open}");
        assert!(parse(&nested(open, close, DEPTH_MAX + 1)).is_err(), "{open}");
    }
}

#[test]
fn long_chains_do_not_nest_and_do_not_overflow() {
    let chain = |count: usize| vec!["1"; count].join("+");
    let ast = parse(&chain(NODES_MAX / 2)).expect("one node fewer than the limit");
    assert_eq!(ast.to_string(), vec!["1"; NODES_MAX / 2].join(" + "));
    let mut nothing = Surroundings(std::array::from_fn(|_| Value::Null));
    assert_eq!(compile_with(&ast, &mut nothing, Folding::Off).eval(&nothing), Value::Number(256.0));
    assert_eq!(refusal(&chain(NODES_MAX / 2 + 1)), format!("more than {NODES_MAX} values and operations"));
    let list = format!("[{}]", vec!["e"; NODES_MAX - 1].join(","));
    let program = compile(&parse(&list).expect("as many nodes as there may be"), &mut nothing);
    assert_eq!(program.eval(&nothing).as_list().map(<[Value]>::len), Some(NODES_MAX - 1));
}

#[test]
fn source_up_to_the_limit_is_accepted() {
    let padded = |length: usize| format!("1{}", " ".repeat(length - 1));
    assert!(parse(&padded(SOURCE_BYTES_MAX)).is_ok());
    assert!(parse(&padded(SOURCE_BYTES_MAX + 1)).is_err());
}

#[test]
fn text_beyond_the_limit_is_null() {
    let given = |length: usize| Surroundings(std::array::from_fn(|_| Value::text("x".repeat(length))));
    let eval = |source: &str, mut surroundings: Surroundings| {
        compile(&parse(source).expect("parses"), &mut surroundings).eval(&surroundings)
    };
    for source in ["customer.a", "concat(customer.a, '')", "customer.a + ''", "upper(customer.a)"] {
        assert!(eval(source, given(TEXT_BYTES_MAX)).as_text().is_some(), "{source}");
        assert!(eval(source, given(TEXT_BYTES_MAX + 1)).is_null(), "{source}");
    }
    assert_eq!(eval("size(customer.a + customer.a)", given(TEXT_BYTES_MAX)), Value::Null);
    assert!(refusal(&format!("'{}'", "x".repeat(TEXT_BYTES_MAX + 1))).starts_with("the string is longer"));
}

#[test]
fn lists_that_hold_too_much_or_are_too_deep_are_null() {
    let yields = |source: &str, given: &Value| {
        let mut surroundings = Surroundings(std::array::from_fn(|_| given.clone()));
        let value = compile(&parse(source).expect("parses"), &mut surroundings).eval(&surroundings);
        !value.is_null()
    };
    let long = |length: usize| Value::list(vec![Value::Bool(true); length]);
    assert!(yields("customer.a", &long(LIST_VALUES_MAX)) && yields("[1, customer.a]", &long(LIST_VALUES_MAX - 2)));
    assert!(
        !yields("customer.a", &long(LIST_VALUES_MAX + 1)) && !yields("[1, customer.a]", &long(LIST_VALUES_MAX - 1))
    );
    assert!(!yields("[offer.d, offer.d]", &Value::map([("a", long(LIST_VALUES_MAX / 2))])), "of objects too");
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::list([inner]));
    assert!(yields("e", &nested(LIST_DEPTH_MAX)) && yields("[e]", &nested(LIST_DEPTH_MAX - 1)));
    assert!(!yields("e", &nested(LIST_DEPTH_MAX + 1)) && !yields("[e]", &nested(LIST_DEPTH_MAX)));
    // Fields that build on each other, each naming the one before twice: the work is that of the limit, and not doubled each time.
    let doubled = (0..64).fold(Value::Bool(true), |before, _| {
        let mut surroundings = Surroundings(std::array::from_fn(|_| before.clone()));
        compile(&parse("[offer.d, offer.d]").expect("parses"), &mut surroundings).eval(&surroundings)
    });
    assert!(doubled.as_list().is_some_and(|items| items.len() == 2));
}

#[test]
fn names_are_split_at_the_first_dot() {
    let ast = parse("offer.a + customer.b.c + attributes.d + context.e + metric.f + g + loyalty.h").expect("parses");
    let found: Vec<(Namespace, &str)> = ast.names().map(|name| (name.namespace.clone(), name.path.as_str())).collect();
    assert_eq!(
        found,
        [
            (Namespace::Offer, "a"),
            (Namespace::Customer, "b.c"),
            (Namespace::Attributes, "d"),
            (Namespace::Context, "e"),
            (Namespace::Metric, "f"),
            (Namespace::Bare, "g"),
            (Namespace::Other("loyalty".to_owned()), "h"),
        ]
    );
}

#[test]
fn layout_does_not_matter_to_equality() {
    let tidy = parse("a + b * (c)").expect("parses");
    assert_eq!(tidy, parse("a+\n  (b*c)").expect("parses"));
    assert_ne!(tidy, parse("(a + b) * c").expect("parses"));
    assert_eq!(tidy.node(tidy.root()).position, Position { line: 1, column: 3 });
}

#[test]
fn equal_programs_are_equal() {
    let compiled = |source: &str| {
        compile(&parse(source).expect("parses"), &mut Surroundings(std::array::from_fn(|_| Value::Null)))
    };
    assert_eq!(compiled("customer.a > 1 + 1"), compiled("(customer.a) > 2"));
    assert_ne!(compiled("customer.a > 2"), compiled("customer.a >= 2"));
}
