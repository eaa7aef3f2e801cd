//! Mean time of a decision: sizes × one or thirty activities × counters × explanation. Percentiles: `percentiles`.

#[path = "workload.rs"]
mod workload;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use proffer_engine::decide::request::{Explain, Request};
use proffer_engine::decide::view::Subject;
use proffer_engine::decide::{Scratch, decide};
use proffer_engine::learn::NOTHING;
use proffer_engine::snapshot::{Binding, Snapshot};

use workload::{Extra, NoEscrow, Workload};

fn decisions(criterion: &mut Criterion) {
    for offers in [1_000, 10_000, 100_000] {
        let load = Workload::new(offers, Extra::Nothing);
        let snapshot = Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision());
        let profiles: Vec<_> = (0..64).map(|seed| load.profile(seed)).collect();
        let at = load.at();
        let (mut binding, mut scratch) = (Binding::new(), Scratch::new());
        let mut group = criterion.benchmark_group(format!("decide/{}k", offers / 1_000));
        group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
        for (slots, request) in [(1, load.wide()), (30, load.thirty())] {
            for counters in [true, false] {
                for explain in [Explain::Off, Explain::Full { limit: 100 }] {
                    let explained = explain != Explain::Off;
                    let request = Request { counters, explain, ..request.clone() };
                    let name = format!("{slots} activities, counters {counters}, explain {explained}");
                    group.bench_function(BenchmarkId::from_parameter(name), |bench| {
                        let mut customers = profiles.iter().cycle();
                        bench.iter(|| {
                            let subject = Subject { profile: customers.next(), symbols: &load.symbols };
                            decide(
                                &snapshot,
                                subject,
                                &mut binding,
                                &NoEscrow,
                                &NOTHING,
                                &request,
                                &at,
                                0,
                                &mut scratch,
                            )
                        });
                    });
                }
            }
        }
        group.finish();
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
