//! Percentiles of a decision (criterion gives means): the rows of architecture.md §10.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "workload.rs"]
mod workload;

use std::time::Instant as Clock;

use hdrhistogram::Histogram;
use proffer_engine::decide::request::Request;
use proffer_engine::decide::view::Subject;
use proffer_engine::decide::{Scratch, decide};
use proffer_engine::profile::state::Profile;
use proffer_engine::snapshot::{Binding, Snapshot};

use workload::{Extra, NoEscrow, Workload};

/// Decisions a row.
const DECISIONS: usize = 20_000;
/// Customers they are for, in turn.
const CUSTOMERS: u64 = 256;

struct Bench {
    load: Workload,
    snapshot: Snapshot,
    offers: usize,
}

impl Bench {
    fn new(offers: usize, extra: Extra) -> Self {
        let load = Workload::new(offers, extra);
        let snapshot = Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision());
        Bench { load, snapshot, offers }
    }

    fn customers(&self) -> Vec<Profile> {
        (0..CUSTOMERS).map(|seed| self.load.profile(seed)).collect()
    }

    fn row(&self, name: &str, request: &Request, customers: &[Profile], target_us: Option<f64>) {
        let (mut binding, mut scratch, at) = (Binding::new(), Scratch::new(), self.load.at());
        let mut times = Histogram::<u64>::new(3).expect("three digits are allowed");
        let mut last = None;
        for customer in customers.iter().cycle().take(DECISIONS) {
            let subject = Subject { profile: Some(customer), symbols: &self.load.symbols };
            let start = Clock::now();
            let decision = decide(&self.snapshot, subject, &mut binding, &NoEscrow, request, &at, 0, &mut scratch);
            times.saturating_record(start.elapsed().as_nanos() as u64);
            last = Some(decision);
        }
        let us = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1e3;
        let target = target_us.map_or(String::new(), |target| format!("p50 ≤ {target}"));
        let eligible = last.map_or(0, |decision| decision.funnel.after_contact_policy);
        eprintln!(
            "{name:<44} {:>7} offers  p50 {:>8.2}  p90 {:>8.2}  p99 {:>8.2} µs  {eligible:>6} eligible  {target}",
            self.offers,
            us(0.5),
            us(0.9),
            us(0.99),
        );
    }
}

fn main() {
    let bench = Bench::new(10_000, Extra::Nothing);
    let customers = bench.customers();
    let strangers: Vec<Profile> = (0..CUSTOMERS).map(|seed| bench.load.stranger(seed)).collect();
    let wide = bench.load.wide();
    bench.row("wide slot, counters", &wide, &customers, Some(6.0));
    bench.row("wide slot", &Request { counters: false, ..wide.clone() }, &customers, None);
    bench.row("narrow slot, counters", &bench.load.narrow(), &customers, None);
    bench.row("30 activities, dedup, counters", &bench.load.thirty(), &customers, Some(40.0));
    bench.row("nobody eligible, counters", &wide, &strangers, Some(8.0));
    let bench = Bench::new(10_000, Extra::Expressions);
    bench.row("10 % with an expression over offer.*", &bench.load.wide(), &customers, Some(60.0));
    let bench = Bench::new(100_000, Extra::Nothing);
    let customers = bench.customers();
    bench.row("wide slot, counters", &bench.load.wide(), &customers, Some(35.0));
    bench.row("30 activities, dedup, counters", &bench.load.thirty(), &customers, None);
}
