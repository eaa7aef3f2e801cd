//! Which nodes have been heard of lately. How long one was silent is counted in looks, each of which adds a bounded time: a process
//! that was itself stopped for an hour does not take everybody else for dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{NODE_GONE_MS, REPLACE_AFTER_MS, SILENCE_STEP_MS_MAX};

/// Collects who was heard between two looks. Whoever talks with other nodes says so here.
pub(crate) struct Hearing {
    heard: Mutex<BTreeSet<u64>>,
    replace_after: Duration,
}

impl Default for Hearing {
    fn default() -> Self {
        Hearing::new(Duration::from_millis(REPLACE_AFTER_MS))
    }
}

impl Hearing {
    /// What a node holds is replaced when it was silent for so long.
    pub(crate) fn new(replace_after: Duration) -> Self {
        Hearing { heard: Mutex::default(), replace_after }
    }

    /// A node of the cluster was heard.
    pub(crate) fn hear(&self, node: u64) {
        self.heard.lock().expect("no holder panics").insert(node);
    }

    fn take(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *self.heard.lock().expect("no holder panics"))
    }
}

/// How long each node has been silent.
#[derive(Default)]
pub(super) struct Silences {
    of: BTreeMap<u64, Duration>,
    last: Option<Instant>,
}

impl Silences {
    /// Looks who was heard since the last look; `nodes` are all there are but the own one.
    pub(super) fn look(&mut self, hearing: &Hearing, nodes: impl Iterator<Item = u64>, now: Instant) {
        let step = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let step = step.min(Duration::from_millis(SILENCE_STEP_MS_MAX));
        self.last = Some(now);
        let heard = hearing.take();
        let before = std::mem::take(&mut self.of);
        let silence = |node| {
            if heard.contains(&node) { Duration::ZERO } else { before.get(&node).map_or(step, |so_far| *so_far + step) }
        };
        self.of = nodes.map(|node| (node, silence(node))).collect();
    }

    /// Nodes that are not there at present.
    pub(super) fn gone(&self) -> BTreeSet<u64> {
        self.since(Duration::from_millis(NODE_GONE_MS))
    }

    /// Nodes that are to be replaced.
    pub(super) fn silent(&self, hearing: &Hearing) -> BTreeSet<u64> {
        self.since(hearing.replace_after)
    }

    fn since(&self, at_least: Duration) -> BTreeSet<u64> {
        self.of.iter().filter(|(_, silence)| **silence >= at_least).map(|(node, _)| *node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_silent_when_it_was_looked_for_often_enough_and_not_after_one_long_pause() {
        let hearing = Hearing::new(Duration::from_secs(5));
        let mut silences = Silences::default();
        silences.look(&hearing, [2, 3].into_iter(), Instant::now());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        silences.look(&hearing, [2, 3].into_iter(), Instant::now());
        assert!(silences.gone().is_empty(), "this process was stopped");
        for _ in 0..10 {
            hearing.hear(2);
            tokio::time::advance(Duration::from_millis(500)).await;
            silences.look(&hearing, [2, 3].into_iter(), Instant::now());
        }
        assert_eq!((silences.gone(), silences.silent(&hearing)), ([3].into(), [3].into()));
        hearing.hear(3);
        silences.look(&hearing, [2, 3].into_iter(), Instant::now());
        assert!(silences.gone().is_empty());
    }
}
