//! The models within bounds that a test run has time for; `cargo run --release -p proffer-model` searches further.

use std::fmt::Debug;
use std::hash::Hash;

use proffer_model::bounds::{self, Depth};
use proffer_model::escrow::{self, Escrow};
use proffer_model::moves::{self, Moves};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Searches all of it.
fn holds<M>(model: M)
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug + Send + Sync,
{
    let name = format!("{model:?}");
    let checker = model.checker().spawn_bfs().join();
    eprintln!("{name}: {} different states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Searches until something is amiss: what.
fn amiss<M>(model: M) -> Option<&'static str>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Clone + PartialEq + Debug + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Debug + Send + Sync,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries();
    let properties = checker.model().properties().into_iter();
    let mut failures = properties.filter(|property| property.expectation != Expectation::Sometimes);
    failures.find(|property| found.contains_key(property.name)).map(|property| property.name)
}

#[test]
fn escrow_holds() {
    bounds::escrow(Depth::Short).into_iter().for_each(|bounds| holds(Escrow { bounds, left_out: None }));
}

#[test]
fn moves_hold() {
    bounds::moves(Depth::Short).into_iter().for_each(|bounds| holds(Moves { bounds, left_out: None }));
}

#[test]
fn every_rule_of_the_escrow_that_is_left_out_is_missed() {
    for rule in escrow::Rule::ALL {
        let found = amiss(Escrow { bounds: bounds::escrow_without(rule), left_out: Some(rule) });
        eprintln!("without {rule:?}: not {found:?}");
        assert!(found.is_some(), "nothing is amiss without {rule:?}");
    }
}

#[test]
fn every_rule_of_the_moves_that_is_left_out_is_missed() {
    for rule in moves::Rule::ALL {
        let found = amiss(Moves { bounds: bounds::moves_without(rule), left_out: Some(rule) });
        eprintln!("without {rule:?}: not {found:?}");
        assert!(found.is_some(), "nothing is amiss without {rule:?}");
    }
}
