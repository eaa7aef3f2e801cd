//! Logs with faults of any kind, and files of nobody's making: an error, or a beginning of what was written; never another record.

use proffer_fuzz::Choices;

use super::crashes::{Act, Model, contents, lies_between, on_paused_runtime};
use super::*;

proffer_fuzz::targets!(damaged_log, any_files, segment);

/// Some acts, the log closed or cut off, and then faults in its files. With [`OnCorruption::Isolate`] groups that are not locked are whole.
fn damaged_log(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let acts: Vec<Act> = (0..1 + choices.below(24)).map(|_| act(&mut choices)).collect();
    on_paused_runtime(async {
        let host = Host::small_segments();
        let log = host.open().await;
        let mut was = vec![Model::default()];
        for act in &acts {
            let mut next = was.last().expect("there is a first").clone();
            next.act(&log, act).await.expect("the disk is well");
            was.push(next);
        }
        if choices.flag() {
            log.close().await.expect("the disk is well");
        }
        host.cut_power(usize::MAX);
        for _ in 0..=choices.below(2) {
            let name = choices.pick(&host.files()).clone();
            let mut bytes = host.bytes(&name);
            match choices.below(8) {
                // A segment that is missing altogether.
                0 if host.files().len() > 1 => {
                    host.disk.remove(&name).expect("it is there");
                    continue;
                }
                _ => choices.damage(&mut bytes),
            }
            host.disk.truncate(&name, 0).expect("it is there");
            host.disk.append(&name, &bytes).expect("there is room");
        }
        match host.try_open().await {
            Ok((log, recovery)) => {
                let found = contents(&log, &recovery).await.expect("what opens can be read");
                let is_beginning = was.windows(2).any(|pair| lies_between(&pair[0], &found, &pair[1]));
                assert!(is_beginning, "{found:?} was never so:\n{was:?}");
                log.append(GroupId(9), 1, b"goes on".to_vec()).await.expect("it goes on");
            }
            Err(OpenError::Corrupt(found)) => assert!(!found.is_empty()),
            Err(OpenError::Version { .. } | OpenError::Kind { .. } | OpenError::Missing { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    });
}

/// Files that nobody wrote, some of which begin as segments do.
fn any_files(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    on_paused_runtime(async {
        let host = Host::new();
        for number in 1..=1 + choices.below(3) as u64 {
            let home = format::Home { log_id: 5, segment: number };
            let mut file = Vec::new();
            if choices.flag() {
                let head_bytes = choices.pick(&[48, 0, u64::MAX]).saturating_add(choices.below(3) as u64);
                format::Header { version: 1, home, previous_len: choices.below(300) as u64, head_bytes }
                    .write(&mut file);
            }
            for _ in 0..choices.below(4) {
                frame(&mut choices, &mut file, home);
            }
            let length = choices.below(40);
            file.extend((0..length).map(|_| choices.byte()));
            let name = recover::segment_name(number);
            host.disk.create(&name).expect("it is new");
            host.disk.append(&name, &file).expect("there is room");
        }
        for on_corruption in [OnCorruption::Refuse, OnCorruption::Isolate] {
            let host = Host::on(Arc::new(host.disk.copy()), LogOptions { on_corruption, ..LogOptions::default() });
            if let Ok((log, recovery)) = host.try_open().await {
                for group in recovery.groups.keys() {
                    let _ = (log.state(*group), log.bounds(*group));
                }
            }
        }
    });
}

/// Frames with any numbers in them, sound or not, as one segment.
fn segment(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let home = format::Home { log_id: 5, segment: 3 };
    let mut file = Vec::new();
    format::Header { version: 1, home, previous_len: 0, head_bytes: 48 }.write(&mut file);
    while !choices.is_over() {
        frame(&mut choices, &mut file, home);
    }
    let _ = scan::scan(&file, 3, choices.flag());
    let mut damaged = file.clone();
    choices.damage(&mut damaged);
    for sealed in [false, true] {
        let (Ok(whole), Ok(found)) = (scan::scan(&file, 3, sealed), scan::scan(&damaged, 3, sealed)) else { continue };
        let known = |record: &scan::Record| !record.sound || whole.records.contains(record);
        assert!(found.records.iter().all(known), "{found:?} of {whole:?}");
    }
}

/// Appends a frame whose checksums are right and whose numbers need not be.
fn frame(choices: &mut Choices<'_>, file: &mut Vec<u8>, home: format::Home) {
    let offset = file.len() as u64;
    let number = |choices: &mut Choices<'_>| match choices.below(8) {
        0 => u64::MAX,
        1 => u64::MAX - 1,
        _ => choices.below(8) as u64,
    };
    match choices.below(8) {
        0 => format::write_mark(file, home, offset, offset.min(number(choices).saturating_mul(40))),
        kind => {
            let kinds = [
                format::Kind::Entry,
                format::Kind::State,
                format::Kind::Truncate,
                format::Kind::Purge,
                format::Kind::Destroy,
                format::Kind::Checkpoint,
            ];
            let kind = kinds[kind % kinds.len()];
            let payload: Vec<u8> = (0..choices.below(12)).map(|_| choices.byte() % 4).collect();
            format::write_record(file, home, offset, (GroupId(number(choices)), number(choices), kind), &payload);
        }
    }
}

fn act(choices: &mut Choices<'_>) -> Act {
    let group = choices.below(3) as u64;
    match choices.below(14) {
        0 => Act::State { group },
        1 => Act::Truncate { group, back: choices.below(4) as u64 },
        2 => Act::Purge { group, keep: choices.below(4) as u64 },
        3 => Act::Destroy { group },
        4 | 5 => Act::Idle,
        _ => Act::Append { group, bytes: choices.below(120), count: 1 + choices.below(3) },
    }
}
