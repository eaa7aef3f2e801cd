//! Which processes are connected: a disk that was doubled, or an older copy of one, is noticed here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{Hello, Lane};
use crate::limits::PEER_NODES_SEEN_MAX;

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Theirs,
    Ours,
}

/// The id of those that have none yet: there may be many.
const NOBODY: u64 = 0;
/// Connections of one node: two sides, two lanes.
const PLACES: usize = 4;

fn place(side: Side, lane: Lane) -> usize {
    let side = match side {
        Side::Theirs => 0,
        Side::Ours => 2,
    };
    side + match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    }
}

/// The processes seen, by node.
#[derive(Default)]
pub(super) struct Registry {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    last: u64,
    nodes: BTreeMap<u64, Process>,
}

struct Process {
    disk: u128,
    boots: u64,
    nonce: u64,
    connections: [Option<(u64, Arc<Notify>)>; PLACES],
}

/// A connection's place in the registry, until it is dropped.
pub(super) struct Ticket {
    registry: Arc<Registry>,
    node: u64,
    place: usize,
    serial: u64,
    replaced: Arc<Notify>,
}

impl Registry {
    /// Whether this process has been let in before, as far as is remembered.
    pub(super) fn has_met(&self, hello: &Hello) -> bool {
        let seen = self.seen.lock().expect("no holder panics");
        seen.nodes.get(&hello.node).is_some_and(|process| process.nonce == hello.nonce)
    }

    /// Notes the process that says `hello`. Connections of an earlier start of its disk are closed.
    ///
    /// # Errors
    /// Why it cannot be that node.
    pub(super) fn meet(&self, hello: &Hello) -> Result<(), String> {
        if hello.node == NOBODY {
            return Ok(());
        }
        self.seen.lock().expect("no holder panics").meet(hello).map(drop)
    }

    /// Notes a connection with the process that says `hello`. One of the same process and lane is replaced.
    ///
    /// # Errors
    /// Why this process cannot be that node.
    pub(super) fn enter(self: &Arc<Self>, hello: &Hello, side: Side) -> Result<Ticket, String> {
        let (place, replaced) = (place(side, hello.lane), Arc::new(Notify::new()));
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.last += 1;
        let serial = seen.last;
        if hello.node == NOBODY {
            let registry = Arc::clone(self);
            return Ok(Ticket { registry, node: NOBODY, place, serial, replaced });
        }
        let process = seen.meet(hello)?;
        if let Some((_, before)) = process.connections[place].replace((serial, Arc::clone(&replaced))) {
            before.notify_one();
        }
        Ok(Ticket { registry: Arc::clone(self), node: hello.node, place, serial, replaced })
    }
}

impl Seen {
    fn meet(&mut self, hello: &Hello) -> Result<&mut Process, String> {
        let node = hello.node;
        if !self.nodes.contains_key(&node) && self.nodes.len() >= PEER_NODES_SEEN_MAX {
            self.nodes.retain(|_, process| process.is_connected());
            if self.nodes.len() >= PEER_NODES_SEEN_MAX {
                return Err(format!("{PEER_NODES_SEEN_MAX} nodes are connected"));
            }
        }
        let fresh =
            || Process { disk: hello.disk, boots: hello.boots, nonce: hello.nonce, connections: Default::default() };
        let process = self.nodes.entry(node).or_insert_with(fresh);
        if process.nonce == hello.nonce {
            return Ok(process);
        }
        if process.disk == hello.disk && hello.boots < process.boots {
            return Err(format!(
                "node {node} was started {} times before: this is an older copy of its disk ({} starts)",
                process.boots, hello.boots
            ));
        }
        if process.is_connected() {
            if process.disk != hello.disk {
                return Err(format!("node {node} is connected with another disk"));
            }
            if process.boots == hello.boots {
                return Err(format!("node {node} runs twice: its disk was doubled"));
            }
        }
        process.connections.iter().flatten().for_each(|(_, replaced)| replaced.notify_one());
        *process = fresh();
        Ok(process)
    }
}

impl Process {
    fn is_connected(&self) -> bool {
        self.connections.iter().any(Option::is_some)
    }
}

impl Ticket {
    /// Returns when another connection has taken the place of this one.
    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut seen = self.registry.seen.lock().expect("no holder panics");
        let Some(process) = seen.nodes.get_mut(&self.node) else { return };
        let connection = &mut process.connections[self.place];
        if connection.as_ref().is_some_and(|(serial, _)| *serial == self.serial) {
            *connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(disk: u128, boots: u64, nonce: u64) -> Hello {
        let (address, about) = (String::new(), Vec::new());
        Hello { lowest: 1, highest: 1, cluster: None, node: 1, disk, boots, nonce, lane: Lane::Control, address, about }
    }

    fn is_replaced(ticket: &Ticket) -> bool {
        let mut replaced = Box::pin(ticket.replaced());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        replaced.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn an_honest_reconnect_replaces_and_a_doubled_disk_is_refused() {
        let registry = Arc::new(Registry::default());
        let first = registry.enter(&hello(7, 3, 100), Side::Theirs).unwrap();
        let again = registry.enter(&hello(7, 3, 100), Side::Theirs).unwrap();
        assert!(is_replaced(&first));
        drop(first);
        let doubled = registry.enter(&hello(7, 3, 200), Side::Theirs).err().unwrap();
        assert!(doubled.contains("doubled"), "{doubled}");
        let ours = registry.enter(&hello(7, 3, 200), Side::Ours).err().unwrap();
        assert!(ours.contains("doubled"), "{ours}");
        let other = registry.enter(&hello(8, 9, 200), Side::Theirs).err().unwrap();
        assert!(other.contains("another disk"), "{other}");
        assert!(!is_replaced(&again));
        drop(again);
        registry.enter(&hello(7, 3, 200), Side::Theirs).expect("nobody is connected as this node");
    }

    #[test]
    fn a_restart_takes_over_and_an_older_copy_never_does() {
        let registry = Arc::new(Registry::default());
        let before = registry.enter(&hello(7, 3, 100), Side::Theirs).unwrap();
        let after = registry.enter(&hello(7, 4, 200), Side::Theirs).unwrap();
        assert!(is_replaced(&before));
        drop((before, after));
        let older = registry.enter(&hello(7, 3, 300), Side::Theirs).err().unwrap();
        assert!(older.contains("older copy"), "{older}");
    }
}
