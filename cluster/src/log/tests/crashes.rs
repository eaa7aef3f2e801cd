//! Power cuts and rot at every place, against a naive model of what the log should hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// One thing that a caller does.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Append { group: u64, bytes: usize, count: usize },
    State { group: u64 },
    Truncate { group: u64, back: u64 },
    Purge { group: u64, keep: u64 },
    Destroy { group: u64 },
    Idle,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let group = 0..3_u64;
    let act = prop_oneof![
        8 => (group.clone(), 0..120_usize, 1..4_usize)
            .prop_map(|(group, bytes, count)| Act::Append { group, bytes, count }),
        1 => group.clone().prop_map(|group| Act::State { group }),
        1 => (group.clone(), 0..4_u64).prop_map(|(group, back)| Act::Truncate { group, back }),
        1 => (group.clone(), 0..4_u64).prop_map(|(group, keep)| Act::Purge { group, keep }),
        1 => group.prop_map(|group| Act::Destroy { group }),
        2 => Just(Act::Idle),
    ];
    prop::collection::vec(act, 1..40)
}

/// What the log should hold: the naive version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    groups: BTreeMap<u64, ModelGroup>,
    written: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelGroup {
    first: u64,
    entries: Vec<Vec<u8>>,
    state: Option<Vec<u8>>,
}

impl Model {
    /// Does what the act says, here and in the log; the log's answer.
    pub(super) async fn act(&mut self, log: &Log, act: &Act) -> Result<(), LogError> {
        self.written += 1;
        let stamp = self.written;
        let next = |group: u64, model: &Model| model.groups.get(&group).map_or(1, |g| g.first + g.entries.len() as u64);
        match *act {
            Act::Append { group, bytes, count } => {
                let first = next(group, self);
                let payload = |n: usize| [&stamp.to_le_bytes()[..], &n.to_le_bytes()[..], &vec![9; bytes]].concat();
                let payloads: Vec<_> = (0..count).map(payload).collect();
                let known = self.groups.entry(group).or_insert(ModelGroup { first, ..ModelGroup::default() });
                known.entries.extend(payloads.clone());
                log.append_all(GroupId(group), first, payloads).await
            }
            Act::State { group } => {
                let known = self.groups.entry(group).or_insert(ModelGroup { first: 1, ..ModelGroup::default() });
                known.state = Some(stamp.to_le_bytes().to_vec());
                log.save_state(GroupId(group), stamp.to_le_bytes().to_vec()).await
            }
            Act::Truncate { group, back } => {
                let Some(known) = self.groups.get_mut(&group).filter(|known| !known.entries.is_empty()) else {
                    return Ok(());
                };
                let keep = known.entries.len().saturating_sub(back as usize);
                known.entries.truncate(keep);
                log.truncate(GroupId(group), known.first + keep as u64).await
            }
            Act::Purge { group, keep } => {
                let Some(known) = self.groups.get_mut(&group).filter(|known| !known.entries.is_empty()) else {
                    return Ok(());
                };
                let drop = known.entries.len().saturating_sub(keep as usize);
                known.entries.drain(..drop);
                known.first += drop as u64;
                log.purge(GroupId(group), known.first - 1).await
            }
            Act::Destroy { group } => {
                self.groups.remove(&group);
                log.destroy(GroupId(group)).await
            }
            Act::Idle => {
                idle().await;
                Ok(())
            }
        }
    }
}

/// What the log holds. An entry that cannot be read is an error.
pub(super) async fn contents(log: &Log, recovery: &Recovery) -> Result<BTreeMap<u64, ModelGroup>, LogError> {
    let mut groups = BTreeMap::new();
    for (&id, bounds) in &recovery.groups {
        let next = bounds.next.unwrap_or(bounds.first);
        let mut found = ModelGroup { first: bounds.next.map_or(1, |_| bounds.first), ..ModelGroup::default() };
        found.state = log.state(id);
        while found.first + (found.entries.len() as u64) < next {
            let from = found.first + found.entries.len() as u64;
            found.entries.extend(log.read(id, from, next).await?.into_iter().map(|entry| entry.payload));
        }
        groups.insert(id.0, found);
    }
    Ok(groups)
}

/// Whether `found` is `before` with a part of one more act: some of its entries, or all that it changes.
pub(super) fn lies_between(before: &Model, found: &BTreeMap<u64, ModelGroup>, after: &Model) -> bool {
    let names = before.groups.keys().chain(after.groups.keys()).chain(found.keys());
    names.into_iter().all(|name| {
        let (old, new, now) = (before.groups.get(name), after.groups.get(name), found.get(name));
        let part = |now: &ModelGroup, new: &ModelGroup| {
            let enough = now.entries.len() >= old.map_or(0, |old| old.entries.len());
            enough && now.first == new.first && now.state == new.state && new.entries.starts_with(&now.entries)
        };
        now == old || now == new || now.zip(new).is_some_and(|(now, new)| part(now, new))
    })
}

pub(super) fn on_paused_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test)
}

/// Does the acts until one fails; what was acknowledged, and that with the act that was not.
async fn run(log: &Log, acts: &[Act]) -> (Model, Model) {
    let mut acknowledged = Model::default();
    for act in acts {
        let mut attempted = acknowledged.clone();
        if attempted.act(log, act).await.is_err() {
            return (acknowledged, attempted);
        }
        acknowledged = attempted;
    }
    (acknowledged.clone(), acknowledged)
}

