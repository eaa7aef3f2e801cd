//! Whether calls that overlap could have happened one after the other, each at an instant between its invocation and its answer: the
//! search of Wing and Gong, memoised as Lowe does it, over any sequential model.
//!
//! Two observations keep it short on long histories, and lose nothing. A read that fits now may stand here: it changes nothing, so
//! whatever order works with it later works with it here. And of calls that do the same, the one that must be over first may go
//! first: in an order where another does, the two change places.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;

/// What calls do, one after the other.
pub trait Model {
    /// What there is between two calls.
    type State: Clone + Eq + Hash;
    /// A call with its answer.
    type Op;

    /// Before the first call.
    fn start(&self) -> Self::State;

    /// After the call; nothing if it would have been answered otherwise.
    fn step(&self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether it never changes the state.
    fn reads(&self, op: &Self::Op) -> bool;

    /// Whether two calls do the same to every state.
    fn same(&self, one: &Self::Op, other: &Self::Op) -> bool;
}

/// A call and when it was under way.
#[derive(Clone, Debug)]
pub struct Timed<Op> {
    /// How it is told.
    pub id: u64,
    /// When it was made.
    pub invoked_us: u64,
    /// When it was answered. `None`: it happens at any time after it was made, or never.
    pub returned_us: Option<u64>,
    /// What it does.
    pub op: Op,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// An order in which all answers are right.
    Order,
    /// There is none. The calls of which none could come next where most others had come.
    None {
        /// Their ids.
        stuck: Vec<u64>,
    },
    /// The search was given up after so many steps.
    GivenUp {
        /// How many.
        steps: u64,
    },
}

/// A call that was put in order, and what else could have been.
struct Choice<State> {
    candidates: Vec<(usize, State)>,
    /// Which of them stands there now: the last one taken out.
    taken: Option<usize>,
    before: State,
}

/// Looks for an order, for `steps_max` steps. O(n · calls at a time) for models where the two observations leave no choice, exponential in the calls
/// that overlap for others.
pub fn search<M: Model>(model: &M, calls: &[Timed<M::Op>], steps_max: u64) -> Found {
    let mut open = Open::new(calls);
    let mut seen: HashSet<(u128, M::State)> = HashSet::new();
    let mut state = model.start();
    let mut path: Vec<Choice<M::State>> = Vec::new();
    let (mut fewest_left, mut stuck) = (usize::MAX, Vec::new());
    let mut steps = 0;
    loop {
        let Some(end) = open.first_return() else { return Found::Order };
        let candidates = next(model, calls, &open, end, &state);
        if candidates.is_empty() && open.answered() < fewest_left {
            fewest_left = open.answered();
            stuck = open.before(calls, end).filter(|at| calls[*at].returned_us.is_some()).collect();
        }
        path.push(Choice { candidates, taken: None, before: state.clone() });
        // Forward if there is a way, else back to where there was another.
        loop {
            let Some(choice) = path.last_mut() else {
                return Found::None { stuck: stuck.into_iter().map(|at| calls[at].id).collect() };
            };
            if let Some(taken) = choice.taken.take() {
                open.put_back(calls, taken);
            }
            let Some((at, after)) = choice.candidates.pop() else {
                path.pop();
                continue;
            };
            steps += 1;
            if steps > steps_max {
                return Found::GivenUp { steps: steps_max };
            }
            open.take(calls, at);
            choice.taken = Some(at);
            debug_assert!(model.step(&choice.before, &calls[at].op).is_some());
            if seen.insert((open.mark, after.clone())) {
                state = after;
                break;
            }
        }
    }
}

/// What may come next, the best last.
fn next<M: Model>(
    model: &M,
    calls: &[Timed<M::Op>],
    open: &Open,
    end: u64,
    state: &M::State,
) -> Vec<(usize, M::State)> {
    let mut candidates: Vec<(usize, M::State)> = Vec::new();
    for at in open.before(calls, end) {
        let call = &calls[at];
        let Some(after) = model.step(state, &call.op) else { continue };
        if model.reads(&call.op) {
            if call.returned_us.is_some() {
                return vec![(at, after)];
            }
            // Nobody was answered, and nothing changes.
            continue;
        }
        let due = |at: usize| calls[at].returned_us.unwrap_or(u64::MAX);
        match candidates.iter_mut().find(|(known, _)| model.same(&calls[*known].op, &call.op)) {
            Some(known) if due(at) < due(known.0) => *known = (at, after),
            Some(_) => {}
            None => candidates.push((at, after)),
        }
    }
    candidates.sort_by_key(|(at, _)| std::cmp::Reverse(calls[*at].returned_us.unwrap_or(u64::MAX)));
    candidates
}

/// The calls that have no place yet.
struct Open {
    /// By invocation: a list through the calls, from and to the position after the last.
    after: Vec<usize>,
    ahead: Vec<usize>,
    /// Those that were answered, by when.
    returns: BTreeSet<(u64, usize)>,
    marks: Vec<u128>,
    /// Tells which calls are open, but for one chance in 2^128.
    mark: u128,
}

impl Open {
    fn new<Op>(calls: &[Timed<Op>]) -> Self {
        let head = calls.len();
        let mut order: Vec<usize> = (0..head).collect();
        order.sort_by_key(|at| (calls[*at].invoked_us, *at));
        let (mut after, mut ahead) = (vec![head; head + 1], vec![head; head + 1]);
        let mut last = head;
        for at in order {
            (after[last], ahead[at]) = (at, last);
            last = at;
        }
        (after[last], ahead[head]) = (head, last);
        let returns = calls.iter().enumerate().filter_map(|(at, call)| Some((call.returned_us?, at))).collect();
        let mut draw = fastrand::Rng::with_seed(0x1157);
        let marks = calls.iter().map(|_| draw.u128(..)).collect();
        Open { after, ahead, returns, marks, mark: 0 }
    }

