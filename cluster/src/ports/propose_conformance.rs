//! What every adapter of [`Propose`] must pass.

use std::sync::{Arc, Mutex};

use proffer_engine::profile::command::{Leader, Position};

use super::propose::{Gone, Machine, Pending, Propose, Proposed};

/// A machine that keeps what it was given, and answers each command with the sum of all up to it.
#[derive(Debug, Default)]
pub struct Ledgerbook {
    entries: Mutex<Vec<(Position, Vec<u64>)>>,
    gone: Mutex<bool>,
}

impl Ledgerbook {
    /// The entries applied, in order.
    pub fn entries(&self) -> Vec<(Position, Vec<u64>)> {
        self.entries.lock().expect("no holder panics").clone()
    }

    /// From now on the machine is gone.
    pub fn disappear(&self) {
        *self.gone.lock().expect("no holder panics") = true;
    }
}

impl Machine<u64, u64> for Ledgerbook {
    fn apply(&self, position: Position, commands: Vec<u64>) -> Pending<'_, Result<Vec<u64>, Gone>> {
        Box::pin(async move {
            if *self.gone.lock().expect("no holder panics") {
                return Err(Gone);
            }
            let mut entries = self.entries.lock().expect("no holder panics");
            let mut sum: u64 = entries.iter().flat_map(|(_, commands)| commands).sum();
            let results = commands.iter().map(|command| {
                sum += command;
                sum
            });
            let results = results.collect();
            entries.push((position, commands));
            Ok(results)
        })
    }
}

/// Runs the suite: `make` gives a fresh group over the machine it is handed.
///
/// # Panics
/// On the first breach of the contract.
pub async fn propose_conformance<P, F>(make: impl Fn(Arc<Ledgerbook>) -> F)
where
    P: Propose<u64, u64>,
    F: Future<Output = Arc<P>>,
{
    many_callers_see_one_order(&make).await;
    a_wrong_leader_writes_nothing(&make).await;
    a_machine_that_is_gone_is_never_fed_again(&make).await;
    who_leads_can_be_confirmed(&make).await;
}

/// A leader that nobody is.
const STRANGER: Leader = Leader { term: u64::MAX, replica: u64::MAX };

async fn many_callers_see_one_order<P, F>(make: &impl Fn(Arc<Ledgerbook>) -> F)
where
    P: Propose<u64, u64>,
    F: Future<Output = Arc<P>>,
{
    let book = Arc::new(Ledgerbook::default());
    let group = make(Arc::clone(&book)).await;
    let mut callers = Vec::new();
    for caller in 0..8_u64 {
        let group = Arc::clone(&group);
        callers.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for turn in 0..25_u64 {
                // Each command is its own name, so that doubles are seen.
                let commands = vec![1 + 2 * (caller * 25 + turn), 100_000];
                let expected = *group.leader().borrow();
                let proposed = match expected {
                    Some(expected) => group.propose(commands.clone(), expected).await,
                    None => Proposed::NotApplied("nobody leads".to_owned()),
                };
                answers.push((commands, expected, proposed));
            }
            answers
        }));
    }
    let mut answers = Vec::new();
    for caller in callers {
        answers.extend(caller.await.expect("a caller does not panic"));
    }
    // What was answered Unknown may still be on its way.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let entries = book.entries();
    assert!(entries.windows(2).all(|pair| pair[0].0.index < pair[1].0.index), "positions rise strictly");
    let applied = answers.iter().filter(|(_, _, proposed)| matches!(proposed, Proposed::Applied(_))).count();
    assert!(applied > 0, "a group that applies nothing proves nothing");
    for (commands, expected, proposed) in &answers {
        let found: Vec<_> = entries.iter().filter(|(_, entry)| entry[0] == commands[0]).collect();
        assert!(found.len() <= 1, "an entry is applied at most once: {commands:?}");
        assert!(found.iter().all(|(_, entry)| entry == commands), "an entry is applied wholly");
        match proposed {
            Proposed::Applied(committed) => {
                let [(position, _)] = found.as_slice() else { panic!("acknowledged, but not applied: {commands:?}") };
                assert_eq!(*position, committed.position);
                assert_eq!(Some(position.leader), *expected, "applied under the leader that was expected");
                let upto = |entry: &&(Position, Vec<u64>)| entry.0.index < position.index;
                let before: u64 = entries.iter().filter(upto).flat_map(|(_, entry)| entry).sum();
                let sums = [before + commands[0], before + commands[0] + commands[1]];
                assert_eq!(committed.results, sums, "results are those of this place in the log");
            }
            Proposed::Refused(_) | Proposed::NotApplied(_) => {
                assert!(found.is_empty(), "refused, but applied: {commands:?}");
            }
            Proposed::Unknown => {}
        }
    }
}

async fn a_wrong_leader_writes_nothing<P, F>(make: &impl Fn(Arc<Ledgerbook>) -> F)
where
    P: Propose<u64, u64>,
    F: Future<Output = Arc<P>>,
{
    let book = Arc::new(Ledgerbook::default());
    let group = make(Arc::clone(&book)).await;
    for _ in 0..20 {
        let proposed = group.propose(vec![1], STRANGER).await;
        assert!(!matches!(proposed, Proposed::Applied(_) | Proposed::Unknown), "{proposed:?}");
    }
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    assert!(book.entries().is_empty());
}

async fn a_machine_that_is_gone_is_never_fed_again<P, F>(make: &impl Fn(Arc<Ledgerbook>) -> F)
where
    P: Propose<u64, u64>,
    F: Future<Output = Arc<P>>,
{
    let book = Arc::new(Ledgerbook::default());
    let group = make(Arc::clone(&book)).await;
    book.disappear();
    for _ in 0..20 {
        let Some(leader) = *group.leader().borrow() else { continue };
        let proposed = group.propose(vec![1], leader).await;
        assert!(!matches!(proposed, Proposed::Applied(_)), "{proposed:?}");
    }
    assert!(book.entries().is_empty());
}

async fn who_leads_can_be_confirmed<P, F>(make: &impl Fn(Arc<Ledgerbook>) -> F)
where
    P: Propose<u64, u64>,
    F: Future<Output = Arc<P>>,
{
    let group = make(Arc::default()).await;
    let mut leader = group.leader();
    leader.wait_for(Option::is_some).await.expect("the group lives");
    for _ in 0..20 {
        if group.confirm().await {
            return;
        }
    }
    panic!("it leads, and nobody confirms it");
}
