//! What this node has heard of replicas elsewhere: how far each had come, for good. A disk whose replicas have come less far than that
//! is an older copy of what it was, or has lost its end: it would vote against what it promised, and is not let in.
//!
//! Nodes tell each other about once a second, and only what is synced; what was heard is written down now and then. So an older copy
//! is known for what it is if it is older than that, and nobody is taken for one who has only lost what was never told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use crate::groups::RaftGroups;
use crate::home::Home;
use crate::identity::Reach;
use crate::limits::{COURIER_MS, REACH_TELL_MS, REACHES_KEPT_EVERY, REACHES_MAX};
use crate::meta::roster::Roster;
use crate::planted::{Bug, is};
use crate::post::{Message, Post};

impl Reach {
    /// Whether a replica that was at `before` cannot be here any more. Terms and entries only rise, but that a leader of a later term
    /// may take back what was not committed.
    fn is_behind(&self, before: &Reach) -> bool {
        let is_shorter = self.last < before.last;
        self.term < before.term || is_shorter && before.last.is_some_and(|last| self.term <= last.leader.term)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Witness {
    seen: Mutex<BTreeMap<u64, Reach>>,
}

impl Witness {
    /// Of a node that wrote this down.
    pub(crate) fn new(seen: BTreeMap<u64, Reach>) -> Self {
        Witness { seen: Mutex::new(seen) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Reach>> {
        self.seen.lock().expect("no holder panics")
    }

    /// Judges what a process that was not met before says of its replicas.
    ///
    /// # Errors
    /// Why its disk is not what it was.
    pub(crate) fn judge(&self, reaches: &[(u64, Reach)]) -> Result<(), String> {
        if is(Bug::ReplicaIdReused) {
            return Ok(());
        }
        let seen = self.lock();
        let behind = |(replica, reach): &&(u64, Reach)| seen.get(replica).is_some_and(|before| reach.is_behind(before));
        let Some((replica, reach)) = reaches.iter().find(behind) else { return Ok(()) };
        Err(format!(
            "replica {replica} there ends at {}, and had {} before: this is an older copy of its disk, or one that lost its end; \
             begin with an empty directory, and remove the node that it was",
            in_words(reach),
            in_words(&seen[replica])
        ))
    }

    /// Takes note of what a node says of its replicas.
    pub(crate) fn note(&self, reaches: &[(u64, Reach)]) {
        let mut seen = self.lock();
        for (replica, reach) in reaches {
            if seen.len() >= REACHES_MAX && !seen.contains_key(replica) {
                continue;
            }
            let before = seen.entry(*replica).or_default();
            if !reach.is_behind(before) {
                *before = *reach;
            }
        }
    }

    fn forget(&self, roster: &Roster) {
        self.lock().retain(|replica, _| !roster.has_left(*replica));
    }
}

fn in_words(reach: &Reach) -> String {
    let term = reach.term;
    match reach.last {
        Some(last) => format!("entry {} of term {} (term {term})", last.index, last.leader.term),
        None => format!("no entry (term {term})"),
    }
}

/// Tells the other nodes how far the replicas here have come, and writes down what they told. Goes on for ever: stop it by dropping its
/// task.
pub(crate) async fn testify(
    post: Post,
    groups: Arc<RaftGroups>,
    witness: Arc<Witness>,
    home: Arc<Home>,
    roster: watch::Receiver<Arc<Roster>>,
) {
    for round in 1_u64.. {
        tokio::time::sleep(Duration::from_millis(REACH_TELL_MS)).await;
        let reaches = groups.reaches();
        if !reaches.is_empty() {
            post.tell_all(&Message::Reached(reaches), Duration::from_millis(COURIER_MS));
        }
        if round % REACHES_KEPT_EVERY == 0 {
            witness.forget(&roster.borrow());
            let seen = witness.lock().clone();
            if let Err(error) = home.change(|identity| identity.notes.seen = seen).await {
                tracing::warn!(%error, "what was heard of other nodes' replicas is not written down");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proffer_engine::profile::command::{Leader, Position};
    use proptest::prelude::*;

    use super::*;

    fn reach(term: u64, last: Option<(u64, u64)>) -> Reach {
        let at = |(term, index)| Position { leader: Leader { term, replica: term % 3 }, index };
        Reach { term, last: last.map(at) }
    }

    #[test]
    fn an_older_copy_is_behind_and_one_whose_end_a_later_leader_took_back_is_not() {
        let witness = Witness::default();
        witness.note(&[(7, reach(3, Some((3, 150))))]);
        for (now, is_old) in [
            (reach(3, Some((3, 150))), false),
            (reach(3, Some((3, 151))), false),
            (reach(3, Some((3, 149))), true),
            (reach(3, None), true),
            (reach(2, Some((2, 400))), true),
            (reach(4, Some((3, 149))), false),
            (reach(4, Some((4, 120))), false),
        ] {
            assert_eq!(witness.judge(&[(6, Reach::default()), (7, now)]).is_err(), is_old, "{now:?}");
        }
        let words = witness.judge(&[(7, reach(3, Some((3, 149))))]).unwrap_err();
        assert!(words.contains("older copy") && words.contains("entry 150"), "{words}");
        assert!(witness.judge(&[(8, Reach::default())]).is_ok(), "nothing is known of it");
    }

    #[test]
    fn what_is_noted_late_takes_nothing_back() {
        let witness = Witness::default();
        witness.note(&[(7, reach(3, Some((3, 150))))]);
        witness.note(&[(7, reach(3, Some((3, 140))))]);
        assert!(witness.judge(&[(7, reach(3, Some((3, 145))))]).is_err());
        witness.note(&[(7, reach(5, Some((3, 140))))]);
        assert!(witness.judge(&[(7, reach(5, Some((3, 140))))]).is_ok());
    }

    proptest! {
        /// A replica appends, votes, and lets a later leader take back what was not committed: whatever of that it told, and whatever
        /// got lost or came late, it is let in.
        #[test]
        fn nobody_is_refused_who_is_what_he_was(steps in prop::collection::vec((0..3_u8, 1..20_u64, any::<bool>()), 1..60)) {
            let (mut now, witness, mut late) = (reach(1, None), Witness::default(), Vec::new());
            for (kind, by, is_told) in steps {
                let index = now.last.map_or(0, |last| last.index);
                match kind {
                    0 => now = reach(now.term, Some((now.term, index + by))),
                    1 => now.term += by,
                    _ => {
                        // A leader of a later term takes back, and only what it writes itself comes after.
                        now.term += 1;
                        let left = index.saturating_sub(by);
                        now.last = now.last.filter(|_| left > 0).map(|last| Position { index: left, ..last });
                    }
                }
                prop_assert!(witness.judge(&[(1, now)]).is_ok());
                if is_told { witness.note(&[(1, now)]) } else { late.push((1, now)) }
                if by == 7 { witness.note(&late) }
                prop_assert!(witness.judge(&[(1, now)]).is_ok());
            }
        }
    }
}
