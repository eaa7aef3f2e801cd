//! Groups get the members that the roster means them to have (docs/adr/0012): one step after the other, each by the group's leader, each
//! guarded by the configuration it was decided on.
//!
//! `step` decides, without doing anything; `drive` does it for one replica, as long as that leads.

mod drive;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::actors::root::Supervisor;
use crate::groups::{Group, RaftGroups};
use crate::limits::{COURIER_MS, FILLING_MAX, RECONCILE_MS, SETTLED_MS};
use crate::meta::roster::{Configured, Roster};
use crate::post::{Post, ToMeta};
pub(crate) use drive::{Around, OwnStart, run};
pub use step::{CaughtUp, Doing, next_step};

pub use crate::raft::{Members, Seat, Step};

/// Looks after the groups that this node leads.
pub(crate) struct Reconcile {
    pub(crate) own: OwnStart,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) post: Post,
    pub(crate) supervisor: Supervisor,
}

/// The loop of one replica; it ends with this.
struct Driving(JoinHandle<()>);

impl Drop for Driving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reconcile {
    /// Goes on for ever: stop it by dropping its task.
    pub(crate) async fn run(self) {
        let settled: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
        let around = self.around(&settled);
        let mut driven: BTreeMap<Group, Driving> = BTreeMap::new();
        let mut heard: BTreeMap<u64, Instant> = BTreeMap::new();
        loop {
            *settled.lock().expect("no holder panics") = self.settled(&mut heard);
            driven.retain(|_, driving| !driving.0.is_finished());
            for group in self.groups.led().into_keys() {
                if let Some(replica) = self.groups.replica(group) {
                    driven.entry(group).or_insert_with(|| Driving(tokio::spawn(run(replica, group, around.clone()))));
                }
            }
            tokio::time::sleep(Duration::from_millis(RECONCILE_MS)).await;
        }
    }

    fn around(&self, settled: &Arc<Mutex<BTreeSet<u64>>>) -> Around {
        let (post, supervisor, settled) = (self.post.clone(), self.supervisor.clone(), Arc::clone(settled));
        Around {
            own: self.own,
            roster: self.roster.clone(),
            report: Arc::new(move |report| drop(tokio::spawn(tell(post.clone(), report)))),
            is_fit: Arc::new(move |node| settled.lock().expect("no holder panics").contains(&node)),
            is_stuck: Arc::new(move |group| supervisor.restart(group)),
            bulk: Arc::new(Semaphore::new(FILLING_MAX)),
        }
    }

    /// The nodes that have been there and willing to lead for a while without a break.
    fn settled(&self, heard: &mut BTreeMap<u64, Instant>) -> BTreeSet<u64> {
        let directory = &self.post.directory;
        let now: BTreeSet<u64> = directory.nodes().into_iter().filter(|node| directory.can_lead(*node)).collect();
        heard.retain(|node, _| now.contains(node));
        for node in now {
            heard.entry(node).or_insert_with(Instant::now);
        }
        let patience = Duration::from_millis(SETTLED_MS);
        heard.iter().filter(|(_, since)| since.elapsed() >= patience).map(|(node, _)| *node).collect()
    }
}

/// Takes a report to the meta group's leader. One that is lost is told again while the roster does not say so.
async fn tell(post: Post, report: Configured) {
    let deadline = Instant::now() + Duration::from_millis(COURIER_MS);
    if let Err(error) = post.meta_once(ToMeta::Configured(report), deadline).await {
        tracing::debug!(%error, "a report of a group's members was lost");
    }
}
