//! From one start of a replica to the next it never goes back: neither its place in the log, nor its time, nor the catalogue's revision (promise 7).

use std::collections::BTreeMap;

use proffer_cluster::group::Group;
use proffer_engine::keys::Revision;
use proffer_engine::time::Timestamp;
use tokio::time::Instant;

use crate::check::{Invariant, Seen, State};

type Mark = (u64, Option<Timestamp>, Revision);

/// See the module.
#[derive(Default)]
pub struct NeverBack {
    marks: BTreeMap<(usize, u64, Group, u64), (Instant, Mark)>,
}

impl Invariant for NeverBack {
    fn sentence(&self) -> &'static str {
        "a replica never goes back"
    }

    fn look(&mut self, seen: &Seen) -> Result<(), String> {
        let now = match &*seen.state {
            State::Shard(_) => (seen.position.index, None, Revision(0)),
            State::Meta(state) => (seen.position.index, Some(state.log_time()), state.revision()),
        };
        let key = (seen.host, seen.start, seen.group, seen.replica);
        let (began, before) = self.marks.insert(key, (seen.began, now)).unwrap_or((seen.began, now));
        if began != seen.began {
            // It is read from the disk again, and what was applied before follows.
            return Ok(());
        }
        if now.0 < before.0 || now.1 < before.1 || now.2 < before.2 {
            return Err(format!("{} on h{}: {now:?} after {before:?}", seen.group, seen.host));
        }
        Ok(())
    }
}
