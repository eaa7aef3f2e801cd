//! Expressions in bodies: computed fields and rule conditions.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::tenant::TenantCatalog;
use crate::catalog::validate::metric;
use crate::expr::{self, Ast, Name, Namespace, Type};
use crate::limits;
use crate::model::category::{CustomField, CustomFieldType, OutputType};
use crate::model::fault::Faults;
use crate::model::offer::Offer;
use crate::model::record::Record;

/// Checks the formulas of a category: syntax, types, names of fields, cycles. The current place is the list of fields.
pub(crate) fn check_fields(tenant: &TenantCatalog, fields: &[CustomField], faults: &mut Faults) {
    let types: BTreeMap<&str, Type> = fields.iter().map(|field| (field.name.as_str(), type_of(field))).collect();
    let known = |name: &Name| match name.namespace {
        Namespace::Offer if is_built_in(&name.path) => Type::Any,
        Namespace::Bare | Namespace::Offer => types.get(name.path.as_str()).copied().unwrap_or(Type::Any),
        Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Metric | Namespace::Other(_) => {
            Type::Any
        }
    };
    let mut reads: Reads<'_> = BTreeMap::new();
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
                metric::check_read(tenant, &ast, faults);
                let custom = fields_read(&ast).filter(|name| !is_built_in_of(name)).map(|name| name.path.clone());
                reads.insert(&field.name, custom.collect());
            });
        });
    }
    let mut refuse = |name: &str, why: String| {
        let place = fields.iter().position(|field| field.name == name).unwrap_or(0);
        faults.within(&place.to_string(), |faults| faults.add_at("formula", why));
    };
    match order(&reads) {
        Err(cycle) => refuse(&cycle[0], format!("computed fields depend on each other: {}", cycle.join(" -> "))),
        Ok(order) => {
            let most = limits::COMPUTED_DEPTH_MAX;
            if let Some((name, depth)) = depths(&reads, &order).into_iter().find(|(_, depth)| *depth > most) {
                refuse(
                    name,
                    format!("builds on {} computed fields below each other, more than {}", depth - 1, most - 1),
                );
            }
        }
    }
}

/// What each computed field reads.
type Reads<'f> = BTreeMap<&'f str, BTreeSet<String>>;

