//! What of a disk may go on at a start, and what may not: replicas whose log is rotten, or may lack what they acknowledged, never vote
//! again. They are given up before anything runs and that is durable first; the cluster gives the node new ones (`hosting`), which
//! the others bring up to date. What nobody else has is never given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::StartError;
use crate::groups::Group;
use crate::home::Home;
use crate::identity::{Belonging, Identity};
use crate::log::{Corruption, Log, LogOptions, LogPorts, OnCorruption, OpenError, Recovery};
use crate::planted::{Bug, is};
use crate::ports::disk::{Disk, DiskError};
use crate::ports::offload::{self, Lane};
use crate::raft::{ReplicaPorts, is_indispensable};

/// Groups whose replica here was given up, and why, in words.
pub(crate) type GivenUp = BTreeMap<Group, String>;

impl Belonging {
    /// The replica of a group that lies here is never to run again.
    pub(crate) fn give_up(&mut self, group: Group) {
        if is(Bug::ReplicaIdReused) {
            return;
        }
        if let Some(replica) = self.seats.remove(&group) {
            self.leaving.insert(replica);
            self.left.insert(group, replica);
        }
    }
}

fn failed(what: &str, reason: impl ToString) -> StartError {
    StartError::Recovery { what: what.to_owned(), reason: reason.to_string() }
}

/// Opens the log. Replicas whose part of it is rotten are given up; where it cannot be told whose it is, all are, and the log is set
/// aside.
///
/// # Errors
/// As [`Log::open`]; rot is an error where something lies nowhere else.
pub(crate) async fn open_log(
    home: &Home,
    options: LogOptions,
    ports: LogPorts,
) -> Result<(Log, Recovery, GivenUp), StartError> {
    let what = "the write-ahead log";
    let identity = home.identity().await;
    let options = LogOptions { expected: identity.log, on_corruption: OnCorruption::Refuse, ..options };
    let corruptions = match Log::open(options, ports.clone()).await {
        Ok((log, recovery)) => return Ok((log, recovery, GivenUp::new())),
        Err(OpenError::Corrupt(corruptions)) => corruptions,
        Err(error) => return Err(failed(what, error)),
    };
    let Some(hurt) = hurt(&identity, &corruptions) else {
        return Err(failed(what, OpenError::Corrupt(corruptions)));
    };
    let words = OpenError::Corrupt(corruptions.clone()).to_string();
    tracing::error!(reason = %words, groups = ?hurt.keys().collect::<Vec<_>>(), "replicas are given up, and renewed from others");
    let can_be_told = corruptions.iter().all(|corruption| corruption.group.is_some()) && !is(Bug::ReplicaIdReused);
    let kept = home.change(|identity| {
        if !can_be_told {
            identity.log = None;
        }
        if let Some(cluster) = &mut identity.cluster {
            hurt.keys().for_each(|group| cluster.give_up(*group));
        }
    });
    kept.await.map_err(|error| failed("the disk's identity", error))?;
    let options = if can_be_told {
        LogOptions { on_corruption: OnCorruption::Isolate, ..options }
    } else {
        let (disk, boots) = (Arc::clone(&ports.disk), identity.boots);
        let aside = offload::call(&*ports.offload, Lane::Bulk, move || set_aside(&*disk, boots)).await;
        aside.map_err(|lost| failed(what, lost))?.map_err(|error| failed(what, error))?;
        LogOptions { expected: None, ..options }
    };
    let (log, recovery) = Log::open(options, ports).await.map_err(|error| failed(what, error))?;
    Ok((log, recovery, hurt))
}

/// The groups of replicas that are hurt, with why; `None` if one of them lies nowhere else.
fn hurt(identity: &Identity, corruptions: &[Corruption]) -> Option<GivenUp> {
    let cluster = identity.cluster.as_ref()?;
    let mut hurt = GivenUp::new();
    for (group, replica) in &cluster.seats {
        let is_of = |corruption: &&Corruption| corruption.group.is_none_or(|whose| whose.0 == *replica);
        if let Some(corruption) = corruptions.iter().find(is_of) {
            hurt.insert(*group, format!("its log is rotten: {corruption}"));
        }
    }
    hurt.keys().all(|group| !identity.notes.alone.contains(group)).then_some(hurt)
}

/// Gives the files of a log other names, under which no start finds them and an expert does.
fn set_aside(disk: &dyn Disk, boots: u64) -> Result<(), DiskError> {
    for name in disk.list()?.iter().filter(|name| name.starts_with("wal-") && name.ends_with(".log")) {
        disk.rename(name, &format!("{name}.{boots}.bad"))?;
    }
    disk.sync_dir()
}

/// After a run in memory: replicas that share their shard with others may have forgotten what they acknowledged, and are given up. The
/// meta group's is synced in every mode. One without which its group can do nothing goes on with what the disk holds.
///
/// # Errors
/// If the disk fails, or what lies nowhere else cannot be read.
pub(crate) async fn give_up_unsynced(home: &Home, ports: &ReplicaPorts) -> Result<GivenUp, StartError> {
    let identity = home.identity().await;
    let mut given_up = GivenUp::new();
    let seats = identity.cluster.map(|cluster| cluster.seats).unwrap_or_default();
    let shards = seats.into_iter().filter(|(group, _)| identity.notes.unsynced && *group != Group::Meta);
    for (group, replica) in shards {
        match is_indispensable(replica, ports).await {
            Ok(true) => tracing::warn!(%group, "its only voter goes on with what the disk holds"),
            Ok(false) => drop(given_up.insert(group, "its log was not synced".to_owned())),
            Err(error) if identity.notes.alone.contains(&group) => return Err(failed(&group.to_string(), error)),
            Err(error) => drop(given_up.insert(group, format!("its log was not synced, and cannot be read: {error}"))),
        }
    }
    let groups: BTreeSet<Group> = given_up.keys().copied().collect();
    let kept = home.settle(|cluster| groups.iter().for_each(|group| cluster.give_up(*group)));
    kept.await.map_err(|error| failed("the disk's identity", error))?;
    Ok(given_up)
}
