//! Groups get the members that the roster means them to have (docs/adr/0012): one step after the other, each by the group's leader.

mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::actors::root::Supervisor;
use crate::groups::{Group, RaftGroups};
use crate::limits::{COURIER_MS, RECONCILE_MS, SETTLED_MS};
use crate::meta::roster::{Configured, Roster};
use crate::post::{Post, ToMeta};
use crate::raft::{HandOver, Step};
use step::{Doing, next_step};

/// See the module.
#[derive(Clone)]
pub(crate) struct Reconcile {
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) post: Post,
    pub(crate) supervisor: Supervisor,
    /// Steps that were right at the last look, and are made if they still are.
    pub(crate) seen: Arc<Mutex<BTreeMap<Group, Step>>>,
}

impl Reconcile {
    /// Looks after what this node leads for ever: stop it by dropping its task.
    pub(crate) async fn run(self) {
        let mut passes: BTreeMap<Group, JoinHandle<()>> = BTreeMap::new();
        let mut heard: BTreeMap<u64, Instant> = BTreeMap::new();
        loop {
            self.note_nodes(&mut heard);
            let settled: BTreeSet<u64> = heard
                .iter()
                .filter(|(_, since)| since.elapsed() >= Duration::from_millis(SETTLED_MS))
                .map(|(node, _)| *node)
                .collect();
            passes.retain(|_, pass| !pass.is_finished());
            for group in self.groups.led().into_keys() {
                passes.entry(group).or_insert_with(|| {
                    let (looking, settled) = (self.clone(), settled.clone());
                    tokio::spawn(async move { looking.pass(group, &settled).await })
                });
            }
            tokio::time::sleep(Duration::from_millis(RECONCILE_MS)).await;
        }
    }

    /// Since when each node has been there and willing to lead without a break.
    fn note_nodes(&self, heard: &mut BTreeMap<u64, Instant>) {
        let directory = &self.post.directory;
        let now: BTreeSet<u64> = directory.nodes().into_iter().filter(|node| directory.can_lead(*node)).collect();
        heard.retain(|node, _| now.contains(node));
        for node in now {
            heard.entry(node).or_insert_with(Instant::now);
        }
    }

    /// One look at a group, and one step.
    async fn pass(&self, group: Group, settled: &BTreeSet<u64>) {
        let Some(replica) = self.groups.replica(group) else { return };
        let Some(leader) = *replica.leads().borrow() else { return };
        // The roster first: what is reported was read after its target was known.
        let roster = Arc::clone(&self.roster.borrow());
        let Some(record) = roster.group(group) else { return };
        let Some(members) = replica.members() else { return };
        let doing = next_step(replica.id(), &members, record, &roster, |node| settled.contains(&node));
        let before = self.seen.lock().expect("no holder panics").remove(&group);
        match doing {
            Doing::Nothing | Doing::Wait => {}
            Doing::Change { step, twice: true } if before.as_ref() != Some(&step) => {
                self.seen.lock().expect("no holder panics").insert(group, step);
            }
            Doing::Change { step, .. } => {
                tracing::info!(%group, ?step, "the members change");
                if let Err(error) = replica.change_members(step, leader, members.at).await {
                    tracing::info!(%group, %error, "the members did not change; it is looked at again");
                }
            }
            Doing::HandOver(to) => {
                tracing::info!(%group, to, "the leadership is handed over");
                match replica.hand_over(to).await {
                    Ok(()) | Err(HandOver::NotLeading | HandOver::Behind) => {}
                    Err(HandOver::Stuck) => self.supervisor.restart(group),
                }
            }
            Doing::Report(found) => {
                let Some(at) = members.at else { return };
                let told = Configured { group, members: found, at, targets: record.targets };
                let deadline = Instant::now() + Duration::from_millis(COURIER_MS);
                // Until the roster says so, it is reported again.
                let _ = self.post.meta_once(ToMeta::Configured(told), deadline).await;
            }
        }
    }
}
