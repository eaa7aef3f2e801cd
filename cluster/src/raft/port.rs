//! A replica as the propose port of its state machine.

use std::fmt;
use std::sync::Arc;

use proffer_engine::profile::command::Leader;
use tokio::sync::watch;

use super::replica::Replica;
use super::types::{Commands, Results};
use crate::ports::propose::{Committed, Pending, Propose, Proposed};

/// See the module.
pub(crate) struct Port<C, R> {
    replica: Arc<Replica>,
    wrap: fn(Vec<C>) -> Commands,
    unwrap: fn(Results) -> Vec<R>,
}

impl<C, R> fmt::Debug for Port<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").finish_non_exhaustive()
    }
}

impl<C, R> Port<C, R> {
    /// Of a replica whose group takes what `wrap` makes of commands.
    pub(crate) fn new(replica: Arc<Replica>, wrap: fn(Vec<C>) -> Commands, unwrap: fn(Results) -> Vec<R>) -> Self {
        Port { replica, wrap, unwrap }
    }
}

impl<C: Send + Sync + 'static, R: Send + 'static> Propose<C, R> for Port<C, R> {
    fn propose(&self, commands: Vec<C>, expected: Leader) -> Pending<'_, Proposed<R>> {
        let commands = (self.wrap)(commands);
        Box::pin(async move {
            match self.replica.propose(commands, expected).await {
                Proposed::Applied(Committed { position, results }) => {
                    let results = results.into_iter().flat_map(self.unwrap).collect();
                    Proposed::Applied(Committed { position, results })
                }
                Proposed::Refused(reason) => Proposed::Refused(reason),
                Proposed::NotApplied(reason) => Proposed::NotApplied(reason),
                Proposed::Unknown => Proposed::Unknown,
            }
        })
    }

    fn leader(&self) -> watch::Receiver<Option<Leader>> {
        self.replica.leads()
    }

    fn stuck(&self) -> Option<String> {
        self.replica.stuck()
    }

    fn may_read(&self) -> bool {
        self.replica.holds_lease()
    }

    fn confirm(&self) -> Pending<'_, bool> {
        Box::pin(self.replica.confirm())
    }
}
