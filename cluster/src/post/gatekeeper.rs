//! Who is let in: nodes that the roster knows by this disk, whose replicas are where they were, and disks that are of no cluster yet.

use std::sync::Arc;

use bincode::{Decode, Encode};
use proffer_engine::codec;
use proffer_engine::level::Level;
use tokio::sync::watch;

use crate::groups::RaftGroups;
use crate::identity::Reach;
use crate::meta::roster::Roster;
use crate::meta::roster::change::too_old;
use crate::peers::{Gatekeeper, Hello};
use crate::timing::Timing;
use crate::witness::Witness;

/// What a node's hello says of it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum About {
    V1 {
        /// How far its replicas have come, as far as that is synced.
        reaches: Vec<(u64, Reach)>,
        /// The highest feature level that it can.
        can: Level,
        /// The one that its cluster is at, as far as it knows.
        at: Level,
        /// How long it waits for a leader.
        timing: Timing,
    },
}

/// Judges by the newest roster that this node has applied, and by what it has heard before.
pub(crate) struct Porter {
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) groups: Arc<RaftGroups>,
    pub(crate) witness: Arc<Witness>,
    /// The highest feature level that this node can.
    pub(crate) can: Level,
    /// What this node runs with.
    pub(crate) timing: Timing,
}

impl Porter {
    fn judge_disk(&self, hello: &Hello) -> Result<(), String> {
        let roster = self.roster.borrow();
        if roster.removed().any(|(node, disk)| node == hello.node || disk == hello.disk) {
            return Err(format!(
                "node n{} was removed from the cluster: it joins again with an empty disk",
                hello.node
            ));
        }
        match roster.node(hello.node) {
            Some(known) if known.info.disk != hello.disk => {
                Err(format!("node n{} has another disk than this one, which lost what that one promised", hello.node))
            }
            Some(known) if known.info.boots > hello.boots => Err(format!(
                "node n{} was started {} times already: this is an older copy of its disk",
                hello.node, known.info.boots
            )),
            // This node may not have heard of its joining yet.
            Some(_) | None => Ok(()),
        }
    }
}

impl Gatekeeper for Porter {
    fn about(&self) -> Vec<u8> {
        let at = self.roster.borrow().level();
        codec::encode(&About::V1 { reaches: self.groups.reaches(), can: self.can, at, timing: self.timing })
    }

    fn judge(&self, hello: &Hello, is_met: bool) -> Result<(), String> {
        if hello.node == 0 {
            return Ok(());
        }
        self.judge_disk(hello)?;
        let About::V1 { reaches, can, at, timing } = codec::decode("what a node says of itself", &hello.about)
            .map_err(|error| format!("node n{} cannot be understood: {error}", hello.node))?;
        let level = self.roster.borrow().level();
        if can < level {
            return Err(format!("node n{}: {}", hello.node, too_old(can, level)));
        }
        if at > self.can {
            return Err(format!("node n{} is ahead of this one: {}", hello.node, too_old(self.can, at)));
        }
        if timing != self.timing {
            return Err(format!("node n{}: {}", hello.node, self.timing.unlike(timing)));
        }
        if !is_met {
            // One that is connected already may have gone on since it said this.
            self.witness.judge(&reaches).map_err(|reason| format!("node n{}: {reason}", hello.node))?;
        }
        self.witness.note(&reaches);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::profile::command::{Leader, Position};

    use super::*;

    #[test]
    fn golden_bytes() {
        let last = Some(Position { leader: Leader { term: 2, replica: 3 }, index: 4 });
        let about = About::V1 {
            reaches: vec![(1, Reach { term: 5, last })],
            can: Level(7),
            at: Level(6),
            timing: Timing::Slow,
        };
        let bytes = [0, 1, 1, 5, 1, 2, 3, 4, 7, 6, 1];
        assert_eq!(codec::encode(&about), bytes);
        assert_eq!(codec::decode::<About>("about", &bytes).unwrap(), about);
    }
}
