//! The order of it all: a cluster is started, loaded, maltreated, healed and examined.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::checker::{Verdict, check};
use crate::client::{Doors, Recorder};
use crate::history::{Operation, read};
use crate::limits::{LOOK_PAUSE, OK_MIN, SETTLE};
use crate::load::Shop;
use crate::nemesis::operator::Operator;
use crate::nemesis::{Fault, Kind, Nemesis};
use crate::report::{Report, Run};
use crate::supervisor::{Cluster, Started, panics};

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `proffer` binary.
    pub binary: PathBuf,
    /// Where history, report and the nodes' data and logs go.
    pub out: PathBuf,
    /// All draws come from it.
    pub seed: u64,
    /// For how long there are faults.
    pub faults: Duration,
    /// Which.
    pub kinds: Vec<Kind>,
    /// How many nodes.
    pub nodes: usize,
    /// How many shards.
    pub shards: u16,
    /// How many clients, beside those that read accounts, edit and exclude.
    pub clients: u64,
}

/// Units of the scarce offer, by how long a run is: it sells out in the course of it.
const SCARCE_PER_SECOND: u64 = 5;
/// Acknowledged outcomes that are sent once more, at most.
const REPEATS_MAX: usize = 4_000;
const REPEATS_AT_ONCE: u64 = 8;
/// Some calls without faults, before and after.
const CALM: Duration = Duration::from_secs(2);
/// A slow machine has so long to answer enough calls, once the faults are over.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it, and writes `history.jsonl`, `report.json`, `report.md` and `throughput.svg`.
///
/// # Errors
/// When the cluster cannot be started or loaded at all, or nothing can be written: what goes wrong under faults is in the report.
pub async fn run(settings: &Settings) -> anyhow::Result<Report> {
    std::fs::create_dir_all(&settings.out).with_context(|| format!("cannot make {}", settings.out.display()))?;
    let nodes = settings.out.join("nodes");
    if nodes.exists() {
        std::fs::remove_dir_all(&nodes)?;
    }
    let mut cluster = Cluster::new(&settings.binary, &nodes, settings.shards).await?;
    let operator = Operator::new(cluster.urls())?;
    // The first founds the cluster that the others join.
    for number in 0..settings.nodes {
        cluster.start(number)?;
        if let Started::Refused(words) = cluster.started(number).await? {
            anyhow::bail!("node {number} did not start: {words}");
        }
    }
    operator.whole(&cluster).await?;

    let history_path = settings.out.join("history.jsonl");
    let recorder = Arc::new(Recorder::start(&history_path)?);
    let (open, members) = watch::channel(cluster.members());
    let doors = Arc::new(Doors { urls: cluster.urls(), open: members });
    let limit = (settings.faults.as_secs() * SCARCE_PER_SECOND).max(1);
    let shop = Shop::open(doors, Arc::clone(&recorder), limit).await?;
    let inside = shop.fill(settings.clients, settings.seed)?;
    let mut nemesis = Nemesis::new(cluster, operator, Arc::clone(&recorder), settings.seed, open);
    let (faults, mut recovery) = suffer(&mut nemesis, settings).await;
    if recovery.is_ok() {
        let until = Instant::now() + PATIENCE;
        while recorder.answered() < OK_MIN as u64 && Instant::now() < until {
            sleep(LOOK_PAUSE).await;
        }
    }
    shop.close();
    leave(inside).await?;
    if recovery.is_ok() {
        sleep(SETTLE).await;
        recovery = examine(&shop).await;
    }
    nemesis.cluster.look()?;
    recorder.note("the nodes are told to stop".to_owned());
    for number in nemesis.cluster.members() {
        if !nemesis.cluster.terminate(number).await? {
            nemesis.cluster.blame(number, "it did not end well when it was told to stop");
        }
    }
    recorder.finish()?;

    let history = read(BufReader::new(std::fs::File::open(&history_path)?))?;
    let mut verdicts = check(&history);
    verdicts.push(stood(&nemesis.cluster, &faults, recovery, settings)?);
    verdicts.push(enough(&history, &faults, &settings.kinds));
    let run = Run {
        seed: settings.seed,
        nodes: settings.nodes,
        shards: settings.shards,
        clients: settings.clients,
        faults_for_s: settings.faults.as_secs(),
        kinds: settings.kinds.clone(),
    };
    let report = Report::new(run, &history, faults, verdicts);
    report.write(&settings.out)?;
    if report.passed {
        // Only what went wrong needs its disks to be understood.
        std::fs::remove_dir_all(&nodes)?;
    }
    Ok(report)
}

