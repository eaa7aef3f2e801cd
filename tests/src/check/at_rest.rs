//! At rest shards and ledger come to know the same of each other (docs/adr/0002): what was granted is received, what was returned is booked,
//! and what was so once is not under way for long.

use std::collections::BTreeMap;
use std::rc::Rc;

use proffer_cluster::group::Group;
use proffer_cluster::meta::state::MetaState;
use proffer_engine::keys::ShardId;
use proffer_engine::profile::cells::Look;
use proffer_engine::profile::shard::ShardState;

use super::{Seen, State};

/// A state and the entry that it stands at.
type At = (u64, Rc<State>);

/// The oldest and the newest state that were seen of each group.
#[derive(Default)]
pub struct AtRest(BTreeMap<Group, (At, At)>);

impl AtRest {
    /// Takes a state into account.
    pub fn see(&mut self, seen: &Seen) {
        let now = (seen.position.index, Rc::clone(&seen.state));
        let (oldest, newest) = self.0.entry(seen.group).or_insert_with(|| (now.clone(), now.clone()));
        if oldest.0 > now.0 {
            *oldest = now;
        } else if newest.0 < now.0 {
            *newest = now;
        }
    }

    fn meta(&self) -> Option<(&MetaState, &MetaState)> {
        let ((_, oldest), (_, newest)) = self.0.get(&Group::Meta)?;
        match (&**oldest, &**newest) {
            (State::Meta(oldest), State::Meta(newest)) => Some((oldest, newest)),
            (_, _) => None,
        }
    }

    fn shard(&self, shard: ShardId) -> Option<(&ShardState, &ShardState)> {
        let ((_, oldest), (_, newest)) = self.0.get(&Group::Shard(shard))?;
        match (&**oldest, &**newest) {
            (State::Shard(oldest), State::Shard(newest)) => Some((oldest, newest)),
            (_, _) => None,
        }
    }

    /// What was under way all the time, in words.
    pub fn under_way(&self) -> Vec<String> {
        let Some((then, now)) = self.meta() else { return Vec::new() };
        let mut under_way = Vec::new();
        for (id, account) in now.ledger().accounts().filter(|(_, account)| !account.is_soft()) {
            let granted = |shard| {
                let mut totals = then.ledger().account(id)?.totals();
                totals.find_map(|(of, totals)| (of == shard).then_some(totals.granted))
            };
            for (shard, told) in account.totals() {
                let Some((was, is)) = self.shard(shard) else { continue };
                let (Some(was), Some(is)) = (was.account(id), is.account(id)) else { continue };
                if granted(shard).is_some_and(|granted| granted > is.granted_seen()) {
                    let had = is.granted_seen();
                    under_way.push(format!("{id:?}: {shard:?} has received {had} of {} granted", told.granted));
                }
                if was.returned() > told.returned {
                    let returned = was.returned();
                    under_way
                        .push(format!("{id:?}: {} are booked of {returned} that {shard:?} returned", told.returned));
                }
            }
        }
        under_way
    }
}
