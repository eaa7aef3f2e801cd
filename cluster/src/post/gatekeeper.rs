//! Who is let in: nodes that the roster knows by this disk, and disks that are of no cluster yet.

use std::sync::Arc;

use tokio::sync::watch;

use crate::meta::roster::Roster;
use crate::peers::{Gatekeeper, Hello};

/// Judges by the newest roster that this node has applied.
pub(crate) struct Porter {
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
}

impl Gatekeeper for Porter {
    fn about(&self) -> Vec<u8> {
        Vec::new()
    }

    fn judge(&self, hello: &Hello) -> Result<(), String> {
        let roster = self.roster.borrow();
        if hello.node == 0 {
            return Ok(());
        }
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
