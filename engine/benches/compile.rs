//! Snapshots: compiled whole, updated by one offer; and what a profile weighs.

#[path = "workload.rs"]
mod workload;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use proffer_engine::codec;
use proffer_engine::snapshot::Snapshot;

use workload::{Extra, Workload};

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for offers in [10_000, 100_000] {
        let mut load = Workload::new(offers, Extra::Nothing);
        let thousands = offers / 1_000;
        let compile = |load: &Workload| Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision());
        group.bench_function(format!("compile/{thousands}k"), |bench| bench.iter(|| compile(&load)));
        let base = compile(&load);
        let touched = load.edit(3, 99);
        group.bench_function(format!("update one offer/{thousands}k"), |bench| {
            bench.iter(|| base.update(load.tenant_catalog(), &touched, load.revision()));
        });
        let mut worn = base.clone();
        for index in 0..offers as u64 / 100 {
            let touched = load.edit(index, 50);
            worn = worn.update(load.tenant_catalog(), &touched, load.revision());
        }
        group.bench_function(format!("update one offer, delta of 1 %/{thousands}k"), |bench| {
            bench.iter(|| worn.update(load.tenant_catalog(), &touched, load.revision()));
        });
        if offers == 10_000 {
            weigh(&load);
        }
    }
    group.finish();
}

/// Prints what a profile takes encoded, with and without its attributes.
fn weigh(load: &Workload) {
    let size = |stranger: bool| {
        let profiles = (0..100).map(|seed| if stranger { load.stranger(seed) } else { load.profile(seed) });
        let sizes = profiles.map(|profile| codec::encode(&profile).len());
        sizes.sum::<usize>() / 100
    };
    eprintln!(
        "bytes of an encoded profile with 10 exposures: {} beside its attributes, {} with 20",
        size(true),
        size(false)
    );
}

criterion_group!(benches, snapshots);
criterion_main!(benches);