async fn suffer(nemesis: &mut Nemesis, settings: &Settings) -> (Vec<Fault>, anyhow::Result<()>) {
    sleep(CALM).await;
    let (faults, raged) = nemesis.rage(&settings.kinds, Instant::now() + settings.faults).await;
    let healed = match raged {
        Ok(()) => nemesis.heal().await.context("after the last fault"),
        Err(error) => Err(error),
    };
    if healed.is_ok() {
        sleep(CALM).await;
    }
    (faults, healed)
}

async fn leave(mut inside: JoinSet<()>) -> anyhow::Result<()> {
    while let Some(left) = inside.join_next().await {
        left?;
    }
    Ok(())
}

/// What the accounts say, and whether what was acknowledged is known; and that asking changed nothing.
async fn examine(shop: &Arc<Shop>) -> anyhow::Result<()> {
    shop.take_stock().await?;
    shop.repeat(REPEATS_MAX, REPEATS_AT_ONCE).await?;
    shop.take_stock().await
}

/// Nodes serve again once they are healed, and none ends or panics by itself.
fn stood(
    cluster: &Cluster,
    faults: &[Fault],
    recovery: anyhow::Result<()>,
    settings: &Settings,
) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::new("every node serves again once it can, and none ends or panics by itself");
    verdict.examined = faults.len();
    if let Err(error) = recovery {
        verdict.violated(format!("{error:#}"), []);
    }
    for death in cluster.deaths() {
        verdict.violated(death.clone(), []);
    }
    for entry in std::fs::read_dir(settings.out.join("nodes"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            for panic in panics(&path) {
                verdict.violated(format!("{}: {panic}", path.display()), []);
            }
        }
    }
    Ok(verdict)
}

/// A run that saw too little says nothing.
fn enough(history: &[Operation], faults: &[Fault], kinds: &[Kind]) -> Verdict {
    let mut verdict = Verdict::new("each named fault was injected, and a thousand calls were answered");
    verdict.examined = history.iter().filter(|operation| operation.answered().is_some()).count();
    if verdict.examined < OK_MIN {
        verdict.violated(format!("{} calls were answered", verdict.examined), []);
    }
    let injected: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
    for kind in kinds.iter().filter(|kind| !injected.contains(kind)) {
        verdict.violated(format!("no {} was injected", kind.as_str()), []);
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Call, Outcome};

    #[test]
    fn a_run_without_a_named_fault_or_with_few_answers_fails() {
        let answered = |id: u64| Operation {
            id,
            client: 0,
            invoked_us: id,
            call: Call::ReadProfile { customer: "c".to_owned() },
            outcome: Outcome::Ok { sent_us: id, returned_us: id, answer: Answer::Profile { value: None } },
        };
        let fault = |kind| Fault {
            kind,
            what: String::new(),
            from_us: 0,
            until_us: 1,
            hit_a_leader: false,
            keeps_quorum: true,
        };
        let history: Vec<_> = (0..OK_MIN as u64).map(answered).collect();
        let kinds = [Kind::Kill, Kind::Wipe];
        assert!(enough(&history, &[fault(Kind::Wipe), fault(Kind::Kill)], &kinds).holds());
        assert_eq!(enough(&history, &[fault(Kind::Wipe), fault(Kind::Wipe)], &kinds).violations, 1);
        assert_eq!(enough(&history[1..], &[fault(Kind::Wipe), fault(Kind::Kill)], &kinds).violations, 1);
    }
}
