//! A replica has in its log what it had applied a while ago, whatever happened to its node since: one that does not is another replica, with
//! another id, for the others count on what it said it had (docs/adr/0012). What was applied just now need not be on its own disk yet.

use std::collections::{BTreeMap, VecDeque};

use proffer_cluster::group::Group;
use proffer_engine::time::Timestamp;

use crate::check::{Invariant, Seen};

/// Nothing takes longer to get to the disk, however slow that is.
const DURABLE_MS: i64 = 10_000;

/// What a replica had applied so long ago, and what it has since.
#[derive(Default)]
struct Applied {
    durable: u64,
    lately: VecDeque<(Timestamp, u64)>,
}

/// See the module.
#[derive(Default)]
pub struct NothingForgotten {
    applied: BTreeMap<(Group, u64), Applied>,
}

impl Invariant for NothingForgotten {
    fn sentence(&self) -> &'static str {
        "a replica does not forget what it had"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let applied = self.applied.entry((seen.group, seen.replica)).or_default();
        while let Some((_, index)) = applied.lately.pop_front_if(|(at, _)| seen.at.since_ms(*at) >= DURABLE_MS) {
            applied.durable = applied.durable.max(index);
        }
        applied.lately.push_back((seen.at, seen.position.index));
        if seen.log_end < applied.durable {
            let Seen { host, group, replica, log_end, .. } = seen;
            let had = applied.durable;
            return Err(format!("{group}: replica {replica} on h{host} ends at entry {log_end}, and had {had}"));
        }
        Ok(())
    }
}
