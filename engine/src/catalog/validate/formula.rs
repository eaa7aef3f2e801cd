//! Expressions in bodies: computed fields and rule conditions.

use std::collections::BTreeMap;

use crate::expr::{self, Ast, Name, Namespace, Type};
use crate::model::category::{CustomField, CustomFieldType, OutputType};
use crate::model::fault::Faults;

/// Checks the formulas of a category: syntax, types, names of fields, cycles. The current place is the list of fields.
pub(crate) fn check_fields(fields: &[CustomField], faults: &mut Faults) {
    let types: BTreeMap<&str, Type> = fields.iter().map(|field| (field.name.as_str(), type_of(field))).collect();
    let known = |name: &Name| match name.namespace {
        Namespace::Bare | Namespace::Offer => types.get(name.path.as_str()).copied().unwrap_or(Type::Any),
        Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Metric | Namespace::Other(_) => {
            Type::Any
        }
    };
    let mut reads: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (index, field) in fields.iter().enumerate() {
        let Some(formula) = field.formula.as_ref().filter(|formula| !formula.trim().is_empty()) else { continue };
        if field.field_type != CustomFieldType::Computed {
            continue;
        }
        faults.within(&index.to_string(), |faults| {
            faults.within("formula", |faults| {
                let Some((ast, yields)) = read(formula, &known, faults) else { return };
                let wanted = field.output_type.map_or(Type::Any, output);
                if !yields.fits(wanted) {
                    faults.add(format!("yields a {yields}, not a {wanted}"));
                }
                for name in ast.names() {
                    let unknown = name.namespace == Namespace::Bare && !types.contains_key(name.path.as_str());
                    if unknown {
                        faults.add(format!("the category has no custom field {:?}", name.path));
                    }
                }
                reads.insert(&field.name, fields_read(&ast).map(str::to_owned).collect());
            });
        });
    }
    if let Some(cycle) = find_cycle(&reads) {
        let first = fields.iter().position(|field| field.name == cycle[0]).unwrap_or(0);
        faults.within(&first.to_string(), |faults| {
            faults.add_at("formula", format!("computed fields depend on each other: {}", cycle.join(" -> ")));
        });
    }
}

/// Checks a rule's expression: it must be able to be true.
pub(crate) fn check_condition(member: &str, source: &str, faults: &mut Faults) {
    faults.within(member, |faults| {
        let anything = |_: &Name| Type::Any;
        let Some((ast, yields)) = read(source, &anything, faults) else { return };
        if !yields.fits(Type::Bool) {
            faults.add(format!("yields a {yields}, not a boolean"));
        }
        if let Some(metric) = ast.names().find(|name| name.namespace == Namespace::Metric) {
            faults.add(format!("no behavioural metric is named {:?}", metric.path));
        }
    });
}

/// Whether an expression reads the offer. One that does not parse reads nothing.
pub(crate) fn reads_offer(source: &str) -> bool {
    expr::parse(source).is_ok_and(|ast| fields_read(&ast).next().is_some())
}

fn fields_read(ast: &Ast) -> impl Iterator<Item = &str> {
    ast.names()
        .filter(|name| matches!(name.namespace, Namespace::Bare | Namespace::Offer))
        .map(|name| name.path.as_str())
}

fn read(source: &str, types: &dyn Fn(&Name) -> Type, faults: &mut Faults) -> Option<(Ast, Type)> {
    let ast = match expr::parse(source) {
        Ok(ast) => ast,
        Err(error) => {
            faults.add(error.to_string());
            return None;
        }
    };
    match expr::check(&ast, types) {
        Ok(yields) => Some((ast, yields)),
        Err(errors) => {
            for error in errors {
                faults.add(error.to_string());
            }
            None
        }
    }
}

fn output(output: OutputType) -> Type {
    match output {
        OutputType::Number => Type::Number,
        OutputType::Text => Type::Text,
    }
}

fn type_of(field: &CustomField) -> Type {
    match field.field_type {
        CustomFieldType::Number => Type::Number,
        CustomFieldType::Text | CustomFieldType::Select | CustomFieldType::Date => Type::Text,
        CustomFieldType::Boolean => Type::Bool,
        CustomFieldType::Computed => field.output_type.map_or(Type::Any, output),
    }
}

/// The first cycle, as the names along it with the first one again at its end.
fn find_cycle(reads: &BTreeMap<&str, Vec<String>>) -> Option<Vec<String>> {
    let mut done = std::collections::BTreeSet::new();
    for start in reads.keys() {
        // Depth first, without recursion: the path from `start`, each with the next of its reads to look at.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = path.last_mut() {
            let name = *name;
            let target = if done.contains(name) { None } else { reads.get(name).and_then(|names| names.get(*next)) };
            *next += 1;
            let Some(target) = target else {
                done.insert(name);
                path.pop();
                continue;
            };
            if let Some(begin) = path.iter().position(|(on_path, _)| on_path == target) {
                let cycle = path[begin..].iter().map(|(name, _)| (*name).to_owned());
                return Some(cycle.chain([target.clone()]).collect());
            }
            if reads.contains_key(target.as_str()) {
                path.push((target, 0));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_named_from_where_it_begins() {
        let reads = |pairs: &[(&'static str, &[&str])]| {
            pairs.iter().map(|(name, reads)| (*name, reads.iter().map(|name| (*name).to_owned()).collect())).collect()
        };
        assert_eq!(find_cycle(&reads(&[("a", &["b", "x"]), ("b", &["x"])])), None);
        assert_eq!(
            find_cycle(&reads(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])),
            Some(vec!["b".to_owned(), "c".to_owned(), "b".to_owned()])
        );
        assert_eq!(find_cycle(&reads(&[("a", &["a"])])), Some(vec!["a".to_owned(), "a".to_owned()]));
    }

    #[test]
    fn expressions_that_read_the_offer_are_told_from_those_that_do_not() {
        assert!(reads_offer("base_rate > 1"));
        assert!(reads_offer("offer.priority > 1"));
        assert!(!reads_offer("customer.age > 1 && context.weather == 'sun'"));
    }
}
