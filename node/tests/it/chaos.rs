//! A minute of the run that `proffer-chaos` makes for longer: nodes are killed, stopped, cut off, restarted and replaced, and all that their
//! clients saw holds.

use std::time::Duration;

use proffer_chaos::nemesis::Kind;
use proffer_chaos::run::{Settings, run};

use crate::nodes::ALONE;
use crate::process::BINARY;

#[tokio::test]
async fn no_fault_loses_what_was_acknowledged_or_sells_a_unit_twice() {
    let _alone = ALONE.lock().await;
    let out = tempfile::tempdir().expect("a temporary directory");
    let seed = std::env::var("PROFFER_CHAOS_SEED").map_or_else(|_| 7, |seed| seed.parse().expect("a number"));
    let report = run(&Settings {
        binary: BINARY.into(),
        out: out.path().to_owned(),
        seed,
        faults: Duration::from_secs(60),
        kinds: vec![Kind::Kill, Kind::Pause, Kind::Partition, Kind::Restart, Kind::Membership],
        nodes: 3,
        shards: 8,
        clients: 12,
    })
    .await
    .expect("the run can be made");
    if !report.passed {
        // The history and the logs are what a failure is understood by.
        let kept = out.keep();
        panic!("seed {seed}: {}\nkept in {}", report.markdown(), kept.display());
    }
    assert!(report.faults.iter().any(|felt| felt.fault.hit_a_leader), "no leader was hit: {}", report.markdown());
    for file in ["history.jsonl", "report.json", "report.md", "throughput.svg"] {
        assert!(out.path().join(file).exists(), "{file}");
    }
}