/// How many computed fields each one is deep, itself included; `order` has each after all that it reads.
fn depths<'f>(reads: &Reads<'f>, order: &[&'f str]) -> BTreeMap<&'f str, usize> {
    let mut depths = BTreeMap::new();
    for name in order {
        let below = reads[name].iter().filter_map(|read| depths.get(read.as_str())).max();
        let depth = 1 + below.copied().unwrap_or(0);
        depths.insert(*name, depth);
    }
    depths
}

/// Checks a rule's expression: it must be able to be true.
pub(crate) fn check_condition(tenant: &TenantCatalog, member: &str, source: &str, faults: &mut Faults) {
    faults.within(member, |faults| {
        let anything = |_: &Name| Type::Any;
        let Some((ast, yields)) = read(source, &anything, faults) else { return };
        if !yields.fits(Type::Bool) {
            faults.add(format!("yields a {yields}, not a boolean"));
        }
        metric::check_read(tenant, &ast, faults);
    });
}

/// Checks an expression that may yield anything.
pub(crate) fn check_value(tenant: &TenantCatalog, member: &str, source: &str, faults: &mut Faults) {
    faults.within(member, |faults| {
        if let Some((ast, _)) = read(source, &|_: &Name| Type::Any, faults) {
            metric::check_read(tenant, &ast, faults);
        }
    });
}

/// Checks a formula that scores: it must be able to yield a number.
pub(crate) fn check_number(tenant: &TenantCatalog, member: &str, source: &str, faults: &mut Faults) {
    faults.within(member, |faults| {
        let Some((ast, yields)) = read(source, &|_: &Name| Type::Any, faults) else { return };
        if !yields.fits(Type::Number) {
            faults.add(format!("yields a {yields}, not a number"));
        }
        metric::check_read(tenant, &ast, faults);
    });
}

/// Checks the feature of a model: it must be able to yield a number, or a boolean that counts as one; with `bins`, any one value.
pub(crate) fn check_feature(tenant: &TenantCatalog, member: &str, source: &str, bins: bool, faults: &mut Faults) {
    faults.within(member, |faults| {
        let Some((ast, yields)) = read(source, &|_: &Name| Type::Any, faults) else { return };
        let fits = yields.fits(Type::Number) || yields.fits(Type::Bool) || bins && yields.fits(Type::Text);
        if !fits {
            let wanted = if bins { "a number, boolean or text" } else { "a number or boolean" };
            faults.add(format!("yields a {yields}, not {wanted}"));
        }
        metric::check_read(tenant, &ast, faults);
    });
}

/// Whether what an expression yields may differ from offer to offer: it reads a field of the offer, or a metric that counts
/// apart by offer or category. One that does not parse reads nothing.
pub(crate) fn is_of_offer(tenant: &TenantCatalog, source: &str) -> bool {
    let Ok(ast) = expr::parse(source) else { return false };
    ast.names().any(|name| match name.namespace {
        Namespace::Bare | Namespace::Offer => true,
        Namespace::Metric => metric::is_by_candidate(tenant, &name.path),
        Namespace::Customer | Namespace::Attributes | Namespace::Context | Namespace::Other(_) => false,
    })
}

/// Checks the condition of a branch: it is asked once a request, whatever offers there are.
pub(crate) fn check_branch(tenant: &TenantCatalog, member: &str, source: &str, faults: &mut Faults) {
    check_condition(tenant, member, source, faults);
    let Ok(ast) = expr::parse(source) else { return };
    if let Some(name) = fields_read(&ast).next() {
        let name = name.to_string();
        faults
            .add_at(member, format!("reads {name:?} of an offer: a branch is taken once for all offers, use a filter"));
    }
    let mut metrics = ast.names().filter(|name| name.namespace == Namespace::Metric);
    if let Some(name) = metrics.find(|name| metric::is_by_candidate(tenant, &name.path)) {
        let why = format!("{:?} differs from offer to offer: a branch is taken once for all offers", name.to_string());
        faults.add_at(member, why);
    }
}

/// The names that an expression reads. One that does not parse reads nothing.
pub(crate) fn names_read(source: &str) -> Vec<String> {
    expr::parse(source).map(|ast| ast.names().map(Name::to_string).collect()).unwrap_or_default()
}

/// Checks that a rule or category that reads `names` leaves the tenant's rules and formulas within what they may read.
pub(crate) fn check_reads(tenant: &TenantCatalog, names: &BTreeSet<String>, faults: &mut Faults) {
    let most = limits::NAMES_READ_MAX;
    if !names.is_empty() && tenant.index.reads_with(names) > most {
        faults.add(format!("rules and formulas of a tenant read at most {most} different names"));
    }
}

fn fields_read(ast: &Ast) -> impl Iterator<Item = &Name> {
    ast.names().filter(|name| matches!(name.namespace, Namespace::Bare | Namespace::Offer))
}

/// Whether `offer.x` is a field that every offer has, before any custom one.
fn is_built_in(name: &str) -> bool {
    name == "id" || Offer::MEMBERS.contains(&name)
}

fn is_built_in_of(name: &Name) -> bool {
    name.namespace == Namespace::Offer && is_built_in(&name.path)
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

/// Computed fields, each after all that it reads.
///
/// # Errors
/// The first cycle, as the names along it with the first one again at its end.
fn order<'f>(reads: &Reads<'f>) -> Result<Vec<&'f str>, Vec<String>> {
    let (mut order, mut done) = (Vec::new(), BTreeSet::new());
    for start in reads.keys() {
        if done.contains(start) {
            continue;
        }
        // Depth first, without recursion: the path from `start`, each with those of its reads that are still to look at.
        let mut path = vec![(*start, reads[start].iter())];
        while let Some((name, open)) = path.last_mut() {
            let name = *name;
            let Some(target) = open.next() else {
                done.insert(name);
                order.push(name);
                path.pop();
                continue;
            };
            if let Some(begin) = path.iter().position(|(on_path, _)| on_path == target) {
                let cycle = path[begin..].iter().map(|(name, _)| (*name).to_owned());
                return Err(cycle.chain([target.clone()]).collect());
            }
            if let Some((target, below)) =
                reads.get_key_value(target.as_str()).filter(|(name, _)| !done.contains(*name))
            {
                path.push((*target, below.iter()));
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Field as _;
    use crate::value::Value;

    #[test]
    fn a_cycle_is_named_from_where_it_begins() {
        let reads = |pairs: &[(&'static str, &[&str])]| -> Reads<'static> {
            pairs.iter().map(|(name, reads)| (*name, reads.iter().map(|name| (*name).to_owned()).collect())).collect()
        };
        let cycle = |pairs| order(&reads(pairs)).err().map(|names| names.join(" "));
        assert_eq!(cycle(&[("a", &["b", "x"]), ("b", &["x"])]), None);
        assert_eq!(cycle(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]), Some("b c b".to_owned()));
        assert_eq!(cycle(&[("a", &["a"])]), Some("a a".to_owned()));
    }

    #[test]
    fn a_built_in_field_is_not_the_custom_one_of_its_name() {
        let field = |name: &str, formula: &str| CustomField {
            formula: Some(formula.to_owned()),
            output_type: Some(OutputType::Number),
            ..custom_field(name)
        };
        let faults_of = |fields: &[CustomField]| {
            let mut faults = Faults::new();
            check_fields(&TenantCatalog::default(), fields, &mut faults);
            faults.into_vec().len()
        };
        assert_eq!(faults_of(&[field("priority", "offer.priority * 2")]), 0);
        assert_eq!(faults_of(&[field("priority", "priority * 2")]), 1);
    }

    fn custom_field(name: &str) -> CustomField {
        let value = Value::map([("name", Value::text(name)), ("type", Value::text("computed"))]);
        CustomField::read(&value, &mut Faults::new()).expect("name and type are all a field needs")
    }

    #[test]
    fn depth_counts_the_longest_way_down() {
        let reads = BTreeMap::from([
            ("a", BTreeSet::from(["b".to_owned(), "c".to_owned()])),
            ("b", BTreeSet::from(["c".to_owned()])),
            ("c", BTreeSet::from(["plain".to_owned()])),
        ]);
        let order = order(&reads).expect("there is no cycle");
        assert_eq!(order, ["c", "b", "a"]);
        assert_eq!(depths(&reads, &order), BTreeMap::from([("a", 3), ("b", 2), ("c", 1)]));
    }
}
