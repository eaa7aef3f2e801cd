//! Percentiles of a decision (criterion gives means): the rows of architecture.md §10. Words after `--` select rows by
//! what they print, the environment's `DECISIONS` says how many decisions a row makes (a profiler wants more).

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "workload.rs"]
mod workload;

use std::time::Instant as Clock;

use hdrhistogram::Histogram;
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::decide::view::Subject;
use proffer_engine::decide::{Scratch, decide};
use proffer_engine::keys::OfferKey;
use proffer_engine::learn::{Learned, NOTHING, Tallies};
use proffer_engine::profile::evidence::Tally;
use proffer_engine::profile::state::Profile;
use proffer_engine::snapshot::{Binding, Snapshot};

use workload::{Extra, NoEscrow, Workload};

/// Decisions a row, unless the environment says otherwise.
const DECISIONS: usize = 20_000;
/// Decisions before those that count: caches fill, and the allocator is done with what making the catalogue left behind.
const WARM_UP: usize = 20_000;
/// Longer decisions count as this long.
const LONGEST_NS: u64 = 1_000_000_000;
/// Customers they are for, in turn.
const CUSTOMERS: u64 = 256;

/// A line of the table.
struct Row {
    name: &'static str,
    offers: usize,
    extra: Extra,
    ask: fn(&Workload) -> Request,
    /// Customers without attributes, for whom no condition holds.
    strangers: bool,
    /// Each offer has been shown and answered, one more often than another.
    learned: bool,
    /// p50 to reach, µs.
    target: Option<f64>,
}

/// Rows over the same catalogue follow each other.
const ROWS: [Row; 24] = [
    row("wide slot", 1_000, Workload::wide, None),
    row("30 activities, dedup", 1_000, Workload::thirty, None),
    row("wide slot", 10_000, Workload::wide, Some(6.0)),
    row("wide slot, no counters", 10_000, uncounted, None),
    row("wide slot, explained", 10_000, explained, None),
    Row { learned: true, ..row("wide slot, P learned", 10_000, Workload::wide, None) },
    row("narrow slot", 10_000, Workload::narrow, None),
    Row { strangers: true, ..row("nobody eligible", 10_000, Workload::wide, Some(8.0)) },
    row("30 activities, dedup", 10_000, Workload::thirty, Some(40.0)),
    row("30 activities, dedup, no counters", 10_000, thirty_uncounted, None),
    Row {
        extra: Extra::Expressions,
        ..row("10 % with an expression over offer.*", 10_000, Workload::wide, Some(60.0))
    },
    Row { extra: Extra::Expressions, ..row("the same, no counters", 10_000, uncounted, None) },
    Row { extra: Extra::Models, ..row("logistic model of 20 features", 10_000, apart, Some(300.0)) },
    Row { extra: Extra::Models, ..row("the same, of customer times offer", 10_000, crossed, None) },
    Row { extra: Extra::Models, ..row("the model, every offer scored", 10_000, every_apart, None) },
    Row { extra: Extra::Models, learned: true, ..row("Thompson", 10_000, thompson, Some(1_200.0)) },
    Row { extra: Extra::Models, learned: true, ..row("Thompson, every offer drawn", 10_000, every_thompson, None) },
    row("wide slot", 100_000, Workload::wide, Some(35.0)),
    row("wide slot, no counters", 100_000, uncounted, None),
    Row { learned: true, ..row("wide slot, P learned", 100_000, Workload::wide, None) },
    row("narrow slot", 100_000, Workload::narrow, None),
    Row { strangers: true, ..row("nobody eligible", 100_000, Workload::wide, None) },
    row("30 activities, dedup", 100_000, Workload::thirty, None),
    row("30 activities, dedup, no counters", 100_000, thirty_uncounted, None),
];

const fn row(name: &'static str, offers: usize, ask: fn(&Workload) -> Request, target: Option<f64>) -> Row {
    Row { name, offers, extra: Extra::Nothing, ask, strangers: false, learned: false, target }
}

fn uncounted(load: &Workload) -> Request {
    Request { counters: false, ..load.wide() }
}

fn thirty_uncounted(load: &Workload) -> Request {
    Request { counters: false, ..load.thirty() }
}

fn apart(load: &Workload) -> Request {
    load.wide_by("apart")
}

