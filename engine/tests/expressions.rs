//! The tables of `golden/`: a new case of the expression language needs a line there and no Rust.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proffer_engine::expr::{self, Environment, Name, Resolver, Source, Type};
use proffer_engine::keys::Slot;
use proffer_engine::time::Timestamp;
use proffer_engine::value::Value;

/// 2026-03-15T12:00:00Z.
const NOW: Timestamp = Timestamp(1_773_576_000_000);

/// Names that a case gives, as facts: bare ones go through the offer, `metric` through another expression.
#[derive(Default)]
struct Given {
    names: Vec<String>,
    values: Vec<Value>,
}

impl Given {
    fn read(text: &str) -> Self {
        let mut given = Given::default();
        for pair in text.split(';').filter(|pair| !pair.trim().is_empty()) {
            let (name, literal) = pair.split_once('=').expect("a given name has a value");
            given.names.push(name.trim().to_owned());
            given.values.push(evaluate(literal.trim(), &mut Given::default()));
        }
        given
    }

    fn types(&self) -> BTreeMap<String, Type> {
        self.names.iter().cloned().zip(self.values.iter().map(Type::of)).collect()
    }
}

impl Resolver for Given {
    fn resolve(&mut self, name: &Name) -> Source {
        let written = name.to_string();
        match self.names.iter().position(|known| *known == written) {
            None => Source::Constant(Value::Null),
            Some(index) if written.contains('.') => Source::Fact(Slot(index as u16)),
            Some(index) => Source::Offer(index as u16),
        }
    }
}

impl Environment for Given {
    fn fact(&self, slot: Slot) -> &Value {
        &self.values[usize::from(slot.0)]
    }

    fn offer(&self, field: u16) -> Value {
        self.values[usize::from(field)].clone()
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

fn evaluate(source: &str, given: &mut Given) -> Value {
    let ast = expr::parse(source).unwrap_or_else(|error| panic!("{source}: {error}"));
    let program = expr::compile(&ast, given);
    program.eval(given)
}

/// Equal, numbers to 1e-9.
fn agrees(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => (left - right).abs() <= 1e-9,
        _ => left == right,
    }
}

/// The rows of a table below its header, `\n` and `\t` in the expression written out.
fn rows(table: &str) -> Vec<Vec<String>> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(b'\t').quoting(false).comment(Some(b'#')).from_reader(table.as_bytes());
    let rows: Vec<Vec<String>> =
        reader.records().map(|record| record.expect("a readable row").iter().map(str::to_owned).collect()).collect();
    assert!(rows.len() > 50, "the table was read");
    rows
}

#[test]
fn expressions_yield_what_the_table_says() {
    let mut wrong = Vec::new();
    for row in rows(include_str!("golden/expressions.tsv")) {
        let [property, given, expression, expected] = &row[..] else { panic!("four columns: {row:?}") };
        let source = if property.starts_with("whitespace") {
            expression.replace("\\n", "\n").replace("\\t", "\t")
        } else {
            expression.clone()
        };
        let found = evaluate(&source, &mut Given::read(given));
        if !agrees(&found, &evaluate(expected, &mut Given::default())) {
            wrong.push(format!("{property}: {expression} is {found:?}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_function_is_in_the_table() {
    let rows = rows(include_str!("golden/expressions.tsv"));
    for function in expr::Function::ALL {
        let call = format!("{}(", function.name());
        assert!(rows.iter().any(|row| row[2].contains(&call)), "{call}) has no case");
    }
}

#[test]
fn faults_are_found_where_the_table_says() {
    let rows = rows(include_str!("golden/expression_faults.tsv"));
    let mut wrong = Vec::new();
    for group in rows.chunk_by(|left, right| left[1] == right[1]) {
        let (given, source) = (Given::read(&group[0][0]), group[0][1].replace("\\n", "\n"));
        let types = given.types();
        let found: Vec<String> = match expr::parse(&source) {
            Err(error) => vec![format!("{}:{} {}", error.line, error.column, error.message)],
            Ok(ast) => match expr::check(&ast, &|name| types.get(&name.to_string()).copied().unwrap_or(Type::Any)) {
                Ok(known) => vec![format!("accepted as {known}")],
                Err(errors) => {
                    errors.iter().map(|error| format!("{}:{} {}", error.line, error.column, error.message)).collect()
                }
            },
        };
        let as_told = found.len() == group.len()
            && found
                .iter()
                .zip(group)
                .all(|(found, told)| found.starts_with(&format!("{} ", told[2])) && found.contains(&told[3]));
        if !as_told {
            wrong.push(format!("{source}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn offer_reading_is_known() {
    let asked = RefCell::new(0);
    struct Count<'a>(&'a RefCell<u32>);
    impl Resolver for Count<'_> {
        fn resolve(&mut self, name: &Name) -> Source {
            *self.0.borrow_mut() += 1;
            match name.namespace.prefix() {
                None => Source::Offer(1),
                Some("offer") => Source::Offer(2),
                Some(_) => Source::Fact(Slot(3)),
            }
        }
    }
    let compile = |source: &str| expr::compile(&expr::parse(source).unwrap(), &mut Count(&asked));
    assert!(!compile("customer.a > 1").reads_offer());
    assert!(compile("offer.a > customer.b").reads_offer());
    assert!(compile("bare > customer.b").reads_offer());
    assert!(!compile("true ? customer.b : offer.a").reads_offer());
    assert_eq!(compile("customer.a + customer.b").facts(), [Slot(3)]);
    assert_eq!(compile("1 + 2 * 3").constant(), Some(&Value::Number(7.0)));
    assert!(compile("daysSince('2026-01-01') > 2").reads_time());
    assert_eq!(*asked.borrow(), 9);
}
