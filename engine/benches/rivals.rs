//! The same rules, other ways: the naive evaluation, `zen-expression`, `cel`. Each rule is compiled once and evaluated per
//! offer, which is how those are used. Only rules are evaluated there: no score, no policy, no rank.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "workload.rs"]
mod workload;

use std::time::{Duration, Instant as Clock};

use proffer_engine::decide::view::Subject;
use proffer_engine::decide::{Scratch, decide, oracle};
use proffer_engine::learn::{NOTHING, Tallies};
use proffer_engine::profile::state::Profile;
use proffer_engine::snapshot::{Binding, Snapshot};
use zen_expression::expression::Standard;
use zen_expression::scope::Scope;
use zen_expression::variable::Variable;
use zen_expression::vm::VM;

use workload::{Extra, NoEscrow, Workload};

/// Offers that the naive evaluation walks: it looks at every rule for every offer.
const NAIVE_OFFERS: usize = 200;
const OFFERS: usize = 10_000;

/// Median time of `run`, with what it last found.
fn median<T>(times: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut found = run();
    let mut spent: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Clock::now();
            found = run();
            start.elapsed()
        })
        .collect();
    spent.sort_unstable();
    (spent[spent.len() / 2], found)
}

fn conditions(load: &Workload, prefix: &str, and: &str) -> Vec<String> {
    let text = |conditions: &[workload::Condition; workload::CONDITIONS]| {
        let parts: Vec<String> = conditions.iter().map(|condition| condition.text(prefix)).collect();
        parts.join(and)
    };
    load.conditions.iter().map(text).collect()
}

fn attributes(load: &Workload, profile: &Profile) -> Vec<(String, f64)> {
    let named = |(symbol, value): &(_, proffer_engine::value::Value)| {
        (load.symbols.name(*symbol).to_string(), value.as_number().expect("attributes of the workload are numbers"))
    };
    profile.attributes.iter().map(named).collect()
}

fn kernel(load: &Workload, profile: &Profile) -> (Duration, u32) {
    let snapshot = Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision());
    let (mut binding, mut scratch, at) = (Binding::new(), Scratch::new(), load.at());
    let request = proffer_engine::decide::request::Request { slots: Vec::new(), ..load.wide() };
    let subject = Subject { profile: Some(profile), symbols: &load.symbols };
    let (time, decision) =
        median(2_000, || decide(&snapshot, subject, &mut binding, &NoEscrow, &NOTHING, &request, &at, 0, &mut scratch));
    (time, decision.funnel.after_qualification)
}

fn zen(load: &Workload, profile: &Profile) -> (Duration, u32) {
    let compile = |text: String| zen_expression::compile_expression(&text).expect("zen reads these rules");
    let rules: Vec<_> = conditions(load, "", " and ").into_iter().map(compile).collect();
    let context: serde_json::Map<String, serde_json::Value> =
        attributes(load, profile).into_iter().map(|(name, value)| (name, value.into())).collect();
    let scope = Scope::new(Variable::from(serde_json::Value::Object(context)));
    let mut machine = VM::new();
    median(5, || {
        let holds = |rule: &&zen_expression::Expression<Standard>| {
            rule.evaluate_with_scope(&scope, &mut machine).is_ok_and(|value| matches!(value, Variable::Bool(true)))
        };
        rules.iter().filter(holds).count() as u32
    })
}

fn cel(load: &Workload, profile: &Profile) -> (Duration, u32) {
    let compile = |text: String| cel::Program::compile(&text).expect("cel reads these rules");
    let rules: Vec<_> = conditions(load, "", " && ").into_iter().map(compile).collect();
    let mut context = cel::Context::default();
    for (name, value) in attributes(load, profile) {
        context.add_variable_from_value(name, value);
    }
    median(5, || {
        let holds = |rule: &&cel::Program| rule.execute(&context) == Ok(cel::Value::Bool(true));
        rules.iter().filter(holds).count() as u32
    })
}

fn naive(load: &Workload, profile: &Profile) -> (Duration, u32) {
    let at = load.at();
    let request = proffer_engine::decide::request::Request { slots: Vec::new(), ..load.wide() };
    let subject = Subject { profile: Some(profile), symbols: &load.symbols };
    let (time, decision) =
        median(3, || oracle::decide(load.tenant_catalog(), subject, &NoEscrow, &Tallies::default(), &request, &at, 0));
    (time, decision.funnel.after_qualification)
}

fn row(name: &str, offers: usize, (time, passed): (Duration, u32), kernel: (Duration, u32)) {
    assert_eq!(passed, kernel.1, "{name} evaluates other rules");
    let ratio = time.as_secs_f64() / kernel.0.as_secs_f64();
    eprintln!("{name:<40} {offers:>7} offers {:>12.1} µs {ratio:>9.1} × kernel", time.as_secs_f64() * 1e6);
}

fn main() {
    let load = Workload::new(OFFERS, Extra::Nothing);
    let profile = load.profile(1);
    let fast = kernel(&load, &profile);
    row("kernel, whole decision", OFFERS, fast, fast);
    row("zen-expression, rules only", OFFERS, zen(&load, &profile), fast);
    row("cel, rules only", OFFERS, cel(&load, &profile), fast);
    let load = Workload::new(NAIVE_OFFERS, Extra::Nothing);
    let profile = load.profile(1);
    let fast = kernel(&load, &profile);
    row("kernel, whole decision", NAIVE_OFFERS, fast, fast);
    row("naive evaluation, whole decision", NAIVE_OFFERS, naive(&load, &profile), fast);
}
