//! Snapshots: compiled whole, updated by one write; and what a profile weighs.

#[path = "workload.rs"]
mod workload;

use std::cell::LazyCell;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use proffer_engine::catalog::{TenantCatalog, Touched};
use proffer_engine::codec;
use proffer_engine::snapshot::Snapshot;

use workload::{Extra, Workload};

/// A write, by name.
type Write = (&'static str, fn(&mut Workload) -> Vec<Touched>);

/// Each is measured from the same snapshot, before any of the others.
const WRITES: [Write; 5] = [
    ("one offer", |load| load.edit(3, 99)),
    ("one activity", Workload::add_activity),
    ("one category name", Workload::rename_category),
    ("one wide rule", Workload::add_wide_rule),
    ("one new largest margin", Workload::raise_largest_margin),
];

fn compile(load: &Workload) -> Snapshot {
    Snapshot::compile(&load.tenant, load.tenant_catalog(), load.revision())
}

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for offers in [1_000, 10_000, 100_000] {
        let load = LazyCell::new(|| Workload::new(offers, Extra::Nothing));
        let thousands = offers / 1_000;
        group.bench_function(format!("compile/{thousands}k"), |bench| bench.iter(|| compile(&load)));
        if offers > 1_000 {
            updates(&mut group, &load, thousands);
        }
    }
    group.finish();
}

/// Times an update by each of [`WRITES`], and by an offer on top of a delta of one in a hundred.
fn updates(
    group: &mut BenchmarkGroup<'_, WallTime>,
    load: &LazyCell<Workload, impl FnOnce() -> Workload>,
    thousands: usize,
) {
    let base = LazyCell::new(|| {
        let mut load = Workload::clone(load);
        load.publish_blend();
        (compile(&load), load)
    });
    let update = |snapshot: &Snapshot, catalog: &TenantCatalog, touched: &[Touched], load: &Workload| {
        snapshot.update(catalog, touched, load.revision())
    };
    for (name, write) in WRITES {
        group.bench_function(format!("update {name}/{thousands}k"), |bench| {
            let (snapshot, load) = &*base;
            let mut load = load.clone();
            let touched = write(&mut load);
            bench.iter(|| update(snapshot, load.tenant_catalog(), &touched, &load));
        });
    }
    group.bench_function(format!("update one offer, delta of 1 %/{thousands}k"), |bench| {
        let (snapshot, load) = &*base;
        let mut load = load.clone();
        let touched: Vec<_> = (0..10 * thousands as u64).flat_map(|index| load.edit(index, 50)).collect();
        let worn = update(snapshot, load.tenant_catalog(), &touched, &load);
        let touched = load.edit(3, 99);
        bench.iter(|| update(&worn, load.tenant_catalog(), &touched, &load));
    });
}

/// Prints what a profile takes encoded, with and without its attributes.
fn weigh(_: &mut Criterion) {
    let load = Workload::new(1_000, Extra::Nothing);
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

criterion_group!(benches, snapshots, weigh);
criterion_main!(benches);