/// Every disk call of a run that begins, fills, purges and removes segments is the last one before the power goes, and the
/// unsynced end is torn in several ways: what was acknowledged is there, nothing is called corrupt, and the log goes on.
#[test]
fn power_cut_at_every_disk_call_loses_nothing_acknowledged() {
    let append = |group, bytes| Act::Append { group, bytes, count: 2 };
    let mut acts = vec![Act::State { group: 0 }, append(2, 10), Act::State { group: 2 }];
    for round in 0..12 {
        acts.extend([append(0, 60), append(1, 30)]);
        if round % 3 == 1 {
            acts.extend([Act::Idle, Act::Truncate { group: 0, back: 1 }, Act::Purge { group: 1, keep: 1 }]);
        }
        if round % 4 == 3 {
            acts.extend([Act::Purge { group: 0, keep: 0 }, Act::Purge { group: 2, keep: 0 }, Act::Idle]);
        }
    }
    on_paused_runtime(async {
        let mut cuts = 0;
        for calls in 0.. {
            let mut finished = false;
            for torn in [0, 1, 30, 41, 75, 150, usize::MAX] {
                let host = Host::small_segments();
                host.disk.fail_after(calls);
                let (acknowledged, attempted) = match host.try_open().await {
                    Ok((log, _)) => run(&log, &acts).await,
                    Err(_) => (Model::default(), Model::default()),
                };
                finished = host.fatal().is_empty() && !acknowledged.groups.is_empty();
                host.cut_power(torn);
                let (log, recovery) = host.try_open().await.unwrap();
                let found = contents(&log, &recovery).await.unwrap();
                assert!(
                    lies_between(&acknowledged, &found, &attempted),
                    "after {calls} calls, {torn} torn bytes:\n{acknowledged:?}\n{found:?}\n{attempted:?}"
                );
                log.append(GroupId(9), 1, b"goes on".to_vec()).await.unwrap();
                cuts += 1;
            }
            if finished {
                break;
            }
        }
        assert!(cuts > 500, "only {cuts} cuts");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Several lives, each ended by a power cut at some disk call with a torn end of some length.
    #[test]
    fn any_run_of_power_cuts_loses_nothing_acknowledged(
        lives in prop::collection::vec((acts(), 0..80_u64, 0..300_usize), 1..4),
    ) {
        on_paused_runtime(async {
            let host = Host::small_segments();
            let mut known = Model::default();
            for (acts, calls, torn) in lives {
                host.disk.fail_after(calls);
                let mut attempted = known.clone();
                if let Ok((log, _)) = host.try_open().await {
                    for act in &acts {
                        attempted = known.clone();
                        if attempted.act(&log, act).await.is_err() {
                            break;
                        }
                        known = attempted.clone();
                    }
                }
                host.cut_power(torn);
                let (log, recovery) = host.try_open().await.unwrap();
                let found = contents(&log, &recovery).await.unwrap();
                assert!(lies_between(&known, &found, &attempted), "{known:?}\n{found:?}\n{attempted:?}");
                known.groups = found;
                known.written += 1;
            }
        });
    }

    /// One flipped bit anywhere in the files of a closed log: all of it is synced and marked but the last mark itself, so
    /// nothing is ever lost in silence.
    #[test]
    fn a_flipped_bit_is_reported_or_harmless(acts in acts(), file: prop::sample::Index, bit: prop::sample::Index) {
        on_paused_runtime(async {
            let host = Host::small_segments();
            let log = host.open().await;
            let (model, _) = run(&log, &acts).await;
            log.close().await.unwrap();
            let name = file.get(&host.files()).clone();
            let bit = bit.index(host.bytes(&name).len() * 8);
            host.disk.flip(&name, bit / 8, 1 << (bit % 8));
            match host.try_open().await {
                Ok((log, recovery)) => {
                    let found = contents(&log, &recovery).await.unwrap();
                    assert!(lies_between(&model, &found, &model), "{model:?}\n{found:?}");
                }
                Err(OpenError::Corrupt(found)) => assert!(!found.is_empty()),
                Err(other) => panic!("{other}"),
            }
        });
    }

    /// A power cut, and rot above the highest mark: a prefix is left that holds what was marked.
    #[test]
    fn rot_above_the_mark_leaves_a_prefix(acts in acts(), bit: prop::sample::Index) {
        on_paused_runtime(async {
            let host = Host::on(Arc::new(MemoryDisk::new()), LogOptions::default());
            let log = host.open().await;
            let appends = |act: &Act| matches!(act, Act::Append { .. });
            let (model, _) = run(&log, &acts.into_iter().filter(appends).collect::<Vec<_>>()).await;
            host.cut_power(0);
            let bytes = host.bytes(&host.last());
            let marked = format::highest_mark(&bytes, 1, None) as usize;
            let at = marked * 8 + bit.index((bytes.len() - marked) * 8);
            host.disk.flip(&host.last(), at / 8, 1 << (at % 8));
            let (log, recovery) = host.try_open().await.unwrap();
            let found = contents(&log, &recovery).await.unwrap();
            for (name, group) in &found {
                assert!(model.groups[name].entries.starts_with(&group.entries));
            }
            let dropped = recovery.dropped.map_or(bytes.len() as u64, |dropped| dropped.offset);
            assert!(dropped >= marked as u64);
        });
    }

    /// Files full of anything: an error or an empty log, never a panic.
    #[test]
    fn arbitrary_files_never_panic(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4)) {
        on_paused_runtime(async {
            let host = Host::new();
            for (number, bytes) in files.iter().enumerate() {
                let name = recover::segment_name(number as u64 + 1);
                host.disk.create(&name).unwrap();
                host.disk.append(&name, bytes).unwrap();
            }
            if let Ok((_, recovery)) = host.try_open().await {
                assert_eq!((files.len(), recovery.groups.len()), (1, 0));
            }
        });
    }
}
