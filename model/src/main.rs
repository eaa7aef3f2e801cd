//! Searches the models as far as asked for, and tells what was searched and what was found.

use std::fmt::Debug;
use std::hash::Hash;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use proffer_model::bounds::{self, Depth};
use proffer_model::escrow::{self, Escrow};
use proffer_model::moves::{self, Moves};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Searches the models of Proffer's protocols exhaustively within bounds. Ends with 1 if something does not hold, or if nothing is amiss
/// where a rule is left out.
#[derive(Parser)]
struct Arguments {
    /// Which models; all of them unless named.
    #[arg(long, value_enum)]
    only: Option<Which>,
    /// How far.
    #[arg(long, value_enum, default_value = "further")]
    depth: Depth,
    /// Threads that search. With one, what is found is found on a shortest way.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Searches without this rule of the escrow, and tells how it goes wrong.
    #[arg(long, value_enum)]
    escrow_without: Option<escrow::Rule>,
    /// Searches without this rule of the moves, and tells how it goes wrong.
    #[arg(long, value_enum)]
    moves_without: Option<moves::Rule>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Escrow,
    Moves,
}

fn main() -> std::io::Result<ExitCode> {
    let Arguments { only, depth, threads, escrow_without, moves_without } = Arguments::parse();
    let mut is_well = true;
    let is_searched = |which| only.is_none_or(|only| only == which);
    if escrow_without.is_none() && moves_without.is_none() {
        if is_searched(Which::Escrow) {
            for bounds in bounds::escrow(depth) {
                is_well &= search(Escrow { bounds, left_out: None }, threads)?;
            }
        }
        if is_searched(Which::Moves) {
            for bounds in bounds::moves(depth) {
                is_well &= search(Moves { bounds, left_out: None }, threads)?;
            }
        }
    }
    let is_rule_searched =
        |which, named| is_searched(which) && (named || escrow_without.is_none() && moves_without.is_none());
    for rule in escrow::Rule::ALL.into_iter().filter(|rule| escrow_without.is_none_or(|only| only == *rule)) {
        if is_rule_searched(Which::Escrow, escrow_without.is_some()) {
            let model = Escrow { bounds: bounds::escrow_without(rule), left_out: Some(rule) };
            is_well &= miss(&rule, model, threads, escrow_without.is_some())?;
        }
    }
    for rule in moves::Rule::ALL.into_iter().filter(|rule| moves_without.is_none_or(|only| only == *rule)) {
        if is_rule_searched(Which::Moves, moves_without.is_some()) {
            let model = Moves { bounds: bounds::moves_without(rule), left_out: Some(rule) };
            is_well &= miss(&rule, model, threads, moves_without.is_some())?;
        }
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Searches all of a model; whether everything holds.
fn search<M>(model: M, threads: usize) -> std::io::Result<bool>
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug + Send + Sync,
{
    writeln!(stdout(), "{model:?}")?;
    let mut ticker = Ticker::default();
    let checker = model.checker().threads(threads).spawn_bfs().join_and_report(&mut ticker);
    writeln!(
        stdout(),
        "  {} different states, {} in all, {} steps deep, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        ticker.took.as_secs_f64()
    )?;
    let mut holds = true;
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        let is_as_meant = match property.expectation {
            Expectation::Always | Expectation::Eventually => found.is_none(),
            Expectation::Sometimes => found.is_some(),
        };
        writeln!(stdout(), "  {} {}", if is_as_meant { "holds:" } else { "DOES NOT HOLD:" }, property.name)?;
        if let Some(path) = found.filter(|_| !is_as_meant) {
            writeln!(stdout(), "{path}")?;
        }
        holds &= is_as_meant;
    }
    Ok(holds)
}

/// Searches a model of which a rule is left out; whether something is amiss.
fn miss<M>(rule: &dyn Debug, model: M, threads: usize, is_told: bool) -> std::io::Result<bool>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug + Send + Sync,
{
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let properties = checker.model().properties();
    let failures = properties.iter().filter(|property| property.expectation != Expectation::Sometimes);
    let found = failures.filter_map(|property| Some((property.name, checker.discovery(property.name)?))).next();
    match &found {
        Some((name, path)) => {
            let steps = path.clone().into_actions();
            let states = checker.unique_state_count();
            writeln!(stdout(), "without {rule:?}: not {name:?}, {} steps, among {states} states", steps.len())?;
            if is_told {
                for step in steps {
                    writeln!(stdout(), "  {step:?}")?;
                }
            }
        }
        None => writeln!(stdout(), "without {rule:?}: NOTHING IS AMISS among {} states", checker.unique_state_count())?,
    }
    Ok(found.is_some())
}

/// Says how far a search is, now and then.
#[derive(Default)]
struct Ticker {
    took: Duration,
}

impl<M: Model> stateright::report::Reporter<M> for Ticker {
    fn report_checking(&mut self, data: stateright::report::ReportData) {
        self.took = data.duration;
        if !data.done {
            eprintln!("  … {} states after {} s", data.unique_states, data.duration.as_secs());
        }
    }

    fn report_discoveries(
        &mut self,
        _model: &M,
        _discoveries: std::collections::BTreeMap<&'static str, stateright::report::ReportDiscovery<M>>,
    ) where
        M::Action: Debug,
        M::State: Debug + Hash,
    {
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(20)
    }
}