fn crossed(load: &Workload) -> Request {
    load.wide_by("crossed")
}

fn every_apart(load: &Workload) -> Request {
    load.every_by("every-apart")
}

fn thompson(load: &Workload) -> Request {
    load.wide_by("thompson")
}

fn every_thompson(load: &Workload) -> Request {
    load.every_by("every-thompson")
}

fn explained(load: &Workload) -> Request {
    Request { explain: Explain::Full { limit: 100 }, ..load.wide() }
}

/// 100 to 10,000 propositions of each offer, of which 1 to 8 in a hundred came to something.
fn evidence(load: &Workload) -> Learned {
    let tally = |offer: OfferKey| {
        let drawn = u64::from(offer.0.wrapping_mul(0x9E37_79B1) >> 8);
        let shown = 100 + drawn % 9_900;
        Tally { shown, positive: shown * (1 + drawn / 9_900 % 8) / 100 }
    };
    let offers: Vec<_> = load.tenant_catalog().offers().iter().map(|offer| (offer.key, tally(offer.key))).collect();
    let add = |sum: Tally, (_, tally): &(OfferKey, Tally)| Tally {
        shown: sum.shown + tally.shown,
        positive: sum.positive + tally.positive,
    };
    let all = offers.iter().fold(Tally::default(), add);
    Learned::new(Tallies { all, offers, categories: Vec::new() })
}

/// A catalogue and whom to decide for.
struct Bench {
    load: Workload,
    snapshot: Snapshot,
    customers: Vec<Profile>,
    strangers: Vec<Profile>,
}

impl Bench {
    fn new(offers: usize, extra: Extra) -> Self {
        let load = Workload::new(offers, extra);
        let snapshot = Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision());
        let customers = (0..CUSTOMERS).map(|seed| load.profile(seed)).collect();
        let strangers = (0..CUSTOMERS).map(|seed| load.stranger(seed)).collect();
        Bench { load, snapshot, customers, strangers }
    }

    fn measure(&self, row: &Row, decisions: usize) {
        let (mut binding, mut scratch, at) = (Binding::new(), Scratch::new(), self.load.at());
        let mut times = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are in order");
        let request = (row.ask)(&self.load);
        let customers = if row.strangers { &self.strangers } else { &self.customers };
        let evidence = row.learned.then(|| evidence(&self.load));
        let learned = evidence.as_ref().unwrap_or(&NOTHING);
        let mut last = None;
        for (number, customer) in customers.iter().cycle().take(WARM_UP + decisions).enumerate() {
            let subject = Subject { profile: Some(customer), symbols: &self.load.symbols };
            let start = Clock::now();
            let decision =
                decide(&self.snapshot, subject, &mut binding, &NoEscrow, learned, &request, &at, 0, &mut scratch);
            if number >= WARM_UP {
                times.saturating_record(start.elapsed().as_nanos() as u64);
            }
            last = Some(decision);
        }
        let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
        let target = row.target.map_or(String::new(), |target| format!("≤ {target}"));
        let answered = last.map_or(0, |decision| decision.propositions.len());
        eprintln!(
            "| {:<38} | {:>7} | {:>7.2} | {:>7.2} | {:>7.2} | {target:>6} | {answered:>8} |",
            row.name,
            row.offers,
            us(0.5),
            us(0.9),
            us(0.99),
        );
    }
}

fn main() {
    let decisions = std::env::var("DECISIONS").ok().map(|number| number.parse().expect("DECISIONS is a number"));
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |row: &&Row| words.iter().all(|word| format!("{}, {} offers", row.name, row.offers).contains(word));
    eprintln!("| decide, µs                             |  offers |     p50 |     p90 |     p99 | target | answered |");
    eprintln!("|---|--:|--:|--:|--:|--:|--:|");
    let mut bench: Option<(usize, Extra, Bench)> = None;
    for row in ROWS.iter().filter(wanted) {
        let kept = bench.take().filter(|(offers, extra, _)| (*offers, *extra) == (row.offers, row.extra));
        let (_, _, at_hand) =
            bench.insert(kept.unwrap_or_else(|| (row.offers, row.extra, Bench::new(row.offers, row.extra))));
        at_hand.measure(row, decisions.unwrap_or(DECISIONS));
    }
}