    /// When the first of them was answered: what was made after that comes after it.
    fn first_return(&self) -> Option<u64> {
        self.returns.first().map(|(end, _)| *end)
    }

    fn answered(&self) -> usize {
        self.returns.len()
    }

    /// Those that were made until then, by when.
    fn before<Op>(&self, calls: &[Timed<Op>], end: u64) -> impl Iterator<Item = usize> {
        let head = calls.len();
        let follow = move |at: &usize| Some(self.after[*at]);
        std::iter::successors(Some(self.after[head]), follow)
            .take_while(move |at| *at != head && calls[*at].invoked_us <= end)
    }

    fn take<Op>(&mut self, calls: &[Timed<Op>], at: usize) {
        let (ahead, after) = (self.ahead[at], self.after[at]);
        (self.after[ahead], self.ahead[after]) = (after, ahead);
        if let Some(end) = calls[at].returned_us {
            self.returns.remove(&(end, at));
        }
        self.mark ^= self.marks[at];
    }

    /// Undoes the last `take` that was not undone.
    fn put_back<Op>(&mut self, calls: &[Timed<Op>], at: usize) {
        let (ahead, after) = (self.ahead[at], self.after[at]);
        (self.after[ahead], self.ahead[after]) = (at, at);
        if let Some(end) = calls[at].returned_us {
            self.returns.insert((end, at));
        }
        self.mark ^= self.marks[at];
    }
}

/// A number that is counted up, one at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter;

/// See [`Counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterOp {
    /// One more.
    Add,
    /// This is what it was.
    Read(i64),
}

impl Model for Counter {
    type State = i64;
    type Op = CounterOp;

    fn start(&self) -> i64 {
        0
    }

    fn step(&self, state: &i64, op: &CounterOp) -> Option<i64> {
        match op {
            CounterOp::Add => Some(state + 1),
            CounterOp::Read(seen) => (seen == state).then_some(*state),
        }
    }

    fn reads(&self, op: &CounterOp) -> bool {
        matches!(op, CounterOp::Read(_))
    }

    fn same(&self, one: &CounterOp, other: &CounterOp) -> bool {
        one == other
    }
}

/// A number that is written over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Register;

/// See [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterOp {
    /// This from now on.
    Write(u64),
    /// This is what it was; nothing before the first write.
    Read(Option<u64>),
}

impl Model for Register {
    type State = Option<u64>;
    type Op = RegisterOp;

    fn start(&self) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, op: &RegisterOp) -> Option<Option<u64>> {
        match op {
            RegisterOp::Write(value) => Some(Some(*value)),
            RegisterOp::Read(seen) => (seen == state).then_some(*state),
        }
    }

    fn reads(&self, op: &RegisterOp) -> bool {
        matches!(op, RegisterOp::Read(_))
    }

    fn same(&self, one: &RegisterOp, other: &RegisterOp) -> bool {
        one == other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: u64 = 1_000_000;

    fn timed<Op: Clone>(calls: &[(u64, Option<u64>, Op)]) -> Vec<Timed<Op>> {
        let timed = |(id, (invoked_us, returned_us, op)): (usize, &(u64, Option<u64>, Op))| Timed {
            id: id as u64,
            invoked_us: *invoked_us,
            returned_us: *returned_us,
            op: op.clone(),
        };
        calls.iter().enumerate().map(timed).collect()
    }

    fn is_fine<M: Model<Op: Clone>>(model: &M, calls: &[(u64, Option<u64>, M::Op)]) -> bool {
        match search(model, &timed(calls), STEPS) {
            Found::Order => true,
            Found::None { .. } => false,
            Found::GivenUp { steps } => panic!("given up after {steps}"),
        }
    }

    #[test]
    fn counters_that_may_be() {
        use CounterOp::{Add, Read};
        // A read beside an addition sees it or does not.
        for seen in [0, 1] {
            assert!(is_fine(&Counter, &[(0, Some(9), Add), (1, Some(2), Read(seen))]));
        }
        // An addition of which nothing was heard happens late, or never.
        assert!(is_fine(&Counter, &[(0, None, Add), (5, Some(6), Read(0)), (7, Some(8), Read(1))]));
        assert!(is_fine(&Counter, &[(0, None, Add), (5, Some(6), Read(0)), (7, Some(8), Read(0))]));
        assert!(is_fine(&Counter, &[]));
    }

    #[test]
    fn counters_that_cannot_be() {
        use CounterOp::{Add, Read};
        // What was acknowledged is missing.
        assert!(!is_fine(&Counter, &[(0, Some(1), Add), (2, Some(3), Read(0))]));
        // More than was ever asked for.
        assert!(!is_fine(&Counter, &[(0, Some(1), Add), (0, None, Add), (2, Some(3), Read(3))]));
        // Counted before it was asked for.
        assert!(!is_fine(&Counter, &[(0, Some(1), Read(1)), (2, Some(3), Add)]));
        // It goes back.
        assert!(!is_fine(&Counter, &[(0, None, Add), (1, Some(2), Read(1)), (3, Some(4), Read(0))]));
        let found = search(&Counter, &timed(&[(0, Some(1), Add), (2, Some(3), Read(0)), (4, Some(5), Read(1))]), STEPS);
        assert_eq!(found, Found::None { stuck: vec![1] });
    }

    #[test]
    fn registers_that_may_and_may_not_be() {
        use RegisterOp::{Read, Write};
        let both = [(0, Some(10), Write(1)), (0, Some(10), Write(2))];
        let after = |one: u64, two: u64| {
            [&both[..], &[(11, Some(12), Read(Some(one))), (13, Some(14), Read(Some(two)))]].concat()
        };
        assert!(is_fine(&Register, &after(1, 1)) && is_fine(&Register, &after(2, 2)));
        // Both writes are over: the order of them does not change any more.
        assert!(!is_fine(&Register, &after(1, 2)));
        // A write in doubt comes late; one that is over does not come again.
        assert!(is_fine(
            &Register,
            &[(0, None, Write(1)), (1, Some(2), Write(2)), (3, Some(4), Read(Some(2))), (5, Some(6), Read(Some(1)))]
        ));
        assert!(!is_fine(&Register, &[(0, Some(1), Write(1)), (2, Some(3), Write(2)), (4, Some(5), Read(Some(1)))]));
        assert!(!is_fine(&Register, &[(0, Some(1), Write(1)), (2, Some(3), Read(None))]));
    }

    #[test]
    fn long_histories_are_searched_in_few_steps() {
        let mut calls = Vec::new();
        for turn in 0..4_000_u64 {
            // Sixteen at a time; every tenth is never answered, and every second of these never happens.
            let returned = (turn % 10 != 0).then_some(turn * 10 + 160);
            calls.push((turn * 10, returned, CounterOp::Add));
            if turn % 50 == 49 {
                // At the end of what overlaps: all but the last fifteen, less those that never happen.
                let missing = (0..=turn).filter(|turn| turn % 20 == 10).count() as i64;
                calls.push((turn * 10 + 9, Some(turn * 10 + 9), CounterOp::Read(turn as i64 + 1 - missing)));
            }
        }
        assert_eq!(search(&Counter, &timed(&calls), 5_000), Found::Order);
        let last = calls.last_mut().unwrap();
        last.2 = CounterOp::Read(0);
        assert!(matches!(search(&Counter, &timed(&calls), 5_000), Found::None { .. }));
        assert_eq!(search(&Counter, &timed(&calls), 10), Found::GivenUp { steps: 10 });
    }

    /// By trying all orders of all that may have happened.
    fn naive<M: Model>(model: &M, calls: &[Timed<M::Op>]) -> bool {
        fn go<M: Model>(model: &M, calls: &[Timed<M::Op>], state: &M::State, left: &[usize]) -> bool {
            if left.iter().all(|at| calls[*at].returned_us.is_none()) {
                return true;
            }
            left.iter().any(|at| {
                let comes_later =
                    |other: &usize| calls[*other].returned_us.is_some_and(|end| end < calls[*at].invoked_us);
                if left.iter().any(comes_later) {
                    return false;
                }
                let rest: Vec<usize> = left.iter().copied().filter(|other| other != at).collect();
                model.step(state, &calls[*at].op).is_some_and(|after| go(model, calls, &after, &rest))
            })
        }
        go(model, calls, &model.start(), &(0..calls.len()).collect::<Vec<_>>())
    }

    fn calls<Op: std::fmt::Debug + Clone>(
        op: impl Strategy<Value = Op>,
    ) -> impl Strategy<Value = Vec<(u64, Option<u64>, Op)>> {
        let call = (0..12_u64, proptest::option::weighted(0.8, 0..6_u64), op);
        let call = call.prop_map(|(invoked, took, op)| (invoked, took.map(|took| invoked + took), op));
        proptest::collection::vec(call, 0..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn the_search_finds_for_counters_what_trying_everything_does(
            calls in calls(prop_oneof![Just(CounterOp::Add), (0..4_i64).prop_map(CounterOp::Read)]),
        ) {
            prop_assert_eq!(is_fine(&Counter, &calls), naive(&Counter, &timed(&calls)));
        }

        #[test]
        fn the_search_finds_for_registers_what_trying_everything_does(
            calls in calls(prop_oneof![
                (0..3_u64).prop_map(RegisterOp::Write),
                proptest::option::weighted(0.9, 0..3_u64).prop_map(RegisterOp::Read),
            ]),
        ) {
            prop_assert_eq!(is_fine(&Register, &calls), naive(&Register, &timed(&calls)));
        }
    }
}
